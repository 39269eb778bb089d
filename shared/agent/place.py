"""The agent's directory: only root can enter it, so that only root can call, and nobody can plant a file in it."""

from __future__ import annotations

import fcntl
import posix

from shared.agent import protocol
from shared.sockets import native as socket

LOCK = "lock"
BACKLOG = 64  # connections that wait for a worker; a further launcher executes its call at once
S_IFMT, S_IFDIR, S_IFREG, S_IFSOCK = 0o170000, 0o040000, 0o100000, 0o140000
PERMISSIONS = 0o7777
FLAGS = posix.O_NOFOLLOW | posix.O_NONBLOCK
KINDS = {S_IFREG: "a regular file", S_IFSOCK: "a socket"}


class Unusable(Exception):
    """The directory or a file in it cannot be used; the text names it and says why."""


def prepare() -> None:
    """Create the directory. Raise Unusable if it exists, and others can write to it."""
    try:
        posix.mkdir(protocol.DIRECTORY, 0o700)
    except FileExistsError:
        _require_directory()


def _require_directory() -> None:
    found = posix.lstat(protocol.DIRECTORY)
    if found.st_mode & S_IFMT != S_IFDIR:
        raise Unusable(f"{protocol.DIRECTORY} is not a directory: remove it")
    if found.st_uid != posix.geteuid():
        raise Unusable(f"{protocol.DIRECTORY} belongs to user {found.st_uid}, it must belong to root: remove it")
    if found.st_mode & PERMISSIONS != 0o700:
        raise Unusable(f"{protocol.DIRECTORY} has mode {found.st_mode & PERMISSIONS:04o}, it must have 0700: remove it")


def lock() -> int:
    """Lock the directory for this process, and return the open file. Raise Unusable, naming the agent that holds it.

    It is a record lock: forked processes do not inherit it, and it outlives an exec.
    """
    path = f"{protocol.DIRECTORY}/{LOCK}"
    file = _open(path, posix.O_RDWR | posix.O_CREAT)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = posix.read(file, 32).decode(errors="replace").strip()
        posix.close(file)
        raise Unusable(f"another agent is running, its process id is {holder or 'unknown'}") from None
    posix.ftruncate(file, 0)
    posix.pwrite(file, b"%d\n" % posix.getpid(), 0)
    return file


def sweep() -> None:
    """Remove the files of an agent that was killed. Raise Unusable if there is something else in their place."""
    _remove(protocol.SOCKET, S_IFSOCK)
    _remove(protocol.CONTROL_SOCKET, S_IFSOCK)
    _remove(protocol.FALLBACKS, S_IFREG)


def listen(path: str) -> socket.socket:
    """Listen on a socket of the directory. Raise Unusable."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    before = posix.umask(0o177)
    try:
        listener.bind(path)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    finally:
        posix.umask(before)
    listener.listen(BACKLOG)
    return listener


def begin_count() -> None:
    """Create the file to which launchers add one byte for each call that they execute. Raise Unusable."""
    posix.close(_open(protocol.FALLBACKS, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL))


def count_fallbacks() -> int:
    """Return the number of calls that launchers executed."""
    try:
        return posix.lstat(protocol.FALLBACKS).st_size
    except OSError:
        return 0


def clear() -> None:
    """Remove the sockets and the count; launchers then execute their calls at once."""
    for path in (protocol.SOCKET, protocol.CONTROL_SOCKET, protocol.FALLBACKS):
        try:
            posix.unlink(path)
        except OSError:
            continue


def _remove(path: str, kind: int) -> None:
    """Remove an earlier agent's file. Raise Unusable if it is not of the expected kind, or not root's alone."""
    try:
        found = posix.lstat(path)
    except FileNotFoundError:
        return
    if found.st_mode & S_IFMT != kind:
        raise Unusable(f"{path} is not {KINDS[kind]}: remove it")
    _require_private(path, found)
    posix.unlink(path)


def _open(path: str, flags: int) -> int:
    try:
        file = posix.open(path, flags | FLAGS | posix.O_CLOEXEC, 0o600)
    except OSError as error:  # ELOOP: a symbolic link
        raise Unusable(f"{path}: {error.strerror}") from None
    found = posix.fstat(file)
    if found.st_mode & S_IFMT != S_IFREG:
        posix.close(file)
        raise Unusable(f"{path} is not a regular file: remove it")
    _require_private(path, found)
    return file


def _require_private(path: str, found: posix.stat_result) -> None:
    if found.st_uid != posix.geteuid():
        raise Unusable(f"{path} belongs to user {found.st_uid}, it must belong to root: remove it")
    if found.st_mode & 0o077:
        raise Unusable(f"{path} has mode {found.st_mode & PERMISSIONS:04o}, it must have 0600: remove it")
