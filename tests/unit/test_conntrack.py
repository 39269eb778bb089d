"""Deleting conntrack entries: the requests in pyroute2's terms, and the entries that stay."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink import nfctsocket

from shared.net.netlink import NetlinkError
from shared.nft import conntrack
from shared.nft import conntrack_wire as wire
from shared.nft.conntrack import Conntrack, Removals
from tests.unit.kernel_end import KernelEnd, done, error

LOCAL = ("192.0.2.1", "127.0.0.1", "fd00::1")


def connection(sequence: int, family: int, destination: str, port: int, protocol: int = 17, **more: Any) -> bytes:
    """Return the message that pyroute2 makes of a conntrack entry."""
    version = "V4" if family == 2 else "V6"
    source = "192.0.2.9" if family == 2 else "fd00::9"
    proto = [["CTA_PROTO_NUM", protocol], ["CTA_PROTO_SRC_PORT", 5555], ["CTA_PROTO_DST_PORT", port]]
    out = nfctsocket.nfct_msg()
    out["header"].update({"type": wire.IPCTNL_MSG_CT_NEW, "flags": 2, "sequence_number": sequence})
    out["nfgen_family"] = family
    out["attrs"] = [
        ["CTA_TUPLE_ORIG", {"attrs": [
            ["CTA_TUPLE_IP", {"attrs": [[f"CTA_IP_{version}_SRC", source], [f"CTA_IP_{version}_DST", destination]]}],
            ["CTA_TUPLE_PROTO", {"attrs": proto}],
        ]}],
        ["CTA_ID", port], ["CTA_TIMEOUT", 30], *([name, value] for name, value in more.items()),
    ]  # fmt: skip
    out.encode()
    return bytes(out.data)


def read(request: bytes) -> Any:
    message = nfctsocket.nfct_msg(request)
    message.decode()
    return message


def forgotten(flows: set[Any], tracked: list[tuple[Any, ...]]) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """Return the requested dumps, and (family, destination, port, id) of each deletion."""

    def answer(kind: int, sequence: int, request: bytes) -> list[bytes]:
        if kind == wire.IPCTNL_MSG_CT_GET:
            family = read(request)["nfgen_family"]
            return [*(connection(sequence, *one) for one in tracked if one[0] == family), done(sequence)]
        acknowledge = struct.unpack_from("=H", request, 6)[0] & 4
        return [error(errno.ENOENT, sequence)] if acknowledge or sequence % 2 else []  # gone meanwhile

    with KernelEnd(answer, of=Conntrack) as kernel, KernelEnd(answer, of=Conntrack) as other:
        conntrack.forget_udp(kernel.netlink, Removals(lambda: other.netlink), flows, LOCAL.__contains__)
    dumps, removals = [], []
    for request in (*kernel.requests, *other.requests):
        message = read(request)
        tuple_ = message.get_attr("CTA_TUPLE_ORIG")
        proto = tuple_.get_attr("CTA_TUPLE_PROTO")
        if struct.unpack_from("=H", request, 4)[0] == wire.IPCTNL_MSG_CT_GET:
            flags = message.get_attr("CTA_FILTER").get_attr("CTA_FILTER_ORIG_FLAGS")
            dumps.append(
                (message["nfgen_family"], proto.get_attr("CTA_PROTO_NUM"), proto.get_attr("CTA_PROTO_DST_PORT"), flags)
            )
        else:
            ip = dict(tuple_.get_attr("CTA_TUPLE_IP")["attrs"])
            destination = ip.get("CTA_IP_V4_DST") or ip["CTA_IP_V6_DST"]
            assert proto.get_attr("CTA_PROTO_SRC_PORT") == 5555 and len(ip) == 2
            removals.append(
                (message["nfgen_family"], destination, proto.get_attr("CTA_PROTO_DST_PORT"), message.get_attr("CTA_ID"))
            )
    return dumps, removals


TRACKED: list[tuple[Any, ...]] = [
    (2, "192.0.2.1", 53), (2, "127.0.0.1", 53), (2, "8.8.8.8", 53), (2, "192.0.2.1", 54), (2, "192.0.2.1", 53, 6), (2, "192.0.2.2", 53),
    (10, "fd00::1", 53), (10, "2001:db8::1", 53),
]  # fmt: skip


@pytest.mark.parametrize(("flows", "dumps", "removals"), [
    ({(4, "", 53)}, [(2, 17, 53, 40)], [(2, "192.0.2.1", 53, 53), (2, "127.0.0.1", 53, 53)]),
    ({(4, "192.0.2.1", 53)}, [(2, 17, 53, 40)], [(2, "192.0.2.1", 53, 53)]),
    ({(6, "", 53)}, [(10, 17, 53, 40)], [(10, "fd00::1", 53, 53)]),
    ({(4, "", 53), (4, "", 54), (6, "", 1)}, [(2, 17, None, 8), (10, 17, 1, 40)],
     [(2, "192.0.2.1", 53, 53), (2, "127.0.0.1", 53, 53), (2, "192.0.2.1", 54, 54)]),
    ({(4, "", 55)}, [(2, 17, 55, 40)], []), (set(), [], []),
])  # fmt: skip
def test_what_is_forgotten(flows: set[Any], dumps: list[Any], removals: list[Any]) -> None:
    """Only UDP to this host's mapped ports is deleted.

    The kernel's filter may pass others' addresses, other ports or other protocols.
    """
    assert forgotten(flows, TRACKED) == (dumps, removals)


def test_a_connection_is_named_by_all_that_tells_it_from_the_next() -> None:
    """An entry with the same ends may be newer, or be in another zone: the kernel compares the number and the zone."""

    def answer(kind: int, sequence: int, _request: bytes) -> list[bytes]:
        if kind != wire.IPCTNL_MSG_CT_GET:
            return []
        return [connection(sequence, 2, "192.0.2.1", 53, CTA_ZONE=7), done(sequence)]

    with KernelEnd(answer, of=Conntrack) as kernel, KernelEnd(of=Conntrack) as other:
        conntrack.forget_udp(kernel.netlink, Removals(lambda: other.netlink), {(4, "", 53)}, LOCAL.__contains__)
    removal = read(other.requests[0])
    assert (removal.get_attr("CTA_ID"), removal.get_attr("CTA_ZONE")) == (53, 7)


def test_many_are_forgotten_in_several_batches() -> None:
    _, removals = forgotten({(4, "", 53)}, [(2, "192.0.2.1", 53)] * 300)
    assert len(removals) == 300


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EOPNOTSUPP, False), (errno.EPERM, True)])
def test_a_kernel_that_tracks_nothing(number: int, fails: bool) -> None:
    with KernelEnd(lambda _kind, sequence, _request: [error(number, sequence)], of=Conntrack) as kernel:
        if fails:
            with pytest.raises(NetlinkError, match="IPCTNL_MSG_CT_GET"):
                conntrack.forget_udp(kernel.netlink, Removals(Conntrack), {(4, "", 53)}, LOCAL.__contains__)
        else:
            conntrack.forget_udp(kernel.netlink, Removals(Conntrack), {(4, "", 53)}, LOCAL.__contains__)
