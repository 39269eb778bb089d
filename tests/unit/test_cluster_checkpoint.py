"""The node's own memory: it survives a crash at any moment, and nobody else's file is taken for it."""

from __future__ import annotations

import json
import os
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster import files
from shared.cluster.checkpoint import Checkpoint, Store
from shared.cluster.model import Attempt, Held, Peer, Route
from shared.cni.errors import IOFailure
from tests.dying import killed_at_each

V4, V6 = ip_network("10.1.0.0/24"), ip_network("fd00:1::/64")
HELD = Held("pods", V4, 0, is_published=False, since=1.5, is_draining=True)
WHOLE = Checkpoint(
    held={("pods", V4): HELD, ("pods", V6): Held("pods", V6, 0, is_published=False, since=2.0, is_assigned=True)},
    attempts=(Attempt("pods", ip_network("10.1.1.0/24"), is_open=True),),
    announced=Peer("a", "u", (ip_address("192.0.2.1"),), {"pods": (V4, V6)}, 3.0, "02:00:00:00:00:01", "key", "17"),
    kept_ranges={"pods": (V6, V4), "lan": ()},
    kept_routes=frozenset([
        Route(ip_network("10.2.0.0/24"), "b", ip_address("192.0.2.2"), is_tunnelled=False),
        Route(ip_network("fd00:2::/64"), "c", ip_address("192.0.2.3"), is_tunnelled=True, mac="02:00:00:00:00:02"),
        Route(ip_network("fd00:3::/64"), "d", ip_address("192.0.2.4"), is_tunnelled=True, key="key"),
        Route(ip_network("fd00::/32"), "", ip_address("fd00::"), is_tunnelled=False, is_refused=True),
    ]),
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "var/lib/pycni/agent"


def test_a_later_process_reads_all_of_it(place: Path) -> None:
    first = Store(place)
    assert first.read() == Checkpoint()
    assert first.write(WHOLE)
    second = Store(place)
    assert (second.uid, second.read()) == (first.uid, WHOLE)
    assert re.fullmatch("[0-9a-f]{32}", second.uid)
    assert {path.name: path.stat().st_mode & 0o777 for path in [place, *place.iterdir()]} == {
        "agent": 0o700, "uid": 0o600, "node.json": 0o600, "routes.json": 0o600,
    }  # fmt: skip


def test_nothing_is_written_again(place: Path) -> None:
    """The routes are large: a change of the blocks leaves their file alone."""
    Store(place).write(WHOLE)
    store = Store(place)
    assert not store.write(store.read())
    before = (place / "routes.json").stat().st_ino
    assert store.write(Checkpoint(kept_routes=WHOLE.kept_routes))
    assert (place / "routes.json").stat().st_ino == before
    assert Store(place).read() == Checkpoint(kept_routes=WHOLE.kept_routes)


@pytest.mark.parametrize("name", ["node.json", "routes.json"])
def test_a_file_that_somebody_garbled_is_written_again(place: Path, name: str) -> None:
    store = Store(place)
    store.write(WHOLE)
    (place / name).write_text("{")
    assert store.read().problems
    assert store.write(WHOLE)
    assert Store(place).read() == WHOLE


GARBLED = {
    "empty": "", "cut": "{", "list": "[]", "held": '{"held": 1}', "routes": '{"routes": [{}]}', "zeros": "\0" * 99,
    "deep": "[" * 99999,
}  # fmt: skip


@pytest.mark.parametrize("text", GARBLED.values(), ids=GARBLED)
@pytest.mark.parametrize("name", ["node.json", "routes.json"])
def test_a_garbled_file_counts_as_empty(place: Path, name: str, text: str) -> None:
    store = Store(place)
    store.write(WHOLE)
    (place / name).write_text(text)
    found = Store(place).read()
    assert [problem.partition(" ")[0] for problem in found.problems] == [str(place / name)]
    assert (found.kept_routes if name == "node.json" else found.held) == (
        WHOLE.kept_routes if name == "node.json" else WHOLE.held
    )
    assert Store(place).write(WHOLE)
    assert Store(place).read() == WHOLE


def test_the_id_has_two_places(place: Path) -> None:
    store = Store(place)
    store.write(WHOLE)
    (place / "uid").unlink()
    assert Store(place).uid == store.uid
    (place / "uid").write_text("")
    assert Store(place).uid == store.uid
    assert (place / "uid").read_text() == f"{store.uid}\n"


def test_a_garbled_id_is_no_new_node(place: Path) -> None:
    """A node that silently takes another id loses all of its blocks."""
    Store(place)
    (place / "uid").write_text("garbage")
    with pytest.raises(IOFailure, match=rf"{place}/uid has no node's id, but 'garbage'"):
        Store(place)


@pytest.mark.parametrize("name", ["node.json", "routes.json", "uid"])
def test_a_file_of_another_user_is_refused(place: Path, name: str) -> None:
    Store(place).write(WHOLE)
    os.chown(place / name, 1, 1)
    with pytest.raises(IOFailure, match=rf"{place}/{name} has owner 1 and mode 0600"):
        Store(place).read()
    os.chown(place / name, 0, 0)
    (place / name).chmod(0o620)
    with pytest.raises(IOFailure, match="mode 0620"):
        Store(place).read()


def test_other_kinds_of_files_are_refused(place: Path, tmp_path: Path) -> None:
    Store(place).write(WHOLE)
    (place / "node.json").rename(tmp_path / "elsewhere")
    (place / "node.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IOFailure, match=r"cannot read .*node\.json"):
        Store(place).read()
    (place / "node.json").unlink()
    os.mkfifo(place / "node.json")
    with pytest.raises(IOFailure, match="not a regular file"):
        Store(place).read()


def test_a_directory_of_another_user_is_refused(place: Path) -> None:
    place.mkdir(parents=True)
    place.chmod(0o777)
    with pytest.raises(IOFailure, match="mode 0777"):
        Store(place)


def test_killed_at_each_system_call(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either the old content or the new one is there, and the next write succeeds."""
    Store(place).write(Checkpoint())
    seen = set()
    for _ in killed_at_each(lambda: Store(place).write(WHOLE), monkeypatch):
        seen.add((place / "node.json").read_text())
        assert Store(place).read().problems == ()
        Store(place).write(WHOLE)
        assert Store(place).read() == WHOLE
        Store(place).write(Checkpoint())
    assert len(seen) == 2


def test_each_file_is_on_the_disk_before_its_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(place)
    calls: list[str] = []

    def recording(name: str, real: Any) -> Any:
        def call(*args: Any, **keys: Any) -> Any:
            calls.append(name)
            return real(*args, **keys)

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, recording(name, getattr(os, name)))
    files.write(store.directory / "node.json", json.dumps({}))
    assert calls == ["fsync", "rename", "fsync"]


def test_a_write_that_failed_at_its_end_is_not_trusted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new text may be in the file although the directory's fsync failed: the old one is written again."""
    store = Store(place)
    store.write(Checkpoint())
    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync_directory", _fail)
        with pytest.raises(IOFailure):
            store.write(WHOLE)
    assert store.write(Checkpoint())
    assert Store(place).read() == Checkpoint()


def _fail(path: Path) -> None:
    raise OSError(5, f"cannot sync {path}")
