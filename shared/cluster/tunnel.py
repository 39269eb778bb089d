"""Carry packets to peers that are on no link of this node: a VXLAN device for each family of the nodes' own addresses.

The device learns no MACs, and it has no address to flood to. All entries are written from the routes:

    route             <a peer's CIDR> via <the CIDR's first address>, on the device
    neighbour entry   <the CIDR's first address> has <the MAC of the peer's device>
    forwarding entry  <the MAC of the peer's device> is behind <the peer's own address>

host-local never leases a network's first address. A forwarding entry cannot be marked. It is this agent's if a
neighbour entry with the agent's protocol number has its MAC. So it is made after that entry, and deleted before.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING

from shared.cluster.model import Address, Cidr, Route
from shared.cluster.recall import Recalling
from shared.cni.digests import digest
from shared.cni.errors import InternalError
from shared.cni.ip import Address as KernelAddress
from shared.cni.ip import Prefix
from shared.net import addresses, links, sysctl, tunnel_wire
from shared.net.messages import decode_part, encode_structure
from shared.net.netlink import Netlink, Request
from shared.net.tunnel_wire import (
    NTF_SELF,
    NUD_PERMANENT,
    RTM_DELNEIGH,
    RTM_GETNEIGH,
    RTM_GETNEIGHTBL,
    RTM_NEWNEIGH,
)
from shared.net.wire import AF_BRIDGE, IFF_UP, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, RTM_GETADDR, RTM_NEWLINK

if TYPE_CHECKING:
    from shared.net.netlink import Message

KIND = "vxlan"
NAMES = {4: "pycni.vxlan", 6: "pycni.vxlan6"}  # of the devices, by the family of the nodes' own addresses
LOCAL = {4: "IFLA_VXLAN_LOCAL", 6: "IFLA_VXLAN_LOCAL6"}
PROTOCOL = 112  # of this agent's routes and neighbour entries; nobody has registered it (linux/rtnetlink.h)
VNI = 0x7079
PORT = 4789  # IANA's number
OVERHEAD_BYTES = {4: 50, 6: 70}  # headers: IP, UDP, VXLAN, Ethernet
TABLES = {"arp_cache": 4, "ndisc_cache": 6}  # the kernel's names of the neighbour tables
WITHOUT_IPV6 = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EACCES)  # answers to requests of the family
NDA_CACHEINFO = 3  # linux/neighbour.h: times, of no meaning for permanent entries
GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV)


class TunnelError(InternalError):
    """A tunnel cannot be made; the message names the link or the address."""


@dataclass(frozen=True)
class End:
    """The end of its tunnels that a node has itself.

    `sources` are the node's own CIDRs. The device gets their first addresses, so that the node itself reaches pods
    through the tunnel, and their answers come back through it.
    """

    mac: str
    addresses: tuple[Address, ...]  # of the node, at most one of each family
    sources: tuple[Cidr, ...] = ()
    vni: int = VNI


@dataclass(frozen=True)
class Entries:
    """The entries of a device: MACs by the addresses of this agent's neighbour entries, and addresses behind MACs."""

    neighbours: Mapping[Address, str]
    forwarding: Mapping[str, frozenset[Address]]  # of everybody


class Tables(Recalling):
    """A netlink socket for neighbour and forwarding entries."""

    tables = tunnel_wire


def mac_of(uid: str) -> str:
    """Return the MAC of a node's VXLAN devices: locally administered, the same after each boot."""
    octets = bytes.fromhex(digest(f"pycni vxlan {uid}".encode()))[:6]
    return bytes([octets[0] & 0xFC | 0x02, *octets[1:]]).hex(":")


def gateway(cidr: Cidr) -> Address:
    """Return the next hop on the device to a peer's CIDR."""
    return cidr.network_address


def pod_mtu(link_mtu: int, versions: Iterable[int]) -> int:
    """Return the greatest MTU in bytes with which packets fit into tunnels over addresses of these families."""
    return link_mtu - max((OVERHEAD_BYTES[one] for one in versions), default=0)


