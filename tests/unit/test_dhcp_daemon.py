"""The dhcp daemon's parts that need no network: addresses that a pod can use, and the pace of a client."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from math import inf
from typing import Any

import pytest
from pyroute2.dhcp.fsm import State

from ipam import dhcp
from shared.cli.dhcp import content, lease6, packets, pauses, requests
from shared.cli.dhcp.client import Client, Wish
from shared.cli.dhcp.packets import FRAMES_PER_SECOND, Pace, PodSocket
from shared.cli.dhcp.packets6 import Kind, Message, Option, Refusal, join, split
from shared.cni.call import Call
from shared.cni.ip import Address
from shared.dhcp import records


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
        pace = Pace()
        begin = loop.time()
        for _ in range(FRAMES_PER_SECOND + 1):
            await pace.wait()
        return loop.time() - begin

    assert asyncio.run(seconds()) > 0.9


def test_a_lease_forever_is_renewed_at_leisure() -> None:
    """A restart renews it, too. A silent server is not asked without a pause."""
    forever = {51: bytes.fromhex("ffffffff"), 54: bytes([10, 9, 0, 1]), 1: bytes([255, 255, 255, 0])}
    wish = Wish("eth0", b"", {}, (), None, without_gateway=False, broadcast=False)
    lease = packets.lease("10.9.0.5", forever, "eth0", "02:00:00:00:00:01", packets.now())

    async def pause() -> float:
        client = Client(wish, PodSocket(nullcontext(), "eth0"), lambda *_: None, limits=(10.0, 62.0))
        client._lease, client._state = lease, State.RENEWING  # noqa: SLF001
        return float(next(client.config.retransmission()))

    assert asyncio.run(pause()) == pauses.RENEWAL_SECONDS


IAID = b"\0\0\0\1"


def reply(times: tuple[int, int], *addresses: tuple[str, int, int]) -> Message:
    """Return a server's message with T1 and T2, and addresses with their lifetimes."""
    inner = [
        (Option.IA_ADDRESS, Address.parse(text).packed + preferred.to_bytes(4, "big") + valid.to_bytes(4, "big"))
        for text, preferred, valid in addresses
    ]
    body = IAID + b"".join(time.to_bytes(4, "big") for time in times) + join(inner)
    return Message(Kind.REPLY, b"abc", [(Option.SERVER_ID, b"server"), (Option.IA_NA, body)])


@pytest.mark.parametrize(
    ("times", "lifetimes", "expected"),
    [((10, 20), (30, 40), (10, 20, 40)), ((0, 0), (100, 200), (50, 80, 200)), ((0, 0), (0, 200), (100, 160, 200)),
     ((30, 20), (100, 200), (50, 80, 200)), ((10, 300), (100, 200), (50, 80, 200)), ((200, 200), (200, 200), (100, 160, 200)),
     ((2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (inf, inf, inf)), ((0, 0), (100, 2**32 - 1), (50, 80, inf))],
)  # fmt: skip
def test_times_of_a_dhcpv6_lease(
    times: tuple[int, int], lifetimes: tuple[int, int], expected: tuple[float, float, float]
) -> None:
    """T1 and T2 are the server's, if they make sense. The lease is the same after a restart."""
    lease = lease6.read(reply(times, ("fd09::5", *lifetimes)), IAID, "", packets.now())
    assert (lease.renewal, lease.rebinding, lease.valid) == expected
    assert lease6.Lease6.from_json(lease.to_json()) == lease


def test_addresses_of_a_dhcpv6_lease() -> None:
    """The pod keeps its address if the server has it among others; a withdrawn one gives way."""
    both = reply((0, 0), ("fe80::1", 9, 9), ("fd09::5", 9, 9), ("fd09::6", 9, 9))
    assert lease6.read(both, IAID, "", 0.0).ip == "fd09::5"
    assert lease6.read(both, IAID, "fd09::6", 0.0).ip == "fd09::6"
    assert lease6.read(reply((0, 0), ("fd09::5", 0, 0), ("fd09::6", 9, 9)), IAID, "fd09::5", 0.0).ip == "fd09::6"
    with pytest.raises(Refusal, match="NoBinding"):
        lease6.read(reply((0, 0), ("fd09::5", 0, 0)), IAID, "fd09::5", 0.0)
    with pytest.raises(ValueError, match="no address"):
        lease6.read(reply((0, 0), ("fd09::5", 10, 9)), IAID, "", 0.0)
    with pytest.raises(ValueError, match="no IA_NA"):
        lease6.read(both, b"\0\0\0\2", "", 0.0)


def test_options_of_dhcpv6() -> None:
    options = [(1, b"client"), (14, b""), (23, bytes(16))]
    data = join(options)
    assert split(data) == options
    for size in set(range(len(data))) - {0, 10, 14}:
        with pytest.raises(ValueError, match="is cut"):
            split(data[:size])


def test_a_record_of_an_earlier_daemon() -> None:
    """It names no family and no probe: the lease is of IPv4."""
    names = {"network": "net", "containerID": "a", "ifname": "eth0", "netns": "/run/netns/a", "clientID": ""}
    wishes: dict[str, Any] = {
        "provide": {},
        "request": [1],
        "priority": None,
        "withoutGateway": False,
        "broadcast": False,
    }
    kept = requests.kept_of({**names, **wishes})
    assert kept == {**names, **wishes, "probeSeconds": 0}
    assert requests.read_wish(kept) == Wish("eth0", b"", {}, (1,), None, without_gateway=False, broadcast=False)


@pytest.mark.parametrize(
    ("container", "mac", "is_shared", "iaid"),
    [("a", "02:00:00:00:12:34", False, "00001234"), ("b", "02:00:00:00:12:34", False, "00001234"),
     ("a", "02:00:00:00:12:34", True, records.key("net", "a", "eth0")[:8]),
     ("b", "02:00:00:00:12:34", True, records.key("net", "b", "eth0")[:8])],
)  # fmt: skip
def test_names_of_a_dhcpv6_client(container: str, mac: str, is_shared: bool, iaid: str) -> None:
    """A pod with the same MAC is the same client, unless all pods share the MAC, as those of ipvlan do."""
    names = {"COMMAND": "ADD", "CONTAINERID": container, "NETNS": "/n", "IFNAME": "eth0", "PATH": "/"}
    call = Call({f"CNI_{name}": value for name, value in names.items()})
    ipam = {"type": "dhcp", "dhcpv6": "stateful"}
    call.read_config(json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "dhcp", "ipam": ipam}).encode())
    request = dhcp.Wish(call).request(mac, is_shared=is_shared)
    assert (request["duid"], request["iaid"]) == ("00030001020000001234", iaid)
