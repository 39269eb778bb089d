"""Wait until a pod's link has addresses by router advertisements (SLAAC, RFC 4862)."""

from __future__ import annotations

from shared.net import addresses, wait
from shared.net.netlink import Netlink
from shared.net.wire import IFA_F_PERMANENT, IFA_F_TEMPORARY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.cni.ip import Prefix
    from shared.net.netlink import Message
    from shared.net.netns import Netns

ADVERTISEMENT_SECONDS = 15.0  # the kernel solicits routers up to three times, four seconds apart


def await_addresses(pod_netns: Netns, link: Message) -> list[Prefix]:
    """Return the link's addresses by router advertisements, when duplicate address detection has ended for them.

    Raises InternalError if none comes within 15 seconds, or another host has one.
    """
    found: list[Prefix] = []

    def is_settled() -> bool:
        found[:] = of_link(inside, link["index"])
        return bool(found) and addresses.is_settled(inside, link["index"])

    with pod_netns:
        inside = Netlink()
        name = link["IFLA_IFNAME"]
        wait.addresses_change(
            is_settled, ADVERTISEMENT_SECONDS, f'"slaac": {name} got no address by a router advertisement'
        )
    return found


def of_link(inside: Netlink, index: int) -> list[Prefix]:
    """Return the link's addresses by router advertisements, but for temporary ones."""
    others = IFA_F_PERMANENT | IFA_F_TEMPORARY

    def take(states: Iterator[tuple[Prefix, int]]) -> list[Prefix]:
        global_ones = ((one, flags) for one, flags in states if one.version == 6)
        return [one for one, flags in global_ones if not flags & others and one.address not in addresses.LINK_LOCAL]

    return addresses.scan(inside, index, take)
