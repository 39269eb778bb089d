"""The procedures of docs/how-to/cluster-operations.md: the effects that the page promises, on a node with real etcd."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from shared.net.netns import open_netns
from tests.pretend import PretendHost
from tests.system.cluster_node import CONFLIST, POOL, ClusterNode

AGENT = "/var/lib/pycni/agent"
THIRD = {"uid": "d" * 32, "addresses": ["192.0.2.78"], "since": 2e9, "cidrs": {}}  # a node that joined late


@pytest.fixture
def member(host: PretendHost) -> Iterator[ClusterNode]:
    """Return a node in a cluster, with short waits for empty blocks."""
    netns = open_netns(f"/proc/{host.first_pid}/ns/net")
    try:
        node = ClusterNode(host, netns, graceSeconds=60)
        node.start_etcd()
        node.put("pools/pods", POOL)
        node.begin()
        node.until(lambda: [len(one) for one in node.published()] == [1, 1])
        node.until(lambda: node.report().get("isCurrent") and not node.report()["alarms"])
        yield node
    finally:
        netns.close()


def blocks(node: ClusterNode) -> set[str]:
    return {key.removeprefix("blocks/pods/") for key in node.objects() if key.startswith("blocks/")}


def test_a_machine_that_is_installed_again_keeps_its_blocks(member: ClusterNode) -> None:
    """Its id is all that must be put back."""
    before = member.published()
    member.kill_agent()
    member.host.run("sh", "-c", f"cd {AGENT}; for file in *; do [ $file = uid ] || rm $file; done; rm /{CONFLIST}")
    member.begin()
    member.until(lambda: member.published() == before)
    assert blocks(member) == {cidr for cidrs in before for cidr in cidrs}


def test_a_machine_without_its_id_is_a_new_one(member: ClusterNode) -> None:
    """It claims new blocks, takes the peer object over, and names the old blocks."""
    before, old = member.published(), member.report()["uid"]
    member.kill_agent()
    member.host.run("sh", "-c", f"rm {AGENT}/* /{CONFLIST}")
    member.begin()
    member.until(lambda: "former-blocks" in member.alarms() and [len(one) for one in member.published()] == [1, 1])
    assert not {cidr for cidrs in member.published() for cidr in cidrs} & {cidr for cidrs in before for cidr in cidrs}
    member.until(lambda: member.objects()["nodes/pretend"]["uid"] == member.report()["uid"] != old)


def test_a_removed_range_is_drained(member: ClusterNode) -> None:
    """The other one is in the conflist before the old one leaves it, and the pod's block stays the node's."""
    (old,), _ = member.published()
    member.addresses("a")
    member.put("pools/pods", {**POOL, "ranges": [{"cidr": "10.245.0.0/16", "blockLength": 28}, POOL["ranges"][1]]})
    member.until(lambda: [one[:7] for one in member.published()[0]] == ["10.245."])
    member.until(lambda: member.objects()[f"blocks/pods/{old}"]["state"] == "draining")
    assert member.objects()["nodes/pretend"]["cidrs"]["pods"].count(old) == 1


def test_a_lost_claim_is_made_again(member: ClusterNode) -> None:
    """As after a backup from before the claim was restored."""
    before = member.published()
    for cidr in blocks(member):
        member.delete_key(f"blocks/pods/{cidr}")
    member.delete_key("nodes/pretend")
    member.until(lambda: blocks(member) == {cidr for cidrs in before for cidr in cidrs})
    member.until(lambda: "nodes/pretend" in member.objects())
    assert member.published() == before


def test_a_block_that_reappeared_is_given_back(member: ClusterNode) -> None:
    """As after a backup from before the release was restored: the node does not use it, and does not announce it."""
    before = member.published()
    uid, other = member.report()["uid"], "10.244.200.0/28"
    member.put("nodes/third", {**THIRD, "cidrs": {"pods": [other]}})
    member.put(f"blocks/pods/{other}", {"node": "pretend", "nodeUID": uid, "since": 1, "state": "owned"})
    member.until(lambda: member.objects()[f"blocks/pods/{other}"]["state"] == "draining")
    assert member.published() == before
    assert other not in json.dumps(member.objects()["nodes/pretend"])
    member.until(lambda: member.routes().get(other) == "192.0.2.78")


def test_a_block_of_another_node_is_lost_and_claimed_again(member: ClusterNode) -> None:
    """Its pods keep their addresses, and the node announces them, until the other gives the block back."""
    (mine,), _ = before = member.published()
    member.addresses("a")
    member.put(f"blocks/pods/{mine}", {"node": "third", "nodeUID": "d" * 32, "since": 1, "state": "draining"})
    member.until(lambda: "block-lost" in member.alarms() and mine not in member.published()[0])
    assert mine in member.objects()["nodes/pretend"]["cidrs"]["pods"]
    member.delete_key(f"blocks/pods/{mine}")
    member.until(lambda: mine in member.published()[0] and not member.alarms())
    assert member.objects()[f"blocks/pods/{mine}"]["nodeUID"] == member.report()["uid"]
    assert member.published()[1] == before[1]
