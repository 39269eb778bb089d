"""The log's file: lines that many processes add at once are there, whole and once; settings match their declarations."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import signals, steps
from shared.cni import log, suite
from shared.cni.call import Call
from shared.cni.errors import InternalError, InvalidConfig
from shared.cni.log_config import Config

WRITERS, LINES, SIZE = 32, 30, 16_384


def files(path: Path) -> list[Path]:
    return sorted(path.parent.iterdir())


def write(path: Path, writer: int) -> None:
    """Write lines of many lengths, some longer than a page of memory, in a process of its own."""
    signals.install()
    status = 1
    try:
        for number in range(LINES):
            length = (writer * 7 + number * 131) % 700 + (6000 if number % 10 == 0 else 0)
            log.append(str(path), json.dumps([writer, number, "x" * length]).encode() + b"\n", SIZE)
        status = 0
    finally:
        os._exit(status)


def written_by_many(path: Path) -> None:
    """Write from many processes at once. Each line must be there afterwards, whole and once."""
    children = []
    for writer in range(WRITERS):
        child = os.fork()
        if child == 0:
            write(path, writer)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * WRITERS
    lines = [json.loads(line) for file in files(path) for line in file.read_bytes().split(b"\n") if line]
    assert sorted((writer, number) for writer, number, _ in lines) == [
        (writer, number) for writer in range(WRITERS) for number in range(LINES)
    ]


def test_many_writers_lose_and_tear_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many full files are kept that none is lost; a new file begins every few lines."""
    monkeypatch.setattr(suite, "LOGS_KEPT", 100)
    monkeypatch.setattr(log, "LOCK_SECONDS", 300.0)
    path = tmp_path / "log"
    written_by_many(path)
    assert 30 < len(files(path)) < 100
    assert all(file.stat().st_size <= SIZE for file in files(path))
    assert all(file.read_bytes().endswith(b"\n") for file in files(path))


def test_many_writers_that_do_not_wait_lose_and_tear_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "LOGS_KEPT", 100)
    monkeypatch.setattr(log, "LOCK_SECONDS", 0.0001)
    written_by_many(tmp_path / "log")


def test_a_file_that_is_renamed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line goes into the new file.

    Another call found the file full and renamed it while this one waits for the lock.
    """
    path, full = tmp_path / "log", tmp_path / "log.1"
    log.append(str(path), b"first\n", SIZE)
    lock = log._lock  # noqa: SLF001 - the moment that is meant

    def late(file: int) -> bool:
        if not full.exists():
            path.rename(full)
        return lock(file)

    monkeypatch.setattr(log, "_lock", late)
    log.append(str(path), b"second\n", SIZE)
    assert (path.read_bytes(), full.read_bytes()) == (b"second\n", b"first\n")


def test_the_oldest_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for number in range(100):
        log.append(str(path), f"{number:03}\n".encode(), 40)
    assert {file.name: file.read_text().split() for file in files(path)} == {
        "log": [f"{n:03}" for n in range(90, 100)],
        "log.1": [f"{n:03}" for n in range(80, 90)],
        "log.2": [f"{n:03}" for n in range(70, 80)],
    }
    assert {stat.S_IMODE(file.stat().st_mode) for file in files(path)} == {0o640}


def test_a_line_longer_than_a_full_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for letter in b"abc":
        log.append(str(path), bytes([letter]) * 100 + b"\n", 40)
    assert [file.read_bytes()[:1] for file in files(path)] == [b"c", b"b", b"a"]


def test_what_comes_to_pass_while_an_add_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the rollback belong to it; the step that failed is the one before."""
    marks = ["start", "ipam.lock", "pod", steps.UNDO, "ipam.lock", "netns", steps.ANSWER, steps.LOG]
    monkeypatch.setattr(steps, "begun", [(mark, float(2**number)) for number, mark in enumerate(marks)])
    call = Call({"CNI_COMMAND": "STATUS", "CNI_PATH": "/"})
    entry = log.entry("plugins.bridge", call, InternalError("x"))
    assert entry["steps"] == {"start": 1000, "ipam.lock": 2000, "pod": 4000, "undo": 56_000, "answer": 64_000}
    assert (entry["ms"], entry["failedStep"]) == (127_000, "pod")


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=6), st.floats(), st.lists(st.integers(), max_size=1),
    st.sampled_from(["", "/", "/a", "a", "/a/..", "/..a", "/\n", "/\ud800", 4095, 4096, 1 << 40, (1 << 40) + 1]),
)  # fmt: skip
keys = st.sampled_from(["log", "size", "LOG", "Size", "other"])


def outcome(read: Any, raw: Any) -> Any:
    try:
        return read(raw)
    except InvalidConfig as error:
        return error.msg


@given(st.dictionaries(keys, values) | values)
def test_settings_are_read_as_declared(raw: Any) -> None:
    """The short cut for the plain case decides nothing."""

    def declared(raw: Any) -> tuple[str, int]:
        found = Config.read({"pycni": raw}).pycni
        return (found.log, found.size) if found else ("", suite.LOG_BYTES)

    assert outcome(log.settings, raw) == outcome(declared, raw)
