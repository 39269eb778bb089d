"""firewall's ingressPolicy at layer 3: by the gateway, by host ports, from other bridges and from uplinks."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from tests.firewalld import Firewalld
from tests.pretend import PretendHost
from tests.system.firewall_node import CLIENT, Node

pytestmark = pytest.mark.row("isolated")

HOST, HOST_6 = "192.0.2.1", "fd00:99::1"
POD, POD_6 = "10.1.0.2", "fd00:1::2"  # the first pod's
PORT = 8080  # of the host, to the pod's port 7
ISOLATED: dict[str, Any] = {"ingressPolicy": "isolated"}
# A neighbour in the bridge's segment, behind a link that is no veth.
SEGMENT = """
ip netns add segment
ip link add wire type veth peer name wire netns segment
ip address add 198.18.0.1/30 dev wire
ip -n segment address add 198.18.0.2/30 dev wire
ip link set wire up
ip -n segment link set wire up
ip -n segment link set lo up
ip link add up0 type vxlan id 3 dstport 4789 local 198.18.0.1 remote 198.18.0.2
ip -n segment link add eth0 type vxlan id 3 dstport 4789 local 198.18.0.2 remote 198.18.0.1
ip link set up0 up master cni1
ip -n segment address add 10.1.0.200/24 dev eth0
ip -n segment address add fd00:1::c8/64 dev eth0 nodad
ip -n segment link set eth0 up
ip -n segment route add 192.0.2.0/24 via 10.1.0.1
ip -n segment route add fd00:99::/64 via fd00:1::1
"""
# Sends an echo reply without a request: to the kernel it belongs to no connection.
UNASKED = """
import socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender:
    sender.sendto(struct.pack("!BBHHH", 0, 0, 0xFFFF, 0, 0), (sys.argv[1], 0))
"""


def bridged(host: PretendHost, *, through_ip: bool) -> None:
    """Set whether IP's hooks see bridged packets."""
    host.run("sh", "-c", f"for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do echo {int(through_ip)} >$f; done")


def by_gateway(host: PretendHost, pod: str) -> None:
    """Send a pod's packets to the first pod's addresses through the gateway's MAC, and the answers likewise."""
    found = host.ip("address", "show", "dev", "eth0", netns=pod)[0]["addr_info"]
    for own in (one["local"] for one in found if one["scope"] == "global"):
        host.run("ip", "-n", "a", "route", "replace", own, "via", "fd00:1::1" if ":" in own else "10.1.0.1")
    host.run("ip", "-n", pod, "route", "replace", f"{POD}/32", "via", "10.1.0.1")
    host.run("ip", "-n", pod, "route", "replace", f"{POD_6}/128", "via", "fd00:1::1")
    host.run("sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >$f; done")


def answered(node: Node, origin: str, *wanted: str, port: int = 7) -> list[int]:
    """Return the IP versions of the addresses that answer."""
    code = CLIENT.replace("(address, 7)", f"(address, {port})")
    where = ("ip", "netns", "exec", origin) if origin else ()
    out = node.host.run(*where, sys.executable, "-c", code, *wanted).stdout
    return [6 if ":" in address else 4 for address in out.split()]


def by_address(node: Node, origin: str) -> list[int]:
    return answered(node, origin, POD, POD_6)


def by_host_port(node: Node, origin: str, port: int = PORT) -> list[int]:
    return answered(node, origin, HOST, HOST_6, port=port)


def map_port(node: Node, how: str, port: int = PORT) -> None:
    """Redirect a host port to the first pod, by portmap's backends or by a stranger's rules."""
    if how == "stranger":
        rules = f"""
        ip daddr {HOST} tcp dport {port} dnat ip to {POD}:7
        ip6 daddr {HOST_6} tcp dport {port} dnat ip6 to [{POD_6}]:7
        """
        masquerade = "chain from_host { type nat hook postrouting priority 110\nct status dnat masquerade;\n}"
        table = f"table inet stranger {{ chain to_pod {{ type nat hook prerouting priority -100\n{rules}}}\n{masquerade}\n}}"
        node.host.run("nft", "-f", "-", input=table)
        return
    mappings = [{"hostPort": port, "containerPort": 7, "protocol": name} for name in ("tcp", "udp")]
    config = {"cniVersion": "1.0.0", "name": "net", "backend": how, "prevResult": node.results["a"],
              "runtimeConfig": {"portMappings": mappings}}  # fmt: skip
    answer = node.host.cni("portmap", "ADD", config, netns="/run/netns/a", container_id="a")
    assert answer.status == 0, answer


