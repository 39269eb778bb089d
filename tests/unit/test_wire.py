"""The netlink codec against pyroute2: no drift of the tables, the same bytes for each message that the suite sends."""

from __future__ import annotations

import errno
import itertools
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import netaddr
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from shared.build import wire_tables
from shared.cni.errors import InternalError, UnsupportedField
from shared.cni.ip import Address, Prefix
from shared.cni.result import Route
from shared.net import (
    addresses,
    bridges,
    device_wire,
    kinds_wire,
    learning,
    links,
    neighbour_wire,
    routes,
    rule_wire,
    tc_wire,
    tunnel_wire,
    vlans,
    wire,
    wireguard_wire,
)
from shared.net.messages import decode, encode, next_hops
from shared.net.netlink import AT_ONCE, DUMP_TRIES, NetlinkError, Request
from shared.net.netns import Netns
from shared.net.wire import (
    AF_BRIDGE,
    BRIDGE_VLAN_INFO_MASTER,
    BRIDGE_VLAN_INFO_PVID,
    BRIDGE_VLAN_INFO_RANGE_BEGIN,
    BRIDGE_VLAN_INFO_RANGE_END,
    BRIDGE_VLAN_INFO_UNTAGGED,
    IFA_F_NODAD,
    IFF_UP,
    MESSAGES,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWLINK,
    RTM_SETLINK,
    RTN_UNICAST,
)
from shared.nft import conntrack_wire
from shared.nft import wire as nft_wire
from shared.undo import Undo
from tests.unit.kernel_end import KernelEnd, Overrun, by_pyroute2, done, error, read_by_pyroute2, split

Message = dict[str, Any]

indexes = st.integers(1, 2**31 - 1)
mtus = st.sampled_from([0, 68, 1400, 1500, 9000, 65535])
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=15)
macs = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
v4 = st.integers(1, 2**32 - 2).map(lambda value: Address(4, value))
v6 = st.integers(1, 2**128 - 2).filter(lambda value: value >> 32 != 0xFFFF).map(lambda value: Address(6, value))
prefixes = st.builds(Prefix, v4, st.integers(0, 32)) | st.builds(Prefix, v6, st.integers(0, 128))
vids = st.integers(1, 4094)
MASTER, PVID, UNTAGGED = BRIDGE_VLAN_INFO_MASTER, BRIDGE_VLAN_INFO_PVID, BRIDGE_VLAN_INFO_UNTAGGED
BEGIN, END = BRIDGE_VLAN_INFO_RANGE_BEGIN, BRIDGE_VLAN_INFO_RANGE_END


def same(request: Request) -> None:
    """Compare both encodings; each reads the other's back as the same message."""
    flags = NLM_F_REQUEST | request.flags
    ours = encode(request.kind, flags, 77, request.message)
    assert ours == by_pyroute2(request.kind, flags, 77, request.message)
    fields, _, _ = wire.STRUCTURES[wire.MESSAGES[request.kind]]
    whole = {**dict.fromkeys(fields, 0), **request.message}
    assert _padded(decode(request.kind, ours, 16, len(ours))) == _padded(whole)
    assert _padded({**dict.fromkeys(fields, 0), **read_by_pyroute2(request.kind, ours)}) == _padded(whole)


def _padded(message: Message) -> Message:
    """Put texts into one spelling, and fill the peer's header up with all its fields."""
    out: Message = {}
    for name, value in message.items():
        out[name] = value
        if name == "VETH_INFO_PEER":
            out[name] = {**dict.fromkeys(wire.STRUCTURES["link"][0], 0), **value}
        elif isinstance(value, dict):
            out[name] = _padded(value)
        elif name in ("IFA_LOCAL", "IFA_ADDRESS", "IFA_BROADCAST", "RTA_DST", "RTA_GATEWAY"):
            out[name] = str(netaddr.IPAddress(value))
        elif isinstance(value, list) and len(value) == 1:
            out[name] = value[0]
    return out


def attached(peer: Message, **host: Any) -> Message:
    return {**host, "IFLA_LINKINFO": {"IFLA_INFO_KIND": "veth", "IFLA_INFO_DATA": {"VETH_INFO_PEER": peer}}}


