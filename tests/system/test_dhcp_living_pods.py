"""The dhcp daemon keeps the leases of living pods, through errors, other clocks, and late DELs of predecessors."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import pytest

from tests.pretend import read_line, until
from tests.system.dhcp_node import Node

ROUTER = "--dhcp-option=option:router,10.9.0.1"
SOON = ("--dhcp-option-force=option:T1,1", "--dhcp-option-force=option:T2,4")
LINK = ("ip", "link", "add", "port", "up", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", "a")
SET_BACK = """
import shared.cli.dhcp.client, time
shared.cli.dhcp.client.time = lambda: time.time() - 3600
"""
# While the file exists, each sending and each CHECK fails.
BREAK = """
import os
from shared.cli.dhcp.client import Client
from shared.cli.dhcp.service import Service
def breaking(function):
    def broken(*arguments):
        if os.path.exists("/run/broken"):
            raise OSError(28, "no space") if function.__name__ == "_describe" else RuntimeError("broken")
        return function(*arguments)
    return broken
Client._send_message = breaking(Client._send_message)
Service._describe = breaking(Service._describe)
"""
FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
"""
# Opens connections until its stdin ends.
CROWD = """
import socket, sys
kept = []
for _ in range(64):
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].connect("/run/cni/dhcp.sock")
print("ready", flush=True)
sys.stdin.read()
"""
# Another link with the pod's default route.
OTHER = """
ip -n a link add net2 type veth peer name net3
ip -n a link set net3 up
ip -n a link set net2 up
ip -n a address add 10.77.0.5/24 dev net2
"""
# The work of sbr, by hand.
MOVE = """
ip -n a route add 10.9.0.0/24 dev eth0 src {address} table 100
ip -n a route add default via 10.9.0.1 dev eth0 table 100
ip -n a route del default
ip -n a route del 10.9.0.0/24 dev eth0
ip -n a route add default via 10.77.0.1 dev net2
"""


def address_of(result: dict[str, Any]) -> str:
    return str(result["ips"][0]["address"]).partition("/")[0]


def restart_renewed(node: Node) -> None:
    """Start the daemon, and wait until it has renewed the lease."""
    before = node.heard("DHCPACK")
    node.start()
    until(lambda: node.heard("DHCPACK") > before)


def test_a_mac_that_changed_since_the_add(node: Node) -> None:
    """tuning sets it after the lease; the next daemon goes on with the lease."""
    node.serve_lan()
    node.start()
    result = node.add("a")
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "address", "02:00:00:00:00:77")
    node.stop()
    restart_renewed(node)
    assert node.on_link("a") == {result["ips"][0]["address"]} and node.check("a", {"type": "dhcp"}) == ""
    assert node.heard("DHCPRELEASE") == 0


def test_a_namespace_that_the_daemon_does_not_see(node: Node) -> None:
    """Its lease is kept, and resumed when it is seen; DEL gives it back in any case."""
    node.serve_lan()
    node.start()
    node.add("a")
    node.stop()
    netns = json.loads(node.record().read_text())["netns"]
    node.change_record(netns="/run/elsewhere/a", wasVisible=False)
    node.start()
    node.await_log("/run/elsewhere/a is not visible here; trying again")
    assert "is not visible here" in node.check("a")
    assert node.on_link("a") != set() and node.heard("DHCPRELEASE") == 0
    node.stop()
    node.change_record(netns=netns)
    restart_renewed(node)
    assert node.check("a") == ""
    node.stop()
    node.change_record(netns="/run/elsewhere/a", wasVisible=False)
    node.start()
    node.delete("a")
    until(lambda: node.leases() == set() and node.records() == [])


def test_a_lease_of_another_boot(node: Node) -> None:
    """Its time is unknown; nothing is taken off a link for it."""
    node.serve_lan()
    node.start()
    result = node.add("a")
    node.stop()
    node.change_record(lease={"boot": "another", "obtained": -1e9})
    restart_renewed(node)
    assert node.on_link("a") == {result["ips"][0]["address"]} and node.check("a") == ""
    assert "expired" not in node.log.read_text()


def test_files_that_cannot_be_read_or_removed(node: Node) -> None:
    """The daemon starts, keeps the leases of others, and gives back all but one."""
    node.serve_lan()
    node.start()
    kept = address_of(node.add("a"))
    node.add("b")
    node.stop()
    node.delete("b")
    directory = node.host.root / "var/lib/cni/dhcp"
    (directory / "leases/0.json").symlink_to("0.json")
    (directory / "leases/1.json").mkdir()
    (directory / "released/0.json").mkdir()
    (directory / "released/0.json/full").touch()
    node.start()
    until(lambda: node.leases() == {kept})
    assert node.check("a") == ""


@pytest.mark.parametrize("is_down", [False, True])
def test_a_successor_with_the_same_client_id(node: Node, is_down: bool) -> None:
    """The DEL of the old sandbox comes after the ADD of the new one, whether the daemon runs or not."""
    node.serve_lan()
    node.start()
    fixed = {"ipam": {"type": "dhcp", "clientId": "fixed"}}
    address = address_of(node.add("a", fixed))
    assert address_of(node.add("b", fixed)) == address
    if is_down:
        node.stop()
    node.delete("a", fixed)
    if is_down:
        node.start()
    node.await_log(f"net b eth0: {address} stays leased")
    until(lambda: len(node.records()) == 1)
    assert node.heard("DHCPRELEASE") == 0 and node.leases() == {address}
    assert node.check("b", fixed) == ""
    node.delete("b", fixed)
    until(lambda: node.leases() == set())


