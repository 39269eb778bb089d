"""Debian 13's containerd 1.7 and runc 1.1 run pods in a root file system of Debian 13, with its Python and nftables."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.clients.container_host import ContainerHost
from tests.clients.test_containerd import (  # noqa: F401 - pytest collects the tests, and the fixtures for them
    Node,
    network,
    node,
    test_a_pod,
    test_a_pod_that_gets_no_network,
    test_bandwidth,
    test_containerd_is_killed,
)
from tests.conftest import ROOT
from tests.systems import SystemHost

SYSTEM = "trixie"
SOURCE = "/source"


class Debian13(SystemHost):
    """A host that also finds the tests' temporary directories, with the plugins and its state."""

    def __init__(self, bin_dir: str | Path) -> None:
        temporary = tempfile.gettempdir()
        super().__init__(SYSTEM, bin_dir, shares={temporary: temporary, SOURCE: ROOT})


class Debian13ContainerHost(ContainerHost, Debian13):
    """The same with a runtime's directories and groups."""


@pytest.fixture(scope="module")
def bin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install this tree on the system, for its Python. Return the bin directory."""
    directory = tmp_path_factory.mktemp(SYSTEM)
    with Debian13("") as host:
        host.run(f"{SOURCE}/install.sh", "--bin-dir", f"{directory}/bin", "--lib-dir", f"{directory}/lib")
    return directory / "bin"


@pytest.fixture
def host_class() -> type[ContainerHost]:
    return Debian13ContainerHost


def test_versions(node: Node) -> None:  # noqa: F811 - the fixture
    assert " 1.7." in node.containerd.command("containerd", "--version")
    assert "runc version 1.1." in node.containerd.command("runc", "--version")
    assert node.host.run("python3", "--version").stdout.startswith("Python 3.13.")