def test_the_tables_are_what_pyroute2_says() -> None:
    """Run `python -m shared.build.wire_tables` after raising pyroute2's version."""
    for path, text in wire_tables.generate().items():
        assert (wire_tables.TREE / path).read_text(encoding="utf-8") == text


TABLES = (
    wire, device_wire, kinds_wire, neighbour_wire, nft_wire, conntrack_wire, rule_wire, tc_wire, tunnel_wire,
    wireguard_wire,
)  # fmt: skip


def test_no_two_tables_have_a_structure_of_the_same_name() -> None:
    """The codec caches its look-ups by the structure's name alone, and one process may use all tables."""
    names = [name for tables in TABLES for name in tables.STRUCTURES]
    assert len(names) == len(set(names))


@given(names, mtus, st.booleans())
def test_new_bridge(name: str, mtu: int, vlan_filtering: bool) -> None:
    """bridges.create sends it with a MAC of its own and the requested attributes only, and never over another link."""
    with KernelEnd() as kernel:
        mac = bridges.create(kernel.netlink, name, mtu, vlan_filtering=vlan_filtering)
    data = {"IFLA_INFO_DATA": {"IFLA_BR_VLAN_FILTERING": 1}} if vlan_filtering else {}
    body = {"IFLA_IFNAME": name, "IFLA_ADDRESS": mac, "IFLA_GROUP": bridges.HALF_MADE_GROUP}
    body["IFLA_LINKINFO"] = {"IFLA_INFO_KIND": "bridge", **data}
    wanted = {**body, **({"IFLA_MTU": mtu} if mtu else {})}
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK
    assert kernel.requests == [by_pyroute2(RTM_NEWLINK, flags, 1, wanted)]
    same(Request(RTM_NEWLINK, wanted))


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EPERM])
def test_a_bridge_that_another_call_has_made_is_not_made(number: int) -> None:
    """An existing bridge is no error; any other refusal is."""
    with KernelEnd(lambda _kind, sequence, _request: [error(number, sequence)]) as kernel:
        if number == errno.EEXIST:
            assert bridges.create(kernel.netlink, "cni0", 0, vlan_filtering=False) == ""
            return
        with pytest.raises(NetlinkError):
            bridges.create(kernel.netlink, "cni0", 0, vlan_filtering=False)


@given(names, macs, names, macs, mtus, st.none() | st.integers(3, 1000))
def test_new_veth_pair(name: str, mac: str, peer: str, peer_mac: str, mtu: int, descriptor: int | None) -> None:
    """links.add_veth sends it: the peer is named, addressed and put into its namespace from the start."""
    netns = None if descriptor is None else Netns("/run/netns/pod", descriptor, -1)
    with KernelEnd() as kernel:
        links.add_veth(kernel.netlink, name=name, mac=mac, peer=peer, peer_mac=peer_mac, mtu=mtu, peer_netns=netns)
    more = {"IFLA_NUM_TX_QUEUES": 1} | ({"IFLA_MTU": mtu} if mtu else {})
    inside = {} if descriptor is None else {"IFLA_NET_NS_FD": descriptor}
    wanted = attached(
        {"IFLA_IFNAME": peer, "IFLA_ADDRESS": peer_mac, **more, **inside}, IFLA_IFNAME=name, IFLA_ADDRESS=mac, **more
    )
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK
    assert kernel.requests == [by_pyroute2(RTM_NEWLINK, flags, 1, wanted)]
    same(Request(RTM_NEWLINK, wanted))


@given(indexes, indexes, st.sampled_from(["", "pycni:net/c1/eth0"]), st.booleans(), st.booleans())
def test_join(index: int, bridge: int, alias: str, hairpin: bool, isolated: bool) -> None:
    requests = bridges.join_requests(index, bridge, alias=alias, hairpin=hairpin, isolated=isolated)
    for request in requests:
        same(request)
    member, *options = [request.message for request in requests]
    assert member["IFLA_MASTER"] == bridge and member.get("IFLA_IFALIAS", "") == alias
    assert len(options) == (hairpin or isolated)
    if options:
        port = options[0]["IFLA_LINKINFO"]["IFLA_INFO_SLAVE_DATA"]
        assert port == {"IFLA_BRPORT_MODE": hairpin, "IFLA_BRPORT_ISOLATED": isolated}


