"""vlan: tagged packets to a machine beyond the node, masters that go, VLANs in use, and the state after failures, DEL and GC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tests.kernel.features import has
from tests.node import host_local
from tests.pretend import PretendHost, read_line, until
from tests.system import macvlan_node

needed = pytest.mark.kernel_8021q
# The machine in the LAN has the VLANs 100 and 200, with the same addresses.
VLANS = """
for vlan in 100 200; do
    ip -n lan link add link eth0 name eth0.$vlan type vlan id $vlan
    ip -n lan link set eth0.$vlan up
done
ip -n lan address flush dev eth0
ip -n lan address add 10.1.0.254/24 dev eth0.100
ip -n lan address add fd00:1::fe/64 dev eth0.100 nodad
ip -n lan address add 10.2.0.254/24 dev eth0.200
ip address flush dev up0
"""
LAN = ("10.1.0.254", "fd00:1::fe")
ROUTES = [{"dst": "0.0.0.0/0", "gw": "10.1.0.254"}, {"dst": "::/0", "gw": "fd00:1::fe"}]
LAYER_2: dict[str, Any] = {"ipam": ...}


class Plain(macvlan_node.Node):
    """A node with a dual-stack network in VLAN 100 of up0, and nothing in that VLAN."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **macvlan_node.Node.DEFAULTS, "type": "vlan", "vlanId": 100, "ipam": host_local(routes=ROUTES),
    }  # fmt: skip


class Node(Plain):
    """The same with a machine in the VLAN."""

    def __init__(self, host: PretendHost, **config: Any) -> None:
        super().__init__(host, **config)
        host.run("sh", "-ec", VLANS)

    def data(self, pod: str, name: str = "eth0") -> dict[str, Any]:
        """Return the attributes of a VLAN's kind."""
        return dict(self.link(pod, name)["linkinfo"]["info_data"])

    def routes(self, pod: str) -> set[tuple[str, str]]:
        found = self.host.ip("-4", "route", netns=pod) + self.host.ip("-6", "route", netns=pod)
        return {(one["dst"], one["gateway"]) for one in found if "gateway" in one}

    def reaches(self, pod: str) -> bool:
        return all(self.pings(pod, address) for address in LAN)


@needed
def test_the_pods_frames_are_in_the_vlan(node: Node) -> None:
    """Both ways, both families, with the first packet; no other VLAN is reached. The result lists the pod's link alone."""
    result = node.add("a", mtu=1400)
    link = node.link("a")
    assert result["interfaces"] == [{"name": "eth0", "mac": link["address"], "sandbox": "/run/netns/a", "mtu": 1400}]
    assert {(ip["address"], ip["interface"]) for ip in result["ips"]} == {("10.1.0.2/24", 0), ("fd00:1::2/64", 0)}
    assert (node.data("a")["id"], link["ifalias"]) == (100, "pycni:net/a/eth0")
    assert node.pings("lan", "10.1.0.2") and node.pings("lan", "fd00:1::2") and node.reaches("a")
    assert node.names("a") == ["lo", "eth0"] and node.links("vlan") == []
    assert node.check("a", mtu=1400) == ""
    assert node.check("a", vlanId=7) == "link eth0 in /run/netns/a has VLAN 100, not 7"
    other = {"vlanId": 200, "name": "other", "ipam": host_local("10.2.0.0/24")}
    node.add("b", other)
    assert node.pings("b", "10.2.0.254") and not node.pings("b", "10.1.0.2")
    node.delete("b", other)
    node.delete("a")
    assert node.is_clean() and node.names("a") == ["lo"]


@needed
def test_a_master_that_falls_is_renamed_or_moves(node: Node) -> None:
    """The pod keeps its link, addresses and routes of both families, which the kernel would flush."""
    node.add("a")
    before = node.routes("a")
    assert before == {("default", "10.1.0.254"), ("default", "fd00:1::fe")}
    node.host.run("ip", "link", "set", "up0", "down")
    assert node.check("a") == "master up0 is down"
    assert node.call("STATUS", "").code == 50
    node.refused("b", 999, '"master": link up0 is down', vlanId=7)
    node.host.run("ip", "link", "set", "up0", "up")
    until(lambda: node.check("a") == "")
    assert node.routes("a") == before and node.reaches("a")
    # older kernels refuse to rename a link that is up
    node.host.run("sh", "-ec", "ip link set up0 down; ip link set up0 name up9; ip link set up9 up")
    until(lambda: node.link("a")["operstate"] == "UP")
    assert node.reaches("a")
    node.host.run("ip", "netns", "add", "away")
    node.host.run("ip", "link", "set", "up9", "netns", "away")
    node.host.run("ip", "-n", "away", "link", "set", "up9", "up")
    until(lambda: node.reaches("a"))
    assert node.check("a") == "master up0 is missing"
    node.delete("a")
    assert node.is_clean() and node.names("a") == ["lo"]