@pytest.fixture(params=["nftables", "iptables", "firewalld"])
def backend(request: pytest.FixtureRequest, node: Node) -> str:
    if request.param == "firewalld":
        Firewalld(node.host)
    return str(request.param)


@pytest.mark.parametrize("through_ip", [True, False], ids=["through iptables", "past iptables"])
def test_isolated_at_layer_3(node: Node, backend: str, through_ip: bool) -> None:
    """A neighbour reaches neither address nor host port; host and outside reach both as without the policy."""
    node.pod("a")
    node.pod("a2")
    bridged(node.host, through_ip=through_ip)
    by_gateway(node.host, "a2")
    map_port(node, "nftables")
    node.add("a2", backend=backend)
    node.add("a", backend=backend, admitHostPorts=True)
    assert by_address(node, "a2") == by_host_port(node, "a2") == [4, 6]
    node.delete("a")
    node.add("a", backend=backend, admitHostPorts=True, **ISOLATED)
    assert node.check("a", backend=backend, **ISOLATED) == ""
    assert by_address(node, "a2") == by_host_port(node, "a2") == []
    assert by_address(node, "") == by_host_port(node, "") == by_host_port(node, "outside") == [4, 6]
    assert node.reaches("a", "outside") == [4, 6]
    node.delete("a", netns="")
    if backend != "firewalld":  # which admits it no more
        assert by_address(node, "a2") == [4, 6]
    node.delete("a2", netns="")
    assert node.elements().keys() <= {"attachments", "hostports4", "hostports6", "hairpin4", "hairpin6"}
    assert "guard-" not in node.host.run("nft", "list", "ruleset").stdout


@pytest.mark.parametrize("how", ["iptables", "stranger"])
@pytest.mark.parametrize("through_ip", [True, False], ids=["through iptables", "past iptables"])
def test_whoever_mapped_the_port(node: Node, how: str, through_ip: bool) -> None:
    node.pod("a")
    node.pod("a2")
    bridged(node.host, through_ip=through_ip)
    map_port(node, how)
    node.add("a", backend="nftables")
    assert by_host_port(node, "a2") == [4, 6]
    node.delete("a")
    node.add("a", backend="nftables", **ISOLATED)
    assert by_host_port(node, "a2") == []
    assert by_host_port(node, "outside") == [4, 6]


@pytest.mark.parametrize("through_ip", [True, False], ids=["through iptables", "past iptables"])
def test_uplinks_pass(node: Node, through_ip: bool) -> None:
    """A neighbour behind an uplink is no pod: it reaches the pod directly, by the gateway and by the host port."""
    node.pod("a")
    node.host.run("sh", "-ec", SEGMENT)
    bridged(node.host, through_ip=through_ip)
    map_port(node, "nftables")
    node.add("a", backend="nftables", **ISOLATED)
    node.pod("a2")
    assert by_address(node, "segment") == by_host_port(node, "segment") == [4, 6]
    by_gateway(node.host, "segment")
    assert by_address(node, "segment") == by_host_port(node, "segment") == [4, 6]
    assert by_host_port(node, "a2") == []


def test_priorities_stay_as_they_were(node: Node) -> None:
    """A packet keeps its priority, and others get none, whether the host receives or forwards them."""
    node.pod("a")
    node.host.run("sh", "-ec", SEGMENT)
    node.add("a", backend="nftables", **ISOLATED)
    theirs = """
    table bridge stranger {
        chain first { type filter hook prerouting priority -400
            ip daddr 10.1.0.1 meta priority set 1:2
        }
        chain last { type filter hook postrouting priority 300
            meta priority 7079:6369 counter
        }
    }
    table inet stranger { chain host { type filter hook input priority 0
        iifname "cni1" meta priority 1:2 counter
        iifname "cni1" meta priority 7079:6369 counter
    }
    }
    """
    node.host.run("nft", "-f", "-", input=theirs)
    assert by_address(node, "segment") == [4, 6]
    assert answered(node, "segment", HOST, "10.1.0.1") == []
    shown = node.host.run("nft", "list", "ruleset").stdout
    bridge, kept, others = (int(number) for number in re.findall(r"counter packets (\d+)", shown)[-3:])
    assert (bridge, others) == (0, 0) and kept > 0, shown


