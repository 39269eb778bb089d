"""Ask a network questions by packets: echo requests, connections, captures. All sockets are in this process.

A socket stays in the network namespace in which it was made. So one thread asks from many pods at the same time, and
starts no program in them.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from shared.cli.demo.ping import internet_checksum
from shared.net.netns import open_netns
from tests.pretend import PATIENCE

if TYPE_CHECKING:
    from typing import Self

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 10, 23, 2  # linux/in.h, linux/in6.h
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD  # linux/if_ether.h
SO_RCVBUFFORCE = 33  # asm/socket.h
MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
FRAGMENT_HEADER = 44  # IPv6's, RFC 8200
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
HEADER_BYTES = {4: 28, 6: 48}  # of an echo request: IP and ICMP
SMALLEST_BYTES = 64
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 20.0
CAPTURE_BYTES = 1 << 25


@contextmanager
def inside(netns: str) -> Iterator[None]:
    """Have the thread in a network namespace, or where it is if the path is empty."""
    if not netns:
        yield
        return
    with closing(open_netns(netns)) as found, found:
        yield


def silent(
    asked: Mapping[str, Iterable[str]], *, packet_bytes: int = 0, text: bytes = b"\0", seconds: float = ANSWER_SECONDS
) -> list[tuple[str, str]]:
    """Ask addresses for an echo from each network namespace, all at once. Return those without an answer.

    A packet of `packet_bytes` has its headers in them, and `text` all over the rest. No packet may be fragmented.
    """
    waiting = {(netns, str(ip_address(one))) for netns, addresses in asked.items() for one in addresses}
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        places: dict[tuple[str, int], socket.socket] = {}
        for netns in asked:
            with inside(netns):
                for version in (4, 6):
                    places[netns, version] = stack.enter_context(_echo_socket(version))
                    selector.register(places[netns, version], selectors.EVENT_READ, (netns, version))
        deadline = time.monotonic() + seconds * PATIENCE
        while waiting and time.monotonic() < deadline:
            for netns, address in sorted(waiting):
                version = ip_address(address).version
                with suppress(OSError):  # no way yet, or the packet is too large
                    places[netns, version].sendto(_request(version, packet_bytes, text), (address, 0))
            again = time.monotonic() + RETRY_SECONDS
            while waiting and (left := again - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    waiting.discard(_read_reply(key.fileobj, *key.data))  # type: ignore[arg-type]
    return sorted(waiting)


def _echo_socket(version: int) -> socket.socket:
    if version == 4:
        found = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        found.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
    else:
        found = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        found.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO)
    found.setblocking(False)
    return found


def _request(version: int, packet_bytes: int, text: bytes) -> bytes:
    body = struct.pack("!HH", os.getpid() & 0xFFFF, 1)
    length = max(packet_bytes, SMALLEST_BYTES) - HEADER_BYTES[version]
    body += (text * length)[:length]
    # the kernel computes ICMPv6's checksum
    head = struct.pack("!BBH", REQUEST[version], 0, 0)
    return struct.pack("!BBH", REQUEST[version], 0, internet_checksum(head + body) if version == 4 else 0) + body


def _read_reply(place: socket.socket, netns: str, version: int) -> tuple[str, str]:
    """Return the namespace and the address of an answer; no address if the packet is none."""
    with suppress(BlockingIOError):
        packet, peer = place.recvfrom(1 << 16)
        icmp = packet[(packet[0] & 15) * 4 :] if version == 4 else packet
        if icmp[0] == REPLY[version] and icmp[4:6] == struct.pack("!H", os.getpid() & 0xFFFF):
            return netns, str(ip_address(peer[0]))
    return netns, ""


def client_seen(server: str, address: str, client: str, *, seconds: float = ANSWER_SECONDS) -> str:
    """Connect to an address from one namespace to another. Return the client's address as the server sees it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(server):
        listener = socket.create_server((address, 0), family=family)
    with listener:
        with inside(client):
            connection = socket.create_connection(listener.getsockname()[:2], seconds * PATIENCE)
        with connection:
            accepted, peer = listener.accept()
            accepted.close()
    return str(peer[0])


class Packet(NamedTuple):
    """The outer headers of a packet that a link carried."""

    source: str
    target: str
    port: int  # of the target by UDP, else 0
    length: int  # bytes of the whole frame
    is_fragment: bool


class Capture:
    """The IP packets that a link sends and receives. A context manager."""

    def __init__(self, netns: str, link: str) -> None:
        with inside(netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, CAPTURE_BYTES)
        self._socket.setblocking(False)
        self._socket.bind((link, ETH_P_ALL))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def packets(self) -> list[Packet]:
        """Return the packets since the last look."""
        found = []
        with suppress(BlockingIOError):
            while True:
                packet = _packet(self._socket.recv(1 << 16))
                if packet is not None:
                    found.append(packet)
        return found


def _packet(frame: bytes) -> Packet | None:
    (kind,) = struct.unpack_from("!H", frame, 12)
    ip = frame[14:]
    if kind == ETH_P_IP:
        is_fragment = bool(struct.unpack_from("!H", ip, 6)[0] & MORE_FRAGMENTS_OR_OFFSET)
        protocol, source, target, payload = ip[9], ip[12:16], ip[16:20], ip[(ip[0] & 15) * 4 :]
    elif kind == ETH_P_IPV6:
        protocol, source, target, payload = ip[6], ip[8:24], ip[24:40], ip[40:]
        is_fragment = protocol == FRAGMENT_HEADER
    else:
        return None
    port = struct.unpack_from("!H", payload, 2)[0] if protocol == socket.IPPROTO_UDP else 0
    return Packet(str(ip_address(source)), str(ip_address(target)), port, len(frame), is_fragment)
