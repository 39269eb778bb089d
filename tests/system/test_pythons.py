"""Every supported Python of this machine runs the unit tests and one life of a pod."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.pretend import PretendHost
from tests.pythons import found

PYTHONS = found()
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
# Tests of the tree's words, documents and mistakes: they say the same with every Python.
OF_THE_TREE = ("test_architecture.py", "test_documents.py", "test_mutants.py", "test_prose.py")
BASE: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net"}
LOOPBACK = BASE | {"type": "loopback"}
BRIDGE = BASE | {
    "type": "bridge",
    "isGateway": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.10.0.0/24"}], [{"subnet": "fd00:10::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}


def sampled(versions: Iterable[str]) -> list[Any]:
    """Return test parameters: the oldest and the newest Python are for every run, the others for --faults."""
    known = list(versions)
    ends = (known[0], known[-1]) if known else ()
    return [one if one in ends else pytest.param(one, marks=pytest.mark.faults) for one in known]


# The Python that runs this has the unit tests in the same session.
@pytest.mark.slow
@pytest.mark.parametrize("version", sampled(version for version in PYTHONS if version != OWN))
def test_unit_tests(version: str) -> None:
    python = ROOT / f".venv-{version}" / "bin" / "python"
    assert python.exists(), f"no environment for Python {version} ({PYTHONS[version]}): tests/run makes it"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    ignored = (f"--ignore=tests/unit/{name}" for name in OF_THE_TREE)
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "--durations=3", "tests/unit", *ignored],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    reported = subprocess.check_output([python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], text=True)
    assert reported.strip() == version


@pytest.mark.parametrize("version", PYTHONS)
def test_life_of_a_pod(version: str, tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    done = subprocess.run(
        [ROOT / "install.sh", "--python", PYTHONS[version], "--bin-dir", bin_dir, "--lib-dir", tmp_path / "lib"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    interpreter = (bin_dir / "bridge").read_text().split()[0].removeprefix("#!")
    with PretendHost(bin_dir) as host:
        ask = "import sys; print(*sys.version_info[:2], sep='.')"
        assert host.run(interpreter, "-I", "-S", "-c", ask).stdout.strip() == version
        before = host.snapshot()
        netns = host.netns("pod")
        loopback = host.cni("loopback", "ADD", LOOPBACK, netns=netns, ifname="lo")
        assert loopback.status == 0, loopback.stdout
        added = host.cni("bridge", "ADD", BRIDGE, netns=netns)
        assert added.status == 0, added.stdout
        for gateway in ("127.0.0.1", "10.10.0.1", "fd00:10::1"):
            host.run("ip", "netns", "exec", "pod", "ping", "-n", "-q", "-c", "1", "-w", "10", gateway)
        attached = BRIDGE | {"prevResult": added.json}
        checked = host.cni("bridge", "CHECK", attached, netns=netns)
        assert (checked.status, checked.stdout) == (0, "")
        for _ in range(2):
            deleted = host.cni("bridge", "DEL", attached, netns=netns)
            assert (deleted.status, deleted.stdout) == (0, "")
        down = host.cni("loopback", "DEL", LOOPBACK, netns=netns, ifname="lo")
        assert (down.status, down.stdout) == (0, "")
        host.drop_netns("pod")
        after = host.snapshot()
        assert set(after["host"]["links"]) - set(before["host"]["links"]) == {"cni0"}
        assert [name for name in after["files"] if "/10." in name or "/fd" in name] == []
