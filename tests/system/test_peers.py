"""A number from inside a pod is no name on the host: index and namespace identify the other end of a veth pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.pretend import PretendHost
from tests.system.test_bandwidth import BOTH, BRIDGE, INGRESS, Node

RESULT = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/evil"}]}


@pytest.fixture
def node(host: PretendHost) -> Node:
    """Return a node with pod `a`, which has limits, and `evil`, which has a namespace and NET_ADMIN in it."""
    node = Node(host)
    host.run("ip", "link", "add", "ahead", "type", "veth", "peer", "name", "far")  # so that a's ends have two indexes
    node.attach("a")
    node.add("a", BOTH)
    host.netns("evil")
    host.netns("third")
    node.results["evil", "eth0"] = RESULT
    return node


def indexes(node: Node) -> tuple[str, str]:
    """Return the indexes of the host's end of a's pair, and of its end in the pod."""
    (port,) = node.host.ip("link", "show", node.results["a", "eth0"]["interfaces"][1]["name"])
    (inside,) = node.host.ip("link", "show", "eth0", netns="a")
    return str(port["ifindex"]), str(inside["ifindex"])


def nested(node: Node) -> None:
    """Create a pair with both ends in the pod and the indexes of a's pair."""
    port, inside = indexes(node)
    words = f"eth0 index {inside} type veth peer name inner index {port}"
    node.host.run("ip", "-n", "evil", "link", "add", *words.split())


def crossing(node: Node) -> None:
    """Create a pair with the other end in a third namespace and the indexes of a's pair."""
    port, inside = indexes(node)
    words = f"eth0 index {inside} type veth peer name inner index {port} netns third"
    node.host.run("ip", "-n", "evil", "link", "add", *words.split())


def taken(node: Node) -> None:
    """Move the interface of the other pod itself: its alias names the owner."""
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "netns", "evil")


def renamed(node: Node) -> None:
    """Do the same without the alias: the name on the host derives from the attachment."""
    taken(node)
    port = node.results["a", "eth0"]["interfaces"][1]["name"]
    node.host.run("ip", "link", "set", port, "alias", "")


WAYS: list[Callable[[Node], None]] = [nested, crossing, taken, renamed]


@pytest.mark.row("peer")
@pytest.mark.parametrize("keys", [BOTH, INGRESS, {}], ids=["both", "ingress", "none"])
@pytest.mark.parametrize("way", WAYS)
def test_del_removes_nobody_elses_limit(node: Node, way: Callable[[Node], None], keys: dict[str, Any]) -> None:
    way(node)
    before = node.state()
    answer = node.call("DEL", "evil", keys)
    assert (answer.status, answer.stdout) == (0, ""), answer
    assert node.state() == before


@pytest.mark.row("peer")
@pytest.mark.parametrize("way", WAYS)
def test_add_limits_nobody_else(node: Node, way: Callable[[Node], None]) -> None:
    way(node)
    node.host.run("tc", "qdisc", "del", "dev", node.results["a", "eth0"]["interfaces"][1]["name"], "root")
    before = node.state()
    answer = node.call("ADD", "evil", BOTH)
    assert answer.code == 999 and "eth0" in answer.json["msg"], answer
    assert node.state() == before


@pytest.mark.row("peer")
@pytest.mark.parametrize("way", WAYS)
def test_check_looks_at_nobody_elses_limit(node: Node, way: Callable[[Node], None]) -> None:
    way(node)
    told = node.check("evil", INGRESS)
    assert "unexpected" not in told
    assert ("on the host" in told) if way in (nested, crossing) else ("a/eth0" in told or "another attachment" in told)


@pytest.mark.row("peer")
def test_check_of_a_bridge(node: Node) -> None:
    """The other end of a nested pair is missing on the host, even if another link there has its index."""
    nested(node)
    config = {**BRIDGE, "ipam": {}, "prevResult": RESULT}
    answer = node.host.cni("bridge", "CHECK", config, netns="/run/netns/evil", container_id="evil")
    assert answer.status == 1 and "the host's end of the veth pair" in answer.json["details"], answer


@pytest.mark.row("peer")
@pytest.mark.parametrize("pod", ["evil", "third"])
def test_a_pair_of_another_suite(node: Node, pod: str) -> None:
    """Both ends can have the same index; the host knows each pod by another number."""
    for place, name in enumerate(("evil", "third")):
        words = f"strange{place} index {1000 + place} type veth peer name eth0 index 1000 netns {name}"
        node.host.run("ip", "link", "add", *words.split())
    node.results[pod, "eth0"] = RESULT
    node.add(pod, BOTH)
    mine = f"strange{0 if pod == 'evil' else 1}"
    assert {one["dev"] for one in node.qdiscs()} >= {mine}
    assert not {one["dev"] for one in node.qdiscs()} & {"strange0", "strange1"} - {mine}
    assert node.check(pod, BOTH) == ""
    assert node.call("DEL", pod, BOTH).status == 0
    assert mine not in {one["dev"] for one in node.qdiscs()}


@pytest.mark.row("peer")
def test_del_of_a_bridge_removes_nobody_elses_pair(node: Node, reference_bin: str) -> None:
    """The pod has its leased address on a pair with the numbers of one that the reference has made for another."""
    port = node.attach("b", bin_dir=reference_bin, version="1.0.0")
    (end,) = node.host.ip("link", "show", port)
    words = f"eth0 index {end['link_index']} type veth peer name inner index {end['ifindex']}"
    node.host.run("ip", "-n", "evil", "link", "add", *words.split())
    leased = node.host.cni("host-local", "ADD", BRIDGE, netns="/run/netns/evil", container_id="evil")
    for ip in leased.json["ips"]:
        node.host.run("ip", "-n", "evil", "address", "add", ip["address"], "dev", "eth0")
    before = [link["ifname"] for link in node.host.ip("link")]
    answer = node.host.cni("bridge", "DEL", BRIDGE, netns="/run/netns/evil", container_id="evil")
    assert answer.status == 0, answer
    assert [link["ifname"] for link in node.host.ip("link")] == before
