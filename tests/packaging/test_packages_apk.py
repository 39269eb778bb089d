"""The apk packages on a real Alpine, with its apk and its OpenRC.

Alpine's packages of Python, bash and the others are not to be had: one stand-in has the bundle's Python and bash.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.build import interpreter
from tests.conftest import ROOT
from tests.packaging.releases import AGENT_SOCKET, BRIDGE, NEWER, PackageNode, newer
from tests.pretend import until
from tests.systems import SystemHost

__all__ = ["newer"]
pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.slow]
BIN = "/usr/libexec/cni"
OTHER = "/usr/lib/other"
NOTES = ("/lib/apk/db", "/etc/apk/world", "/var/log/apk.log", "/var/cache/apk")
STATE = ("/var/lib/cni", "/run/")


def make_stand_in(artefacts: Path, directory: Path) -> str:
    """Pack the bundle's Python and bash as the packages on which pycni depends; return the package's name."""
    (bundle,) = artefacts.glob("pycni-*-linux-amd64.tar.gz")
    subprocess.run(["tar", "--extract", "--file", bundle, "--directory", directory], check=True)
    (top,) = (path for path in directory.iterdir() if path.is_dir())
    python = top / "python/bin/python3"
    python.write_bytes(interpreter.fill(python.read_bytes(), f"{OTHER}/lib/ld-linux-x86-64.so.2"))
    configuration = {
        "name": "stand-ins", "arch": "amd64", "version": "1.0", "version_schema": "none", "release": "0",
        "maintainer": "x", "description": "Python and bash",
        "provides": ["python3=3.11.2-r0", "bash=5.2-r0", "coreutils=9.8-r0", "util-linux=2.41-r0"],
        "contents": [
            {"src": str(top / "python"), "dst": OTHER, "type": "tree"},
            {"src": str(top / "programs/bash"), "dst": "/bin/bash"},
            {"src": f"{OTHER}/bin/python3", "dst": "/usr/bin/python3", "type": "symlink"},
        ],
    }  # fmt: skip
    (directory / "nfpm.json").write_text(json.dumps(configuration))
    words = f"package --config {directory}/nfpm.json --packager apk --target {directory}/other.apk"
    subprocess.run([f"{ROOT}/build/packaging-env/bin/nfpm", *words.split()], check=True, capture_output=True)
    return "/other/other.apk"


@pytest.fixture
def node(artefacts: Path, newer: Path, tmp_path: Path) -> Iterator[PackageNode]:
    """Return a host of Alpine with the programs that pycni depends on."""
    stand_in = make_stand_in(artefacts, tmp_path)
    with SystemHost("alpine", shares={"/packages": artefacts, "/newer": newer, "/other": tmp_path}) as host:
        node = PackageNode(host, BIN, artefacts, newer)
        missing = apk(node, "add", node.path("pycni_*_x86_64.apk"), check=False)
        assert missing.returncode and "python3>=3.9" in missing.stderr
        apk(node, "add", stand_in)
        yield node


def apk(node: PackageNode, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return node.run("apk", "--no-network", "--allow-untrusted", *words, check=check)


def test_upgrade_rollback_and_removal(node: PackageNode) -> None:
    """No call fails meanwhile, the agent is OpenRC's, and nothing is left but the state."""
    before = node.host.files()
    this = (node.path("pycni_*_x86_64.apk"), node.path("pycni-tools_*.apk"))
    following = (node.newer_path("pycni_*_x86_64.apk"), node.newer_path("pycni-tools_*.apk"))
    apk(node, "add", *this)
    first = node.version()
    assert "no pods" in node.run("cnitool", "show", "--seconds", "0").stdout
    settings = node.host.root / "etc/cni/pycni-agent.json"
    settings.write_text('{"workers": 3}\n')
    node.run("sh", "-ec", "mkdir -p /run/openrc; touch /run/openrc/softlevel; rc-update add pycni-agent default")
    node.run("rc-service", "pycni-agent", "start")
    until((node.host.root / AGENT_SOCKET).exists)
    process = (node.host.root / "run/pycni/lock").read_text()
    pod = node.netns("pod")
    assert node.call("ADD", BRIDGE, "c1", pod) == []
    with node.load():
        apk(node, "add", *following)
        assert node.version() == NEWER and not node.has_removed()
        apk(node, "add", *this)
        assert node.version() == first and node.has_removed()
    node.run("rc-service", "pycni-agent", "reload")
    assert (node.host.root / "run/pycni/lock").read_text() == process
    assert settings.read_text() == '{"workers": 3}\n'
    apk(node, "del", "pycni-tools", "pycni")
    assert not (node.host.root / "run/pycni").exists()
    assert node.pings(pod)
    after = node.host.files()
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    left = {path for path in changed if not path.startswith((*NOTES, *STATE))}
    # apk keeps settings that somebody has changed.
    assert left <= {"/etc/cni", "/etc/cni/pycni-agent.json", "/var/lib", "/etc/runlevels/default"}


def test_order_of_versions(node: PackageNode) -> None:
    """A release is newer than its candidates, and these than what was before them."""
    words = ["0.1.0-r1", "0.2.0_alpha0-r1", "0.2.0_alpha1-r1", "0.2.0_rc1-r1", "0.2.0-r1", "0.2.1_alpha0-r1"]
    for older, later in itertools.pairwise(words):
        assert node.run("apk", "version", "--test", older, later).stdout == "<\n"
