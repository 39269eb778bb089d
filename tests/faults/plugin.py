"""pytest's part: the choice of tests for `./tests/run --faults`, and the table of rows that it prints and keeps.

A test's marker names its rows. A test that strikes at many points reports by the fixture `tally` their number, and the
number of remains. Any other test counts as one point, and its failure as one remain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rows import DUTIES, REFERENCE, REQUIRED, ROWS, Name
from tests.kernel.features import FEATURES, has

RESULTS = Path(__file__).with_name("RESULTS.md")
ELSEWHERE = "earlier"
STRIKES = ("test_strikes.py", "test_half_made.py")
STRUCK_ON_STOCK_KERNEL = "test_killed"  # with its sample: strikes are many calls, and that kernel is slow
Tally = Callable[[Name, int, int], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --faults and --rows."""
    parser.addoption("--faults", action="store_true", help="the tests of the table of faults alone, with every point")
    parser.addoption(
        "--rows", default="", help="with --faults: only the tests of these rows, such as 4,21-28,locks, or duties"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select, with the option, the tests that show a row; without it, all but the complete ones."""
    complete = config.getoption("--faults")
    wanted = chosen_rows(config)

    def belongs(item: pytest.Item) -> bool:
        in_full = item.get_closest_marker("faults") is not None
        row = item.get_closest_marker("row")
        if item.path.name in STRIKES and not complete and _is_elsewhere(item):
            return not in_full and getattr(item, "originalname", "") == STRUCK_ON_STOCK_KERNEL
        if complete and wanted:
            return row is not None and not wanted.isdisjoint(row.args)
        return in_full or row is not None if complete else not in_full

    dropped = [item for item in items if not belongs(item)]
    if dropped:
        items[:] = [item for item in items if belongs(item)]
        config.hook.pytest_deselected(items=dropped)


def _is_elsewhere(item: pytest.Item) -> bool:
    """Return True if the test runs on the stock kernel, since the running one lacks a feature."""
    return any(item.get_closest_marker(feature) and not has(feature) for feature in FEATURES)


def chosen_rows(config: pytest.Config) -> set[Name]:
    """Return the rows that --rows names, none if it is not given."""
    found: set[Name] = set()
    for part in filter(None, config.getoption("--rows").split(",")):
        first, _, last = part.partition("-")
        if first.isdigit():
            found.update(range(int(first), int(last or first) + 1))
        else:
            found.update(DUTIES if part == "duties" else [part])
    if found - {*ROWS}:
        raise pytest.UsageError(f"--rows: there is no row {', '.join(map(str, found - {*ROWS}))}")
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Send the rows along with the report, from a worker, too."""
    marker = item.get_closest_marker("row")
    if marker:
        item.user_properties.append(("rows", list(marker.args)))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Return a function that records a row, the number of struck points, and the number of remains or errors."""

    def take(row: Name, points: int, left: int) -> None:
        request.node.user_properties.append(("tally", [row, points, left]))

    return take


@pytest.fixture
def reference_tally(request: pytest.FixtureRequest) -> Tally:
    """Return the same function for the reference's executables, which are struck in the same way."""

    def take(row: Name, points: int, left: int) -> None:
        request.node.user_properties.append(("reference", [row, points, left]))

    return take


class Row:
    """The outcome of the tests of one row."""

    def __init__(self) -> None:
        self.tests = self.failed = self.points = self.left = self.skipped = 0
        self.reference = ""

    def __str__(self) -> str:
        if not self.tests:
            return "not run"
        points = f", {self.points} points" if self.points else ""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{max(self.left, self.failed)} left ({self.tests} tests{points}{skipped})"


def sum_rows(reports: list[Any]) -> dict[Name, Row]:
    """Sum up the rows, from the reports of all tests."""
    rows: dict[Name, Row] = defaultdict(Row)
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
    """Write the table, with --faults."""
    if not config.getoption("--faults") or config.getoption("--collect-only"):
        return
    reports = [one for found in terminalreporter.stats.values() for one in found if hasattr(one, "when")]
    rows = sum_rows(reports)
    terminalreporter.section("faults")
    wanted = chosen_rows(config) or {*ROWS}
    for name in ROWS:
        if name in wanted:
            terminalreporter.write_line(f"{name:>2} {ROWS[name]}: {rows[name]}")
    narrowed = config.option.keyword or config.option.markexpr
    if not narrowed and all(rows[name].tests for name in wanted):  # a part of a row's tests tells nothing about it
        RESULTS.write_text(table(rows, wanted, RESULTS.read_text()))


def table(rows: dict[Name, Row], wanted: set[Name], before: str) -> str:
    """Return the text of RESULTS.md, in which the rows that are not `wanted` are as before."""
    kept = {line.split("|")[1].strip(): line for line in before.splitlines() if line.count("|") > 3}

    def line(name: Name, *more: str) -> str:
        if name not in wanted:
            return kept.get(str(name), "")
        return "| " + " | ".join([str(name), ROWS[name], REQUIRED[name], str(rows[name]), *more]) + " |"

    def reference(number: int) -> str:
        return rows[number].reference or f"{REFERENCE[number]} ({ELSEWHERE})"

    faults = [line(number, reference(number)) for number in REFERENCE]
    duties = [line(name) for name in DUTIES]
    return f"""\
# Faults: what is left

Written by `./tests/run --faults`; with `--rows 21-28,locks` it renews these rows alone, with `--rows duties` the second
table. The reference's figures (containernetworking/plugins) are of the same run and the same test where they say so;
where they say {ELSEWHERE}, of an earlier run of v1.9.1 with other tests.

| # | fault | required | pycni | reference |
|---|---|---|---|---|
{_lines(faults)}

# Security duties

[SECURITY.md](../../SECURITY.md) says what is defended against, and what is not. `pytest --faults --rows NAME` runs a row.

| duty | incident, or class of mistakes | required | result |
|---|---|---|---|
{_lines(duties)}
"""


def _lines(rows: list[str]) -> str:
    return "\n".join(filter(None, rows))
