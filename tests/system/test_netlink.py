"""The netlink codec on real kernel messages: it and pyroute2 decode each, in a pretend host."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from shared.build.wire_tables import ATTRIBUTES_BY_HAND
from tests.pretend import PretendHost

ROOT = Path(__file__).resolve().parents[2]

# linux/if.h's IF_OPER_*, which pyroute2 turns into words.
OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")

BUSY = """
ip link add br0 type bridge
ip link add v0 mtu 1400 address 02:00:00:00:00:01 type veth peer name v1
ip link set v0 master br0 up alias 'pycni:net/c1/eth0'
ip link set v1 up
ip link add m0 link v1 type macvlan mode bridge
ip link add ifb7 type ifb
ip link set br0 up
ip address add 10.1.0.1/24 broadcast + dev br0
ip address add 10.1.0.2/24 dev br0 label br0:x
ip address add 10.9.0.1 peer 10.9.0.2/32 dev v1
ip address add fd00:1::1/64 dev br0 nodad
ip address add ::1.2.3.4/128 dev br0 nodad
ip route add 10.2.0.0/16 via 10.1.0.5 metric 7 mtu 1300 advmss 1200 src 10.1.0.2
ip route add 10.3.0.0/16 nexthop via 10.1.0.6 weight 2 nexthop via 10.1.0.7
ip route add table 5000 default dev br0
ip route add unreachable 10.4.0.0/16
ip -6 route add fd02::/48 via fd00:1::5 metric 9 mtu 1280
ip -6 route add default dev br0 pref high
"""

# Prints both parsers' results for each message of each dump.
COMPARE = """
import json, sys
from pyroute2.netlink.rtnl import rtmsg
from shared.net import messages as codec, netlink, wire
from tests.unit.kernel_end import read_by_pyroute2

def plain(value):
    return value.hex() if isinstance(value, bytes) else str(value)

kernel = netlink.Netlink()
out = []
for kind, message in (
    (wire.RTM_GETLINK, {}), (wire.RTM_GETADDR, {}), (wire.RTM_GETROUTE, {"family": 2}), (wire.RTM_GETROUTE, {"family": 10}),
    (wire.RTM_GETLINK, {"family": wire.AF_BRIDGE, "IFLA_EXT_MASK": 2}), (wire.RTM_GETLINK, {"IFLA_MASTER": 2}),
):
    kernel.sequence += 1
    kernel.socket.send(codec.encode(kind, wire.NLM_F_REQUEST | wire.NLM_F_DUMP, kernel.sequence, message))
    found = []
    while True:
        data = kernel.socket.recv(1 << 20)
        for start in messages(data):
            length, got = int.from_bytes(data[start:start + 4], "little"), int.from_bytes(data[start + 4:start + 6], "little")
            if got < wire.NLMSG_MIN_TYPE:
                break
            ours = codec.decode(got, data, start + 16, start + length)
            found.append((wire.MESSAGES[got], ours, read_by_pyroute2(got, data[start:start + length])))
        else:
            continue
        break
    out.append(found)
print(json.dumps(out, default=plain))
"""
MESSAGES = """
def messages(data):
    start = 0
    while start + 16 <= len(data):
        yield start
        start += (int.from_bytes(data[start:start + 4], "little") + 3) & ~3
