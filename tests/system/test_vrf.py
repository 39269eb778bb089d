"""vrf: packets, addresses and routes of an interface in a VRF, its table, and the state after failures and DEL."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.node import DEAF
from tests.system.two_networks import SECOND, TwoNetworks, static

BLUE = {"vrfname": "blue"}
ROUTES = [
    {"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.9.0.0/16", "scope": 253}, {"dst": "10.10.0.0/16", "table": 77},
]  # fmt: skip


needs_vrf = pytest.mark.kernel_vrf


class Node(TwoNetworks):
    """A node with a pod in two networks, the second in a VRF."""

    TYPE = "vrf"

    def vrfs(self) -> dict[str, int]:
        """Return the pod's VRFs and their tables."""
        links = self.host.ip("link", "show", "type", "vrf", netns="a")
        return {one["ifname"]: one["linkinfo"]["info_data"]["table"] for one in links}

    def addresses_of(self, link: str) -> set[str]:
        """Return a link's addresses that are usable, but for link-local ones."""
        (shown,) = self.host.ip("address", "show", link, netns="a")
        usable = [one for one in shown["addr_info"] if not one.get("tentative") and one["scope"] == "global"]
        return {f"{one['local']}/{one['prefixlen']}" for one in usable}

    def state(self) -> Any:
        """Return all that an attachment changes in the pod, and the host's state."""
        routes = {table: self.routes(table) for table in ("main", "1", "77")}
        return self.vrfs(), self.addresses_of("eth1"), routes, self.host.snapshot()


@needs_vrf
def test_the_interface_keeps_addresses_and_routes_in_its_vrf(node: Node) -> None:
    """Also link-scope routes, IPv6, and those of a table of their own; other interfaces' routes stay."""
    node.attach("eth1", SECOND | {"routes": ROUTES})
    before = node.routes()
    result = node.add("a", BLUE, ifname="eth1")
    assert result == node.config["prevResult"] and node.vrfs() == {"blue": 1}
    assert node.addresses_of("eth1") == {"10.2.0.5/24", "fd00:2::5/64"}
    assert {
        "default 10.2.0.1",
        "default fd00:2::1",
        "10.9.0.0/16",
        "10.2.0.0/24 10.2.0.5",
        "fd00:2::/64",
    } <= node.routes("1")
    assert node.routes() == set() and node.routes("77") == {"10.10.0.0/16 10.2.0.1"}
    assert node.routes(link="eth0") >= {"default 10.1.0.1", "default fd00:1::1"}
    assert node.router(device="blue") == node.router("fd00:2::5", device="blue") == "router21"
    assert node.router("10.2.0.5", to="10.2.0.2", device="blue") == "router22"
    assert node.router() == node.router("fd00:1::5") == "router11"
    assert node.check("a", BLUE, ifname="eth1") == ""
    bridge = {"type": "bridge", "bridge": "br2", "ipam": SECOND, "name": "net-eth1", "prevResult": result}
    assert node.call("CHECK", "a", bridge, ifname="eth1").status == 0
    for _ in range(2):
        node.delete("a", BLUE, ifname="eth1")
        assert node.vrfs() == {} and node.addresses_of("eth1") == {"10.2.0.5/24", "fd00:2::5/64"}
        assert node.routes() == before and node.routes("77") == {"10.10.0.0/16 10.2.0.1"}


@needs_vrf
def test_two_interfaces_share_a_vrf(node: Node) -> None:
    """The last DEL deletes it. An equal table is accepted, another one refused."""
    node.second(**BLUE, table=1500)
    node.attach("eth2", static("10.2.0.6/24"))
    node.refused("a", 7, '"table": 1501 is not the table of VRF blue, which is 1500', ifname="eth2", **BLUE, table=1501)
    node.add("a", ifname="eth2", **BLUE, table=1500)
    node.add("a", ifname="eth2", **BLUE)  # again
    assert node.routes("1500", "eth2") >= {"10.2.0.0/24 10.2.0.6"}
    node.delete("a", BLUE, ifname="eth1")
    assert node.vrfs() == {"blue": 1500} and node.addresses_of("eth2") == {"10.2.0.6/24"}
    node.host.run("ip", "-n", "a", "link", "del", "eth2")
    node.delete("a", BLUE, ifname="eth2")
    assert node.vrfs() == {}


@needs_vrf
def test_tables_in_use(node: Node) -> None:
    """Tables with a route, a rule or a VRF are passed over, and refused if they are named."""
    node.host.run("ip", "-n", "a", "route", "add", "unreachable", "10.8.0.0/16", "table", "1")
    node.host.run("ip", "-n", "a", "-6", "rule", "add", "from", "fd00:8::1", "lookup", "2")
    node.host.run("ip", "-n", "a", "link", "add", "red", "type", "vrf", "table", "3")
    node.attach("eth1", SECOND)
    for table, user in ((1, "a route"), (2, 'the rule "from fd00:8::1"'), (3, "VRF red")):
        node.refused("a", 7, f'"table": {table} is in use by {user}', ifname="eth1", **BLUE, table=table)
    node.refused("a", 999, "link eth0 is not a VRF, but veth", ifname="eth1", vrfname="eth0")
    node.add("a", BLUE, ifname="eth1")
    assert node.vrfs() == {"red": 3, "blue": 4}
    node.refused("a", 999, "link eth1 is in blue already, and cannot join red", ifname="eth1", vrfname="red")


@needs_vrf
def test_a_failed_add_leaves_everything_as_it_was(node: Node) -> None:
    node.attach("eth1", SECOND | {"routes": ROUTES})
    before = node.state()
    assert node.call("ADD", "a", BLUE, ifname="eth1", prefix=DEAF).status == 1
    assert node.state() == before


