"""The probe for addresses in use: hosts that have one, hosts that probe it too, and frames that say nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.cni.ip import Address
from shared.net import discovery
from tests import node as nodes
from tests.pretend import PretendHost
from tests.system import macvlan_node

TREE = str(Path(__file__).resolve().parents[2])
OWN, OTHER = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
MAC = bytes.fromhex("02000000000b")
V4, V6, LAST = Address.parse("10.0.0.5"), Address.parse("fd00::5"), Address.parse("10.0.0.9")
LINKS = f"""
ip link add probed address {OWN} type veth peer name far address {OTHER} netns lan
ip link set probed up
ip -n lan link set far up
until ip link show probed | grep -q 'state UP' && ip -n lan link show far | grep -q 'state UP'; do sleep 0.05; done
"""
# Answers the first question with the given frame, again and again until it is ended.
ANSWER = """
import socket, sys, time
place = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
place.bind(("far", 3))
print("ready", flush=True)
mine = bytes.fromhex(sys.argv[1])
is_asked = False
while not is_asked:
    frame = place.recv(128)
    is_asked = any(bytes.fromhex(address) in frame for address in sys.argv[2:])
while True:
    place.send(mine)
    time.sleep(0.05)
"""
PROBE = f"""
import json, sys
sys.path.insert(0, {TREE!r})
from shared import signals
from shared.cni.ip import Address
from shared.net import probe
signals.install()
own = [Address.parse(one) for one in sys.argv[2:]]
found = probe.find_holders("probed", {OWN!r}, own, float(sys.argv[1]))
print(json.dumps({{str(address): mac for address, mac in found.items()}}))
"""

ENDLESS = """
import socket
from shared.net import netns
with netns.open_netns("/run/netns/lan"):
    far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    far.bind(("far", 0))
class Fed(probe.Probe):
    def _claims(self, flags):
        far.send(bytes.fromhex(sys.argv[1]))
        return super()._claims(flags)
