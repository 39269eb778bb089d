"""The log of calls: one line of JSON per call; imported only if a log is configured.

Every writer locks the file with flock(2), then checks that the file still has its name. Users with permission to read
the file could hold that lock: then the writers lock a second file, PATH.lock, instead. The writer that finds the file
full renames it and begins a new one, so that no line is lost between two files. No line is torn, either: a line is
written at once at the file's end. If the disk is full, the part of a line is removed. After a killed writer's part of a
line, the next line begins on a line of its own.
"""

from __future__ import annotations

import errno
import fcntl
import posix
from time import gmtime, strftime, time

from shared import signals, steps
from shared.cni import suite
from shared.cni.call import folded
from shared.cni.errors import InvalidConfig
from shared.cni.fastjson import dumps, loads
from shared.cni.names import is_absolute_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.cni.call import Call
    from shared.cni.errors import CniError

LOCK_SECONDS = 1.0  # after this time a call writes without the lock, but does not rotate a full file
TRIES = 100
TEXT_LIMIT = 1024  # characters of each text in a line
NODE_CONFIG_LIMIT = 1 << 16  # bytes
MODE = 0o640
OTHERS = 0o007
S_IFMT, S_IFREG = 0o170000, 0o100000
PODS_MUST_GO = ("DEL", "GC")  # a mistake in the log's configuration must not keep a pod


def check(call: Call) -> None:
    """Raise InvalidConfig if the key `pycni` is unusable, except for the commands that must not fail."""
    if call.command not in PODS_MUST_GO:
        settings(folded(call.config, "pycni"))


def settings(raw: object) -> tuple[str, int]:
    """Return the log's path, empty for none, and the size of a full file. Raise InvalidConfig.

    The declarations are used only for unusual settings: importing them takes longer than writing a line.
    """
    if isinstance(raw, dict) and raw.keys() <= {"log", "size"}:
        path, size = raw.get("log"), raw.get("size", suite.LOG_BYTES)
        plain = isinstance(path, str) and is_absolute_path(path)
        if plain and type(size) is int and suite.LEAST_LOG_BYTES <= size <= suite.LARGEST_LOG_BYTES:
            return str(path), size
    from shared.cni.log_config import Config

    keys = Config.read({"pycni": raw}).pycni
    return (keys.log, keys.size) if keys else ("", suite.LOG_BYTES)


