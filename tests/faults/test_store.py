"""Rows 5, 13, 18 and leases of an earlier boot: the files that host-local may find in its directory, and their fate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.faults import batch
from tests.faults.batch import Call
from tests.pretend import Answer, PretendHost

NETWORK = "net"
DATA = "/var/lib/cni/networks"
STORE = f"{DATA}/{NETWORK}"
OLD_BOOT = "00000000-0000-4000-8000-000000000000"
RUNTIME_ID = "0123456789abcdef" * 4
GARBAGE = {
    "empty": b"",
    "zeros": bytes(32),
    "white space": b" \r\n",
    "not UTF-8": b"\xff\xfe\x80",
    "cut in a character": "ä".encode()[:1],
    "zeros behind": b"c1\r\n\0\0\0\0",
    "binary": bytes(range(256)),
}


def _config(subnet: str = "10.7.0.0/29", **keys: Any) -> dict[str, Any]:
    return {
        "cniVersion": "1.1.0",
        "name": NETWORK,
        "type": "bridge",
        "ipam": {"type": "host-local", "subnet": subnet, **keys},
    }


def _add(host: PretendHost, container_id: str, subnet: str = "10.7.0.0/29", **keys: Any) -> Answer:
    return host.cni("host-local", "ADD", _config(subnet, **keys), netns="/x", container_id=container_id)


def _del(host: PretendHost, container_id: str) -> Answer:
    return host.cni("host-local", "DEL", _config(), container_id=container_id)


def _address(answer: Answer) -> str:
    assert answer.status == 0, answer
    return str(answer.json["ips"][0]["address"]).partition("/")[0]


def _store(host: PretendHost) -> Path:
    path = host.root / STORE.lstrip("/")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _leases(host: PretendHost) -> dict[str, str]:
    files = host.snapshot()["files"]
    return {name.removeprefix(f"{STORE}/"): text for name, text in files.items() if name.startswith(f"{STORE}/10.")}


# -- garbled leases


@pytest.mark.parametrize("what", GARBAGE)
@pytest.mark.row(5)
def test_garbled_leases_are_reclaimed_by_add(host: PretendHost, what: str) -> None:
    """All five addresses of the /29 are behind such files, and the next five pods get them."""
    for number in range(2, 7):
        (_store(host) / f"10.7.0.{number}").write_bytes(GARBAGE[what])
    given = [_address(_add(host, f"c{number}")) for number in range(5)]
    assert sorted(given) == [f"10.7.0.{number}" for number in range(2, 7)]
    assert _add(host, "one-more").code == 11
    assert set(_leases(host).values()) == {f"c{number}\r\neth0" for number in range(5)}


@pytest.mark.parametrize("what", GARBAGE)
@pytest.mark.row(5)
def test_a_lease_that_becomes_garbled_is_reclaimed(host: PretendHost, what: str) -> None:
    """A power cut does it, and the next boot finds the file so.

    The index says otherwise, and the time stamp is the same.
    """
    lease = _store(host) / _address(_add(host, "c1"))
    lease.write_bytes(GARBAGE[what])
    for number in range(5):
        assert _add(host, f"d{number}").status == 0
    assert _add(host, "one-more").code == 11


@pytest.mark.row(5)
def test_253_garbled_leases_do_not_exhaust_a_24(host: PretendHost) -> None:
    for number in range(2, 255):
        (_store(host) / f"10.7.0.{number}").write_bytes(b"")
    answers = batch.run(
        host,
        [Call("host-local", "ADD", _config("10.7.0.0/24"), {"CNI_CONTAINERID": f"c{number}"}) for number in range(20)],
        at_once=4,
    )
    assert [answer.status for answer in answers] == [0] * 20
    assert len(_leases(host)) == 20


@pytest.mark.row(5)
def test_garbled_leases_are_reclaimed_by_gc(host: PretendHost) -> None:
    kept = _address(_add(host, "kept"))
    for number, content in enumerate(GARBAGE.values()):
        (_store(host) / f"10.9.0.{number}").write_bytes(content)
    (_store(host) / "10.9.0.99").write_text("gone\r\neth0")
    valid = [{"containerID": "kept", "ifname": "eth0"}]
    answer = host.cni("host-local", "GC", {**_config(), "cni.dev/valid-attachments": valid})
    assert answer.status == 0, answer
    assert _leases(host) == {kept: "kept\r\neth0"}


@pytest.mark.parametrize("what", GARBAGE)
@pytest.mark.row(5)
def test_leases_that_become_garbled_are_reclaimed_by_gc(host: PretendHost, what: str) -> None:
    """The time stamp is the same, so that the index takes them for leases still."""
    kept = _address(_add(host, "kept"))
    (_store(host) / _address(_add(host, "c1"))).write_bytes(GARBAGE[what])
    valid = [{"containerID": name, "ifname": "eth0"} for name in ("kept", "c1")]
    answer = host.cni("host-local", "GC", {**_config(), "cni.dev/valid-attachments": valid})
    assert answer.status == 0, answer
    assert _leases(host) == {kept: "kept\r\neth0"}


@pytest.mark.row(5)
def test_a_garbled_round_robin_file_is_no_hindrance(host: PretendHost) -> None:
    for content in (b"", b"\xff\xff", b"10.99.0.1", b"fd00::1", b"10.7.0.3\n", bytes(4096)):
        (_store(host) / "last_reserved_ip.0").write_bytes(content)
        assert _add(host, "c1").status == 0, content
        assert _del(host, "c1").status == 0


# -- other than regular files


def _make_odd(path: Path, kind: str, victim: Path) -> None:
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "symbolic link":
        path.symlink_to(victim.name if victim.parent == path.parent else f"/run/{victim.name}")
    elif kind == "dangling link":
        path.symlink_to("/run/new-file")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "device":
        os.mknod(path, 0o020666, os.makedev(1, 5))  # /dev/zero


KINDS = ("FIFO", "directory", "symbolic link", "dangling link", "link to itself", "device")


def _victim(host: PretendHost, content: str) -> Path:
    """Make a file outside of the store that a symbolic link in it leads to."""
    path = host.root / "run/victim"
    path.write_text(content)
    path.chmod(0o644)
    os.utime(path, (1, 1))
    return path


def _assert_untouched(host: PretendHost, victim: Path, content: str) -> None:
    found = victim.stat()
    assert (found.st_atime, found.st_mtime, found.st_mode & 0o7777, found.st_size) == (1, 1, 0o644, len(content))
    assert not (host.root / "run/new-file").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.row(13, 18)
def test_what_is_no_file_is_no_lease(host: PretendHost, kind: str) -> None:
    """In a lease's place it is not waited for, followed, removed, or taken for the lease that a link leads to."""
    victim = _victim(host, "c1\r\neth0")
    odd = _store(host) / "10.7.0.2"
    _make_odd(odd, kind, victim)
    answers = [_add(host, "c1"), _add(host, "c2")]
    assert _address(answers[0]) == "10.7.0.3" and _address(answers[1]) == "10.7.0.4"
    check = host.cni("host-local", "CHECK", {**_config(), "prevResult": answers[0].json}, netns="/x")
    assert check.status == 0, check
    assert host.cni("host-local", "STATUS", _config()).status == 0
    assert host.cni("host-local", "GC", {**_config(), "cni.dev/valid-attachments": []}).status == 0
    assert _del(host, "c1").status == 0
    assert os.path.lexists(odd)
    assert set(_leases(host)) == {"10.7.0.2"} - ({"10.7.0.2"} if kind == "directory" else set())
    _assert_untouched(host, victim, "c1\r\neth0")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lock", "last_reserved_ip.0"])
