"""pytest's part: which tests belong to `./tests/run --faults`, and the table of rows that it prints and keeps.

A test says by its marker which rows it shows. Those that strike at many points tell by the fixture `tally` how many, and
how much was left; of the others each is one point, and a failure is something left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rows import REFERENCE, REQUIRED, ROWS

RESULTS = Path(__file__).with_name("RESULTS.md")
ELSEWHERE = "earlier"
Tally = Callable[[int, int, int], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """--faults."""
    parser.addoption("--faults", action="store_true", help="the tests of the table of faults alone, with every point")
    parser.addoption("--rows", default="", help="with --faults: only the tests of these rows, such as 4,21-28")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With the option the tests that show a row, else all but the complete ones."""
    complete = config.getoption("--faults")
    wanted = chosen(config)

    def belongs(item: pytest.Item) -> bool:
        in_full = item.get_closest_marker("faults") is not None
        row = item.get_closest_marker("row")
        if complete and wanted:
            return row is not None and not wanted.isdisjoint(row.args)
        return in_full or row is not None if complete else not in_full

    dropped = [item for item in items if not belongs(item)]
    if dropped:
        items[:] = [item for item in items if belongs(item)]
        config.hook.pytest_deselected(items=dropped)


def chosen(config: pytest.Config) -> set[int]:
    """Return the rows that --rows names, none if it is not given."""
    found: set[int] = set()
    for part in filter(None, config.getoption("--rows").split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The rows go along with the report, from a worker, too."""
    marker = item.get_closest_marker("row")
    if marker:
        item.user_properties.append(("rows", list(marker.args)))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Takes a row, at how many points something was struck, and what was left or wrong there."""

    def take(row: int, points: int, left: int) -> None:
        request.node.user_properties.append(("tally", [row, points, left]))

    return take


@pytest.fixture
def reference_tally(request: pytest.FixtureRequest) -> Tally:
    """The same of the reference's executables, struck in the same way."""

    def take(row: int, points: int, left: int) -> None:
        request.node.user_properties.append(("reference", [row, points, left]))

    return take


class Row:
    """What the tests of one row came to."""

    def __init__(self) -> None:
        self.tests = self.failed = self.points = self.left = self.skipped = 0
        self.reference = ""

    def __str__(self) -> str:
        if not self.tests:
            return "not run"
        points = f", {self.points} points" if self.points else ""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{max(self.left, self.failed)} left ({self.tests} tests{points}{skipped})"


def summed(reports: list[Any]) -> dict[int, Row]:
    """The rows, of the reports of all tests."""
    rows: dict[int, Row] = defaultdict(Row)
    for report in reports:
        properties = list(getattr(report, "user_properties", ()))
        for number in next((value for name, value in properties if name == "rows"), ()):
            row = rows[number]
            if report.when == "call":
                row.tests += 1
            row.failed += report.outcome == "failed"
            row.skipped += report.outcome == "skipped"
        if report.when == "call":
            for number, points, left in (value for name, value in properties if name == "tally"):
                rows[number].points += points
                rows[number].left += left
            for number, points, left in (value for name, value in properties if name == "reference"):
                rows[number].reference = f"{left} of {points} points left something, in the same run"
    return rows


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table, with --faults."""
    if not config.getoption("--faults") or config.getoption("--collect-only"):
        return
    reports = [one for found in terminalreporter.stats.values() for one in found if hasattr(one, "when")]
    rows = summed(reports)
    terminalreporter.section("faults")
    wanted = chosen(config) or {*ROWS}
    for number in sorted(wanted):
        terminalreporter.write_line(f"{number:2} {ROWS[number]}: {rows[number]}")
    narrowed = config.option.keyword or config.option.markexpr
    if not narrowed and all(rows[number].tests for number in wanted):  # a part of a row's tests tells nothing about it
        RESULTS.write_text(table(rows, wanted, RESULTS.read_text()))


def table(rows: dict[int, Row], wanted: set[int], before: str) -> str:
    """Return the text of RESULTS.md, in which the rows that are not `wanted` are as before."""
    kept = {
        int(line.split("|")[1]): line for line in before.splitlines() if line.partition("|")[2][:2].strip().isdigit()
    }
    lines = [
        "# Faults: what is left",
        "",
        "Written by `./tests/run --faults`; with `--rows 21-28` it renews these rows alone. The reference's figures",
        "(containernetworking/plugins) are of the same run and the same test where they say so; where they say",
        f"{ELSEWHERE}, of an earlier run of v1.9.1 with other tests.",
        "",
        "| # | fault | required | pycni | reference |",
        "|---|---|---|---|---|",
    ]
    for number, fault in ROWS.items():
        if number not in wanted:
            lines += [kept[number]] if number in kept else []
            continue
        reference = rows[number].reference or f"{REFERENCE[number]} ({ELSEWHERE})"
        lines.append(f"| {number} | {fault} | {REQUIRED[number]} | {rows[number]} | {reference} |")
    return "\n".join([*lines, ""])
