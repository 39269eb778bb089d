r"""Store leases as files in the form of the reference host-local, and an index beside them.

The index keeps the cost of a call independent of the number of leases. This suite and the reference plugin can share
these files on a live node:

    <dataDir>/<network>/<address>               "<container id>\r\n<ifname>"; old releases wrote the id alone
    <dataDir>/<network>/last_reserved_ip.<set>  the last address of each range set, for round robin
    <dataDir>/<network>/lock                    locked with flock(2) during every call; owner root, mode 0600

A call first locks <dataDir>/.pycni/<network>, the directory of the index, then the lock file. Root may remove the lock
file while a call waits, but cannot remove a directory that has entries. The directory of the index has mode 0700. The
directory of leases is never locked: the reference creates it with mode 0755, so any user could hold the lock.

ipam/host_local/index.py describes the index, which the reference ignores. A call writes an entry before its leases and
removes it after them. Then it seals the directory of leases: it sets an impossible time of modification. A change
without a seal (by the reference, an administrator, or a call that was killed) sets the current time. The next call then
rebuilds the index from the files.

The seal does not detect a file that is rewritten in place. So a call reads the files that an entry lists before it
relies on the entry. If a file holds another lease, the call rebuilds the index. A file with the container's id alone
belongs to the entry. A DEL that finds no lease reads every file. One case stays undetected until a rebuild or a GC: a
file that was rewritten as a lease of a container's interface that has others in the index.
"""

from __future__ import annotations

import errno
import posix

from ipam.host_local.files import Files, open_directory, open_existing_directory
from ipam.host_local.index import OWN, SEEN, Entry, Index, boot_id
from ipam.host_local.lease import Lease, parse_lease
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
WRITTEN_WITHIN_NS = 1_000_000_000  # from an index entry to the last of its lease files
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)


class Unwritable(IOFailure):
    """The store cannot be opened for writing; reading it may be possible."""


