"""A configuration changes under running pods: DEL, GC and the next ADD leave nothing of the old one."""

from __future__ import annotations

import re
import sys

import pytest

from tests.pretend import PretendHost, read_line
from tests.system.chain_node import BRIDGE, FIREWALL, PORTMAP, Node, Plugin
from tests.system.test_masquerade import CLIENT, OUTSIDE, SERVER

BANDWIDTH: Plugin = {"type": "bandwidth", "ingressRate": 10**9, "ingressBurst": 10**8}
EGRESS = {"egressRate": 10**9, "egressBurst": 10**8}
TUNING: Plugin = {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400}
BY_IPTABLES = {"ipMasq": True, "ipMasqBackend": "iptables"}
MAC = {"runtimeConfig": {"mac": "0a:58:0a:01:00:77"}}
# The former configuration and the present one.
CHANGES: dict[str, tuple[list[Plugin], list[Plugin]]] = {
    "ipMasq": ([{**BRIDGE, "ipMasq": True}], [BRIDGE]),
    "ipMasqBackend, to iptables": ([{**BRIDGE, "ipMasq": True}], [{**BRIDGE, **BY_IPTABLES}]),
    "ipMasqBackend, to nftables": ([{**BRIDGE, **BY_IPTABLES}], [{**BRIDGE, "ipMasq": True}]),
    "ipMasq by iptables": ([{**BRIDGE, **BY_IPTABLES}], [BRIDGE]),
    "nonMasqueradeCIDRs": ([{**BRIDGE, "ipMasq": True, "nonMasqueradeCIDRs": ["10.0.0.0/8"]}], [{**BRIDGE, "ipMasq": True}]),
    "macspoofchk": ([{**BRIDGE, "macspoofchk": True}], [BRIDGE]),
    "macspoofchk, and another MAC": ([{**BRIDGE, "macspoofchk": True}], [{**BRIDGE, "macspoofchk": True, **MAC}]),
    "promiscMode": ([{**BRIDGE, "promiscMode": True}], [BRIDGE]),
    "hairpinMode": ([{**BRIDGE, "hairpinMode": True}], [BRIDGE]),
    "all of bridge": ([{**BRIDGE, "ipMasq": True, "macspoofchk": True, "promiscMode": True}], [BRIDGE]),
    "bridge": ([{**BRIDGE, "ipMasq": True}], [{**BRIDGE, "bridge": "cni1"}]),
    "portmap's backend, to iptables": ([BRIDGE, PORTMAP], [BRIDGE, {**PORTMAP, "backend": "iptables"}]),
    "portmap's backend, to nftables": ([BRIDGE, {**PORTMAP, "backend": "iptables"}], [BRIDGE, PORTMAP]),
    "snat": ([BRIDGE, PORTMAP], [BRIDGE, {**PORTMAP, "snat": False}]),
    "conditions": ([BRIDGE, {**PORTMAP, "conditionsV4": ["-i", "x"]}], [BRIDGE, PORTMAP]),
    "portMappings": ([BRIDGE, PORTMAP], [BRIDGE, {"type": "portmap"}]),
    "portmap": ([BRIDGE, PORTMAP], [BRIDGE]),
    "portmap by iptables": ([BRIDGE, {**PORTMAP, "backend": "iptables"}], [BRIDGE]),
    "firewall's backend, to iptables": ([BRIDGE, FIREWALL], [BRIDGE, {**FIREWALL, "backend": "iptables"}]),
    "firewall's backend, to nftables": ([BRIDGE, {**FIREWALL, "backend": "iptables"}], [BRIDGE, FIREWALL]),
    "ingressPolicy isolated": ([BRIDGE, {**FIREWALL, "ingressPolicy": "isolated"}], [BRIDGE, FIREWALL]),
    "ingressPolicy same-bridge": ([BRIDGE, {**FIREWALL, "ingressPolicy": "same-bridge"}], [BRIDGE, FIREWALL]),
    "ingressPolicy beside iptables": (
        [BRIDGE, {"type": "firewall", "backend": "iptables", "ingressPolicy": "isolated"}],
        [BRIDGE, {"type": "firewall", "backend": "iptables"}],
    ),
    "firewall": ([BRIDGE, {**FIREWALL, "ingressPolicy": "isolated"}], [BRIDGE]),
    "bandwidth's ingress": ([BRIDGE, BANDWIDTH], [BRIDGE, {"type": "bandwidth"}]),
    "bandwidth's egress": ([BRIDGE, {**BANDWIDTH, **EGRESS}], [BRIDGE, {"type": "bandwidth"}]),
    "nothing": ([{**BRIDGE, "ipMasq": True, "macspoofchk": True}, PORTMAP, FIREWALL, {**BANDWIDTH, **EGRESS}, TUNING],) * 2,
    "nothing, by iptables": (
        [{**BRIDGE, **BY_IPTABLES}, {**PORTMAP, "backend": "iptables"}, {**FIREWALL, "backend": "iptables"}],
    ) * 2,
    "tuning": ([BRIDGE, TUNING], [BRIDGE, {"type": "tuning"}]),
}  # fmt: skip
ALL = [
    {**BRIDGE, "ipMasq": True, "macspoofchk": True, "promiscMode": True}, PORTMAP,
    {**FIREWALL, "ingressPolicy": "isolated"}, {**BANDWIDTH, **EGRESS}, TUNING,
]  # fmt: skip
BY_ADDRESS = re.compile(r"(masq|admitted|guarded|hairpin)[46]")


