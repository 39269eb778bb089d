"""containerd runs pods on the installed plugins, as a kubelet asks it to, and leaves no trace of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.clients.container_host import CLIENT, HOST, HOST_6, PORT, SERVER, ContainerHost, chain, require
from tests.clients.containerd import PROGRAMS, Containerd, pod_config

require(*PROGRAMS)


class Node:
    """A host with containerd and one network; `empty` is its state without pods."""

    def __init__(self, host: ContainerHost, containerd: Containerd) -> None:
        self.host, self.containerd = host, containerd
        self.empty = host.kept()

    def run(self, config: dict[str, Any]) -> str:
        pod = self.containerd.ask("RunPodSandbox", config=config).pod_sandbox_id
        assert isinstance(pod, str)
        return pod

    def assert_nothing_left(self) -> None:
        assert self.containerd.pods() == set()
        assert self.host.kept() == self.empty

    def netns(self) -> str:
        """Return the name of the only pod's network namespace."""
        (name,) = self.host.kept()["namespaces"] - self.empty["namespaces"]
        return name


@pytest.fixture
def network() -> dict[str, Any]:
    return chain("pods", 0, "cni0")


@pytest.fixture
def host_class() -> type[ContainerHost]:
    return ContainerHost


@pytest.fixture
def node(bin_dir: Path, tmp_path: Path, network: dict[str, Any], host_class: type[ContainerHost]) -> Iterator[Node]:
    with host_class(bin_dir, tmp_path) as host:
        host.configure(network)
        host.start_agent()
        with Containerd(host) as containerd:
            yield Node(host, containerd)
            host.assert_agent_served()


def test_a_pod(node: Node) -> None:
    """It serves at its addresses and the host's port, in both families, and its packets leave with the host's address."""
    config = pod_config("web", ports=[(9090, PORT)])
    pod = node.run(config)
    addresses = node.containerd.addresses(pod)
    assert addresses == ["10.44.0.2", "fd00:44::2"]
    node.containerd.serve(pod, config)
    for at in addresses:
        assert node.host.answer(at, PORT) == "web"
    for at in (HOST, HOST_6):
        assert node.host.answer(at, 9090, "client") == "web"
    for at in (HOST, HOST_6, "127.0.0.1"):
        assert node.host.answer(at, 9090) == "web"
    netns = node.netns()
    assert node.host.answer(HOST, 9090, netns) == "web"
    assert node.host.answer("127.0.0.1", PORT, netns) == "web"  # by the loopback plugin
    node.host.write("/run/outside/hostname", "outside")
    outside = node.host.popen("ip", "netns", "exec", "client", *SERVER[:-1], "/run/outside")
    assert node.host.answer(CLIENT, PORT, netns) == "outside"
    outside.kill()
    outside.communicate()
    for method in ("StopPodSandbox", "StopPodSandbox", "RemovePodSandbox", "RemovePodSandbox"):
        node.containerd.ask(method, pod_sandbox_id=pod)
    node.assert_nothing_left()


def test_bandwidth(node: Node) -> None:
    pod = node.run(pod_config("web", ingress_bandwidth="8M", egress_bandwidth="16M"))
    shown = json.loads(node.host.run("tc", "-j", "qdisc").stdout)
    rates = {one["dev"][:4]: one["options"]["rate"] for one in shown if one["kind"] == "tbf"}
    assert sorted(rates.values()) == [1_000_000, 2_000_000]  # bytes per second
    assert rates["veth"] == 1_000_000
    node.containerd.remove([pod])
    node.assert_nothing_left()


@pytest.mark.slow
def test_ten_pods_at_once(node: Node) -> None:
    configs = [pod_config(f"web-{number}", ports=[(9000 + number, PORT)]) for number in range(10)]
    calls = [node.containerd.begin("RunPodSandbox", config=config) for config in configs]
    pods = [call.result().pod_sandbox_id for call in calls]
    addresses = [node.containerd.addresses(pod) for pod in pods]
    assert len({address for both in addresses for address in both}) == 20
    for number in (0, 9):
        node.containerd.serve(pods[number], configs[number])
        assert node.host.answer(HOST, 9000 + number, "client") == f"web-{number}"
    node.containerd.remove(pods)
    node.assert_nothing_left()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (chain("pods", 0, "cni0"), "host port 9090/tcp of every IPv4 address is taken by pods/"),
        (chain("pods", 0, "cni0", rangeStart="10.44.0.7", rangeEnd="10.44.0.7"), "10.44.0.7"),
    ],
    ids=["a host port that is taken", "no address left"],
)
def test_a_pod_that_gets_no_network(node: Node, words: str) -> None:
    """The error says why, and nothing of it stays; when the cause is gone, it can be made."""
    config = pod_config("second", ports=[(9090, PORT)])
    first = node.run(pod_config("first", ports=[(9090, PORT)]))
    before = node.host.kept()
    with pytest.raises(grpc.RpcError) as caught:
        node.run(config)
    assert words in str(caught.value)
    assert node.host.kept() == before and node.containerd.pods() == {first}
    node.containerd.remove([first])
    second = node.run(config)
    node.containerd.remove([second])
    node.assert_nothing_left()


def test_containerd_is_killed(node: Node) -> None:
    """Pods go on meanwhile, and the next containerd knows and deletes them."""
    config = pod_config("web", ports=[(9090, PORT)])
    pod = node.run(config)
    node.containerd.serve(pod, config)
    assert node.host.answer(HOST, 9090, "client") == "web"
    node.containerd.kill()
    assert node.host.answer(HOST, 9090, "client") == "web"
    node.containerd.start()
    assert node.containerd.addresses(pod) == ["10.44.0.2", "fd00:44::2"]
    node.containerd.remove([pod])
    node.assert_nothing_left()


def test_containerd_is_killed_in_an_add(node: Node) -> None:
    """The next containerd finds a pod without a result of its network. Its DEL finds everything that the ADD had made."""
    config = pod_config("web", ports=[(9090, PORT)])
    call = node.containerd.begin("RunPodSandbox", config=config)
    node.host.wait_for("a lease", lambda: bool(node.host.leases()))
    node.containerd.kill()
    call.exception()  # however far it came
    node.host.wait_for("the plugin's end", node.host.is_idle)
    node.containerd.start()
    (pod,) = node.containerd.pods()
    assert node.host.kept() != node.empty
    node.containerd.remove([pod])
    node.assert_nothing_left()
    node.containerd.remove([node.run(config)])
    node.assert_nothing_left()
