"""Encode and decode DHCPv6 messages (RFC 8415), and send them through a pod's link."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from socket import (
    AF_INET6,
    AF_PACKET,
    IPPROTO_IPV6,
    IPPROTO_UDP,
    IPV6_MULTICAST_IF,
    PACKET_HOST,
    SO_BINDTODEVICE,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOL_SOCKET,
    socket,
)
from typing import TYPE_CHECKING, Any, Self

from pyroute2.ext import bpf
from pyroute2.ext.bpf import BPF
from pyroute2.ext.rawsocket import ETH_P_ALL, SO_ATTACH_FILTER

from shared.cli.dhcp import packets
from shared.cli.dhcp.packets import BYTE, DIRECTION, EQUAL, HALF, HAS_BIT
from shared.cni.ip import Address
from shared.net import links
from shared.net.netlink import Netlink

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

CLIENT_PORT, SERVER_PORT = 546, 547
ALL_SERVERS = "ff02::1:2"
ANY = "::"
ETH_P_IPV6 = 0x86DD  # linux/if_ether.h
PROTOCOL, VLAN_TAG = -0x1000, -0x1000 + 44  # SKF_AD_PROTOCOL, SKF_AD_VLAN_TAG in linux/filter.h
VLAN_MASK = 0xFFF
IPV6_BYTES, UDP_BYTES = 40, 8  # of the headers
# Frames from outside to the pod's MAC. Programs in the pod could answer as servers, and need no privilege for that.
ANSWERS = packets.passing(
    (
        (BYTE + BPF.ABS, DIRECTION, EQUAL, PACKET_HOST, True),
        (HALF + BPF.ABS, VLAN_TAG, HAS_BIT, VLAN_MASK, False),
        (HALF + BPF.ABS, PROTOCOL, EQUAL, ETH_P_IPV6, True),
        (BYTE + BPF.ABS, 6, EQUAL, IPPROTO_UDP, True),
        (HALF + BPF.ABS, IPV6_BYTES + 2, EQUAL, CLIENT_PORT, True),
    )
)
NOTHING = [[BPF.RET + BPF.K, 0, 0, 0]]
FOREVER = 0xFFFFFFFF  # of lifetimes, in seconds
MOST_WAITING = 1000  # messages; more than the kernel's buffer holds
PACKET_BYTES = 4096  # that are read of one; a longer one counts as garbled
Options = list[tuple[int, bytes]]


class Kind(IntEnum):
    """Types of messages; RFC 8415, section 7.3."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION_REQUEST = 11


class Option(IntEnum):
    """Options; RFC 8415, section 21, and RFC 3646."""

    CLIENT_ID = 1
    SERVER_ID = 2
    IA_NA = 3
    IA_ADDRESS = 5
    REQUESTED = 6
    ELAPSED_TIME = 8
    STATUS = 13
    RAPID_COMMIT = 14
    NAME_SERVERS = 23
    DOMAIN_SEARCH = 24


class Status(IntEnum):
    """Status codes; RFC 8415, section 21.13."""

    SUCCESS = 0
    UNSPEC_FAIL = 1
    NO_ADDRS_AVAIL = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    USE_MULTICAST = 5


class Refusal(Exception):
    """A server's status code, and its text."""

    def __init__(self, status: int, text: str) -> None:
        known = Status(status).name.replace("_", " ").title().replace(" ", "") if status in set(Status) else ""
        self.status = status
        self.name = known or f"status {status}"
        super().__init__(f"{self.name} {text!r}" if text else self.name)


class Withdrawal(Refusal):
    """A server's lifetime of zero for the client's address, which it ends so."""


@dataclass
class Message:
    """A message of a server or a client."""

    kind: Kind
    transaction: bytes
    options: Options
    source: str = ""

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return bytes([self.kind]) + self.transaction + join(self.options)

    def get(self, number: Option) -> bytes:
        """Return the first option of a number, empty without one."""
        return next((value for found, value in self.options if found == number), b"")

    def has(self, number: Option) -> bool:
        """Return True if the message has the option."""
        return any(found == number for found, _ in self.options)


def decode(data: bytes, source: str) -> Message:
    """Read a server's message. Raise ValueError if it is garbled, or no server's."""
    kind = Kind(data[0]) if data else None
    if len(data) < 4 or kind not in (Kind.ADVERTISE, Kind.REPLY):
        raise ValueError("no message of a server")
    return Message(kind, data[1:4], split(data[4:]), source)


