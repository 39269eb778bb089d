"""Encrypt packets to peers: one WireGuard device, with a peer of its own for each public key among the routes.

    route            <a peer's CIDR>, on the device
    WireGuard peer   <its public key> is behind <its own address>, and has the addresses of <its CIDRs>

The device is this agent's alone, so that it has the cluster's peers and no others: a node that has left cannot send.
Its private key is made on the node and stays there. The kernel computes the public key.
"""

from __future__ import annotations

import errno
import os
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from struct import Struct
from types import ModuleType
from typing import TYPE_CHECKING

from shared.cluster import files, tunnel
from shared.cluster.model import Address, Cidr, Route
from shared.cluster.tunnel import End
from shared.cni.errors import InternalError, IOFailure
from shared.net import addresses, links, messages, wireguard_wire
from shared.net.netlink import ABSENT, Netlink, NetlinkError, Request
from shared.net.wire import AF_INET, AF_INET6, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLMSG_ERROR, RTM_NEWLINK
from shared.net.wireguard_wire import (
    CTRL_CMD_GETFAMILY,
    GENL_ID_CTRL,
    NETLINK_GENERIC,
    WG_CMD_GET_DEVICE,
    WG_CMD_SET_DEVICE,
    WG_GENL_VERSION,
    WG_KEY_LEN,
    WGPEER_F_REMOVE_ME,
    WGPEER_F_REPLACE_ALLOWEDIPS,
)

if TYPE_CHECKING:
    from shared.net.netlink import Message

KIND = "wireguard"
NAME = "pycni.wg"  # of the device
PORT = 51872  # UDP, of all nodes
OVERHEAD_BYTES = 80  # headers: IPv6, UDP, WireGuard; IPv4 has 20 fewer
KEY_FILE = "wireguard.key"
OTHERS = 0o077
CIDRS_AT_ONCE = 500  # of a peer; an attribute has less than 64 KiB
SOCKADDR = {AF_INET: Struct("=H2s4s8x"), AF_INET6: Struct("=H2s4x16s4x")}  # family, port, address


class WireguardError(InternalError):
    """Encryption is impossible; the message says why."""


@dataclass(frozen=True)
class Remote:
    """A peer of the device: its own address, and the addresses of packets that it may send and gets."""

    address: Address | None
    port: int
    cidrs: frozenset[Cidr]


class Family(Netlink):
    """A netlink socket for WireGuard's devices. Its creation raises WireguardError if the kernel has none."""

    protocol = NETLINK_GENERIC
    tables = wireguard_wire

    def __init__(self) -> None:
        super().__init__()
        query = {"cmd": CTRL_CMD_GETFAMILY, "version": 1, "CTRL_ATTR_FAMILY_NAME": KIND}
        found = self.get(GENL_ID_CTRL, query)
        if found is None:
            self.close()
            raise _absent()
        self.use(int(found["CTRL_ATTR_FAMILY_ID"]))

    def use(self, number: int) -> None:
        """Use the number that the kernel gave the family."""
        self.number = number
        self.tables = ModuleType(wireguard_wire.__name__)
        messages = {**wireguard_wire.MESSAGES, number: "wireguard"}
        vars(self.tables).update({**vars(wireguard_wire), "MESSAGES": messages})

    def read_device(self) -> Message | None:
        """Return the device's own settings, None if there is no device. Use the socket for nothing else afterwards.

        The kernel has no answer without the peers. The first part of it is enough.
        """
        self._begin()
        request = Request(self.number, _message(WG_CMD_GET_DEVICE), NLM_F_DUMP)
        sequence = self._send([request], acknowledge=False)
        while True:
            for kind, number, flags, data, start, end in self._receive(safe=True):
                if number != sequence:
                    continue
                if kind == self.number:
                    return messages.decode(kind, data, start, end, self.tables)
                failure = self._refusal(request, flags, data, start, end) if kind == NLMSG_ERROR else None
                if failure is not None and failure.errno not in ABSENT:
                    raise failure
                return None
            self._expect_time()


def _message(command: int, **attributes: object) -> Message:
    return {"cmd": command, "version": WG_GENL_VERSION, "WGDEVICE_A_IFNAME": NAME, **attributes}


def _absent() -> WireguardError:
    return WireguardError(
        'this kernel has no links of kind wireguard, which "encryption" needs: load its module wireguard, use another '
        'kernel, or remove "encryption" from the cluster settings of all nodes'
    )


def pod_mtu(link_mtu: int) -> int:
    """Return the greatest MTU in bytes with which encrypted packets fit into those of a link."""
    return link_mtu - OVERHEAD_BYTES


# -- the node's own key