def test_other_bridges_at_layer_3(node: Node) -> None:
    """A host port bypasses neither same-bridge nor isolated."""
    node.pod("a")
    node.pod("b", 2)
    map_port(node, "nftables")
    for policy in ("same-bridge", "isolated"):
        node.add("a", backend="nftables")
        node.add("b", bridge=2, backend="nftables")
        assert by_address(node, "b") == by_host_port(node, "b") == [4, 6]
        node.delete("a")
        node.delete("b")
        node.add("b", bridge=2, backend="nftables", ingressPolicy="same-bridge")
        node.add("a", backend="nftables", ingressPolicy=policy)
        assert by_address(node, "b") == by_host_port(node, "b") == []
        node.delete("a")
        node.delete("b")


@pytest.mark.parametrize("through_ip", [True, False], ids=["through iptables", "past iptables"])
def test_packets_of_no_connection(node: Node, through_ip: bool) -> None:
    """An unrequested answer through the gateway does not pass either; one from an uplink does."""
    node.pod("a")
    node.pod("a2")
    node.host.run("sh", "-ec", SEGMENT)
    bridged(node.host, through_ip=through_ip)
    node.add("a", backend="nftables", **ISOLATED)
    by_gateway(node.host, "a2")
    count = "table inet seen { chain c { type filter hook input priority 0\nicmp type echo-reply counter\n}\n}"
    node.host.run("ip", "netns", "exec", "a", "nft", "-f", "-", input=count)

    def heard(origin: str) -> int:
        node.host.run("ip", "netns", "exec", origin, sys.executable, "-c", UNASKED, POD)
        assert by_address(node, "") == [4, 6]  # comes behind it, so that it is not on its way any more
        shown = node.host.run("ip", "netns", "exec", "a", "nft", "list", "ruleset").stdout
        return int(shown.split("counter packets ")[1].split()[0])

    assert heard("a2") == 0
    if through_ip:
        assert heard("segment") == 1
    node.delete("a")
    assert heard("a2") > 0


def test_replies_to_an_isolated_pod(node: Node) -> None:
    """The pod reaches a neighbour without the policy through the host: by a service that masquerades."""
    node.pod("a2")
    node.pod("a")
    bridged(node.host, through_ip=False)
    table = """table inet stranger {
        chain to_pod { type nat hook prerouting priority -100
            ip daddr 203.0.113.7 tcp dport 7 dnat ip to 10.1.0.2:7
        }
        chain from_host { type nat hook postrouting priority 110
            ct status dnat masquerade
        }
    }
    """
    node.host.run("nft", "-f", "-", input=table)
    node.add("a", backend="nftables", **ISOLATED)
    assert answered(node, "a", "203.0.113.7") == [4]


def test_open_pods_of_other_bridges(node: Node) -> None:
    """They are no neighbours, and reach the pod as all hosts outside its bridge do."""
    node.add("a", backend="nftables", **ISOLATED)
    node.add("open", bridge=3, backend="nftables")
    assert node.reaches("open", "a") == node.reaches("a", "open") == [4, 6]


def test_a_pod_from_the_release_before(node: Node) -> None:
    """The next ADD on the network isolates it at layer 3 as well."""
    node.pod("a")
    node.pod("a2")
    bridged(node.host, through_ip=False)
    by_gateway(node.host, "a2")
    map_port(node, "nftables")
    node.add("a", backend="nftables", **ISOLATED)
    guard = 'iifname "cni1" return; iifname @bridges drop'
    lines = [
        f"add chain inet pycni guard-old {{ {guard}; }}",
        "flush map inet pycni guarded4",
        "flush map inet pycni guarded6",
    ]
    lines += [f'add element inet pycni guarded{"6" if ":" in one else "4"} {{ {one} comment "net/a/eth0" : jump guard-old }}'
              for one in (POD, POD_6)]  # fmt: skip
    node.host.run("nft", "-f", "-", input="\n".join(lines))
    assert by_address(node, "a2") == [4, 6]
    node.add("a2", backend="nftables")
    assert by_address(node, "a2") == []
    assert node.check("a", backend="nftables", **ISOLATED) == ""