def join(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Encode options."""
    return b"".join(number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for number, value in options)


def split(data: bytes) -> Options:
    """Decode options. Raise ValueError if one is cut."""
    found: Options = []
    place = 0
    while place < len(data):
        number, length = (int.from_bytes(data[at : at + 2], "big") for at in (place, place + 2))
        value = data[place + 4 : place + 4 + length]
        if len(data) < place + 4 or len(value) < length:
            raise ValueError(f"option {number} is cut")
        found.append((number, value))
        place += 4 + length
    return found


def require_success(options: Options) -> None:
    """Raise Refusal if the options have a status code that is not Success."""
    for number, value in options:
        status = int.from_bytes(value[:2], "big")
        if number == Option.STATUS and status != Status.SUCCESS:
            raise Refusal(status, value[2:].decode(errors="replace")[:100])


def number_of(data: bytes) -> float:
    """Return a lifetime in seconds, infinite for one that never ends."""
    value = int.from_bytes(data, "big")
    return inf if value == FOREVER else value


def unpack(packet: bytes) -> Message:
    """Read a server's message in an IPv6 packet. Raise ValueError."""
    length = int.from_bytes(packet[IPV6_BYTES + 4 : IPV6_BYTES + 6], "big")
    if len(packet) < IPV6_BYTES + length:
        raise ValueError("the message is cut")
    source = str(Address(6, int.from_bytes(packet[8:24], "big")))
    return decode(packet[IPV6_BYTES + UDP_BYTES : IPV6_BYTES + length], source)


class PodSocket6:
    """A UDP socket that sends through a link of a network namespace, and a packet socket that hears the answers.

    A RELEASE leaves through a host's link, too, where the client's port may be taken: `port` 0 stands for any, and
    hears nothing.
    """

    def __init__(self, inside: AbstractContextManager[Any], ifname: str, port: int = CLIENT_PORT) -> None:
        self.inside = inside
        self.ifname = ifname
        self.port = port
        self.unreadable = 0
        self.mac = ""
        self._pace = packets.Pace()
        self._index = 0
        self._sockets: list[socket] = []

    async def __aenter__(self) -> Self:
        """Open the socket. Raise InternalError without the link, OSError if it cannot be used."""
        with self.inside:  # nothing here may await: all tasks share the thread's namespace
            link = links.require(Netlink(), self.ifname)
            self.mac, self._index = str(link["IFLA_ADDRESS"]), link["index"]
            try:
                self._sender = self._open(AF_INET6, NOTHING)  # the kernel refuses answers to a port without a socket
                self._sender.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
                self._sender.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, self.ifname.encode())
                self._sender.setsockopt(IPPROTO_IPV6, IPV6_MULTICAST_IF, self._index)
                self._sender.bind((ANY, self.port))
                if self.port:
                    self._hearer = self._open(AF_PACKET, ANSWERS)
                    self._hearer.bind((self.ifname, ETH_P_ALL))  # before tc(8) redirects: a tap may get all frames
            except OSError:
                while self._sockets:  # here: a new thread would stay in the pod's namespace
                    self._sockets.pop().close()
                raise
        return self

    def _open(self, family: int, program: list[list[int]]) -> socket:
        """Return a socket with a filter. It receives no packet before it is bound."""
        opened = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
        self._sockets.append(opened)
        code, _program = bpf.compile(program)
        opened.setsockopt(SOL_SOCKET, SO_ATTACH_FILTER, code)
        return opened

    async def __aexit__(self, *_exception: object) -> None:
        """Close the sockets in another thread, as PodSocket does."""
        while self._sockets:
            asyncio.get_running_loop().run_in_executor(None, self._sockets.pop().close)

    def send(self, message: Message) -> None:
        """Send a message to all servers. Raise OSError: EADDRNOTAVAIL without a usable link-local address."""
        self._sender.sendto(message.encode(), (ALL_SERVERS, SERVER_PORT, 0, self._index))

    def forget(self) -> None:
        """Drop the messages that came while nobody waited for them. Raise OSError if the link is down or gone."""
        with suppress(BlockingIOError):
            for _ in range(MOST_WAITING):
                self._hearer.recv(1)

    async def get(self) -> Message:
        """Return the next message of a server. Raise OSError when the link goes down, or is deleted."""
        while True:
            await self._pace.wait()
            packet = await asyncio.get_running_loop().sock_recv(self._hearer, PACKET_BYTES)
            try:
                return unpack(packet)
            except ValueError:
                self.unreadable += 1

    async def pause(self, seconds: float) -> None:
        """Sleep, and drop the messages that come meanwhile. Raise OSError when the link goes down, or is deleted."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await self.get()


def new_transaction() -> bytes:
    """Return the id of a new transaction."""
    return os.urandom(3)
