"""Ask whether another host has an address, before a pod uses it (RFC 5227; RFC 8415, section 18.2.10.1)."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import Any

from shared.cni.ip import Address
from shared.net.probe import ROUNDS, Probe


async def find_holder(
    inside: AbstractContextManager[Any], ifname: str, mac: str, address: str, seconds: float
) -> str:  # fmt: skip
    """Return the MAC of another host with the address, empty without one. Raise OSError if the link is down."""
    own = Address.parse(address)
    with inside:
        probe = Probe(ifname, mac, [own])
    try:
        for _ in range(ROUNDS):
            probe.send()
            await asyncio.sleep(seconds / ROUNDS)
            if own in (found := probe.read()):
                return found[own]
    finally:
        probe.close()
    return ""