def ensure(host: Netlink, end: End, version: int) -> Message:
    """Return the device for peers with addresses of a family. Make it, or correct it, if need be.

    Raise TunnelError if the node has no address of the family, or another kind of link has the name.
    """
    local = next((one for one in end.addresses if one.version == version), None)
    if local is None:
        raise TunnelError(f"there is no tunnel to peers with IPv{version} addresses: this node has none of its own")
    name, data = NAMES[version], _data(end, local)
    mtu = pod_mtu(find_underlay(host, local)["IFLA_MTU"], (version,))
    link = links.get(host, name)
    if link is not None and links.kind(link) != KIND:
        raise TunnelError(
            f"link {name} is not a VXLAN device, but {links.kind(link) or 'hardware'}: rename or delete it"
        )
    if link is not None and _settings(link) != data:
        links.delete_index(host, link["index"])
        link = None
    if link is None:
        link = _make(host, name, {"IFLA_ADDRESS": end.mac, "IFLA_MTU": mtu}, data)
    complete(host, link, {"IFLA_ADDRESS": end.mac, "IFLA_MTU": mtu})
    set_sources(host, link["index"], end.sources)
    return link


def _data(end: End, local: Address) -> Message:
    return {
        "IFLA_VXLAN_ID": end.vni, "IFLA_VXLAN_LEARNING": 0, "IFLA_VXLAN_PORT": PORT, LOCAL[local.version]: str(local),
    }  # fmt: skip


def _settings(link: Message) -> Message:
    """Return those settings of a device that `_data` has."""
    data = link["IFLA_LINKINFO"].get("IFLA_INFO_DATA", b"")
    return decode_part(f"info_data/{KIND}", data, tunnel_wire)


def _make(host: Netlink, name: str, body: Message, data: Message) -> Message:
    encoded = encode_structure(f"info_data/{KIND}", data, tunnel_wire.STRUCTURES)
    info = {"IFLA_INFO_KIND": KIND, "IFLA_INFO_DATA": encoded}
    host.request(RTM_NEWLINK, {"IFLA_IFNAME": name, **body, "IFLA_LINKINFO": info}, NLM_F_CREATE | NLM_F_EXCL)
    return links.require(host, name)


def complete(host: Netlink, link: Message, wanted: Message) -> None:
    """Correct MAC and MTU, and bring the device up: one that is up has its sysctls."""
    changes = {key: value for key, value in wanted.items() if link.get(key) != value}
    if not link["flags"] & IFF_UP:
        name = link["IFLA_IFNAME"]
        sysctl.refuse_advertisements(name)
        sysctl.prefer(f"ipv6/conf/{name}/addr_gen_mode", "1")  # no link-local address, which nobody needs
        sysctl.prefer(f"ipv6/conf/{name}/disable_ipv6", "0")
        changes |= {"flags": IFF_UP, "change": IFF_UP}
    if changes:
        host.request(RTM_NEWLINK, {"index": link["index"], **changes})


def set_sources(host: Netlink, index: int, cidrs: Iterable[Cidr]) -> None:
    """Give the device the first addresses of these CIDRs, and no others."""
    wanted = {Prefix(kernel_address(one.network_address), one.max_prefixlen) for one in cidrs}
    have = {one for one in addresses.of_link(host, index) if one.address not in addresses.LINK_LOCAL}
    for prefix in have - wanted:
        addresses.remove(host, index, prefix)
    missing = sorted(wanted - have, key=str)
    host.batch([addresses.add_request(index, one, dad=False, tolerate=WITHOUT_IPV6) for one in missing])


def find_underlay(host: Netlink, local: Address) -> Message:
    """Return the link with one of the node's own addresses."""
    for message in host.dump(RTM_GETADDR, {"family": addresses.FAMILIES[local.version]}):
        if (message.get("IFA_LOCAL") or message["IFA_ADDRESS"]) == str(kernel_address(local)):
            link = links.by_index(host, message["index"])
            if link is not None:
                return link
    raise TunnelError(f"no link has {local}, the node's own address: correct the agent's settings")


def devices(host: Netlink) -> dict[int, Message]:
    """Return the VXLAN devices that exist, by the family of the nodes' addresses."""
    found = ((version, links.get(host, name)) for version, name in NAMES.items())
    return {version: link for version, link in found if link is not None and links.kind(link) == KIND}


