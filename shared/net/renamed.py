"""Find attachments of a renamed network: the names of their objects derive from its former name."""

from __future__ import annotations

from shared.net import links, liveness
from shared.net.netlink import Netlink
from shared.net.owner import Owner, parse_alias
from shared.net.wire import RTM_GETLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netns import Netns


def former_owners(owner: Owner, pod_netns: Netns | None) -> list[Owner]:
    """Return the owner under each former name that the network had when the pod's interface was created.

    A container has an interface name only once, so another network's attachment with this name is the same attachment.
    The former name is in the alias of the host link, which a pod cannot change. A deleted pod has no link any more. The
    alias of a link in the pod counts as well (shared/net/sublinks.py): with a forged one, a pod loses its own address.
    """
    if pod_netns is None or pod_netns.is_own or liveness.is_link(owner.host_link):
        return []
    try:
        with pod_netns:
            inside = links.get(Netlink(), owner.ifname)
        host = Netlink()
    except OSError:  # without netlink sockets the host has no such links
        return []
    ends = [link for link in host.dump(RTM_GETLINK) if links.kind(link) == "veth"]
    found = []
    for link in [*ends, inside] if inside else ends:
        made_for = parse_alias(link.get("IFLA_IFALIAS", ""))
        if made_for and made_for[1:] == (owner.container_id, owner.ifname):
            found.append(Owner(*made_for))
    return [one for one in found if one.network != owner.network]
