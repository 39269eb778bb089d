"""Read the requests of dhcp plugins."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from shared.cni.names import is_link_name, is_name
from shared.dhcp import records

REQUEST_BYTES = 1 << 20
REQUEST_KEYS = (
    "network", "containerID", "ifname", "netns", "clientID", "provide", "request", "priority", "withoutGateway",
    "broadcast",
)  # fmt: skip


def kept_of(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a request, or of a stored lease, that make a tenancy. Raise KeyError without one."""
    return {key: raw[key] for key in REQUEST_KEYS}


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