@needed
@pytest.mark.parametrize("loss", ["master", "namespace", "name", "all", "twice"])
def test_delete_needs_neither_master_nor_namespace(node: Node, loss: str) -> None:
    """Nor a prevResult: the link and the leases are gone after it."""
    node.add("a")
    if loss in ("master", "all"):
        node.host.run("ip", "link", "del", "up0")
        assert "link eth0 is missing in /run/netns/a" in node.check("a")
    if loss in ("namespace", "all"):
        node.host.drop_netns("a")
    for _ in range(2 if loss == "twice" else 1):
        node.delete("a", netns="" if loss == "name" else None)
        assert node.is_clean()
    if loss in ("name", "twice"):
        assert node.names("a") == ["lo"]


@needed
def test_a_vlan_that_is_in_use(node: Node) -> None:
    """The error names the link, wherever it is. The VLAN of a dead pod becomes free by itself."""
    node.add("a")
    node.refused("b", 999, r"VLAN 100 on up0 is in use by eth0 in /run/netns/a.*macvlan on a VLAN")
    node.host.run("ip", "link", "add", "link", "up0", "name", "up0.7", "type", "vlan", "id", "7")
    node.refused("b", 999, "VLAN 7 on up0 is in use by up0.7 in the host", vlanId=7)
    node.host.drop_netns("a")
    node.add("b", name="other")
    node.host.run("sh", "-ec", "ip -n b link set eth0 down; ip -n b link set eth0 name eth1")
    node.refused("c", 999, r"VLAN 100 on up0 is in use by eth1 in /run/netns/b")


@needed
def test_several_pods_in_a_vlan(node: Node) -> None:
    """By the remedy that the error names: macvlan on a VLAN link of the host."""
    node.host.run("sh", "-ec", "ip link add link up0 name up0.100 type vlan id 100; ip link set up0.100 up")
    node.refused("a", 999, "VLAN 100 on up0 is in use by up0.100 in the host.*macvlan on a VLAN link of the host")
    keys = {"type": "macvlan", "master": "up0.100", "vlanId": ...}
    for pod in ("a", "b"):
        node.add(pod, keys)
        assert node.reaches(pod) and node.check(pod, keys) == ""
    assert all(node.pings("a", address) for address in node.addresses("b"))
    for pod in ("a", "b"):
        node.delete(pod, keys)
    assert node.is_clean() and node.links("vlan") == ["up0.100"]


@needed
def test_an_address_of_a_machine_in_the_vlan(node: Node) -> None:
    """static's probe finds it, and no machine of another VLAN with the same address."""
    (machine,) = node.host.ip("link", "show", "eth0.100", netns="lan")
    addresses: dict[str, Any] = {"type": "static", "probeSeconds": 2, "addresses": [{"address": "10.1.0.254/24"}]}
    words = f"10.1.0.254 by the host with MAC {machine['address']}"
    node.refused("a", 999, words, ipam=addresses)
    node.add("a", ipam=addresses, vlanId=200)
    assert node.check("a", ipam=addresses, vlanId=200) == ""


@needed
def test_a_vlan_in_a_namespace_that_has_only_processes(node: Node) -> None:
    with node.host.popen("unshare", "--net", "sh", "-c", "echo ready; exec cat") as holder:
        assert read_line(holder) == b"ready\n"
        pid = node.host.run("pgrep", "-n", "cat").stdout.strip()
        node.host.run("ip", "link", "add", "link", "up0", "name", "v", "type", "vlan", "id", "100")
        node.host.run("ip", "link", "set", "v", "netns", pid)
        node.refused("a", 999, rf"VLAN 100 on up0 is in use by v in /proc/{pid}/ns/net")
        holder.kill()


