"""sbr: the link and gateway of packets by their source, the rules and tables, and the state after failures and DEL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.node import DEAF
from tests.pretend import read_line, until
from tests.system.two_networks import SECOND, TwoNetworks, static


class Node(TwoNetworks):
    """A node with a pod in two networks, the second with sbr."""

    TYPE = "sbr"

    def state(self) -> Any:
        """Return the pod's rules, and all state that a snapshot has."""
        return self.rules(), self.host.snapshot(["a"])


def test_packets_leave_by_the_link_and_gateway_of_their_source(node: Node) -> None:
    result = node.second()
    assert result == node.config["prevResult"]
    assert node.router("10.1.0.5") == node.router("fd00:1::5") == "router11"
    assert node.router("10.2.0.5") == node.router("fd00:2::5") == "router21"
    assert node.router() == "router11"
    assert node.rules() == [("10.2.0.5", "100"), ("fd00:2::5", "101")]
    assert node.routes("100") == {"default 10.2.0.1", "10.2.0.0/24 10.2.0.5"}
    assert node.routes("101") == {"default fd00:2::1", "fd00:2::/64"}
    assert node.routes() == set()
    assert node.check("a", ifname="eth1") == ""


@pytest.mark.parametrize("by", ["gateways", "ips", "routes", "main"])
def test_gateways(node: Node, by: str) -> None:
    """The gateway is that of the configuration, else of the address, else of a default route."""
    ipam = static("10.2.0.5/24", "fd00:2::5/64", gateway=2 if by == "ips" else 1 if by == "gateways" else 0)
    keys = {"gateways": ["10.2.0.2", "fd00:2::2"]} if by == "gateways" else {}
    if by in ("routes", "main"):
        ipam["routes"] = [{"dst": "0.0.0.0/0", "gw": "10.2.0.2"}, {"dst": "::/0", "gw": "fd00:2::2"}]
    node.attach("eth1", ipam)
    if by == "routes":
        for family, words in (("-4", "default via 10.2.0.2"), ("-6", "default via fd00:2::2 dev eth1")):
            node.host.run("ip", "-n", "a", family, "route", "del", *words.split())
    if by == "main":
        del node.config["prevResult"]["routes"]
    node.add("a", keys, ifname="eth1")
    assert node.router("10.2.0.5") == node.router("fd00:2::5") == "router22"
    assert node.router("10.1.0.5") == node.router("fd00:1::5") == "router11"
    assert node.routes() == set()
    assert node.check("a", ifname="eth1") == ""


def test_link_local_gateways_are_told_apart_by_their_link(node: Node) -> None:
    """Both links have a default route through fe80::1, as routers announce it; each table gets its own link's."""
    node.attach("eth1", SECOND | {"routes": []})
    for link, priority in (("eth0", 500), ("eth1", 600)):
        words = ("-6", "route", "add", "default", "via", "fe80::1", "dev", link, "metric", str(priority))
        node.host.run("ip", "-n", "a", *words)
    node.add("a", ifname="eth1")
    assert node.routes("101") == {"default fe80::1", "fd00:2::/64"} and node.routes() == set()
    assert "default fe80::1" in node.routes(link="eth0")
    assert node.rules() == [("10.2.0.5", "100"), ("fd00:2::5", "101")]
    node.delete("a", ifname="eth1")
    assert "default fe80::1" in node.routes() & node.routes(link="eth0")


def test_an_address_under_duplicate_address_detection(node: Node) -> None:
    """The kernel refuses it as the source of a route until the detection ends."""
    result = node.attach("eth1", SECOND)
    node.host.run("ip", "netns", "exec", "a", "sysctl", "-qw", "net.ipv6.conf.eth1.accept_dad=1")
    node.host.run("ip", "-n", "a", "address", "add", "fd00:7::7/64", "dev", "eth1")
    (shown,) = node.host.ip("-6", "address", "show", "eth1", "tentative", netns="a")
    assert [one["local"] for one in shown["addr_info"] if one] == ["fd00:7::7"]
    late = {**result["ips"][-1], "address": "fd00:7::7/64", "gateway": "fd00:7::1"}
    node.add("a", ifname="eth1", addSourceHints=True, prevResult={**result, "ips": [*result["ips"], late]})
    assert "fd00:7::/64 fd00:7::7" in node.routes() and ("fd00:7::7", "102") in node.rules()


