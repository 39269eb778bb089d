"""The agent's cluster duty on one node, with real etcd and real pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.cluster import conflist
from shared.net.netns import open_netns
from tests.pretend import PretendHost, until
from tests.system.cluster_node import BRIDGE, CONFLIST, POOL, TEMPLATE, ClusterNode, Steps

OTHER = {
    "uid": "e" * 32, "addresses": ["192.0.2.77", "2001:db8::77"], "since": 1.0,
    "cidrs": {"pods": ["10.244.255.0/28", "fd00:244::ff00/124"]},
}  # fmt: skip
OTHER_ROUTES = {"10.244.255.0/28": "192.0.2.77", "fd00:244::ff00/124": "2001:db8::77"}


@pytest.fixture
def node(host: PretendHost) -> Iterator[ClusterNode]:
    netns = open_netns(f"/proc/{host.first_pid}/ns/net")
    try:
        yield ClusterNode(host, netns)
    finally:
        netns.close()


@pytest.fixture
def member(node: ClusterNode) -> ClusterNode:
    """Return a node whose duty has joined a cluster with a pool."""
    node.start_etcd()
    node.put("pools/pods", POOL)
    node.begin()
    node.until(lambda: [len(one) for one in node.published()] == [1, 1])
    node.until(lambda: node.report().get("isCurrent") and not node.report()["alarms"])
    return node


def blocks(node: ClusterNode) -> set[str]:
    return {key for key in node.objects() if key.startswith("blocks/")}


def test_a_node_joins(member: ClusterNode) -> None:
    """It claims a block of each family, announces them, and publishes them; pods have addresses of them."""
    keys = member.objects()
    (v4,), (v6,) = member.published()
    assert blocks(member) == {f"blocks/pods/{v4}", f"blocks/pods/{v6}"}
    report = member.report()
    assert keys["nodes/pretend"]["uid"] == report["uid"]
    assert keys["nodes/pretend"]["addresses"] == ["192.0.2.9", "2001:db8::9"]
    assert sorted(keys["nodes/pretend"]["cidrs"]["pods"]) == sorted([v4, v6])
    plugin = member.conflist()["plugins"][0]
    assert plugin["mtu"] == 1500 - 70
    assert plugin["nonMasqueradeCIDRs"] == ["10.244.0.0/16", "fd00:244::/48"]
    one, other = member.addresses("a")
    assert one.endswith("/28") and other.endswith("/124")
    member.until(lambda: [one["used"] for one in member.ranges()] == [1, 1])
    assert member.report()["failure"] == ""


def test_another_block_is_claimed_before_the_first_one_is_full(member: ClusterNode) -> None:
    """A block of 16 addresses has 13 for pods, and a quarter of it is to be free: four."""
    first = member.published()
    for number in range(9):
        member.addresses(f"p{number}")
    member.until(lambda: [one["used"] for one in member.ranges()] == [9, 9])
    assert member.published() == first
    member.addresses("p9")
    member.until(lambda: len(member.published()[0]) == 2)
    assert member.published()[0][0] != first[0][0], "new pods come from the new block"
    assert member.published()[1] == first[1] or len(member.published()[1]) == 2
    member.until(lambda: len(member.ranges()) >= 3)


@pytest.mark.row(30)
def test_the_agent_is_killed_and_begins_again(member: ClusterNode) -> None:
    """It keeps its blocks, and claims no others."""
    before, claimed = member.published(), blocks(member)
    member.kill_agent()
    (member.host.root / CONFLIST).unlink()
    member.begin()
    member.until(lambda: member.published() == before)
    assert blocks(member) == claimed


@pytest.mark.row(30)
def test_boot_while_the_engine_is_down(member: ClusterNode) -> None:
    """The ranges and the routes come from the node's own memory; pods start."""
    before = member.published()
    member.put("nodes/other", OTHER)
    member.until(lambda: member.routes() == OTHER_ROUTES)
    member.kill_agent()
    member.etcd.members[0].kill()
    (member.host.root / CONFLIST).unlink()
    for family in ("-4", "-6"):
        member.host.run("ip", family, "route", "flush", "proto", "112")
    member.begin()
    member.until(lambda: member.published() == before and member.routes() == OTHER_ROUTES)
    member.until(lambda: member.alarms() == {"not-synchronised"})
    assert not member.report()["isCurrent"]
    member.addresses("a")
    member.start_etcd()
    member.until(lambda: member.report()["isCurrent"] and not member.alarms())
    assert (member.published(), member.routes()) == (before, OTHER_ROUTES)