def prepare(directory: Path) -> str:
    """Make the private key and the device, if need be, and return the public key as text.

    The key is in a file of the directory. If somebody removes the file, the node gets another key. Raise
    WireguardError, or IOFailure.
    """
    private = _find_key(directory / KEY_FILE)
    host = Netlink()
    try:
        if _find(host) is None:
            _make(host)
    finally:
        host.close()
    present = _read_device()
    if (present.get("WGDEVICE_A_PRIVATE_KEY"), present.get("WGDEVICE_A_LISTEN_PORT")) != (private, PORT):
        _set_key(private)
        present = _read_device()
    return _text(present["WGDEVICE_A_PUBLIC_KEY"])


def read_public_key() -> str:
    """Return the device's public key; empty if there is no device, or it has none. Change nothing."""
    host = Netlink()
    try:
        is_there = _find(host) is not None
    finally:
        host.close()
    return _text(_read_device().get("WGDEVICE_A_PUBLIC_KEY", b"")) if is_there else ""


def _find_key(path: Path) -> bytes:
    """Return the private key in a file. Make one if there is no file."""
    text = files.read_own(path)
    if text is None:
        key = _clamp(os.urandom(WG_KEY_LEN))
        files.write(path, f"{_text(key)}\n")
        return key
    if path.stat().st_mode & OTHERS:
        raise IOFailure(
            f"{path}, this node's private key, has mode {path.stat().st_mode & 0o777:04o}, but nobody else may read it",
            "remove the file, so that the node gets another key; or run chmod 600 if you know that nobody read it",
        )
    try:
        key = b64decode(text.strip(), validate=True)
    except (NotBase64, ValueError):
        key = b""
    if len(key) != WG_KEY_LEN:
        raise IOFailure(
            f"{path} is not a private key of {WG_KEY_LEN} bytes in base64",
            "write the key back; or remove the file, so that the node gets another one",
        )
    return _clamp(key)


def _clamp(key: bytes) -> bytes:
    """Return a private key as the kernel stores it (RFC 7748, section 5)."""
    return bytes([key[0] & 248, *key[1:-1], key[-1] & 127 | 64])


def _text(key: bytes) -> str:
    return b64encode(key).decode()


def _set_key(private: bytes) -> None:
    family = Family()
    message = _message(WG_CMD_SET_DEVICE, WGDEVICE_A_PRIVATE_KEY=private, WGDEVICE_A_LISTEN_PORT=PORT)
    try:
        family.request(family.number, message)
    except NetlinkError as error:
        raise _refused(error) from None
    finally:
        family.close()


def _refused(error: NetlinkError) -> InternalError:
    """Return the error of a port that is taken if it is that one: the device opens it when it comes up."""
    if error.errno == errno.EADDRINUSE:
        return WireguardError(
            f"link {NAME} cannot come up: UDP port {PORT} is in use, see `ss -ulnp sport = {PORT}`. End its user, or "
            f"have it use another port"
        )
    return error


def _read_device() -> Message:
    family = Family()
    try:
        return family.read_device() or {}
    finally:
        family.close()


def _find(host: Netlink) -> Message | None:
    """Return the device, None if there is none. Raise WireguardError if another kind of link has its name."""
    link = links.get(host, NAME)
    if link is not None and links.kind(link) != KIND:
        kind = links.kind(link) or "hardware"
        raise WireguardError(f"link {NAME} is not a WireGuard device, but {kind}: rename or delete it")
    return link


def _make(host: Netlink) -> None:
    body = {"IFLA_IFNAME": NAME, "IFLA_LINKINFO": {"IFLA_INFO_KIND": KIND}}
    try:
        host.request(RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)
    except NetlinkError as error:
        raise _absent() if error.errno == errno.EOPNOTSUPP else error from None


# -- its peers


@dataclass
class Change:
    """A change of the device's peers around that of the routes. Close it, finished or not."""

    index: int  # of the device
    family: Family
    leaving: list[Request]

    def finish(self) -> None:
        """Remove the peers without routes."""
        self.family.batch(self.leaving)

    def close(self) -> None:
        """Close the socket."""
        self.family.close()


def begin(host: Netlink, routes: Iterable[Route], end: End) -> Change | None:
    """Make the peers of the encrypted routes, and complete the device. Return None if it is not there, nor needed.

    Raise InternalError. Then no route may lead to the device.
    """
    wanted = [route for route in routes if route.key]
    link = _find(host)
    if link is None:
        if wanted:
            raise WireguardError(f"there is no link {NAME}: it was deleted, and the agent is about to make it anew")
        return None
    if wanted:
        _complete(host, link, end)
    family = Family()
    try:
        before, after = plan(family.number, read(family), wanted)
        family.batch(before)
    except BaseException:
        family.close()
        raise
    return Change(link["index"], family, after)


def _complete(host: Netlink, link: Message, end: End) -> None:
    """Give the device its MTU and addresses, and bring it up."""
    underlays = [tunnel.find_underlay(host, one) for one in end.addresses]
    try:
        tunnel.complete(host, link, {"IFLA_MTU": pod_mtu(min(one["IFLA_MTU"] for one in underlays))})
    except NetlinkError as error:
        raise _refused(error) from None
    tunnel.set_sources(host, link["index"], end.sources)


