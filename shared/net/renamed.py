"""Attachments of a network that has another name now: what they have stands under the former name."""

from __future__ import annotations

from shared.net import links, liveness
from shared.net.netlink import Netlink
from shared.net.owner import Owner, attachment
from shared.net.wire import RTM_GETLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netns import Netns


def former(owner: Owner, pod_netns: Netns | None) -> list[Owner]:
    """Return the owner under the names that the network had when the pod's interface was made, if they were others.

    A container has an interface of one name only once, so the attachment of another network that has it is the same.
    The aliases of the host's links tell, which a pod cannot change. A pod that is gone has no link any more.
    """
    if pod_netns is None or pod_netns.is_own or liveness.is_link(owner.host_link):
        return []
    try:
        host = Netlink()
    except OSError:  # there are no links either
        return []
    found = []
    for link in host.dump(RTM_GETLINK):
        made_for = attachment(link.get("IFLA_IFALIAS", ""))
        if made_for and made_for[1:] == (owner.container_id, owner.ifname) and links.kind(link) == "veth":
            found.append(Owner(*made_for))
    return [one for one in found if one.network != owner.network]