def read(tables: Tables, index: int) -> Entries:
    """Return the entries of a device."""
    neighbours: dict[Address, str] = {}
    forwarding: dict[str, frozenset[Address]] = {}
    for family in addresses.FAMILIES.values():
        like = {"family": family, "NDA_IFINDEX": index}
        neighbours |= tables.recall(RTM_GETNEIGH, like, lambda one: _own_neighbour(one, index), without=NDA_CACHEINFO)
    like = {"family": AF_BRIDGE, "ifindex": index}
    for mac, address in tables.recall(RTM_GETNEIGH, like, lambda one: _peer_of(one, index), without=NDA_CACHEINFO):
        forwarding[mac] = forwarding.get(mac, frozenset()) | {address}
    return Entries(neighbours, forwarding)


def _own_neighbour(one: Message, index: int) -> tuple[Address, str] | None:
    """Return address and MAC of this agent's neighbour entry on a device."""
    if one["ifindex"] == index and one.get("NDA_PROTOCOL") == PROTOCOL and one["state"] & NUD_PERMANENT:
        return ip_address(one["NDA_DST"]), one.get("NDA_LLADDR", "")
    return None


def _peer_of(one: Message, index: int) -> tuple[str, Address] | None:
    """Return MAC and peer of a device's forwarding entry."""
    return (one["NDA_LLADDR"], ip_address(one["NDA_DST"])) if one["ifindex"] == index and "NDA_DST" in one else None


def plan(index: int, have: Entries, routes: Iterable[Route]) -> tuple[list[Request], list[Request]]:
    """Return the requests that make a device's entries lead to these peers: those before routes change, those after.

    An entry at the address of a wanted one is replaced. Other entries of others stay.
    """
    wanted = {gateway(route.cidr): route.mac for route in routes}
    behind = {route.mac: route.via for route in routes}
    changed = {one: mac for one, mac in wanted.items() if have.neighbours.get(one) != mac}
    moved = [mac for mac, one in behind.items() if have.forwarding.get(mac) != frozenset([one])]
    left = set(have.neighbours.values()) - behind.keys()
    # afterwards, no entry of this agent would have these MACs
    replaced = left & {have.neighbours[one] for one in changed.keys() & have.neighbours.keys()}
    before = [
        *_forwarding_gone(index, have, replaced),
        *(_neighbour(index, one, mac) for one, mac in changed.items()),
        *(_forwarding(index, mac, behind[mac]) for mac in moved),
    ]
    gone = have.neighbours.keys() - wanted.keys()
    return before, [*_forwarding_gone(index, have, left - replaced), *(_neighbour(index, one) for one in gone)]


def _forwarding_gone(index: int, have: Entries, macs: Iterable[str]) -> Iterator[Request]:
    for mac in macs:
        for address in have.forwarding.get(mac, ()):
            yield _forwarding(index, mac, address, is_gone=True)


def _neighbour(index: int, address: Address, mac: str = "") -> Request:
    """Return a request that writes a neighbour entry; without a MAC, one that deletes it."""
    name = {"family": addresses.FAMILIES[address.version], "ifindex": index, "NDA_DST": str(address)}
    if not mac:
        return Request(RTM_DELNEIGH, name, 0, GONE)
    entry = {"state": NUD_PERMANENT, "NDA_LLADDR": mac, "NDA_PROTOCOL": PROTOCOL}
    return Request(RTM_NEWNEIGH, {**name, **entry}, NLM_F_CREATE | NLM_F_REPLACE, WITHOUT_IPV6)


def _forwarding(index: int, mac: str, address: Address, *, is_gone: bool = False) -> Request:
    """Return a request that writes a forwarding entry, or deletes it."""
    entry = {"family": AF_BRIDGE, "ifindex": index, "flags": NTF_SELF, "NDA_LLADDR": mac, "NDA_DST": str(address)}
    if is_gone:
        return Request(RTM_DELNEIGH, entry, 0, GONE)
    return Request(RTM_NEWNEIGH, {**entry, "state": NUD_PERMANENT}, NLM_F_CREATE | NLM_F_REPLACE)


def neighbour_limits(tables: Tables) -> dict[int, int]:
    """Return gc_thresh3 of each family: the kernel refuses further neighbours on links. All namespaces share it."""
    return {
        TABLES[one["NDTA_NAME"]]: one["NDTA_THRESH3"]
        for one in tables.dump(RTM_GETNEIGHTBL, {})
        if one.get("NDTA_NAME") in TABLES and "NDTA_THRESH3" in one
    }


def kernel_address(address: Address) -> KernelAddress:
    """Return an address as the suite's netlink modules have it."""
    return KernelAddress(4 if isinstance(address, IPv4Address) else 6, int(address))
