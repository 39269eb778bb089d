"""The dhcp daemon's parts that need no network: addresses that a pod can use, and the pace of a client."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import pytest

from shared.cli.dhcp import content
from shared.cli.dhcp.packets import FRAMES_PER_SECOND, PodSocket


def read(address: str, mask: str) -> str:
    options = {1: bytes(map(int, mask.split(".")))}
    return str(content.read(address, options, [1], priority=None, without_gateway=False).address)


@pytest.mark.parametrize(
    ("address", "mask", "length"),
    [("10.9.0.5", "255.255.255.0", 24), ("10.9.0.4", "255.255.255.254", 31), ("10.0.0.1", "255.0.0.0", 8),
     ("10.9.0.5", "255.255.255.255", 32)],
)  # fmt: skip
def test_addresses_of_hosts(address: str, mask: str, length: int) -> None:
    assert read(address, mask) == f"{address}/{length}"


@pytest.mark.parametrize(
    ("address", "mask"),
    [("10.9.0.5", "0.0.0.0"), ("10.9.0.5", "254.0.0.0"), ("10.9.0.0", "255.255.255.0"),  # noqa: S104  (a mask)
     ("10.9.0.255", "255.255.255.0"), ("10.9.0.5", "255.0.255.0"), ("0.0.0.0", "255.255.255.0"),  # noqa: S104
     ("224.0.0.5", "255.255.255.0"), ("127.0.0.5", "255.255.255.0")],
)  # fmt: skip
def test_addresses_of_no_host(address: str, mask: str) -> None:
    with pytest.raises(ValueError, match="is no address of a host"):
        read(address, mask)


def test_a_client_reads_so_many_frames_a_second() -> None:
    """The next one waits until the second is over: a bound from below, however slow the machine is."""

    async def seconds() -> float:
        loop = asyncio.get_running_loop()
        socket = PodSocket(nullcontext(), "eth0")
        begin = loop.time()
        for _ in range(FRAMES_PER_SECOND + 1):
            await socket.pace()
        return loop.time() - begin

    assert asyncio.run(seconds()) > 0.9