@given(indexes, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_flags(index: int, flags: int, mask: int) -> None:
    same(links.flags_request(index, flags, mask))


@given(indexes, macs)
def test_pinned_mac(index: int, mac: str) -> None:
    """If sysfs does not say that a bridge's MAC was set, bridges.keep_mac_requests sets its own, or a new one."""
    bridge = {"index": index, "IFLA_IFNAME": "nosuchbridge", "IFLA_ADDRESS": mac}
    (request,) = bridges.keep_mac_requests(bridge)
    same(request)
    pinned = request.message["IFLA_ADDRESS"]
    assert (request.kind, request.message) == (RTM_NEWLINK, {"index": index, "IFLA_ADDRESS": pinned})
    assert pinned == mac if mac != bridges.NO_MAC else pinned != mac
    (request,) = bridges.keep_mac_requests({**bridge, "IFLA_ADDRESS": bridges.NO_MAC})
    assert int(request.message["IFLA_ADDRESS"][:2], 16) & 3 == 2


def asked(ask: Callable[[Any], object]) -> list[bytes]:
    """Return a function's requests to a kernel that has nothing."""

    def answer(_kind: int, sequence: int, request: bytes) -> list[bytes]:
        (flags,) = struct.unpack_from("=H", request, 6)
        return [done(sequence) if flags & NLM_F_DUMP == NLM_F_DUMP else error(errno.ENODEV, sequence)]

    with KernelEnd(answer) as kernel:
        assert not ask(kernel.netlink)
    return kernel.requests


@given(names, indexes)
def test_deletion_and_queries(name: str, index: int) -> None:
    """The functions send them, and have nothing to return then."""

    def one(kind: int, flags: int, message: Message) -> list[bytes]:
        return [by_pyroute2(kind, NLM_F_REQUEST | flags, 1, message)]

    by_name, dump = {"IFLA_IFNAME": name}, NLM_F_DUMP
    assert asked(lambda kernel: links.delete(kernel, name)) == one(RTM_GETLINK, 0, by_name)  # there is no such link
    assert asked(lambda kernel: links.get(kernel, name)) == one(RTM_GETLINK, 0, by_name)
    assert asked(lambda kernel: links.by_index(kernel, index)) == one(RTM_GETLINK, 0, {"index": index})
    ports = asked(lambda kernel: bridges.scan_ports(kernel, index, list))
    assert ports == one(RTM_GETLINK, dump, {"IFLA_MASTER": index})
    vlan = {"family": AF_BRIDGE, "IFLA_EXT_MASK": 2}  # RTEXT_FILTER_BRVLAN
    assert asked(lambda kernel: vlans.of_port(kernel, index)) == one(RTM_GETLINK, dump, vlan)
    assert asked(lambda kernel: addresses.of_link(kernel, index)) == one(RTM_GETADDR, dump, {"index": index})
    found = asked(lambda kernel: routes.has_gateway(kernel, index))
    through = {"type": RTN_UNICAST, "RTA_OIF": index}
    families = [{"family": family, **through} for family in (2, 10)]
    assert found == [by_pyroute2(RTM_GETROUTE, NLM_F_REQUEST | dump, n + 1, one) for n, one in enumerate(families)]


@given(indexes, prefixes, st.booleans())
def test_address(index: int, prefix: Prefix, dad: bool) -> None:
    request = addresses.add_request(index, prefix, dad=dad)
    same(request)
    assert request.message["prefixlen"] == prefix.length
    assert bool(request.message.get("flags", 0) & IFA_F_NODAD) == (prefix.version == 6 and not dad)
    oracle = netaddr.IPNetwork(str(prefix)).broadcast if prefix.version == 4 else None
    assert request.message.get("IFA_BROADCAST") == (None if oracle is None else str(oracle))
    with KernelEnd() as kernel:
        addresses.remove(kernel.netlink, index, prefix)
    body = {k: v for k, v in request.message.items() if k not in ("flags", "IFA_BROADCAST")}
    assert kernel.requests == [by_pyroute2(RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, 1, body)]


@given(
    indexes, prefixes, st.booleans(),
    st.fixed_dictionaries({}, optional={
        "mtu": st.integers(1, 65535), "advmss": st.integers(1, 65535), "priority": st.integers(0, 2**32 - 1),
        "table": st.integers(1, 2**32 - 1), "scope": st.integers(0, 255),
    }),
)  # fmt: skip
def test_route(index: int, dst: Prefix, has_gateway: bool, extra: dict[str, int]) -> None:
    gateway = Address(dst.version, dst.address.value ^ 1) if has_gateway else None
    request = routes.add_request(index, Route(dst, None, extra), gateway)
    same(request)
    message = request.message
    table = extra.get("table", 254)
    assert (message["table"] or message["RTA_TABLE"]) == table
    is_beyond = extra.get("scope", 0) < 253  # RT_SCOPE_LINK: the kernel refuses a gateway
    assert message.get("RTA_GATEWAY") == (str(gateway) if gateway and is_beyond else None)
    assert message["dst_len"] == dst.length and ("RTA_DST" in message) == bool(dst.length)
    if dst.length:
        assert netaddr.IPAddress(message["RTA_DST"]) == netaddr.IPNetwork(str(dst)).network
    metrics = message.get("RTA_METRICS", {})
    assert (metrics.get("RTAX_MTU"), metrics.get("RTAX_ADVMSS")) == (extra.get("mtu"), extra.get("advmss"))


@given(v4 | v6, v4 | v6)
def test_the_routes_own_gateway_wins(own: Address, other: Address) -> None:
    request = routes.add_request(3, Route(Prefix(Address(own.version, 0), 0), own), other)
    assert request.message["RTA_GATEWAY"] == str(own)


# -- VLANs: the messages; tests/system/test_vlans.py has their effects


def expanded(requests: list[Request], default: int) -> dict[int, int]:
    """Return each VLAN's flags (PVID, untagged) as the kernel would have them after the requests on such a bridge."""
    have: dict[int, int] = {default: PVID | UNTAGGED} if default else {}
    for request in requests:
        begin = None
        for member in request.message["IFLA_AF_SPEC"]["IFLA_BRIDGE_VLAN_INFO"]:
            assert not member["flags"] & MASTER  # it would change the bridge's own VLANs as well
            kept = member["flags"] & (PVID | UNTAGGED)
            if member["flags"] & BEGIN:
                begin = member["vid"]
                continue
            first = begin if member["flags"] & END and begin is not None else member["vid"]
            begin = None
            for vid in range(first, member["vid"] + 1):
                if request.kind == RTM_DELLINK:
                    have.pop(vid, None)
                else:
                    if kept & PVID:
                        have = {other: flags & ~PVID for other, flags in have.items()}
                    have[vid] = kept
        assert begin is None
    return have


@given(indexes, st.just(0) | vids, st.just(0) | st.just(1) | vids, st.lists(vids, max_size=50), st.booleans())
def test_vlans(index: int, native: int, default: int, trunk: list[int], keep_default: bool) -> None:
    """A port without a native VLAN stays in the bridge's default one, whichever that is, even if the trunk has it."""
    assume(native or trunk)
    requests = vlans.requests(index, default=default, native=native, trunk=trunk, keep_default=keep_default)
    for request in requests:
        same(request)
    have = expanded(requests, default)
    wanted = dict.fromkeys(trunk, 0)
    if native or default:
        wanted[native or default] = PVID | UNTAGGED
    if keep_default and default and default not in wanted:
        wanted[default] = UNTAGGED
    assert have == wanted


def test_a_trunk_of_all_vlans_is_one_range() -> None:
    """Thousands of VLANs, two attributes; the native one splits the range."""
    requests = vlans.requests(5, default=0, native=0, trunk=list(range(1, 4095)), keep_default=True)
    info = [{"flags": BEGIN, "vid": 1}, {"flags": END, "vid": 4094}]
    body = {"family": AF_BRIDGE, "index": 5, "IFLA_AF_SPEC": {"IFLA_BRIDGE_VLAN_INFO": info}}
    assert [encode(r.kind, 0, 1, r.message) for r in requests] == [by_pyroute2(RTM_SETLINK, 0, 1, body)]


def test_the_default_vlan_may_be_gone_already() -> None:
    """A bridge may have another default VLAN, or none."""
    drop, *_ = vlans.requests(5, default=1, native=7, trunk=[], keep_default=False)
    assert drop.kind == RTM_DELLINK and drop.tolerate == (errno.ENOENT,)


def test_port_vlans() -> None:
    """CHECK reads a port's VLANs and the native one, of one port among others."""

    def answer(_kind: int, sequence: int, _request: bytes) -> list[bytes]:
        info = [{"flags": PVID | UNTAGGED, "vid": 7}, {"flags": 0, "vid": 20}]
        ports = [
            {"family": AF_BRIDGE, "index": 6, "IFLA_AF_SPEC": {"IFLA_BRIDGE_VLAN_INFO": [{"flags": 0, "vid": 9}]}},
            {"family": AF_BRIDGE, "index": 5, "IFLA_AF_SPEC": {"IFLA_BRIDGE_VLAN_INFO": info}},
        ]
        return [*(by_pyroute2(RTM_NEWLINK, 2, sequence, port) for port in ports), done(sequence)]

    with KernelEnd(answer) as kernel:
        assert vlans.of_port(kernel.netlink, 5) == {7: True, 20: False}
    with KernelEnd(answer) as kernel:
        assert vlans.of_port(kernel.netlink, 8) == {}


def test_a_kernel_without_vlan_filtering() -> None:
    """The kernel refuses the option or ignores it; the answer is code 2 and names the missing feature."""
    bridge = {"index": 4, "flags": IFF_UP, "IFLA_IFNAME": "cni0", "IFLA_MTU": 1500, "IFLA_ADDRESS": "02:00:00:00:00:01",
              "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge"}}  # fmt: skip

    def ensure(refuses: bool) -> None:
        def answer(kind: int, sequence: int, _request: bytes) -> list[bytes]:
            if kind == RTM_GETLINK:
                return [by_pyroute2(RTM_NEWLINK, 0, sequence, bridge)]
            return [error(errno.EOPNOTSUPP if refuses else 0, sequence)]

        with KernelEnd(answer) as kernel:
            bridges.ensure(
                kernel.netlink, Undo(), "cni0", own=(), mtu=0, vlan_filtering=True, promisc=False, ipv6=False, dad=False
            )

    for refuses in (False, True):
        with pytest.raises(UnsupportedField, match="filter VLANs"):
            ensure(refuses)