def test_routes_follow_the_peers(member: ClusterNode) -> None:
    member.put("nodes/other", OTHER)
    member.until(lambda: member.routes() == OTHER_ROUTES)
    assert member.report()["peers"] == 1
    far = {**OTHER, "addresses": ["198.51.100.7"], "vtepMAC": "02:00:00:00:00:07"}
    member.put("nodes/other", far)
    member.until(lambda: set(member.routes().values()) == {"pycni.vxlan"})
    member.delete_key("nodes/other")
    member.until(lambda: member.routes() == {})


def test_a_lost_block_leaves_the_conflist_at_once(member: ClusterNode) -> None:
    """Its range goes, its pods are named, and another block comes."""
    (v4,), _ = member.published()
    member.addresses("a")
    member.put(f"blocks/pods/{v4}", {"node": "other", "nodeUID": "f" * 32, "since": 1.0, "state": "owned"})
    member.until(lambda: "block-lost" in member.alarms())
    member.until(lambda: len(member.published()) == 2 and v4 not in member.published()[0])
    assert member.duties is not None
    member.duties.await_line("cluster: block-lost", v4, "1 pods")


def test_a_lost_block_leaves_the_conflist_without_a_template(member: ClusterNode) -> None:
    """The rest of the conflist stays as it was. Without a range of IPv4 no pod starts."""
    (v4,), _ = member.published()
    (member.host.root / TEMPLATE[1:]).unlink()
    member.put(f"blocks/pods/{v4}", {"node": "other", "nodeUID": "f" * 32, "since": 1.0, "state": "owned"})
    member.until(lambda: member.published() == [])
    assert member.conflist()["plugins"][0]["bridge"] == "cni0"
    member.until(lambda: {"block-lost", "template-unusable"} <= member.alarms())


def test_a_template_that_comes_later(node: ClusterNode) -> None:
    (node.host.root / TEMPLATE[1:]).unlink()
    node.start_etcd()
    node.put("pools/pods", POOL)
    node.begin()
    node.until(lambda: "template-unusable" in node.alarms())
    node.write_template(BRIDGE)
    node.until(lambda: len(node.published()) == 2)
    node.until(lambda: not node.alarms())


def test_a_changed_template_and_pool_are_followed(member: ClusterNode) -> None:
    before = member.published()
    member.write_template({**BRIDGE, "mtu": 1300})
    member.until(lambda: member.conflist()["plugins"][0]["mtu"] == 1300)
    wider = {**POOL, "ranges": [*POOL["ranges"], {"cidr": "10.245.0.0/16", "blockLength": 28}]}
    member.put("pools/pods", wider)
    member.until(lambda: "10.245.0.0/16" in member.conflist()["plugins"][0]["nonMasqueradeCIDRs"])
    assert member.published() == before


def test_a_network_that_leaves_the_settings(member: ClusterNode) -> None:
    """Its ranges leave the conflist. Its blocks are released after the last pod and the grace."""
    member.addresses("a")
    claimed = blocks(member)
    member.kill_agent()
    (member.host.root / TEMPLATE[1:]).unlink()
    member.settings = {**member.settings, "networks": {"lan": {}}}
    member.write_settings()
    steps = Steps(member.host)
    until(lambda: "Publish" in steps.at(0))
    until(lambda: set(steps.at(1000)) == {"Alarm"})
    assert member.published() == [] and blocks(member) == claimed
    assert {one["state"] for key, one in member.objects().items() if key in claimed} == {"draining"}
    member.delete("a")
    steps.at(2000)
    steps.at(2299)
    assert blocks(member) == claimed
    assert "10.244." in member.host.run("ip", "-4", "address", "show", "cni0").stdout
    until(lambda: "Release" in steps.at(2300))
    until(lambda: steps.at(2301) == [])
    assert blocks(member) == set() and member.objects()["nodes/pretend"]["cidrs"] == {}
    assert "10.244." not in member.host.run("ip", "-4", "address", "show", "cni0").stdout


