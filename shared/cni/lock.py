"""Locks by flock(2) on files that root alone can open: an open for reading is enough to hold one.

A lock file has mode 0600 and lies in a directory that nobody else can write to. Somebody may remove it while a call
waits: the call then locks the file that has the name by then. A file that others could open, such as one of mode 0644
by another suite, is closed to them. If a process of another user holds it all the same, it gives way to a new file.
"""

from __future__ import annotations

import errno
import fcntl
import posix
from time import monotonic

from shared import signals
from shared.cni.errors import IOFailure, TryAgainLater

NAME = "lock"
TRIES = 100
PATIENCE_SECONDS = 2.0  # until a call looks whether the holder may hold the lock at all
S_IFMT, S_IFREG = 0o170000, 0o100000
OTHERS_WRITE, OTHERS_ALL = 0o022, 0o077
FLAGS = posix.O_NOFOLLOW | posix.O_CLOEXEC | posix.O_NONBLOCK


class Foreign(Exception):
    """A process of another user holds the lock."""


class Wait:
    """The time that a call waits for its locks, all of them together."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = monotonic() + seconds

    def take(self, descriptor: int, place: str) -> None:
        """Lock an open file or directory. Raises TryAgainLater with the holder's name, and Foreign."""
        if _is_free(descriptor):
            return
        if self.deadline - monotonic() > PATIENCE_SECONDS:
            if _is_locked_within(descriptor, PATIENCE_SECONDS):
                return
            from shared.cni import lock_holders

            if lock_holders.are_foreign(descriptor):
                raise Foreign(place)
        if not _is_locked_within(descriptor, self.deadline - monotonic()):
            from shared.cni import lock_holders

            holder = lock_holders.describe(descriptor)
            raise TryAgainLater(f"the lock of {place} is held by {holder} for over {self.seconds:.0f} seconds")

    def take_file(self, place: str, *, parent: int, is_read_only: bool = False) -> int:
        """Lock the lock file of the open directory `place`, and return the file's descriptor.

        The file is created if need be, unless `is_read_only`. Raises OSError, IOFailure, TryAgainLater.
        """
        for _ in range(TRIES):
            file = _open(place, parent, is_read_only=is_read_only)
            try:
                self.take(file, place)
                if _has_name(file, parent):
                    file, locked = -1, file
                    return locked
            except Foreign:
                if is_read_only:
                    raise TryAgainLater(f"{place}/{NAME} is held by a process of another user") from None
                if _has_name(file, parent):
                    posix.unlink(NAME, dir_fd=parent)
            finally:
                if file >= 0:
                    posix.close(file)
        raise TryAgainLater(f"{place}/{NAME} is removed again and again")


def require_private(descriptor: int, place: str) -> None:
    """Raise IOFailure if others could replace a file in an open directory."""
    held = posix.fstat(descriptor)
    if held.st_uid != posix.geteuid() or held.st_mode & OTHERS_WRITE:
        raise IOFailure(f"{place} must belong to the user of the plugin and be writable for nobody else")


def close_to_others(descriptor: int, mode: int) -> None:
    """Set a file's or directory's mode if others can open it. Raises OSError."""
    if posix.fstat(descriptor).st_mode & OTHERS_ALL:
        posix.fchmod(descriptor, mode)


def _open(place: str, parent: int, *, is_read_only: bool) -> int:
    flags = posix.O_RDONLY if is_read_only else posix.O_RDWR | posix.O_CREAT
    try:
        file = posix.open(NAME, flags | FLAGS, 0o600, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise IOFailure(f"{place}/{NAME} is not a regular file") from None
        raise
    try:
        _require_own_file(file, place)
        if not is_read_only:
            close_to_others(file, 0o600)
    except BaseException:
        posix.close(file)
        raise
    return file


def _require_own_file(file: int, place: str) -> None:
    held = posix.fstat(file)
    if held.st_mode & S_IFMT != S_IFREG:
        raise IOFailure(f"{place}/{NAME} is not a regular file")
    if held.st_uid != posix.geteuid():
        raise IOFailure(f"{place}/{NAME} must belong to the user of the plugin")


def _is_free(descriptor: int) -> bool:
    """Lock an open file if nobody holds it; return False otherwise."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked_within(descriptor: int, seconds: float) -> bool:
    try:
        with signals.interruptible(seconds):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except signals.DeadlineExpired:
        return False
    return True


def _has_name(file: int, parent: int) -> bool:
    """Return True if the open file is the directory's lock file still."""
    try:
        named = posix.stat(NAME, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    held = posix.fstat(file)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