# -- the transport


def linked(index: int, sequence: int, flags: int = 2) -> bytes:
    return by_pyroute2(RTM_NEWLINK, flags, sequence, {"index": index, "IFLA_IFNAME": f"l{index}"})


@pytest.mark.parametrize("interruptions", [0, 1, DUMP_TRIES - 1])
@pytest.mark.parametrize("place", ["message", "end"])
def test_an_interrupted_dump_is_begun_anew(interruptions: int, place: str) -> None:
    """Any message of the dump, its end included, may have NLM_F_DUMP_INTR: the messages read so far are not used."""
    tries = 0

    def answer(_kind: int, sequence: int, _request: bytes) -> list[bytes]:
        nonlocal tries
        tries += 1
        torn = NLM_F_DUMP_INTR if tries <= interruptions else 0
        on_message, at_end = (torn, 0) if place == "message" else (0, torn)
        return [linked(tries, sequence, 2 | on_message), linked(100, sequence), done(sequence, at_end)]

    with KernelEnd(answer) as kernel:
        found = kernel.netlink.dump(RTM_GETLINK)
    assert tries == interruptions + 1
    assert [link["index"] for link in found] == [tries, 100]


def test_a_dump_that_never_holds_still() -> None:
    """It ends in an error, not in an endless loop, nor with half of a table."""

    def answer(_kind: int, sequence: int, _request: bytes) -> list[bytes]:
        return [linked(1, sequence), done(sequence, NLM_F_DUMP_INTR)]

    with KernelEnd(answer) as kernel, pytest.raises(InternalError, match="changed during each"):
        kernel.netlink.dump(RTM_GETLINK)
    assert len(kernel.requests) == DUMP_TRIES


