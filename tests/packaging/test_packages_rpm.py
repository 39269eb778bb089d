"""The rpm packages, by the machine's rpm in the root of a Debian host: there is no Fedora or RHEL to be had.

Debian's rpm has no database of the dependencies, hence --nodeps. The scripts run in the host's root and namespaces.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.releases import BRIDGE, NEWER, PackageNode, newer
from tests.systems import SystemHost

__all__ = ["newer"]
pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.slow]
BIN = "/usr/libexec/cni"
THIS = ("pycni-0*.x86_64.rpm", "pycni-tools-*.noarch.rpm")
NEXT = ("pycni-9*.x86_64.rpm", "pycni-tools-*.noarch.rpm")


class RpmNode(PackageNode):
    """A host of Debian 13, and the database of its packages."""

    database: Path

    def rpm(self, *words: str, check: bool = True) -> str:
        """Run rpm on the host's root, in its namespaces but the one of mounts, and return its output."""
        enter = ["nsenter", "--target", self.host.first_pid, "--net", "--uts", "--pid", "--"]
        # rpm resolves the root before it looks for its database, which is therefore in a directory of the machine.
        options = ["--root", f"/proc/{self.host.first_pid}/root", "--dbpath", str(self.database)]
        done = subprocess.run([*enter, "rpm", *options, *words], capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def files(self, directory: Path, patterns: tuple[str, ...]) -> list[str]:
        """Return the paths of packages on the machine."""
        return [str(next(directory.glob(pattern))) for pattern in patterns]


@pytest.fixture
def node(artefacts: Path, newer: Path, tmp_path: Path) -> Iterator[RpmNode]:
    with SystemHost("trixie") as host:
        node = RpmNode(host, BIN, artefacts, newer)
        node.database = tmp_path
        yield node


def test_upgrade_rollback_and_removal(node: RpmNode) -> None:
    """No call fails meanwhile, the executables are the package's own, and nothing is left but the state."""
    before = node.host.files()
    node.rpm("--install", "--nodeps", *node.files(node.this, THIS))
    first = node.version()
    assert node.rpm("--verify", "--nodeps", "pycni", "pycni-tools") == ""
    assert node.rpm("--query", "--file", f"{BIN}/bridge").startswith("pycni-0")
    settings = node.host.root / "etc/cni/pycni-agent.json"
    settings.write_text('{"workers": 3}\n')
    pod = node.netns("pod")
    assert node.call("ADD", BRIDGE, "c1", pod) == []
    with node.load():
        node.rpm("--upgrade", "--nodeps", *node.files(node.newer, NEXT))
        assert node.version() == NEWER
        # The former release's files are deleted before the script reads the source.
        assert not node.has_removed()
        node.rpm("--upgrade", "--nodeps", "--oldpackage", *node.files(node.this, THIS))
        assert node.version() == first and node.has_removed()
    assert settings.read_text() == '{"workers": 3}\n'
    node.rpm("--erase", "pycni-tools", "pycni")
    assert node.pings(pod)
    # rpm makes a lock at the path of its database in the root, too. Other systems have the directory of licences.
    state = ("/var/lib/cni", "/tmp/", "/run/", "/etc/cni")
    after = node.host.files()
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path for path in changed if not path.startswith(state)} <= {"/tmp", "/var/lib", "/usr/share/licenses"}
    # rpm keeps settings that somebody has changed.
    assert [path for path in after if path.startswith("/etc/cni/")] == ["/etc/cni/pycni-agent.json.rpmsave"]


def test_dependencies(node: RpmNode) -> None:
    """Nothing but the words that distributions with rpm know."""
    refused = node.rpm("--install", "--test", *node.files(node.this, THIS[:1]), check=False)
    needed = {line.split(" is needed")[0].strip() for line in refused.splitlines() if "is needed" in line}
    assert needed == {"python3 >= 3.9", "bash", "coreutils", "util-linux"}
