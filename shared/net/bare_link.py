"""Use the link of a pod before it has addresses: IPAM plugins look through it for a server, or for other hosts."""

from __future__ import annotations

from shared.cni.errors import InternalError, UnsupportedField
from shared.net import links, sysctl, wait
from shared.net.netlink import Netlink
from shared.net.wire import IFF_BROADCAST, IFF_LOWER_UP, IFF_NOARP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.net.netlink import Message
    from shared.net.netns import Netns

CARRIER_SECONDS = 5.0  # hardware negotiates for some seconds
REPORTED = ("veth", "bridge")  # kinds whose state is unknown until the kernel has looked at the carrier


def bring_up(pod_netns: Netns, ifname: str, prepare: Callable[[str], None] = sysctl.refuse_advertisements) -> Message:
    """Bring the link up. Return it when it has carrier.

    `prepare(ifname)` runs before in the pod's namespace; without it router advertisements are refused.
    Raises UnsupportedField if the link cannot broadcast, InternalError if it has no carrier after 5 seconds.
    """
    with pod_netns:
        inside = Netlink()
        link = links.require(inside, ifname)
        kind = links.kind(link)
        prepare(ifname)
        links.set_up(inside, link["index"])

        def has_carrier() -> bool:
            link.update(links.require(inside, ifname))
            is_unknown = link["IFLA_OPERSTATE"] == links.IF_OPER_UNKNOWN and kind not in REPORTED
            return bool(link["IFLA_OPERSTATE"] == links.IF_OPER_UP or (is_unknown and link["flags"] & IFF_LOWER_UP))

        if not wait.links_change(has_carrier, CARRIER_SECONDS):
            raise InternalError(f"link {ifname} of the pod has no carrier, so nobody can be found through it")
        if link["flags"] & IFF_NOARP or not link["flags"] & IFF_BROADCAST:  # a link of ipvlan shows it when it is up
            raise UnsupportedField(
                f"link {ifname} ({kind}) has no broadcasts, so nobody can be found through it",
                'of ipvlan, "mode": "l2" can; the modes l3 and l3s cannot',
            )
    return link
