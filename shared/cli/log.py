"""cnitool log: read the log that shared/cni/log.py writes, including the rotated files beside it."""

from __future__ import annotations

import argparse
import ctypes
import heapq
import json
import math
import os
import re
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from shared.cli.terminal import paint, readable
from shared.cni import log, suite
from shared.cni.suite import NODE_CONFIG

Entry = dict[str, Any]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds
LONGEST_STEPS = 3
SHORT_ID = 13  # characters, as crictl shows
BAR = 40  # columns of a histogram's longest bar
PERCENTILES = (50, 90, 99)
BOUNDS = [number * scale for scale in (1, 10, 100, 1000, 10_000) for number in (1, 2, 5)]  # ms
IN_MODIFY, IN_CREATE, IN_MOVED_TO = 0x2, 0x100, 0x80  # linux/inotify.h


class Unusable(Exception):
    """The command line or the log is invalid; the text gives the reason."""


def run(options: argparse.Namespace) -> int:
    """Print the chosen calls.

    Return 1 if there is no log to read, 2 if an argument is invalid.
    """
    try:
        path = Path(options.file or _path_of_node())
        wanted = Filter(options)
    except Unusable as error:
        return _complain(str(error), 2)
    garbled = Garbled()
    try:
        lines = _follow(path, past=wanted.since is not None) if options.follow else _read_lines(path)
        chosen = ((entry, line) for entry, line in _entries(lines, garbled) if entry in wanted)
        _show(chosen, options)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _complain(f"cannot read the log {path}: {error.strerror}", 1)
    finally:
        if garbled.lines:
            _complain(f"{garbled.lines} garbled line{'s' if garbled.lines > 1 else ''} skipped", 0)
    return 0


def _complain(text: str, status: int) -> int:
    print(f"cnitool log: {text}", file=sys.stderr)
    return status


def _path_of_node() -> str:
    try:
        path, _ = log.of_node()
    except (OSError, ValueError) as error:
        raise Unusable(str(error)) from None
    if not path:
        raise Unusable(f"{NODE_CONFIG} names no log; give the log as FILE")
    return path


# -- filters


class Filter:
    """The calls that the command line asks for. Raise Unusable for an invalid time."""

    def __init__(self, options: argparse.Namespace) -> None:
        keys = ("network", "ifname", "verb", "plugin")
        self.exact = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
        self.container = options.container or ""
        self.errors = options.errors
        self.since = _moment(options.since, datetime.now(UTC)) if options.since else None

    def __contains__(self, entry: Entry) -> bool:
        return (
            all(entry[key] == value for key, value in self.exact.items())
            and entry["containerID"].startswith(self.container)
            and not (self.errors and entry["outcome"] == "ok")
            and (self.since is None or datetime.fromisoformat(entry["time"]) >= self.since)
        )


