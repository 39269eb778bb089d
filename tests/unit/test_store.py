"""The lease store against a model, with all changes that its files may see between two calls."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipam.host_local import store as store_module
from ipam.host_local.lease import Lease, is_hand_placed, parse_lease
from ipam.host_local.store import Look, Store
from ipam.host_local.writable import problem
from shared.cni.errors import IOFailure
from shared.cni.ip import Address
from tests.unit.python import run

RUNTIME_MADE = "0123456789abcdef" * 4
LONG = "long-" + "x" * 245  # its index entry is called by a digest
CONTAINERS = ["a", "b", "pod-1", RUNTIME_MADE, RUNTIME_MADE[::-1], LONG]
IFNAMES = ["eth0", "net1"]
ADDRESSES = [f"10.1.0.{number}" for number in range(2, 8)] + ["fd00::2", "fd00::a0"]

containers = st.sampled_from(CONTAINERS)
ifnames = st.sampled_from(IFNAMES)
addresses = st.sampled_from(ADDRESSES)


class Killed(BaseException):
    """SIGKILL: no code of the call runs any more."""


class Dying(Store):
    """A store whose process is killed after it has changed the directory of leases `changes` times."""

    changes = 0

    def _struck(self) -> None:
        if self.changes == 0:
            raise Killed
        self.changes -= 1

    def _create(self, name: str, content: bytes) -> bool:
        self._struck()
        return super()._create(name, content)

    def _write(self, name: str, content: bytes, how: int) -> None:
        self._struck()
        super()._write(name, content, how)

    def _unlink(self, name: str) -> None:
        self._struck()
        super()._unlink(name)

    def seal(self) -> None:
        self._struck()
        super().seal()


class Leases(RuleBasedStateMachine):
    """`files` is the content of the lease files; `own` are leases that only this suite made, all with an intact index."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="leases"))
        self.directory = self.root / "net"
        self.index = self.root / store_module.SIDECAR / "net"
        self.files: dict[str, bytes] = {}
        self.own: set[bytes] = set()
        self.strange: set[bytes] = set()  # leases that others have written, now
        self.half: set[bytes] = set()  # leases of which a killed call may have left an index entry alone
        self.bare: dict[str, bytes] = {}  # files that hold the id alone, of leases that the index knows with ifname
        self.rebooted = False
        with Store(str(self.root), "net"):
            pass

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    def valid(self, content: bytes) -> bool:
        return parse_lease(content) is not None

    @contextmanager
    def opened(self, store: Store | None = None) -> Iterator[Store]:
        """Yield an open store, after checking the files that its opening may have removed."""
        with store or Store(str(self.root), "net") as held:
            self.judge_opening()
            yield held

    def judge_opening(self) -> None:
        present = set(os.listdir(self.directory)) - {"lock"}
        for name, content in list(self.files.items()):
            if name in present:
                assert not (self.rebooted and content in self.own), f"{name} of the boot before was kept"
                continue
            if self.valid(content):
                assert self.rebooted, f"{name} was lost"
                lease = parse_lease(content)
                assert lease is not None
                by_hand = content in self.strange - self.half and not lease.is_runtime_made
                assert content in self.own or not by_hand, f"{name} was placed by hand"
            self.keep(self.files.keys() - {name})
        self.rebooted = False

    # -- this suite's changes

    @rule(container=containers, ifname=ifnames, chosen=st.lists(addresses, min_size=1, max_size=2, unique=True))
    def reserve(self, container: str, ifname: str, chosen: list[str]) -> None:
        lease = Lease(container, ifname)
        with self.opened() as store:
            if store.leased(lease):
                return
            free = all(not store.is_taken(name) for name in chosen)
            expected = all(not self.valid(self.files.get(name, b"")) for name in chosen)
            assert free == expected
            made = store.reserve(lease, [(number, Address.parse(name)) for number, name in enumerate(chosen)])
            assert made == expected, "an address was handed out twice, or a free one was not"
            for (
                name
            ) in chosen:  # a garbled file is removed if the store looks at it, which a taken address before it saves
                if not self.valid(self.files.get(name, b"")) and not (self.directory / name).exists():
                    self.files.pop(name, None)
            if made:
                self.files |= dict.fromkeys(chosen, lease.content)
                if lease.content not in self.strange:
                    self.own.add(lease.content)
                assert [str(store.last_reserved(number)) for number in range(len(chosen))] == chosen

    @rule(container=containers, ifname=ifnames)
    def release(self, container: str, ifname: str) -> None:
        lease = Lease(container, ifname)
        with self.opened() as store:
            store.release(lease)
        self.forget(lease.content)

    @rule(name=addresses)
    def release_address(self, name: str) -> None:
        """Release the address, whatever its file holds; its owner's other leases stay."""
        with self.opened() as store:
            store.release_address(name)
        self.lose(name)

    def forget(self, content: bytes) -> None:
        self.keep({name for name, held in self.files.items() if held != content})
        self.own.discard(content)
        self.strange.discard(content)
        self.half.discard(content)

    @rule(
        container=containers,
        ifname=ifnames,
        chosen=st.lists(addresses, min_size=1, max_size=2, unique=True),
        when=st.integers(0, 5),
    )
    def killed_in_reserve(self, container: str, ifname: str, chosen: list[str], when: int) -> None:
        lease = Lease(container, ifname)
        with self.opened() as store:
            if store.leased(lease) or any(store.is_taken(name) for name in chosen):
                self.after_a_look()
                return
        self.after_a_look()
        self.half.add(lease.content)
        dying = Dying(str(self.root), "net")
        dying.changes = 99
        try:
            with self.opened(dying):
                dying.changes = when
                dying.reserve(lease, [(number, Address.parse(name)) for number, name in enumerate(chosen)])
        except Killed:
            pass
        for name in chosen:
            if (self.directory / name).exists():
                self.files[name] = lease.content
        if lease.content in self.files.values() and lease.content not in self.strange:
            self.own.add(lease.content)

    @rule(container=containers, ifname=ifnames, when=st.integers(0, 3))
    def killed_in_release(self, container: str, ifname: str, when: int) -> None:
        lease = Lease(container, ifname)
        dying = Dying(str(self.root), "net")
        dying.changes = 99
        try:
            with self.opened(dying):
                dying.changes = when
                dying.release(lease)
        except Killed:
            pass
        self.after_a_look()

    @rule(name=addresses, when=st.integers(0, 3))
    def killed_in_release_address(self, name: str, when: int) -> None:
        dying = Dying(str(self.root), "net")
        dying.changes = 99
        try:
            with self.opened(dying):
                dying.changes = when
                dying.release_address(name)
        except Killed:
            pass
        self.after_a_look()

    def after_a_look(self) -> None:
        """Follow the files that are gone: by a release, or garbled ones by a look at them."""
        self.keep({name for name in self.files if (self.directory / name).exists()})

    def keep(self, names: set[str]) -> None:
        self.files = {name: content for name, content in self.files.items() if name in names}
        self.bare = {name: content for name, content in self.bare.items() if name in names}
        self.strange.intersection_update(self.files.values())

    # -- others' changes

    @rule(container=containers, ifname=ifnames | st.just(""), name=addresses)
    def foreign_lease(self, container: str, ifname: str, name: str) -> None:
        """Act as the reference's ADD, which never overwrites a file. `ifname` is empty for an old version."""
        if name in self.files:
            return
        if not ifname and any(Lease(container, one).content in self.half for one in IFNAMES):
            return  # the index entry of the killed call tells the ifname of such a file
        content = Lease(container, ifname).content
        (self.directory / name).write_bytes(content)
        (self.directory / name).chmod(0o600)
        (self.directory / "last_reserved_ip.0").write_text(name)
        self.files[name] = content
        self.strange.add(content)
        self.own.discard(content)

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def rewritten_as_of_old(self, data: st.DataObject) -> None:
        """Rewrite in place, so that no seal breaks, the id alone: the same lease as long as the index lists it."""
        name = data.draw(st.sampled_from(sorted(self.files)))
        lease = parse_lease(self.files[name])
        if lease is None or not lease.ifname or lease.container_id == LONG:  # its key does not tell the ifname
            return
        self.bare[name] = lease.container_id.encode()
        (self.directory / name).write_bytes(self.bare[name])

    @precondition(lambda self: self.files)
    @rule(data=st.data(), container=containers, ifname=ifnames | st.just(""))
    def rewritten_as_anothers(self, data: st.DataObject, container: str, ifname: str) -> None:
        """Rewrite in place."""
        name = data.draw(st.sampled_from(sorted(self.files)))
        old, content = self.files[name], Lease(container, ifname).content
        if parse_lease(old) is None or container.encode() == old.partition(b"\r")[0]:
            return
        (self.directory / name).write_bytes(content)
        self.half |= {old, content} | self.own & {old}
        self.lose(name)
        if old not in self.files.values():
            self.own.discard(old)
        self.files[name] = content
        self.strange.add(content)
        self.own.discard(content)

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def foreign_release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.files)))
        (self.directory / name).unlink()
        self.lose(name)

    @rule(name=addresses, content=st.sampled_from([b"", b"\0" * 20, b"\xff\xfe", b" \r\n", b"a\0b"]))
    def garbled(self, name: str, content: bytes) -> None:
        """Cut the power: the content of the file, if any, is lost."""
        (self.directory / name).write_bytes(content)
        self.lose(name)
        self.files[name] = content

    def lose(self, name: str) -> None:
        content = self.files.pop(name, b"")
        self.bare.pop(name, None)
        if content not in self.files.values():
            self.strange.discard(content)

    @rule()
    def index_lost(self) -> None:
        shutil.rmtree(self.index)
        self.files |= self.bare
        self.bare.clear()
        self.strange |= {content for content in self.files.values() if self.valid(content)}
        self.own.clear()
        self.rebooted = False  # nobody knows any more

    @rule()
    def reboot(self) -> None:
        """Give the index another boot_id than the kernel's; it knows only the leases that it has seen."""
        if not (self.index / "boot").is_symlink():
            return
        (self.index / "boot").unlink()
        (self.index / "boot").symlink_to("the-boot-before")
        self.rebooted = True

    @rule()
    def lock_removed(self) -> None:
        (self.directory / "lock").unlink(missing_ok=True)

    @rule(name=st.sampled_from(["README", "10.1.0", "last_reserved_ip.9", ".hidden"]))
    def other_files(self, name: str) -> None:
        (self.directory / name).write_text("10.1.0.2")

    # -- invariants

    @invariant()
    def leased_tells_the_truth(self) -> None:
        if not hasattr(self, "root"):
            return
        every = [Lease(container, ifname) for container in CONTAINERS for ifname in (*IFNAMES, "")]
        with Look(str(self.root), "net") as look:
            seen = {lease: set(look.find(lease)) for lease in every}
        with self.opened() as store:
            for lease in every:  # if a rewrite took a lease's file, its owner sees that the index is wrong
                store.leased(lease)
            self.judge_opening()  # which it may have made anew
            for lease in every:
                expected = self.expected(lease)
                assert set(store.leased(lease)) == expected
                assert seen[lease] <= (expected or self.expected(lease.bare))
                assert seen[lease] or not expected
            assert set(store.names()) == set(self.files)

    def expected(self, lease: Lease) -> set[str]:
        return {name for name, content in self.files.items() if content == lease.content}

    @invariant()
    def the_files_are_the_references(self) -> None:
        for name, content in getattr(self, "files", {}).items():
            path = self.directory / name
            assert path.read_bytes() == self.bare.get(name, content)
            if self.valid(content) and content not in self.strange:
                assert stat.S_IMODE(path.stat().st_mode) == 0o600


