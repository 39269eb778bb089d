"""loopback: brings up `lo` in the pod's network namespace."""

from __future__ import annotations

from shared import steps
from shared.cni.errors import InternalError
from shared.cni.ip import Prefix
from shared.cni.plugin import previous_result
from shared.cni.result import IP, Interface, Result
from shared.net import addresses, links, netns
from shared.net.netlink import Netlink
from shared.net.wire import IFF_UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.cni.call import Call
    from shared.undo import Undo

NAME = "lo"
LOOPBACK_NETWORKS = {4: Prefix.parse("127.0.0.0/8"), 6: Prefix.parse("::1/128")}


def add(call: Call, undo: Undo) -> Result:
    """Brings `lo` up, whatever CNI_IFNAME says; answers prevResult, or `lo` with its first address of each family."""
    given = previous_result(call)
    with netns.open_netns(call.netns):
        steps.begin("lo")
        pod = Netlink()
        loopback = links.require(pod, NAME)
        if not loopback["flags"] & IFF_UP:
            undo.push("take down lo", lambda: links.set_down(pod, loopback["index"]))
            links.set_up(pod, loopback["index"])
        first = addresses.scan(pod, loopback["index"], _first)
    if given is not None:
        return given
    result = Result()
    result.interfaces = [Interface(NAME, "00:00:00:00:00:00", call.netns)]
    result.ips = [IP(first[version], None, 0) for version in sorted(first)]
    return result


def _first(states: Iterator[tuple[Prefix, int]]) -> dict[int, Prefix]:
    """Return the first address of each IP version; raise InternalError for one that is not a loopback address."""
    first: dict[int, Prefix] = {}
    for prefix, _flags in states:
        if prefix.address not in LOOPBACK_NETWORKS[prefix.version]:
            raise InternalError(f"{NAME} has the address {prefix}, which is not a loopback address")
        first.setdefault(prefix.version, prefix)
    return first


def check(call: Call) -> None:
    """Raises InternalError where `lo` is down."""
    with netns.open_netns(call.netns):
        steps.begin("lo")
        if not links.require(Netlink(), NAME)["flags"] & IFF_UP:
            raise InternalError(f"{NAME} is down in {call.netns}")


def delete(call: Call) -> None:
    """Takes `lo` down; a namespace that is gone needs nothing."""
    pod_netns = netns.open_if_there(call.netns)
    if pod_netns is None:
        return
    with pod_netns:
        steps.begin("lo")
        pod = Netlink()
        links.set_down(pod, links.require(pod, NAME)["index"])


def gc(call: Call) -> None:
    """Nothing outlives the pod's namespace."""


def status(call: Call) -> None:
    """Every kernel has loopback."""
