"""dhcp: leases of a real server, as long as the pod lives, through restarts, refusals and silence."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.pretend import PretendHost, run_installer, until
from tests.system.dhcp_node import Node
from tests.system.pod_network import CNITOOL, CONF_DIR

ROUTER = "--dhcp-option=option:router,10.9.0.1"
# A lease is renewed after a second, and rebound after four if its server is silent.
SOON = ("--dhcp-option-force=option:T1,1", "--dhcp-option-force=option:T2,4")

# Listens at /run/s, and becomes the program in its arguments, as systemd does for a socket unit.
ACTIVATION = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/s")
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
"""


def with_ipam(**keys: Any) -> dict[str, Any]:
    return {"ipam": {"type": "dhcp", **keys}}


# The LAN is a VLAN of the bridge, which the host itself is not in.
VLAN = """
ip link set br0 type bridge vlan_filtering 1
bridge vlan add dev uplink vid 10 pvid untagged
bridge vlan del dev uplink vid 1
"""


def test_a_pod_gets_a_lease(node: Node) -> None:
    """Address, routes, MTU and DNS settings of the server; a CHECK that agrees; a RELEASE at DEL."""
    node.serve_lan(
        ROUTER, "--dhcp-option=option:dns-server,10.9.0.53,10.9.0.54", "--dhcp-option=option:domain-name,lan.example",
        "--dhcp-option=option:domain-search,a.example,b.a.example", "--dhcp-option=option:mtu,1400",
    )  # fmt: skip
    node.start()
    result = node.add("a")
    (address,) = node.leases()
    assert result["ips"] == [{"address": f"{address}/24", "gateway": "10.9.0.1", "interface": 2}]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]
    assert result["dns"] == {
        "nameservers": ["10.9.0.53", "10.9.0.54"], "domain": "lan.example", "search": ["a.example", "b.a.example"],
    }  # fmt: skip
    assert [one.get("mtu") for one in result["interfaces"]] == [1500, 1500, 1400]
    assert node.on_link("a") == {f"{address}/24"}
    assert node.routes("a") == {("default", "10.9.0.1")}
    assert node.pings("a", "10.9.0.1")
    assert node.check("a") == ""
    node.delete("a")
    node.delete("a")
    until(lambda: node.leases() == set())
    assert node.heard("DHCPRELEASE") == 1
    node.await_log("released to 10.9.0.1 through eth0")
    assert node.records() == []


def test_routes_of_the_server(node: Node) -> None:
    """Option 121 excludes 3 and 33; the router 0.0.0.0 means the link; `priority` is the routes' metric."""
    node.serve_lan(
        ROUTER, "--dhcp-option=121,10.50.0.0/16,10.9.0.2,10.60.0.0/16,0.0.0.0", "--dhcp-option=33,10.70.0.0,10.9.0.3"
    )
    node.start()
    result = node.add("a", with_ipam(priority=77))
    assert node.routes("a") == {("10.50.0.0/16", "10.9.0.2"), ("10.60.0.0/16", None)}
    assert {route["priority"] for route in result["routes"]} == {77}
    assert "gateway" not in result["ips"][0]
    node.serve_lan(ROUTER, "--dhcp-option=33,10.70.0.0,10.9.0.3")
    node.add("b")
    assert node.routes("b") == {("default", "10.9.0.1"), ("10.0.0.0/8", "10.9.0.3")}


def test_the_default_route_can_be_suppressed(node: Node) -> None:
    """Both ways: the gateway is suppressed; the options that a server sends unasked are not used."""
    node.serve_lan("--dhcp-option-force=option:router,10.9.0.1", "--dhcp-option=33,10.70.0.0,10.9.0.3")
    node.start()
    for pod, keys in (
        ("a", {"suppress": ["gateway"]}),
        ("b", {"request": [{"skipDefault": True, "option": "static-routes"}]}),
    ):
        result = node.add(pod, with_ipam(**keys))
        assert node.routes(pod) == {("10.0.0.0/8", "10.9.0.3")}
        assert "gateway" not in result["ips"][0]


def test_what_a_client_tells_the_server(node: Node) -> None:
    """Option 61 as the reference sends it; options by name and number, also from CNI_ARGS; BROADCAST on demand."""
    node.serve_lan()
    node.start()
    provide = [{"option": "host-name", "fromArg": "K8S_POD_NAME"}, {"option": "60", "value": "pods"}]
    node.add("a", with_ipam(provide=provide, broadcast=True), args="IgnoreUnknown=1;K8S_POD_NAME=web-0")
    log = node.server_log.read_text()
    assert "client provides name: web-0" in log and "vendor class: pods" in log
    assert "broadcast response" in log
    (line,) = (node.host.root / "run/lan.leases").read_text().splitlines()
    assert line.split()[3:] == ["web-0", "00:" + b"a/net/eth0".hex(":")]
    node.delete("a")
    node.add("b", with_ipam(clientId="mac"))
    (line,) = (node.host.root / "run/lan.leases").read_text().splitlines()
    assert line.split()[4] == "01:" + node.results["b"]["interfaces"][2]["mac"]


