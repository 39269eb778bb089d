"""Requested MACs: bridge and tuning refuse one that another link on the bridge has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import tests.node
from tests.faults import batch
from tests.pretend import Answer, PretendHost, read_line

pytestmark = pytest.mark.row("mac")

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": RANGES},
}  # fmt: skip
FREE = "02:00:00:00:00:77"


class Node(tests.node.Node):
    """A host with a bridge that has an uplink, and pods on it."""

    DEFAULTS = CONFIG

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host)
        host.run("sh", "-ec", "ip link add up0 type ifb; ip link set up0 up")
        self.add("first", uplinks=["up0"])

    def call(self, verb: str, pod: str, keys: Mapping[str, Any] = {}, /, *, mac: str = "", cni: dict[str, str] | None = None, **more: Any) -> Answer:  # fmt: skip
        asked = {"runtimeConfig": {"mac": mac}, "args": {"cni": cni or {}}} if verb == "ADD" else {}
        return super().call(verb, pod, {**asked, **keys}, **more)

    def tune(self, verb: str, pod: str, *, cni: dict[str, str] | None = None, **more: Any) -> Answer:
        keys = {"type": "tuning", "bridge": ..., "ipam": ..., "isDefaultGateway": ...}
        return super().call(verb, pod, {**keys, "prevResult": self.results[pod], "args": {"cni": cni or {}}}, **more)

    def new_index(self) -> int:
        """Return the index that the kernel gives to a new link."""
        self.host.run("ip", "link", "add", "probe", "type", "ifb")
        (probe,) = self.host.ip("link", "show", "probe")
        self.host.run("ip", "link", "del", "probe")
        return int(probe["ifindex"])

    def macs(self, pod: str) -> dict[str, str]:
        """Return the MACs by the names of the links that have them."""
        bridge, port, inside = self.results[pod]["interfaces"][:3]
        (uplink,) = self.host.ip("link", "show", "up0")
        return {"bridge cni0": bridge["mac"], f"port {port['name']}": port["mac"],
                f"link eth0 behind port {port['name']}": inside["mac"], "port up0": uplink["address"]}  # fmt: skip


@pytest.mark.parametrize("how", ["runtimeConfig", "args", "CNI_ARGS"])
def test_a_mac_that_another_has(node: Node, how: str) -> None:
    """The bridge, its uplink, a pod, and the host's end of one; asked for by each key, in either case of letters."""
    node.host.netns("c")
    before = node.host.snapshot()
    for holder, mac in node.macs("first").items():
        answer = {
            "runtimeConfig": lambda mac=mac: node.call("ADD", "c", mac=mac.upper()),
            "args": lambda mac=mac: node.call("ADD", "c", cni={"mac": mac}),
            "CNI_ARGS": lambda mac=mac: node.call("ADD", "c", args=f"MAC={mac}"),
        }[how]()
        assert answer.code == 7 and f"is the MAC of {holder}" in answer.json["msg"], answer
        assert mac in answer.json["msg"] and how in answer.json["msg"], answer
        assert node.host.snapshot() == before
    last = node.new_index()
    assert node.call("ADD", "c", mac=node.macs("first")["port up0"]).code == 7
    assert node.new_index() == last + 1, "the refused call made a link"
    node.add("c", mac=FREE)


def test_another_networks_pod_on_the_bridge(node: Node) -> None:
    node.add("c", mac=FREE, name="other")
    assert "pycni:other/c/eth0" in node.call("ADD", "d", mac=FREE).json["msg"]
    node.add("d", mac=FREE, bridge="cni1", ipam={"type": "host-local", "subnet": "10.2.0.0/24"})


def test_the_same_pod_and_its_heirs(node: Node) -> None:
    """A repeated ADD reports that the pod is attached; a later pod may have its MAC, with or without DEL."""
    node.add("c", mac=FREE)
    repeated = node.call("ADD", "c", mac=FREE)
    assert repeated.code == 999 and "attached already" in repeated.json["msg"], repeated
    node.delete("c")
    node.add("c", mac=FREE)
    node.host.drop_netns("c")
    node.add("d", mac=FREE)
    node.host.drop_netns("d")
    node.add("d", mac=FREE)
    # a process that is inside keeps the namespace for half a second more
    with node.host.popen("ip", "netns", "exec", "d", "sh", "-c", "echo; exec sleep 0.5") as inside:
        read_line(inside)
        node.host.drop_netns("d")
        node.add("e", mac=FREE)


def test_of_several_at_once_one_at_most(host: PretendHost) -> None:
    batch.make_pods(host, 4)
    config = {**CONFIG, "runtimeConfig": {"mac": FREE}}
    for _ in range(4):
        calls = [batch.Call("bridge", "ADD", config, {"CNI_CONTAINERID": f"c{n}"}) for n in range(4)]
        answers = batch.run(host, calls, at_once=4)
        refused = [answer for answer in answers if answer.status]
        assert len(refused) >= 3 and {answer.code for answer in refused} == {7}, answers
        for n in range(4):
            batch.run(host, [batch.Call("bridge", "DEL", config, {"CNI_CONTAINERID": f"c{n}"})])


@pytest.mark.parametrize("how", ["mac", "runtimeConfig", "args", "CNI_ARGS"])
def test_tuning(node: Node, how: str) -> None:
    """tuning refuses a MAC of the bridge or of a neighbour; the pod's own, and a free one, are fine."""
    node.add("c")
    own = node.results["c"]["interfaces"][2]["mac"]
    before = node.host.snapshot(["c"])
    for holder, mac in node.macs("first").items():
        answer = {
            "mac": lambda mac=mac: node.tune("ADD", "c", mac=mac),
            "runtimeConfig": lambda mac=mac: node.tune("ADD", "c", runtimeConfig={"mac": mac}),
            "args": lambda mac=mac: node.tune("ADD", "c", cni={"mac": mac}),
            "CNI_ARGS": lambda mac=mac: node.tune("ADD", "c", args=f"MAC={mac}"),
        }[how]()
        assert answer.code == 7 and f"is the MAC of {holder}" in answer.json["msg"] and how in answer.json["msg"], (
            answer
        )
        assert node.host.ip("link", "show", "eth0", netns="c")[0]["address"] == own
    assert node.host.snapshot(["c"]) == before
    for mac in (own, FREE, FREE):
        answer = node.tune("ADD", "c", mac=mac)
        assert answer.status == 0, answer
    assert node.host.ip("link", "show", "eth0", netns="c")[0]["address"] == FREE
    assert node.tune("DEL", "c").status == 0
    assert node.host.ip("link", "show", "eth0", netns="c")[0]["address"] == own


def test_tuning_of_a_link_that_leads_to_no_bridge(node: Node) -> None:
    """No other link is on its wire."""
    node.host.run("sh", "-ec", "ip netns add e; ip link add name veth-e type veth peer name eth0 netns e")
    node.results["e"] = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/e"}], "ips": []}
    bridge = node.macs("first")["bridge cni0"]
    assert node.tune("ADD", "e", mac=bridge).status == 0
