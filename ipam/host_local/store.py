r"""Leases as files, in the reference's form, and an index beside them that keeps every call's cost constant.

The reference's part, which it and this suite can use by turns on a live node:

    <dataDir>/<network>/<address>               "<container id>\r\n<ifname>"; of old, the id alone
    <dataDir>/<network>/last_reserved_ip.<set>  where round robin goes on, for each range set
    <dataDir>/<network>/lock                    held with flock(2) during every call; root's, mode 0600

A call holds <dataDir>/.pycni/<network>, the directory of the index, before the lock file: anybody with root's rights
may remove the file while a call waits, but no directory that has entries. Its mode is 0700. The directory of leases is
never locked: the reference creates it with mode 0755, so that any user could hold it.

The index, which the reference never looks at, is ipam/host_local/index.py's. An entry is written before its leases and
removed after them. The directory of leases is sealed by an impossible time of modification: any change that is not
followed by a seal (the reference's, an administrator's, a call's that was killed) puts the clock's time there, and the
next call rebuilds the index from the files.

A file that is rewritten in place breaks no seal. So the files that an entry lists are read before it is believed: one
that holds another's lease makes the call rebuild the index, and one that holds the container's id alone counts as the
entry's. A DEL that finds no lease reads every file. One case stays hidden until a rebuild or a GC: a file that was
rewritten as a lease of a container that has others in the index.
"""

from __future__ import annotations

import errno
import posix

from ipam.host_local.index import OWN, SEEN, Entry, Index, boot_id, is_address, unlink_if_there
from ipam.host_local.lease import LEASE_LIMIT, Lease, parse_lease
from shared import steps
from shared.cni import lock
from shared.cni.errors import IOFailure
from shared.cni.ip import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import TypeVar

    AnyStore = TypeVar("AnyStore", bound="Store")

LOCK_SECONDS = 20.0
SIDECAR = ".pycni"
SEAL_SECONDS = 315532800  # 1980-01-01: before any lease
FIRST_READ = 4096  # bytes: all of any lease but the longest
WRITTEN_WITHIN_NS = 1_000_000_000  # an entry and the lease files that go with it
READ_ONLY_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
S_IFMT, S_IFREG = 0o170000, 0o100000
NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)


class Unwritable(IOFailure):
    """The store cannot be opened for writing; it can perhaps be read."""