def test_leases_stay_where_they_are_counted(member: ClusterNode) -> None:
    """With another dataDir the blocks of running pods would look empty, and would be given away."""
    member.addresses("a")
    moved = {**BRIDGE, "ipam": {"type": "host-local", "dataDir": "/run/leases"}}
    member.write_template(moved)
    assert member.duties is not None
    member.duties.await_line("dataDir: must stay /var/lib/cni/networks, because 2 leases of pods are there")
    assert "dataDir" not in member.conflist()["plugins"][0]["ipam"]
    member.delete("a")
    member.until(lambda: member.conflist()["plugins"][0]["ipam"].get("dataDir") == "/run/leases")
    member.until(lambda: not member.alarms())


def test_a_conflist_that_moves(member: ClusterNode) -> None:
    """The former file leases from no block any more: this node may give them back."""
    before = member.published()
    member.kill_agent()
    other = "/etc/cni/net.d/20-pods.conflist"
    member.settings = {**member.settings, "networks": {"pods": {"conflist": other}}}
    member.begin()
    member.until(lambda: (member.host.root / other[1:]).exists() and member.published() == [])
    assert [str(one) for one in conflist.published(member.host.root / other[1:])] == [before[0][0], before[1][0]]


def test_the_nodes_addresses_stay_without_a_default_route(member: ClusterNode) -> None:
    """A route that is gone for a while, or a further address, changes nothing for the other nodes."""
    before = member.objects()["nodes/pretend"]
    member.host.run("ip", "address", "add", "192.0.2.10/24", "dev", "up0")
    member.host.run("ip", "route", "replace", "default", "via", "192.0.2.254", "src", "192.0.2.10")
    member.host.run("ip", "-6", "route", "del", "default")
    member.kill_agent()
    steps = Steps(member.host)
    until(lambda: steps.at(0) == [])
    assert member.objects()["nodes/pretend"] == before
    member.host.run("ip", "address", "del", "192.0.2.9/24", "dev", "up0")
    member.host.run("ip", "address", "replace", "192.0.2.10/24", "dev", "up0")
    member.host.run("ip", "route", "replace", "default", "via", "192.0.2.254")
    until(lambda: "Announce" in steps.at(1))
    assert member.objects()["nodes/pretend"]["addresses"] == ["192.0.2.10", "2001:db8::9"]


def test_metrics(node: ClusterNode) -> None:
    node.start_etcd()
    node.put("pools/pods", POOL)
    node.put("nodes/other", OTHER)
    duties = node.begin(metrics="unix")
    node.until(lambda: len(node.ranges()) == 2)
    node.addresses("a")
    node.until(lambda: [one["used"] for one in node.ranges()] == [1, 1])
    found = duties.metrics()
    assert found["pycni_cluster_synchronised"] == found["pycni_cluster_peers"] == 1
    assert found["pycni_cluster_routes"] == 2 and found["pycni_cluster_missing_routes"] == 0
    assert found['pycni_cluster_ranges{family="IPv4",network="pods",state="owned"}'] == 1
    labels = 'family="IPv6",network="pods"'
    assert found[f'pycni_cluster_addresses{{{labels},state="used"}}'] == 1
    assert found[f'pycni_cluster_addresses{{{labels},state="free"}}'] == 13
    assert found["pycni_cluster_requests_total"] >= 5
    node.delete_key("pools/pods")
    node.until(lambda: duties.metrics().get('pycni_cluster_alarms{name="pool-missing"}') == 1)


def test_settings_that_cannot_be_used(node: ClusterNode) -> None:
    """They are named once, and the other duties go on."""
    node.settings = {**node.settings, "engine": "consul"}
    duties = node.begin()
    duties.await_line("cluster: /etc/cni/pycni-cluster.json", "engine", "consul")
    assert duties.end() == 0
