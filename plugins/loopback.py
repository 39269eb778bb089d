"""loopback: brings up `lo` in the pod's network namespace."""

from __future__ import annotations

from shared import steps
from shared.cni.errors import InternalError
from shared.cni.ip import Prefix
from shared.cni.plugin import previous_result
from shared.cni.result import IP, Interface, Result
from shared.net import addresses, links, netns
from shared.net.netlink import Netlink
from shared.net.owner import ALIAS_PREFIX, Owner
from shared.net.wire import IFF_UP, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.cni.call import Call
    from shared.undo import Undo

NAME = "lo"
INDEX = 1  # LOOPBACK_IFINDEX in include/net/flow.h: a pod can rename its loopback, but it keeps this number
LOOPBACK_NETWORKS = {4: Prefix.parse("127.0.0.0/8"), 6: Prefix.parse("::1/128")}


def _alias(call: Call) -> str:
    """Return the alias that marks the `lo` brought up by this attachment: the path may lead to another pod at DEL."""
    owner = Owner(call.network, call.container_id, call.ifname)
    return owner.alias or f"{ALIAS_PREFIX}{owner.host_link}"


def _change(pod: Netlink, index: int, *, is_up: bool, alias: str) -> None:
    """Bring `lo` up or down, and set its alias; an empty alias deletes it."""
    flags = IFF_UP if is_up else 0
    pod.request(RTM_NEWLINK, {"index": index, "flags": flags, "change": IFF_UP, "IFLA_IFALIAS": alias})


def add(call: Call, undo: Undo) -> Result:
    """Bring `lo` up; CNI_IFNAME has no effect. Return prevResult, or `lo` with its first address of each family."""
    given = previous_result(call)
    with netns.open_netns(call.netns):
        steps.begin("lo")
        pod = Netlink()
        loopback = links.require(pod, NAME)
        was_up, former = bool(loopback["flags"] & IFF_UP), loopback.get("IFLA_IFALIAS", "")
        if not was_up or not former:
            index = loopback["index"]
            undo.push("set lo back", lambda: _change(pod, index, is_up=was_up, alias=former))
            _change(pod, index, is_up=True, alias=_alias(call))
        first = addresses.scan(pod, loopback["index"], _first)
    if given is not None:
        return given
    result = Result()
    result.interfaces = [Interface(NAME, "00:00:00:00:00:00", call.netns)]
    result.ips = [IP(first[version], None, 0) for version in sorted(first)]
    return result


def _first(states: Iterator[tuple[Prefix, int]]) -> dict[int, Prefix]:
    """Return the first address of each IP version. Raise InternalError for one that is not a loopback address."""
    first: dict[int, Prefix] = {}
    for prefix, _flags in states:
        if prefix.address not in LOOPBACK_NETWORKS[prefix.version]:
            raise InternalError(f"{NAME} has the address {prefix}, which is not a loopback address: delete it")
        first.setdefault(prefix.version, prefix)
    return first


def check(call: Call) -> None:
    """Raise InternalError if `lo` is down."""
    with netns.open_netns(call.netns):
        steps.begin("lo")
        if not links.require(Netlink(), NAME)["flags"] & IFF_UP:
            raise InternalError(f"{NAME} is down in {call.netns}: set it up there, or recreate the pod")


def delete(call: Call) -> None:
    """Take `lo` down if this attachment brought it up. Do nothing if the namespace is gone or another one."""
    pod_netns = netns.open_if_there(call.netns)
    if pod_netns is None:
        return
    steps.begin("lo")
    with pod_netns:
        pod = Netlink()
        loopback = links.by_index(pod, INDEX)
        if loopback and loopback.get("IFLA_IFALIAS") == _alias(call):
            _change(pod, INDEX, is_up=False, alias="")


def gc(call: Call) -> None:
    """Do nothing: `lo` vanishes with the pod's namespace."""


def status(call: Call) -> None:
    """Do nothing: every kernel has loopback."""