def test_a_clock_that_is_set_back(node: Node) -> None:
    node.serve_lan(*SOON)
    node.start(prelude=SET_BACK)
    node.add("a")
    until(lambda: node.heard("DHCPREQUEST") >= 3)
    assert node.check("a") == ""


def test_a_client_that_fails(node: Node) -> None:
    """The lease stays, and another client renews it; a request is answered with the reason."""
    node.serve_lan(*SOON)
    node.start(prelude=BREAK)
    result = node.add("a")
    (node.host.root / "run/broken").touch()
    node.await_log("RuntimeError: broken; trying again as long as link eth0 exists")
    assert "no space" in node.check("a")
    node.await_log("unexpected OSError")
    (node.host.root / "run/broken").unlink()
    before = node.heard("DHCPACK")
    until(lambda: node.heard("DHCPACK") > before)
    assert node.on_link("a") == {result["ips"][0]["address"]} and node.check("a") == ""
    assert node.heard("DHCPRELEASE") == 0


def test_more_connections_than_descriptors(node: Node) -> None:
    """The daemon lives, and serves when they are closed."""
    node.serve_lan()
    node.start(prelude=FEW_FILES)
    crowd = node.host.popen(sys.executable, "-c", CROWD)
    assert read_line(crowd) == b"ready\n"
    node.await_log("no connection can be accepted")
    crowd.kill()
    node.add("a")
    assert node.check("a") == ""


def test_two_adds_of_one_attachment(node: Node) -> None:
    """The end of a killed ADD, which the daemon sees together with the next one, leaves that one's lease alone."""
    node.config["type"] = "dhcp"
    node.start()
    node.netns("a")
    node.host.run(*LINK)
    assert node.daemon
    first = node.begin_add("a")
    node.daemon.send_signal(signal.SIGSTOP)
    first.kill()
    second = node.begin_add("a")
    until(lambda: node.host.run("pgrep", "-cf", "bin/dhcp", check=False).stdout.strip() not in ("", "0"))
    node.daemon.send_signal(signal.SIGCONT)
    node.serve_lan()
    assert second.wait(60) == 0
    assert "no lease" not in node.check("a", {"prevResult": ...}) and len(node.leases()) == 1
    assert node.heard("DHCPRELEASE") == 0


def test_a_lease_that_expires_while_the_link_is_down(node: Node) -> None:
    """Its address leaves the link, CHECK says so, and all comes back with link and server."""
    node.serve_short()
    node.start()
    address = node.add("a")["ips"][0]["address"]
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "down")
    node.silence()
    until(lambda: node.on_link("a") == set())
    assert "expired" in node.check("a")
    node.serve_short()
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "up")
    until(lambda: node.on_link("a") == {address})
    until(lambda: node.routes("a") == {("default", "10.9.0.1")})


def test_an_mtu_too_small_for_ipv6(node: Node) -> None:
    node.serve_lan("--dhcp-option=option:mtu,576")
    node.start()
    result = node.add("a")
    assert [one.get("mtu") for one in result["interfaces"]] == [1500] * 3
    assert node.host.ip("-6", "address", "show", "eth0", netns="a")
    node.await_log("the server's MTU of 576 bytes is not used: IPv6")


def test_routes_that_sbr_moved_come_back_to_its_table(node: Node) -> None:
    """The lease expires and comes back; another link keeps the pod's default route."""
    node.serve_short()
    node.start()
    address = node.add("a")["ips"][0]["address"]
    node.host.run("sh", "-ec", OTHER + MOVE.format(address=address.partition("/")[0]))
    before = sorted(node.host.run("ip", "-4", "-n", "a", "route", "show", "table", "all").stdout.splitlines())
    node.silence()
    until(lambda: node.on_link("a") == set())
    node.serve_short()
    until(lambda: node.on_link("a") == {address})
    until(lambda: ("default", "10.9.0.1") in table(node, "100"))
    assert sorted(node.host.run("ip", "-4", "-n", "a", "route", "show", "table", "all").stdout.splitlines()) == before


def table(node: Node, number: str) -> set[tuple[str, str | None]]:
    return {(one["dst"], one.get("gateway")) for one in node.host.ip("route", "show", "table", number, netns="a")}


def test_a_route_that_changes_alone(node: Node) -> None:
    """The address stays on the link, and with it the pod's own routes."""
    node.serve_lan(ROUTER, *SOON)
    node.start()
    node.add("a")
    node.host.run("ip", "-n", "a", "route", "add", "10.80.0.0/16", "via", "10.9.0.7")
    node.serve_lan(ROUTER, *SOON, "--dhcp-option=33,10.70.0.0,10.9.0.3")
    until(lambda: ("10.0.0.0/8", "10.9.0.3") in node.routes("a"))
    assert node.routes("a") == {("default", "10.9.0.1"), ("10.0.0.0/8", "10.9.0.3"), ("10.80.0.0/16", "10.9.0.7")}


def test_a_default_route_that_another_link_has(node: Node) -> None:
    """A new one of the lease leaves it alone."""
    node.serve_lan("--dhcp-option=3", *SOON)
    node.start()
    node.add("a")
    node.host.run("sh", "-ec", f"{OTHER}\nip -n a route add default via 10.77.0.1 dev net2")
    node.serve_lan(ROUTER, *SOON, "--dhcp-option=33,10.70.0.0,10.9.0.3")
    until(lambda: ("10.0.0.0/8", "10.9.0.3") in node.routes("a"))
    assert node.routes("a") == {("default", "10.77.0.1"), ("10.0.0.0/8", "10.9.0.3")}