@pytest.mark.row(13, 18, "symlinks")
def test_what_is_no_file_is_not_used(host: PretendHost, name: str, kind: str) -> None:
    """The lock gives an error with code 5, the round-robin file either that or no notice.

    No failing call leases anything.
    """
    victim = _victim(host, "10.7.0.4")
    _make_odd(_store(host) / name, kind, victim)
    answer = _add(host, "c1")
    if answer.status == 0:
        assert name != "lock"
        assert _address(answer) == "10.7.0.2"  # and not the one behind the victim's
        assert _del(host, "c1").status == 0
    else:
        assert answer.code == 5 and "unexpected" not in answer.stdout, answer
    assert _leases(host) == {}
    _assert_untouched(host, victim, "10.7.0.4")


@pytest.mark.parametrize("place", [STORE, f"{DATA}/.pycni", f"{DATA}/.pycni/{NETWORK}"])
@pytest.mark.parametrize("kind", ["symbolic link", "file", "foreign owner", "writable for all"])
@pytest.mark.row(18, "symlinks")
def test_a_store_that_others_can_write_is_refused(host: PretendHost, place: str, kind: str) -> None:
    path = host.root / place.lstrip("/")
    elsewhere = host.root / "run/elsewhere"
    elsewhere.mkdir(mode=0o700)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if kind == "symbolic link":
        path.symlink_to("/run/elsewhere")
    elif kind == "file":
        path.write_text("x")
    else:
        path.mkdir(mode=0o700)
        os.chown(path, 1000 if kind == "foreign owner" else 0, 0)
        path.chmod(0o777 if kind == "writable for all" else 0o700)
    answer = _add(host, "c1")
    assert (answer.status, answer.code) == (1, 5) and "unexpected" not in answer.stdout, answer
    assert list(elsewhere.rglob("*")) == []
    assert _leases(host) == {}


