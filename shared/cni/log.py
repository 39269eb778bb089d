"""The log for the night: a line of JSON for each call; imported only where a log is asked for.

Every writer holds the file's lock (flock(2)) and looks again whether the file still has its name. Users that an
administrator lets read the file can hold it: the lock is then that of a second file, PATH.lock. The writer that finds
the file full renames it and begins a new one, so that no line is lost between two files, and none is torn: a line is
one write at the file's end, what a full disk cut off is taken back, and what a killed writer left begins no other line.
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

LOCK_SECONDS = 1.0  # a call does not wait longer; it writes all the same, and leaves a full file to others
TRIES = 100
TEXT_LIMIT = 1024  # characters of each text in a line
NODE_CONFIG_LIMIT = 1 << 16  # bytes
MODE = 0o640
OTHERS = 0o007
S_IFMT, S_IFREG = 0o170000, 0o100000
PODS_MUST_GO = ("DEL", "GC")  # a slip in a log's path is no reason to keep a pod


def check(call: Call) -> None:
    """Raises InvalidConfig where `pycni` cannot be used, except for the commands that must not fail for it."""
    if call.command not in PODS_MUST_GO:
        settings(folded(call.config, "pycni"))


def settings(raw: object) -> tuple[str, int]:
    """The path of the log, empty for none, and the size of a full file.

    Raises InvalidConfig. The declarations are read only where something is unusual: to import them takes longer than
    to write a line.
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
    """The settings in the node's file, an empty path where there is none; raises ValueError where it cannot be used."""
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
    """Adds the call's line to the log of its configuration, else to the node's; raises what stands against it."""
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
        return "", suite.LOG_BYTES  # said in the answer where it matters


def entry(module: str, call: Call | None, failure: CniError | None) -> dict[str, Any]:
    """The call as an object of the log."""
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
    """Milliseconds of each step; what comes to pass while an ADD is taken back belongs to that."""
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
    """The system's reason for a failure: that of the error itself or of the one it was made from."""
    link: BaseException | None = failure
    while link is not None:
        number = getattr(link, "errno", None)
        if isinstance(number, int):
            return number
        link = link.__cause__ or link.__context__
    return None


# -- the file


def append(path: str, line: bytes, size: int) -> None:
    """Adds a line, by one write; begins a new file first where this one would grow beyond `size` bytes.

    Raises OSError where the line is not in the file now, as a whole.
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
    """The log, made if need be; -1 where another call was faster to make it. Raises OSError for what is no log."""
    flags = posix.O_RDWR | posix.O_APPEND | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
    try:
        file = posix.open(path, flags)
    except FileNotFoundError:
        try:
            file = posix.open(path, flags | posix.O_CREAT | posix.O_EXCL, mode)
        except FileExistsError:
            return -1
        posix.fchmod(file, mode)  # whatever the umask
    held = posix.fstat(file)
    # a second name could be that of a file which is no log at all
    if held.st_mode & S_IFMT != S_IFREG or held.st_nlink > 1 or held.st_uid != posix.geteuid():
        posix.close(file)
        raise OSError("is not a regular file of the plugin's user with one name")
    return file


def _second_lock(file: int, path: str) -> int:
    """Open PATH.lock if a process of another user, who can read the log, holds that. Otherwise return -1."""
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
    """Whether the lock was to be had in time."""
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
        if posix.fstat(file).st_size == size + written:  # else somebody wrote after it, without the lock
            posix.ftruncate(file, size)
        raise OSError(f"only {written} of {len(line)} bytes could be written")