@needs_vrf
def test_check_names_each_difference(node: Node) -> None:
    node.second(SECOND | {"routes": ROUTES[:1]}, **BLUE)
    for words, told in (
        ("route del default table 1", "route to 0.0.0.0/0 is missing"),
        ("address del fd00:2::5/64 dev eth1", "address fd00:2::5/64 is missing on eth1"),
        ("link set eth1 nomaster", "link eth1 is not in VRF blue"),
        ("link set blue down", "VRF blue is down"),
        ("link del blue", "link blue is missing"),
    ):
        node.host.run("ip", "-n", "a", *words.split())
        assert told in node.check("a", BLUE, ifname="eth1")
    node.delete("a", BLUE, ifname="eth1")


@needs_vrf
@pytest.mark.parametrize("first", ["reference", "ours"])
def test_hand_over(node: Node, reference_bin: str, first: str) -> None:
    node.attach("eth1", SECOND)
    node.config |= {"cniVersion": "1.0.0", "prevResult": {**node.config["prevResult"], "cniVersion": "1.0.0"}}
    adds, deletes = (reference_bin, None) if first == "reference" else (None, reference_bin)
    assert node.call("ADD", "a", BLUE, ifname="eth1", bin_dir=adds).status == 0
    assert node.check("a", BLUE, ifname="eth1") == "" and node.vrfs() == {"blue": 1}
    assert node.call("DEL", "a", BLUE, ifname="eth1", bin_dir=deletes).status == 0
    assert node.vrfs() == {}


@needs_vrf
def test_status(node: Node) -> None:
    assert node.call("STATUS", "", BLUE).status == 0
    assert node.call("STATUS", "", BLUE, table=254).code == 7


def test_refused_before_anything_is_touched(node: Node) -> None:
    node.refused("a", 7, '"vrfname" is required')
    node.refused("a", 7, '"table": 253 is the kernel', BLUE, table=253)
    node.refused("a", 7, '"prevResult" is required', BLUE, prevResult=None)
    assert node.call("DEL", "gone", BLUE, netns="/run/netns/gone").status == 0


# Writes the record of a call that moved the interface out of a table, and was killed before it restored the routes.
RECORD = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from shared.cni import record
from shared.net import links, netns, vrfs
from shared.net.netlink import Netlink
pod = netns.open_netns("/run/netns/a")
namespace = pod.identity()
with pod:
    inside = Netlink()
    kept = vrfs.belongings(inside, links.require(inside, "eth1"), table := int(sys.argv[2]))
for route in kept["routes"]:
    if route["RTA_TABLE"] == 254:
        route.update(table=table, RTA_TABLE=table)
marks = {"network": "net", "containerID": "a", "ifname": "eth1", "namespace": namespace}
record.write("/run/cni/vrf/a_eth1.json", {**kept, "pycni": marks})
"""


def test_a_killed_delete_is_finished_by_the_next(node: Node) -> None:
    """The interface has left, and the routes of the record are missing: they come back, once."""
    node.attach("eth1", SECOND | {"routes": ROUTES[2:3]})
    node.host.run("ip", "-n", "a", "route", "add", "10.50.0.0/16", "via", "inet6", "fd00:2::1", "dev", "eth1")
    before = node.routes()
    node.host.run(sys.executable, "-c", RECORD, str(ROOT), "1")
    for route in ("10.9.0.0/16", "10.50.0.0/16"):
        node.host.run("ip", "-n", "a", "route", "del", route, "dev", "eth1")
    node.delete("a", BLUE, ifname="eth1")
    assert node.routes() == before and not list(node.host.root.glob("run/cni/vrf/*"))
    node.host.run("ip", "-n", "a", "route", "del", "10.9.0.0/16", "dev", "eth1")
    node.delete("a", BLUE, ifname="eth1")
    assert node.routes() == before - {"10.9.0.0/16"}


@needs_vrf
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_killed_add_is_finished_by_the_next_call(node: Node, verb: str) -> None:
    """The interface has joined, and the kernel has deleted its routes: the next call gives them back where it leaves it."""
    node.attach("eth1", SECOND | {"routes": ROUTES})
    node.host.run("ip", "-n", "a", "route", "add", "10.60.0.0/16", "via", "10.2.0.1", "dev", "eth1")
    before = node.state()
    node.host.run(sys.executable, "-c", RECORD, str(ROOT), "254")
    for words in ("add blue type vrf table 1", "set blue up", "set eth1 master blue"):
        node.host.run("ip", "-n", "a", "link", *words.split())
    assert "10.60.0.0/16 10.2.0.1" not in node.routes("1")
    if verb == "ADD":
        node.add("a", BLUE, ifname="eth1")
        assert {"10.60.0.0/16 10.2.0.1", "default fd00:2::1", "10.9.0.0/16"} <= node.routes("1")
        assert node.routes() == set() and node.routes("77") == {"10.10.0.0/16 10.2.0.1"}
        assert not list(node.host.root.glob("run/cni/vrf/*"))
    node.delete("a", BLUE, ifname="eth1")
    assert node.state() == before and not list(node.host.root.glob("run/cni/vrf/*"))


def test_gc_deletes_the_records_of_lost_pods(node: Node) -> None:
    node.attach("eth1", SECOND)
    node.host.run(sys.executable, "-c", RECORD, str(ROOT), "1")
    node.collect("a", **BLUE)
    assert not list(node.host.root.glob("run/cni/vrf/*"))
