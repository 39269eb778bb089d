"""The state of a pod right after its namespace was deleted: the kernel removes it later."""

from __future__ import annotations

from typing import Any

from tests.pretend import PretendHost

PODS = 40  # deleted at once, so that the kernel has some to do
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "bridge",
    "isGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"},
}
MAPPING = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}


def add(host: PretendHost, pod: str, plugin: str = "bridge", **keys: Any) -> Any:
    answer = host.cni(plugin, "ADD", {**CONFIG, **keys}, netns=f"/run/netns/{pod}", container_id=pod)
    assert answer.status == 0, answer
    return answer.json


def delete_namespaces(host: PretendHost, *pods: str) -> None:
    host.run("ip", "-batch", "-", input="".join(f"netns del {pod}\n" for pod in pods))


def test_a_pod_comes_back_at_once(host: PretendHost) -> None:
    pods = [f"pod{number}" for number in range(PODS)]
    for pod in pods:
        host.netns(pod)
        add(host, pod)
    delete_namespaces(host, *pods)
    host.netns(pods[-1])
    result = add(host, pods[-1])
    assert [link for link in host.ip("link", "show", result["interfaces"][1]["name"]) if link["master"] == "cni0"]


def test_a_port_is_taken_over_at_once(host: PretendHost) -> None:
    for pod in ("one", "two"):
        host.netns(pod)
    add(host, "one", "portmap", **MAPPING, prevResult=add(host, "one"))
    result = add(host, "two")
    delete_namespaces(host, "one")
    add(host, "two", "portmap", **MAPPING, prevResult=result)
