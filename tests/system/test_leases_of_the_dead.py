"""Leases of pods that died without DEL: the ADD that needs them takes them over; living pods keep theirs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

import tests.node
from tests.pretend import PretendHost, read_line

STORE = "/var/lib/cni/networks/net"
ENTRY = "/var/lib/cni/networks/.pycni/net"
ASKED = "IgnoreUnknown=1;IP=10.1.0.2"
SMALL = {"type": "host-local", "subnet": "10.1.0.0/29"}  # five addresses
BOTH = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00:1::/64"}]]}


class Node(tests.node.Node):
    """A pretend host; host-local alone, as a foreign main plugin calls it, or bridge attaches its pods."""

    def __init__(self, host: PretendHost, plugin: str) -> None:
        super().__init__(host, type=plugin, bridge="br0", ipam=SMALL)
        self.plugin = plugin

    def add(self, pod: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> list[str]:
        super().add(pod, keys, **more)
        return self.addresses(pod)

    def leases(self) -> dict[str, str]:
        files = self.host.snapshot()["files"]
        prefixes = (f"{STORE}/10.", f"{STORE}/fd")
        return {path.removeprefix(f"{STORE}/"): text for path, text in files.items() if path.startswith(prefixes)}


@pytest.fixture(params=["host-local", "bridge"])
def node(request: pytest.FixtureRequest, host: PretendHost) -> Node:
    return Node(host, request.param)


@pytest.mark.row(25)
def test_an_attachment_that_comes_back_takes_its_stale_lease_over(node: Node) -> None:
    """It returns under its old path, several times, and then under another one."""
    node.add("a")
    for _ in range(3):
        node.kill("a")
        (address,) = node.add("a")
        assert node.leases() == {address: "a\r\neth0"}
    node.kill("a")
    answer = node.call("ADD", "a", netns=node.host.netns("elsewhere"))
    assert answer.status == 0 and len(node.leases()) == 1, answer
    assert node.call("DEL", "a", netns="").status == 0
    assert node.leases() == {}


@pytest.mark.row(25)
def test_its_other_address_goes_with_it(node: Node) -> None:
    node.add("a", ipam=BOTH)
    node.kill("a")
    addresses = node.add("a", ipam=SMALL)
    assert node.leases() == dict.fromkeys(addresses, "a\r\neth0")


@pytest.mark.row(15, 25)
def test_one_that_is_alive_is_refused(node: Node) -> None:
    """In its own namespace and in another one; its lease stays."""
    (address,) = node.add("a")
    before = node.leases()
    for netns in ("/run/netns/a", node.host.netns("other"), "/run/netns/none"):
        answer = node.call("ADD", "a", netns=netns)
        assert answer.status == 1 and answer.code in (3, 999), answer
        if node.plugin == "host-local":
            assert f"{address} has been allocated to a eth0, duplicate" in answer.json["msg"]
        assert node.leases() == before


@pytest.mark.row(25)
def test_an_interface_of_another_name_is_another_attachment(node: Node) -> None:
    node.add("a")
    node.add("a", ifname="net1")
    node.kill("a")
    node.add("a", ifname="net1")
    assert sorted(node.leases().values()) == ["a\r\neth0", "a\r\nnet1"]


@pytest.mark.row(25)
def test_a_full_pool_of_dead_pods_is_not_full(node: Node) -> None:
    """STATUS agrees; living pods keep their leases, and a pool full of them is full."""
    for pod in "abcde":
        node.add(pod)
    assert node.call("STATUS", "").code == 50
    kept = {address: text for address, text in node.leases().items() if text[0] in "bd"}
    node.host.netns("f")
    refused = node.call("ADD", "f")
    assert refused.code == 11 and len(node.leases()) == 5, refused
    for pod in "ace":
        node.kill(pod)
    before = node.leases()
    assert node.call("STATUS", "").status == 0
    assert node.leases() == before
    node.add("f")
    node.add("g")
    node.add("h")
    assert {address: text for address, text in node.leases().items() if text[0] in "bd"} == kept
    assert sorted(text[0] for text in node.leases().values()) == sorted("bdfgh")
    node.host.netns("i")
    assert node.call("ADD", "i").code == 11
    assert node.call("STATUS", "").code == 50


@pytest.mark.parametrize("how", ["CNI_ARGS", "ips"])
@pytest.mark.row(25)
def test_an_address_that_is_asked_for(node: Node, how: str) -> None:
    asked: dict[str, Any] = {"args": ASKED} if how == "CNI_ARGS" else {"runtimeConfig": {"ips": ["10.1.0.2"]}}
    assert node.add("a", ipam=BOTH)[0] == "10.1.0.2"
    node.host.netns("b")
    assert node.call("ADD", "b", **asked).code == 11
    node.kill("a")
    assert node.add("b", **asked) == ["10.1.0.2"]
    assert node.leases() == {"10.1.0.2": "b\r\neth0"}


@pytest.mark.row(25)
def test_a_namespace_that_lives_on_without_its_path_keeps_bridges_lease(host: PretendHost) -> None:
    """A process keeps the namespace, and the pod's link proves it."""
    node = Node(host, "bridge")
    for pod in "abcde":
        node.add(pod)
    before = node.leases()
    with host.popen("ip", "netns", "exec", "a", "sh", "-c", "echo; cat") as keeper:
        read_line(keeper)
        host.drop_netns("a")
        host.netns("f")
        assert node.call("ADD", "f").code == 11
        assert node.call("ADD", "f", args=ASKED).code == 11
        assert node.call("STATUS", "").code == 50
        assert node.call("ADD", "a", netns=host.netns("again")).code == 999
        assert node.leases() == before
        keeper.communicate()


