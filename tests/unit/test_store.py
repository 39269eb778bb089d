"""The lease store against a model, with all that may happen to its files between two calls."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipam.host_local import store as store_module
from ipam.host_local.store import Lease, Store, is_hand_placed, parse_lease, problem
from shared.cni.errors import IOFailure
from shared.cni.ip import Address
from tests.unit.python import run

RUNTIME_MADE = "0123456789abcdef" * 4
LONG = "long-" + "x" * 245  # too long for an index entry
CONTAINERS = ["a", "b", "pod-1", RUNTIME_MADE, RUNTIME_MADE[::-1], LONG]
IFNAMES = ["eth0", "net1"]
ADDRESSES = [f"10.1.0.{number}" for number in range(2, 8)] + ["fd00::2", "fd00::a0"]

containers = st.sampled_from(CONTAINERS)
ifnames = st.sampled_from(IFNAMES)
addresses = st.sampled_from(ADDRESSES)


class Killed(BaseException):
    """SIGKILL: nothing of the call runs any more."""


class Dying(Store):
    """A store whose process is killed when it has changed the directory of leases `changes` times."""

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
    """`files` is what stands in the lease files; `own` are leases that only this suite made, all with its index intact."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="leases"))
        self.directory = self.root / "net"
        self.index = self.root / store_module.SIDECAR / "net"
        self.files: dict[str, bytes] = {}
        self.own: set[bytes] = set()
        self.strange: set[bytes] = set()  # what somebody else has written of it, now
        self.half: set[bytes] = set()  # leases of which a killed call may have left an index entry alone
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
        """An open store; what opening may have removed is judged first."""
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
            del self.files[name]
        self.rebooted = False

    # -- what this suite does

    @rule(container=containers, ifname=ifnames, chosen=st.lists(addresses, min_size=1, max_size=2, unique=True))
    def reserve(self, container: str, ifname: str, chosen: list[str]) -> None:
        lease = Lease(container, ifname)
        with self.opened() as store:
            if store.leased(lease):
                return
            free = all(not store.is_taken(name) for name in chosen)
            expected = all(not self.valid(self.files.get(name, b"")) for name in chosen)
            assert free == expected
            for name in chosen:  # looking at a garbled file removes it
                if not self.valid(self.files.get(name, b"")):
                    self.files.pop(name, None)
            made = store.reserve(lease, [(number, Address.parse(name)) for number, name in enumerate(chosen)])
            assert made == expected, "an address was handed out twice, or a free one was not"
            if made:
                self.files |= dict.fromkeys(chosen, lease.content)
                if lease.content not in self.strange and len(lease.key) <= store_module.LONGEST_KEY:
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
        """Whatever its file holds; what else its owner has stays."""
        with self.opened() as store:
            store.release_address(name)
        self.lose(name)

    def forget(self, content: bytes) -> None:
        self.files = {name: held for name, held in self.files.items() if held != content}
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
        if (
            lease.content in self.files.values()
            and lease.content not in self.strange
            and len(lease.key) <= store_module.LONGEST_KEY
        ):
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
        """Takes over which files are gone: by a release, or garbled ones by a look at them."""
        self.files = {name: content for name, content in self.files.items() if (self.directory / name).exists()}

    # -- what others do

    @rule(container=containers, ifname=ifnames | st.just(""), name=addresses)
    def foreign_lease(self, container: str, ifname: str, name: str) -> None:
        """The reference's ADD, which never writes over a file; `ifname` empty: a version of old."""
        if name in self.files:
            return
        content = Lease(container, ifname).content
        (self.directory / name).write_bytes(content)
        (self.directory / name).chmod(0o600)
        (self.directory / "last_reserved_ip.0").write_text(name)
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
        """A power cut: what was there, if anything, is lost."""
        (self.directory / name).write_bytes(content)
        self.lose(name)
        self.files[name] = content

    def lose(self, name: str) -> None:
        content = self.files.pop(name, b"")
        if content not in self.files.values():
            self.strange.discard(content)

    @rule()
    def index_lost(self) -> None:
        shutil.rmtree(self.index)
        self.strange |= {content for content in self.files.values() if self.valid(content)}
        self.own.clear()
        self.rebooted = False  # nobody knows any more

    @rule()
    def reboot(self) -> None:
        """The index says another boot_id than the kernel's; it knows only what it has seen."""
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

    # -- what holds at all times

    @invariant()
    def leased_tells_the_truth(self) -> None:
        if not hasattr(self, "root"):
            return
        with self.opened() as store:
            for container in CONTAINERS:
                for ifname in (*IFNAMES, ""):
                    lease = Lease(container, ifname)
                    expected = {name for name, content in self.files.items() if content == lease.content}
                    assert set(store.leased(lease)) == expected
            assert set(store.names()) == set(self.files)

    @invariant()
    def the_files_are_the_references(self) -> None:
        for name, content in getattr(self, "files", {}).items():
            path = self.directory / name
            assert path.read_bytes() == content
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
    """The index goes on without it, and still knows whose lease it is."""
    assert reserve(root, "10.1.0.2", "fd00::2")
    with Store(str(root), "net") as store:
        store.release_address("10.1.0.2")
        assert store.leased(Lease("a", "eth0")) == ["fd00::2"]
        assert {key: (entry.origin, entry.addresses) for key, entry in store.entries().items()} == {
            "a:eth0": ("own", ["fd00::2"])
        }
        store.release_address("fd00::2")
        assert store.entries() == {}
    assert set(listing(root)) == {"last_reserved_ip.0"}


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
    """The files and directories that are opened or listed meanwhile."""
    global watched  # noqa: PLW0603 - an audit hook stays for ever
    found: list[tuple[str, str]] = []
    watched = found
    try:
        yield found
    finally:
        watched = None


