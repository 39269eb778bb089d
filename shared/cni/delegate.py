"""Calls the IPAM plugin that a configuration names: in this process where it is the suite's own, otherwise executed."""

from __future__ import annotations

import posix

from shared import steps
from shared.cni import suite
from shared.cni.call import folded
from shared.cni.config import invalid
from shared.cni.errors import CniError, DelegateError, InternalError, PluginNotAvailable
from shared.cni.fastjson import loads
from shared.cni.names import is_name
from shared.cni.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from shared.cni.call import Call
    from shared.cni.ip import Address, Prefix
    from shared.undo import Undo

UNKNOWN_COMMAND = 4  # what a plugin without GC or STATUS answers
S_IFMT, S_IFREG = 0o170000, 0o100000
FUNCTIONS = {"CHECK": "check", "DEL": "delete", "GC": "gc", "STATUS": "status"}


def ipam_type(call: Call) -> str:
    """Return the IPAM plugin that the configuration names, or an empty string; raises InvalidConfig if it is none."""
    return _resolve(call)[0]


def add(call: Call, undo: Undo) -> Result:
    """The addresses that the IPAM plugin assigns; `undo` gives them back."""
    steps.begin("ipam")
    path, module = _find(call)
    if module is not None:
        result: Result = module.add(call, undo)
        return result
    # from here on the plugin may have assigned something, whatever it says, and even if nobody hears its answer
    undo.push(f"release the address through {path}", lambda: _execute(path, call, "DEL"))
    return Result.from_json(_json(path, _execute(path, call, "ADD")), call.version, f"result of {path}")


def networks(call: Call) -> list[list[Prefix]]:
    """Return, for each address that a pod gets, the networks that it can come from, each as its gateway's address.

    Empty if the IPAM plugin cannot tell: its module needs a function `networks`, which other executables do not have.
    """
    if not ipam_type(call):
        return []
    _, module = _find(call)
    ask = getattr(module, "networks", None)
    return ask(call) if ask else []


def holders(call: Call, addresses: list[Address]) -> set[str]:
    """Return the ids of the containers to which the addresses are leased, as far as this suite can read that.

    Another suite's IPAM plugin of the same name keeps the same files.
    """
    name = suite.plugins.get(_named(call), "")
    module = __import__(name, fromlist=("add",)) if name.startswith("ipam.") else None
    ask = getattr(module, "holders", None)
    return ask(call, addresses) if ask else set()


def forward(call: Call) -> None:
    """Has the IPAM plugin serve the call's own command: CHECK, DEL, GC or STATUS; raises what it answers."""
    steps.begin("ipam")
    try:
        path, module = _find(call)
    except CniError as error:
        if call.command == "STATUS":
            raise PluginNotAvailable(error.msg, error.details) from None
        raise
    if module is not None:
        getattr(module, FUNCTIONS[call.command])(call)
        return
    try:
        _execute(path, call, call.command)
    except DelegateError as error:
        # plugins from before version 1.1.0 do not know these, and have nothing to do then
        if call.command not in ("GC", "STATUS") or error.code != UNKNOWN_COMMAND:
            raise


def _find(call: Call) -> tuple[str, ModuleType | None]:
    """Return the path of the IPAM plugin, and its module if it is this installation's own."""
    kind, path, name = _resolve(call)
    if not path:
        raise invalid("ipam.type", kind, f"is not a plugin in any directory of CNI_PATH ({':'.join(call.path)})")
    return path, __import__(name, fromlist=("add",)) if name else None


def _resolve(call: Call) -> tuple[str, str, str]:
    """Return ipam.type, the path that it has in CNI_PATH and the module that serves it; each may be empty.

    Raises InvalidConfig if it is this suite's but no IPAM plugin, under whatever name: bridge would call itself without
    end.
    """
    kind = _named(call)
    path = _look(call, kind) if kind else ""
    name = _own_module(path) if path else ""
    if not (suite.plugins.get(kind, "ipam.").startswith("ipam.") and (name or "ipam.").startswith("ipam.")):
        raise invalid("ipam.type", kind, "is not an IPAM plugin")
    return kind, path, name


def _named(call: Call) -> str:
    ipam = folded(call.config, "ipam")
    if ipam is None:
        return ""
    if not isinstance(ipam, dict):
        raise invalid("ipam", ipam, "must be an object")
    kind = folded(ipam, "type")
    if kind is None or kind == "":
        return ""
    if not isinstance(kind, str) or not is_name(kind):
        raise invalid("ipam.type", kind, "must be the name of a plugin in CNI_PATH")
    return kind


def _look(call: Call, kind: str) -> str:
    """Return the path of a plugin, empty if no directory of CNI_PATH has it."""
    for directory in call.path:
        path = f"{directory}/{kind}"
        try:
            if posix.stat(path).st_mode & S_IFMT == S_IFREG:
                return path
        except OSError:
            continue
    return ""


def _own_module(path: str) -> str:
    """Return the module of this installation that an executable of any name starts, empty if it has to be executed."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        text = posix.read(descriptor, suite.LAUNCHER_BYTES)
        posix.close(descriptor)
    except OSError:
        return ""
    tree, plugin = suite.launched(text) or ("", "")
    # another installation's launcher, or the reference's plugin of the same name, is executed
    return suite.plugins.get(plugin, "") if tree == suite.tree else ""


def _execute(path: str, call: Call, command: str) -> bytes:
    from shared.cni.execute import execute

    return execute(path, call, command)


def _json(path: str, output: bytes) -> object:
    try:
        return loads(output)
    except ValueError as error:
        raise InternalError(f"plugin {path} answered what is not JSON", str(error)) from None
