"""Traffic control messages against pyroute2's encoding, and a token bucket's numbers against its arithmetic."""

from __future__ import annotations

import errno
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nla
from pyroute2.netlink.rtnl.tcmsg import cls_u32, common, sched_ingress, sched_tbf, tcmsg

from shared.cni.errors import UnsupportedField
from shared.net import shaping, tc_wire
from shared.net.messages import decode, encode
from shared.net.netlink import Request
from shared.net.qdisc import Bucket, TrafficControl
from shared.undo import Undo
from tests.unit.kernel_end import KernelEnd, error

Message = dict[str, Any]
HEADER = dict.fromkeys(tc_wire.STRUCTURES["tc"][0], 0)
LINK = {"index": 7, "IFLA_IFNAME": "veth0"}

indexes = st.integers(1, 2**31 - 1)
rates = st.integers(8, 2**40)
bursts = st.integers(8, 8 * (2**32 - 1) - 1)


def by_pyroute2(request: Request, **options: Any) -> bytes:
    """Return the bytes that pyroute2 makes of a request. The options are given in pyroute2's own words."""
    out = tcmsg()
    attributes = [("TCA_KIND", request.message["TCA_KIND"])] if "TCA_KIND" in request.message else []
    out.update({name: value for name, value in request.message.items() if not name.isupper()})
    out["attrs"] = [*attributes, *([("TCA_OPTIONS", options)] if options else [])]
    out["header"].update(type=request.kind, flags=request.flags, sequence_number=9, pid=0)
    out.encode()
    return bytes(out.data)


def same(request: Request, **options: Any) -> None:
    """Compare both encodings, and read the message back with the codec."""
    ours = encode(request.kind, request.flags, 9, request.message, tc_wire)
    assert ours == by_pyroute2(request, **options)
    assert _known(decode(request.kind, ours, 16, len(ours), tc_wire)) == _known({**HEADER, **request.message})


def _known(message: Message) -> Message:
    """Leave out the fields that are 0."""
    return {name: _known(value) if isinstance(value, dict) else value for name, value in message.items() if value != 0}


@given(indexes, rates.filter(lambda rate: rate // 8 < 2**32), bursts)
def test_token_bucket(index: int, rate: int, burst: int) -> None:
    bucket = Bucket(rate, burst)
    (request,) = bucket.requests(index)
    parameters = {"rate": bucket.rate, "limit": bucket.limit, "buffer": min(max(bucket.ticks, 1), 2**32 - 1)}
    options = request.message["TCA_OPTIONS"]
    # pyroute2 does not know the attribute, which is for bursts that last 2**32 ns and more
    assert options.pop("TCA_TBF_BURST", None) == (burst // 8 if bucket.ticks * 64 >= 2**32 else None)
    # without the size of a table's cells: there is no table of rates, which kernels before 3.8 computed with
    with mock.patch.object(sched_tbf.options.tbf_parms, "encode", nla.encode):
        same(request, attrs=[("TCA_TBF_PARMS", parameters)])


@given(indexes, st.integers(8, 2**20), st.integers(2**24, 8 * (2**32 - 1) - 1))
def test_long_burst(index: int, rate: int, burst: int) -> None:
    """The burst is in bytes: linux/pkt_sched.h has the attribute as the sixth."""
    message = encode(tc_wire.RTM_NEWQDISC, 0, 9, Bucket(rate, burst).requests(index)[0].message, tc_wire)
    assert (8).to_bytes(2, "little") + (6).to_bytes(2, "little") + (burst // 8).to_bytes(4, "little") in message


@given(indexes, st.integers(8 * 2**32, 2**64 - 1), bursts)
def test_rate_beyond_32_bits(index: int, rate: int, burst: int) -> None:
    """pyroute2 does not know the attribute: linux/pkt_sched.h has it as the fourth."""
    message = encode(tc_wire.RTM_NEWQDISC, 0, 9, Bucket(rate, burst).requests(index)[0].message, tc_wire)
    assert (12).to_bytes(2, "little") + (4).to_bytes(2, "little") + (rate // 8).to_bytes(8, "little") in message
    read = tcmsg(message)
    read.decode()
    assert read.get_nested("TCA_OPTIONS", "TCA_TBF_PARMS")["rate"] == 2**32 - 1


@given(rates, bursts)
def test_numbers_are_tcs(rate: int, burst: int) -> None:
    bucket = Bucket(rate, burst)
    words = {"rate": rate // 8, "burst": burst // 8, "latency": "25ms"}
    oracle = common.get_rate_parameters(words)
    assert bucket.rate == oracle["rate"] and bucket.limit == min(oracle["limit"], 2**32 - 1)
    # tc and the reference count whole microseconds, of 15.625 ticks, in floating point, which can lose one of them
    assert abs(bucket.ticks - oracle["buffer"]) <= 17 + bucket.ticks * 1e-9


@given(indexes, indexes, st.integers(1, 0xFFFF))
def test_redirection(index: int, target: int, preference: int) -> None:
    action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": target}
    words = {"protocol": tc_wire.ETH_P_ALL, "prio": preference, "target": 0, "keys": ["0x0/0x0+0"], "action": action}
    options = cls_u32.get_parameters(words)
    # the reference and tc give no class: it has no meaning for ingress
    options["attrs"] = sorted((one for one in options["attrs"] if one[0] != "TCA_U32_CLASSID"), reverse=True)
    request = shaping.redirection_request(index, target, preference)
    same(request, **options)
    cls_u32.fix_request(words)
    assert request.message["info"] == words["info"]


def test_places() -> None:
    """An ingress qdisc and a root one have pyroute2's parents."""
    asked: list[Message] = []

    def answer(kind: int, _sequence: int, request: bytes) -> list[bytes]:
        asked.append({"kind": kind, **decode(kind, request, 16, len(request), tc_wire)})
        return []

    with KernelEnd(answer, of=TrafficControl) as kernel:
        shaping.redirect(kernel.netlink, Undo(), LINK, {"index": 8})
        shaping.limit_link(kernel.netlink, Undo(), LINK, Bucket(8, 8))
    words: Message = {}
    sched_ingress.fix_request(words)
    _, ingress, redirection, _, bucket = asked
    assert (ingress["handle"], ingress["parent"]) == (words["handle"], sched_ingress.parent)
    assert redirection["parent"] >> 16 == ingress["handle"] >> 16
    assert bucket["parent"] == sched_tbf.parent


@pytest.mark.parametrize("absent", [tc_wire.RTM_NEWQDISC, tc_wire.RTM_NEWTFILTER])
def test_a_kernel_without_it(absent: int) -> None:
    """The kernel answers ENOENT for a kind that it does not have."""

    def answer(kind: int, sequence: int, _request: bytes) -> list[bytes]:
        return [error(errno.ENOENT, sequence)] if kind == absent else []

    with KernelEnd(answer, of=TrafficControl) as kernel, pytest.raises(UnsupportedField, match=r"ingress|u32"):
        shaping.redirect(kernel.netlink, Undo(), LINK, {"index": 8})
