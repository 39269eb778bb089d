"""Wait until a pod's link has addresses by router advertisements (SLAAC, RFC 4862)."""

from __future__ import annotations

from shared.cni.result import IP
from shared.net import addresses, placements, wait
from shared.net.netlink import Netlink
from shared.net.wire import IFA_F_PERMANENT, IFA_F_TEMPORARY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.cni.ip import Prefix
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner

NOTED = "slaac"  # key of the link's note (shared/net/placements.py): the addresses
ADVERTISEMENT_SECONDS = 15.0  # the kernel solicits routers up to three times, four seconds apart


def complete(result: Result, owner: Owner, pod_netns: Netns, link: Message) -> None:
    """Wait for the link's addresses, note them, and add them to the result of the attachment. Raise InternalError."""
    by_router = _await_addresses(pod_netns, link)
    placements.extend(owner, **{NOTED: [str(address) for address in by_router]})
    result.ips += [IP(address, None, 0) for address in by_router]


def leave_out(result: Result, owner: Owner) -> None:
    """Take the noted addresses out of an attachment's result: routers may change them."""
    by_router = placements.read(owner).get(NOTED, ())
    result.ips = [ip for ip in result.ips if str(ip.address) not in by_router]


def _await_addresses(pod_netns: Netns, link: Message) -> list[Prefix]:
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
