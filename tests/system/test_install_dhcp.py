"""install.sh with --dhcp: the units of the dhcp daemon, the daemon at an upgrade, and the way back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pretend import PretendHost
from tests.system.agent_node import AgentNode
from tests.system.test_install import make_site

UNITS = "etc/systemd/system"
SERVICE, SOCKET = "cni-dhcp.service", "cni-dhcp.socket"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[AgentNode]:
    with PretendHost() as host:
        yield AgentNode(host, make_site(tmp_path))


def units(node: AgentNode) -> set[str]:
    return {path.name for path in (node.host.root / UNITS).iterdir()}


def test_units_come_and_go(node: AgentNode, tmp_path: Path) -> None:
    """Later runs keep them, and restart a daemon that runs."""
    path = node.add_systemd(tmp_path)
    said = node.install("--dhcp", path=path).stdout
    assert "cni-dhcp.socket starts the daemon" in said and "run install.sh --with-tools" in said
    assert node.systemctl_calls() == ["daemon-reload", "daemon-reload", f"enable --now {SOCKET}"]
    assert units(node) == {SERVICE, SOCKET}
    assert f'ExecStart="{node.site.bin}/dhcp" daemon\n' in (node.host.root / UNITS / SERVICE).read_text()

    source = node.site.source / "shared/cli/dhcp" / SERVICE
    source.write_text(source.read_text() + "# changed\n")
    (node.site.lib / "tools").mkdir()
    assert "note" not in node.install(path=path).stdout
    assert node.systemctl_calls() == ["daemon-reload", f"try-restart {SERVICE}"]
    assert (node.host.root / UNITS / SERVICE).read_text().endswith("# changed\n")

    node.install("--no-dhcp", path=path)
    assert node.systemctl_calls() == [f"disable --now {SOCKET} {SERVICE}", "daemon-reload"]
    assert units(node) == set()

    node.install("--dhcp", path=path)
    assert units(node) == {SERVICE, SOCKET} and len(node.systemctl_calls()) == 3
    node.install("--uninstall", path=path)
    assert node.systemctl_calls() == [f"disable --now {SOCKET} {SERVICE}", "daemon-reload"]
    assert units(node) == set()


def test_units_of_somebody_else(node: AgentNode, tmp_path: Path) -> None:
    path = node.add_systemd(tmp_path)
    theirs = node.host.root / UNITS / SOCKET
    theirs.write_text("[Socket]\nListenStream=/run/cni/dhcp.sock\n")
    said = node.install("--dhcp", path=path).stdout
    assert f"/{UNITS}/{SOCKET} is not of this installation and stays" in said
    node.install("--uninstall", path=path)
    assert units(node) == {SOCKET} and node.systemctl_calls() == []


def test_where_no_systemd_runs(node: AgentNode) -> None:
    assert f"start {node.site.bin}/dhcp daemon yourself" in node.install("--dhcp").stdout
    assert units(node) == set()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units(node: AgentNode, tmp_path: Path) -> None:
    """The path of the directory has spaces and percent signs. The compiled launcher runs the daemon, too."""
    node.site.bin = tmp_path / "100%n of it"
    node.install("--dhcp", "--agent", path=node.add_systemd(tmp_path))
    places = [f"/{UNITS}/{name}" for name in (SERVICE, SOCKET)]
    said = node.host.run("systemd-analyze", "verify", *places, check=False)
    assert (said.returncode, said.stderr) == (0, "")
    (node.site.lib / "tools").symlink_to(ROOT / ".venv")
    done = node.host.run(f"{node.site.bin}/dhcp", "daemon", "--help", check=False)
    assert done.returncode == 0 and "-socketpath" in done.stdout
