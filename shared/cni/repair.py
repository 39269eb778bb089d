"""Repair attachments: their plugins make again the things that CHECK would miss, such as rules after a flush.

`run` repairs the part of one plugin in one attachment. `main` serves a process that repairs many, one after another.
Its input and output are lines of JSON:

    {"plugin": "portmap", "environment": {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/a", "CNI_IFNAME": "eth0",
     "CNI_PATH": "/opt/cni/bin"}, "config": {"cniVersion": "1.1.0", "name": "net", "type": "portmap", "prevResult": …},
     "cache": ["/var/lib/cni/results/net-c1-eth0", 1764360000000000000]}

    {"repaired": ["8080 in map hostports4 of table inet pycni is missing"]}
    {"error": {"code": 3, "msg": "CNI_NETNS '/run/netns/a' does not exist", "details": ""}, "repaired": []}

The configuration is that of CHECK: `prevResult` is the attachment's last result. `cache` is the file that the result is
from, and its time of modification in nanoseconds. It may be left out. Read each answer before the next request.
"""

from __future__ import annotations

import json  # faster than the executables' own, and slower only to import
import posix
import sys
from time import monotonic

from shared import signals, steps
from shared.cni import suite, turn
from shared.cni.call import Call
from shared.cni.errors import (
    CniError,
    InternalError,
    InvalidConfig,
    PluginNotAvailable,
    TryAgainLater,
    UnknownContainer,
)
from shared.cni.plugin import Unrestored, required_result
from shared.cni.versions import of_plugin
from shared.net import links, liveness, netns, peers, verify
from shared.net.netlink import Netlink
from shared.net.owner import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any

ANOTHER_CODE = 100  # of the answer alone; the specification leaves codes from 100 on to plugins
SCRIPT = "import sys; sys.path.insert(0, sys.argv[1]); from shared.cni.repair import main; main()"
FOREVER_SECONDS = 1e9
SEEN_SECONDS = 1.0
_seen: dict[tuple[str, ...], float] = {}  # the last attachment, with its namespace's mark, and the time


class AnotherInterface(CniError):
    """The interface at the namespace's path is not the one that ADD made."""

    code = ANOTHER_CODE


def run(
    module: ModuleType, environment: Mapping[str, str], config: Mapping[str, Any], cache: tuple[str, int] | None = None
) -> list[str]:
    """Repair the part of a plugin in an attachment. Return the texts by which CHECK would have named the losses.

    `environment` has the CNI_* variables of CHECK. A plugin without a function `repair` has nothing to repair. `cache`
    is the result's file and its time of modification: a runtime deletes it after DEL, and writes it after ADD.

    Raise UnknownContainer if the attachment was deleted, or its namespace is gone. Raise AnotherInterface if the path
    leads to another pod. Raise TryAgainLater
    only if another call is at work on it. Raise the error of CHECK if something is lost that cannot be made again.
    """
    repair = getattr(module, "repair", None)
    if repair is None:
        return []
    call = Call({**environment, "CNI_COMMAND": "ADD"})  # ADD has CHECK's variables, and is in each version
    call.read_config(json.dumps(config).encode(), of_plugin(module.__name__))
    call.command = "CHECK"
    try:
        with turn.take(call, module.__name__, seconds=turn.REPAIR_WAIT_SECONDS) as own:
            own.require_living()
            if cache:
                _require_unchanged(*cache)
            _require_same_pod(call)
            return _made(repair, call)
    finally:
        netns.close_all()


def _made(repair: Callable[[Call], list[str]], call: Call) -> list[str]:
    """Repair, and return the texts. Another lock's shortage is an error like others: the attachment is not busy."""
    try:
        return repair(call)
    except TryAgainLater as error:
        raise InternalError(error.msg, error.details) from None


def _require_unchanged(path: str, modified: int) -> None:
    """Raise UnknownContainer unless the cached result is the present one: the names may be another ADD's by now."""
    try:
        is_present = posix.stat(path).st_mtime_ns == modified
    except OSError:
        is_present = False
    if not is_present:
        raise UnknownContainer(f"the cached result {path} was deleted, or is a new one")


def _require_same_pod(call: Call) -> None:
    """Raise CniError unless the interface that ADD made is still at the namespace's path.

    Another pod may have the path by now. A veth's other end tells the attachment, if it is this suite's or the result
    names it; otherwise the MAC in the result tells it. A repair of the same attachment and namespace within the last
    second has seen that already: a list has several plugins.
    """
    now = monotonic()
    seen = (call.network, call.container_id, call.ifname, liveness.mark(call.netns))
    if now < _seen.get(seen, 0.0) + SEEN_SECONDS:
        return
    result = required_result(call)
    owner = Owner(call.network, call.container_id, call.ifname)
    pod_netns = netns.open_netns(call.netns)
    with pod_netns:
        link = links.get(Netlink(), call.ifname)
    if link is None:
        raise InternalError(f"link {call.ifname} is missing in {call.netns}")
    is_veth = links.kind(link) == "veth" and not pod_netns.is_own
    try:
        end = peers.of_link(Netlink(), pod_netns, owner, link) if is_veth else None
    except peers.Strange as error:
        raise AnotherInterface(error.msg) from None
    named = peers.names(result)
    if end is not None and peers.is_own(end, owner):
        is_same = True
    elif is_veth and named:
        is_same = end is not None and end["IFLA_IFNAME"] in named
    else:
        is_same = verify.own_mac(result, call) in ("", link.get("IFLA_ADDRESS"))
    if not is_same:
        raise AnotherInterface(f"{call.ifname} in {call.netns} is not the interface that ADD made")
    _seen.clear()
    _seen[seen] = now


def command() -> list[str]:
    """Return the command of a process that serves `main` with this installation's code."""
    from shared.executables import TREE

    return [sys.executable, "-IS", "-c", SCRIPT, str(TREE)]


def main() -> None:
    """Answer each line on stdin with a line on stdout, until stdin ends or SIGTERM comes."""
    from shared.executables import PLUGINS

    suite.plugins, suite.tree = PLUGINS, sys.argv[1]
    try:
        signals.install()
        rest = b""
        while True:
            with signals.interruptible(FOREVER_SECONDS):
                chunk = posix.read(0, 1 << 16)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                _write(_answer(line))
    except signals.Terminated:
        return


def _answer(line: bytes) -> dict[str, Any]:
    steps.begun.clear()
    try:
        return {"repaired": _serve(json.loads(line))}
    except CniError as error:
        return _described(error)
    except (ValueError, TypeError, KeyError) as error:
        return _described(InvalidConfig(f"the request is not of the protocol: {type(error).__name__}: {error}"))
    except Exception as error:  # noqa: BLE001  (other attachments wait behind this one)
        return _described(InternalError(f"unexpected {type(error).__name__}: {error}"))


def _serve(request: Any) -> list[str]:
    name = suite.plugins.get(request["plugin"])
    if name is None:
        raise PluginNotAvailable(f"{request['plugin']} is no plugin of this suite")
    module = __import__(name, fromlist=("add",))
    return run(module, request["environment"], request["config"], request.get("cache"))


def _described(error: CniError) -> dict[str, Any]:
    made = error.made if isinstance(error, Unrestored) else []
    return {"error": {"code": error.code, "msg": error.msg, "details": error.details}, "repaired": made}


def _write(answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[posix.write(1, data) :]