print(Fed("probed", "02:00:00:00:00:0a", own).read())
"""


def arp(operation: bytes, sender: Address | None, target: Address, mac: bytes = MAC) -> bytes:
    return discovery.arp(operation, mac, sender.packed if sender else bytes(4), discovery.NOBODY, target.packed)


REPLY = arp(discovery.ARPOP_REPLY, V4, Address(4, 0))


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        pytest.param(REPLY, {"10.0.0.5": OTHER}, id="reply"),
        pytest.param(arp(discovery.ARPOP_REQUEST, V4, V4), {"10.0.0.5": OTHER}, id="announcement"),
        pytest.param(arp(discovery.ARPOP_REQUEST, None, V4), {"10.0.0.5": OTHER}, id="another_probe"),
        pytest.param(discovery.advertisement(MAC, V6.packed), {"fd00::5": OTHER}, id="neighbour_advertisement"),
        pytest.param(discovery.solicitation(MAC, V6.packed), {"fd00::5": OTHER}, id="another_detection_of_duplicates"),
        pytest.param(arp(discovery.ARPOP_REQUEST, V4 + 1, V4), {}, id="question_of_a_neighbour"),
        pytest.param(arp(discovery.ARPOP_REPLY, V4 + 1, V4), {}, id="reply_for_another_address"),
        pytest.param(arp(discovery.ARPOP_REPLY, V4, V4, bytes.fromhex("02000000000a")), {}, id="own_frame"),
        pytest.param(REPLY[:12] + bytes.fromhex("81000005") + REPLY[12:], {}, id="frame_of_a_VLAN"),
        pytest.param(REPLY[:12] + bytes.fromhex("81000000") + REPLY[12:], {"10.0.0.5": OTHER}, id="priority_tag"),
        pytest.param(REPLY[:40], {}, id="cut_ARP_frame"),
        pytest.param(discovery.advertisement(MAC, V6.packed)[:70], {}, id="cut_advertisement"),
    ],
)
def test_frames_that_claim_an_address(host: PretendHost, frame: bytes, found: dict[str, str]) -> None:
    """The links have no addresses: only the frames of the scripts pass."""
    host.netns("lan")
    host.run("sh", "-ec", LINKS)
    node = nodes.Node(host)
    node.serve("lan", ANSWER, frame.hex(), V4.packed.hex(), V6.packed.hex())
    if not found:  # a late answer for a third address ends the wait: the frame has been heard by then, several times
        late = arp(discovery.ARPOP_REPLY, LAST, V4)
        node.serve("lan", ANSWER.replace("while True:", "time.sleep(0.3)\nwhile True:"), late.hex(), LAST.packed.hex())
    process = host.run(sys.executable, "-c", PROBE, "30", *map(str, (V4, V6, LAST)))
    assert json.loads(process.stdout) == (found or {str(LAST): OTHER})


def test_nobody_answers(host: PretendHost) -> None:
    host.netns("lan")
    host.run("sh", "-ec", LINKS)
    assert json.loads(host.run(sys.executable, "-c", PROBE, "0.1", str(V4), str(V6)).stdout) == {}


def test_frames_that_come_faster_than_they_are_read(host: PretendHost) -> None:
    """The dhcp daemon reads in its only thread. Here each frame that is read makes another one."""
    host.netns("lan")
    host.run("sh", "-ec", LINKS)
    script = PROBE.partition("found =")[0] + ENDLESS
    frame = arp(discovery.ARPOP_REQUEST, V4 + 1, V4)
    done = host.run(sys.executable, "-c", script, frame.hex(), str(V4))
    assert done.stdout == "{}\n"


class Node(macvlan_node.Node):
    """A node with a network of macvlan, and addresses by static that are probed."""

    def ipam(self, *addresses: str, seconds: int) -> dict[str, Any]:
        listed = [{"address": one} for one in addresses]
        return {"ipam": {"type": "static", "addresses": listed, "probeSeconds": seconds}}


@pytest.mark.parametrize("wanted", ["10.1.0.254/24", "fd00:1::fe/64"])
def test_an_address_of_another_host_is_refused(node: Node, wanted: str) -> None:
    """A machine of the LAN has it. The error names the address and the machine's MAC."""
    (lan,) = node.host.ip("link", "show", "eth0", netns="lan")
    words = f"in use on the network of eth0: {wanted.partition('/')[0]} by the host with MAC {lan['address']}"
    node.refused("a", 999, words, node.ipam("10.1.0.5/24", wanted, seconds=10))


def test_an_address_of_another_pod_is_refused(node: Node) -> None:
    """By the kernel's own duplicate address detection it would be noticed in IPv6 alone, and by nobody in time."""
    mac = node.add("a", node.ipam("10.1.0.5/24", "fd00:1::5/64", seconds=0))["interfaces"][0]["mac"]
    for address in ("10.1.0.5/24", "fd00:1::5/64"):
        node.refused("b", 999, f"by the host with MAC {mac}", node.ipam(address, seconds=10))


@pytest.mark.parametrize("keys", [{}, {"type": "bridge", "isGateway": True}], ids=["macvlan", "bridge"])
def test_free_addresses_are_given(node: Node, keys: Mapping[str, Any]) -> None:
    """The pod's link is as without the probe: it has no addresses by router advertisements, and reaches the LAN."""
    keys = {**keys, **node.ipam("10.1.0.5/24", "fd00:1::5/64", seconds=1)}
    node.add("a", keys)
    assert node.check("a", keys) == ""
    assert nodes.sysctl(node.host, "ipv6/conf/eth0/accept_ra", "a") == "0"
    if keys.get("type") != "bridge":
        assert node.pings("a", "10.1.0.254") and node.pings("a", "fd00:1::fe")
    node.delete("a", keys)


def test_a_link_that_nobody_is_behind(node: Node) -> None:
    """A probe that could not hear an answer would prove nothing."""
    keys = node.ipam("10.1.0.5/24", seconds=1)
    node.refused("a", 999, "link eth0 of the pod has no carrier", keys, type="tap", master=...)
    node.refused("a", 7, '"ipam.probeSeconds": 11 ', node.ipam("10.1.0.5/24", seconds=11))
