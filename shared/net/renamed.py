"""Attachments of a network that has another name now: what they have stands under the former name."""

from __future__ import annotations

from shared.net import links, liveness
from shared.net.netlink import Netlink
from shared.net.owner import Owner, attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message
    from shared.net.netns import Netns


def former(owner: Owner, pod_netns: Netns | None) -> list[Owner]:
    """Return the owner under the name that the network had when the pod's interface was made, if it was another.

    A container has an interface of one name only once, so the attachment of another network that has it is the same.
    """
    if pod_netns is None or pod_netns.is_own or liveness.is_link(owner.host_link):
        return []
    end = _host_end(pod_netns, owner.ifname)
    made_by = attachment(end.get("IFLA_IFALIAS", "")) if end else None
    is_same = made_by is not None and made_by[0] != owner.network and made_by[1:] == (owner.container_id, owner.ifname)
    return [Owner(*made_by)] if is_same and made_by else []


def _host_end(pod_netns: Netns, ifname: str) -> Message | None:
    try:
        host = Netlink()
    except OSError:  # there are no links either
        return None
    with pod_netns:
        inside = links.get(Netlink(), ifname)
    return links.host_end(host, inside) if inside else None
