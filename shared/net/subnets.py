"""Limit a part of the packets that a link sends, selected by subnet.

The root qdisc, HTB, has one class. Filters put the limited packets into this class, and a token bucket below the class
limits them. The class itself does not limit. HTB sends packets without a class at once. HTB's own buckets are no
alternative: their bursts end after 274 seconds at the rate, and refill for one minute only.
"""

from __future__ import annotations

import sys

from shared.net import qdisc
from shared.net.netlink import Request
from shared.net.qdisc import ROOT_HANDLE, U32
from shared.net.tc_wire import (
    ETH_P_IP,
    ETH_P_IPV6,
    RTM_GETTCLASS,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTCLASS,
    RTM_NEWTFILTER,
    TC_H_ROOT,
    TC_U32_TERMINAL,
)
from shared.net.wire import NLM_F_ACK, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.cni.ip import Prefix
    from shared.net.netlink import Message
    from shared.net.qdisc import Bucket, TrafficControl

U64 = 2**64 - 1
LIMITED = ROOT_HANDLE | 0x30  # the class of limited packets, 1:30, as in the reference plugin
UNLIMITED = ROOT_HANDLE  # for packets without a class
BUCKET_HANDLE = 0x00300000  # 30:
HTB_VERSION = 3  # HTB_VER in net/sched/sch_htb.c
RATE_TO_QUANTUM = 10  # tc's default; HTB requires a value, even if the class has a quantum
QUANTUM_BYTES = 65536  # of a class in its turn; there is no other class
DIRECT_PACKETS = 1000  # queue length for packets without a class, the default of veth and ifb
REFERENCE_UNLIMITED = ROOT_HANDLE | 1  # the reference's class for all other packets
REFERENCE_UNLIMITED_RATE = 100_000_000_000  # bytes per second, of that class
# By IP version: the preference of filters, since one preference holds one protocol only, and the protocol.
PROTOCOLS = {4: (16, ETH_P_IP), 6: (15, ETH_P_IPV6)}
OFFSET_BYTES = {"source": {4: 12, 6: 8}, "destination": {4: 16, 6: 24}}  # of the addresses in a packet


class Part:
    """The limit of packets with a `field`, source or destination, inside the subnets, or outside of all."""

    def __init__(self, bucket: Bucket, subnets: Sequence[Prefix], field: str, *, inside: bool) -> None:
        self.bucket = bucket
        self.default, target = (UNLIMITED, LIMITED) if inside else (LIMITED, UNLIMITED)
        self.filters = [_filter(one, field, target) for one in dict.fromkeys(subnet.network for subnet in subnets)]

    def requests(self, index: int) -> list[Request]:
        """Return the requests that set the limit on a link, to be sent together."""
        init = {"version": HTB_VERSION, "rate2quantum": RATE_TO_QUANTUM, "defcls": self.default & 0xFFFF}
        root = {
            "index": index, "handle": ROOT_HANDLE, "parent": TC_H_ROOT, "TCA_KIND": "htb",
            "TCA_OPTIONS": {"TCA_HTB_INIT": init, "TCA_HTB_DIRECT_QLEN": DIRECT_PACKETS},
        }  # fmt: skip
        parameters = {"rate": U32, "ceil": U32, "buffer": 1, "cbuffer": 1, "quantum": QUANTUM_BYTES}
        limited = {
            "index": index, "handle": LIMITED, "parent": ROOT_HANDLE, "TCA_KIND": "htb",
            "TCA_OPTIONS": {"TCA_HTB_PARMS": parameters, "TCA_HTB_RATE64": U64, "TCA_HTB_CEIL64": U64},
        }  # fmt: skip
        new = NLM_F_CREATE | NLM_F_EXCL
        filters = [Request(RTM_NEWTFILTER, {"index": index, **one}, new) for one in self.filters]
        bucket = self.bucket.request(index, LIMITED, BUCKET_HANDLE)
        return [Request(RTM_NEWQDISC, root, new), Request(RTM_NEWTCLASS, limited, new), bucket, *filters]

    def problems(self, tc: TrafficControl, link: Message) -> list[str]:
        """Return the differences between the limit and the qdiscs, classes and filters of a link."""
        index, name = link["index"], link["IFLA_IFNAME"]
        present = qdisc.root(tc, index)
        if present is None or present["TCA_KIND"] != "htb":
            kind = "none" if present is None else present["TCA_KIND"]
            return [f"link {name} has no HTB: its qdisc is {kind}, not htb"]
        found = self.bucket.problems(tc, link, LIMITED)
        default = present["TCA_OPTIONS"].get("TCA_HTB_INIT", {}).get("defcls")
        if default != self.default & 0xFFFF:
            found.append(f"the default class of {name} is {default}, not {self.default & 0xFFFF}")
        if _rate(tc, index, LIMITED) not in (None, U64):
            found.append(f"class 1:30 of {name} has a rate of its own, but only the token bucket below it must limit")
        if sorted(map(_key, _filters(tc, index))) != sorted(map(_key, self.filters)):
            found.append(f"the filters of {name} do not select the subnets of the configuration")
        return found