Leases.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLeases = Leases.TestCase


# -- single properties


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def reserve(root: Path, *names: str, container: str = "a", ifname: str = "eth0") -> bool:
    with Store(str(root), "net") as store:
        return store.reserve(Lease(container, ifname), [(0, Address.parse(name)) for name in names])


def listing(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "net").iterdir() if path.name != "lock"}


def test_the_references_bytes(root: Path) -> None:
    assert reserve(root, "10.1.0.2") and reserve(root, "fd00::2", container="b", ifname="net1")
    assert listing(root) == {"10.1.0.2": b"a\r\neth0", "fd00::2": b"b\r\nnet1", "last_reserved_ip.0": b"fd00::2"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root / "net").iterdir()} == {0o600}
    assert stat.S_IMODE((root / "net").stat().st_mode) == 0o700


def test_one_address_of_two_is_released(root: Path) -> None:
    """The index goes on without it, and still knows the other lease's owner."""
    assert reserve(root, "10.1.0.2", "fd00::2")
    with Store(str(root), "net") as store:
        store.release_address("10.1.0.2")
        assert store.leased(Lease("a", "eth0")) == ["fd00::2"]
        assert {key: (entry.origin, entry.addresses) for key, entry in store.index.entries().items()} == {
            "a:eth0": ("own", ["fd00::2"])
        }
        store.release_address("fd00::2")
        assert store.index.entries() == {}
    assert set(listing(root)) == {"last_reserved_ip.0"}


