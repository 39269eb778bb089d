"""The agent's cluster duty on one node of a Kubernetes cluster: with blocks, and with the Node's podCIDRs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from shared.cluster.kube_objects import GROUP
from shared.net.netns import open_netns
from tests.kube_server import KubeServer, agent
from tests.kube_store import ApiError
from tests.pretend import PretendHost
from tests.system.cluster_node import POOL, ClusterNode

NAME = "node-1"
TOKEN = "secret-of-node-1"  # noqa: S105
KUBECONFIG = "/etc/cni/pycni/kubeconfig"
FIRST, SECOND = ["10.244.3.0/24", "fd00:244:3::/64"], ["10.244.4.0/24", "fd00:244:4::/64"]
CLUSTER_CIDRS = ["10.244.0.0/16", "fd00:244::/48"]


class KubeNode(ClusterNode):
    """The host; the server listens in its network."""

    def __init__(self, host: PretendHost, network: Any, server: KubeServer) -> None:
        super().__init__(host, network)
        self.server = server
        server.tokens[TOKEN] = agent(NAME)
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": server.url}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
        }  # fmt: skip
        host.run("tee", KUBECONFIG, input=json.dumps(config))
        self.settings = {
            "engine": "kubernetes", "node": NAME, "kubernetes": {"kubeconfig": KUBECONFIG}, "networks": {"pods": {}},
        }  # fmt: skip

    def use_pod_cidrs(self, **kubernetes: Any) -> None:
        keys = {"podCIDRs": True, "clusterCIDRs": CLUSTER_CIDRS}
        access = {"kubeconfig": KUBECONFIG, "blocks": False, **kubernetes}
        self.settings = {**self.settings, "kubernetes": access, "networks": {"pods": keys}}

    def specs(self, plural: str) -> dict[str, Any]:
        """Return the objects of a kind by name."""
        found = self.server.store.objects.get(self.server.resource(plural), {})
        return {name: one["spec"] for name, one in found.items()}


@pytest.fixture
def node(host: PretendHost) -> Iterator[KubeNode]:
    netns = open_netns(f"/proc/{host.first_pid}/ns/net")
    server = KubeServer()
    try:
        with netns:
            server.start()
        yield KubeNode(host, netns, server)
    finally:
        server.stop()
        netns.close()


def add_node(server: KubeServer, cidrs: list[str], name: str = NAME, address: str = "192.0.2.9") -> None:
    server.add("nodes", {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDRs": cidrs},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })  # fmt: skip


def assign(server: KubeServer, cidrs: list[str]) -> None:
    present = server.store.get(server.resource("nodes"), NAME)
    server.store.replace(server.admin, server.resource("nodes"), NAME, present | {"spec": {"podCIDRs": cidrs}})


def test_a_node_joins_with_blocks(node: KubeNode) -> None:
    node.server.add("pools", {
        "apiVersion": "pycni.internal/v1", "kind": "Pool", "metadata": {"name": "pods"}, "spec": POOL,
    })  # fmt: skip
    node.begin()
    node.until(lambda: len(node.published()) == 2 and node.report().get("isCurrent"))
    assert len(node.specs("blocks")) == 2
    assert {one["node"] for one in node.specs("blocks").values()} == {NAME}
    assert set(node.specs("peers")) == {NAME}
    node.addresses("a")
    node.until(lambda: not node.alarms() and node.report()["failure"] == "")


def test_pod_cidrs(node: KubeNode) -> None:
    """They are the ranges. The settings say which networks are not masqueraded, since there is no pool."""
    node.use_pod_cidrs()
    node.begin()
    node.until(lambda: node.report().get("isCurrent"))
    assert node.published() == []
    add_node(node.server, FIRST)
    node.until(lambda: node.published() == [[one] for one in FIRST])
    node.until(lambda: node.specs("peers").get(NAME, {}).get("cidrs") == {"pods": FIRST})
    assert node.conflist()["plugins"][0]["nonMasqueradeCIDRs"] == CLUSTER_CIDRS
    assert node.specs("blocks") == {}
    node.addresses("a")
    node.until(lambda: [(one["state"], one["used"]) for one in node.ranges()] == [("assigned", 1)] * 2)


def test_credentials_that_come_after_a_boot(node: KubeNode) -> None:
    """The node has its routes of before at once, and says what is missing. It goes on when the file is there."""
    node.use_pod_cidrs()
    add_node(node.server, FIRST)
    node.server.add("peers", {
        "apiVersion": f"{GROUP}/v1", "kind": "Peer", "metadata": {"name": "other"},
        "spec": {"uid": "u2", "addresses": ["192.0.2.77"], "cidrs": {"pods": ["10.244.9.0/24"]}, "since": 1.0},
    })  # fmt: skip
    node.begin()
    routes = {"10.244.9.0/24": "192.0.2.77"}
    node.until(lambda: node.routes() == routes)
    node.kill_agent()
    kubeconfig = (node.host.root / KUBECONFIG[1:]).read_text()
    node.host.run("rm", KUBECONFIG)
    node.host.run("ip", "route", "flush", "proto", "112")
    node.begin()
    node.until(lambda: node.routes() == routes and "kubeconfig" in node.report()["failure"])
    node.host.run("tee", KUBECONFIG, input=kubeconfig)
    node.until(lambda: node.report()["failure"] == "" and not node.alarms())


def test_pod_cidrs_that_change(node: KubeNode) -> None:
    """New pods get addresses of the new ranges. The old ones stay announced while a pod has an address of them."""
    node.use_pod_cidrs()
    add_node(node.server, FIRST)
    node.begin()
    node.until(lambda: len(node.published()) == 2)
    node.addresses("a")
    assign(node.server, SECOND)
    node.until(lambda: node.published() == [[one] for one in SECOND])
    assert sorted(node.specs("peers")[NAME]["cidrs"]["pods"]) == sorted([*FIRST, *SECOND])
    assert node.addresses("b")[0].startswith("10.244.4.")


def test_a_checkpoint_that_is_lost(node: KubeNode) -> None:
    """The ranges of the conflist are assigned ones. They become no blocks."""
    node.use_pod_cidrs()
    add_node(node.server, FIRST)
    node.begin()
    node.until(lambda: len(node.published()) == 2)
    node.kill_agent()
    node.host.run("rm", "-r", "/var/lib/pycni/agent", "/run/pycni/cluster.json")
    node.begin()
    node.until(lambda: [one["state"] for one in node.ranges()] == ["assigned"] * 2)
    assert node.published() == [[one] for one in FIRST]
    assert node.specs("blocks") == {}


def test_peers_from_nodes(node: KubeNode) -> None:
    """A cluster without the suite's kinds: routes lead to the Nodes' podCIDRs."""
    node.use_pod_cidrs(peers="nodes")
    node.server.resources = {key: one for key, one in node.server.resources.items() if key[1] == "nodes"}
    add_node(node.server, FIRST)
    add_node(node.server, SECOND[:1], "node-2", "192.0.2.77")
    node.begin()
    node.until(lambda: node.routes() == {SECOND[0]: "192.0.2.77"})
    node.until(lambda: len(node.published()) == 2 and not node.alarms())


def test_kinds_that_are_older_than_the_agent(node: KubeNode) -> None:
    """The server drops a field that they lack. The node tells so, and writes its object once."""
    place = (GROUP, "peers")
    schema = copy.deepcopy(node.server.resources[place].schema)
    del schema["properties"]["spec"]["properties"]["vtepMAC"]
    node.server.resources[place] = replace(node.server.resources[place], schema=schema)
    node.use_pod_cidrs()
    add_node(node.server, FIRST)
    node.begin()
    node.until(lambda: node.alarms() == {"peer-altered"} and len(node.published()) == 2)
    writes = [
        one for one in node.server.seen if one.endswith(("/peers", "/peers/node-1")) and not one.startswith("GET")
    ]
    assert len(writes) <= 2  # before it has the CIDRs, and after


def test_a_refusal_is_told(node: KubeNode) -> None:
    """The server's own words are in the alarm, which goes when the requests are let through."""
    node.use_pod_cidrs()
    add_node(node.server, FIRST)
    refusal = ApiError(403, "Forbidden", 'peers.pycni.internal "node-1" is forbidden')
    node.server.order("POST", refusal, times=2)
    duties = node.begin()
    duties.await_line("cluster: refused", "is forbidden", "access.yaml")
    assert node.published() == []
    node.until(lambda: len(node.published()) == 2 and not node.alarms())
    duties.await_line("cluster: refused: over")
