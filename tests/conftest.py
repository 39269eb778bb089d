"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.firewalld import Firewalld
from tests.node import Network
from tests.pretend import PretendHost, run_installer

ROOT = Path(__file__).resolve().parent.parent
REFERENCE_BIN = "/usr/lib/cni"
pytest_plugins = ["tests.kernel.plugin", "tests.faults.plugin", "tests.cluster_plugin"]

# A deadline would judge the machine's load; a failing example is printed so that it can be repeated anywhere.
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")


def install(directory: Path, *options: str) -> Path:
    """Install this tree; return the bin directory."""
    done = run_installer(directory, *options)
    if done.returncode:
        pytest.fail(f"install.sh: status {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
    return directory / "bin"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install this tree; return the bin directory."""
    return install(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def installed_with_agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install this tree and its agent; return the bin directory."""
    return install(tmp_path_factory.mktemp("with-agent"), "--agent")


@pytest.fixture
def host(installed: Path) -> Iterator[PretendHost]:
    with PretendHost(installed) as pretend_host:
        yield pretend_host


@pytest.fixture
def node(request: pytest.FixtureRequest, host: PretendHost) -> Any:
    """Return a node of the test module's class `Node`."""
    return request.module.Node(host)


@pytest.fixture
def firewalld(host: PretendHost) -> Firewalld:
    return Firewalld(host)


@pytest.fixture
def net(host: PretendHost) -> Network:
    return Network(host)


@pytest.fixture(scope="session")
def reference_bin() -> str:
    """Return the bin directory of the reference plugins."""
    if not Path(REFERENCE_BIN, "bridge").is_file():
        pytest.fail(f"no reference plugins in {REFERENCE_BIN}: install containernetworking-plugins", pytrace=False)
    return REFERENCE_BIN