def test_messages_share_a_datagram() -> None:
    def answer(_kind: int, sequence: int, _request: bytes) -> list[bytes]:
        return [linked(1, sequence) + linked(2, sequence) + done(sequence)]

    with KernelEnd(answer) as kernel:
        assert [link["IFLA_IFNAME"] for link in kernel.netlink.dump(RTM_GETLINK)] == ["l1", "l2"]


def test_answers_to_earlier_requests_are_passed_over() -> None:
    """Answers that an earlier, failed call did not wait for must not count as this one's."""

    def answer(kind: int, sequence: int, _request: bytes) -> list[bytes]:
        stale = [error(errno.EPERM, sequence - 1), linked(9, sequence - 1)]
        if kind != RTM_GETLINK:
            return [*stale, error(0, sequence)]
        return [*stale, linked(1, sequence), done(sequence)]

    with KernelEnd(answer) as kernel:
        kernel.netlink.sequence = 40
        assert [link["index"] for link in kernel.netlink.dump(RTM_GETLINK)] == [1]
        assert (kernel.netlink.get(RTM_GETLINK, {"index": 1}) or {})["index"] == 1
        kernel.netlink.request(RTM_DELLINK, {"index": 1})


def test_a_batch_is_one_datagram_with_one_acknowledgement() -> None:
    """The first failure is raised, whatever follows."""
    batches = []

    def answer(_kind: int, sequence: int, request: bytes) -> list[bytes]:
        batches.append(request)
        return (
            [error(errno.EBUSY, sequence)] if sequence == 2 else [error(errno.EPERM, sequence)] if sequence == 3 else []
        )

    with KernelEnd(answer) as kernel:
        with pytest.raises(NetlinkError) as caught:
            kernel.netlink.batch([links.flags_request(number, IFF_UP, IFF_UP) for number in (1, 2, 3)])
        assert caught.value.errno == errno.EBUSY
        assert "index=2" in caught.value.msg and "EBUSY" in caught.value.msg and "RTM_NEWLINK" in caught.value.msg
    assert [struct.unpack_from("=H", request, 6)[0] & NLM_F_ACK for request in batches] == [0, 0, NLM_F_ACK]