"""


# Attributes that pyroute2 does not know.
BY_HAND = {attribute for rows in ATTRIBUTES_BY_HAND.values() for _, attribute, _ in rows}


def differences(structure: str, ours: Any, theirs: Any, kinds: dict[str, Any], path: str = "") -> list[str]:
    """Return the differences between the two in attributes that the tables know; `kinds` are the tables."""
    fields, _, attributes = kinds[structure]
    found = [f"{path}{name}: {ours.get(name)} != {theirs[name]}" for name in fields if ours.get(name) != theirs[name]]
    for name, (_, kind) in attributes.items():
        if name in BY_HAND:
            continue
        if (name in ours) != (name in theirs):
            # `flag` and `bytes` attributes may be decoded into nothing by one of the two
            found += [f"{path}{name}: only one has it: {ours.get(name)!r} {theirs.get(name)!r}"]
            continue
        if name not in ours or kind == "bytes":
            continue
        mine, his = ours[name], theirs[name]
        inner = {"info_data": f"info_data/{ours.get('IFLA_INFO_KIND')}", "af_spec": "af_spec/bridge",
                 "info_slave_data": f"info_slave_data/{ours.get('IFLA_INFO_SLAVE_KIND')}"}.get(kind, kind)  # fmt: skip
        if isinstance(mine, dict):
            found += differences(inner, mine, his, kinds, f"{path}{name}.")
        elif inner in kinds and isinstance(mine, list):
            for place, one in enumerate(mine):
                found += differences(inner, one, his[place], kinds, f"{path}{name}[{place}].")
        elif inner == kind and kind != "af_spec" and not _same(name, mine, his):
            found.append(f"{path}{name}: {mine!r} != {his!r}")
    return found


def _same(name: str, mine: Any, his: Any) -> bool:
    if name == "IFLA_OPERSTATE":
        return bool(OPERSTATES[mine] == his)
    with contextlib.suppress(ValueError):  # addresses have more than one spelling
        return ipaddress.ip_address(mine) == ipaddress.ip_address(his)
    return bool(mine == his)


@pytest.fixture
def busy() -> Any:
    with PretendHost() as host:
        host.run("sh", "-ec", BUSY)
        yield host


def test_dumps(busy: PretendHost) -> None:
    """Links, addresses, routes of both families, bridge ports."""
    from shared.net.wire import STRUCTURES

    dumps = json.loads(busy.python(MESSAGES + COMPARE))
    links, addresses, v4, v6, ports, members = dumps
    assert {link["IFLA_IFNAME"] for _, link, _ in links} == {"lo", "br0", "v0", "v1", "m0", "ifb7"}
    assert len(addresses) >= 8 and len(v4) >= 6 and len(v6) >= 4 and ports and members
    wrong = {
        difference
        for dump in dumps
        for structure, ours, theirs in dump
        for difference in differences(structure, ours, theirs, STRUCTURES)
    }
    assert not wrong
    port = next(link for _, link, _ in links if link["IFLA_IFNAME"] == "v0")
    assert port["IFLA_IFALIAS"] == "pycni:net/c1/eth0" and port["IFLA_ADDRESS"] == "02:00:00:00:00:01"
    assert port["IFLA_LINKINFO"]["IFLA_INFO_SLAVE_DATA"]["IFLA_BRPORT_STATE"] in (0, 1, 2, 3)
    metrics = [route["RTA_METRICS"] for _, route, _ in v4 if route.get("RTA_DST") == "10.2.0.0"]
    assert metrics == [{"RTAX_MTU": 1300, "RTAX_ADVMSS": 1200}]


def test_the_kernels_own_words(busy: PretendHost) -> None:
    """The error contains the extended acknowledgement."""
    said = busy.python("""
from shared.net import links, netlink, wire
kernel = netlink.Netlink()
bridge = links.require(kernel, "br0")["index"]
for kind, message in ((wire.RTM_NEWLINK, {"index": bridge, "IFLA_MASTER": bridge}),
                      (wire.RTM_NEWROUTE, {"family": 2, "table": 254, "type": 1, "dst_len": 8, "RTA_DST": "10.77.0.0", "RTA_OIF": bridge})):
    try:
        kernel.request(kind, message, wire.NLM_F_CREATE if kind == wire.RTM_NEWROUTE else 0)
    except netlink.NetlinkError as error:
        print(error.msg)
""").splitlines()  # fmt: skip
    assert "Can not enslave a bridge to a bridge" in said[0] and "ELOOP" in said[0]
    assert "EINVAL" in said[1] and "Invalid prefix" in said[1]


def test_what_is_not_there(busy: PretendHost) -> None:
    said = busy.python("""