def of_node() -> tuple[str, int]:
    """Return the settings in the node's file, with an empty path if it does not exist.

    Raise ValueError if the file is unusable.
    """
    try:
        file = posix.open(suite.NODE_CONFIG, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except FileNotFoundError:
        return "", suite.LOG_BYTES
    try:
        return settings(loads(posix.read(file, NODE_CONFIG_LIMIT)))
    except (OSError, ValueError, InvalidConfig) as error:
        raise ValueError(f"{suite.NODE_CONFIG}: {error}") from None
    finally:
        posix.close(file)


def write(module: str, call: Call | None, failure: CniError | None) -> None:
    """Add the call's line to its configuration's log, or else to the node's. Raise the reason if it fails."""
    signals.ignore()
    path, size = _of_call(call)
    if not path:
        path, size = of_node()
    if not path:
        return
    line = dumps(entry(module, call, failure), "").encode() + b"\n"
    try:
        append(path, line, size)
    except OSError as error:
        raise OSError(f"{path}: {error}") from None


def _of_call(call: Call | None) -> tuple[str, int]:
    raw = None if call is None else folded(call.config, "pycni")
    try:
        return ("", suite.LOG_BYTES) if raw is None else settings(raw)
    except InvalidConfig:
        return "", suite.LOG_BYTES  # the answer to the call reports it if it matters


def entry(module: str, call: Call | None, failure: CniError | None) -> dict[str, Any]:
    """Return the call as an object for the log."""
    seconds = steps.begun[-1][1] - steps.begun[0][1]
    began = time() - seconds
    made: dict[str, Any] = {
        "time": strftime("%Y-%m-%dT%H:%M:%S", gmtime(began)) + f".{int(began % 1 * 1000):03}Z",
        "verb": _variable(b"CNI_COMMAND"),
        "plugin": next((name for name, served_by in suite.plugins.items() if served_by == module), module),
        "network": call.network[:TEXT_LIMIT] if call else "",
        "containerID": _variable(b"CNI_CONTAINERID"),
        "ifname": _variable(b"CNI_IFNAME"),
        "ms": _ms(seconds),
        "steps": _durations(),
        "outcome": "ok",
    }
    if failure is not None:
        made |= {"outcome": "error", "code": failure.code, "msg": failure.msg[:TEXT_LIMIT]}
        if failure.details:
            made["details"] = failure.details[:TEXT_LIMIT]
        made["failedStep"] = _failing_step()
        number = _errno(failure)
        if number is not None:
            made["errno"] = errno.errorcode.get(number, str(number))
    if b"TRACEPARENT" in posix.environ:
        made["traceparent"] = _variable(b"TRACEPARENT")
    return made


def _variable(name: bytes) -> str:
    return posix.environ.get(name, b"").decode(errors="backslashreplace")[:TEXT_LIMIT]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _durations() -> dict[str, float]:
    """Return the milliseconds of each step. During undo, all steps count as undo."""
    seconds: dict[str, float] = {}
    current = ""
    for (step, began), (_, ended) in zip(steps.begun, steps.begun[1:]):
        if current != steps.UNDO or step == steps.ANSWER:
            current = step
        seconds[current] = seconds.get(current, 0.0) + ended - began
    return {step: _ms(duration) for step, duration in seconds.items()}


def _failing_step() -> str:
    last = ""
    for step, _ in steps.begun:
        if step in (steps.UNDO, steps.ANSWER, steps.LOG):
            break
        last = step
    return last


def _errno(failure: BaseException) -> int | None:
    """Return the errno of a failure, or of an error that caused it; None without one."""
    link: BaseException | None = failure
    while link is not None:
        number = getattr(link, "errno", None)
        if isinstance(number, int):
            return number
        link = link.__cause__ or link.__context__
    return None


# -- the file


def append(path: str, line: bytes, size: int) -> None:
    """Write a line to the log at once. Begin a new file first if this one would exceed `size` bytes.

    Raise OSError if the file does not contain the whole line.
    """
    locked = True
    for _ in range(TRIES):
        file = _open(path)
        if file < 0:
            continue
        guard = -1
        try:
            guard = _second_lock(file, path)
            locked = locked and _lock(file if guard < 0 else guard)
            held = posix.fstat(file)
            if not _has_name(held, path):
                continue  # renamed by another call while this one waited
            if locked and held.st_size and held.st_size + len(line) > size:
                _rotate(path)
                continue
            _write(file, line, held.st_size)
        finally:
            for descriptor in (guard, file):
                if descriptor >= 0:
                    posix.close(descriptor)
        return
    raise OSError("the file is replaced again and again")


def _open(path: str, mode: int = MODE) -> int:
    """Open the log, or create it; return -1 if another call created it first.

    Raise OSError if it is not a regular file of the plugin's user with a single name.
    """
    flags = posix.O_RDWR | posix.O_APPEND | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
    try:
        file = posix.open(path, flags)
    except FileNotFoundError:
        try:
            file = posix.open(path, flags | posix.O_CREAT | posix.O_EXCL, mode)
        except FileExistsError:
            return -1
        posix.fchmod(file, mode)  # the umask may have cleared bits
    held = posix.fstat(file)
    # with a second name, the file could be something else than a log
    if held.st_mode & S_IFMT != S_IFREG or held.st_nlink > 1 or held.st_uid != posix.geteuid():
        posix.close(file)
        raise OSError("is not a regular file of the plugin's user with one name")
    return file


def _second_lock(file: int, path: str) -> int:
    """Open PATH.lock if another user's process, which may read the log, holds its lock; else return -1."""
    held = posix.fstat(file)
    if not (held.st_gid or held.st_mode & OTHERS):
        return -1
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        from shared.cni import lock_holders

        return _open(f"{path}.lock", 0o600) if lock_holders.are_foreign(file) else -1
    return -1


def _lock(file: int) -> bool:
    """Return True if the file could be locked in time."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            with signals.interruptible(LOCK_SECONDS):
                fcntl.flock(file, fcntl.LOCK_EX)
        except signals.DeadlineExpired:
            return False
    return True


def _has_name(held: posix.stat_result, path: str) -> bool:
    try:
        named = posix.lstat(path)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def _rotate(path: str) -> None:
    for number in range(suite.LOGS_KEPT, 0, -1):
        try:
            posix.rename(f"{path}.{number - 1}" if number > 1 else path, f"{path}.{number}")
        except FileNotFoundError:
            continue


def _write(file: int, line: bytes, size: int) -> None:
    if size and posix.pread(file, 1, size - 1) != b"\n":
        line = b"\n" + line
    written = posix.write(file, line)
    if written != len(line):
        if posix.fstat(file).st_size == size + written:  # otherwise a call without the lock has written after it
            posix.ftruncate(file, size)
        raise OSError(f"only {written} of {len(line)} bytes could be written")