def test_without_a_gateway_the_own_networks_are_reached(node: Node) -> None:
    node.attach("eth1", static("10.2.0.5/24", gateway=0))
    answer = node.call("ADD", "a", ifname="eth1")
    assert (
        answer.status == 0
        and 'no gateway for 10.2.0.5/24: it reaches its own networks alone; set "gateways"' in answer.stderr
    )
    assert node.router("10.2.0.5", to="10.2.0.2") == "router22"
    assert node.routes("100") == {"10.2.0.0/24 10.2.0.5"}


def test_several_addresses_have_a_table_each(node: Node) -> None:
    """Two of one network share its gateway; a third one has its own."""
    node.host.run("ip", "-n", "router22", "address", "add", "10.3.0.2/24", "dev", "eth0")
    ipam = static("10.2.0.5/24", "10.2.0.6/24", "fd00:2::5/64", "fd00:2::6/64", routes=[{"dst": "10.9.0.0/16"}])
    ipam["addresses"].append({"address": "10.3.0.5/24", "gateway": "10.3.0.2"})
    node.second(ipam)
    assert [table for _, table in node.rules()] == ["100", "101", "104", "102", "103"]
    sources = ("10.2.0.5", "10.2.0.6", "fd00:2::5", "fd00:2::6", "10.3.0.5")
    assert [node.router(source) for source in sources] == [*["router21"] * 4, "router22"]
    assert node.routes("104") == {"default 10.3.0.2", "10.3.0.0/24 10.3.0.5"}
    assert "10.9.0.0/16 10.2.0.1" in node.routes("101") and node.check("a", ifname="eth1") == ""


def test_source_hints_keep_the_networks_in_the_main_table(node: Node) -> None:
    """A socket without a source reaches the second network's neighbours by its link; all else leaves by the first."""
    node.second(addSourceHints=True)
    assert node.routes() == {"10.2.0.0/24 10.2.0.5", "fd00:2::/64 fd00:2::5"}
    assert node.router(to="10.2.0.2") == node.router(to="fd00:2::2") == "router22"
    assert node.router() == "router11" and node.router("10.2.0.5") == "router21"
    assert node.check("a", ifname="eth1") == ""


def test_a_table_of_the_configuration(node: Node) -> None:
    """The routes stay; the table has those of IPAM, and the default routes through `gateways`."""
    ipam = static("10.2.0.5/24", "fd00:2::5/64", routes=[{"dst": "192.0.2.1/32", "gw": "10.2.0.2", "table": 5001}])
    node.second(ipam, table=5001, gateways=["fd00:2::1"], priority=77)
    assert node.rules() == [("10.2.0.5", "5001"), ("fd00:2::5", "5001")]
    assert {one["priority"] for one in node.host.ip("rule", netns="a") if one["src"] != "all"} == {77}
    assert node.routes() == {"10.2.0.0/24 10.2.0.5", "fd00:2::/64"}
    assert node.router("10.2.0.5") == "router22" and node.router("fd00:2::5") == "router21"
    node.delete("a", table=5001, ifname="eth1")
    assert node.rules() == [] and node.routes("5001") == {"192.0.2.1 10.2.0.2"}


def test_tables_in_use_are_passed_over(node: Node) -> None:
    node.host.run("ip", "-n", "a", "route", "add", "unreachable", "10.8.0.0/16", "table", "100")
    node.host.run("ip", "-n", "a", "-6", "rule", "add", "from", "fd00:8::1", "lookup", "101")
    node.second()
    assert ("10.2.0.5", "102") in node.rules() and ("fd00:2::5", "103") in node.rules()


