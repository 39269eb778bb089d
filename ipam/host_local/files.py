"""The lease files of a network: read them, and create them whole."""

from __future__ import annotations

import errno
import posix

from ipam.host_local.index import is_address, unlink_if_there
from ipam.host_local.lease import LEASE_LIMIT_BYTES, Lease, parse_lease
from shared.cni.errors import IOFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_READ_BYTES = 4096  # all of any lease but the longest
READ_ONLY_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
S_IFMT, S_IFREG = 0o170000, 0o100000
NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


class Files:
    """The files of an open directory of leases; `directory` is its descriptor, negative if it is closed."""

    def __init__(self) -> None:
        self.directory = -1

    def names(self) -> Iterator[str]:
        """Yield the names of the lease files, which are addresses, in no order; garbled files included."""
        for name in posix.listdir(self.directory):
            if is_address(name):
                yield name

    def read(self, name: str) -> Lease | None:
        """Return the lease of an address; None if there is no regular file, or it is empty or garbled."""
        content = self._content(name)
        return None if content is None else parse_lease(content)

    def _content(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is no regular file of that name."""
        try:
            descriptor = posix.open(
                name, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC, dir_fd=self.directory
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return None
            raise
        try:
            if posix.fstat(descriptor).st_mode & S_IFMT != S_IFREG:
                return None
            content = posix.read(descriptor, FIRST_READ_BYTES)
            while FIRST_READ_BYTES <= len(content) < LEASE_LIMIT_BYTES and (
                more := posix.read(descriptor, LEASE_LIMIT_BYTES)
            ):
                content += more
            return content
        finally:
            posix.close(descriptor)

    def is_taken(self, name: str) -> bool:
        """Return True if an address is leased. Remove an empty or garbled file in its place."""
        try:
            found = posix.stat(name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if found.st_mode & S_IFMT != S_IFREG or self.read(name) is not None:
            return True
        self._unlink(name)
        return False

    def _create(self, name: str, content: bytes) -> bool:
        """Create a file that appears with its whole content; return False if the name exists."""
        try:
            flags = posix.O_TMPFILE | posix.O_WRONLY | posix.O_CLOEXEC
            descriptor = posix.open(".", flags, 0o600, dir_fd=self.directory)
        except OSError as error:
            if error.errno not in NO_TMPFILE:
                raise
            return self._create_in_place(name, content)
        try:
            _write_all(descriptor, content)
            posix.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self.directory, follow_symlinks=True)
        except FileExistsError:
            return False
        finally:
            posix.close(descriptor)
        return True

    def _create_in_place(self, name: str, content: bytes) -> bool:
        """Create a file without O_TMPFILE. If the call is killed in between, the next call removes the empty file."""
        try:
            self._write(name, content, posix.O_EXCL)
        except FileExistsError:
            return False
        except OSError:
            unlink_if_there(name, self.directory)
            raise
        return True

    def _write(self, name: str, content: bytes, how: int) -> None:
        """Write a file; `how` is O_EXCL for a new one, O_TRUNC to replace the content."""
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC | how
        descriptor = posix.open(name, flags, 0o600, dir_fd=self.directory)
        try:
            _write_all(descriptor, content)
        finally:
            posix.close(descriptor)

    def _unlink(self, name: str) -> None:
        unlink_if_there(name, self.directory)


def open_directory(path: str, parent: int | None = None) -> int:
    """Open a directory of the store as `open_existing_directory`; create it and those above it if it is missing."""
    try:
        return open_existing_directory(path, parent)
    except FileNotFoundError:
        place = 0
        while (place := path.find("/", place + 1)) > 0:
            _make_directory(path[:place], 0o755, parent)
        _make_directory(path, 0o700, parent)
        return open_existing_directory(path, parent)


def open_existing_directory(path: str, parent: int | None = None) -> int:
    """Open a directory; raise IOFailure if another user owns it or can write to it. Symbolic links are refused."""
    descriptor = posix.open(path, READ_ONLY_DIRECTORY, dir_fd=parent)
    held = posix.fstat(descriptor)
    if held.st_uid != posix.geteuid() or held.st_mode & 0o022:
        raise IOFailure(
            f"directory {path} has owner {held.st_uid} and mode {held.st_mode & 0o7777:04o}, but must belong to the"
            f" plugin's user ({posix.geteuid()}) and be writable for nobody else: run chown, and chmod go-w"
        )
    return descriptor


def _make_directory(path: str, mode: int, parent: int | None) -> None:
    try:
        posix.mkdir(path, mode, dir_fd=parent)
    except FileExistsError:
        return


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[posix.write(descriptor, content) :]
