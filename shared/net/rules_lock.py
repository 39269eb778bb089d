"""A lock that serializes read-modify-write changes of packet filter rules."""

from __future__ import annotations

import errno
import posix

from shared.cni import lock, record
from shared.cni.errors import IOFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

LOCK_SECONDS = 30.0
SIDECAR = ".pycni"  # holds the lock files of the state directories beside it


class hold:  # noqa: N801  (used like a function)
    """Keep other calls of this suite from changing the rules between this call's read and its change.

    `directory` is the state directory of the rules. With `only_removes`, do without the lock if its file is missing on
    a read-only file system: no call can add rules there.

    Raises IOFailure if the lock file cannot be opened, TryAgainLater if another call holds it for 30 seconds.
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
        """Create the lock's directory if it does not exist; return the descriptor of the locked file."""
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
    """Lock the file in an open directory. On a read-only file system, lock an existing file."""
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
