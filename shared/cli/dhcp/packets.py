"""Extend pyroute2's DHCP messages and socket: raw options, a network namespace, hostile packets."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from socket import AF_PACKET, IPPROTO_UDP, PACKET_OUTGOING, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket
from typing import TYPE_CHECKING, Any, Self

from pyroute2.dhcp.dhcp4msg import dhcp4msg
from pyroute2.dhcp.dhcp4socket import AsyncDHCP4Socket
from pyroute2.dhcp.enums.bootp import MessageType as Direction
from pyroute2.dhcp.enums.dhcp import MessageType, Option
from pyroute2.dhcp.leases import Lease
from pyroute2.dhcp.messages import ReceivedDHCPMessage, SentDHCPMessage
from pyroute2.ext import bpf
from pyroute2.ext.bpf import BPF
from pyroute2.ext.rawsocket import ETH_P_ALL, SO_ATTACH_FILTER

from shared.net import links
from shared.net.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

LOG = logging.getLogger(__name__)

LEAST_BYTES = 300  # of a BOOTP message (RFC 1542, section 2.1): some relays drop shorter ones
ETHERNET_BYTES, IPV4_BYTES, UDP_BYTES = 14, 20, 8
OPTIONS_AT = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES + 240  # with the fixed fields and the cookie
SNAME_AT, FILE_AT, COOKIE_AT = OPTIONS_AT - 196, OPTIONS_AT - 132, OPTIONS_AT - 4
OVERLOAD = 52
OVERLOADED = ((1, FILE_AT, COOKIE_AT), (2, SNAME_AT, FILE_AT))  # bits of option 52, in the order of RFC 3396, section 5
COOKIE = b"\x63\x82\x53\x63"
FOREVER = -1  # a lease time of 2**32 - 1, as pyroute2 reads it
FRAMES_PER_SECOND = 100  # that a client reads: each takes half a millisecond of all clients' time
CLIENT_PORT = 68
ETHERTYPE_IPV4 = 0x0800
FRAGMENT = 0x1FFF  # the bits of a fragment's place
DIRECTION, HAS_VLAN_TAG = -0x1000 + 4, -0x1000 + 48  # SKF_AD_PKTTYPE, SKF_AD_VLAN_TAG_PRESENT in linux/filter.h
BYTE, HALF, WORD = BPF.LD + BPF.B, BPF.LD + BPF.H, BPF.LD + BPF.W
EQUAL, HAS_BIT = BPF.JMP + BPF.JEQ + BPF.K, BPF.JMP + BPF.JSET + BPF.K
Raw = dict[int, bytes]


def answers_to(mac: str) -> list[list[int]]:
    """Return a BPF program that takes a server's messages to the client with this MAC, and no others.

    Each client of a LAN hears all broadcasts, and a pod could send answers to itself.
    """
    udp, bootp = ETHERNET_BYTES, ETHERNET_BYTES + UDP_BYTES  # plus the length of the IPv4 header, in X
    client = bytes.fromhex(mac.replace(":", ""))
    tests = (
        (BYTE + BPF.ABS, DIRECTION, EQUAL, PACKET_OUTGOING, False),
        (BYTE + BPF.ABS, HAS_VLAN_TAG, EQUAL, 0, True),
        (HALF + BPF.ABS, 12, EQUAL, ETHERTYPE_IPV4, True),
        (BYTE + BPF.ABS, ETHERNET_BYTES + 9, EQUAL, IPPROTO_UDP, True),
        (HALF + BPF.ABS, ETHERNET_BYTES + 6, HAS_BIT, FRAGMENT, False),
        (HALF + BPF.IND, udp + 2, EQUAL, CLIENT_PORT, True),
        (BYTE + BPF.IND, bootp, EQUAL, Direction.BOOTREPLY, True),
        (WORD + BPF.IND, bootp + 28, EQUAL, int.from_bytes(client[:4], "big", signed=True), True),
        (HALF + BPF.IND, bootp + 32, EQUAL, int.from_bytes(client[4:], "big"), True),
    )
    return [[BPF.LDX + BPF.B + BPF.MSH, 0, 0, ETHERNET_BYTES], *passing(tests)]


def passing(tests: Sequence[tuple[int, int, int, int, bool]]) -> list[list[int]]:
    """Return a BPF program that takes the frames for which all tests have their results.

    A test is a load, its place, a comparison, its value, and the wanted result.
    """
    program: list[list[int]] = []
    for number, (load, place, comparison, value, wanted) in enumerate(tests):
        refuse = 2 * (len(tests) - number) - 1  # instructions between the comparison and the refusal
        program.append([load, 0, 0, place])
        program.append([comparison, *((0, refuse) if wanted else (refuse, 0)), value])
    return [*program, [BPF.RET + BPF.K, 0, 0, 0xFFFF], [BPF.RET + BPF.K, 0, 0, 0]]


class Message(dhcp4msg):  # type: ignore[misc]  # pyroute2 has no types
    """A message that carries options as bytes, besides those that pyroute2 can encode."""

    raw: Raw
    buf: bytes

    def encode(self) -> Message:
        """Encode the message, with the raw options before its end."""
        super().encode()
        added: bytes = b"".join(bytes([number, len(value)]) + value for number, value in self.raw.items())
        self.buf = (self.buf[:-1] + added + bytes([Option.END])).ljust(LEAST_BYTES, b"\0")
        return self


def carry(message: SentDHCPMessage, raw: Raw) -> None:
    """Add options to a message."""
    carrier = Message(dict(message.dhcp))
    carrier.raw = raw
    message.dhcp = carrier


@dataclass
class Answer(ReceivedDHCPMessage):  # type: ignore[misc]
    """A server's message, with its options as bytes."""

    raw: Raw = field(default_factory=dict)

    @property
    def kind(self) -> MessageType:
        """Return the message's type; a decoded answer has one."""
        return MessageType(self.raw[Option.MESSAGE_TYPE][0])