def cost(root: Path, leases: int) -> list[tuple[str, str]]:
    """What is opened by a whole reservation and release in a sealed store with so many leases."""
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
    """And the next call looks at every lease."""
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


# -- what may stand in the way


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "dangling"])
def test_other_than_regular_files(root: Path, kind: str) -> None:
    """Neither read nor followed, nor removed, nor given out."""
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


def test_a_directory_that_others_may_write(root: Path) -> None:
    (root / "net").mkdir()
    (root / "net").chmod(0o777)
    with pytest.raises(IOFailure, match="writable"), Store(str(root), "net"):
        pass


def test_a_symlink_in_place_of_the_directory(root: Path) -> None:
    (root / "elsewhere").mkdir()
    (root / "net").symlink_to(root / "elsewhere")
    with pytest.raises(IOFailure), Store(str(root), "net"):
        pass
    assert not list((root / "elsewhere").iterdir())


def test_a_lock_that_is_held(root: Path) -> None:
    """Waited for, but not for ever; in an interpreter of its own, for the timer's sake."""
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
    assert told.splitlines() == [f"11 the lock of {root}/net is held by another call for over 0 seconds", "free again"]


def test_both_locks_are_waited_for_with_one_deadline(root: Path) -> None:
    """Who waited long for another call of the suite does not wait as long again for the reference's."""
    reserve(root, "10.1.0.2")
    told = run(
        """
        import fcntl, os
        from ipam.host_local import store
        from shared import signals
        from shared.cni.errors import TryAgainLater
        signals.install()
        now = 0.0
        store.monotonic = lambda: now
        directory = os.open(sys.argv[1] + "/net", os.O_RDONLY)
        lock = os.open(sys.argv[1] + "/net/lock", os.O_RDWR)
        for held in (directory, lock):
            fcntl.flock(held, fcntl.LOCK_EX)

        class Waiting(signals.interruptible):
            def __enter__(self):
                global now
                print(self.seconds)
                now += 15
                if now > 20:
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
    assert told.split() == ["20.0", "5.0", "11"]


def test_calls_take_turns_also_when_the_lock_file_is_removed(root: Path) -> None:
    order: list[str] = []

    def enter() -> None:
        with Store(str(root), "net"):
            order.append("after")

    others = [threading.Thread(target=enter) for _ in range(2)]
    with Store(str(root), "net") as first:
        for number, other in enumerate(others):
            other.start()
            until_waiting(first.directory, number + 1, order)
            (root / "net" / "lock").unlink(missing_ok=True)
        order.append("first")
    for other in others:
        other.join()
    assert order == ["first", "after", "after"]


def test_the_references_lock_file_is_replaced(root: Path) -> None:
    """Who waited for a lock file that is gone has nobody's lock, and must wait for that of the new file."""
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
    """Until so many wait for a lock, or one has entered without it."""
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
    """O_TMPFILE refused, as on old or network file systems: the lease is made in place."""
    monkeypatch.setattr("posix.O_TMPFILE", os.O_DIRECTORY | os.O_RDWR)  # EISDIR, as a kernel of old
    assert reserve(root, "10.1.0.2") and not reserve(root, "10.1.0.2", container="b")
    assert (root / "net" / "10.1.0.2").read_bytes() == b"a\r\neth0"


def test_problem(root: Path) -> None:
    """STATUS's question; asking makes nothing."""
    assert problem(str(root / "not" / "yet"), "net") == ""
    assert not list(root.iterdir())
    (root / "file").write_text("")
    assert "not a directory" in problem(str(root), "file").lower()
    assert problem(str(root / "file"), "net")


def test_store_that_was_never_used(root: Path) -> None:
    assert not Store(str(root), "net").exists() and not Store(str(root / "a" / "b"), "net").exists()
    reserve(root, "10.1.0.2")
    assert Store(str(root), "net").exists()
