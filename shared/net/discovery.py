"""Build and read the frames that hosts find each other by: ARP (RFC 826) and neighbour discovery (RFC 4861)."""

from __future__ import annotations

from shared.cni.ip import Address
from shared.sockets import native as socket

ETH_P_ARP, ETH_P_IPV6 = bytes.fromhex("0806"), bytes.fromhex("86dd")  # linux/if_ether.h
ARP_ETHERNET_IPV4 = bytes.fromhex("0001 0800 06 04")  # kinds and lengths of the addresses
ARPOP_REQUEST, ARPOP_REPLY = bytes.fromhex("0001"), bytes.fromhex("0002")  # linux/if_arp.h
IPV6_VERSION = bytes.fromhex("60000000")
HOP_LIMIT = 255  # neighbours ignore a message with a lower limit, which a router has forwarded
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = bytes.fromhex("8700"), bytes.fromhex("8800")  # types, and code 0
OVERRIDE = bytes.fromhex("20000000")
TARGET_LINK_LAYER_ADDRESS = bytes.fromhex("0201")  # an option of eight bytes
BROADCAST = bytes.fromhex("ffffffffffff")
NOBODY = bytes(6)  # MAC of a target that is looked for
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
ALL_NODES_MAC = bytes.fromhex("333300000001")
SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")  # three bytes of the address follow
SOLICITED_NODE_MAC = bytes.fromhex("3333ff")
UNSPECIFIED = bytes(16)


def arp(operation: bytes, mac: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    """Return a broadcast ARP frame from a host with the given MAC."""
    return BROADCAST + mac + ETH_P_ARP + ARP_ETHERNET_IPV4 + operation + mac + sender + target_mac + target


def advertisement(mac: bytes, address: bytes) -> bytes:
    """Return the unsolicited neighbour advertisement that replaces the MAC which all nodes know for an address."""
    body = OVERRIDE + address + TARGET_LINK_LAYER_ADDRESS + mac
    return _icmpv6(ALL_NODES_MAC, mac, address, ALL_NODES, NEIGHBOUR_ADVERTISEMENT, body)


def solicitation(mac: bytes, address: bytes) -> bytes:
    """Return the neighbour solicitation by which a host without the address looks for one that has it (RFC 4862)."""
    tail = address[-3:]
    return _icmpv6(
        SOLICITED_NODE_MAC + tail, mac, UNSPECIFIED, SOLICITED_NODE + tail, NEIGHBOUR_SOLICITATION, bytes(4) + address
    )


def _icmpv6(mac_to: bytes, mac: bytes, source: bytes, destination: bytes, head: bytes, body: bytes) -> bytes:
    length = 4 + len(body)
    pseudo_header = source + destination + length.to_bytes(4, "big") + socket.IPPROTO_ICMPV6.to_bytes(4, "big")
    message = head + _checksum(pseudo_header + head + body) + body
    header = IPV6_VERSION + length.to_bytes(2, "big") + bytes([socket.IPPROTO_ICMPV6, HOP_LIMIT]) + source + destination
    return mac_to + mac + ETH_P_IPV6 + header + message


def _checksum(data: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2))
    return (0xFFFF - (total % 0xFFFF or 0xFFFF)).to_bytes(2, "big")


def claim(frame: bytes) -> tuple[Address, bytes] | None:
    """Return the address that the sender of a frame has or wants to have, and his MAC. None for another frame.

    A host that probes an address (RFC 5227) or detects duplicates (RFC 4862) wants to have it.
    """
    kind = frame[12:14]
    if kind == ETH_P_ARP and frame[14:20] == ARP_ETHERNET_IPV4 and len(frame) >= 42:  # bytes up to the target
        sender, target = frame[28:32], frame[38:42]
        return Address(4, int.from_bytes(target if sender == bytes(4) else sender, "big")), frame[22:28]
    is_neighbours = frame[20:22] == bytes([socket.IPPROTO_ICMPV6, HOP_LIMIT]) and len(frame) >= 78
    if kind != ETH_P_IPV6 or not is_neighbours:
        return None
    wants = frame[54:56] == NEIGHBOUR_SOLICITATION and frame[22:38] == UNSPECIFIED
    if wants or frame[54:56] == NEIGHBOUR_ADVERTISEMENT:
        return Address(6, int.from_bytes(frame[62:78], "big")), frame[6:12]
    return None
