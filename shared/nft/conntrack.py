"""Connections that the kernel tracks: those that must be forgotten when host ports change.

A connection keeps the way that its first packet went. UDP has no end: whoever goes on sending to a host port is never
seen as new, so that what was tracked before a port was mapped, or is mapped to a pod that is gone, would last.
"""

from __future__ import annotations

import errno

from shared.cni.ip import Address
from shared.net import routes
from shared.net.addresses import FAMILIES
from shared.net.netlink import Netlink, NetlinkError, Request
from shared.net.wire import NETLINK_NETFILTER
from shared.nft import conntrack_wire as wire
from shared.nft.ruleset import PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from shared.net.netlink import Message

    Flow = tuple[int, str, int]  # IP version, destination address ("": any of this host), destination port

DESTINATIONS = {4: "CTA_IP_V4_DST", 6: "CTA_IP_V6_DST"}
IDENTITY = ("nfgen_family", "CTA_TUPLE_ORIG", "CTA_ID", "CTA_ZONE")  # what names a connection
UNTRACKED = (errno.EINVAL, errno.EOPNOTSUPP)  # the kernel's answers where it has no ctnetlink


class Conntrack(Netlink):
    """A socket to connection tracking of the network namespace that the thread is in when this is made."""

    protocol = NETLINK_NETFILTER
    tables = wire


def forget(flows: Collection[Flow]) -> None:
    """Have the kernel forget the UDP connections whose first packets went to these ports of this host."""
    host = Netlink()
    forget_udp(Conntrack(), flows, lambda text: routes.is_local(host, Address.parse(text)))


def forget_udp(kernel: Conntrack, flows: Collection[Flow], is_local: Callable[[str], bool]) -> None:
    """Has the kernel forget the UDP connections whose first packets went to these ports of this host."""
    for version in sorted({version for version, _, _ in flows}):
        wanted = {(address, port) for of, address, port in flows if of == version}
        _forget(kernel, version, wanted, is_local)


def _forget(kernel: Conntrack, version: int, wanted: set[tuple[str, int]], is_local: Callable[[str], bool]) -> None:
    anywhere = {port for address, port in wanted if not address}
    local: dict[str, bool] = {}

    def is_wanted(address: str, port: int) -> bool:
        if (address, port) in wanted:
            return True
        if port in anywhere and address not in local:
            local[address] = is_local(address)
        return port in anywhere and local[address]

    removals = []
    for message in _udp(kernel, version, {port for _, port in wanted}):
        addresses, ports = (message["CTA_TUPLE_ORIG"][part] for part in ("CTA_TUPLE_IP", "CTA_TUPLE_PROTO"))
        if is_wanted(addresses[DESTINATIONS[version]], ports["CTA_PROTO_DST_PORT"]):
            identity = {key: message[key] for key in IDENTITY if key in message}
            removals.append(Request(wire.IPCTNL_MSG_CT_DELETE, identity, 0, (errno.ENOENT,)))
    kernel.batch(removals)


def _udp(kernel: Conntrack, version: int, ports: set[int]) -> list[Message]:
    """The connections; a kernel before 5.8 tells all of a family, as this one does of UDP for several ports."""
    number = PROTOCOLS["udp"]
    like = {"CTA_PROTO_NUM": number}
    flags = wire.FILTER_FLAG_CTA_PROTO_NUM
    if len(ports) == 1:
        like["CTA_PROTO_DST_PORT"] = min(ports)
        flags |= wire.FILTER_FLAG_CTA_PROTO_DST_PORT
    message = {
        "nfgen_family": FAMILIES[version],
        "CTA_TUPLE_ORIG": {"CTA_TUPLE_PROTO": like},
        "CTA_FILTER": {"CTA_FILTER_ORIG_FLAGS": flags},
    }
    try:
        found = kernel.dump(wire.IPCTNL_MSG_CT_GET, message)
    except NetlinkError as error:
        if error.errno in UNTRACKED:
            return []
        raise
    return [one for one in found if one["CTA_TUPLE_ORIG"]["CTA_TUPLE_PROTO"]["CTA_PROTO_NUM"] == number]
