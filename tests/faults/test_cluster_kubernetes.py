"""Row 30 with the Kubernetes API: the cluster duty is killed at its messages, and requests and answers are lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster import kube_objects
from shared.cluster.kube_names import block_name
from shared.net.netns import Netns, open_netns
from tests.faults import stepper
from tests.faults.plugin import Tally
from tests.faults.stepper import MESSAGE, Strike
from tests.faults.struck_node import StruckNode
from tests.faults.test_cluster import Act, Play, list_losses, play
from tests.kube_server import KubeServer, agent
from tests.pretend import PretendHost

pytestmark = pytest.mark.kernel_vxlan
PLAYED = ("join", "grow", "shrink", "resume", "release", "restored")
KUBECONFIG, TOKEN = "/run/kubeconfig", "secret-of-node-1"
PLURALS = {"Pool": "pools", "Block": "blocks", "Peer": "peers"}

sample = pytest.param("", marks=pytest.mark.xdist_group("struck cluster, Kubernetes"), id="sample")
whole = [pytest.param(name, marks=pytest.mark.faults) for name in PLAYED]


class KubeNode(StruckNode):
    """The node of a Kubernetes cluster, whose API server listens in its network. Keys are etcd's."""

    name = "node-1"

    def __init__(self, host: PretendHost, network: Netns, program: Path, server: KubeServer) -> None:
        super().__init__(host, network, program)
        self.server = server
        server.tokens[TOKEN] = agent(self.name)
        self.settings = {"engine": "kubernetes", "node": self.name, "networks": {"pods": {}}}

    def start_etcd(self) -> None:
        """Do nothing: the server runs."""

    @property
    def endpoint(self) -> str:
        return self.server.url

    def engine_settings(self, url: str) -> dict[str, Any]:
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": url or self.server.url}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
        }  # fmt: skip
        self.host.run("tee", KUBECONFIG, input=json.dumps(config))
        return {"kubernetes": {"kubeconfig": KUBECONFIG}}

    def objects(self) -> dict[str, Any]:
        found = {}
        for resource, objects in self.server.store.objects.items():
            for name, one in objects.items():
                found[key_of(resource.plural, name)] = one["spec"]
        return found

    def put(self, key: str, value: Any) -> None:
        plural, name = place(key)
        kind = next(kind for kind, one in PLURALS.items() if one == plural)
        self.delete_key(key)
        self.server.add(plural, {
            "apiVersion": "pycni.internal/v1", "kind": kind, "metadata": {"name": name}, "spec": value,
        })  # fmt: skip

    def delete_key(self, key: str) -> None:
        plural, name = place(key)
        resource = self.server.resource(plural)
        if name in self.server.store.objects.get(resource, {}):
            self.server.store.delete(self.server.admin, resource, name, {})

    def dump(self) -> dict[str, Any]:
        return self.objects()

    def load(self, objects: dict[str, Any]) -> None:
        present = self.objects()
        for key in present.keys() - objects.keys():
            self.delete_key(key)
        for key, value in objects.items():
            if present.get(key) != value:
                self.put(key, value)


def place(key: str) -> tuple[str, str]:
    """Return the plural and the name of the object that has a key in etcd."""
    kind, _, rest = key.partition("/")
    if kind == "blocks":
        network, _, cidr = rest.partition("/")
        return "blocks", block_name(network, ip_network(cidr))
    return ("peers" if kind == "nodes" else kind), rest


def key_of(plural: str, name: str) -> str:
    """Return the key that etcd has for an object."""
    return kube_objects.key(plural, {"metadata": {"name": name}})


@pytest.fixture(scope="module")
def node(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeNode]:
    program = stepper.compiled(tmp_path_factory.mktemp("stepper"))
    with PretendHost(installed) as host:
        netns = open_netns(f"/proc/{host.first_pid}/ns/net")
        server = KubeServer()
        try:
            with netns:
                server.start()
            found = KubeNode(host, netns, program, server)
            found.open()
            yield found
        finally:
            server.stop()
            netns.close()


def list_kills(one: Play) -> list[Act]:
    return [partial(one.strike, Strike("plugin", number, MESSAGE), name) for number, name in one.points(MESSAGE)]


@pytest.mark.parametrize("scene", [sample, *whole])
@pytest.mark.row(30)
def test_killed(node: KubeNode, scene: str, tally: Tally) -> None:
    play(node, scene, list_kills, tally, PLAYED)


@pytest.mark.parametrize("scene", whole)
@pytest.mark.row(30)
def test_lost_requests(node: KubeNode, scene: str, tally: Tally) -> None:
    play(node, scene, list_losses, tally, PLAYED)
