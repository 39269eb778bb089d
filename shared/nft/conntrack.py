"""Delete conntrack entries of UDP traffic to host ports when their mappings change.

A connection keeps the translation of its first packet, and UDP has no end. A client that keeps sending to a host port
never counts as new: without deletion, an entry from before the mapping, or to a deleted pod, would stay.
"""

from __future__ import annotations

import errno

from shared import handover
from shared.cni.ip import Address
from shared.net import routes
from shared.net.addresses import FAMILIES
from shared.net.netlink import AT_ONCE, Netlink, NetlinkError, Request
from shared.net.wire import NETLINK_NETFILTER
from shared.nft import conntrack_wire as wire
from shared.nft.ruleset import PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from shared.net.netlink import Message

    Flow = tuple[int, str, int]  # IP version, destination address ("": any of this host), destination port

UDP = PROTOCOLS["udp"]
DESTINATIONS = {4: "CTA_IP_V4_DST", 6: "CTA_IP_V6_DST"}
MOST_REMEMBERED = 1024  # addresses with the answer whether they are this host's
IDENTITY = ("nfgen_family", "CTA_TUPLE_ORIG", "CTA_ID", "CTA_ZONE")  # these identify an entry
UNTRACKED = (errno.EINVAL, errno.EOPNOTSUPP)  # the kernel's answers if it has no ctnetlink


class Conntrack(Netlink):
    """A socket to connection tracking in the thread's network namespace at the time of creation."""

    protocol = NETLINK_NETFILTER
    tables = wire

    def __init__(self) -> None:
        super().__init__()
        handover.retain(self.socket)  # closing it would wait for nf_tables, which have the same protocol


class Removals:
    """Delete conntrack entries in batches of AT_ONCE; their number has no bound, so none are collected.

    They use a second socket, because the first one is in the middle of a dump.
    """

    def __init__(self, open_socket: Callable[[], Conntrack]) -> None:
        self.open_socket = open_socket
        self.socket: Conntrack | None = None
        self.waiting: list[Request] = []

    def add(self, message: Message) -> None:
        """Delete an entry with the next batch."""
        identity = {key: message[key] for key in IDENTITY if key in message}
        self.waiting.append(Request(wire.IPCTNL_MSG_CT_DELETE, identity, 0, (errno.ENOENT,)))
        if len(self.waiting) == AT_ONCE:
            self.send()

    def send(self) -> None:
        """Delete the waiting entries now."""
        if self.waiting:
            self.socket = self.socket or self.open_socket()
            self.socket.batch(self.waiting)
            self.waiting = []


def forget(flows: Collection[Flow]) -> None:
    """Delete the conntrack entries of UDP traffic whose first packets went to these ports of this host."""
    host = Netlink()
    forget_udp(Conntrack(), Removals(Conntrack), flows, lambda text: routes.is_local(host, Address.parse(text)))


def forget_udp(kernel: Conntrack, removals: Removals, flows: Collection[Flow], is_local: Callable[[str], bool]) -> None:
    """Delete the same entries with given sockets, and a test for the host's addresses."""
    for version in sorted({version for version, _, _ in flows}):
        wanted = {(address, port) for of, address, port in flows if of == version}
        _forget(kernel, removals, version, wanted, is_local)
        removals.send()


def _forget(
    kernel: Conntrack, removals: Removals, version: int, wanted: set[tuple[str, int]], is_local: Callable[[str], bool]
) -> None:
    anywhere = {port for address, port in wanted if not address}
    local: dict[str, bool] = {}

    def is_wanted(address: str, port: int) -> bool:
        if (address, port) in wanted:
            return True
        if port in anywhere and address not in local:
            if len(local) == MOST_REMEMBERED:
                local.clear()
            local[address] = is_local(address)
        return port in anywhere and local[address]

    def remove(connections: Iterator[Message]) -> None:
        for message in connections:
            addresses, ports = (message["CTA_TUPLE_ORIG"][part] for part in ("CTA_TUPLE_IP", "CTA_TUPLE_PROTO"))
            is_udp = ports["CTA_PROTO_NUM"] == UDP
            if is_udp and is_wanted(addresses[DESTINATIONS[version]], ports["CTA_PROTO_DST_PORT"]):
                removals.add(message)

    try:
        kernel.scan(wire.IPCTNL_MSG_CT_GET, _like(version, {port for _, port in wanted}), remove)
    except NetlinkError as error:
        if error.errno not in UNTRACKED or error.kind != wire.IPCTNL_MSG_CT_GET:
            raise


def _like(version: int, ports: set[int]) -> Message:
    """Return the filter for the kernel: UDP, and the port if it is a single one.

    Kernels before 5.8 ignore the filter and return all entries of the family.
    """
    like = {"CTA_PROTO_NUM": UDP}
    flags = wire.FILTER_FLAG_CTA_PROTO_NUM
    if len(ports) == 1:
        like["CTA_PROTO_DST_PORT"] = min(ports)
        flags |= wire.FILTER_FLAG_CTA_PROTO_DST_PORT
    return {
        "nfgen_family": FAMILIES[version],
        "CTA_TUPLE_ORIG": {"CTA_TUPLE_PROTO": like},
        "CTA_FILTER": {"CTA_FILTER_ORIG_FLAGS": flags},
    }
