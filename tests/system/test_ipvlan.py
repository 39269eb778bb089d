"""ipvlan: packets of each mode and flag, the mode that all links of a master share, masters that go, and the remains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tests.node import host_local
from tests.pretend import until
from tests.system import macvlan_node

needed = pytest.mark.kernel_ipvlan
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
LAN = ("10.1.0.254", "fd00:1::fe")
# Beyond the LAN, by the node: the pods' networks of modes l3 and l3s, which are not the master's.
ROUTED = host_local("10.2.0.0/24", "fd00:2::/64", routes=ROUTES)
RETURN = """
ip -n lan route add 10.2.0.0/24 via 10.1.0.1
ip -n lan -6 route add fd00:2::/64 via fd00:1::1
"""


class Node(macvlan_node.Node):
    """A node with a dual-stack network of ipvlan on up0."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **macvlan_node.Node.DEFAULTS, "type": "ipvlan", "ipam": host_local(routes=ROUTES),
    }  # fmt: skip

    def mode(self, pod: str) -> str:
        data = self.link(pod)["linkinfo"]["info_data"]
        return f"{data['mode']} {next(flag for flag in ('private', 'vepa', 'bridge') if data.get(flag))}"

    def routes(self, pod: str) -> set[tuple[str, str]]:
        found = self.host.ip("-4", "route", netns=pod) + self.host.ip("-6", "route", netns=pod)
        return {(one["dst"], one.get("gateway", "")) for one in found if one["dst"] == "default"}


@needed
def test_packets_pass(node: Node) -> None:
    """When ADD answers: the LAN a pod, a pod the LAN, pods each other, both families, with the master's MAC."""
    result = node.add("a", mtu=1400)
    node.add("b")
    mac = node.host.ip("link", "show", "up0")[0]["address"]
    assert result["interfaces"] == [{"name": "eth0", "mac": mac, "sandbox": "/run/netns/a", "mtu": 1400}]
    assert {(ip["address"], ip["interface"]) for ip in result["ips"]} == {("10.1.0.2/24", 0), ("fd00:1::2/64", 0)}
    assert (node.mode("a"), node.link("a")["ifalias"]) == ("l2 bridge", "pycni:net/a/eth0")
    assert node.routes("a") == {("default", "10.1.0.1"), ("default", "fd00:1::1")}
    for address in (*LAN, *node.addresses("b")):
        assert node.pings("a", address)
    for address in node.addresses("a"):
        assert node.pings("lan", address)
    assert node.names("a") == ["lo", "eth0"] and node.links("ipvlan") == []
    assert node.check("a", mtu=1400) == node.check("b") == ""
    node.delete("a")
    node.delete("b")
    assert node.is_clean() and node.names("a") == ["lo"]


@needed
@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_the_host_routes(node: Node, mode: str) -> None:
    """In these modes the master's namespace routes: gateways become routes through the link, in the result as well."""
    node.host.run("sh", "-ec", RETURN)
    keys = {"mode": mode, "ipam": ROUTED}
    result = node.add("a", keys)
    node.add("b", keys)
    assert [ip.get("gateway") for ip in result["ips"]] == [None, None] and "gw" not in json.dumps(result["routes"])
    assert node.routes("a") == {("default", "")} and node.mode("a") == f"{mode} bridge"
    for address in (*LAN, *node.addresses("b")):
        assert node.pings("a", address)
    for address in node.addresses("a"):
        assert node.pings("lan", address)
    assert node.check("a", keys) == ""
    node.delete("a", keys)
    assert node.leases() == {"10.2.0.3", "fd00:2::3"}


@needed
def test_one_mode_for_all_links_of_a_master(node: Node) -> None:
    """A new pod in another mode would change it for all, so it is refused, wherever the others are."""
    node.add("a")
    node.refused("b", 7, r'"mode": "l3" differs from l2 of eth0 in /run/netns/a.*ipvlans of up0', mode="l3")
    node.refused("b", 7, r'"flag": "private" differs from bridge of eth0 in /run/netns/a', flag="private")
    assert node.mode("a") == "l2 bridge" and node.pings("a", "10.1.0.254")
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "type", "ipvlan", "mode", "l3", "private")
    assert node.check("a") == (
        "link eth0 in /run/netns/a has mode l3, not l2; link eth0 in /run/netns/a has flag private, not bridge"
    )
    node.delete("a")
    node.add("b", mode="l3s", flag="vepa")
    assert node.mode("b") == "l3s vepa"


