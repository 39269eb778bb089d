"""The frames that tell neighbours where an address is now."""

# ruff: noqa: SLF001  (the frames are made inside)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cni.ip import Address
from shared.net import announce, discovery

MAC = bytes.fromhex("0a580a010005")


def test_ipv4() -> None:
    """RFC 5227's request, and a reply that Linux heeds even if it has just confirmed the entry: both MACs are the sender's."""
    request, reply = announce._frames(MAC, Address.parse("10.1.0.5"))
    ethernet, arp = "ffffffffffff0a580a0100050806", "000108000604"
    assert request.hex() == ethernet + arp + "00010a580a0100050a0100050000000000000a010005"
    assert reply.hex() == ethernet + arp + "00020a580a0100050a0100050a580a0100050a010005"


def total(data: bytes) -> int:
    """Return the ones' complement sum, which is 0xFFFF over a header with a right checksum."""
    found = sum(int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return found


@given(st.integers(1, 2**128 - 1), st.binary(min_size=6, max_size=6))
def test_ipv6(value: int, mac: bytes) -> None:
    """An unsolicited neighbour advertisement that overrides (RFC 4861, 7.2.6), to all nodes, by no router."""
    address = Address(6, value)
    first, second = announce._frames(mac, address)
    assert first == second
    ethernet, ip, message = first[:14], first[14:54], first[54:]
    assert ethernet == bytes.fromhex("333300000001") + mac + bytes.fromhex("86dd")
    assert (ip[6], ip[7], ip[8:24], ip[24:]) == (58, 255, address.packed, discovery.ALL_NODES)
    assert int.from_bytes(ip[4:6], "big") == len(message) == 32
    assert (message[:2].hex(), message[4:8].hex()) == ("8800", "20000000")
    assert message[8:24] == address.packed and message[24:] == bytes.fromhex("0201") + mac
    pseudo_header = address.packed + discovery.ALL_NODES + (32).to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert total(pseudo_header + message) == 0xFFFF


@pytest.mark.parametrize("address", ["10.1.0.5", "fd00:1::5"])
def test_each_twice(address: str) -> None:
    """One of the frames may get lost."""
    assert len(announce._frames(MAC, Address.parse(address))) == 2
