"""Call the configuration's IPAM plugin: in this process if it belongs to the suite, else execute it."""

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

UNKNOWN_COMMAND = 4  # the error code of a plugin without GC or STATUS
S_IFMT, S_IFREG = 0o170000, 0o100000
FUNCTIONS = {"CHECK": "check", "DEL": "delete", "GC": "gc", "STATUS": "status"}


def ipam_type(call: Call) -> str:
    """Return the configuration's IPAM plugin, or an empty string. Raise InvalidConfig if it is none."""
    return _resolve(call)[0]


def needs_link(call: Call) -> bool:
    """Return True if the IPAM plugin releases leases through the pod's link, as any suite's DHCP client does."""
    return _named(call) == "dhcp"


def add(call: Call, undo: Undo) -> Result:
    """Return the IPAM plugin's result; `undo` releases the addresses."""
    steps.begin("ipam")
    path, module = _find(call)
    if module is not None:
        result: Result = module.add(call, undo)
        return result
    # from here on the plugin may have assigned an address, even if it fails or its answer is lost
    undo.push(f"release the address through {path}", lambda: _execute(path, call, "DEL"))
    return Result.from_json(_json(path, _execute(path, call, "ADD")), call.version, f"result of {path}")


def networks(call: Call) -> list[list[Prefix]]:
    """Return, for each address that a pod gets, its possible networks, each as its gateway's address.

    Return none if the IPAM plugin cannot tell: its module needs a function `networks`, and executables have none.
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
    """Have the IPAM plugin serve the call's own CHECK, DEL, GC or STATUS. Raise its error."""
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
        # plugins older than version 1.1.0 do not know these commands, and need do nothing
        if call.command not in ("GC", "STATUS") or error.code != UNKNOWN_COMMAND:
            raise


def _find(call: Call) -> tuple[str, ModuleType | None]:
    """Return the IPAM plugin's path, and its module if it belongs to this installation."""
    kind, path, name = _resolve(call)
    if not path:
        raise invalid("ipam.type", kind, f"is not a plugin in any directory of CNI_PATH ({':'.join(call.path)})")
    return path, __import__(name, fromlist=("add",)) if name else None


def _resolve(call: Call) -> tuple[str, str, str]:
    """Return ipam.type, its path in CNI_PATH, and the module that serves it; each may be empty.

    Raise InvalidConfig if it is one of the suite's plugins but not an IPAM plugin, under any name: otherwise bridge
    could call itself forever.
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
    """Return a plugin's path; empty if it is in no directory of CNI_PATH."""
    for directory in call.path:
        path = f"{directory}/{kind}"
        try:
            if posix.stat(path).st_mode & S_IFMT == S_IFREG:
                return path
        except OSError:
            continue
    return ""


def _own_module(path: str) -> str:
    """Return the module that an executable of this installation starts; empty if it must be executed."""
    try:
        tree, plugin = suite.launched(path) or ("", "")
    except OSError:
        return ""
    # the launcher of another installation, and a reference plugin of the same name, must be executed
    return suite.plugins.get(plugin, "") if tree == suite.tree else ""


def _execute(path: str, call: Call, command: str) -> bytes:
    from shared.cni.execute import execute

    return execute(path, call, command)


def _json(path: str, output: bytes) -> object:
    try:
        return loads(output)
    except ValueError as error:
        raise InternalError(f"plugin {path} answered what is not JSON", str(error)) from None