@pytest.mark.row(24)
@pytest.mark.parametrize("state", ["whole", "netns gone"])
@pytest.mark.parametrize("key", CHANGES)
def test_delete(node: Node, key: str, state: str) -> None:
    old, new = CHANGES[key]
    before = node.left()
    node.up("a", old)
    if state == "netns gone":
        node.kill("a")
    node.down("a", new)
    assert node.left() == before


@pytest.mark.row(24)
@pytest.mark.parametrize("key", CHANGES)
def test_garbage_collection(node: Node, key: str) -> None:
    old, new = CHANGES[key]
    before = node.left()
    node.up("a", old)
    node.kill("a")
    node.collect_chain(new)
    assert node.left() == before


@pytest.mark.row(24)
@pytest.mark.parametrize("key", CHANGES)
def test_the_next_add(node: Node, key: str) -> None:
    """The same pod comes back after its namespace and lease were lost: it has the state of a first ADD."""
    old, new = CHANGES[key]
    with PretendHost(node.host.bin_dir) as other:
        fresh = Node(other)
        fresh.up("a", new)
        if key == "firewall's backend, to nftables":
            # iptables' rules, which admit an address that is admitted anyway, stay until DEL
            fresh.down("a", new)
        wanted = fresh.left()
    node.up("a", old)
    node.lose("a")
    node.up("a", new)
    if key == "firewall's backend, to nftables":
        node.down("a", new)
    assert node.left() == wanted


@pytest.mark.row(24, 25)
@pytest.mark.parametrize("key", CHANGES)
def test_the_next_pod(node: Node, key: str) -> None:
    """Another pod gets the address; no rule of the first pod holds for it."""
    old, new = CHANGES[key]
    node.up("a", old)
    addresses = node.addresses("a")
    node.lose("a")
    node.up("b", new)
    assert node.addresses("b") == addresses
    of_a = [one for one in node.elements() if "net/a/" in one and any(f'"{address}"' in one for address in addresses)]
    assert not [one for one in of_a if BY_ADDRESS.match(one)]
    assert not [line for line in node.iptables() if "POSTROUTING" in line and r"id: \"a\"" in line]
    node.down("b", new)
    node.collect_chain([BRIDGE, PORTMAP, FIREWALL])
    assert node.left()[3] == set()


