"""Find the processes that hold a lock, in /proc/locks and /proc/PID; imported only by a call that waited."""

from __future__ import annotations

import posix

LIMIT = 1 << 22  # bytes of a file in /proc
UNKNOWN = "an unknown process"
RECORD_LOCK = "hhqqi"  # struct flock in linux/fcntl.h: type, whence, start, length, process


def describe(descriptor: int) -> str:
    """Return a text such as "bridge (process 4711)" for the processes that hold an open file's lock."""
    names = [f"{_program(pid)} (process {pid})" for pid in _pids(descriptor)]
    return " and ".join(names) or UNKNOWN


def of_range(descriptor: int, start: int, length: int) -> str:
    """Return a text for the process that has a record lock in a range of an open file."""
    import fcntl
    import struct

    try:
        found = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(RECORD_LOCK, fcntl.F_WRLCK, 0, start, length, 0))
    except OSError:
        return UNKNOWN
    pid = struct.unpack(RECORD_LOCK, found)[-1]
    return f"{_program(pid)} (process {pid})" if pid > 0 else UNKNOWN


def are_foreign(descriptor: int) -> bool:
    """Return True if holders are known and none runs as root or as this process's user.

    A process that has ended and left the lock to a child counts as foreign, too.
    """
    pids = _pids(descriptor)
    return bool(pids) and all(_user(pid) not in (0, posix.geteuid()) for pid in pids)


def _pids(descriptor: int) -> list[int]:
    """Return the processes that locked an open file with flock(2), as far as this process may see them.

    A line is "1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF"; a waiting process has "->" after the number.
    """
    held = posix.fstat(descriptor)
    place = f"{posix.major(held.st_dev):02x}:{posix.minor(held.st_dev):02x}:{held.st_ino}"
    lines = [line.split() for line in _read("/proc/locks").splitlines()]
    return [int(words[4]) for words in lines if len(words) > 5 and words[1] == "FLOCK" and words[5] == place]


def _program(pid: int) -> str:
    name = "".join(letter for letter in _read(f"/proc/{pid}/comm").strip() if letter.isprintable())
    return name or "a program that has ended"


def _user(pid: int) -> int:
    """Return a process's effective user; -1 if it has ended and left the lock to a child."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    return -1


def _read(path: str) -> str:
    try:
        file = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return ""
    try:
        found = b""
        while len(found) < LIMIT and (more := posix.read(file, LIMIT)):
            found += more
        return found.decode(errors="replace")
    except OSError:
        return ""
    finally:
        posix.close(file)