def decode(frame: bytes) -> Answer | None:
    """Return a server's message. Return None for any other frame, also for garbage."""
    try:
        if frame[ETHERNET_BYTES] != 0x45 or frame[OPTIONS_AT - 4 : OPTIONS_AT] != COOKIE:
            return None
        length = int.from_bytes(frame[ETHERNET_BYTES + 2 : ETHERNET_BYTES + 4], "big")
        frame = frame[: ETHERNET_BYTES + length]  # Ethernet pads short frames
        raw = split(frame[OPTIONS_AT:])
        if OVERLOAD in raw:
            frame = unfold(frame, raw)
        found = AsyncDHCP4Socket._decode_msg(frame)  # noqa: SLF001
        answer = Answer(**vars(found), raw=raw)
        is_answer = answer.dhcp["op"] == Direction.BOOTREPLY and answer.xid is not None and answer.kind
    except Exception as error:  # noqa: BLE001  (anybody on the network can send any bytes)
        LOG.debug("unreadable: %s", error)
        return None
    return answer if is_answer else None


def unfold(frame: bytes, raw: Raw) -> bytes:
    """Add the options in the fields `file` and `sname` to `raw`. Return the frame with all options in their field."""
    (bits,) = raw.pop(OVERLOAD)
    for bit, begin, end in OVERLOADED:
        if bits & bit:
            for number, value in split(frame[begin:end]).items():
                raw[number] = raw.get(number, b"") + value
    pieces = [
        bytes([number, len(part := value[place : place + 255])]) + part
        for number, value in raw.items()
        for place in range(0, len(value), 255)
    ]
    return frame[:SNAME_AT].ljust(COOKIE_AT, b"\0") + COOKIE + b"".join(pieces) + bytes([Option.END])


def split(data: bytes) -> Raw:
    """Return the options of a message. Join the parts of a long one (RFC 3396). Raise IndexError for a cut option."""
    found: Raw = {}
    place = 0
    while place < len(data) and data[place] != Option.END:
        if data[place] == Option.PAD:
            place += 1
            continue
        number, length = data[place], data[place + 1]
        value = data[place + 2 : place + 2 + length]
        if len(value) < length:
            raise IndexError(number)
        found[number] = found.get(number, b"") + value
        place += 2 + length
    return found


