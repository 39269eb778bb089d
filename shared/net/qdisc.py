"""Traffic control: read and remove qdiscs, and limit packets with a token bucket.

shared/net/shaping.py puts limits on links, shared/net/subnets.py limits a part of the packets.
"""

from __future__ import annotations

import errno
import sys

from shared.cni.errors import UnsupportedField
from shared.net import tc_wire
from shared.net.netlink import Netlink, NetlinkError, Request
from shared.net.tc_wire import (
    RTM_DELQDISC,
    RTM_GETQDISC,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    TC_H_ROOT,
)
from shared.net.wire import NLM_F_ACK, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message


U32 = 2**32 - 1
QUEUE_LATENCY_US = 25_000  # the queue's room beside the burst, as in the reference plugin
SECOND_US = 1_000_000
TICK_NS = 64  # the kernel's unit for the times of token buckets: PSCHED_SHIFT in net/pkt_sched.h
SLACK_TICKS = 16  # a microsecond
SHORT_TICKS = U32 // TICK_NS  # 4.29 seconds: for shorter bursts, bytes and ticks have the same effect
ROOT_HANDLE = 0x00010000  # 1:, the reference's
GONE = (errno.ENOENT, errno.ENODEV, errno.EINVAL)


class TrafficControl(Netlink):
    """A socket for qdiscs and filters in the thread's network namespace at the time of creation."""

    tables = tc_wire

    def batch(self, requests: list[Request]) -> None:
        """Send requests as Netlink.batch; raise UnsupportedField if the kernel lacks a qdisc or filter kind."""
        try:
            super().batch(requests)
        except NetlinkError as error:
            if error.errno == errno.ENOENT and error.kind in (RTM_NEWQDISC, RTM_NEWTFILTER):
                kind = error.message["TCA_KIND"]
                raise UnsupportedField(f"this kernel has no traffic control by {kind}", str(error)) from None
            raise


class Bucket:
    """A token bucket (tbf) for a rate in bits per second and a burst in bits, with the reference's arithmetic.

    Its queue has room for the burst and, beside it, for 25 ms at the rate.
    """

    def __init__(self, rate: int, burst: int) -> None:
        self.burst = burst // 8  # bytes
        self.rate = rate // 8  # bytes per second
        self.limit = min(self.rate * QUEUE_LATENCY_US // SECOND_US + self.burst, U32)  # bytes
        self.ticks = self.burst * SECOND_US // self.rate * 1000 // TICK_NS  # the time to send the burst

    def requests(self, index: int) -> list[Request]:
        """Return the request that makes the bucket the root qdisc of a link."""
        return [self.request(index, TC_H_ROOT, ROOT_HANDLE)]

    def request(self, index: int, parent: int, handle: int) -> Request:
        """Return the request that makes the bucket a qdisc of a link, below `parent` and with a handle.

        State a long burst in bytes: the kernel then stores its duration in 64 bits (net/sched/sch_tbf.c). In ticks, the
        longest burst lasts 274 seconds, and the kernel drops packets that take longer than 4.29 seconds at the rate.
        """
        parameters = {"rate": min(self.rate, U32), "limit": self.limit, "buffer": min(max(self.ticks, 1), U32)}
        options: Message = {"TCA_TBF_PARMS": parameters}
        if self.ticks > SHORT_TICKS:
            options["TCA_TBF_BURST"] = self.burst
        if self.rate > U32:
            options["TCA_TBF_RATE64"] = self.rate
        message = {
            "index": index,
            "handle": handle,
            "parent": parent,
            "TCA_KIND": "tbf",
            "TCA_OPTIONS": options,
        }
        return Request(RTM_NEWQDISC, message, NLM_F_CREATE | NLM_F_EXCL)

    def problems(self, tc: TrafficControl, link: Message, parent: int = TC_H_ROOT) -> list[str]:
        """Return the differences between the bucket and the qdisc of a link below `parent`."""
        name = link["IFLA_IFNAME"]
        present = qdisc(tc, link["index"], parent)
        if present is None or present["TCA_KIND"] != "tbf":
            kind = "none" if present is None else present["TCA_KIND"]
            return [f"link {name} has no token bucket: its qdisc is {kind}, not tbf"]
        options = present["TCA_OPTIONS"]
        have = options["TCA_TBF_PARMS"]
        ticks = have["buffer"] if self._lasts(have["buffer"]) else self.ticks & U32
        pairs = (
            ("rate", options.get("TCA_TBF_RATE64", have["rate"]), self.rate, "bytes per second"),
            ("burst", have["buffer"], ticks, f"ticks of {TICK_NS} ns"),
            ("limit", have["limit"], self.limit, "bytes"),
        )
        return [f"{what} of {name} is {now}, not {wanted} {unit}" for what, now, wanted, unit in pairs if now != wanted]

    def _lasts(self, ticks: int) -> bool:
        """Return True if the burst has the duration that the kernel shows.

        The kernel shows the lowest 32 bits. It computes the duration of a long burst with a factor of 31 bits
        (psched_ratecfg in net/sch_generic.h), so that the result differs a little.
        """
        apart = (ticks - max(self.ticks, 1)) & U32
        return min(apart, U32 + 1 - apart) <= SLACK_TICKS + (self.ticks >> 31)


def root(tc: TrafficControl, index: int) -> Message | None:
    """Return the root qdisc of a link; None if the link was never up."""
    return qdisc(tc, index, TC_H_ROOT)


def qdisc(tc: TrafficControl, index: int, parent: int) -> Message | None:
    """Return the qdisc of a link below `parent`, None if there is none."""
    # A dump would have the qdiscs of all links. With NLM_F_ECHO the kernel sends the requested one.
    return tc.get(RTM_GETQDISC, {"index": index, "parent": parent}, NLM_F_ACK | NLM_F_ECHO)


def removal_request(index: int, parent: int, handle: int) -> Request:
    """Return the request that deletes a qdisc if it exists."""
    return Request(RTM_DELQDISC, {"index": index, "handle": handle, "parent": parent}, tolerate=GONE)


def filter_info(preference: int, protocol: int) -> int:
    """Return the `info` field of a filter's message: its preference, and its protocol in network byte order."""
    return preference << 16 | int.from_bytes(protocol.to_bytes(2, "big"), sys.byteorder)