def test_one_address_of_two_is_released_and_the_mark_stays(root: Path) -> None:
    """The mark tells a later call that the pod is dead."""
    with Store(str(root), "net") as store:
        both = [(0, Address.parse("10.1.0.2")), (1, Address.parse("fd00::2"))]
        assert store.reserve(Lease("a", "eth0"), both, MARK)
        store.release_address("10.1.0.2")
    assert entry(root) == ("own", ["fd00::2"], MARK)


def test_a_lease_by_others_stays_one_in_the_index(root: Path) -> None:
    """It stays so however often the index is made anew. As this suite's, a reboot would release it."""
    assert reserve(root, "10.1.0.2")
    (root / "net" / "10.1.0.9").write_bytes(b"printer")
    for _ in range(3):
        assert entry(root, "printer:") == ("seen", ["10.1.0.9"], "")
        os.utime(root / "net")


@pytest.mark.parametrize("verb", ["reserve", "release"])
def test_a_call_that_is_killed_leaves_leases_of_its_own(root: Path, verb: str) -> None:
    """It is killed between two addresses: the next call, and a reboot, know the owner of the remaining one."""
    both = [(0, Address.parse("10.1.0.2")), (1, Address.parse("fd00::2"))]
    if verb == "release":
        assert reserve(root, "10.1.0.2", "fd00::2")
    with Store(str(root), "net"):
        pass  # which seals a new store
    dying = Dying(str(root), "net")
    with pytest.raises(Killed), dying:  # noqa: PT012 - the whole block is killed
        dying.changes = 1
        if verb == "release":
            dying.release(Lease("a", "eth0"))
        else:
            dying.reserve(Lease("a", "eth0"), both)
    left = "fd00::2" if verb == "release" else "10.1.0.2"
    assert set(listing(root)) - {"last_reserved_ip.0"} == {left}
    assert entry(root) == ("own", [left], "")