class Pace:
    """A bound of the frames that a client reads in a second. The kernel drops the rest when its buffer is full."""

    def __init__(self) -> None:
        self._window = 0.0  # the loop's time when the present second of the frames began
        self._frames = 0  # in that second

    async def wait(self) -> None:
        """Wait if too many frames came within a second."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._window >= 1:
            self._window, self._frames = loop.time(), 0
        self._frames += 1
        if self._frames > FRAMES_PER_SECOND:
            await asyncio.sleep(max(self._window + 1 - loop.time(), 0))


class PodSocket(AsyncDHCP4Socket):  # type: ignore[misc]
    """A packet socket on a link of a network namespace, opened from outside.

    `l2addr` is the MAC that it sends with, `unreadable` the number of messages to it that no client can read.
    """

    def __init__(self, inside: AbstractContextManager[Any], ifname: str) -> None:
        super().__init__(ifname)
        self.inside = inside
        self.l2addr = ""
        self.unreadable = 0
        self._pace = Pace()

    async def __aenter__(self) -> Self:
        """Open the socket. Raise InternalError without the link, OSError if it is down."""
        with self.inside:  # nothing here may await: all tasks share the thread's namespace
            self.l2addr = str(links.require(Netlink(), self.ifname)["IFLA_ADDRESS"])
            socket.__init__(self, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)  # protocol 0: nothing arrives before the bind
            self.setblocking(False)
            code, self.fprog = bpf.compile(answers_to(self.l2addr))
            self.setsockopt(SOL_SOCKET, SO_ATTACH_FILTER, code)
            self.bind((self.ifname, ETH_P_ALL))
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Close the socket in another thread: the kernel waits for RCU, 8 to 16 ms, and so would each DEL."""
        self.loop.run_in_executor(None, self.close)

    async def get(self) -> Answer:
        """Return the next message of a server for this link's MAC."""
        while True:
            await self._pace.wait()
            answer = decode(await self.loop.sock_recv(self, 4096))
            if answer is None:
                self.unreadable += 1
            elif answer.dhcp["chaddr"] == self.l2addr:
                return answer


def now() -> float:
    """Return the seconds since the boot, also those of suspension. The wall clock may be set at any time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return the identity of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def obtained_of(stored: dict[str, Any]) -> float:
    """Return the time since the boot at which a stored lease was obtained.

    The age of a lease of another boot is unknown. It counts as new: the server knows better, and is asked at once.
    """
    return float(stored["obtained"]) if stored.get("boot") == boot_id() else now()


@dataclass
class PodLease(Lease):  # type: ignore[misc]
    """A lease with its options as bytes. `obtained` is a time since the boot. The daemon stores it itself."""

    raw: Raw = field(default_factory=dict)

    def _seconds_til_timer(self, value: int) -> float | None:
        """Return the seconds until a time of the lease, None for a time that never comes."""
        return None if value == FOREVER else self.obtained + value - now()

    def dump(self) -> None:
        """Do nothing."""

    @classmethod
    def load(cls, interface: str) -> None:
        """Return None: a client begins without a lease, or resumes one that it is given."""

    def to_json(self) -> dict[str, Any]:
        """Return the lease as it is stored."""
        return {
            "address": self.ip, "serverMAC": self.server_mac, "obtained": self.obtained, "boot": boot_id(),
            "options": {str(number): value.hex() for number, value in self.raw.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, stored: dict[str, Any], interface: str) -> PodLease:
        """Return a stored lease. Raise ValueError, KeyError or TypeError if it is garbled."""
        raw = {int(number): bytes.fromhex(value) for number, value in stored["options"].items()}
        return lease(stored["address"], raw, interface, str(stored["serverMAC"]), obtained_of(stored))


def lease(address: str, raw: Raw, interface: str, server_mac: str, obtained: float) -> PodLease:
    """Return a lease from a server's options, with times that make sense. Raise ValueError without a usable one."""
    times = {number: int.from_bytes(raw[number], "big") for number in (51, 58, 59) if len(raw.get(number, b"")) == 4}
    if not times.get(Option.LEASE_TIME):
        raise ValueError("no lease time (option 51)")
    renewal, rebinding = times.get(Option.RENEWAL_TIME), times.get(Option.REBINDING_TIME)
    if not renewal or not rebinding or not renewal < rebinding < times[Option.LEASE_TIME]:
        times = {Option.LEASE_TIME: times[Option.LEASE_TIME]}
    options: dict[str, Any] = {
        Option(number).name.lower(): FOREVER if value >= 1 << 31 else value for number, value in times.items()
    }
    if len(raw.get(Option.SERVER_ID, b"")) != 4:
        raise ValueError("no server identifier (option 54)")
    options["server_id"] = ".".join(map(str, raw[Option.SERVER_ID]))
    return PodLease(
        ack=dhcp4msg({"yiaddr": address, "options": options}), interface=interface, server_mac=server_mac,
        obtained=obtained, raw=raw,
    )  # fmt: skip
