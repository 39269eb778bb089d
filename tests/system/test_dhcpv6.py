"""dhcp: leases of DHCPv6 beside those of DHCP, with the routes of a router."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest

from tests.dhcp_lan import BESIDE, FAR, IPV6, LEASES, STATELESS_IPV6, relay, serve
from tests.pretend import until
from tests.system.dhcp_node import Node as DhcpNode

ROUTER = "--dhcp-option=option:router,10.9.0.1"
SOON = ("--dhcp-option-force=option:T1,1", "--dhcp-option-force=option:T2,4")

# Counts the attempts to give a stored lease back that have ended.
COUNTED = """
from shared.cli.dhcp.service import Service
give_back = Service._give_back
async def counted(self, *arguments):
    await give_back(self, *arguments)
    with open("/run/tried", "a") as file:
        file.write("x")
Service._give_back = counted
open("/run/tried", "w").close()
"""


class Node(DhcpNode):
    """A node whose pods lease addresses of both families."""

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self.config |= self.ipam()

    @staticmethod
    def ipam(**keys: Any) -> dict[str, Any]:
        """Return the section `ipam` with these keys."""
        return {"ipam": {"type": "dhcp", "dhcpv6": "stateful", **keys}}

    def duid(self) -> str:
        """Return the client's DUID of the only kept lease, as Kea writes it."""
        return bytes.fromhex(json.loads(self.record().read_text())["duid"]).hex(":")

    def default_routes(self, pod: str) -> set[tuple[str, str]]:
        """Return the gateway and the origin of the pod's IPv6 default routes."""
        found = self.host.ip("-6", "route", "show", "default", netns=pod)
        return {(one["gateway"], one["protocol"]) for one in found}

    def router(self) -> str:
        """Return the link-local address of the LAN's router."""
        (shown,) = self.host.ip("-6", "address", "show", "eth0", "scope", "link", netns="lan")
        (address,) = (one["local"] for one in shown["addr_info"] if "local" in one)
        return str(address)


def test_a_pod_gets_leases_of_both_families(node: Node) -> None:
    """One ADD: addresses and DNS settings of both servers, routes of the router, a CHECK that agrees, two RELEASEs."""
    node.serve_lan(ROUTER, "--dhcp-option=option:dns-server,10.9.0.53", *IPV6)
    node.start()
    result = node.add("a")
    ipv4, ipv6 = (ip["address"] for ip in result["ips"])
    assert node.leases() == {ipv4.partition("/")[0], ipv6.partition("/")[0]}
    assert ipv6.startswith("fd09::1") and ipv6.endswith("/128")
    assert "gateway" not in result["ips"][1]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]
    assert result["dns"] == {"nameservers": ["10.9.0.53", "fd09::53"], "search": ["six.example", "b.six.example"]}
    assert (node.on_link("a"), node.on_link("a", 6)) == ({ipv4}, {ipv6})
    until(lambda: node.default_routes("a") == {(node.router(), "ra")})
    assert node.pings("a", "fd09::1")
    assert node.check("a") == ""
    node.delete("a")
    node.delete("a")
    until(lambda: node.leases() == set())
    assert (node.heard("DHCPRELEASE"), node.records()) == (2, [])


def test_ipv6_alone(node: Node) -> None:
    """Without `dhcpv4` no IPv4 server is asked."""
    node.serve_lan(ROUTER, *IPV6)
    node.start()
    result = node.add("a", node.ipam(dhcpv4=False))
    assert {ip["address"] for ip in result["ips"]} == node.on_link("a", 6)
    assert "routes" not in result and node.on_link("a") == set()
    assert node.heard("DHCPDISCOVER") == 0
    assert node.check("a", node.ipam(dhcpv4=False)) == ""
    node.delete("a")
    until(lambda: node.leases() == set() and node.records() == [])


def test_stateless(node: Node) -> None:
    """DNS settings come from the server, the address from the router; there is nothing to renew or to release."""
    node.serve_lan(ROUTER, *STATELESS_IPV6)
    node.start()
    keys = node.ipam(dhcpv6="stateless")
    result = node.add("a", keys)
    assert [ip["address"] for ip in result["ips"]] == list(node.on_link("a"))
    assert result["dns"]["nameservers"][-1] == "fd09::53"
    until(lambda: any(one.startswith("fd09:") and one.endswith("/64") for one in node.on_link("a", 6)))
    until(lambda: node.default_routes("a") == {(node.router(), "ra")})
    assert node.check("a", keys) == ""
    assert len(node.records()) == 1
    node.delete("a", keys)
    until(lambda: node.records() == [])