def test_a_lease_with_a_slash(root: Path) -> None:
    """The lease was written by hand: its name is no path in the index."""
    assert reserve(root, "10.1.0.2")
    (root / "net" / "10.1.0.9").write_bytes(b"../../printer")
    assert reserve(root, "10.1.0.3", container="b")
    with Store(str(root), "net") as store:
        assert store.leased(Lease("../../printer", "")) == ["10.1.0.9"]
    assert {path.name for path in root.iterdir()} == {"net", ".pycni"}


def test_a_failed_reservation_takes_nothing_else_back(root: Path) -> None:
    """It leaves even a lease in the old form, which is the same container's."""
    (root / "net").mkdir(mode=0o700)
    (root / "net" / "10.1.0.3").write_bytes(b"a")
    assert not reserve(root, "10.1.0.2", "10.1.0.3")
    assert set(listing(root)) == {"10.1.0.3"}


def test_more_addresses_than_an_entry_has_room_for(root: Path) -> None:
    """An administrator's word in a thousand files must not make the store fail; it goes by the files then."""
    (root / "net").mkdir(mode=0o700)
    names = {str(Address.parse("10.2.0.0") + number) for number in range(1000)}
    for name in names:
        (root / "net" / name).write_bytes(b"reserved")
    for _ in range(2):
        assert reserve(root, "10.1.0.2")
        with Store(str(root), "net") as store:
            assert set(store.leased(Lease("reserved", ""))) == names
            store.release(Lease("a", "eth0"))
    with Store(str(root), "net") as store:
        store.release_address("10.2.0.0")
        store.release_found(Lease("reserved", "eth0"))
    assert set(listing(root)) == {"last_reserved_ip.0"}


# -- files that are rewritten in place, which breaks no seal


def test_rewritten_in_the_form_of_old(root: Path) -> None:
    """It is the same interface's lease, through a rebuild, too; another interface of the container does not own it."""
    assert reserve(root, "10.1.0.2", "fd00::2") and reserve(root, "10.1.0.3", ifname="net1")
    (root / "net" / "10.1.0.2").write_bytes(b"a")
    for _ in range(2):
        with Store(str(root), "net") as store:
            assert store.leased(Lease("a", "eth0")) == ["10.1.0.2", "fd00::2"]
            store.release_found(Lease("a", "net2"))
        os.utime(root / "net")
    with Store(str(root), "net") as store:
        store.release_found(Lease("a", "net1"))
        assert store.leased(Lease("a", "eth0")) == ["10.1.0.2", "fd00::2"]
        store.release_found(Lease("a", "eth0"))
        assert store.index.entries() == {}
    assert set(listing(root)) == {"last_reserved_ip.0"}


