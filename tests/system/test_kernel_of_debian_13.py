"""Linux 6.12, Debian 13's stock kernel: a test of each kind of link and of each packet filter passes on it.

`tests/run --kernel=trixie` runs all system tests there, in hours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.kernel import boot

SAMPLE = (
    "dummy.py::test_the_pod_gets_its_own_addresses",
    "ipvlan.py::test_packets_pass",
    "macvlan.py::test_the_pod_gets_its_own_link",
    "masquerade.py::test_the_outside_sees_the_node",
    "ptp.py::test_both_ends",
    "tap.py::test_result_and_link",
    "vlan.py::test_the_pods_frames_are_in_the_vlan",
    "vrf.py::test_the_interface_keeps_addresses_and_routes_in_its_vrf",
)
LIMIT = 800  # seconds, beside other tests; alone it is a quarter of it

pytestmark = pytest.mark.skipif(boot.is_running(), reason="a boot within a boot")


@pytest.mark.faults
def test_sample(tmp_path: Path) -> None:
    tests = [f"tests/system/test_{name}" for name in SAMPLE]
    pytest_there = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout=600", *tests]
    words = ["--suite", "trixie", "--share", str(tmp_path), "--limit", str(LIMIT), *pytest_there]
    done = subprocess.run([sys.executable, "-m", "tests.kernel", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / boot.RELEASE).read_text().startswith("6.12.")
    reports = [json.loads(line) for line in (tmp_path / boot.REPORTS).read_text().splitlines()]
    passed = {
        report["nodeid"].partition("[")[0]
        for report in reports
        if (report["when"], report["outcome"]) == ("call", "passed")
    }
    assert passed == set(tests)