def test_the_router_gives_no_default_route_if_it_is_suppressed(node: Node) -> None:
    """`priority` is the metric of the router's route, too."""
    node.serve_lan(ROUTER, *IPV6)
    node.start()
    node.add("a", node.ipam(priority=77))
    until(lambda: [one["metric"] for one in node.host.ip("-6", "route", "show", "default", netns="a")] == [77])
    node.add("b", node.ipam(suppress=["gateway"]))
    until(lambda: "fd09::/64" in {one["dst"] for one in node.host.ip("-6", "route", netns="b")})
    assert node.default_routes("b") == set()


def test_no_server_of_dhcpv6(node: Node) -> None:
    """The error says so, and the IPv4 lease is given back."""
    node.serve_lan(ROUTER)
    node.start("-resendtimeout", "2s")
    answer = node.refused("a", 11, r"\d SOLICITs? sent, 0 replies")
    assert "no DHCPv6 lease on link eth0 within 2 seconds" in answer.json["msg"]
    assert (
        "no DHCPv6 answer"
        in node.refused("a", 11, r"\d INFORMATION_REQUESTs? sent", node.ipam(dhcpv6="stateless")).json["msg"]
    )
    until(lambda: node.leases() == set() and node.records() == [])


def test_a_lease_survives_restarts(node: Node) -> None:
    """The next daemon renews it, after SIGTERM and SIGKILL, also when tuning has changed the MAC since. No SOLICIT."""
    node.serve_lan(*IPV6)
    node.start()
    node.add("a")
    solicits = node.heard("DHCPSOLICIT")
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "address", "02:00:00:00:00:77")
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = node.heard("DHCPRENEW")
        node.stop(number)
        node.start()
        until(lambda: node.heard("DHCPRENEW") > before)  # noqa: B023  (called here)
        assert node.check("a", {"type": "dhcp"}) == ""
    assert node.heard("DHCPSOLICIT") == solicits
    node.delete("a")
    until(lambda: node.leases() == set())


def test_a_delete_without_the_daemon_is_made_up_for(node: Node) -> None:
    """DEL, and GC, succeed; the next daemon releases both leases, though the link is gone."""
    node.serve_lan(*IPV6)
    node.delete_without_daemon(leases=4)


def test_a_release_that_is_impossible_for_a_while(node: Node) -> None:
    """The bridge has no IPv6. The daemon tries again and again, and says so once."""
    keys = node.ipam(dhcpv4=False)
    node.serve_lan(*IPV6)
    node.start()
    node.add("a", keys)
    node.add("b", keys)
    node.stop()
    node.host.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/br0/disable_ipv6")
    node.delete("a", keys)
    node.start(prelude=COUNTED)
    until(lambda: len((node.host.root / "run/tried").read_text()) >= 2)
    assert node.log.read_text().count("no RELEASE of ") == 1
    assert len(node.leases()) == 2
    node.host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/br0/disable_ipv6")
    until(lambda: len(node.leases()) == 1)
    until(lambda: len(node.records()) == 1)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_pod_that_is_gone_without_delete(node: Node, is_killed: bool) -> None:
    """Both leases are released, through the pod's link or the bridge."""
    node.serve_lan(*IPV6)
    node.start()
    node.add("a")
    if is_killed:
        node.kill("a")
    else:
        node.host.run("ip", "-n", "a", "link", "delete", "eth0")
    until(lambda: node.leases() == set())
    until(lambda: node.records() == [])


def test_garbage_collection(node: Node) -> None:
    node.serve_lan(*IPV6)
    node.start()
    kept = {ip["address"].partition("/")[0] for ip in node.add("a")["ips"]}
    node.add("b")
    node.collect("a")
    until(lambda: node.leases() == kept)
    assert node.check("a") == ""


def test_a_lease_is_renewed_rebound_and_expires(node: Node) -> None:
    """The address leaves the link, CHECK has the numbers of messages. It comes back with the server."""
    keys = node.ipam(dhcpv4=False)
    node.serve_kea(6)
    node.start()
    address = node.add("a", keys)["ips"][0]["address"]
    until(lambda: node.kea_heard("RENEW") >= 2)
    assert node.on_link("a", 6) == {address} and node.check("a", keys) == ""
    assert node.kea_heard("SOLICIT") == 1
    node.silence()
    until(lambda: node.on_link("a", 6) == set())
    assert re.search(r"the lease of [\w:]+ expired; since then .*\d SOLICITs? sent", node.check("a", keys))
    node.serve_kea(6)
    until(lambda: node.on_link("a", 6) == {address})
    assert node.check("a", keys) == ""