def test_concurrent_calls_choose_different_tables(node: Node) -> None:
    """Calls for several interfaces of a pod; another process holds the lock while they begin."""
    results = {}
    for number in range(1, 5):
        results[f"eth{number}"] = node.attach(f"eth{number}", static(f"10.2.0.{10 + number}/24"))
    script = "exec 9</run/netns/a; flock 9; echo ready; read -r _; exec 9<&-; while read -r _; do :; done"
    holder = node.host.popen("sh", "-c", script)
    assert read_line(holder) == b"ready\n"
    with ThreadPoolExecutor() as pool:
        keys = {ifname: {"prevResult": result} for ifname, result in results.items()}
        calls = [pool.submit(node.call, "ADD", "a", keys[ifname], ifname=ifname) for ifname in keys]
        until(lambda: len(node.host.run("pgrep", "-f", "bin/sbr").stdout.split()) >= 4)
        holder.communicate(b"\n")
        assert [call.result().status for call in calls] == [0] * 4
    assert sorted(table for _, table in node.rules()) == ["100", "101", "102", "103"]


def test_a_repeated_add_makes_no_rule_twice(node: Node) -> None:
    node.second()
    before = node.rules(), node.routes("100"), node.routes("101"), node.routes()
    node.add("a", ifname="eth1")
    assert (node.rules(), node.routes("100"), node.routes("101"), node.routes()) == before
    node.host.run("ip", "-n", "a", "rule", "add", "from", "10.2.0.5", "lookup", "100")
    node.host.run("ip", "-n", "a", "rule", "add", "from", "10.2.0.5", "lookup", "100")
    assert len(node.rules()) == 4
    node.delete("a", ifname="eth1")
    assert node.rules() == []


def test_a_left_over_rule_from_the_address_is_removed(node: Node) -> None:
    node.host.run("ip", "-n", "a", "rule", "add", "from", "10.2.0.5", "lookup", "77")
    node.second()
    assert node.rules() == [("10.2.0.5", "100"), ("fd00:2::5", "101")]


@pytest.mark.parametrize("what", ["rule", "route", "link"])
def test_check_names_each_difference(node: Node, what: str) -> None:
    node.second()
    words = {"rule": "rule del from 10.2.0.5", "route": "route del default table 100", "link": "link del eth1"}[what]
    node.host.run("ip", "-n", "a", *words.split())
    told = {
        "rule": "rule from 10.2.0.5 lookup 100 is missing", "route": "route to 0.0.0.0/0 via 10.2.0.1 is missing in table 100",
        "link": "link eth1 is missing in /run/netns/a",
    }  # fmt: skip
    assert node.check("a", ifname="eth1") == told[what]


def test_check_of_the_plugin_before_accepts_the_moved_routes(node: Node) -> None:
    result = node.second(SECOND | {"routes": [{"dst": "10.9.0.0/16"}, {"dst": "fd00:9::/64"}]})
    bridge = {"type": "bridge", "bridge": "br2", "ipam": SECOND, "name": "net-eth1", "prevResult": result}
    assert node.call("CHECK", "a", bridge, ifname="eth1").status == 0


def test_a_failed_add_leaves_everything_as_it_was(node: Node) -> None:
    node.attach("eth1", SECOND | {"routes": [{"dst": "10.9.0.0/16"}]})
    before = node.state()
    assert node.call("ADD", "a", ifname="eth1", prefix=DEAF).status == 1
    assert node.state() == before
    node.refused("a", 999, "no address for interface eth7", ifname="eth7")
    node.refused("a", 999, "refused RTM_NEWROUTE.*gateway", ifname="eth1", gateways=["10.77.0.1"])
    node.refused("a", 7, '"gateways": .* two of IPv4', ifname="eth1", gateways=["10.2.0.1", "10.2.0.2"])
    node.refused("a", 7, '"table": 254 is the kernel\'s', ifname="eth1", table=254)
    node.refused("a", 7, '"prevResult" is required', ifname="eth1", prevResult=None)
    assert node.state() == before