@pytest.mark.parametrize(("keys", "words"), [
    ({"master": ...}, '"master" is required, unless'),
    ({"master": ""}, '"master" is required'),
    ({"master": "none"}, '"master": "none" is not a link of this host'),
    ({"vlanId": 4095}, '"vlanId": 4095'),
    ({"vlanId": -1}, '"vlanId": -1'),
    ({"mtu": 1501}, '"mtu": 1501 exceeds the MTU 1500 of its master up0'),
])  # fmt: skip
def test_a_configuration_that_cannot_be_used(host: PretendHost, keys: dict[str, Any], words: str) -> None:
    Plain(host).refused("a", 7, words, keys)


def test_a_kernel_without_vlans(host: PretendHost) -> None:
    """STATUS names the module that is missing."""
    answer = Plain(host).call("STATUS", "")
    assert answer.status == 0 if has("kernel_8021q") else "try modprobe 8021q" in answer.json["msg"]


@needed
def test_links_that_can_be_no_master(node: Node) -> None:
    node.refused("a", 999, "VLANs not supported on device", master="lo")


@needed
def test_vlan_0_is_a_priority_tag(node: Node) -> None:
    node.add("a", LAYER_2, vlanId=0)
    assert node.data("a")["id"] == 0 and node.check("a", LAYER_2, vlanId=0) == ""


@needed
def test_a_master_in_the_pod(node: Node) -> None:
    """A VLAN of the interface that another network gave the pod; two of one name in two pods."""
    under = {"type": "macvlan", "vlanId": ..., "name": "under", "ipam": ...}
    keys = {"linkInContainer": True, "master": "eth0"}
    for pod in ("a", "b"):
        node.add(pod, under)
        node.add(pod, keys, ifname="net1")
        assert node.link(pod, "net1")["link"] == "eth0"
    assert node.pings("a", "10.1.0.254") and node.pings("b", "fd00:1::fe") and node.pings("a", "10.1.0.3")
    assert node.check("b", keys, ifname="net1") == ""
    node.refused("a", 999, "VLAN 100 on eth0 is in use by net1 in /run/netns/a", keys, ifname="net2")
    for pod in ("a", "b"):
        node.delete(pod, keys, ifname="net1")
        node.delete(pod, under)
    assert node.is_clean()


@needed
def test_the_interface_of_the_result_before(node: Node) -> None:
    """A list's plugin may make the master: the first interface on the host, or in the pod."""
    before = {"cniVersion": "1.1.0", "interfaces": [{"name": "x", "sandbox": "/run/netns/a"}, {"name": "up0"}]}
    chained = {"master": ..., "prevResult": before}
    node.add("a", chained)
    assert node.reaches("a")
    assert node.check("a", {"master": ...}) == ""
    node.delete("a", {"master": ...})
    node.refused("a", 7, '"x" is in prevResult, but not a link of the pod', chained, linkInContainer=True)
    assert node.is_clean()


@needed
def test_an_address_that_moves_to_another_mac(node: Node) -> None:
    """A neighbour that remembers another MAC has the new one when ADD has answered."""
    stale = ("lladdr", "02:00:00:00:00:99", "dev", "eth0.100", "nud", "reachable")
    for address in ("10.1.0.2", "fd00:1::2"):
        node.host.run("ip", "-n", "lan", "neigh", "replace", address, *stale)
    mac = node.add("a")["interfaces"][0]["mac"]

    def known() -> set[str]:
        shown = json.loads(node.host.run("ip", "-n", "lan", "-j", "neigh", "show", "dev", "eth0.100").stdout)
        return {one.get("lladdr", "") for one in shown if one["dst"] in ("10.1.0.2", "fd00:1::2")}

    until(lambda: known() == {mac})


@needed
def test_a_collection_and_a_status(node: Node) -> None:
    assert node.call("STATUS", "").status == 0
    node.add("a")
    node.add("b", vlanId=101)
    node.collect("b", vlanId=101)
    assert node.names("a") == ["lo"] and node.names("b") == ["lo", "eth0"]
    assert node.leases() == {"10.1.0.3", "fd00:1::3"} and len(node.notes()) == 1
    assert node.call("STATUS", "", master=...).status == 0  # a plugin before it may make the master
    node.host.run("ip", "link", "del", "up0")
    assert node.call("STATUS", "").code == 50


@needed
def test_delete_of_a_foreign_link_with_the_masters_mac(node: Node) -> None:
    """The MAC in the result proves nothing: the link must have an address of the result. Without a result it stays."""
    result = node.add("a")
    node.delete("a")
    words = ("link", "up0", "netns", "a", "name", "eth0", "type", "vlan", "id", "100")
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