@pytest.mark.parametrize("asked", ["b", "a"])
def test_rewritten_as_a_lease_of_another(root: Path, asked: str) -> None:
    """Only its new owner can release it, whichever owner calls first."""
    assert reserve(root, "10.1.0.2") and reserve(root, "10.1.0.3", container="c")
    (root / "net" / "10.1.0.2").write_bytes(b"b\r\neth0")
    for container in dict.fromkeys([asked, "a", "b"]):
        with Store(str(root), "net") as store:
            assert store.leased(Lease("a", "eth0")) == []
            store.release_found(Lease(container, "eth0"))
        assert (root / "net" / "10.1.0.2").exists() == (container == "a" and asked == "a")
    assert set(listing(root)) == {"10.1.0.3", "last_reserved_ip.0"}


# -- the mark of a pod's namespace

MARK = "4:4026532281:1763000000000000000 /run/netns/a pod"


def entry(root: Path, key: str = "a:eth0") -> tuple[str, list[str], str]:
    with Store(str(root), "net") as store:
        found = store.index.entry(key)
        assert found is not None
        return found.origin, found.addresses, found.mark


def mark(root: Path, mark: str = MARK, container: str = "a") -> None:
    with Store(str(root), "net") as store:
        assert store.reserve(Lease(container, "eth0"), [(0, Address.parse("10.1.0.2"))], mark)


def test_a_mark_outlives_a_rebuild(root: Path) -> None:
    mark(root)
    assert entry(root) == ("own", ["10.1.0.2"], MARK)
    os.utime(root / "net")
    assert entry(root) == ("own", ["10.1.0.2"], MARK)


def test_a_mark_is_none_of_a_later_lease_of_the_reference(root: Path) -> None:
    """The same address for the same attachment, in another namespace: the mark would call a living pod dead."""
    mark(root)
    path = root / "net" / "10.1.0.2"
    path.unlink()
    path.write_bytes(b"a\r\neth0")
    later = time.time() + 5
    os.utime(path, (later, later))
    assert entry(root) == ("own", ["10.1.0.2"], "")


def test_a_mark_is_none_after_a_boot(root: Path) -> None:
    mark(root, container=RUNTIME_MADE)
    (root / ".pycni" / "net" / "boot").unlink()
    (root / ".pycni" / "net" / "boot").symlink_to("the-boot-before")
    (root / "net" / "10.1.0.2").write_bytes(b"printer")
    with Store(str(root), "net") as store:
        assert [one.mark for one in store.index.entries().values()] == [""]


@pytest.mark.parametrize("path", ["/run/netns/" + "x" * 1000, "/run/" + "x/" * 2000, "/run/netns/" + "ü" * 500])
def test_a_mark_that_does_not_fit_is_left_out(root: Path, path: str) -> None:
    mark(root, f"4:1 {path}")
    assert entry(root) == ("own", ["10.1.0.2"], "")


@pytest.mark.parametrize(
    "path", ["/run/a b", "/run/10.1.0.9", "/run/x netns=1:2 /y", "/run/x 10.1.0.9", "/run/\udcff", "/run/ü many"]
)
def test_any_path_may_be_in_a_mark(root: Path, path: str) -> None:
    mark(root, f"4:1 {path}")
    assert entry(root) == ("own", ["10.1.0.2"], f"4:1 {path}")
    with Store(str(root), "net") as store:
        assert store.leased(Lease("a", "eth0")) == ["10.1.0.2"]


def test_an_entry_of_a_release_without_marks(root: Path) -> None:
    assert reserve(root, "10.1.0.2")
    assert os.readlink(root / ".pycni" / "net" / "a:eth0") == "own 10.1.0.2"
    with Store(str(root), "net") as store:
        assert not store.is_lost(Lease("a", "eth0")) and store.dead_leases() == {}


@pytest.mark.parametrize("text", [" ", "own", "many", "seen many", " netns=", "netns=4:1 /x", "own  10.1.0.2"])
def test_any_text_in_an_entry(root: Path, text: str) -> None:
    """An entry is believed only as far as the files confirm it."""
    assert reserve(root, "10.1.0.2") and reserve(root, "10.1.0.3", container="b")
    link = root / ".pycni" / "net" / "a:eth0"
    link.unlink()
    link.symlink_to(text)
    with Store(str(root), "net") as store:
        store.release_found(Lease("a", "eth0"))
    assert set(listing(root)) == {"10.1.0.3", "last_reserved_ip.0"}


