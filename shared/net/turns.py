"""Whose turn it is: a lock for those who look at rules and change them after what they saw."""

from __future__ import annotations

import errno
import fcntl
import posix

from shared import signals
from shared.cni import record
from shared.cni.errors import IOFailure, TryAgainLater

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

LOCK_SECONDS = 30.0


class turn:  # noqa: N801  (used like a function)
    """Keeps other calls of this suite from changing the rules between this one's look and its change.

    A call that `only_removes` needs no turn if the directory is missing on a read-only file system: no call adds there.
    """

    def __init__(self, directory: str, *, only_removes: bool = False) -> None:
        self.directory = directory
        self.only_removes = only_removes
        self.descriptor = -1

    def __enter__(self) -> None:
        try:
            record.make_directories(self.directory)
            self.descriptor = posix.open(self.directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError as error:
            if self.only_removes and error.errno == errno.EROFS:
                return
            raise IOFailure(f"cannot open {self.directory}", str(error)) from None
        try:
            with signals.interruptible(LOCK_SECONDS):
                fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        except signals.DeadlineExpired:
            raise TryAgainLater(
                f"the lock of {self.directory} is held by another call for over {LOCK_SECONDS:.0f} s"
            ) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.descriptor >= 0:
            posix.close(self.descriptor)