def test_a_large_batch_is_several_datagrams() -> None:
    """Each is acknowledged before the next, and all are sent; the first failure is raised."""
    flags = []

    def answer(_kind: int, sequence: int, request: bytes) -> list[bytes]:
        flags.append(struct.unpack_from("=H", request, 6)[0])
        last = bool(flags[-1] & NLM_F_ACK)
        return [error(errno.EBUSY, sequence)] if sequence in (70, 150) else [error(0, sequence)] if last else []

    count = 2 * AT_ONCE + 30
    with KernelEnd(answer) as kernel:
        with pytest.raises(NetlinkError, match="index=70"):
            kernel.netlink.batch([links.flags_request(number, IFF_UP, IFF_UP) for number in range(1, count + 1)])
        assert len(kernel.requests) == count
    places = [place for place, flag in enumerate(flags, 1) if flag & NLM_F_ACK]
    assert places == [AT_ONCE, 2 * AT_ONCE, count]


def test_a_dump_that_overran_the_buffer_is_begun_anew() -> None:
    """The messages before and after the loss are not all."""

    def answer(_kind: int, sequence: int, _request: bytes) -> list[bytes]:
        return [by_pyroute2(RTM_NEWLINK, 2, sequence, {"index": 5}), done(sequence)]

    with KernelEnd(answer) as kernel:
        kernel.netlink.socket = Overrun(kernel.netlink.socket, at=2)
        assert [link["index"] for link in kernel.netlink.dump(RTM_GETLINK)] == [5]
        assert len(kernel.requests) == 2


