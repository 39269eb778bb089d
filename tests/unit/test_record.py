"""Small files of state: each is whole or absent, no link is followed, nothing is left behind."""

from __future__ import annotations

import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.cni import record
from shared.cni.errors import IOFailure


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow for a while."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_record_is_written_read_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "state" / "of" / "a.json"
    assert record.read(str(path)) == {} and record.listed(str(path.parent)) == []
    record.write(str(path), {"a": 1})
    assert record.read(str(path)) == {"a": 1} and record.listed(str(path.parent)) == [(str(path), {"a": 1})]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for _ in range(2):
        record.remove(str(path))
    assert list(path.parent.iterdir()) == []


def test_a_write_that_fails_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    record.write(str(path), {"a": 1})
    before = path.read_bytes()
    with full_disk(10), pytest.raises(IOFailure, match="cannot write"):
        record.write(str(path), {"a": "x" * 100})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a.json": before}


def test_what_a_killed_write_left_is_replaced_and_removed(tmp_path: Path) -> None:
    path, unfinished = tmp_path / "a.json", tmp_path / "a.json.new"
    unfinished.write_text('{"a": ')
    assert record.listed(str(tmp_path)) == []
    record.write(str(path), {"a": 2})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"] and record.read(str(path)) == {"a": 2}
    unfinished.write_text('{"a": ')
    record.remove(str(path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.json", "a.json.new"])
def test_no_link_is_followed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text('{"precious": 1}')
    state = tmp_path / "state"
    state.mkdir()
    (state / name).symlink_to(victim)
    if name == "a.json":
        with pytest.raises(IOFailure):
            record.read(str(state / "a.json"))
    record.write(str(state / "a.json"), {"a": 1})
    assert victim.read_text() == '{"precious": 1}' and record.read(str(state / "a.json")) == {"a": 1}
    (state / name).unlink(missing_ok=True)
    (state / name).symlink_to(victim)
    record.remove(str(state / "a.json"))
    assert victim.read_text() == '{"precious": 1}' and not os.path.lexists(state / name)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"a": NaN}'])
def test_a_garbled_record_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert record.read(str(tmp_path / "a.json")) == {}


def test_unfinished_files_are_removed_by_gc_alone(tmp_path: Path) -> None:
    record.remove_unfinished(str(tmp_path / "none"))
    for name in ("a.json", "a.json.new", "b.json.new", "b.new", "c.json.newer"):
        (tmp_path / name).write_text("{}")
    record.remove_unfinished(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.new", "c.json.newer"]


def test_a_write_outlives_the_removal_of_its_unfinished_file(tmp_path: Path) -> None:
    """Each write succeeds, and the file is never another's, while GC removes unfinished files every millisecond."""
    path, done = str(tmp_path / "a.json"), threading.Event()

    def collect() -> None:
        while not done.wait(0.001):
            record.remove_unfinished(str(tmp_path))

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for number in range(300):
            record.write(path, {"number": number})
            assert record.read(path) == {"number": number}
    finally:
        done.set()
        thread.join()
