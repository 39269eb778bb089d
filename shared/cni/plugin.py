"""Serve one call: read it, run the plugin's command, print the answer.

Only this module writes to stdout.
"""

from __future__ import annotations

import posix

from shared import signals, steps
from shared.cni import turn
from shared.cni.call import Call, folded
from shared.cni.errors import (
    CniError,
    InternalError,
    InvalidConfig,
    IOFailure,
    PluginNotAvailable,
    UnsupportedField,
)
from shared.cni.fastjson import dumps, loads
from shared.cni.result import Result
from shared.cni.suite import NODE_CONFIG
from shared.cni.versions import CURRENT, REFERENCE, of_plugin
from shared.undo import Undo, complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    # A part of an attachment: returns its differences from the state that ADD left, and makes it again as ADD made it.
    # None: nothing can make it again.
    Part = tuple[Callable[[], list[str]], Callable[[], object] | None]

STDIN_LIMIT = 16 << 20  # bytes
STDIN_SECONDS = 20.0
TEXT_LIMIT = 4096  # characters of an error text, which may quote large input


def serve(module: str) -> int:
    """Answer the call in the environment and on stdin. Return the error's code, 0 for success."""
    signals.install()
    version = CURRENT
    call: Call | None = None
    failure: CniError | None = None
    supported = of_plugin(module)
    environment = {key.decode(): value.decode(errors="surrogateescape") for key, value in posix.environ.items()
                   if key.startswith(b"CNI_") and key.isascii()}  # fmt: skip
    if not (environment.get("CNI_COMMAND") or environment.get("CNI_CONTAINERID")):
        _introduce(module, supported)
        return 0
    try:
        call = Call(environment)
        if call.command == "VERSION":
            _write(dumps({"cniVersion": _asked_version(supported), "supportedVersions": list(supported)}))
        else:
            call.read_config(_read_stdin(), supported)
            version = call.version
            if folded(call.config, "pycni") is not None:
                from shared.cni import log

                log.check(call)
            _dispatch(call, __import__(module, fromlist=("add",)))
    except CniError as error:
        failure = error
    except signals.Terminated as termination:
        failure = InternalError(f"terminated by signal {termination.args[0]}")
    except BaseException as error:  # noqa: BLE001  (the runtime must get a JSON object for any error)
        failure = InternalError(f"unexpected {type(error).__name__}: {error}", _place(error))
        failure.__cause__ = error
    if failure is not None:
        _fail(version, failure)
    _log(module, call, failure)
    return 0 if failure is None else failure.code


def _introduce(module: str, supported: tuple[str, ...]) -> None:
    """Answer an execution that is no call, as the reference does: nerdctl looks for features by this release."""
    name = module.rpartition(".")[2].replace("_", "-")
    text = f"CNI {name} plugin v{REFERENCE}+pycni\nCNI protocol versions supported: {', '.join(supported)}\n"
    try:
        posix.write(2, text.encode())
    except OSError:  # stderr is closed
        return


def _log(module: str, call: Call | None, failure: CniError | None) -> None:
    """Add the call to the log if one is configured. The runtime never notices a failure here."""
    steps.begin(steps.LOG)
    try:
        own = None if call is None else folded(call.config, "pycni")
        if own is not None or posix.access(NODE_CONFIG, posix.F_OK):
            from shared.cni import log

            log.write(module, call, failure)
    except (Exception, signals.Terminated) as error:  # noqa: BLE001  (the answer has been printed)
        complain(f"cannot write the log: {error}")


def _dispatch(call: Call, plugin: ModuleType) -> None:
    if call.command == "ADD":
        with turn.take(call, plugin.__name__), Undo() as undo:
            result = plugin.add(call, undo)
            steps.begin(steps.ANSWER)
            text = dumps(result.to_json(call.version))
            signals.safe_point()
            _write(text)
            signals.ignore()
    elif call.command == "CHECK":
        if folded(call.config, "prevResult") is None:
            raise InvalidConfig('invalid configuration: "prevResult" is required for CHECK')
        plugin.check(call)
    elif call.command == "DEL":
        with turn.take(call, plugin.__name__):
            plugin.delete(call)
    elif call.command == "GC":
        plugin.gc(call)
    else:
        plugin.status(call)


def previous_result(call: Call) -> Result | None:
    """Return the configuration's prevResult, of any version; None without one."""
    raw = folded(call.config, "prevResult")
    return None if raw is None else Result.from_json(raw, call.version, "prevResult")


def required_result(call: Call) -> Result:
    """Return prevResult. Raise InvalidConfig without one: a plugin before this one must make the interface."""
    result = previous_result(call)
    if result is None:
        raise InvalidConfig('invalid configuration: "prevResult" is required: another plugin must make the interface')
    return result


def readable_result(call: Call) -> Result | None:
    """Return prevResult; None also if it is unreadable: DEL works without it."""
    try:
        return previous_result(call)
    except CniError:
        return None


def run_all(*tasks: Callable[[], object]) -> None:
    """Run all tasks, even if one fails. Raise the first error, with the others in its details.

    Only CniError and OSError are collected. Any other exception is a defect and is raised at once.
    """
    problems: list[CniError] = []
    for task in tasks:
        try:
            task()
        except CniError as error:
            problems.append(error)
        except OSError as error:
            problems.append(InternalError(f"unexpected {type(error).__name__}: {error}"))
    if problems:
        first, *others = problems
        first.details = "; ".join(filter(None, [first.details, *map(str, others)]))
        raise first


