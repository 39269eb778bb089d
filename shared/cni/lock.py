"""Locks with flock(2) on files that only root can open; a file open for reading can be locked.

A lock file has mode 0600, in a directory that only root can write to. If another process removes it while a call waits,
the call locks the new file of that name. A file that others could open, such as one of mode 0644 from another suite, is
closed to them. If a process of another user holds the lock anyway, the file is replaced.
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
PATIENCE_SECONDS = 2.0  # after this time a call checks whether the holder is a process of another user
S_IFMT, S_IFREG = 0o170000, 0o100000
OTHERS_WRITE, OTHERS_ALL = 0o022, 0o077
FLAGS = posix.O_NOFOLLOW | posix.O_CLOEXEC | posix.O_NONBLOCK


class Foreign(Exception):
    """A process of another user holds the lock."""


class Wait:
    """The time that a call waits for its locks, in total."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = monotonic() + seconds

    def take(self, descriptor: int, place: str) -> None:
        """Lock an open file or directory. Raise TryAgainLater, naming the holder, or Foreign."""
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

        Create the file if needed, unless `is_read_only`. Raise OSError, IOFailure, TryAgainLater.
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
    """Restrict a file's or directory's mode if others can open it. Raise OSError."""
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
    """Lock an open file. Return False, without waiting, if another process holds the lock."""
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
    """Return True if the open file is still the directory's lock file."""
    try:
        named = posix.stat(NAME, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    held = posix.fstat(file)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
