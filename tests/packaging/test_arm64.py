"""The bundle for arm64, installed by its own programs on a machine of that kind with nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.executables import PLUGINS
from tests.packaging.bundles import unpack
from tests.packaging.emulated import make_root, run
from tests.packaging.test_bundle import IMPORTS

BASH, INSTALL = "/bundle/programs/bash", "/bundle/install"


@pytest.fixture(scope="module")
def root(artefacts_of_arm64: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the root with the suite installed; at the end it is uninstalled."""
    directory = make_root(tmp_path_factory.mktemp("arm64") / "root")
    unpack(artefacts_of_arm64, "arm64", directory).rename(directory / "bundle")
    done = run(directory, BASH, INSTALL, "--agent", "--no-units")
    assert done.returncode == 0, done.stdout + done.stderr
    yield directory
    done = run(directory, BASH, INSTALL, "--uninstall", "--no-units")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [str(path.relative_to(directory)) for path in directory.glob("opt/cni/*/*")] == []


@pytest.mark.slow
def test_a_plugin_answers_without_an_agent(root: Path) -> None:
    """The compiled launcher finds no agent and executes the bundle's Python."""
    assert (root / "opt/cni/bin/bridge").read_bytes()[:20].endswith(b"\xb7\0")  # ELF's e_machine: aarch64
    done = run(root, "/opt/cni/bin/bridge", text='{"cniVersion": "1.1.0"}', env={"CNI_COMMAND": "VERSION"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]
    assert set(PLUGINS) <= {path.name for path in (root / "opt/cni/bin").iterdir()}


@pytest.mark.slow
def test_an_address_is_leased_and_freed(root: Path) -> None:
    """A pod's links cannot be tried here: qemu hands on neither the requests about namespaces nor those of nf_tables."""
    ipam = {"type": "host-local", "subnet": "192.0.2.0/24"}
    config = json.dumps({"cniVersion": "1.1.0", "name": "n", "type": "host-local", "ipam": ipam})
    env = {"CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/p", "CNI_PATH": "/opt/cni/bin"}
    done = run(root, "/opt/cni/bin/host-local", text=config, env={**env, "CNI_COMMAND": "ADD"})
    (address,) = (one["address"] for one in json.loads(done.stdout)["ips"])
    lease = root / "var/lib/cni/networks/n" / address.removesuffix("/24")
    assert lease.is_file()
    done = run(root, "/opt/cni/bin/host-local", text=config, env={**env, "CNI_COMMAND": "DEL"})
    assert (done.returncode, done.stdout, lease.exists()) == (0, "", False)


@pytest.mark.slow
@pytest.mark.faults
def test_each_module_can_be_imported(root: Path) -> None:
    (tree,) = (path for path in (root / "opt/cni/lib/pycni").glob("*-*") if path.is_dir())
    (libraries,) = (path.parent for path in root.glob("opt/cni/lib/pycni/tools/**/pyroute2"))
    inside = [f"/{path.relative_to(root)}" for path in (tree, libraries)]
    done = run(root, f"{inside[0]}/python/bin/python3", "-ISB", "-c", IMPORTS.format(place=inside[0]), inside[1])
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
