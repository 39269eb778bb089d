"""The duty dhcp: the daemon of the dhcp plugin in the duties process, and beside a daemon that runs already."""

from __future__ import annotations

import pytest

from shared.agent import settings
from tests.agent.duties import Duties
from tests.pretend import PretendHost, until
from tests.system.dhcp_node import Node
from tests.system.pod_network import CNITOOL, CODE


@pytest.fixture
def node(host: PretendHost) -> Node:
    return Node(host)


def test_leases_are_kept_beside_the_other_duties(node: Node) -> None:
    """The next process of the duties renews the lease of the one before, and releases it at DEL."""
    node.serve_lan()
    duties = Duties(node.host, dhcp=True, metrics="")
    duties.await_line("dhcp: serving /run/cni/dhcp.sock")
    node.add("a")
    discovers, before = node.heard("DHCPDISCOVER"), node.heard("DHCPACK")
    assert node.check("a") == ""
    assert (node.host.root / "run/cni/dhcp.sock").stat().st_mode & 0o777 == 0o600
    assert duties.end() == 0
    assert "does not run" in node.check("a")
    duties = Duties(node.host, dhcp=True, metrics="")
    until(lambda: node.heard("DHCPACK") > before, duties.require)
    assert node.heard("DHCPDISCOVER") == discovers and node.check("a") == ""
    node.delete("a")
    until(lambda: node.leases() == set(), duties.require)
    assert duties.end() == 0
    assert not [line for line in duties.said() if "unexpected" in line or "heal" in line]


def test_off_by_default() -> None:
    assert not settings.parse({}).dhcp
    assert settings.parse({"heal": False, "collect": False, "metrics": "", "dhcp": True}).has_duties


def test_another_daemon_is_left_alone(node: Node) -> None:
    """The duty says so once, and begins when that daemon has ended."""
    node.start()
    fast = CODE.replace("sys.exit(run", "import shared.cli.agent.duties as d; d.PAUSE_SECONDS = 0.1; sys.exit(run")
    duties = Duties(node.host, *CNITOOL[:-1], fast, "agent", "run", heal=False, collect=False, dhcp=True, metrics="")
    duties.await_line("dhcp: another dhcp daemon holds /var/lib/cni/dhcp/lock")
    assert node.call("STATUS", "").status == 0
    node.stop()
    duties.await_line("dhcp: serving")
    assert node.call("STATUS", "").status == 0
    assert duties.end() == 0
    assert len(duties.said()) == 2


def test_without_the_library(node: Node) -> None:
    hidden = "import sys; sys.modules['pyroute2'] = None; " + CODE
    duties = Duties(node.host, *CNITOOL[:-1], hidden, "agent", "run", dhcp=True, metrics="")
    duties.await_line("no dhcp", "install.sh --with-tools")
    duties.require()
    assert duties.end() == 0
