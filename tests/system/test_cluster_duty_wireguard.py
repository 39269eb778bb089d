"""The agent's cluster duty on a node that encrypts, with real etcd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shared.cluster.wireguard import NAME
from shared.net.netns import open_netns
from tests.kernel.features import has
from tests.pretend import PretendHost
from tests.system.cluster_node import POOL, ClusterNode
from tests.system.test_cluster_wireguard import any_key, device

OTHER: dict[str, Any] = {
    "uid": "e" * 32, "addresses": ["192.0.2.77", "2001:db8::77"], "since": 1.0, "publicKey": any_key(2),
    "cidrs": {"pods": ["10.244.255.0/28", "fd00:244::ff00/124"]},
}  # fmt: skip
WHOLE = {"10.244.0.0/16": "refused", "fd00:244::/48": "refused"}


@pytest.fixture
def node(host: PretendHost) -> Iterator[ClusterNode]:
    netns = open_netns(f"/proc/{host.first_pid}/ns/net")
    try:
        yield ClusterNode(host, netns, encryption="wireguard")
    finally:
        netns.close()


def join(node: ClusterNode) -> None:
    node.start_etcd()
    node.put("pools/pods", POOL)
    node.put("nodes/other", OTHER)
    node.begin()
    node.until(lambda: [len(one) for one in node.published()] == [1, 1])


def ways(node: ClusterNode) -> dict[str, str]:
    """Return the device of each of the agent's routes, or that it is refused."""
    found = {}
    for words in (("ip", "route"), ("ip", "-6", "route")):
        for line in node.host.run(*words, "show", "proto", "112").stdout.splitlines():
            kind, cidr, *rest = line.split() if line.startswith("unreachable") else ("", *line.split())
            found[cidr] = "refused" if kind else rest[rest.index("dev") + 1]
    return found


@pytest.mark.kernel_wireguard
def test_a_node_encrypts(node: ClusterNode) -> None:
    """Its key is announced, and the same after a restart. A peer that has no key any more is refused."""
    join(node)
    cidrs = [cidr for all_of in OTHER["cidrs"].values() for cidr in all_of]
    node.until(lambda: ways(node) == {**dict.fromkeys(cidrs, NAME), **WHOLE}, seconds=60)
    own, _, peers = device(node.host)
    assert peers == {any_key(2): [["192.0.2.77", 51872], sorted(cidrs)]}
    assert node.objects()["nodes/pretend"]["publicKey"] == own
    assert node.conflist()["plugins"][0]["mtu"] == 1500 - 80
    node.until(lambda: node.alarms() == set())
    node.kill_agent()
    node.put("nodes/other", {key: value for key, value in OTHER.items() if key != "publicKey"})
    node.begin()
    node.until(lambda: ways(node) == {**dict.fromkeys(cidrs, "refused"), **WHOLE}, seconds=60)
    node.until(lambda: node.alarms() == {"encryption-differs"})
    assert device(node.host) == (own, 51872, {})
    assert node.objects()["nodes/pretend"]["publicKey"] == own


def test_a_node_that_cannot_encrypt_sends_nothing(node: ClusterNode) -> None:
    """It says why. Its own pods start nevertheless."""
    if has("kernel_wireguard"):
        pytest.skip("this kernel has links of kind wireguard")
    join(node)
    cidrs = [cidr for all_of in OTHER["cidrs"].values() for cidr in all_of]
    node.until(lambda: ways(node) == {**dict.fromkeys(cidrs, "refused"), **WHOLE})
    node.until(lambda: node.alarms() == {"encryption-unavailable"})
    (alarm,) = node.report()["alarms"]
    assert "this kernel has no links of kind wireguard" in alarm["text"]
    assert "publicKey" not in node.objects()["nodes/pretend"]
    assert node.conflist()["plugins"][0]["mtu"] == 1500 - 80
    assert len(node.addresses("a")) == 2