@pytest.mark.parametrize("path", ["", "/run/netns/none", "/etc/passwd", "/run/" + "x/" * 1500])
@pytest.mark.row(25)
def test_nothing_known_of_the_namespace_is_alive(host: PretendHost, path: str) -> None:
    """No namespace, a path to no namespace, and a path too long to be noted count as entries of an earlier release."""
    node = Node(host, "host-local")
    node.add("a")
    if path:
        host.run("sh", "-ec", f"rm {ENTRY}/a:eth0 {STORE}/10.1.0.2; mkdir -p $(dirname {path})")
        assert node.call("ADD", "a", netns=path).status == 0
    else:
        host.run("sh", "-ec", f"ln -sfn 'own 10.1.0.2' {ENTRY}/a:eth0")
    node.kill("a")
    host.netns("a")
    assert node.call("ADD", "a").code == 999
    assert len(node.leases()) == 1


@pytest.mark.row(25)
def test_a_killed_call_in_between_forgets_no_mark(node: Node) -> None:
    """It leaves the store unsealed, and the next call builds the index again."""
    node.add("a", ipam=BOTH)
    node.host.run("touch", STORE)
    node.kill("a")
    node.add("b", ipam=BOTH)
    node.add("a", ipam=BOTH)
    assert sorted(node.leases().values()) == ["a\r\neth0"] * 2 + ["b\r\neth0"] * 2


@pytest.mark.row(25)
def test_a_lease_that_the_reference_made_since_is_alive(host: PretendHost, reference_bin: str) -> None:
    """It has the same attachment and address, so this suite's mark proves nothing about it."""
    node = Node(host, "host-local")
    (address,) = node.add("a")
    host.drop_netns("a")
    config = {"cniVersion": "1.0.0", "name": "net", "type": "host-local", "ipam": SMALL}
    time.sleep(1.1)  # no two calls of different suites come that close
    for verb in ("DEL", "ADD"):
        answer = host.cni(
            "host-local", verb, config, netns="/run/netns/none", container_id="a", args=f"IP={address}",
            bin_dir=reference_bin,
        )  # fmt: skip
        assert answer.status == 0, answer
    for pod in "bcde":
        node.add(pod)
    host.netns("f")
    assert node.call("ADD", "f").code == 11
    assert node.call("ADD", "a").code == 999
    assert node.leases()[address] == "a\r\neth0"
