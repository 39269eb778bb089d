"""pytest's part: tests that need a feature of the stock kernel run there, and report here.

One boot serves them all. It begins after the collection of the tests and runs beside the other tests; its own tests
come last here. The pytest in the boot writes every report as a line of JSON. Each is handed on as if the test had run
here, so that its outcome, traceback, output and duration appear with all others', and no test is skipped for want of a
kernel.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import boot
from tests.kernel.features import FEATURES, has
from tests.kernel.image import ROOT

LIMIT = 4500  # seconds for all of those tests
FAULTS_LIMIT = 4 * 3600  # the same with more points of each
MANY = 40  # tests; if more run there, each has so many of its variants there, but for a run with --faults
VARIANTS = 2

DIRECTORY = "STOCK_KERNEL_DIRECTORY"  # by this variable pytest's workers find the boot's output
FIRST_WORKER = "gw0"  # as pytest-xdist names it; this one boots
ELSEWHERE = pytest.StashKey[bool]()  # set for the tests that run there
BOOT = pytest.StashKey[subprocess.Popen[bytes]]()
TOLD = pytest.StashKey["Told"]()


class Told:
    """A finished boot: the reports by node id, other output, and a description. Its creation waits for the boot's end."""

    def __init__(self, directory: Path) -> None:
        with (directory / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
        self.words = (directory / "output").read_text(errors="replace")
        self.kernel = ""
        self.reports: dict[str, list[dict[str, Any]]] = {}
        share = directory / "share"
        reports = share / boot.REPORTS
        for line in reports.read_text().splitlines() if reports.exists() else ():
            data = json.loads(line)
            self.reports.setdefault(data["nodeid"], []).append(data)
        if (share / "status").exists():
            seconds = (share / "status").stat().st_mtime - (share / "command").stat().st_mtime
            self.kernel = f"{(share / boot.RELEASE).read_text().strip()}, up for {seconds:.0f} s"


def _worker(config: pytest.Config) -> str:
    return str(getattr(config, "workerinput", {}).get("workerid", ""))


def pytest_configure(config: pytest.Config) -> None:
    """Record the reports, in a boot. Outside, make a directory for one; the workers find it in the environment."""
    if boot.is_running():
        config.pluginmanager.register(Recorder(config, boot.INSIDE / boot.REPORTS))
    elif not _worker(config):
        directory = tempfile.mkdtemp(prefix="stock-kernel-")
        config.add_cleanup(lambda: shutil.rmtree(directory))
        os.environ[DIRECTORY] = directory


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests that the running kernel cannot serve last, and leave some variants of them to --faults."""
    if boot.is_running():
        return
    for item in items:
        if any(item.get_closest_marker(feature) and not has(feature) for feature in FEATURES):
            item.stash[ELSEWHERE] = True
    items.sort(key=lambda item: ELSEWHERE in item.stash)
    there = [item for item in items if ELSEWHERE in item.stash]
    if len(there) > MANY and not config.getoption("--faults", default=False):
        left_out = _others_than_a_sample(there)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))


def _others_than_a_sample(items: list[pytest.Item]) -> set[pytest.Item]:
    """Return the variants of each test beyond VARIANTS of them, at random, but the same in all of pytest's workers."""
    chance = random.Random(os.environ[DIRECTORY])
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return {item for variants in tests.values() for item in chance.sample(variants, max(len(variants) - VARIANTS, 0))}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Boot for them, in the background."""
    node_ids = [item.nodeid for item in session.items if ELSEWHERE in item.stash]
    if not node_ids or session.config.option.collectonly or _worker(session.config) not in ("", FIRST_WORKER):
        return
    directory = Path(os.environ[DIRECTORY])
    share = directory / "share"
    share.mkdir()
    kernel = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "tests.kernel"]
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", __name__, *node_ids]
    faults = session.config.getoption("--faults", default=False)
    tests += ["--faults"] if faults else []
    with (directory / "lock").open("w") as lock, (directory / "output").open("wb") as output:
        # free again when the last process that has it open has ended
        fcntl.flock(lock, fcntl.LOCK_EX)
        session.config.stash[BOOT] = subprocess.Popen(
            [*kernel, "--share", str(share), "--limit", str(FAULTS_LIMIT if faults else LIMIT), *tests], cwd=ROOT, pass_fds=[lock.fileno()],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Report one of those tests."""
    if ELSEWHERE not in item.stash:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item) -> list[pytest.TestReport]:
    stash = item.config.stash
    if TOLD not in stash:
        stash[TOLD] = Told(Path(os.environ[DIRECTORY]))
    told = stash[TOLD]
    reports: list[pytest.TestReport] = []
    for data in told.reports.get(item.nodeid, ()):
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        report.user_properties.append(("kernel", told.kernel))
        if isinstance(report.longrepr, list):  # a skip's place and reason, which JSON made from a tuple
            report.longrepr = tuple(report.longrepr)
        reports.append(report)
    if not reports or reports[-1].when != "teardown":
        words = f"the stock kernel's pytest did not come to this test's end\n{told.words}"
        told.words = ""  # once is enough
        reports.append(pytest.TestReport(item.nodeid, item.location, {}, "failed", words, "call"))
    return reports


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Wait: another worker may still read this one's boot."""
    process = session.config.stash.get(BOOT, None)
    if process is not None:
        if exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR):
            process.terminate()
        process.wait()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Report how many tests ran there, and for how long."""
    ended = [
        dict(report.user_properties).get("kernel", "")
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"
    ]
    for kernel, number in Counter(ended).items():
        if kernel:
            terminalreporter.write_line(f"{number} of {len(ended)} tests ran on Linux {kernel}")


class Recorder:
    """A recorder in the boot: it writes every report at once, since the machine may stop under the tests."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config = config
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Append one line."""
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        with self.path.open("a") as file:
            file.write(json.dumps(data) + "\n")