def test_all_addresses_or_none(root: Path) -> None:
    assert reserve(root, "10.1.0.3", container="b")
    before = listing(root)
    assert not reserve(root, "10.1.0.2", "10.1.0.3")
    assert listing(root) == before
    assert reserve(root, "10.1.0.2")


@given(st.binary(max_size=40))
def test_any_bytes_are_a_lease_or_nothing(content: bytes) -> None:
    lease = parse_lease(content)
    if lease is not None:
        assert lease.content.isascii() and lease.container_id


@pytest.mark.parametrize(("content", "lease"), [
    (b"a\r\neth0", Lease("a", "eth0")), (b"a", Lease("a", "")), (b"a\n", Lease("a", "")), (b" a\r\neth0\r\n", Lease("a", "eth0")),
    (b"a\neth0", Lease("a\neth0", "")), (b"by hand: printer", Lease("by hand: printer", "")),
])  # fmt: skip
def test_leases(content: bytes, lease: Lease) -> None:
    assert parse_lease(content) == lease


@pytest.mark.parametrize(("lease", "by_hand"), [
    (Lease(RUNTIME_MADE, ""), False), (Lease("a", "eth0"), False), (Lease("a", ""), True), (Lease("by hand: printer", ""), True),
    (Lease("a b", "eth0"), True), (Lease("a", "e/0"), True), (Lease(RUNTIME_MADE.upper(), ""), True),
])  # fmt: skip
def test_what_was_placed_by_hand(lease: Lease, by_hand: bool) -> None:
    assert is_hand_placed(lease) == by_hand


watched: list[tuple[str, str]] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if watched is not None and event in ("open", "os.listdir", "os.scandir"):
        watched.append((event, str(arguments[0])))


sys.addaudithook(_watch)


@contextmanager
def watching() -> Iterator[list[tuple[str, str]]]:
    """Collect the files and directories that are opened or listed meanwhile."""
    global watched  # noqa: PLW0603 - an audit hook stays for ever
    found: list[tuple[str, str]] = []
    watched = found
    try:
        yield found
    finally:
        watched = None


def cost(root: Path, leases: int) -> list[tuple[str, str]]:
    """Return the paths that one reservation and release open in a sealed store with so many leases."""
    for number in range(leases):
        path = root / "net" / str(Address.parse("10.0.0.0") + number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"c{number}\r\neth0".encode())
    with Store(str(root), "net"):
        pass
    with watching() as found:
        assert reserve(root, "10.9.0.1")
        with Store(str(root), "net") as store:
            assert store.leased(Lease("a", "eth0")) == ["10.9.0.1"]
            store.release(Lease("a", "eth0"))
            assert not store.is_taken("10.9.0.1")
    return [(event, name.replace(str(root), "")) for event, name in found]


def test_the_cost_does_not_depend_on_the_number_of_leases(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    few, many = cost(tmp_path / "few", 3), cost(tmp_path / "many", 3000)
    assert few == many
    assert not [entry for entry in many if entry[0] != "open"]


def test_opening_a_sealed_store_reads_no_lease(root: Path) -> None:
    reserve(root, "10.1.0.2")
    with watching() as found, Store(str(root), "net"):
        pass
    assert not [name for event, name in found if event != "open" or name.startswith("10.")]


@pytest.mark.parametrize("change", ["lease", "release", "touch", "index", "boot"])
def test_a_change_from_outside_breaks_the_seal(root: Path, change: str) -> None:
    """The next call looks at every lease."""
    reserve(root, "10.1.0.2")
    if change == "lease":
        (root / "net" / "10.1.0.9").write_bytes(b"b\r\neth0")
    elif change == "release":
        (root / "net" / "10.1.0.2").unlink()
    elif change == "touch":
        os.utime(root / "net")
    elif change == "index":
        shutil.rmtree(root / ".pycni")
    else:
        (root / ".pycni" / "net" / "boot").unlink()
    with watching() as found, Store(str(root), "net") as store:
        assert store.leased(Lease("a", "eth0")) == ([] if change == "release" else ["10.1.0.2"])
        assert store.leased(Lease("b", "eth0")) == (["10.1.0.9"] if change == "lease" else [])
    assert "os.listdir" in {event for event, _ in found}


def test_a_copy_of_the_directory_is_not_sealed(root: Path) -> None:
    """A backup that was restored with its times has another inode."""
    reserve(root, "10.1.0.2")
    shutil.copytree(root / "net", root / "copy")
    (root / "copy" / "10.1.0.9").write_bytes(b"b\r\neth0")
    seal = (root / "net").stat().st_mtime_ns
    shutil.rmtree(root / "net")
    (root / "copy").rename(root / "net")
    os.utime(root / "net", ns=(seal, seal))
    with Store(str(root), "net") as store:
        assert store.leased(Lease("b", "eth0")) == ["10.1.0.9"]


# -- obstacles in the directory


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "dangling"])
def test_other_than_regular_files(root: Path, kind: str) -> None:
    """Such a file is neither read nor followed, removed or given out."""
    victim = root / "victim"
    victim.write_bytes(b"a\r\neth0")
    reserve(root, "10.1.0.9", container="z")
    place = root / "net" / "10.1.0.2"
    if kind == "symlink":
        place.symlink_to(victim)
    elif kind == "dangling":
        place.symlink_to(root / "nothing")
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    with Store(str(root), "net") as store:
        assert store.is_taken("10.1.0.2") and store.leased(Lease("a", "eth0")) == []
        assert not store.reserve(Lease("b", "eth0"), [(0, Address.parse("10.1.0.2"))])
        store.release(Lease("a", "eth0"))
    assert victim.read_bytes() == b"a\r\neth0" and os.path.lexists(place) and not (root / "nothing").exists()


