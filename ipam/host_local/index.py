"""The index of leases lists the addresses of each attachment, so that a call need not read all lease files.

    <dataDir>/.pycni/<network>/<container id>:<ifname>  symbolic link; its text is the entry
    <dataDir>/.pycni/<network>/boot                     symbolic link; its text is the kernel's boot_id

An entry starts with "own" if this suite made the leases, else with "seen". The addresses follow, then, for own leases,
the mark of the pod's namespace (shared/net/liveness.py):

    own 10.1.0.5 fd00::5 netns=4:4026532281:1763000000000000000 /run/netns/pod

Entries of releases before 0.2.0 have no mark. Those releases read the words of a mark as addresses without a lease. An
entry is a symbolic link because one system call creates it with its text, and the text survives a power cut.
"""

from __future__ import annotations

import errno
import posix

from ipam.host_local.lease import Lease
from shared.cni.ip import Address

BOOT, BOOT_ID = "boot", "/proc/sys/kernel/random/boot_id"
OWN, SEEN = "own", "seen"
MARK = " netns="
MANY = "many"  # replaces the addresses if they exceed the length of a symbolic link
MARKED_BYTES = 1023  # the longest text with a mark: the limit of a symbolic link on ext4 with blocks of 1 KiB


class Entry:
    """The origin of leases, their addresses, and the mark of the pod's namespace.

    If it `is_cut`, the addresses are unknown: they exceeded the length of the text.
    """

    def __init__(self, origin: str, addresses: list[str], mark: str = "", *, is_cut: bool = False) -> None:
        self.origin = origin
        self.addresses = addresses
        self.mark = mark
        self.is_cut = is_cut


class Index:
    """The entries of one network. `descriptor` is the open directory's, negative if there is none."""

    def __init__(self, descriptor: int = -1) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Close the directory."""
        if self.descriptor >= 0:
            posix.close(self.descriptor)
        self.descriptor = -1

    def entry(self, key: str) -> Entry | None:
        """Return the entry of a lease's key, or None."""
        text = self._text(key)
        if text is None:
            return None
        head, _, mark = text.partition(MARK)
        origin, *words = head.split() or [SEEN]
        return Entry(origin, list(filter(is_address, words)), mark, is_cut=MANY in words)

    def entries(self) -> dict[str, Entry]:
        """Return all entries, by key."""
        names = posix.listdir(self.descriptor) if self.descriptor >= 0 else []
        found = {name: self.entry(name) for name in names if ":" in name}
        return {name: entry for name, entry in found.items() if entry is not None}

    def write(self, lease: Lease, origin: str, addresses: list[str], mark: str = "") -> None:
        """Create or replace an entry. Leave out a mark that does not fit."""
        text = " ".join([origin, *addresses])
        marked = f"{text}{MARK}{mark}"
        if mark and len(marked.encode(errors="surrogateescape")) <= MARKED_BYTES:
            text = marked
        try:
            self._replace(lease.key, text)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self._replace(lease.key, f"{origin} {MANY}")

    def remove(self, key: str) -> None:
        """Remove an entry if it exists."""
        unlink_if_there(key, self.descriptor)

    def time(self, key: str) -> int:
        """Return the time when the entry was written, in nanoseconds."""
        return posix.stat(key, dir_fd=self.descriptor, follow_symlinks=False).st_mtime_ns

    def boot(self) -> str | None:
        """Return the boot_id of the boot in which the index was last complete, or None."""
        return self._text(BOOT)

    def note_boot(self) -> None:
        """Record that the index is complete in this boot."""
        self._replace(BOOT, boot_id())

    def _text(self, name: str) -> str | None:
        try:
            return posix.readlink(name, dir_fd=self.descriptor)
        except OSError:
            return None

    def _replace(self, name: str, text: str) -> None:
        try:
            posix.symlink(text, name, dir_fd=self.descriptor)
        except FileExistsError:
            posix.unlink(name, dir_fd=self.descriptor)
            posix.symlink(text, name, dir_fd=self.descriptor)


def is_address(name: str) -> bool:
    """Return True if the name is an address, as the names of lease files are."""
    try:
        Address.parse(name)
    except ValueError:
        return False
    return True


def unlink_if_there(name: str, directory: int) -> None:
    """Remove a file of a directory if it exists."""
    try:
        posix.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    descriptor = posix.open(BOOT_ID, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(descriptor, 64).decode().strip()
    finally:
        posix.close(descriptor)
