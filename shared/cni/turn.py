"""Order the calls for one attachment (network, container id, interface): one at a time, and none after its DEL.

A runtime gives up on an ADD, and calls DEL while the ADD still rolls back. The two would undo each other's work. So
ADD, DEL and a repair wait for each other.

All attachments share one file with slots of eight bytes: 65,536 for attachments, and as many for their IPAM plugins. A
digest of the names selects the slot. A call locks its slot with a POSIX record lock, which ends with the process, and
which no child inherits. The slot contains the digest of the attachment that DEL deleted last: no repair touches it
until its next ADD.

If the file cannot be opened, read or written, calls go on without an order, as on a full or read-only file system. A
repair is refused then.
"""

from __future__ import annotations

import fcntl
import posix

from shared import signals
from shared.cni.digests import digest
from shared.cni.errors import InternalError, TryAgainLater, UnknownContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from shared.cni.call import Call

FILE = "/run/cni/.pycni/attachments/lock"
SLOTS = 1 << 16
SLOT_BYTES = 8
WAIT_SECONDS = 25.0  # less than a runtime waits for a call
REPAIR_WAIT_SECONDS = 0.2  # a repair comes again; many other pods may wait for it
FLAGS = posix.O_RDWR | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
S_IFMT, S_IFREG = 0o170000, 0o100000
OTHERS_ALL = 0o077
NONE = bytes(SLOT_BYTES)


class take:  # noqa: N801  (used like a function)
    """Keep other calls for the attachment waiting. A DEL notes the deletion, an ADD removes that note.

    An IPAM plugin has slots of its own, since the plugin that executes it holds the attachment's.

    Raise TryAgainLater, naming the holder, if another call has the slot for 25 seconds.
    """

    def __init__(self, call: Call, module: str, *, seconds: float = WAIT_SECONDS) -> None:
        names = f"{call.network}/{call.container_id}/{call.ifname}"
        self.command = call.command
        self.what = f"{call.ifname} of container {call.container_id} in network {call.network}"
        half = module.startswith("ipam.")  # of the file: its caller's slot must be another one
        self.mark = bytes.fromhex(digest(names.encode()))[:SLOT_BYTES]
        self.place = (int.from_bytes(self.mark, "big") % SLOTS + half * SLOTS) * SLOT_BYTES
        self.seconds = seconds
        self.descriptor = -1
        self.is_locked = False

    def __enter__(self) -> take:
        self.descriptor = _open()
        if self.descriptor >= 0:
            try:
                self._lock()
            except BaseException:
                posix.close(self.descriptor)  # a process that repairs many serves on
                raise
            if self.command == "DEL":
                self._note(self.mark)
            elif self.command == "ADD" and self.is_deleted():
                self._note(NONE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.descriptor >= 0:
            posix.close(self.descriptor)

    def is_deleted(self) -> bool:
        """Return True if a DEL of the attachment has begun since its last ADD."""
        try:
            return self.descriptor >= 0 and posix.pread(self.descriptor, SLOT_BYTES, self.place) == self.mark
        except OSError:
            return False

    def require_living(self) -> None:
        """Raise UnknownContainer if a DEL of the attachment has begun since its last ADD, InternalError without a lock.

        A call must go on without an order. A repair need not, and could undo the work of a DEL.
        """
        if not self.is_locked:
            raise InternalError(f"the turn of {self.what} cannot be taken: {FILE} must be a file that root can lock")
        if self.is_deleted():
            raise UnknownContainer(f"{self.what} was deleted, or its deletion has begun")

    def _lock(self) -> None:
        """Lock the slot. Do nothing if the file system has no locks."""
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, SLOT_BYTES, self.place)
            self.is_locked = True
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: another process has it
            self._wait()
        except OSError:
            return

    def _wait(self) -> None:
        try:
            with signals.interruptible(self.seconds):
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX, SLOT_BYTES, self.place)
                self.is_locked = True
        except signals.DeadlineExpired:
            from shared.cni import lock_holders

            holder = lock_holders.of_range(self.descriptor, self.place, SLOT_BYTES)
            raise TryAgainLater(
                f"another call for {self.what} runs for over {self.seconds:g} seconds: {holder}"
            ) from None
        except OSError:
            return

    def _note(self, content: bytes) -> None:
        try:
            posix.pwrite(self.descriptor, content, self.place)
        except OSError:
            return


def _open() -> int:
    """Return a descriptor of the file, which is created if it does not exist; -1 if that fails."""
    try:
        descriptor = open_or_create()
    except OSError:
        return -1
    try:
        held = posix.fstat(descriptor)
        # others could hold the locks of a file that they can open
        if held.st_mode & S_IFMT == S_IFREG and held.st_uid == posix.geteuid() and not held.st_mode & OTHERS_ALL:
            return descriptor
    except OSError:
        pass
    posix.close(descriptor)
    return -1


def open_or_create() -> int:
    """Return a descriptor of the file. Raise OSError if it can neither be opened nor created."""
    try:
        return posix.open(FILE, FLAGS)
    except FileNotFoundError:
        from shared.cni import record

        record.make_directories(FILE.rpartition("/")[0])
        return posix.open(FILE, FLAGS | posix.O_CREAT, 0o600)
