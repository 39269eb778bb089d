r"""Leases as files, in the reference's form, and an index beside them that keeps every call's cost constant.

The reference's part, which it and this suite can use by turns on a live node:

    <dataDir>/<network>/<address>               "<container id>\r\n<ifname>"; of old, the id alone
    <dataDir>/<network>/last_reserved_ip.<set>  where round robin goes on, for each range set
    <dataDir>/<network>/lock                    held with flock(2) during every call

The index, which the reference never looks at:

    <dataDir>/.pycni/<network>/<container id>:<ifname>  symbolic link whose text is "own" or "seen" and the addresses
    <dataDir>/.pycni/<network>/boot                     symbolic link whose text is the kernel's boot_id

A symbolic link because it appears whole, with one system call, and survives a power cut with its text. An entry is
written before its leases and removed after them. The directory of leases is sealed by an impossible time of
modification: any change that is not followed by a seal (the reference's, an administrator's, a call's that was
killed) puts the clock's time there, and the next call rebuilds the index from the files.
"""

from __future__ import annotations

import errno
import fcntl
import posix

from shared import signals
from shared.cni.errors import IOFailure, TryAgainLater
from shared.cni.ip import Address
from shared.cni.names import is_link_name, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

LOCK_SECONDS = 20.0
LOCK_TRIES = 100
LEASE_LIMIT = 8192  # bytes of a lease file that are looked at; a container id has at most 4096
SIDECAR = ".pycni"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
SEAL_SECONDS = 315532800  # 1980-01-01: before any lease
LONGEST_KEY = 240  # bytes; file names have at most 255
ID_DIGITS = 64  # containerd's, CRI-O's and podman's container ids: SHA-256 in hexadecimal
READ_ONLY_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
OWN, SEEN = "own", "seen"
S_IFMT, S_IFREG = 0o170000, 0o100000
NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


class Lease:
    """What stands in a lease file; `ifname` is empty in the form of old."""

    def __init__(self, container_id: str, ifname: str) -> None:
        self.container_id = container_id
        self.ifname = ifname

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return f"{self.container_id}\r\n{self.ifname}".encode() if self.ifname else self.container_id.encode()

    @property
    def key(self) -> str:
        """The name of its index entry."""
        return f"{self.container_id}:{self.ifname}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lease) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    @property
    def is_runtime_made(self) -> bool:
        """Whether its id is one that container runtimes make, and nobody writes by hand."""
        return len(self.container_id) == ID_DIGITS and set(self.container_id) <= set("0123456789abcdef")


class Entry:
    """An index entry: whose it is, whether this suite made the leases, and which."""

    def __init__(self, origin: str, addresses: list[str]) -> None:
        self.origin = origin
        self.addresses = addresses


def parse_lease(content: bytes) -> Lease | None:
    """Reads a lease; None for what a crash leaves behind: nothing, zeros, or anything that is not text."""
    text = content.strip()
    if not text or not text.isascii() or any(byte < 32 and byte not in b"\t\r\n" for byte in text):
        return None
    container_id, separator, ifname = text.decode().partition("\r\n")
    return Lease(container_id, ifname if separator else "")