def test_nothing_is_left_of_an_overrun_buffer() -> None:
    """Unread refusals would displace the next answers."""
    requests = [Request(RTM_DELLINK, {"index": index}) for index in range(1, 6)]
    with KernelEnd(lambda _kind, sequence, _request: [error(errno.ENODEV, sequence)]) as kernel:
        kernel.netlink.socket = Overrun(kernel.netlink.socket, at=1)
        with pytest.raises(NetlinkError):
            kernel.netlink.batch(requests)
        assert kernel.netlink.socket.is_empty()


def test_nothing_to_do_sends_nothing() -> None:
    with KernelEnd() as kernel:
        kernel.netlink.batch([])
    assert kernel.requests == []


def test_tolerated_errors() -> None:
    with KernelEnd(lambda _kind, sequence, _request: [error(errno.EEXIST, sequence)]) as kernel:
        kernel.netlink.request(RTM_NEWLINK, {"index": 1}, 0, (errno.EEXIST,))
        with pytest.raises(NetlinkError):
            kernel.netlink.request(RTM_NEWLINK, {"index": 1})


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_own_words(capped: bool) -> None:
    """The extended acknowledgement follows the refused message, whole or its header alone."""
    words = b"Device is a loop\0"
    trailer = struct.pack("=HH", 4 + len(words), 1) + words + bytes(-len(words) % 4)

    def answer(_kind: int, sequence: int, request: bytes) -> list[bytes]:
        refused = request[:16] if capped else request
        flags = NLM_F_ACK_TLVS | (NLM_F_CAPPED if capped else 0)
        return [error(errno.EINVAL, sequence, refused, flags=flags, trailer=trailer)]

    with KernelEnd(answer) as kernel, pytest.raises(NetlinkError) as caught:
        kernel.netlink.request(RTM_NEWLINK, {"index": 7, "IFLA_MASTER": 9, "IFLA_IFNAME": "odd"})
    assert caught.value.msg.endswith("Invalid argument (EINVAL): Device is a loop")
    assert caught.value.code == 999


@given(st.sampled_from(sorted(MESSAGES)), st.binary(max_size=400))
@example(RTM_NEWLINK, bytes(16) + struct.pack("=HHHH", 8, 4, 200, 18))  # a length that runs past the message
@example(RTM_NEWLINK, bytes(16) + struct.pack("=HHHHHH", 12, 18, 60, 1, 0, 0))  # and one that runs past its attribute
def test_garbage_is_decoded_to_its_end(kind: int, data: bytes) -> None:
    """Attributes may have any length and number, as those of a future kernel; whole ones are not lost."""
    mtu = struct.pack("=HHI", 8, 4, 1400)
    assert isinstance(decode(kind, data, 0, len(data)), dict)
    padded = bytes(16) + mtu + data
    found = decode(RTM_NEWLINK, padded, 0, len(padded))["IFLA_MTU"]
    assert (found[0] if isinstance(found, list) else found) == 1400


@given(st.binary(max_size=100))
@example(struct.pack("=HBBi", 200, 0, 0, 7) + bytes(8))  # the hop's length runs past the list
@example(
    struct.pack("=HBBi", 16, 0, 0, 7) + struct.pack("=HH", 60, 5) + bytes(4)
)  # an attribute that runs past its hop
@pytest.mark.row("netlink")
def test_garbage_among_next_hops(data: bytes) -> None:
    """Whole hops are read. A hop that runs past the end of the list is not."""
    whole = struct.pack("=HBBi", 16, 0, 0, 3) + struct.pack("=HH", 8, 5) + bytes([10, 1, 0, 1])
    assert next(iter(next_hops(whole + data))) == {"RTA_OIF": 3, "RTA_GATEWAY": "10.1.0.1"}
    assert all(isinstance(hop["RTA_OIF"], int) for hop in next_hops(data))


def test_an_unknown_link_kinds_data_stays_bytes() -> None:
    info = struct.pack("=HH", 12, 1) + b"geneve\0\0" + struct.pack("=HHI", 8, 2, 5)
    body = bytes(16) + struct.pack("=HH", 4 + len(info), 18) + info
    assert decode(RTM_NEWLINK, body, 0, len(body))["IFLA_LINKINFO"] == {
        "IFLA_INFO_KIND": "geneve",
        "IFLA_INFO_DATA": struct.pack("=I", 5),
    }