def read_routes(host: Netlink) -> tuple[int, dict[Cidr, tuple[str, Address]]]:
    """Return the device's index, 0 without a device; and of each CIDR on it the public key and the peer's address."""
    link = links.get(host, NAME)
    if link is None or links.kind(link) != KIND:
        return 0, {}
    family = Family()
    try:
        found = read(family)
    finally:
        family.close()
    ways = {cidr: (key, one.address) for key, one in found.items() if one.address for cidr in one.cidrs}
    return link["index"], ways


def read(family: Family) -> dict[str, Remote]:
    """Return the peers of the device by their public keys."""
    found: dict[str, Remote] = {}
    for message in family.dump(family.number, _message(WG_CMD_GET_DEVICE)):
        for peer in _list(message.get("WGDEVICE_A_PEERS", {}).get("WG_PEER")):
            key = _text(peer["WGPEER_A_PUBLIC_KEY"])
            address, port = _endpoint(peer.get("WGPEER_A_ENDPOINT", b""))
            cidrs = frozenset(map(_cidr, _list(peer.get("WGPEER_A_ALLOWEDIPS", {}).get("WG_ALLOWED_IP"))))
            if key in found:  # a peer with many goes on in the next message, without its address
                address, port = address or found[key].address, port or found[key].port
                cidrs |= found[key].cidrs
            found[key] = Remote(address, port, cidrs)
    return found


def _list(found: Message | list[Message] | None) -> list[Message]:
    """Return the elements of a list, which the codec has as one value if there is one."""
    return found if isinstance(found, list) else [found] if found else []


def _cidr(allowed: Message) -> Cidr:
    return ip_network((allowed["WGALLOWEDIP_A_IPADDR"], allowed["WGALLOWEDIP_A_CIDR_MASK"]))


def _endpoint(data: bytes) -> tuple[Address | None, int]:
    """Return the address and the port in a struct sockaddr; None if it is none."""
    for family, layout in SOCKADDR.items():
        if len(data) == layout.size and data[:2] == layout.pack(family, b"", b"")[:2]:
            _, port, address = layout.unpack(data)
            return (IPv4Address(address) if family == AF_INET else IPv6Address(address)), int.from_bytes(port, "big")
    return None, 0


def plan(number: int, have: Mapping[str, Remote], routes: Iterable[Route]) -> tuple[list[Request], list[Request]]:
    """Return the requests that make the device's peers those of the routes: those before routes change, those after.

    `number` is the family's. The kernel takes a CIDR from another peer that has it.
    """
    cidrs: dict[str, set[Cidr]] = {}
    vias: dict[str, Address] = {}
    for route in sorted(routes, key=lambda one: str(one.via)):  # of two nodes with one key, always the same one wins
        cidrs.setdefault(route.key, set()).add(route.cidr)
        vias.setdefault(route.key, route.via)
    wanted = {key: Remote(vias[key], PORT, frozenset(found)) for key, found in cidrs.items()}
    before = [
        Request(number, message)
        for key, one in wanted.items()
        if have.get(key) != one
        for message in _peer_messages(key, one)
    ]
    removed = [
        {"WGPEER_A_PUBLIC_KEY": b64decode(key), "WGPEER_A_FLAGS": WGPEER_F_REMOVE_ME}
        for key in have.keys() - wanted.keys()
    ]
    return before, [Request(number, _with_peer(peer)) for peer in removed]


def _with_peer(peer: Message) -> Message:
    return _message(WG_CMD_SET_DEVICE, WGDEVICE_A_PEERS={"WG_PEER": peer})


def _peer_messages(key: str, one: Remote) -> Iterator[Message]:
    """Yield the messages that make a peer as it shall be. Its session goes on."""
    name = {"WGPEER_A_PUBLIC_KEY": b64decode(key)}
    peer: Message = {**name, "WGPEER_A_FLAGS": WGPEER_F_REPLACE_ALLOWEDIPS}
    if one.address is not None:
        family = addresses.FAMILIES[one.address.version]
        peer["WGPEER_A_ENDPOINT"] = SOCKADDR[family].pack(family, one.port.to_bytes(2, "big"), one.address.packed)
    allowed = [
        {
            "WGALLOWEDIP_A_FAMILY": addresses.FAMILIES[cidr.version],
            "WGALLOWEDIP_A_IPADDR": cidr.network_address.packed,
            "WGALLOWEDIP_A_CIDR_MASK": cidr.prefixlen,
        }
        for cidr in sorted(one.cidrs, key=str)
    ]
    for start in range(0, len(allowed), CIDRS_AT_ONCE):
        yield _with_peer({**peer, "WGPEER_A_ALLOWEDIPS": {"WG_ALLOWED_IP": allowed[start : start + CIDRS_AT_ONCE]}})
        peer = name