class Store(Files):
    """The leases of one network, locked inside `with`.

    Raises IOFailure if the file system refuses an operation, TryAgainLater if another process holds a lock for 20
    seconds.
    """

    def __init__(self, data_dir: str, network: str) -> None:
        super().__init__()
        self.data_dir = data_dir
        self.network = network
        self.path = f"{data_dir}/{network}"
        self.lock = -1
        self.index = Index()

    def exists(self) -> bool:
        """Return True if the directory of leases exists; if not, DEL and GC have nothing to do."""
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
        """Release the locks and close the directories."""
        for descriptor in (self.lock, self.directory):
            if descriptor >= 0:
                posix.close(descriptor)
        self.directory = self.lock = -1
        self.index.close()

    def _open(self) -> None:
        self.directory = open_directory(self.path)
        sidecar = open_directory(f"{self.data_dir}/{SIDECAR}")
        self.index = Index(open_directory(self.network, sidecar))
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
        """Lock the directory of the index, unless other users can open it, then the lock file."""
        wait = lock.Wait(LOCK_SECONDS)
        if self.index.descriptor >= 0 and not posix.fstat(self.index.descriptor).st_mode & lock.OTHERS_ALL:
            try:
                wait.take(self.index.descriptor, self.path)
            except lock.Foreign:  # another user opened it before its mode was set: the lock file alone excludes calls
                pass
        self.lock = wait.take_file(self.path, parent=self.directory, is_read_only=is_read_only)

    # -- the seal and the index

    def _is_sealed(self) -> bool:
        held = posix.fstat(self.directory)
        if held.st_mtime_ns != seal_time(held.st_ino):
            return False
        return self.index.boot() == boot_id()

    def seal(self) -> None:
        """Mark the index as complete. If the file system cannot store the time, the next call rebuilds the index."""
        sealed = seal_time(posix.fstat(self.directory).st_ino)
        try:
            posix.utime(self.directory, ns=(sealed, sealed))
        except OSError:
            return

    def rebuild(self) -> None:
        """Rebuild the index from all lease files; remove the files that `survey` reports as left over."""
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
        """Return True if no file is newer than its entry; the reference leased the address of a newer file again."""
        try:
            latest = self.index.time(key) + WRITTEN_WITHIN_NS
            times = [posix.stat(name, dir_fd=self.directory, follow_symlinks=False).st_mtime_ns for name in names]
        except FileNotFoundError:  # an administrator removed the file without the lock
            return False
        return max(times) <= latest

    def survey(self, entries: dict[str, Entry]) -> Iterator[tuple[str, Lease | None, bool]]:
        """Yield each address that has a file, its lease, and True if the file is left over: safe to remove.

        Left over are empty and garbled files, for which the lease is None. So are leases of an earlier boot, since no
        network namespace survives a reboot, if this suite made them, or saw them in that boot with an id that container
        runtimes make. An administrator may have written a lease of another form. A file with the id alone belongs to
        the interface for which the index lists it.
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
        """Return True if the index was written in an earlier boot."""
        return self.index.boot() not in (None, boot_id())

    # -- leases

    def leased(self, lease: Lease) -> list[str]:
        """Return the addresses of a container's interface from the index; rebuild the index if it is wrong."""
        names = self._listed(lease)
        if names is None:
            self.rebuild()
            names = self._listed(lease)
        return names or []

    def _listed(self, lease: Lease) -> list[str] | None:
        """Return the addresses that the index lists, or None if another container has one of them by now."""
        entry = self.index.entry(lease.key)
        if entry is None:
            return []
        if entry.is_cut:
            return self.search(lease)
        held = {name: found for name in entry.addresses if (found := self.read(name)) is not None}
        return list(held) if all(found in (lease, lease.bare) for found in held.values()) else None

    def search(self, lease: Lease) -> list[str]:
        """Return the addresses of a container's interface from all files.

        If no file names the interface, return the addresses of the files with the container's id alone.
        """
        found = [(name, held) for name, held, is_left_over in self.survey(self.index.entries()) if not is_left_over]
        own, bare = ([name for name, held in found if held == one] for one in (lease, lease.bare))
        return own or bare

    def is_lost(self, lease: Lease) -> bool:
        """Return True if the network namespace of the lease's ADD no longer exists."""
        from shared.net import liveness

        entry = self.index.entry(lease.key)
        return entry is not None and liveness.is_lost(entry.mark)

    def is_dead(self, lease: Lease) -> bool:
        """Return True if neither the network namespace nor the host link of the lease's attachment exists."""
        if not self.is_lost(lease):
            return False
        from shared.net import liveness
        from shared.net.owner import Owner

        entry = self.index.entry(lease.key)
        owner = Owner(self.network, lease.container_id, lease.ifname)
        return entry is not None and liveness.is_dead(owner, entry.mark)

    def dead_leases(self) -> dict[str, Lease]:
        """Return the leases of dead attachments that the index lists, by address."""
        found: dict[str, Lease] = {}
        for key, entry in self.index.entries().items():
            for name in entry.addresses if entry.mark else ():
                lease = self.read(name)
                if lease and lease.key == key and self.is_dead(lease):
                    found[name] = lease
        return found

    def reclaim(self) -> bool:
        """Free the leases of dead attachments; return True if there were any."""
        found = set(self.dead_leases().values())
        for lease in found:
            self.release(lease)
        return bool(found)

    def last_reserved(self, set_number: int) -> Address | None:
        """Return the last address that round robin gave out in a range set, or None."""
        content = self._content(f"last_reserved_ip.{set_number}")
        try:
            return Address.parse((content or b"").decode().strip())
        except ValueError:
            return None

    def reserve(self, lease: Lease, chosen: list[tuple[int, Address]], mark: str = "") -> bool:
        """Lease addresses, each with the number of its range set. Lease none and return False if one is taken.

        `mark` identifies the pod's namespace: a later call uses it to detect that the pod is dead.
        """
        made: list[str] = []
        try:
            self.index.write(lease, OWN, [str(address) for _, address in chosen], mark)
            for name in [str(address) for _, address in chosen]:
                if not self._create(name, lease.content):
                    self._roll_back(lease, made)
                    return False
                made.append(name)
            for number, address in chosen:
                self._write(f"last_reserved_ip.{number}", str(address).encode(), posix.O_TRUNC)
        except OSError as error:
            self._roll_back(lease, made)
            raise self._failure("write", error) from None
        self.seal()
        return True

    def _roll_back(self, lease: Lease, made: list[str]) -> None:
        """Remove the files that a reservation created, and its index entry."""
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
        """Free the addresses of a container's interface. Search all files if the index lists none."""
        if not self.leased(lease):
            for name in self.search(lease):
                self.release_address(name)
        self.release(lease)

    def release_address(self, name: str) -> None:
        """Free one address, even if its file is garbled. Keep the other addresses of its owner."""
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

    def forget_all_but(self, keys: set[str]) -> None:
        """Remove the index entries of other keys. An ADD or DEL that was killed leaves an entry without a lease."""
        try:
            for key in self.index.entries().keys() - keys:
                self.index.remove(key)
        except OSError as error:
            raise self._failure("release", error) from None


class Look(Store):
    """A read-only view of the leases: it creates, repairs and removes nothing.

    The store may be on a read-only file system. Locks are taken if their files exist. Call `find` instead of `leased`.
    """

    def _open(self) -> None:
        self.directory = open_existing_directory(self.path)
        try:
            sidecar = open_existing_directory(f"{self.data_dir}/{SIDECAR}")
            self.index = Index(open_existing_directory(self.network, sidecar))
            posix.close(sidecar)
        except FileNotFoundError:
            self.index = Index()  # the reference creates no index
        try:
            self._lock(is_read_only=True)
        except FileNotFoundError:
            self.lock = -1

    def find(self, lease: Lease) -> list[str]:
        """Return the addresses of a container's interface: from the index if it is right, else from all files."""
        return (self._is_sealed() and self._listed(lease)) or self.search(lease)


def seal_time(inode: int) -> int:
    """Return the time of modification, in nanoseconds, that seals the directory with that inode number."""
    return (SEAL_SECONDS + inode % (1 << 20)) * 1_000_000_000


def _listed(entries: dict[str, Entry]) -> dict[str, str]:
    """Return the key of the entry that lists each address, by address."""
    return {name: key for key, entry in entries.items() for name in entry.addresses}


def _credited(lease: Lease, key: str) -> Lease:
    """Return the lease with the interface of `key`, the entry that lists its file, if the file has the id alone."""
    container_id, _, ifname = key.partition(":")
    return Lease(container_id, ifname) if ifname and lease == Lease(container_id, "") else lease