def compare(found: str, parts: Iterable[Part]) -> None:
    """Serve CHECK: raise InternalError with the text `found` and all differences of the parts."""
    _require_none(found, [problem for look, _ in parts for problem in look()])


def check_and_repair(
    read_parts: Callable[[Call], tuple[str, list[Part]]],
) -> tuple[Callable[[Call], None], Callable[[Call], list[str]]]:
    """Return the functions `check` and `repair` of a plugin, which serve CHECK and a repair.

    `read_parts(call)` returns CHECK's message and the parts of the attachment.
    """
    return lambda call: compare(*read_parts(call)), lambda call: restore(*read_parts(call))


class Unrestored(InternalError):
    """A part of an attachment could not be made again; `made` are CHECK's texts for the things that could."""

    def __init__(self, msg: str, details: str, made: list[str]) -> None:
        super().__init__(msg, details)
        self.made = made


def restore(found: str, parts: Iterable[Part]) -> list[str]:
    """Make the parts again that differ, in order. Return the differences that `compare` would have named.

    A part that cannot be made keeps no other from its turn. Raise Unrestored with the text `found` if a difference or
    an error remains.
    """
    made: list[str] = []
    left: list[str] = []
    for look, make in parts:
        try:
            problems = look()
            if problems and make:
                left += failure(make)
                problems, before = look(), problems
                made += [problem for problem in before if problem not in problems]
            left += problems
        except (CniError, OSError) as error:
            left.append(str(error))
    if left:
        raise Unrestored(found, "; ".join(left), made)
    return made


def _require_none(found: str, problems: list[str]) -> None:
    if problems:
        raise InternalError(found, "; ".join(problems))


def failure(step: Callable[[], object]) -> list[str]:
    """Run a step. Return the text of its CniError or OSError in a list, which is empty if it raises none."""
    try:
        step()
    except CniError as error:
        return [str(error)]
    except OSError as error:
        return [f"unexpected {type(error).__name__}: {error}"]
    return []


def supported(key: str, step: Callable[[], object]) -> None:
    """Run a step of ADD. If it raises UnsupportedField, name the key that needs the missing feature."""
    try:
        step()
    except UnsupportedField as error:
        raise UnsupportedField(f'"{key}": true: {error.msg}') from None


def available(key: str, trial: Callable[[], object]) -> None:
    """Run a trial of STATUS. If it raises CniError, raise PluginNotAvailable that names the key."""
    try:
        trial()
    except CniError as error:
        raise PluginNotAvailable(f'"{key}": true: {error.msg}', error.details) from None


def valid_attachments(call: Call) -> set[tuple[str, str]]:
    """Return GC's list of the attachments in use, (container id, ifname).

    Raise InvalidConfig if the list is missing: that must not mean "none".
    """
    attachments = call.config.get("cni.dev/valid-attachments")
    if attachments is None:
        attachments = call.config.get("cni.dev/attachments")
    if attachments is None:
        raise InvalidConfig('invalid configuration: "cni.dev/valid-attachments" is required for GC')
    valid = set()
    for attachment in attachments if isinstance(attachments, list) else [None]:
        container_id = folded(attachment, "containerID") if isinstance(attachment, dict) else None
        ifname = folded(attachment, "ifname") if isinstance(attachment, dict) else None
        if not isinstance(container_id, str) or not isinstance(ifname, str):
            raise InvalidConfig(
                'invalid configuration: "cni.dev/valid-attachments" must be a list of {"containerID", "ifname"}'
            )
        valid.add((container_id, ifname))
    return valid


def _read_stdin() -> bytes:
    steps.begin("stdin")
    chunks = []
    length = 0
    try:
        with signals.interruptible(STDIN_SECONDS):
            while chunk := posix.read(0, 1 << 16):
                chunks.append(chunk)
                length += len(chunk)
                if length > STDIN_LIMIT:
                    raise IOFailure(f"the configuration on stdin is larger than {STDIN_LIMIT} bytes")
    except signals.DeadlineExpired:
        raise IOFailure(f"the configuration on stdin did not end within {STDIN_SECONDS:.0f} seconds") from None
    except OSError as error:
        raise IOFailure("cannot read the configuration from stdin", str(error)) from None
    steps.begin("config")
    return b"".join(chunks)


def _asked_version(supported: tuple[str, ...]) -> str:
    """Return the configuration's cniVersion for VERSION; old runtimes send none, or no configuration."""
    try:
        version = loads(_read_stdin())["cniVersion"]
    except (CniError, ValueError, TypeError, KeyError):
        return CURRENT
    return version if version in supported else CURRENT


def _fail(version: str, error: CniError) -> None:
    signals.ignore()
    steps.begin(steps.ANSWER)
    answer = {"cniVersion": version, "code": error.code, "msg": error.msg[:TEXT_LIMIT]}
    if error.details:
        answer["details"] = error.details[:TEXT_LIMIT]
    try:
        _write(dumps(answer))
    except CniError:
        complain(str(error))


def _write(text: str) -> None:
    """Print the answer. Raise IOFailure if stdout is closed, so that an ADD is undone."""
    data = text.encode(errors="backslashreplace") + b"\n"
    try:
        while data:
            data = data[posix.write(1, data) :]
    except OSError as error:
        raise IOFailure("cannot write the answer to stdout", str(error)) from None


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