@pytest.mark.parametrize("gone", ["nothing", "result", "link", "namespace", "path"])
def test_del_needs_neither_namespace_nor_result(node: Node, gone: str) -> None:
    node.second()
    del node.config["prevResult"]
    if gone == "link":
        node.host.run("ip", "-n", "a", "link", "del", "eth1")
    if gone == "namespace":
        node.kill("a")
    for _ in range(2):
        node.delete("a", ifname="eth1", netns="" if gone == "path" else None)
    assert not list(node.host.root.glob("run/cni/sbr/*"))
    if gone == "namespace":
        assert not (node.host.root / "run/netns/a").exists()
    elif gone != "path":
        assert node.rules() == [] and node.routes("100") == node.routes("101") == set()
        assert node.routes() == (set() if gone == "link" else {"10.2.0.0/24 10.2.0.5", "fd00:2::/64"})
        assert node.router("10.1.0.5") == "router11"


def test_gc_deletes_the_records_of_lost_pods(node: Node) -> None:
    node.second()
    node.collect("a")
    assert node.host.root.joinpath("run/cni/sbr/a_eth1.json").exists() is False  # eth0 of a is valid, eth1 is not


@pytest.mark.parametrize("first", ["reference", "ours"])
def test_hand_over(node: Node, reference_bin: str, first: str) -> None:
    node.attach("eth1", SECOND)
    node.config |= {"cniVersion": "1.0.0", "prevResult": {**node.config["prevResult"], "cniVersion": "1.0.0"}}
    adds, deletes = (reference_bin, None) if first == "reference" else (None, reference_bin)
    assert node.call("ADD", "a", ifname="eth1", bin_dir=adds).status == 0
    assert node.rules() == [("10.2.0.5", "100"), ("fd00:2::5", "101")]
    assert node.router("10.2.0.5") == node.router("fd00:2::5") == "router21"
    if first == "reference":
        assert node.check("a", ifname="eth1") == ""
    assert node.call("DEL", "a", ifname="eth1", bin_dir=deletes).status == 0
    assert node.rules() == []


def test_status(node: Node) -> None:
    assert node.call("STATUS", "").status == 0
    assert node.call("STATUS", "", table=255).code == 7


def lines(node: Node, *words: str) -> list[str]:
    """Return the routes of eth1, as `ip` writes them, but for the table."""
    shown = node.host.run("ip", "-n", "a", "route", "show", "dev", "eth1", *words).stdout
    return sorted(" ".join(line.split()) for line in shown.splitlines())


def test_routes_are_copied_whole(node: Node) -> None:
    """A gateway of the other family, and metrics; into the table and back."""
    node.attach("eth1", SECOND)
    for words in (
        "10.50.0.0/16 via inet6 fd00:2::1", "10.51.0.0/16 via 10.2.0.1 mtu lock 1400 initcwnd 20",
        "10.52.0.0/16 via 10.2.0.1 quickack 1 congctl reno",
    ):  # fmt: skip
        node.host.run("ip", "-n", "a", "route", "add", *words.split(), "dev", "eth1")
    before = lines(node)
    node.add("a", ifname="eth1")
    assert [line for line in lines(node, "table", "100") if not line.startswith("default")] == before
    assert node.check("a", ifname="eth1") == ""
    node.delete("a", ifname="eth1")
    assert lines(node) == before


@pytest.mark.parametrize("end", ["refused", "again", "deleted"])
def test_table_and_hints_leave_the_kernels_own_route(node: Node, end: str) -> None:
    """The hint would equal the connected route, which an undo, a further ADD and DEL must not take for their own."""
    keys = {"table": 5001, "addSourceHints": True}
    node.attach("eth1", SECOND)
    before = connected(node)
    assert len(before) == 1
    if end == "refused":
        node.refused("a", 999, "refused RTM_NEWROUTE.*gateway", ifname="eth1", **keys, gateways=["10.77.0.1"])
    else:
        for _ in range(2 if end == "again" else 1):
            node.add("a", keys, ifname="eth1", gateways=["10.2.0.1"])
            assert connected(node) == before
        node.delete("a", keys, ifname="eth1")
    assert connected(node) == before
    assert node.router("10.2.0.5", to="10.2.0.2") == "router22"


def connected(node: Node) -> list[str]:
    """Return the main table's routes to eth1's IPv4 network; a set would hide a second one."""
    return [line for line in lines(node) if line.startswith("10.2.0.0/24")]