class Store:
    """One network's leases, locked while `with` lasts.

    Raises IOFailure for what the file system refuses, TryAgainLater where the lock is not to be had in 20 seconds.
    """

    def __init__(self, data_dir: str, network: str) -> None:
        self.data_dir = data_dir
        self.network = network
        self.path = f"{data_dir}/{network}"
        self.directory = self.lock = -1
        self.index = Index()

    def exists(self) -> bool:
        """Whether any lease was ever made: DEL and GC have nothing to do otherwise."""
        try:
            posix.lstat(self.path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return False
            raise self._failure("find", error) from None
        return True

    def __enter__(self: AnyStore) -> AnyStore:
        steps.begin("ipam.lock")
        try:
            self._open()
        except OSError as error:
            self.close()
            raise self._failure("open", error) from None
        except BaseException:
            self.close()
            raise
        steps.begin("ipam.leases")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the locks and directories."""
        for descriptor in (self.lock, self.directory):
            if descriptor >= 0:
                posix.close(descriptor)
        self.directory = self.lock = -1
        self.index.close()

    def _open(self) -> None:
        self.directory = _directory(self.path)
        sidecar = _directory(f"{self.data_dir}/{SIDECAR}")
        self.index = Index(_directory(self.network, sidecar))
        posix.close(sidecar)
        lock.close_to_others(self.index.descriptor, 0o700)
        self._lock(is_read_only=False)
        if not self._is_sealed():
            steps.begin("ipam.index")
            self.rebuild()

    def _failure(self, what: str, error: OSError) -> IOFailure:
        kind = Unwritable if what == "open" and error.errno in UNWRITABLE else IOFailure
        return kind(f"cannot {what} the leases in {self.path}", str(error))

    def _lock(self, *, is_read_only: bool) -> None:
        """Hold the directory of the index, if nobody else can open it, and the lock file."""
        wait = lock.Wait(LOCK_SECONDS)
        if self.index.descriptor >= 0 and not posix.fstat(self.index.descriptor).st_mode & lock.OTHERS_ALL:
            try:
                wait.take(self.index.descriptor, self.path)
            except lock.Foreign:  # another user opened it before its mode was set: the file excludes other calls
                pass
        self.lock = wait.take_file(self.path, parent=self.directory, is_read_only=is_read_only)

    # -- the seal and the index

    def _is_sealed(self) -> bool:
        held = posix.fstat(self.directory)
        if held.st_mtime_ns != seal_time(held.st_ino):
            return False
        return self.index.boot() == boot_id()

    def seal(self) -> None:
        """Says that the index is complete; where the file system cannot keep the time, the next call rebuilds it."""
        sealed = seal_time(posix.fstat(self.directory).st_ino)
        try:
            posix.utime(self.directory, ns=(sealed, sealed))
        except OSError:
            return

    def rebuild(self) -> None:
        """Read every lease: make the index anew, and remove the files that `survey` finds to be left over."""
        old = self.index.entries()
        rebooted = self.is_rebooted()
        leases: dict[Lease, list[str]] = {}
        for name, lease, is_left_over in self.survey(old):
            if lease is None or is_left_over:
                self._unlink(name)
            else:
                leases.setdefault(lease, []).append(name)
        for key in old.keys() - {lease.key for lease in leases}:
            self.index.remove(key)
        for lease, names in leases.items():
            entry = old.get(lease.key)
            mine = entry is not None and entry.origin == OWN and not rebooted and set(names) <= set(entry.addresses)
            origin = OWN if mine else SEEN
            mark = entry.mark if entry and mine and self._is_as_old(names, lease.key) else ""
            if entry is None or (entry.origin, set(entry.addresses), entry.mark) != (origin, set(names), mark):
                self.index.write(lease, origin, names, mark)
        self.index.note_boot()
        self.seal()

    def _is_as_old(self, names: list[str], key: str) -> bool:
        """Return True if an entry was written with its files: the reference may have leased an address again since."""
        try:
            latest = self.index.time(key) + WRITTEN_WITHIN_NS
            times = [posix.stat(name, dir_fd=self.directory, follow_symlinks=False).st_mtime_ns for name in names]
        except FileNotFoundError:  # somebody has no need of the lock
            return False
        return max(times) <= latest

    def survey(self, entries: dict[str, Entry]) -> Iterator[tuple[str, Lease | None, bool]]:
        """Each address that has a file, its lease, and whether that is left over: no call can have left it behind.

        That is: files that are empty or garbled, whose lease is None, and leases of an earlier boot (no network
        namespace survives one) that this suite made, or that it saw in that boot with the id of a container runtime. A
        lease of another form may have been placed by hand. A file with the id alone is that of the interface for which
        the index lists it.
        """
        rebooted = self.is_rebooted()
        listed = _listed(entries)
        for name in list(self.names()):
            content = self._content(name)
            if content is None:
                continue
            lease = parse_lease(content)
            if lease is None:
                yield name, None, True
                continue
            lease = _credited(lease, listed.get(name, ""))
            entry = entries.get(lease.key)
            known = entry is not None and name in entry.addresses and (entry.origin == OWN or lease.is_runtime_made)
            yield name, lease, rebooted and known

    def is_rebooted(self) -> bool:
        """Whether the index is of an earlier boot."""
        return self.index.boot() not in (None, boot_id())

    # -- leases

    def names(self) -> Iterator[str]:
        """The names of the lease files, which are addresses, in no order; garbled files included."""
        for name in posix.listdir(self.directory):
            if is_address(name):
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
            content = posix.read(descriptor, FIRST_READ)
            while FIRST_READ <= len(content) < LEASE_LIMIT and (more := posix.read(descriptor, LEASE_LIMIT)):
                content += more
            return content
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
        """The addresses that a container's interface has, by the index; a wrong one is made anew."""
        names = self._listed(lease)
        if names is None:
            self.rebuild()
            names = self._listed(lease)
        return names or []

    def _listed(self, lease: Lease) -> list[str] | None:
        """The addresses that the index lists, None if one of them is another's by now."""
        entry = self.index.entry(lease.key)
        if entry is None:
            return []
        if entry.is_cut:
            return self.search(lease)
        held = {name: found for name in entry.addresses if (found := self.read(name)) is not None}
        return list(held) if all(found in (lease, lease.bare) for found in held.values()) else None

    def search(self, lease: Lease) -> list[str]:
        """The addresses that a container's interface has, by every file; without one, those of its id alone."""
        found = [(name, held) for name, held, is_left_over in self.survey(self.index.entries()) if not is_left_over]
        own, bare = ([name for name, held in found if held == one] for one in (lease, lease.bare))
        return own or bare

    def is_lost(self, lease: Lease) -> bool:
        """Return True if the lease is of an ADD whose network namespace is gone."""
        from shared.net import liveness

        entry = self.index.entry(lease.key)
        return entry is not None and liveness.is_lost(entry.mark)

    def is_dead(self, lease: Lease) -> bool:
        """Return True if the lease is of an attachment whose network namespace and host link are gone."""
        if not self.is_lost(lease):
            return False
        from shared.net import liveness
        from shared.net.owner import Owner

        entry = self.index.entry(lease.key)
        owner = Owner(self.network, lease.container_id, lease.ifname)
        return entry is not None and liveness.is_dead(owner, entry.mark)

    def dead(self) -> dict[str, Lease]:
        """The addresses whose leases are of dead attachments, by the index, and the leases."""
        found: dict[str, Lease] = {}
        for key, entry in self.index.entries().items():
            for name in entry.addresses if entry.mark else ():
                lease = self.read(name)
                if lease and lease.key == key and self.is_dead(lease):
                    found[name] = lease
        return found

    def reclaim(self) -> bool:
        """Free the leases of dead attachments; return True if there were any."""
        found = set(self.dead().values())
        for lease in found:
            self.release(lease)
        return bool(found)

    def last_reserved(self, set_number: int) -> Address | None:
        """Where round robin stands in a range set."""
        content = self._content(f"last_reserved_ip.{set_number}")
        try:
            return Address.parse((content or b"").decode().strip())
        except ValueError:
            return None

    def reserve(self, lease: Lease, chosen: list[tuple[int, Address]], mark: str = "") -> bool:
        """Leases addresses, each with the number of its range set; False, and nothing leased, if one is taken.

        `mark` is that of the pod's namespace, by which a later call sees that the pod is dead.
        """
        made: list[str] = []
        try:
            self.index.write(lease, OWN, [str(address) for _, address in chosen], mark)
            for name in [str(address) for _, address in chosen]:
                if not self._create(name, lease.content):
                    self._take_back(lease, made)
                    return False
                made.append(name)
            for number, address in chosen:
                self._write(f"last_reserved_ip.{number}", str(address).encode(), posix.O_TRUNC)
        except OSError as error:
            self._take_back(lease, made)
            raise self._failure("write", error) from None
        self.seal()
        return True

    def _take_back(self, lease: Lease, made: list[str]) -> None:
        """Remove the files that a reservation has made, and its index entry."""
        try:
            for name in made:
                self._unlink(name)
            self.index.remove(lease.key)
        except OSError as error:
            raise self._failure("release", error) from None
        self.seal()

    def release(self, lease: Lease) -> None:
        """Free the addresses of a container's interface that the index knows. Do nothing if it has none."""
        try:
            for name in self.leased(lease):
                self._unlink(name)
            self.index.remove(lease.key)
        except OSError as error:
            raise self._failure("release", error) from None
        self.seal()

    def release_found(self, lease: Lease) -> None:
        """Free the addresses of a container's interface, whatever form their files have and the index knows or not."""
        if not self.leased(lease):
            for name in self.search(lease):
                self.release_address(name)
        self.release(lease)

    def release_address(self, name: str) -> None:
        """Free one address, whatever its file holds. Keep the others of its owner."""
        try:
            lease = self.read(name)
            if lease and not lease.ifname:
                lease = _credited(lease, _listed(self.index.entries()).get(name, ""))
            self._unlink(name)
            rest = self.leased(lease) if lease else []
            entry = self.index.entry(lease.key) if lease and rest else None
            if lease and entry:
                self.index.write(lease, entry.origin, rest, entry.mark)
            elif lease:
                self.release(lease)
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
            unlink_if_there(name, self.directory)
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
        unlink_if_there(name, self.directory)


class Look(Store):
    """The leases as they are, for calls that change none: nothing is made, repaired or removed.

    It needs no store that can be written, and takes the locks that are there. Use `find`, not `leased`.
    """

    def _open(self) -> None:
        self.directory = _existing_directory(self.path)
        try:
            sidecar = _existing_directory(f"{self.data_dir}/{SIDECAR}")
            self.index = Index(_existing_directory(self.network, sidecar))
            posix.close(sidecar)
        except FileNotFoundError:
            self.index = Index()  # the reference has none
        try:
            self._lock(is_read_only=True)
        except FileNotFoundError:
            self.lock = -1

    def find(self, lease: Lease) -> list[str]:
        """The addresses of a container's interface, by the index if it is complete and right, else by every file."""
        return (self._is_sealed() and self._listed(lease)) or self.search(lease)


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


def _listed(entries: dict[str, Entry]) -> dict[str, str]:
    """Return the key of the entry that lists an address, by the address."""
    return {name: key for key, entry in entries.items() for name in entry.addresses}


def _credited(lease: Lease, key: str) -> Lease:
    """Return the lease of the interface for which the index lists a file that holds the id alone."""
    container_id, _, ifname = key.partition(":")
    return Lease(container_id, ifname) if ifname and lease == Lease(container_id, "") else lease


def _directory(path: str, parent: int | None = None) -> int:
    """Opens a directory of the store, made if need be: no symbolic link, root's, and nobody else's to write."""
    try:
        return _existing_directory(path, parent)
    except FileNotFoundError:
        place = 0
        while (place := path.find("/", place + 1)) > 0:
            _make_directory(path[:place], 0o755, parent)
        _make_directory(path, 0o700, parent)
        return _existing_directory(path, parent)


def _existing_directory(path: str, parent: int | None = None) -> int:
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


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[posix.write(descriptor, content) :]