def test_a_lease_is_rebound(node: Node) -> None:
    """Another server, with the leases of the first, answers the REBIND."""
    node.serve_kea(6)
    node.start()
    keys = node.ipam(dhcpv4=False)
    address = node.add("a", keys)["ips"][0]["address"]
    reservation = {"duid": node.duid(), "ip-addresses": [address.partition("/")[0]]}
    node.host.run("ip", "-n", "lan", "link", "set", "eth0", "address", "02:00:00:00:00:66")  # Kea's DUID has it
    node.serve_kea(6, reservations=[reservation])
    until(lambda: node.kea_heard("REBIND") >= 1 and node.kea_heard("RENEW") >= 1)
    assert node.on_link("a", 6) == {address} and node.check("a", keys) == ""


def test_a_server_that_forgot_the_lease(node: Node) -> None:
    """NoBinding: the client requests the same address again, and it stays on the link."""
    keys = node.ipam(dhcpv4=False)
    node.serve_lan(*IPV6)
    node.start()
    address = node.add("a", keys)["ips"][0]["address"]
    node.stop()
    node.silence()
    leases = node.host.root / LEASES
    (own,) = (line for line in leases.read_text().splitlines() if line.startswith("duid"))
    leases.write_text(f"{own}\n")
    node.serve_lan(*IPV6)
    before = node.heard("DHCPREQUEST")
    node.start()
    until(lambda: node.leases() == {address.partition("/")[0]})
    assert (node.heard("DHCPREQUEST"), node.heard("DHCPSOLICIT")) == (before + 1, 1)
    assert node.on_link("a", 6) == {address} and node.check("a", keys) == ""


def test_a_server_with_another_address(node: Node) -> None:
    """The old address leaves the link, the new one is there instead, and CHECK names both."""
    keys = node.ipam(dhcpv4=False)
    node.serve_kea(6)
    node.start()
    old = node.add("a", keys)["ips"][0]["address"]
    node.serve_kea(6, pools=[{"pool": "fd09::3000-fd09::3fff"}])
    until(lambda: node.on_link("a", 6) not in (set(), {old}))
    (new,) = node.on_link("a", 6)
    assert new.startswith("fd09::3") and new.endswith("/128")
    assert f"the server leases {new} now, and ADD's result has {old}" in node.check("a", keys)


def test_a_server_without_addresses(node: Node) -> None:
    """ADD names its answer."""
    node.serve_kea(6, pools=[])
    node.start("-resendtimeout", "2s")
    node.refused("a", 11, r"ADVERTISE from fe80::\w.* not used: NoAddrsAvail", node.ipam(dhcpv4=False))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"dhcpv6": "slaac"}, r'"ipam.dhcpv6": "slaac" must be'),
        ({"dhcpv4": False, "dhcpv6": "stateless"}, r'"ipam.dhcpv4": false needs "dhcpv6": "stateful"'),
        ({"dhcpv4": False, "dhcpv6": ""}, r'"ipam.dhcpv4": false needs'),
        ({"probeSeconds": 11}, r'"ipam.probeSeconds": 11 '),
    ],
)
def test_keys_are_validated(node: Node, keys: dict[str, Any], words: str) -> None:
    node.refused("a", 7, words, node.ipam(**keys))


def test_addresses_that_another_host_has(node: Node) -> None:
    """`probeSeconds` finds it: both addresses are declined, and the pod gets others."""
    keys = node.ipam(probeSeconds=1, clientId="fixed")
    node.serve_lan(*IPV6)
    node.start()
    taken = {ip["address"].partition("/")[0] for ip in node.add("a", keys)["ips"]}
    node.delete("a", keys)
    until(lambda: node.leases() == set())
    node.host.run("sh", "-ec", BESIDE.format(address="10.9.0.2"))
    for address in taken:
        node.host.run("ip", "-n", "beside", "address", "add", address, "dev", "eth0", *["nodad"] * (":" in address))
    result = node.add("a", keys)
    assert not taken & {ip["address"].partition("/")[0] for ip in result["ips"]}
    assert node.heard("DHCPDECLINE") == 2
    assert node.check("a", keys) == ""


@pytest.mark.parametrize("is_restarted", [False, True])
def test_an_add_that_ends_during_its_probe(node: Node, is_restarted: bool) -> None:
    """The servers have given the leases, and the pod does not have them yet: they are given back, also by a restart."""
    node.config |= node.ipam(probeSeconds=10)
    node.serve_lan(*IPV6)
    node.start()
    plugin = node.begin_add("a")
    until(lambda: len(node.leases()) == 2)
    if is_restarted:
        node.stop()
        node.start()
    else:
        plugin.kill()
    until(lambda: node.heard("DHCPRELEASE") == 2)
    until(lambda: node.leases() == set() and node.records() == [])


