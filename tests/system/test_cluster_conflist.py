"""Conflists that the agent renders, in the hands of a runtime and of the plugins."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster import conflist, settings
from shared.cluster.leases import holders, used
from shared.cluster.model import Cidr, Kind, Pool, Range, Snapshot
from shared.cluster.node import NodeHost
from tests.node import Node
from tests.own_network import own_network
from tests.pretend import PretendHost, read_line

POOL = Pool("pods", Kind.ROUTED, (Range(ip_network("10.244.0.0/16"), 30), Range(ip_network("fd00:244::/48"), 126)))
V4 = [ip_network(f"10.244.0.{4 * number}/30") for number in range(4)]
V6 = [ip_network(f"fd00:244::{number:x}0/126") for number in range(4)]
LAN = Pool("pods", Kind.SEGMENT, (Range(ip_network("192.168.0.0/24"), 30, ip_address("192.168.0.254")),))
BRIDGE: dict[str, Any] = {
    "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True, "ipam": {"type": "host-local"},
}  # fmt: skip
PTP: dict[str, Any] = {"type": "ptp", "ipMasq": True, "mtu": "auto", "ipam": {"type": "host-local"}}
SEGMENT: dict[str, Any] = {"type": "bridge", "bridge": "lan0", "ipam": {"type": "host-local"}}
TARGET = "etc/cni/net.d/10-pods.conflist"


class Network(Node):
    """A host with a network of one plugin, published for some blocks; its plugins are called one after the other."""

    def __init__(self, host: PretendHost, directory: Path, plugin: dict[str, Any], pool: Pool = POOL) -> None:
        super().__init__(host)
        self.pool = pool
        self.target = host.root / TARGET
        self.template = directory / "pods.template"
        raw = {"cniVersion": "1.1.0", "name": "pods", "plugins": [plugin, {"type": "tuning", "sysctl": {}}]}
        self.template.write_text(json.dumps(raw))

    def publish(self, *cidrs: Cidr) -> None:
        template = conflist.read(self.template, "pods")
        exempt = conflist.exempt([self.pool])
        conflist.publish(template, self.target, self.pool, cidrs, mtu=1400, unmasqueraded=exempt)
        self.config = {"cniVersion": "1.1.0", "name": "pods", **json.loads(self.target.read_text())["plugins"][0]}

    def used(self, *cidrs: Cidr) -> list[int]:
        directory = str(self.host.root / "var/lib/cni/networks")
        return list(used(directory, "pods", cidrs).values())

    def holder(self, cidr: Cidr) -> list[str]:
        found = holders(str(self.host.root / "var/lib/cni/networks"), "pods", cidr)
        return [lease.container_id if lease else "" for lease in found.values()]


@pytest.fixture(params=[BRIDGE, PTP], ids=["bridge", "ptp"])
def net(request: pytest.FixtureRequest, host: PretendHost, tmp_path: Path) -> Network:
    return Network(host, tmp_path, request.param)


def test_the_suite_accepts_it(net: Network) -> None:
    net.publish(*V4, *V6)
    done = net.host.run(f"{net.host.bin_dir}/cnitool", "validate", f"/{TARGET}", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert net.call("STATUS", "").status == 0


def test_the_first_block_is_the_first_to_lease_from(net: Network) -> None:
    """With blocks for one IPv4 address each: until they are full."""
    net.publish(V4[2], V6[2], V4[1])
    net.add("a")
    net.add("b")
    assert net.used(V4[2], V4[1], V6[2]) == [1, 1, 2]
    assert (net.holder(V4[2]), net.holder(V4[1])) == (["a"], ["b"])
    assert net.call("ADD", "c").code == 11
    net.publish(V4[2], V6[2], V4[1], V4[0], V6[0])
    net.add("c")
    assert (net.holder(V4[0]), net.holder(V6[0])) == (["c"], ["c"])


def test_leases_of_a_range_that_left(net: Network) -> None:
    """They stay while their pods live, and DEL frees them; CHECK passes; nobody leases from the range any more."""
    net.publish(V4[0], V6[0])
    net.add("a")
    net.publish(V4[1], V6[1])
    net.add("b")
    assert net.used(V4[0], V6[0], V4[1], V6[1]) == [1, 1, 1, 1]
    assert net.check("a") == net.check("b") == ""
    assert net.call("ADD", "c").code == 11
    net.delete("a")
    assert net.used(V4[0], V6[0], V4[1], V6[1]) == [0, 0, 1, 1]


def test_a_block_that_is_given_back_leaves_no_address(net: Network) -> None:
    """The host's own network would hide the route to the block's next owner."""
    net.publish(V4[0], V6[0])
    net.add("a")
    net.publish(V4[1], V6[1])
    net.add("b")
    net.delete("a")
    words = [str(V4[0]), str(V6[0])]
    script = "import sys; from ipaddress import *; from shared.cluster.gateways import *;"
    script += "print(remove(map(ip_network, sys.argv[1:])))"
    is_bridge = net.config["type"] == "bridge"
    assert net.host.python(script, *words).strip() == str(["cni0"] * 2 if is_bridge else [])
    assert net.host.python(script, *words).strip() == "[]"
    held = [one["local"] for link in net.host.ip("address") for one in link["addr_info"]]
    assert {"10.244.0.1", "fd00:244::1"}.isdisjoint(held)
    assert "10.244.0.5" in held
    assert net.pings("b", "10.244.0.5")
    routes = [*net.host.ip("route", "show", words[0]), *net.host.ip("-6", "route", "show", words[1])]
    assert routes == []


HOLD_ANYCAST = """
import socket, struct, sys
place = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
join = socket.inet_pton(socket.AF_INET6, sys.argv[1]) + struct.pack("I", socket.if_nametoindex("cni0"))
place.setsockopt(socket.IPPROTO_IPV6, 27, join)  # IPV6_JOIN_ANYCAST
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("net", [BRIDGE], indirect=True)
def test_a_block_that_is_given_back_leaves_no_anycast_route(net: Network) -> None:
    """The kernel keeps it if it has counted the network twice; a socket does the same here."""
    net.publish(V4[0], V6[0])
    net.add("a")
    first = str(V6[0].network_address)
    holder = net.host.popen(sys.executable, "-c", HOLD_ANYCAST, first)
    assert read_line(holder) == b"ready\n"
    net.delete("a")
    script = (
        "import sys; from ipaddress import *; from shared.cluster.gateways import *; remove([ip_network(sys.argv[1])])"
    )
    net.host.python(script, str(V6[0]))
    routes = net.host.run("ip", "-6", "route", "show", "table", "local", "type", "anycast").stdout
    assert f"anycast {first} " not in routes and "anycast fe80:: dev cni0" in routes