def test_no_server_answers(node: Node) -> None:
    """The error has the numbers of messages, and comes within the runtime's time. Nothing is left."""
    node.start("-resendtimeout", "2s")
    answer = node.refused("a", 11, r"\d DISCOVERs sent, 0 replies")
    assert "no lease on link eth0 within 2 seconds" in answer.json["msg"]
    assert node.records() == []


def test_without_the_daemon(node: Node) -> None:
    """ADD and CHECK fail, STATUS has code 50, DEL and GC succeed."""
    node.refused("a", 999, "the dhcp daemon does not run at /run/cni/dhcp.sock: the socket does not exist")
    node.results["a"] = {"cniVersion": "1.1.0", "ips": []}
    assert "does not run" in node.check("a")
    assert node.call("STATUS", "").code == 50
    node.delete("a")
    node.collect()


def test_a_lease_survives_restarts(node: Node) -> None:
    """The next daemon renews it, after SIGTERM and SIGKILL. It sends no DISCOVER."""
    node.serve_lan(ROUTER)
    node.start()
    node.add("a")
    discovers = node.heard("DHCPDISCOVER")
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = node.heard("DHCPACK")
        node.stop(number)
        assert "does not run" in node.check("a")
        node.start()
        until(lambda: node.heard("DHCPACK") > before)  # noqa: B023  (called here)
        assert node.check("a") == ""
    assert node.heard("DHCPDISCOVER") == discovers
    node.delete("a")
    until(lambda: node.leases() == set())


def test_a_lease_is_renewed(node: Node) -> None:
    """It is renewed at T1, again and again, without a DISCOVER."""
    node.serve_lan(*SOON)
    node.start()
    node.add("a")
    discovers = node.heard("DHCPDISCOVER")
    until(lambda: node.heard("DHCPREQUEST") >= 3)
    assert node.heard("DHCPDISCOVER") == discovers
    assert node.check("a") == ""


def test_a_refused_lease_leaves_the_link(node: Node) -> None:
    """NAK: the server has other addresses now. The new one is on the link, and CHECK tells the difference."""
    node.serve_lan(ROUTER, *SOON)
    node.start()
    result = node.add("a")
    old = result["ips"][0]["address"]
    node.silence()
    (node.host.root / "run/lan.leases").unlink()
    node.serve_lan(ROUTER, addresses="10.9.0.100,static")  # no address for this client
    until(lambda: node.on_link("a") == set())
    assert "was refused by the server (NAK)" in node.check("a")
    node.serve_lan(ROUTER, addresses="10.9.0.100,10.9.0.110")
    until(lambda: node.on_link("a") not in (set(), {old}))
    (new,) = node.on_link("a")
    assert new.startswith("10.9.0.1") and node.routes("a") == {("default", "10.9.0.1")}
    assert f"the server leases {new} now, and ADD's result has {old}" in node.check("a")
    node.await_log("was refused by the server (NAK)")
    node.delete("a")
    until(lambda: node.leases() == set())


def test_a_delete_without_the_daemon_is_made_up_for(node: Node) -> None:
    """DEL, and GC, succeed; the next daemon releases the lease, though the link is gone."""
    node.serve_lan()
    node.delete_without_daemon(leases=2)


def test_a_delete_of_a_living_pod_is_made_up_for(node: Node) -> None:
    """The next daemon takes the address off the link, then releases the lease."""
    node.serve_lan()
    node.start()
    node.netns("a")
    node.host.run(
        "ip", "link", "add", "port", "up", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", "a"
    )
    result = node.add("a", {"type": "dhcp"})
    node.host.run("ip", "-n", "a", "address", "add", result["ips"][0]["address"], "dev", "eth0")
    node.stop()
    node.delete("a", {"type": "dhcp"})
    node.start()
    until(lambda: node.leases() == set())
    assert node.on_link("a") == set()


def test_a_pod_that_dies_without_delete(node: Node) -> None:
    """Its lease is released, through its link, which lives as long as the daemon needs it."""
    node.serve_lan()
    node.start()
    node.add("a")
    node.kill("a")
    until(lambda: node.leases() == set())
    node.await_log("the pod is gone without a DEL")
    until(lambda: node.records() == [])


def test_a_link_that_is_deleted(node: Node) -> None:
    """The lease is released through the bridge."""
    node.serve_lan()
    node.start()
    node.add("a")
    node.host.run("ip", "-n", "a", "link", "delete", "eth0")
    until(lambda: node.leases() == set())