@pytest.mark.row(18)
def test_an_index_that_lies_frees_nobody_elses_address(host: PretendHost) -> None:
    first, second = _address(_add(host, "c1")), _address(_add(host, "c2"))
    entry = host.root / DATA.lstrip("/") / ".pycni" / NETWORK / "c1:eth0"
    for text in (f"own {second}", f"own ../../../../run/victim {second}", "own", "", "x" * 4000):
        entry.unlink(missing_ok=True)
        if text:
            entry.symlink_to(text)
        victim = _victim(host, "c1\r\neth0")
        assert _del(host, "c1").status == 0
        assert _leases(host)[second] == "c2\r\neth0"
        _assert_untouched(host, victim, "c1\r\neth0")
        if first not in _leases(host):
            first = _address(_add(host, "c1", rangeStart="10.7.0.2"))


# -- an earlier boot


def _reboot(host: PretendHost) -> None:
    """Reboot, as the next call sees it: the index was last complete in another boot."""
    boot = host.root / DATA.lstrip("/") / ".pycni" / NETWORK / "boot"
    assert boot.is_symlink()
    boot.unlink()
    boot.symlink_to(OLD_BOOT)


def _touch_by_another_plugin(host: PretendHost, name: str, content: str) -> None:
    (_store(host) / name).write_text(content)


@pytest.mark.row(4)
def test_leases_of_an_earlier_boot_are_reclaimed(host: PretendHost) -> None:
    """Leases of this suite go, and those it saw then that only a runtime can have made.

    Hand-placed and living leases stay.
    """
    ours = [_address(_add(host, f"c{number}", "10.7.0.0/24")) for number in range(3)]
    assert ours == ["10.7.0.2", "10.7.0.3", "10.7.0.4"]
    by_hand = {
        "10.7.0.20": "reserved\n",
        "10.7.0.21": "printer",
        "10.7.0.22": "core router\r\neth0",
        "10.7.0.23": "short-id\r\neth0",
    }
    runtimes = {"10.7.0.30": f"{RUNTIME_ID}\r\neth0", "10.7.0.31": RUNTIME_ID[::-1]}
    for name, content in {**by_hand, **runtimes}.items():
        _touch_by_another_plugin(host, name, content)
    assert _address(_add(host, "c3", "10.7.0.0/24")) == "10.7.0.5"  # sees them
    assert {**by_hand, **runtimes}.items() <= _leases(host).items()

    _reboot(host)
    # a pod that the reference has started in this boot, before this suite was called for the first time
    live = {"10.7.0.40": f"{'f' * 64}\r\neth0"}
    _touch_by_another_plugin(host, *next(iter(live.items())))
    assert _address(_add(host, "new", "10.7.0.0/24")) == "10.7.0.6"
    assert _leases(host) == {**by_hand, **live, "10.7.0.6": "new\r\neth0"}

    # and in this boot nothing more is taken away
    assert _address(_add(host, "newer", "10.7.0.0/24")) == "10.7.0.7"
    assert _leases(host) == {**by_hand, **live, "10.7.0.6": "new\r\neth0", "10.7.0.7": "newer\r\neth0"}
    # its own from this boot go at the next reboot, as does the live one, which by then is of an earlier boot
    _reboot(host)
    _address(_add(host, "newest", "10.7.0.0/24"))
    assert _leases(host) == {**by_hand, "10.7.0.8": "newest\r\neth0"}


@pytest.mark.row(4)
def test_a_full_range_is_free_again_after_a_reboot(host: PretendHost) -> None:
    for number in range(5):
        assert _add(host, f"c{number}").status == 0
    assert _add(host, "c9").code == 11
    assert host.cni("host-local", "STATUS", _config()).code == 50
    _reboot(host)
    assert host.cni("host-local", "STATUS", _config()).status == 0
    assert _add(host, "c9").status == 0
    assert len(_leases(host)) == 1


def test_a_lease_taken_over_by_hand_outlives_a_reboot(host: PretendHost) -> None:
    """The index calls it this suite's, the file another one's: the file counts."""
    mine = _address(_add(host, "c1"))
    _touch_by_another_plugin(host, mine, "reserved\n")
    _reboot(host)
    assert _add(host, "c2").status == 0
    assert _leases(host)[mine] == "reserved\n"


def test_del_after_a_reboot_frees_what_the_index_has_forgotten(host: PretendHost) -> None:
    _address(_add(host, "c1"))
    _touch_by_another_plugin(host, "10.7.0.4", "c1\r\neth0")
    _reboot(host)
    assert _del(host, "c1").status == 0
    assert _leases(host) == {}


@pytest.mark.row(4)
def test_a_lost_index_is_made_anew(host: PretendHost) -> None:
    given = _address(_add(host, "c1"))
    host.run("rm", "-r", f"{DATA}/.pycni")
    assert _address(_add(host, "c2")) != given
    host.run("rm", "-r", f"{DATA}/.pycni")
    assert _del(host, "c1").status == 0
    assert list(_leases(host).values()) == ["c2\r\neth0"]
