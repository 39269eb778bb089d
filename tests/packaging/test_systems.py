"""Other systems: the suite is installed from its source tree and from the bundle, shows its demo and goes again."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.systems import SYSTEMS, SystemHost

SUCCESS = "SUCCESS: two pods had networks over IPv4 and IPv6, one had a host port, and nothing of them is left."
DEMO_SECONDS = 180  # on a busy machine; precompiling for a new Python is most of it
SOURCE, BUNDLE = "/source", "/bundle"
TOO_OLD = "install.sh: the plugins are installed, the demo needs Python 3.11 or newer\n"
# The directories for executables and code are the administrator's: they stay.
KEPT = {"/opt", "/opt/cni", "/opt/cni/bin", "/opt/cni/lib", "/run/mount"}
# The oldest Python and the newest stable system have these of each run; the machine itself is one more.
BETWEEN = ("bookworm", "forky")


def sampled(names: Iterable[str]) -> list[Any]:
    """Return test parameters: all systems are for --faults, some of them for every run."""
    return [pytest.param(name, marks=pytest.mark.faults) if name in BETWEEN else name for name in names]


# A system with no shell runs the bundle's; the script `install` starts the bundle's bash anyhow.
SHELL = {"bare": (f"{BUNDLE}/programs/busybox", "sh")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tree's files, as a clone has them: no compiled file of this machine's Python is in it."""
    directory = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name)
    return directory


@pytest.fixture(scope="module")
def bundle(artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked bundle."""
    (archive,) = artefacts.glob("pycni-*-linux-amd64.tar.gz")
    directory = tmp_path_factory.mktemp("bundle")
    subprocess.run(["tar", "-C", directory, "-xf", archive], check=True)
    (top,) = directory.iterdir()
    return top


def changes(host: SystemHost, before: dict[str, tuple[object, ...]]) -> set[str]:
    """Return the paths that are new, changed or gone, without KEPT."""
    after = host.files()
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} - KEPT


@pytest.mark.parametrize("system", sampled(name for name, system in SYSTEMS.items() if system.suite))
def test_source(system: str, source: Path) -> None:
    """A system with Python needs nothing else, and on one whose Python is too old the demo says so."""
    with SystemHost(system, shares={SOURCE: source}) as host:
        before = host.files()
        done = host.run(f"{SOURCE}/install.sh", "--demo", check=False, timeout=DEMO_SECONDS)
        if system == "bullseye":
            assert (done.returncode, done.stderr) == (1, TOO_OLD)
        else:
            assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
            assert SUCCESS in done.stdout
        assert "/opt/cni/bin/bridge" in changes(host, before)
        uninstall(host, f"{SOURCE}/install.sh", before=before)


@pytest.mark.parametrize("system", sampled(SYSTEMS))
def test_bundle(system: str, bundle: Path) -> None:
    """The bundle brings all that it needs: Python, programs, libraries and the compiled launcher for the agent."""
    with SystemHost(system, shares={BUNDLE: bundle}) as host:
        if system == "bare":
            for directory in ("etc", "var"):  # the demo cannot pretend new directories in the root
                (host.root / directory).mkdir()
        before = host.files()
        command = (*SHELL.get(system, ()), f"{BUNDLE}/install")
        done = host.run(*command, "--agent", "--demo", check=False, timeout=DEMO_SECONDS)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        assert SUCCESS in done.stdout and "no call found no worker of the agent" in done.stdout
        assert json.loads(host.run("/opt/cni/bin/cnitool", "show", "--json").stdout)
        uninstall(host, *command, before=before)


def uninstall(host: SystemHost, *command: str, before: dict[str, tuple[object, ...]]) -> None:
    """Remove the suite. Nothing of it is left: neither files, nor links."""
    done = host.run(*command, "--uninstall", check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert changes(host, before) == set()
    assert [link["ifname"] for link in host.ip("link")] == ["lo"]