def seen(node: Node, pod: str, destination: str) -> str:
    """Return the source address that a neighbour of the node sees."""
    return node.host.run("ip", "netns", "exec", pod, sys.executable, "-c", CLIENT, destination).stdout.strip()


@pytest.mark.row(24)
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_the_next_pod_is_not_masqueraded(node: Node, backend: str) -> None:
    node.host.run("sh", "-ec", OUTSIDE)
    server = node.host.popen("ip", "netns", "exec", "outside", sys.executable, "-c", SERVER)
    assert read_line(server) == b"ready\n"
    node.up("a", [{**BRIDGE, "ipMasq": True, "ipMasqBackend": backend}])
    assert seen(node, "a", "192.0.2.2") == "192.0.2.1"
    node.lose("a")
    node.up("b", [BRIDGE])
    assert [seen(node, "b", one) for one in ("192.0.2.2", "fd00:99::2")] == node.addresses("b")
    server.kill()
    server.communicate()


@pytest.mark.row(24)
def test_a_pod_that_comes_back_with_another_mac_is_heard(node: Node) -> None:
    node.up("a", [{**BRIDGE, "macspoofchk": True}])
    node.lose("a")
    node.up("a", [{**BRIDGE, **MAC}])
    node.host.run("ip", "netns", "exec", "a", "ping", "-c1", "-W2", "10.1.0.1")


# -- the network renamed


@pytest.mark.row(24)
@pytest.mark.parametrize("state", ["whole", "netns gone"])
def test_delete_under_another_name(node: Node, state: str) -> None:
    """DEL removes rules, links, leases and records of the former name; another pod of that network keeps its own."""
    node.up("b", [{**BRIDGE, "ipMasq": True}])
    before = node.left()
    node.up("a", ALL)
    if state == "netns gone":
        node.kill("a")
        node.down(
            "a", ALL[:1], name="renamed"
        )  # nothing shows that state of the plugins behind bridge is of a dead pod
        _, _, files, elements, rules = node.left()
        assert rules == before[4]
        assert {one for one in files - before[2] if "/networks/" in one} == set()
        assert not [one for one in elements if "net/a/" in one and "masq" in one]
        return
    node.down("a", ALL, name="renamed")
    assert node.left() == before


@pytest.mark.row(24)
def test_another_network_of_the_container_stays(node: Node) -> None:
    """DEL for a missing interface of a network leaves the other network's interface alone."""
    node.up("a", [{**BRIDGE, "ipMasq": True}])
    before = node.left()
    config = {"cniVersion": "1.1.0", "name": "other", **BRIDGE, "ipMasq": True}
    answer = node.host.cni("bridge", "DEL", config, netns="/run/netns/a", container_id="a", ifname="eth1")
    assert (answer.status, answer.stdout) == (0, "") and node.left() == before
    answer = node.host.cni("bridge", "DEL", config, netns="/run/netns/a", container_id="b")  # of a pod beside it
    assert (answer.status, answer.stdout) == (0, "") and node.left() == before
    answer = node.host.cni("bridge", "DEL", config, netns="", container_id="a")  # nothing shows which interface it was
    assert (answer.status, answer.stdout) == (0, "") and node.left() == before
    node.host.run("ip", "netns", "exec", "a", "ping", "-c1", "-W2", "10.1.0.1")


@pytest.mark.row(24)
def test_garbage_collection_under_another_name(node: Node) -> None:
    """The next GC of any network deletes the state of dead pods; the living pods are another network's."""
    node.up("b", [{**BRIDGE, "ipMasq": True, "macspoofchk": True}, PORTMAP])
    before = node.left()
    other = {**PORTMAP, "runtimeConfig": {"portMappings": [{"hostPort": 9090, "containerPort": 80, "protocol": "tcp"}]}}
    node.up("a", [{**BRIDGE, "ipMasq": True, "macspoofchk": True}, other])
    node.kill("a")
    node.collect_chain([BRIDGE, PORTMAP], name="renamed")
    assert node.left()[3] == before[3] and node.left()[4] == before[4]