def test_garbage_collection(node: Node) -> None:
    """GC releases the leases that are not valid, and no others."""
    node.serve_lan()
    node.start()
    kept = node.add("a")["ips"][0]["address"].partition("/")[0]
    node.add("b")
    node.collect("a")
    until(lambda: node.leases() == {kept})
    assert node.check("a") == ""


def test_a_runtime_that_gives_up(node: Node) -> None:
    """The daemon ends the ADD of a killed plugin, and keeps nothing."""
    node.start()
    node.begin_add("a").kill()
    until(lambda: node.records() == [])


def test_the_reference_plugin_learns_whose_daemon_it_is(node: Node, reference_bin: str) -> None:
    node.start()
    answer = node.call("ADD", "a", {"type": "dhcp", "cniVersion": "1.0.0"}, bin_dir=reference_bin)
    assert "This dhcp daemon is pycni's" in answer.json["msg"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"daemonSocketPath": "/" + "x" * 120}, "ipam.daemonSocketPath"),
        ({"provide": [{"option": "nonsense", "value": "1"}]}, r"ipam.provide\[0\].option"),
        ({"provide": [{"option": "53", "value": "1"}]}, r"ipam.provide\[0\].option.* belongs to the protocol"),
        ({"provide": [{"option": 12, "value": "x" * 256}]}, r"ipam.provide\[0\].* exceeds 255 bytes"),
        ({"request": [{"option": "255"}]}, r"ipam.request\[0\].option"),
        ({"suppress": ["routes"]}, r"ipam.suppress\[0\]"),
    ],
)
def test_keys_are_validated(node: Node, keys: dict[str, Any], words: str) -> None:
    node.refused("a", 7, words, with_ipam(**keys))


def test_a_lease_expires(node: Node) -> None:
    """Address and routes leave the link, CHECK has the numbers of messages. Both come back with the server."""
    node.serve_short()
    node.start()
    address = node.add("a")["ips"][0]["address"]
    assert node.check("a") == ""
    node.silence()
    until(lambda: node.on_link("a") == set())
    assert node.routes("a") == set()
    assert re.search(r"the lease of [\d.]+ expired; since then .*\d DISCOVERs? sent", node.check("a"))
    node.serve_short()
    until(lambda: node.on_link("a") == {address})
    assert node.check("a") == "" and node.routes("a") == {("default", "10.9.0.1")}


def test_an_expired_lease_of_a_daemon_that_was_down(node: Node) -> None:
    node.serve_short()
    node.start()
    node.add("a")
    node.stop()
    node.silence()
    until(lambda: node.seconds_left() < 0)
    assert node.on_link("a") != set()
    node.start()
    until(lambda: node.on_link("a") == set())


def test_a_pod_that_dies_without_a_lease(node: Node) -> None:
    """The daemon lets go of its namespace, though the lease expired before."""
    node.serve_short()
    node.start()
    node.add("a")
    node.silence()
    until(lambda: node.on_link("a") == set())
    node.kill("a")
    until(lambda: node.records() == [])


def test_a_daemon_that_dies_during_an_add(node: Node) -> None:
    """The next daemon asks for no lease that nobody waits for."""
    node.start()
    plugin = node.begin_add("a")
    node.stop(signal.SIGKILL)
    plugin.kill()
    node.serve_lan()
    node.start()
    until(lambda: node.records() == [])
    assert node.heard("DHCPDISCOVER") == 0


def test_two_servers(node: Node) -> None:
    """A pod gets its lease of one of them, and the other one does not disturb the renewal."""
    node.serve_lan(ROUTER, *SOON)
    node.serve_beside("10.9.0.2", "10.9.0.100,10.9.0.110", *SOON)
    node.start()
    address = node.add("a")["ips"][0]["address"]
    until(lambda: node.heard("DHCPACK") >= 3)
    assert node.on_link("a") == {address}
    assert node.check("a") == ""


def test_a_macvlan_link(node: Node) -> None:
    """The plugin is called for any link; without the daemon's help, the lease leaves through the link's master."""
    node.serve_lan()
    node.start()
    node.netns("a")
    node.host.run("ip", "link", "add", "eth0", "netns", "a", "link", "br0", "type", "macvlan", "mode", "bridge")
    node.add("a", {"type": "dhcp"})
    assert node.check("a", {"type": "dhcp"}) == ""
    node.host.run("ip", "-n", "a", "link", "delete", "eth0")
    until(lambda: node.leases() == set())
    node.await_log("released to 10.9.0.1 through br0")


