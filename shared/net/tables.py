"""Choose routing tables of a network namespace that nothing uses."""

from __future__ import annotations

import fcntl

from shared.cni.errors import TryAgainLater
from shared.cni.lock import Foreign, Wait
from shared.net import links, policy_rules
from shared.net.addresses import FAMILIES
from shared.net.messages import decode_part
from shared.net.wire import RTM_GETLINK, RTM_GETROUTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from shared.net.netlink import Message, Netlink
    from shared.net.netns import Netns
    from shared.net.policy_rules import Rules

RESERVED = (0, 253, 254, 255)  # linux/rtnetlink.h: unspecified, default, main, local
LAST = 2**32 - 1
LOCK_SECONDS = 30.0


class hold:  # noqa: N801  (used like a function)
    """Keep other calls, and the reference's sbr, from choosing a table of the namespace at the same time.

    The lock is on the namespace itself: it needs no file, and ends with the call. Raises TryAgainLater if another
    process holds it for `seconds`.
    """

    def __init__(self, pod_netns: Netns, seconds: float = LOCK_SECONDS) -> None:
        self.pod_netns = pod_netns
        self.seconds = seconds

    def __enter__(self) -> None:
        try:
            Wait(self.seconds).take(self.pod_netns.descriptor, self.pod_netns.path)
        except Foreign:
            raise TryAgainLater(f"the lock of {self.pod_netns.path} is held by a process of another user") from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self.pod_netns.descriptor, fcntl.LOCK_UN)


def of_route(route: Message) -> int:
    """Return the table of a route."""
    return int(route.get("RTA_TABLE") or route["table"])


def users(netlink: Netlink, rules: Rules, *, but: int = 0) -> dict[int, str]:
    """Return the tables that something uses, each with the words for one user.

    Leave out the routes through the link of index `but`.
    """
    found = {policy_rules.table(rule): f'the rule "from {rule.get("FRA_SRC", "all")}"' for rule in rules.all()}
    for family in FAMILIES.values():
        netlink.scan(RTM_GETROUTE, {"family": family}, lambda stream: found.update(_with_routes(stream, but)))
    netlink.scan(RTM_GETLINK, None, lambda stream: found.update(_with_vrfs(stream)))
    return found


def _with_routes(stream: Iterator[Message], but: int) -> dict[int, str]:
    return {of_route(route): "a route" for route in stream if not but or route.get("RTA_OIF") != but}


def _with_vrfs(stream: Iterator[Message]) -> dict[int, str]:
    return {of_vrf(link): f"VRF {link['IFLA_IFNAME']}" for link in stream if links.kind(link) == "vrf"}


def of_vrf(vrf: Message) -> int:
    """Return the table of a VRF."""
    from shared.net import kinds_wire

    data = vrf["IFLA_LINKINFO"].get("IFLA_INFO_DATA", b"")
    return int(decode_part("info_data/vrf", data, kinds_wire).get("IFLA_VRF_TABLE", 0))


def free(taken: dict[int, str], first: int, count: int = 1) -> list[int]:
    """Return the first free tables from `first` on."""
    candidates = (one for one in range(first, LAST + 1) if one not in taken and one not in RESERVED)
    return [next(candidates) for _ in range(count)]