def test_a_relay(node: Node) -> None:
    """The servers are beyond a router. Renewals reach them, and so do the RELEASEs."""
    node.host.run("sh", "-ec", FAR)
    serve(node.host, ROUTER, *SOON, *IPV6, netns="far")
    relay(node.host)
    node.start()
    result = node.add("a")
    assert len(result["ips"]) == 2
    until(lambda: node.heard("DHCPREQUEST") >= 2)
    assert (node.heard("DHCPDISCOVER"), node.heard("DHCPSOLICIT")) == (1, 1)
    assert node.check("a") == ""
    node.stop()
    node.start()
    until(lambda: node.heard("DHCPRENEW") == 1)
    node.delete("a")
    until(lambda: node.heard("DHCPRELEASE") == 2)


def test_two_servers(node: Node) -> None:
    """The lease is of one of them, and stays the same through restarts."""
    keys = node.ipam(dhcpv4=False)
    node.serve_lan(*IPV6)
    node.host.run("sh", "-ec", BESIDE.format(address="10.9.0.2"))
    node.host.run("ip", "-n", "beside", "address", "add", "fd09::2/64", "dev", "eth0", "nodad")
    serve(node.host, *IPV6, addresses="10.9.0.100,10.9.0.110", netns="beside")
    node.start()
    address = node.add("a", keys)["ips"][0]["address"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = node.heard("DHCPRENEW")
        node.stop(number)
        node.start()
        until(lambda: node.heard("DHCPRENEW") > before)  # noqa: B023  (called here)
    assert node.on_link("a", 6) == {address} and node.check("a", keys) == ""


@pytest.mark.parametrize("keys", [{"dhcpv6": "stateful"}, {"dhcpv6": "stateless"}])
def test_macvlan(node: Node, keys: dict[str, Any]) -> None:
    """The router's default route is there; with `slaac`, the result has an address by the router, too."""
    node.serve_lan(ROUTER, *(IPV6 if keys["dhcpv6"] == "stateful" else STATELESS_IPV6))
    node.start()
    config = {"type": "macvlan", "master": "br0", "slaac": keys["dhcpv6"] == "stateless", **node.ipam(**keys)}
    result = node.add("a", config)
    assert {ip["address"] for ip in result["ips"]} == node.on_link("a") | node.on_link("a", 6)
    assert len(result["ips"]) == 2
    until(lambda: node.default_routes("a") == {(node.router(), "ra")})
    assert node.check("a", config) == ""
    node.delete("a", config)
    until(lambda: node.records() == [])


def test_a_machine_in_the_pods_place(node: Node) -> None:
    """tap's `redirect` takes all frames from the pod, and the daemon hears the servers all the same."""
    node.serve_kea(6)
    node.start()
    keys = node.ipam(dhcpv4=False)
    result = node.add("a", keys)
    node.add("a", {"type": "tap", "redirect": "tap0", "ipam": ..., "bridge": ..., "prevResult": result})
    before = node.kea_heard("RENEW")
    until(lambda: node.kea_heard("RENEW") >= before + 6)
    assert node.kea_heard("REBIND") == 0 and node.check("a", keys, prevResult=result) == ""


@pytest.mark.kernel_ipvlan
def test_ipvlan(node: Node) -> None:
    """All links of a master have its MAC: their client identifiers tell them apart, in both families."""
    node.serve_lan(ROUTER, *IPV6)
    node.start()
    config = {"type": "ipvlan", "master": "br0", **node.ipam(dhcpv6="stateful")}
    for pod in ("a", "b"):
        result = node.add(pod, config)
        assert {ip["address"] for ip in result["ips"]} == node.on_link(pod) | node.on_link(pod, 6)
        assert len(result["ips"]) == 2
        assert node.check(pod, config) == ""
    assert not node.on_link("a") & node.on_link("b") and not node.on_link("a", 6) & node.on_link("b", 6)
    for pod in ("a", "b"):
        node.delete(pod, config)
    until(lambda: node.records() == [])


def test_a_router_that_comes_later(node: Node) -> None:
    """The pod goes on to follow routers after ADD: a lost default route comes back with the next advertisement."""
    node.serve_lan(ROUTER, *IPV6)
    node.start()
    node.add("a")
    until(lambda: node.default_routes("a") != set())
    node.host.run("ip", "-n", "a", "-6", "route", "del", "default")
    node.serve_lan(ROUTER, *IPV6)
    until(lambda: node.default_routes("a") == {(node.router(), "ra")})


def test_a_runtime_that_gives_up(node: Node) -> None:
    """The daemon ends the ADD of a killed plugin. It gives back the IPv4 lease, which came while IPv6 was awaited."""
    node.serve_lan(ROUTER)
    node.start()
    plugin = node.begin_add("a")
    until(lambda: len(node.leases()) == 1)
    plugin.kill()
    until(lambda: node.leases() == set() and node.records() == [])