def is_limit(tc: TrafficControl, index: int) -> bool:
    """Return True if a link's HTB is a limit by subnet, of this suite or of the reference plugin."""
    bucket = qdisc.qdisc(tc, index, LIMITED)
    is_own = bucket is not None and (bucket["TCA_KIND"], bucket["handle"]) == ("tbf", BUCKET_HANDLE)
    return is_own or _rate(tc, index, REFERENCE_UNLIMITED) == REFERENCE_UNLIMITED_RATE


def _rate(tc: TrafficControl, index: int, handle: int) -> int | None:
    """Return a class's rate in bytes per second, None if there is no such class."""
    found = tc.get(RTM_GETTCLASS, {"index": index, "handle": handle}, NLM_F_ACK | NLM_F_ECHO)
    options = found["TCA_OPTIONS"] if found else {}
    rate = options.get("TCA_HTB_RATE64", options.get("TCA_HTB_PARMS", {}).get("rate"))
    return None if rate is None else int(rate)


def _filter(subnet: Prefix, field: str, target: int) -> Message:
    """Return the message of a filter, without the link's index."""
    preference, protocol = PROTOCOLS[subnet.version]
    options = {"TCA_U32_CLASSID": target, "TCA_U32_SEL": _selector(subnet, OFFSET_BYTES[field][subnet.version])}
    info = qdisc.filter_info(preference, protocol)
    return {"parent": ROOT_HANDLE, "info": info, "TCA_KIND": "u32", "TCA_OPTIONS": options}


def _selector(subnet: Prefix, place: int) -> bytes:
    """Return struct tc_u32_sel (linux/pkt_cls.h) with a key for each word of the address that the prefix covers."""
    bits = subnet.address.bits
    mask = ((1 << bits) - (1 << (bits - subnet.length))).to_bytes(bits // 8, "big")
    value = subnet.first.packed
    keys = b"".join(
        mask[word : word + 4] + value[word : word + 4] + (place + word).to_bytes(4, sys.byteorder) + bytes(4)
        for word in range(0, len(mask), 4)
        if any(mask[word : word + 4]) or word == 0
    )
    return bytes([TC_U32_TERMINAL, 0, len(keys) // 16]) + bytes(13) + keys


def _filters(tc: TrafficControl, index: int) -> list[Message]:
    """Return the filters of a link's root qdisc, without the kernel's hash tables."""
    found = tc.dump(RTM_GETTFILTER, {"index": index, "parent": ROOT_HANDLE})
    return [one for one in found if isinstance(one.get("TCA_OPTIONS"), dict) and "TCA_U32_SEL" in one["TCA_OPTIONS"]]


def _key(message: Message) -> tuple[int, bytes, int]:
    """Return the parts of a filter's message by which filters are compared."""
    options = message["TCA_OPTIONS"]
    return message["info"], options["TCA_U32_SEL"], options.get("TCA_U32_CLASSID", 0)