def _moment(text: str, now: datetime) -> datetime:
    """Return a time, or the time of an age before now.

    Without a zone it is local time, without a date it is today.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    try:
        if ago:
            return now - timedelta(seconds=float(ago[1]) * UNITS[ago[2]])
        today = f"{now.astimezone().date()}T" if re.fullmatch(r"\d\d:\d\d(:\d\d)?", text) else ""
        return datetime.fromisoformat(today + text).astimezone()
    except (ValueError, OverflowError):
        raise Unusable(f"--since {text!r} is neither a time such as 2026-01-31T22:15 nor an age such as 15m") from None


# -- files


class Garbled:
    """The number of lines that are not entries of the log."""

    lines = 0


def _entries(lines: Iterable[bytes], garbled: Garbled) -> Iterator[tuple[Entry, str]]:
    """Return each call with its line."""
    for line in lines:
        if line == b"\n":  # A writer adds an empty line after a half-written one.
            continue
        try:
            entry = json.loads(line)
            if _is_entry(entry):
                yield entry, line.decode().rstrip("\n")
                continue
        except (ValueError, RecursionError):
            pass
        garbled.lines += 1


def _is_entry(entry: Any) -> bool:
    """Return True if the entry has every value that is printed. Raise ValueError for an invalid time."""
    if not isinstance(entry, dict) or not _is_duration(entry.get("ms")):
        return False
    texts = ("time", "verb", "plugin", "network", "containerID", "ifname", "outcome")
    if not all(isinstance(entry.get(key), str) for key in texts) or not isinstance(entry.get("steps"), dict):
        return False
    return datetime.fromisoformat(entry["time"]).tzinfo is not None and all(map(_is_duration, entry["steps"].values()))


def _is_duration(ms: Any) -> bool:
    return isinstance(ms, int | float) and not isinstance(ms, bool) and 0 <= ms < math.inf


def _open_files(path: Path) -> list[IO[bytes]]:
    """Open the log and the rotated files beside it, the oldest first. Return none if the log does not exist."""
    files: list[IO[bytes]] = []
    # Start with the newest: a file that is renamed in the meantime is found again under its next name.
    for name in (path.name, *(f"{path.name}.{number}" for number in range(1, suite.LOGS_KEPT + 1))):
        try:
            file = path.with_name(name).open("rb")
        except FileNotFoundError:
            continue
        if any(_is_same(file, other) for other in files):
            file.close()
        else:
            files.insert(0, file)
    return files


def _is_same(file: IO[bytes], other: IO[bytes]) -> bool:
    return os.path.samestat(os.fstat(file.fileno()), os.fstat(other.fileno()))


def _read_lines(path: Path) -> Iterator[bytes]:
    """Return the existing lines, the oldest first. Raise FileNotFoundError if there is no log."""
    files = _open_files(path)
    if not files:
        path.open("rb").close()
    with ExitStack() as opened:
        for file in files:
            opened.enter_context(file)
        for file in files:
            yield from file


def _follow(path: Path, *, past: bool) -> Iterator[bytes]:
    """Return new lines as they are written, with `past` the existing ones first. Wait if there is no log yet."""
    events = _watch(path.parent)
    known: list[IO[bytes]] = []  # the last is the one that is being written
    fresh = _open_files(path)
    if not past and fresh:
        known, fresh = fresh, []
        known[-1].seek(0, os.SEEK_END)
    rest: list[bytes] = []  # parts of a line without its end
    while True:
        for file in (*known[-1:], *fresh):
            if rest and file in fresh:  # Torn: a file that has a successor is not written any more.
                yield b"".join(rest)
                rest.clear()
            for part in file:
                rest.append(part)
                if part.endswith(b"\n"):
                    yield b"".join(rest)
                    rest.clear()
        known, fresh = _reopen(path, [*known, *fresh])
        if not fresh:
            os.read(events, 1 << 16)


def _reopen(path: Path, known: list[IO[bytes]]) -> tuple[list[IO[bytes]], list[IO[bytes]]]:
    """Return the known files and the new ones.

    Close known files that have no name any more, except the last.
    """
    named = _open_files(path)
    fresh = [file for file in named if not any(_is_same(file, other) for other in known)]
    kept = [file for file in known[:-1] if any(_is_same(file, other) for other in named)] + known[-1:]
    for file in {*named, *known} - {*fresh, *kept}:
        file.close()
    return kept, fresh


def _watch(directory: Path) -> int:
    """Return a descriptor that becomes readable if a file in a directory changes (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    events: int = libc.inotify_init1(os.O_CLOEXEC)
    if events < 0 or libc.inotify_add_watch(events, os.fsencode(directory), IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return events


# -- output


def _show(calls: Iterable[tuple[Entry, str]], options: argparse.Namespace) -> None:
    if options.histogram:
        _show_histogram((entry for entry, _ in calls), as_json=options.json)
        return
    if options.slowest:
        calls = heapq.nlargest(options.slowest, calls, key=lambda call: call[0]["ms"])
    for entry, line in calls:
        print(line if options.json else _text(entry), flush=options.follow)


def _text(entry: Entry) -> str:
    longest = heapq.nlargest(LONGEST_STEPS, entry["steps"].items(), key=lambda step: step[1])
    outcome = entry["outcome"]
    if outcome != "ok":
        where = f" in {entry['failedStep']}" if "failedStep" in entry else ""
        reason = f" {entry['errno']}" if "errno" in entry else ""
        said = ": ".join(str(entry[key]) for key in ("msg", "details") if key in entry)
        outcome = f"{outcome} {entry.get('code')}{where}{reason}: {said}"
    words = (
        entry["time"], f"{entry['verb']:<6}", f"{entry['plugin']:<10}", entry["network"] or "-",
        entry["containerID"][:SHORT_ID] or "-", entry["ifname"] or "-", f"{entry['ms']:8.2f} ms",
        f"({', '.join(f'{step} {ms:.2f}' for step, ms in longest)})",
    )  # fmt: skip
    return f"{_printable(' '.join(words))} {paint('32' if outcome == 'ok' else '31', _printable(outcome))}"


def _printable(text: str) -> str:
    """Replace control characters: an error's text may come from anywhere."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _show_histogram(calls: Iterable[Entry], *, as_json: bool) -> None:
    durations: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    failed: Counter[tuple[str, str]] = Counter()
    for entry in calls:
        kind = entry["verb"], entry["plugin"]
        durations[kind].append(entry["ms"])
        failed[kind] += entry["outcome"] != "ok"
    summaries = [_summary(*kind, sorted(durations[kind]), failed[kind]) for kind in sorted(durations)]
    if as_json:
        print(readable(summaries))
        return
    for summary in summaries:
        print("\n".join(_chart(summary)))


def _summary(verb: str, plugin: str, ms: list[float], failed: int) -> Entry:
    """Summarize the calls of one verb of one plugin: percentiles by nearest rank, and counts per bucket."""
    places = Counter(bisect_left(BOUNDS, duration) for duration in ms)
    return {
        "verb": verb,
        "plugin": plugin,
        "calls": len(ms),
        "failed": failed,
        **{f"p{percent}": ms[math.ceil(len(ms) * percent / 100) - 1] for percent in PERCENTILES},
        "max": ms[-1],
        "buckets": [
            {"above": BOUNDS[place - 1] if place else 0, "upTo": (*BOUNDS, None)[place], "calls": places[place]}
            for place in range(min(places), max(places) + 1)
        ],
    }


def _chart(summary: Entry) -> Iterator[str]:
    marks = ", ".join(f"{mark} {summary[mark]:.2f}" for mark in (*(f"p{percent}" for percent in PERCENTILES), "max"))
    title = f"{_printable(summary['verb'])} {_printable(summary['plugin'])}"
    yield f"{paint('1', title)}: {summary['calls']} calls, {summary['failed']} failed; ms: {marks}"
    most = max(bucket["calls"] for bucket in summary["buckets"])
    for bucket in summary["buckets"]:
        bound = "more" if bucket["upTo"] is None else f"to {bucket['upTo']}"
        bar = "█" * math.ceil(bucket["calls"] / most * BAR)
        yield f"{bucket['above']:>6} {bound:<8} {bar} {bucket['calls']}"
