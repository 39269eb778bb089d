"""The DaemonSet with the component kubernetes, from its image in containerd up to a pod with an address of the cluster.

The API is the small server of tests/kube_server.py, with the agents' own rights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from shared.net.netns import open_netns
from tests import certificates
from tests.clients.container_host import CLIENT, chain, require
from tests.clients.containerd import PROGRAMS, Containerd
from tests.kube_server import KubeServer, agent
from tests.packaging.daemon_pod import DaemonPod, ImageHost
from tests.packaging.image_node import RELEASE, Node
from tests.pretend import until

require(*PROGRAMS)

POD_CIDR = ip_network("10.244.7.0/24")
CONFLIST = "/etc/cni/net.d/10-pods.conflist"
SERVICE = "https://${KUBERNETES_SERVICE_HOST}:${KUBERNETES_SERVICE_PORT}"


@pytest.fixture
def node(artefacts: Path, tmp_path: Path) -> Iterator[Node]:
    """Return a node whose runtime has no network."""
    with ImageHost(tmp_path) as host:
        host.configure(chain("first", 0, "cni0"))
        host.run("ip", "route", "add", "default", "via", CLIENT, "dev", "out")
        with Containerd(host) as containerd:
            for path in host.path("/etc/cni/net.d").iterdir():
                path.unlink()
            node = Node(host, containerd)
            node.load(artefacts / f"pycni-{RELEASE}-image-linux-amd64.tar")
            yield node


@pytest.fixture
def api(node: Node, tmp_path: Path) -> Iterator[KubeServer]:
    """Return an API server on the node, and give the kubelet's files for a pod."""
    authority = certificates.make(tmp_path)
    server = KubeServer(*authority.issue("server"), authority.certificate)
    node.host.give("credentials", "ca.crt", authority.certificate.read_text())
    spec = {"podCIDRs": [str(POD_CIDR)]}
    server.add("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "spec": spec})
    renew(node, server, "first")
    start(node, server)
    try:
        yield server
    finally:
        server.stop()


def start(node: Node, server: KubeServer) -> None:
    with closing(open_netns(f"/proc/{node.host.first_pid}/ns/net")) as netns, netns:
        server.start()


def renew(node: Node, server: KubeServer, token: str) -> None:
    """Give the pod another token. The API server takes no earlier one."""
    server.tokens = {token: agent("node-1")}
    node.host.give("credentials", "token", token)


def is_ready(node: Node) -> bool:
    """Return True if the kubelet would report the node as Ready."""
    return all(one.status for one in node.containerd.ask("Status").status.conditions)


def is_synchronised(node: Node) -> bool:
    state = json.loads(node.host.path("/run/pycni/cluster.json").read_text())
    return "not-synchronised" not in {alarm["name"] for alarm in state["alarms"]}


def address(node: Node, name: str) -> object:
    _, found = node.serving_pod(name)
    return ip_address(found)


def begin(node: Node, api: KubeServer) -> DaemonPod:
    """Start the DaemonSet's pod as a kubelet does, with the API server's own address in its kubeconfig."""
    pod = node.daemon(RELEASE, "kubernetes")
    kubeconfig = node.host.path("/run/given/kubeconfig").read_text()
    assert SERVICE in kubeconfig
    node.host.give("config", "kubeconfig", kubeconfig.replace(SERVICE, api.url))
    pod.run("install")
    pod.run_agent(RELEASE)
    pod.start("credentials")
    return pod


def test_a_node_joins_and_outlives_its_token_and_the_api(node: Node, api: KubeServer) -> None:
    """The pod's network comes from the API. The agent stays ready without it, and pods start."""
    assert not is_ready(node)
    pod = begin(node, api)
    until(lambda: is_ready(node), seconds=120)
    assert json.loads(node.host.path(CONFLIST).read_text())["plugins"][0]["ipam"]["ranges"] == [
        [{"subnet": str(POD_CIDR)}]
    ]
    assert address(node, "first") in POD_CIDR
    assert list(api.store.objects[api.resource("peers")]) == ["node-1"]

    renew(node, api, "second")
    until(lambda: node.host.path("/etc/cni/pycni/token").read_text() == "second", seconds=60)
    api.stop()
    until(lambda: not is_synchronised(node), seconds=120)
    assert pod.probe("livenessProbe") == pod.probe("readinessProbe") == (0, "")
    assert address(node, "second") in POD_CIDR
    start(node, api)
    until(lambda: is_synchronised(node), seconds=120)

    pod.end()
    assert "removed" in node.uninstall()
    assert not node.host.path(CONFLIST).exists()