@pytest.mark.parametrize("name", ["lock", "last_reserved_ip.0"])
@pytest.mark.parametrize("kind", ["symlink", "fifo"])
@pytest.mark.row("symlinks")
def test_no_symlink_or_fifo_in_place_of_the_stores_own_files(root: Path, name: str, kind: str) -> None:
    """CVE-class: a symbolic link must not make root write elsewhere; a FIFO must not hang it."""
    victim = root / "victim"
    victim.write_text("precious")
    (root / "net").mkdir(mode=0o700)
    if kind == "symlink":
        (root / "net" / name).symlink_to(victim)
    else:
        os.mkfifo(root / "net" / name)
    with pytest.raises(IOFailure) as caught:
        reserve(root, "10.1.0.2")
    assert caught.value.code == 5
    assert victim.read_text() == "precious"
    assert not (root / "net" / "10.1.0.2").exists()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_may_write(root: Path, mode: int) -> None:
    (root / "net").mkdir()
    (root / "net").chmod(mode)
    with pytest.raises(IOFailure, match="writable"), Store(str(root), "net"):
        pass


@pytest.mark.row("symlinks")
def test_a_symlink_in_place_of_the_directory(root: Path) -> None:
    (root / "elsewhere").mkdir()
    (root / "net").symlink_to(root / "elsewhere")
    with pytest.raises(IOFailure), Store(str(root), "net"):
        pass
    assert not list((root / "elsewhere").iterdir())


def test_a_lock_that_is_held(root: Path) -> None:
    """A call waits for it with a deadline. The test uses its own interpreter for the timer's sake."""
    told = run(
        """
        from ipam.host_local import store
        from shared import signals
        from shared.cni.errors import TryAgainLater
        signals.install()
        store.LOCK_SECONDS = 0.05
        with store.Store(sys.argv[1], "net"):
            try:
                with store.Store(sys.argv[1], "net"):
                    print("entered")
            except TryAgainLater as error:
                print(error.code, error)
        with store.Store(sys.argv[1], "net"):
            print("free again")
        """,
        str(root),
    )
    refused, free = told.splitlines()
    assert re.fullmatch(rf"11 the lock of {root}/net is held by python\S* \(process \d+\) for over 0 seconds", refused)
    assert free == "free again"


def test_both_locks_are_waited_for_with_one_deadline(root: Path) -> None:
    """A call that waited long for another call of the suite does not wait as long again for the reference's."""
    reserve(root, "10.1.0.2")
    told = run(
        """
        import fcntl, os
        from ipam.host_local import store
        from shared import signals
        from shared.cni import lock
        from shared.cni.errors import TryAgainLater
        signals.install()
        now = 0.0
        lock.monotonic = lambda: now
        directory = os.open(sys.argv[1] + "/.pycni/net", os.O_RDONLY)
        file = os.open(sys.argv[1] + "/net/lock", os.O_RDWR)
        for held in (directory, file):
            fcntl.flock(held, fcntl.LOCK_EX)

        class Waiting(signals.interruptible):
            def __enter__(self):
                global now
                print(self.seconds)
                now += min(self.seconds, 15)
                if self.seconds == lock.PATIENCE_SECONDS or now >= 20:
                    raise signals.DeadlineExpired
                fcntl.flock(directory, fcntl.LOCK_UN)

        signals.interruptible = Waiting
        try:
            with store.Store(sys.argv[1], "net"):
                print("entered")
        except TryAgainLater as error:
            print(error.code)
        """,
        str(root),
    )
    assert told.split() == ["2.0", "18.0", "2.0", "1.0", "11"]