@needed
def test_flags(node: Node) -> None:
    """Private pods reach the LAN and not each other."""
    node.add("a", flag="private")
    node.add("b", flag="private")
    assert node.pings("a", "10.1.0.254") and not node.pings("a", "10.1.0.3") and not node.pings("a", "fd00:1::3")
    assert node.check("a", flag="private") == ""


@needed
def test_an_address_that_another_pod_has(node: Node) -> None:
    """The error names the pod, and nothing is left. The address of a dead pod becomes free by itself, and is announced."""
    same = {"ipam": host_local("10.1.0.0/24"), "args": {"cni": {"ips": ["10.1.0.9"]}}}
    node.add("a", same)
    words = r"one of the addresses 10\.1\.0\.9 is in use by eth0 in /run/netns/a"
    node.refused("b", 999, words, same, name="other")
    node.host.drop_netns("a")
    stale = ("lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "reachable")
    node.host.run("ip", "-n", "lan", "neigh", "replace", "10.1.0.9", *stale)
    mac = node.add("b", same, name="other")["interfaces"][0]["mac"]
    until(lambda: node.host.ip("neigh", "show", "10.1.0.9", netns="lan")[0].get("lladdr") == mac)
    assert node.pings("lan", "10.1.0.9")


@pytest.mark.parametrize(("keys", "args", "words"), [
    ({"runtimeConfig": {"mac": "02:00:00:00:00:01"}}, "", '"runtimeConfig.mac": .*has its master\'s MAC'),
    ({"args": {"cni": {"mac": "02:00:00:00:00:01"}}}, "", '"args.cni.mac": .*has its master\'s MAC'),
    ({}, "MAC=02:00:00:00:00:01", '"CNI_ARGS MAC": .*has its master\'s MAC'),
    ({"mode": "l3", "ipam": {"type": "dhcp"}}, "", '"mode": "l3" excludes the IPAM plugin dhcp'),
    ({"mode": "l4"}, "", '"mode": "l4"'),
    ({"flag": "public"}, "", '"flag": "public"'),
    ({"mtu": 1501}, "", '"mtu": 1501 exceeds the MTU 1500 of its master up0'),
    ({"master": "none"}, "", '"master": "none" is not a link of this host'),
])  # fmt: skip
def test_a_configuration_that_cannot_be_used(node: Node, keys: dict[str, Any], args: str, words: str) -> None:
    node.refused("a", 7, words, keys, args=args)


@needed
def test_no_probe(node: Node) -> None:
    """Answers to ARP probes go to the master, which has the same MAC: nobody would be found."""
    addresses = [{"address": "10.1.0.254/24"}]
    ipam = {"type": "static", "addresses": addresses, "probeSeconds": 1}
    node.refused("a", 2, '"ipam.probeSeconds" is impossible with ipvlan', ipam=ipam)
    node.refused("a", 2, "has no broadcasts", ipam=ipam, mode="l3")


@needed
def test_a_master_that_serves_other_links(node: Node) -> None:
    """The error names them, also if they are in a pod."""
    other = {"type": "macvlan", "name": "other"}
    node.add("a", other)
    node.refused("b", 999, '"master": link up0 is the master of eth0 in /run/netns/a, of kind macvlan')
    node.delete("a", other)
    node.host.run("sh", "-ec", "ip link add br0 type bridge; ip link set up0 master br0")
    node.refused("b", 999, '"master": link up0 is a port of br0, of kind bridge')


@needed
def test_a_master_that_falls_is_renamed_or_moves(node: Node) -> None:
    node.add("a")
    before = node.routes("a")
    node.host.run("ip", "link", "set", "up0", "down")
    assert node.check("a") == "master up0 is down" and node.call("STATUS", "").code == 50
    # older kernels refuse to rename a link that is up
    node.host.run("sh", "-ec", "ip link set up0 name up9; ip link set up9 up")
    until(lambda: node.pings("a", "10.1.0.254"))
    assert node.routes("a") == before
    node.host.run("ip", "netns", "add", "away")
    node.host.run("ip", "link", "set", "up9", "netns", "away")
    assert "up0" in node.check("a")
    node.delete("a")
    assert node.is_clean() and node.names("a") == ["lo"]


@needed
@pytest.mark.parametrize("loss", ["master", "namespace", "name", "all", "twice"])
def test_delete_needs_neither_master_nor_namespace(node: Node, loss: str) -> None:
    node.add("a")
    if loss in ("master", "all"):
        node.host.run("ip", "link", "del", "up0")
    if loss in ("namespace", "all"):
        node.host.drop_netns("a")
    for _ in range(2 if loss == "twice" else 1):
        node.delete("a", netns="" if loss == "name" else None)
        assert node.is_clean()
    if loss in ("name", "twice"):
        assert node.names("a") == ["lo"]


@needed
def test_the_result_before(node: Node) -> None:
    """A list's plugin may make the master; without IPAM it gives the addresses, too."""
    before = {
        "cniVersion": "1.1.0", "interfaces": [{"name": "up0"}], "ips": [{"address": "10.1.0.77/24"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.254"}],
    }  # fmt: skip
    keys = {"master": ..., "ipam": ...}
    result = node.add("a", keys, prevResult=before)
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [("10.1.0.77/24", 0)]
    assert node.pings("a", "10.1.0.254") and node.check("a", keys) == ""
    node.delete("a", keys)
    assert node.is_clean()


@needed
def test_a_master_in_the_pod(node: Node) -> None:
    under = {"type": "macvlan", "name": "under", "ipam": ...}
    keys = {"linkInContainer": True, "master": "eth0"}
    node.add("a", under)
    node.add("a", keys, ifname="net1")
    assert node.link("a", "net1")["link"] == "eth0" and node.pings("a", "10.1.0.254")
    assert node.check("a", keys, ifname="net1") == ""
    node.refused("a", 7, "differs from l2 of net1 in /run/netns/a", keys, ifname="net2", mode="l3")
    node.delete("a", keys, ifname="net1")
    node.delete("a", under)
    assert node.is_clean()


@needed
def test_a_collection_and_a_status(node: Node) -> None:
    assert node.call("STATUS", "").status == 0
    node.add("a")
    node.add("b")
    node.collect("b")
    assert node.names("a") == ["lo"] and node.names("b") == ["lo", "eth0"]
    assert node.leases() == {"10.1.0.3", "fd00:1::3"} and len(node.notes()) == 1


@needed
def test_delete_of_a_foreign_link_with_the_masters_mac(node: Node) -> None:
    """The MAC in the result proves nothing: the link must have an address of the result. Without a result it stays."""
    result = node.add("a")
    node.delete("a")
    words = ("link", "up0", "netns", "a", "name", "eth0", "type", "ipvlan")
    node.host.run("ip", "link", "add", *words)
    node.delete("a", prevResult=result)
    node.delete("a")
    assert node.names("a") == ["lo", "eth0"]
    node.host.run("ip", "-n", "a", "address", "add", result["ips"][0]["address"], "dev", "eth0")
    node.delete("a", prevResult=result)
    assert node.names("a") == ["lo"]


@needed
@pytest.mark.parametrize("first", ["ours", "reference"])
def test_hand_over(node: Node, reference_bin: str, first: str) -> None:
    """Each suite deletes the other's link."""
    same: dict[str, Any] = {"cniVersion": "1.0.0"}
    other = {**same, "bin_dir": reference_bin}
    one, two = (same, other) if first == "ours" else (other, same)
    node.add("a", **one)
    node.delete("a", prevResult=node.results["a"], **two)
    assert node.names("a") == ["lo"] and node.leases() == set()