def test_the_command_of_the_reference(tmp_path: Path) -> None:
    """`dhcp daemon` serves the socket that systemd passes, and ends with its pid file."""
    assert run_installer(tmp_path).returncode == 0
    (tmp_path / "lib/tools").symlink_to(ROOT / ".venv")
    with PretendHost(tmp_path / "bin") as host:
        daemon = host.popen("python3", "-c", ACTIVATION, f"{tmp_path}/bin/dhcp", "daemon", "-pidfile=/run/dhcp.pid")
        until((host.root / "run/dhcp.pid").exists)
        config = {"cniVersion": "1.1.0", "name": "net", "type": "dhcp", "ipam": {"daemonSocketPath": "/run/s"}}
        assert host.cni("dhcp", "STATUS", config).status == 0
        daemon.terminate()
        assert daemon.wait(30) == 0
        assert not (host.root / "run/dhcp.pid").exists()
        done = host.run(f"{tmp_path}/bin/dhcp", "daemons", check=False)
        assert done.returncode == 2 and "the only one is `dhcp daemon`" in done.stderr


def test_doctor_misses_the_daemon(node: Node) -> None:
    network = {"cniVersion": "1.0.0", "name": "net", "plugins": [node.config]}
    node.host.run("mkdir", "-p", CONF_DIR)
    node.host.run("tee", f"{CONF_DIR}/10-net.conflist", input=json.dumps(network))

    def found() -> list[str]:
        done = node.host.run(*CNITOOL, "doctor", "--json", "--bin-dir", node.host.bin_dir, check=False)
        findings = json.loads(done.stdout)["findings"]
        return [one["what"] for one in findings if one["check"] == "dhcp" and one["where"].endswith("10-net.conflist")]

    (missing,) = found()
    assert "does not answer at /run/cni/dhcp.sock: No such file or directory" in missing
    node.start()
    assert found() == []


def test_one_daemon_only(node: Node) -> None:
    node.start()
    with pytest.raises(AssertionError, match="another dhcp daemon holds"):
        node.start()


@pytest.mark.kernel_vlan
def test_a_bridge_in_another_vlan_is_no_way_to_the_server(node: Node) -> None:
    """A RELEASE through it would reach another network. The lease stays until a pod's link leads to the server."""
    node.host.run("sh", "-ec", VLAN)
    node.serve_lan(ROUTER)
    node.start()
    node.config["vlan"] = 10
    node.add("a")
    node.stop()
    node.delete("a")
    node.start()
    node.await_log("cannot be released now: no link leads to its server")
    assert len(node.leases()) == 1 and len(node.records()) == 1
    assert "released to" not in node.log.read_text()


def test_a_link_whose_state_stays_unknown(node: Node) -> None:
    """It has carrier, and the kernel never says `up`, as for links of ipvlan. The daemon sends its questions there."""
    node.start("-resendtimeout", "1s")
    node.netns("a")
    node.host.run("ip", "-n", "a", "link", "add", "eth0", "type", "vxlan", "id", "5", "dstport", "4789")
    answer = node.call("ADD", "a", {"type": "dhcp"})
    assert answer.code == 11 and re.search(r"\d DISCOVERs? sent", answer.json["msg"]), answer


def test_a_lease_is_rebound(node: Node) -> None:
    """At T2 any server may renew it: here one with the leases of the first, under another address."""
    node.serve_lan(ROUTER, *SOON)
    node.start()
    address = node.add("a")["ips"][0]["address"]
    discovers = node.heard("DHCPDISCOVER")
    node.silence()
    node.host.run("ip", "-n", "lan", "address", "del", "10.9.0.1/24", "dev", "eth0")
    node.host.run("ip", "-n", "lan", "address", "add", "10.9.0.3/24", "dev", "eth0")
    before = node.heard("DHCPACK")
    node.serve_lan(ROUTER, *SOON)
    until(lambda: node.heard("DHCPACK") > before)
    assert node.heard("DHCPDISCOVER") == discovers
    assert node.on_link("a") == {address} and node.check("a") == ""
    node.delete("a")
    until(lambda: node.leases() == set())


def test_another_implementation_of_the_server(node: Node) -> None:
    """Kea's leases are renewed, expire without it, and are released."""
    node.serve_kea(4)
    node.start()
    address = node.add("a")["ips"][0]["address"]
    until(lambda: node.kea_heard("DHCPREQUEST") >= 3)
    assert node.kea_heard("DHCPDISCOVER") == 1
    assert node.on_link("a") == {address} and node.check("a") == ""
    node.silence()
    until(lambda: node.on_link("a") == set())
    node.serve_kea(4)
    until(lambda: node.on_link("a") == {address})
    assert node.routes("a") == {("default", "10.9.0.1")}
    node.delete("a")
    until(lambda: node.kea_heard("DHCPRELEASE") == 1)