def test_calls_take_turns_also_when_the_lock_file_is_removed(root: Path) -> None:
    order: list[str] = []

    def enter() -> None:
        with Store(str(root), "net"):
            order.append("after")

    others = [threading.Thread(target=enter) for _ in range(2)]
    with Store(str(root), "net") as first:
        for number, other in enumerate(others):
            other.start()
            until_waiting(first.index.descriptor, number + 1, order)
            (root / "net" / "lock").unlink(missing_ok=True)
        order.append("first")
    for other in others:
        other.join()
    assert order == ["first", "after", "after"]


def test_the_references_lock_file_is_replaced(root: Path) -> None:
    """A call that waited for a deleted lock file has a worthless lock, and must wait for that of the new file."""
    order: list[str] = []

    def enter() -> None:
        with Store(str(root), "net"):
            order.append("ours")

    reserve(root, "10.1.0.2")
    path = root / "net" / "lock"
    ours = threading.Thread(target=enter)
    with path.open("w") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        ours.start()
        until_waiting(old.fileno(), 1, order)
        path.unlink()
        new = path.open("w")
        fcntl.flock(new, fcntl.LOCK_EX)
    with new:
        until_waiting(new.fileno(), 1, order)
        order.append("reference")
    ours.join()
    assert order == ["reference", "ours"]


def until_waiting(lock: int, number: int, entered: list[str]) -> None:
    """Wait until so many calls wait for a lock, or one has entered without it."""
    inode = os.fstat(lock).st_ino
    for _ in range(1000):
        waiting = [
            line for line in Path("/proc/locks").read_text().splitlines() if "->" in line and f":{inode} " in line
        ]
        if entered or len(waiting) >= number:
            return
        threading.Event().wait(0.005)  # the kernel has no event for this
    pytest.fail("nobody waits for the lock")


def test_the_index_forgets_what_is_gone(root: Path) -> None:
    reserve(root, "10.1.0.2")
    reserve(root, "10.1.0.3", container="b")
    (root / "net" / "10.1.0.2").unlink()
    with Store(str(root), "net"):
        pass
    assert sorted(os.listdir(root / ".pycni" / "net")) == ["b:eth0", "boot"]


def test_many_threads_of_reservation(root: Path) -> None:
    """flock is per open file: threads contend as processes do."""
    results: list[str] = []

    def take(number: int) -> None:
        for name in ADDRESSES:
            if reserve(root, name, container=f"c{number}"):
                results.append(name)
                return

    threads = [threading.Thread(target=take, args=(number,)) for number in range(len(ADDRESSES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(ADDRESSES)


def test_a_file_system_without_unnamed_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O_TMPFILE is refused, as on old or network file systems: the lease is made in place."""
    monkeypatch.setattr("posix.O_TMPFILE", os.O_DIRECTORY | os.O_RDWR)  # EISDIR, as a kernel of old
    assert reserve(root, "10.1.0.2") and not reserve(root, "10.1.0.2", container="b")
    assert (root / "net" / "10.1.0.2").read_bytes() == b"a\r\neth0"


def test_a_full_file_system_without_unnamed_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is made and cannot be written: no empty lease is left."""
    assert reserve(root, "10.1.0.2")
    before = listing(root)
    monkeypatch.setattr("posix.O_TMPFILE", os.O_DIRECTORY | os.O_RDWR)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, old[1]))
    try:
        with pytest.raises(IOFailure, match="File too large"):
            reserve(root, "10.1.0.3", container="b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert listing(root) == before


def test_problem(root: Path) -> None:
    """STATUS asks this; the question creates nothing."""
    assert problem(str(root / "not" / "yet"), "net") == ""
    assert not list(root.iterdir())
    (root / "file").write_text("")
    assert "not a directory" in problem(str(root), "file").lower()
    assert problem(str(root / "file"), "net")


def test_store_that_was_never_used(root: Path) -> None:
    assert not Store(str(root), "net").exists() and not Store(str(root / "a" / "b"), "net").exists()
    reserve(root, "10.1.0.2")
    assert Store(str(root), "net").exists()
