"""VLANs of ports: a failing ADD's clean-up, and CHECK's report; tests/system/test_vlans.py tests the kernel's part."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from shared.net import vlans
from shared.net.owner import Owner, stable_link
from shared.net.wire import (
    AF_BRIDGE,
    BRIDGE_VLAN_INFO_PVID,
    BRIDGE_VLAN_INFO_UNTAGGED,
    IFF_UP,
    NLM_F_DUMP,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
)
from shared.undo import Undo
from tests.unit.kernel_end import KernelEnd, by_pyroute2, done, error, read_by_pyroute2

DATA = {"IFLA_BR_VLAN_DEFAULT_PVID": 1, "IFLA_BR_VLAN_FILTERING": 1}
BRIDGE = {
    "index": 4, "IFLA_MTU": 1450, "IFLA_IFNAME": "cni0",
    "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge", "IFLA_INFO_DATA": DATA},
}  # fmt: skip
GATEWAY, PORT, OWN = 50, 51, 99
NATIVE = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED


def port(index: int, members: dict[int, int], master: int = 4) -> dict[str, Any]:
    info = [{"flags": flags, "vid": vid} for vid, flags in members.items()]
    return {"family": AF_BRIDGE, "index": index, "IFLA_MASTER": master, "IFLA_AF_SPEC": {"IFLA_BRIDGE_VLAN_INFO": info}}


class Kernel:
    """A bridge with ports in VLANs, on which the gateway port cni0.7 is made."""

    def __init__(self, *ports: dict[str, Any]) -> None:
        self.ports = ports
        self.links: dict[str, int] = {}
        self.deleted: list[int] = []

    def __call__(self, kind: int, sequence: int, request: bytes) -> list[bytes]:
        message = read_by_pyroute2(kind, request)
        (flags,) = struct.unpack_from("=H", request, 6)
        if kind == RTM_GETLINK and flags & NLM_F_DUMP == NLM_F_DUMP:
            return [*(by_pyroute2(RTM_NEWLINK, 2, sequence, one) for one in self.ports), done(sequence)]
        if kind == RTM_GETLINK:
            wanted = message.get("IFLA_IFNAME", message["index"])
            for name, index in self.links.items():
                if wanted in (name, index):
                    pair = {"IFLA_LINK": GATEWAY + PORT - index, "IFLA_LINKINFO": {"IFLA_INFO_KIND": "veth"}}
                    return [by_pyroute2(RTM_NEWLINK, 0, sequence, {"index": index, "IFLA_IFNAME": name, **pair})]
            return [error(errno.ENODEV, sequence)]
        if kind == RTM_DELLINK and message["family"] != AF_BRIDGE:
            self.deleted.append(message["index"])
        elif kind == RTM_NEWLINK and "IFLA_IFNAME" in message:
            self.links = {"cni0.7": GATEWAY, message["IFLA_IFNAME"]: PORT}
        return []


def test_the_vlan_gateway_port() -> None:
    """`<bridge>.<vlan>` is a veth pair on the host whose other end is an untagged port of that VLAN only."""
    with KernelEnd(Kernel()) as kernel:
        made = vlans.ensure_gateway_port(
            kernel.netlink, Undo(), BRIDGE, "cni0.7", vlan=7, keep_default=False, own=(OWN,), ipv6=False, dad=False
        )
    assert made["IFLA_IFNAME"] == "cni0.7"
    seen = [(struct.unpack_from("=H", request, 4)[0], request) for request in kernel.requests]
    changes = [(kind, read_by_pyroute2(kind, request)) for kind, request in seen if kind != RTM_GETLINK]
    (_, pair), (_, member), (drop, dropped), (put, native), *ups = changes
    port = pair["IFLA_IFNAME"]
    peer = pair["IFLA_LINKINFO"]["IFLA_INFO_DATA"]["VETH_INFO_PEER"]
    assert (peer["IFLA_IFNAME"], peer["IFLA_MTU"], pair["IFLA_MTU"]) == ("cni0.7", 1450, 1450)
    assert "IFLA_NET_NS_FD" not in peer and port not in ("cni0", "cni0.7")
    assert (member["index"], member["IFLA_MASTER"]) == (PORT, 4)
    assert (drop, dropped["family"], dropped["index"]) == (RTM_DELLINK, AF_BRIDGE, PORT)
    assert dropped["IFLA_AF_SPEC"]["IFLA_BRIDGE_VLAN_INFO"] == {"flags": 0, "vid": 1}
    assert (put, native["index"]) == (RTM_SETLINK, PORT)
    assert native["IFLA_AF_SPEC"]["IFLA_BRIDGE_VLAN_INFO"] == {"flags": NATIVE, "vid": 7}
    assert {up["index"] for _, up in ups} == {PORT, GATEWAY}
    assert all(up["flags"] & up["change"] & IFF_UP for _, up in ups)


@pytest.mark.parametrize(("ports", "is_deleted"), [
    ([], True), ([port(OWN, {7: NATIVE}), port(PORT, {7: NATIVE})], True), ([port(8, {1: NATIVE})], True),
    ([port(8, {7: NATIVE})], False), ([port(8, {1: NATIVE, 7: 0})], False),
    ([port(8, {7: NATIVE}, master=5)], True), ([port(4, {7: 0})], True),
])  # fmt: skip
def test_a_failing_add_leaves_the_gateway_port_to_others(ports: list[dict[str, Any]], is_deleted: bool) -> None:
    """Others are ports of this bridge in that VLAN, tagged or not; the bridge's own end is none."""
    kernel = Kernel(*ports)
    with KernelEnd(kernel) as end:
        undo = Undo()
        vlans.ensure_gateway_port(
            end.netlink, undo, BRIDGE, "cni0.7", vlan=7, keep_default=False, own=(OWN,), ipv6=False, dad=False
        )
        for _, step in reversed(undo.steps):
            step()
    assert kernel.deleted == ([GATEWAY] if is_deleted else [])


