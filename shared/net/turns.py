"""Whose turn it is: a lock for those who look at rules and change them after what they saw."""

from __future__ import annotations

import errno
import posix

from shared.cni import lock, record
from shared.cni.errors import IOFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

LOCK_SECONDS = 30.0
SIDECAR = ".pycni"  # beside a directory of state, for the lock files of such directories


class turn:  # noqa: N801  (used like a function)
    """Keep other calls of this suite from changing the rules between this one's look and its change.

    A call that `only_removes` needs no turn if the lock file is missing on a read-only file system: no call adds there.
    """

    def __init__(self, directory: str, *, only_removes: bool = False) -> None:
        self.directory = directory
        self.only_removes = only_removes
        self.descriptor = -1

    def __enter__(self) -> None:
        try:
            self.descriptor = self._locked()
        except OSError as error:
            if self.only_removes and error.errno == errno.EROFS:
                return
            raise IOFailure(f"cannot lock {self.directory}", str(error)) from None

    def _locked(self) -> int:
        parent, _, name = self.directory.rpartition("/")
        place = f"{parent}/{SIDECAR}/{name}"
        record.make_directories(place)
        directory = posix.open(place, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
        try:
            lock.require_private(directory, place)
            return _take(place, directory)
        finally:
            posix.close(directory)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.descriptor >= 0:
            posix.close(self.descriptor)


def _take(place: str, directory: int) -> int:
    wait = lock.Wait(LOCK_SECONDS)
    try:
        return wait.take_file(place, parent=directory)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        try:
            return wait.take_file(place, parent=directory, is_read_only=True)
        except FileNotFoundError:
            raise error from None