def test_random_macs_are_local_and_unicast() -> None:
    seen = {bridges.random_mac() for _ in range(64)}
    assert len(seen) == 64
    assert all(int(mac[:2], 16) & 3 == 2 and len(mac) == 17 for mac in seen)


def test_requests_split_as_sent() -> None:
    """The test checks the kernel's end itself: a datagram of two messages is two requests."""
    one, two = encode(RTM_GETLINK, 1, 1, {"IFLA_IFNAME": "odd"}), encode(RTM_GETLINK, 1, 2, {"index": 2})
    assert split(one + bytes(-len(one) % 4) + two) == [one, two]


# -- one deadline


def test_a_request_has_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tries of a dump that is interrupted each time share it, and so do all parts of one answer."""
    monkeypatch.setattr("shared.net.netlink.ANSWER_SECONDS", 0)

    def interrupted(_kind: int, sequence: int, _request: bytes) -> list[bytes]:
        return [linked(1, sequence), done(sequence, NLM_F_DUMP_INTR)]

    with KernelEnd(interrupted) as kernel, pytest.raises(InternalError, match="did not come within"):
        kernel.netlink.dump(RTM_GETLINK)
    assert len(kernel.requests) == 1


def test_the_time_that_is_not_the_kernels_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that acts on each object has requests, and deadlines, of its own."""
    monkeypatch.setattr("shared.net.netlink.ANSWER_SECONDS", 0.3)

    def take(stream: Iterator[Message]) -> list[int]:
        found = []
        for link in stream:
            time.sleep(0.4)
            found.append(link["index"])
        return found

    with KernelEnd(lambda _kind, sequence, _req: [linked(1, sequence), linked(2, sequence), done(sequence)]) as kernel:
        assert kernel.netlink.scan(RTM_GETLINK, None, take) == [1, 2]


@pytest.mark.parametrize("ask", [
    lambda netlink: netlink.request(RTM_DELLINK, {"index": 1}), lambda netlink: netlink.get(RTM_GETLINK, {"index": 1}),
])  # fmt: skip
def test_answers_to_others_do_not_hold_a_request(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    """The kernel's end reports another request for ever."""
    monkeypatch.setattr("shared.net.netlink.ANSWER_SECONDS", 0.2)
    with (
        KernelEnd(lambda _kind, sequence, _request: itertools.repeat(error(0, sequence - 1))) as kernel,  # type: ignore[arg-type,return-value]
        pytest.raises(InternalError, match="did not come within"),
    ):
        ask(kernel.netlink)


def test_a_process_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram from another port than the kernel's is no answer, whatever it contains."""
    monkeypatch.setattr("shared.net.netlink.ANSWER_SECONDS", 0.2)
    with KernelEnd(lambda _kind, sequence, _request: [linked(1, sequence)]) as kernel:
        kernel.netlink.socket.port = 4711
        kernel.netlink.socket.end.settimeout(0.05)
        kernel.netlink.socket.end = Timed(kernel.netlink.socket.end)
        with pytest.raises(InternalError, match="did not come within"):
            kernel.netlink.get(RTM_GETLINK, {"index": 1})


class Timed:
    """A socket that reports, like one with SO_RCVTIMEO, that nothing has come."""

    def __init__(self, end: Any) -> None:
        self.end = end

    def recv(self, size: int, flags: int) -> bytes:
        try:
            return bytes(self.end.recv(size, flags))
        except TimeoutError:
            raise BlockingIOError from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.end, name)


def test_a_kernel_without_a_limit_of_learned_macs() -> None:
    """It ignores the attribute, and shows none: the answer is code 2 and names the key."""
    bridge = {"index": 4, "IFLA_IFNAME": "cni0", "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge"}}
    with KernelEnd() as kernel, pytest.raises(UnsupportedField, match=r'"fdbMaxLearned" needs Linux 6\.8'):
        learning.limit(kernel.netlink, Undo(), bridge, 100, ())
    assert kernel.requests == []
