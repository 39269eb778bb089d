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
    from shared.cni.ip import Prefix
    from shared.undo import Undo

UNKNOWN_COMMAND = 4  # what a plugin without GC or STATUS answers
S_IFMT, S_IFREG = 0o170000, 0o100000
FUNCTIONS = {"CHECK": "check", "DEL": "delete", "GC": "gc", "STATUS": "status"}


def ipam_type(call: Call) -> str:
    """The IPAM plugin that the configuration names, or an empty string; raises InvalidConfig if it cannot be one."""
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
    if not suite.plugins.get(kind, "ipam.").startswith("ipam."):
        raise invalid("ipam.type", kind, "is not an IPAM plugin")  # bridge would call itself without end
    return kind


def add(call: Call, undo: Undo) -> Result:
    """The addresses that the IPAM plugin assigns; `undo` gives them back."""
    steps.begin("ipam")
    path = _find(call)
    module = _own_module(path)
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
    ask = getattr(_own_module(_find(call)), "networks", None)
    return ask(call) if ask else []


def forward(call: Call) -> None:
    """Has the IPAM plugin serve the call's own command: CHECK, DEL, GC or STATUS; raises what it answers."""
    steps.begin("ipam")
    try:
        path = _find(call)
    except CniError as error:
        if call.command == "STATUS":
            raise PluginNotAvailable(error.msg, error.details) from None
        raise
    module = _own_module(path)
    if module is not None:
        getattr(module, FUNCTIONS[call.command])(call)
        return
    try:
        _execute(path, call, call.command)
    except DelegateError as error:
        # plugins from before version 1.1.0 do not know these, and have nothing to do then
        if call.command not in ("GC", "STATUS") or error.code != UNKNOWN_COMMAND:
            raise


def _find(call: Call) -> str:
    kind = ipam_type(call)
    for directory in call.path:
        path = f"{directory}/{kind}"
        try:
            if posix.stat(path).st_mode & S_IFMT == S_IFREG:
                return path
        except OSError:
            continue
    raise invalid("ipam.type", kind, f"is not a plugin in any directory of CNI_PATH ({':'.join(call.path)})")


def _own_module(path: str) -> ModuleType | None:
    name = suite.plugins.get(path.rpartition("/")[2])
    if name is None:
        return None
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        launcher = posix.read(descriptor, 4096)
        posix.close(descriptor)
    except OSError:
        return None
    # another installation's launcher, or the reference's plugin of the same name, is executed
    if f'main("{suite.tree}")'.encode() not in launcher:
        return None
    module: ModuleType = __import__(name, fromlist=("add",))
    return module


def _execute(path: str, call: Call, command: str) -> bytes:
    from shared.cni.execute import execute

    return execute(path, call, command)


def _json(path: str, output: bytes) -> object:
    try:
        return loads(output)
    except ValueError as error:
        raise InternalError(f"plugin {path} answered what is not JSON", str(error)) from None