class Store:
    """One network's leases, locked while `with` lasts.

    Raises IOFailure for what the file system refuses, TryAgainLater where the lock is not to be had in 20 seconds.
    """

    def __init__(self, data_dir: str, network: str) -> None:
        self.data_dir = data_dir
        self.network = network
        self.path = f"{data_dir}/{network}"
        self.directory = self.index = self.lock = -1

    def exists(self) -> bool:
        """Whether any lease was ever made: DEL and GC have nothing to do otherwise."""
        try:
            posix.lstat(self.path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return False
            raise self._failure("find", error) from None
        return True

    def __enter__(self) -> Self:
        try:
            self.directory = _directory(self.path)
            sidecar = _directory(f"{self.data_dir}/{SIDECAR}")
            self.index = _directory(self.network, sidecar)
            posix.close(sidecar)
            # held, too, since anybody may remove the lock file, but nobody a directory that has leases in it
            self._hold(self.directory)
            self.lock = self._lock()
            if not self._is_sealed():
                self.rebuild()
        except OSError as error:
            raise self._failure("open", error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        posix.close(self.lock)
        posix.close(self.index)
        posix.close(self.directory)

    def _failure(self, what: str, error: OSError) -> IOFailure:
        return IOFailure(f"cannot {what} the leases in {self.path}", str(error))

    def _lock(self) -> int:
        for _ in range(LOCK_TRIES):
            flags = posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC | posix.O_NONBLOCK
            lock = posix.open("lock", flags, 0o600, dir_fd=self.directory)
            held = posix.fstat(lock)
            if held.st_mode & S_IFMT != S_IFREG:
                raise IOFailure(f"{self.path}/lock is not a regular file")
            self._hold(lock)
            try:
                named = posix.stat("lock", dir_fd=self.directory, follow_symlinks=False)
            except FileNotFoundError:
                named = None
            if named is not None and named.st_ino == held.st_ino:
                return lock
            posix.close(lock)  # somebody removed the file meanwhile: what is held is nobody's lock any more
        raise TryAgainLater(f"{self.path}/lock is removed again and again")

    def _hold(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                with signals.interruptible(LOCK_SECONDS):
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            except signals.DeadlineExpired:
                raise TryAgainLater(
                    f"the lock of {self.path} is held by another call for over {LOCK_SECONDS:.0f} seconds"
                ) from None

    # -- the seal and the index

    def _is_sealed(self) -> bool:
        held = posix.fstat(self.directory)
        if held.st_mtime_ns != seal_time(held.st_ino):
            return False
        try:
            return posix.readlink("boot", dir_fd=self.index) == _boot_id()
        except OSError:
            return False

    def seal(self) -> None:
        """Says that the index is complete; where the file system cannot keep the time, the next call rebuilds it."""
        sealed = seal_time(posix.fstat(self.directory).st_ino)
        try:
            posix.utime(self.directory, ns=(sealed, sealed))
        except OSError:
            return

    def rebuild(self) -> None:
        """Reads every lease: makes the index anew, removes what no call can have left behind.

        That is: files that are empty or garbled, and leases of an earlier boot (no network namespace survives one)
        that this suite made, or that it saw in that boot with the id of a container runtime. A lease of another form
        may have been placed by hand, and stays.
        """
        old = self._entries()
        rebooted = self._index_text("boot") not in (None, _boot_id())
        leases: dict[Lease, list[str]] = {}
        for name in list(self.names()):
            content = self._content(name)
            if content is None:
                continue
            lease = parse_lease(content)
            if lease is None:
                self._unlink(name)
                continue
            entry = old.get(lease.key)
            known = entry is not None and name in entry.addresses
            if rebooted and entry is not None and known and (entry.origin == OWN or lease.is_runtime_made):
                self._unlink(name)
                continue
            leases.setdefault(lease, []).append(name)
        for key in old.keys() - {lease.key for lease in leases}:
            _unlink_if_there(key, self.index)
        for lease, names in leases.items():
            entry = old.get(lease.key)
            mine = entry is not None and entry.origin == OWN and not rebooted and set(names) <= set(entry.addresses)
            origin = OWN if mine else SEEN
            if entry is None or (entry.origin, set(entry.addresses)) != (origin, set(names)):
                self._write_entry(lease, origin, names)
        self._replace_index_text("boot", _boot_id())
        self.seal()

    def _entries(self) -> dict[str, Entry]:
        entries = {}
        for key in posix.listdir(self.index):
            text = self._index_text(key) if ":" in key else None
            if text is not None:
                origin, *addresses = text.split()
                entries[key] = Entry(origin, addresses)
        return entries

    def _index_text(self, name: str) -> str | None:
        try:
            return posix.readlink(name, dir_fd=self.index)
        except OSError:
            return None

    def _replace_index_text(self, name: str, text: str) -> None:
        try:
            posix.symlink(text, name, dir_fd=self.index)
        except FileExistsError:
            posix.unlink(name, dir_fd=self.index)
            posix.symlink(text, name, dir_fd=self.index)

    def _write_entry(self, lease: Lease, origin: str, addresses: list[str]) -> None:
        if len(lease.key) <= LONGEST_KEY and "/" not in lease.key:
            self._replace_index_text(lease.key, " ".join([origin, *addresses]))

    # -- leases

    def names(self) -> Iterator[str]:
        """The names of the lease files, which are addresses, in no order; garbled files included."""
        for name in posix.listdir(self.directory):
            if _is_address(name):
                yield name

    def read(self, name: str) -> Lease | None:
        """The lease of an address: None if there is none, or an empty or garbled one; other than files are ignored."""
        content = self._content(name)
        return None if content is None else parse_lease(content)

    def _content(self, name: str) -> bytes | None:
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
            return posix.read(descriptor, LEASE_LIMIT)
        finally:
            posix.close(descriptor)

    def is_taken(self, name: str) -> bool:
        """Whether an address is leased; an empty or garbled file in its place is removed."""
        try:
            found = posix.stat(name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if found.st_mode & S_IFMT != S_IFREG or self.read(name) is not None:
            return True
        self._unlink(name)
        return False

    def leased(self, lease: Lease) -> list[str]:
        """The addresses that a container's interface has."""
        text = self._index_text(lease.key) if len(lease.key) <= LONGEST_KEY else None
        if text is not None:
            names = list(filter(_is_address, text.split()[1:]))
        elif len(lease.key) > LONGEST_KEY:
            names = list(self.names())  # too long for a file name: not in the index
        else:
            return []
        return [name for name in names if self.read(name) == lease]

    def last_reserved(self, set_number: int) -> Address | None:
        """Where round robin stands in a range set."""
        content = self._content(f"last_reserved_ip.{set_number}")
        try:
            return Address.parse((content or b"").decode().strip())
        except ValueError:
            return None

    def reserve(self, lease: Lease, chosen: list[tuple[int, Address]]) -> bool:
        """Leases addresses, each with the number of its range set; False, and nothing leased, if one is taken."""
        try:
            self._write_entry(lease, OWN, [str(address) for _, address in chosen])
            for _, address in chosen:
                if not self._create(str(address), lease.content):
                    self.release(lease)
                    return False
            for number, address in chosen:
                self._write(f"last_reserved_ip.{number}", str(address).encode(), posix.O_TRUNC)
        except OSError as error:
            self.release(lease)
            raise self._failure("write", error) from None
        self.seal()
        return True

    def release(self, lease: Lease) -> None:
        """Frees the addresses of a container's interface; none is no error."""
        try:
            for name in self.leased(lease):
                self._unlink(name)
            if len(lease.key) <= LONGEST_KEY:
                _unlink_if_there(lease.key, self.index)
        except OSError as error:
            raise self._failure("release", error) from None
        self.seal()

    def _create(self, name: str, content: bytes) -> bool:
        """Makes a lease file that appears whole: False if there is one already."""
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
        """Without O_TMPFILE; killed in the middle it leaves an empty file, which the next call removes."""
        try:
            self._write(name, content, posix.O_EXCL)
        except FileExistsError:
            return False
        except OSError:
            _unlink_if_there(name, self.directory)
            raise
        return True

    def _write(self, name: str, content: bytes, how: int) -> None:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC | how
        descriptor = posix.open(name, flags, 0o600, dir_fd=self.directory)
        try:
            _write_all(descriptor, content)
        finally:
            posix.close(descriptor)

    def _unlink(self, name: str) -> None:
        _unlink_if_there(name, self.directory)


def seal_time(inode: int) -> int:
    """The seal of the directory with that inode number: its time of modification, in nanoseconds."""
    return (SEAL_SECONDS + inode % (1 << 20)) * 1_000_000_000


def problem(data_dir: str, network: str) -> str:
    """Why no lease could be written now (read-only, full, not a directory…), or an empty text."""
    path = f"{data_dir}/{network}"
    held = None
    while held is None:
        try:
            held = posix.lstat(path)
        except FileNotFoundError:
            path = path.rpartition("/")[0] or "/"
        except OSError as error:
            return f"{path}: {error.strerror}"
    if held.st_mode & S_IFMT != 0o040000 and path == f"{data_dir}/{network}":
        return f"{path} is not a directory"
    if not posix.access(path, posix.W_OK):
        return f"{path} is not writable"
    free = posix.statvfs(path)
    if free.f_blocks and not free.f_bavail:
        return f"the file system of {path} is full"
    if free.f_files and not free.f_favail:
        return f"the file system of {path} has no inode left"
    return ""


def is_hand_placed(lease: Lease) -> bool:
    """Whether a lease is of a form that no plugin writes, so that GC has no say over it."""
    if lease.ifname:
        return not (is_name(lease.container_id) and is_link_name(lease.ifname))
    return not lease.is_runtime_made


def _is_address(name: str) -> bool:
    try:
        Address.parse(name)
    except ValueError:
        return False
    return True


def _directory(path: str, parent: int | None = None) -> int:
    """Opens a directory of the store, made if need be: no symbolic link, root's, and nobody else's to write."""
    try:
        descriptor = posix.open(path, READ_ONLY_DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        place = 0
        while (place := path.find("/", place + 1)) > 0:
            _make_directory(path[:place], 0o755, parent)
        _make_directory(path, 0o700, parent)
        descriptor = posix.open(path, READ_ONLY_DIRECTORY, dir_fd=parent)
    held = posix.fstat(descriptor)
    if held.st_uid != posix.geteuid() or held.st_mode & 0o022:
        raise IOFailure(f"{path} must belong to the user of the plugin and be writable for nobody else")
    return descriptor


def _make_directory(path: str, mode: int, parent: int | None) -> None:
    try:
        posix.mkdir(path, mode, dir_fd=parent)
    except FileExistsError:
        return


def _unlink_if_there(name: str, directory: int) -> None:
    try:
        posix.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[posix.write(descriptor, content) :]


def _boot_id() -> str:
    descriptor = posix.open(BOOT_ID, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(descriptor, 64).decode().strip()
    finally:
        posix.close(descriptor)