OURS, THEIRS = Owner("net", "c1", "eth0").host_link, "vethstranger"


@pytest.mark.parametrize(("name", "native", "trunk", "keep", "have", "expected"), [
    (OURS, 7, [], False, {7: NATIVE}, []),
    (OURS, 7, [20], False, {7: NATIVE, 20: 0}, []),
    (OURS, 7, [20], False, {7: NATIVE}, ["not in the VLANs [20]"]),
    (OURS, 7, [], False, {}, ["not in the VLANs [7]"]),
    (OURS, 7, [], False, {7: 0}, ["VLAN 7 is not the native one"]),
    (OURS, 7, [], False, {7: NATIVE, 1: 0}, ["is in VLAN 1, the default one"]),
    (stable_link("cni0.7"), 7, [], False, {7: NATIVE, 1: 0}, ["is in VLAN 1, the default one"]),
    (THEIRS, 7, [], False, {7: NATIVE, 1: 0}, []),
    (OURS, 7, [1], False, {7: NATIVE, 1: 0}, []),
    (OURS, 7, [], True, {7: NATIVE, 1: 0}, []),
    (OURS, 7, [], True, {7: NATIVE}, ["not in the VLANs [1]"]),
    (OURS, 0, [20], False, {1: NATIVE, 20: 0}, []),
    (OURS, 0, [20], False, {20: 0}, ["not in the VLANs [1]"]),
])  # fmt: skip
def test_check(name: str, native: int, trunk: list[int], keep: bool, have: dict[int, int], expected: list[str]) -> None:
    """A pod that the reference made is in the default VLAN, too, and stays unreported."""
    with KernelEnd(Kernel(port(8, have))) as end:
        link = {"index": 8, "IFLA_IFNAME": name}
        found = vlans.problems(end.netlink, BRIDGE, link, native=native, trunk=trunk, keep=keep)
    assert len(found) == len(expected)
    assert all(words in said for words, said in zip(expected, found)), found


def test_check_of_a_bridge_that_filters_no_vlans() -> None:
    bridge = {
        **BRIDGE,
        "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge", "IFLA_INFO_DATA": {"IFLA_BR_VLAN_DEFAULT_PVID": 1}},
    }
    with KernelEnd(Kernel(port(8, {7: NATIVE}))) as end:
        link = {"index": 8, "IFLA_IFNAME": OURS}
        (found,) = vlans.problems(end.netlink, bridge, link, native=7, trunk=[], keep=False)
    assert found == "bridge cni0 does not filter VLANs"