def test_garbage_of_a_range_that_left(net: Network) -> None:
    """GC frees the leases of dead pods there, and of no others."""
    net.publish(V4[0], V4[1], V6[0])
    net.add("a")
    net.add("b")
    net.kill("a")
    net.publish(V4[2], V6[2])
    net.collect("b")
    assert net.used(V4[0], V4[1], V6[0]) == [0, 1, 1]


def test_without_a_range_pods_can_go_but_not_come(net: Network) -> None:
    net.publish(V4[0], V6[0])
    net.add("a")
    net.publish()
    assert net.call("ADD", "b").code == 7
    assert net.call("STATUS", "").code == 50
    net.delete("a")
    assert net.used(V4[0], V6[0]) == [0, 0]


def test_blocks_of_a_segment(host: PretendHost, tmp_path: Path) -> None:
    """Pods of all blocks have the segment's own network and gateway; its first and last addresses stay free."""
    net = Network(host, tmp_path, SEGMENT, LAN)
    first, last = ip_network("192.168.0.0/30"), ip_network("192.168.0.252/30")
    net.publish(last, first)
    results = [net.add(pod) for pod in "abcd"]
    assert [result["ips"][0]["address"] for result in results] == [
        "192.168.0.252/24", "192.168.0.253/24", "192.168.0.1/24", "192.168.0.2/24",
    ]  # fmt: skip
    assert {result["ips"][0]["gateway"] for result in results} == {"192.168.0.254"}
    assert conflist.published(net.target) == (last, first)
    assert net.pings("a", "192.168.0.1")
    net.publish(last)
    net.delete("c")
    assert net.used(first, last) == [1, 2]


def test_the_mtu_stays_while_no_link_has_the_nodes_address(tmp_path: Path) -> None:
    template, target = tmp_path / "template", tmp_path / "conflist"
    template.write_text(json.dumps({"name": "pods", "plugins": [{**PTP, "mtu": "auto"}]}))
    chosen = settings.parse({
        "engine": "etcd", "etcd": {"endpoints": ["http://127.0.0.1:1"]}, "addresses": ["192.0.2.1"],
        "networks": {"pods": {"template": str(template), "conflist": str(target)}},
    })  # fmt: skip
    found = []
    with own_network():
        host = NodeHost(chosen, "node", "0" * 32, directory=tmp_path)
        subprocess.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1"], check=True)
        for change in ("add", "del"):
            subprocess.run(["ip", "addr", change, "192.0.2.1/24", "dev", "up0"], check=True)
            host.publish("pods", (V4[0],), Snapshot({"pods": POOL}, is_current=True))
            found.append(json.loads(target.read_bytes())["plugins"][0]["mtu"])
    assert found == [1450, 1450]
