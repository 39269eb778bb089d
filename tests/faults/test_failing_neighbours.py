"""Row 14: an ADD that fails late rolls back its own work, but nothing that another pod needs or has had by then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tests.node
from tests.faults import fake_ipam
from tests.faults.fake_ipam import GOOD, says
from tests.pretend import PATIENCE, Answer, PretendHost

GO = "/run/fake/go"
HOST_LOCAL = {"type": "host-local", "subnet": "10.7.0.0/24", "rangeStart": "10.7.0.20"}
WAITS = f"[ $CNI_COMMAND != ADD ] || read word <{GO}\n"

pytestmark = pytest.mark.row(14)


class Node(tests.node.Node):
    """A host with a bridge br0 to come, and IPAM plugins that wait for a word before they answer."""

    def __init__(self, host: PretendHost, directory: Path) -> None:
        super().__init__(host, type="bridge", bridge="br0", ipam=HOST_LOCAL)
        fake_ipam.write(host, directory, "fails", "exit 1\n")
        fake_ipam.write(host, directory, "waits-and-fails", WAITS + "exit 1\n")
        self.path = fake_ipam.write(host, directory, "waits", WAITS + says(GOOD))
        host.run("mkfifo", GO)

    def call(self, verb: str, pod: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> Answer:
        return super().call(verb, pod, keys, path=self.path, **more)

    @contextmanager
    def adding(self, pod: str, kind: str, **keys: Any) -> Iterator[list[Answer]]:
        """Run an ADD that waits in its IPAM plugin meanwhile, and answers into the list then."""
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(self.call("ADD", pod, ipam={"type": kind}, **keys)))
        thread.start()
        try:
            deadline = time.monotonic() + 60 * PATIENCE
            while fake_ipam.calls(self.host, pod) != ["ADD"]:
                assert time.monotonic() < deadline and not answers, answers
                time.sleep(0.01)
            yield answers
        finally:
            self.host.run("timeout", "60", "sh", "-c", f"echo go >{GO}")
            thread.join()

    def bridge(self) -> dict[str, Any]:
        (found,) = self.host.ip("link", "show", "br0")
        return found


@pytest.fixture
def node(host: PretendHost, tmp_path: Path) -> Node:
    return Node(host, tmp_path)


def test_a_bridge_whose_pods_have_just_gone_stays(node: Node) -> None:
    """It has had a pod, so that no call may roll it back, and it stays as that pod had it."""
    with node.adding("a", "waits-and-fails", isGateway=True) as answers:
        node.add("b", isGateway=True)
        before = node.bridge()["ifindex"]
        assert node.call("DEL", "b").status == 0
    assert answers[0].status == 1
    assert node.bridge()["ifindex"] == before and "UP" in node.bridge()["flags"]


@pytest.mark.parametrize("keys", [{}, {"isGateway": True, "promiscMode": True}])
def test_a_bridge_that_another_pod_uses_stays(node: Node, keys: dict[str, Any]) -> None:
    with node.adding("a", "waits-and-fails", **keys) as answers:
        node.add("b", **keys)
    assert answers[0].status == 1
    check = node.call("CHECK", "b", **keys, prevResult=node.results["b"])
    assert check.status == 0, check
    assert ("PROMISC" in node.bridge()["flags"]) == ("promiscMode" in keys)


def test_a_new_bridge_that_another_pod_is_joining_stays(node: Node) -> None:
    with node.adding("a", "waits") as answers:
        assert node.call("ADD", "b", ipam={"type": "fails"}).status == 1
    assert answers[0].status == 0, answers


def test_the_last_of_several_that_fail_removes_the_bridge(node: Node) -> None:
    with node.adding("a", "waits-and-fails"):
        assert node.call("ADD", "b", ipam={"type": "fails"}).status == 1
        assert node.bridge()["linkinfo"]["info_kind"] == "bridge"
    assert [link["ifname"] for link in node.host.ip("link")] == ["lo"]


def test_a_strangers_bridge_without_ports_stays(node: Node) -> None:
    node.host.run("ip", "link", "add", "br0", "type", "bridge")
    before = node.host.snapshot()["host"]
    assert node.call("ADD", "a", ipam={"type": "fails"}).status == 1
    assert node.host.snapshot()["host"] == before


def test_an_add_whose_bridge_was_replaced_fails(node: Node) -> None:
    """A bridge of the same name replaced it, and the pod is no port of the new one."""
    with node.adding("a", "waits") as answers:
        node.host.run("sh", "-ec", "ip link del br0; ip link add br0 up type bridge")
        before = node.bridge()["ifindex"]
    assert answers[0].code == 999 and "was replaced" in answers[0].json["msg"], answers
    assert node.bridge()["ifindex"] == before
    assert [link["ifname"] for link in node.host.ip("link", "show", "type", "veth")] == []
