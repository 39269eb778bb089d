"""DEL, and the undo of ADD, succeed in spite of all that a pod does to its own namespace; CHECK reports it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretend import Answer, PretendHost
from tests.system.chain_node import BRIDGE, FIREWALL, PORTMAP, Node, Plugin

MAC = "02:00:00:00:00:09"
TUNING: Plugin = {
    "type": "tuning", "mac": MAC, "mtu": 1400, "promisc": True, "txQLen": 77,
    "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.ip_unprivileged_port_start": "0"},
}  # fmt: skip
BANDWIDTH: Plugin = {
    "type": "bandwidth", "ingressRate": 10**9, "ingressBurst": 10**8, "egressRate": 10**9, "egressBurst": 10**8,
}  # fmt: skip
CHAIN: list[Plugin] = [{**BRIDGE, "ipMasq": True, "macspoofchk": True}, TUNING, BANDWIDTH, PORTMAP, FIREWALL]
LOOPBACK: Plugin = {"type": "loopback"}
AWAY = "ip link set eth0 down; ip link set eth0 name away"
# Changes that a pod with NET_ADMIN makes, and the words of CHECK, by plugin, if CHECK detects them.
DEEDS: dict[str, tuple[str, dict[str, str]]] = {
    "port range": ("echo 100 500 >/proc/sys/net/ipv4/ip_local_port_range", {}),
    "no interface": ("ip link del eth0", {"tuning": "eth0", "bridge": "eth0"}),
    "renamed": (AWAY, {"tuning": "eth0", "bridge": "eth0"}),
    "tun": (f"{AWAY}; ip tuntap add dev eth0 mode tun", {"tuning": "mac of eth0 is none", "bridge": "not a veth"}),
    "bridge with the port": (
        f"{AWAY}; ip link add eth0 type bridge; ip link set away master eth0", {"bridge": "not a veth"},
    ),
    "macvlan": (f"{AWAY}; ip link add eth0 link away type macvlan", {"bridge": "not a veth"}),
    "nested veth": (f"{AWAY}; ip link add eth0 type veth peer name inner", {"tuning": "mac"}),
    "odd bytes": (
        f"{AWAY}; ip link set away name $(printf '\\377\\376'); ip link add $(printf '\\377') type bridge",
        {"tuning": "eth0", "bridge": "eth0"},
    ),
    "elsewhere": ("ip link set eth0 netns other", {"tuning": "eth0", "bridge": "eth0"}),
    "lo renamed": ("ip link set lo down; ip link set lo name away", {"loopback": "lo"}),
    "another lo": (
        "ip link set lo down; ip link set lo name away; ip link add lo type veth peer name inner; ip link set lo up", {},
    ),
    "many addresses": (
        "i=0; while [ $i -lt 250 ]; do echo address add 10.9.$i.1/32 dev eth0; i=$((i + 1)); done | ip -batch -", {},
    ),
}  # fmt: skip


@pytest.fixture
def node(host: PretendHost) -> Node:
    host.netns("other")
    return Node(host)


def inside(node: Node, script: str) -> str:
    return node.host.run("ip", "netns", "exec", "a", "sh", "-ec", script).stdout


def check(node: Node, plugin: Plugin) -> Answer:
    return node.call("CHECK", "a", plugin, prevResult=node.results["a"])


@pytest.mark.row("clean-up")
@pytest.mark.parametrize("deed", DEEDS)
def test_a_pod_that_changes_itself(node: Node, deed: str) -> None:
    script, wrong = DEEDS[deed]
    before = node.left()
    node.up("a", CHAIN)
    assert node.call("ADD", "a", LOOPBACK).status == 0
    inside(node, script)
    for plugin in (*CHAIN, LOOPBACK):
        answer = check(node, plugin)
        told = answer.stdout if answer.status else ""
        assert "unexpected" not in told, answer
        assert wrong.get(plugin["type"], "") in told, answer
    node.down("a", [*CHAIN, LOOPBACK])
    assert node.left() == before
    node.down("a", [*CHAIN, LOOPBACK], prevResult=node.results["a"])


@pytest.mark.row("clean-up")
def test_what_cannot_be_set_back_is_told(node: Node) -> None:
    """All else is restored."""
    node.up("a", [BRIDGE, TUNING])
    inside(node, "echo 100 500 >/proc/sys/net/ipv4/ip_local_port_range")
    answer = node.call("DEL", "a", TUNING)
    assert answer.status == 0 and "ip_unprivileged_port_start" in answer.stderr, answer
    (link,) = node.host.ip("link", "show", "eth0", netns="a")
    assert (link["mtu"], link["txqlen"], "PROMISC" in link["flags"]) == (1500, 1000, False)
    assert link["address"] != MAC
    assert inside(node, "cat /proc/sys/net/ipv4/conf/eth0/arp_filter").strip() == "0"


@pytest.mark.row("clean-up")
def test_an_interface_without_a_mac(node: Node) -> None:
    """The missing MAC cannot be restored; everything else is."""
    node.up("a", [BRIDGE, TUNING])
    inside(node, f"{AWAY}; ip tuntap add dev eth0 mode tun; ip link set eth0 mtu 1400")
    answer = node.call("DEL", "a", TUNING)
    assert answer.status == 0 and "mac" in answer.stderr, answer
    assert inside(node, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start").strip() == "1024"
    assert node.host.ip("link", "show", "eth0", netns="a")[0]["mtu"] == 1500


@pytest.mark.row("clean-up")
def test_a_lo_of_another_name(node: Node) -> None:
    node.host.netns("a")
    assert node.call("ADD", "a", LOOPBACK).status == 0
    inside(node, "ip link set lo down; ip link set lo name away; ip link set away up")
    assert node.call("CHECK", "a", LOOPBACK, prevResult={"cniVersion": "1.1.0"}).code == 999
    answer = node.call("DEL", "a", LOOPBACK)
    assert (answer.status, answer.stderr) == (0, ""), answer
    assert "UP" not in node.host.ip("link", "show", "away", netns="a")[0]["flags"]


PAIR = {"net.ipv4.ip_local_port_range": "50000 60000", "net.ipv4.ip_unprivileged_port_start": "40000"}
DEPENDENT: Plugin = {"type": "tuning", "sysctl": PAIR}


def pair(node: Node) -> list[str]:
    return inside(node, "cd /proc/sys/net/ipv4; cat ip_local_port_range ip_unprivileged_port_start").split()


@pytest.mark.row("clean-up")
def test_sysctls_that_depend_on_each_other(node: Node) -> None:
    """The kernel refuses a range of ports that begins among the privileged ones, so the order matters."""
    node.up("a", [BRIDGE])
    before = pair(node)
    answer = node.call("ADD", "a", DEPENDENT, prevResult=node.results["a"])
    assert answer.status == 0, answer
    assert pair(node) == ["50000", "60000", "40000"]
    answer = node.call("DEL", "a", DEPENDENT)
    assert (answer.status, answer.stdout, answer.stderr) == (0, "", "")
    assert pair(node) == before


@pytest.mark.row("clean-up")
def test_an_add_that_fails_sets_back_in_reverse_order(node: Node) -> None:
    node.up("a", [BRIDGE])
    before = pair(node)
    wrong = {**DEPENDENT, "sysctl": {**PAIR, "net.ipv4.conf.IFNAME.arp_filter": "nonsense"}}
    answer = node.call("ADD", "a", wrong, prevResult=node.results["a"])
    assert answer.code == 999 and answer.stderr == "", answer
    assert pair(node) == before
    assert "/run/cni/tuning/a_eth0.json" not in node.host.snapshot()["files"]


@pytest.mark.row("clean-up")
@pytest.mark.parametrize(
    "script",
    [
        "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys",
        "mount -t tmpfs none /proc/sys/net",
    ],
    ids=["read-only", "hidden"],
)
def test_proc_sys_that_cannot_be_written(node: Node, script: str) -> None:
    """Only the note of route_localnet stays, with the setting, until a call can turn that off."""
    before = node.left()
    node.up("a", CHAIN)
    node.host.run("sh", "-ec", script)
    node.down("a", CHAIN)
    noted = [path for path in node.left()[2] if path.startswith("/run/cni/localnet/")]
    assert len(noted) == 1
    node.host.run("rm", *noted)
    assert node.left() == before


def garbled(node: Node, content: Any) -> Answer:
    node.up("a", [BRIDGE, TUNING])
    node.host.run("tee", "/run/cni/tuning/a_eth0.json", input=content)
    return node.call("DEL", "a", TUNING, prevResult=node.results["a"])


@pytest.mark.row("clean-up")
@pytest.mark.parametrize(
    "content",
    [
        '{"mac": "x", "mtu": "y", "promisc": 1, "sysctl": {"ipv4/../../kernel/core_pattern": "x", "ipv4/no_such": "1"}}',
        '{"mac": {}, "mtu": -1, "txQLen": 99999999999, "sysctl": {"ipv4/ip_forward": "nonsense", "": "", "x": 1}}',
        '{"sysctl": [], "pycni": 1}', "{", "",
    ],
)  # fmt: skip
def test_a_garbled_record(node: Node, content: str) -> None:
    answer = garbled(node, content)
    assert (answer.status, answer.stdout) == (0, ""), answer
    assert "/run/cni/tuning/a_eth0.json" not in node.host.snapshot()["files"]
