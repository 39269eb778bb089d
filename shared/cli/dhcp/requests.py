"""Read the requests of dhcp plugins."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any

from shared.cli.dhcp.client import Wish
from shared.cli.dhcp.client6 import Wish6
from shared.cni.errors import InternalError
from shared.cni.names import is_link_name, is_name
from shared.dhcp import records

REQUEST_BYTES = 1 << 20
REQUEST_KEYS = (
    "network", "containerID", "ifname", "netns", "clientID", "provide", "request", "priority", "withoutGateway",
    "broadcast",
)  # fmt: skip
IPV6_KEYS = ("family", "duid", "iaid")  # of a lease of DHCPv6


def kept_of(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a request, or of a stored lease, that make a tenancy. Raise KeyError without one."""
    keys = (*REQUEST_KEYS, *IPV6_KEYS) if raw.get("family") == 6 else REQUEST_KEYS
    return {key: raw[key] for key in keys} | {"probeSeconds": raw.get("probeSeconds", 0)}


def read_wish(raw: dict[str, Any]) -> Wish | Wish6:
    """Read the request of a lease. Raise KeyError, TypeError, ValueError or AttributeError if it is garbled."""
    return Wish6.from_json(raw) if raw.get("family") == 6 else Wish.from_json(raw)


def names(request: dict[str, Any]) -> dict[str, int]:
    """Return the keys of an attachment's leases, with their families. Raise as `key`."""
    by_family = dict(zip((4, 6), records.keys(key(request)), strict=True))
    return {by_family[family]: family for family in request.get("families", [4])}


def by_lease(request: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the request for each of its leases, by their keys. Raise as `key` and `read_wish`."""
    wanted = {name: {**request, "family": family} for name, family in names(request).items()}
    for one in wanted.values():
        read_wish(one)
    return {name: kept_of(one) for name, one in wanted.items()}


def read_stateless(request: dict[str, Any]) -> Wish6 | None:
    """Return the client that asks for DNS settings without a lease, None if the request demands none."""
    return Wish6.from_json(request) if request.get("isStateless") else None


def key(request: dict[str, Any]) -> str:
    """Return the key of the request's attachment. Raise KeyError, TypeError or ValueError."""
    network, container_id, ifname = request["network"], request["containerID"], request["ifname"]
    if not (is_name(network) and is_name(container_id) and is_link_name(ifname)):
        raise ValueError("a name is invalid")
    return records.key(network, container_id, ifname)


async def wait_readable(connection: socket.socket) -> None:
    """Return when the other end has sent something, or has closed the connection."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, note)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


async def while_connected(connection: socket.socket, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of `work`. If the plugin goes away meanwhile, cancel it."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(wait_readable(connection))  # a plugin sends one line, and then its end
    await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)  # the loop forgets the socket before it is closed
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)  # it gives back the lease that it has, and no other one
    raise InternalError("the plugin went away")


async def receive(connection: socket.socket, descriptors: list[int]) -> bytes:
    """Return a plugin's line, and add the descriptors with it. Raise OSError if the line has no end."""
    data = b""
    while b"\n" not in data:
        await wait_readable(connection)
        part, received, _, _ = socket.recv_fds(connection, 65536, 1, socket.MSG_CMSG_CLOEXEC)
        descriptors += received
        data += part
        if not part or len(data) > REQUEST_BYTES:
            raise ConnectionResetError("no request came")
    return data