from shared.net import links, netlink
kernel = netlink.Netlink()
print(links.get(kernel, "nothing"), links.by_index(kernel, 999), links.delete(kernel, "nothing"), links.get(kernel, "br0")["index"])
""")  # fmt: skip
    assert said.split()[:3] == ["None", "None", "False"]


def test_an_overrun_buffer(busy: PretendHost) -> None:
    """ENOBUFS: lost messages are read again. The socket also receives news of more links than its buffer holds."""
    said = busy.python("""
import socket
from shared.net import links, netlink, wire
kernel, other = netlink.Netlink(), netlink.Netlink()
kernel.socket.setsockopt(netlink.SOL_NETLINK, 1, wire.RTNLGRP_LINK)
kernel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
index = links.require(other, "ifb7")["index"]
for number in range(100):
    other.request(wire.RTM_NEWLINK, {"index": index, "IFLA_MTU": 1000 + number})
print(len(kernel.dump(wire.RTM_GETLINK)), links.get(kernel, "ifb7")["IFLA_MTU"])
""")  # fmt: skip
    assert said.split() == ["6", "1099"]


def test_an_overrun_buffer_in_the_middle_of_a_large_dump(busy: PretendHost) -> None:
    """The kernel continues one dump at a time: the first must be read completely before the next request."""
    said = busy.python("""
import socket
from shared.net import links, netlink, wire
kernel, other = netlink.Netlink(), netlink.Netlink()
for number in range(150):
    other.request(wire.RTM_NEWLINK, {"IFLA_IFNAME": f"i{number}", "IFLA_LINKINFO": {"IFLA_INFO_KIND": "ifb"}}, wire.NLM_F_CREATE)
kernel.socket.setsockopt(netlink.SOL_NETLINK, 1, wire.RTNLGRP_LINK)
kernel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
index = links.require(other, "ifb7")["index"]
for number in range(100):
    other.request(wire.RTM_NEWLINK, {"index": index, "IFLA_MTU": 1000 + number})
print(len(kernel.dump(wire.RTM_GETLINK)))
""")  # fmt: skip
    assert said.split() == ["156"]


def test_a_change_is_waited_for_by_notification(busy: PretendHost) -> None:
    """During the wait, without polling, a port comes up and an address's detection ends."""
    said = busy.python("""
import os, signal
from shared import signals
from shared.net import addresses, links, netlink, wait, wire
from shared.cni.ip import Prefix
signals.install()
kernel = netlink.Netlink()
index = links.require(kernel, "v0")["index"]
links.set_down(kernel, index)
ready, told = os.pipe()
if os.fork() == 0:
    os.read(ready, 1)
    links.set_up(netlink.Netlink(), index)
    os._exit(0)

class Listening(netlink.Netlink):
    asked = 0
    def get(self, kind, message):
        self.asked += 1
        if self.asked == 2:  # the listener is there: now it may happen
            os.write(told, b"x")
        return super().get(kind, message)

listening = Listening()
wait.carrier(listening, "v0")
print(links.require(kernel, "v0")["IFLA_OPERSTATE"])
kernel.batch([addresses.add_request(index, Prefix.parse("fd00:5::1/64"), dad=True)])
print(addresses.is_settled(kernel, index))
wait.addresses_settled(kernel, index)
print(addresses.is_settled(kernel, index))
""")  # fmt: skip
    assert said.split() == ["6", "False", "True"]


def test_waiting_has_an_end(busy: PretendHost) -> None:
    said = busy.python("""
from shared import signals
from shared.cni.errors import InternalError
from shared.net import links, netlink, wait
signals.install()
wait.CARRIER_SECONDS = 0.1
kernel = netlink.Netlink()
links.set_down(kernel, links.require(kernel, "v0")["index"])
try:
    wait.carrier(kernel, "v0")
except InternalError as error:
    print(error)
""")  # fmt: skip
    assert "v0 did not come up" in said
