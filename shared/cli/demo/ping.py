"""Send ICMP echo requests, as the ping command does, on machines without it."""

from __future__ import annotations

import os
import socket
import struct
import time

LIMIT = 3.0  # seconds; a gateway may need them for duplicate address detection
INTERVAL = 0.2  # seconds between requests


def ping(target: str) -> float | None:
    """Return the seconds between the answered request and its reply, None after LIMIT. Needs root."""
    six = ":" in target
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    request, reply = (128, 129) if six else (8, 0)
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        deadline = time.monotonic() + LIMIT
        for sequence in range(int(LIMIT / INTERVAL)):
            tail = struct.pack("!HH", os.getpid() & 0xFFFF, sequence) + b"pod network demo"
            # For ICMPv6 the kernel computes the checksum: it covers the source address, which is unknown here.
            checksum = 0 if six else internet_checksum(struct.pack("!BBH", request, 0, 0) + tail)
            sent = time.monotonic()
            try:
                raw.sendto(struct.pack("!BBH", request, 0, checksum) + tail, (target, 0))
            except OSError:  # no usable source address yet
                time.sleep(INTERVAL)
                continue
            while (patience := min(sent + INTERVAL, deadline) - time.monotonic()) > 0:
                raw.settimeout(patience)
                try:
                    packet, peer = raw.recvfrom(2048)
                except TimeoutError:
                    break
                icmp = packet if six else packet[(packet[0] & 15) * 4 :]  # an IPv4 raw socket delivers the IP header
                if peer[0] == target and icmp[0] == reply and icmp[4:] == tail:
                    return time.monotonic() - sent
    return None


def internet_checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071 for an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
