"""Read links, addresses and routes of the host and of its pods.

Do not use pyroute2 here: any process in a pod's namespace can send to its sockets, and each of its messages takes 20
KiB.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netaddr import IPAddress, IPNetwork

from shared.cni.ip import Address
from shared.net.links import kind
from shared.net.netlink import Netlink
from shared.net.owner import parse_alias
from shared.net.routes import ANY, RT_TABLE_MAIN
from shared.net.wire import IFF_UP, RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE

if TYPE_CHECKING:
    from shared.net.netlink import Message

IFA_F_DADFAILED = 0x08  # linux/if_addr.h

Mark = tuple[str, str, str]  # network, container id, ifname
Identity = tuple[int, int]  # a namespace's device and inode


@dataclass(frozen=True)
class Held:
    """An address that a link has, with its prefix length."""

    network: IPNetwork
    is_duplicate: bool  # IPv6's duplicate address detection found another holder

    @property
    def ip(self) -> IPAddress:
        """Return the address without its prefix length."""
        return self.network.ip


@dataclass(frozen=True)
class Link:
    """A link of the host or of a pod.

    `peer` is the index of a veth's other end, `peer_nsid` the host's number for the namespace of that end.
    """

    index: int
    name: str
    kind: str
    mtu: int
    is_up: bool
    master: int | None
    peer: int | None
    peer_nsid: int | None
    alias: str
    addresses: tuple[Held, ...]

    @property
    def mark(self) -> Mark | None:
        """Return the attachment that its alias names, or None."""
        return parse_alias(self.alias)


@dataclass(frozen=True)
class Pod:
    """A network namespace other than the host's; `nsid` is the host's number for it."""

    path: str
    identity: Identity
    nsid: int
    links: tuple[Link, ...]
    routes: frozenset[IPNetwork]  # of its main table, and only destinations that the cache names

    def link(self, name: str) -> Link | None:
        """Return its link with this name, or None."""
        return next((link for link in self.links if link.name == name), None)

    def inside(self, *words: object) -> str:
        """Return the command line that executes a command in it."""
        return command("nsenter", f"--net={self.path}", *words)


@dataclass(frozen=True)
class Wire:
    """A veth pair between the host and a pod, and the attachment that owns it if that is known."""

    port: Link
    pod: Pod
    inside: Link
    mark: Mark | None

    @property
    def network(self) -> str:
        """Return its network's name, empty if it is not known."""
        return self.mark[0] if self.mark else ""

    @property
    def name(self) -> str:
        """Return its name for findings."""
        return f"{self.inside.name} in {self.pod.path}"


def links_here() -> tuple[Link, ...]:
    """Return the links of the thread's namespace with their addresses."""
    with closing(Netlink()) as netlink:
        addresses = netlink.scan(RTM_GETADDR, None, _addresses)
        return netlink.scan(
            RTM_GETLINK, None,
            lambda stream: tuple(_link(message, addresses.get(message["index"], [])) for message in stream),
        )  # fmt: skip


def _addresses(stream: Iterator[Message]) -> dict[int, list[Held]]:
    found: dict[int, list[Held]] = defaultdict(list)
    for message in stream:
        ip = message.get("IFA_LOCAL") or message["IFA_ADDRESS"]
        held = Held(IPNetwork(f"{ip}/{message['prefixlen']}"), bool(message["flags"] & IFA_F_DADFAILED))
        found[message["index"]].append(held)
    return found


def _link(message: Message, addresses: list[Held]) -> Link:
    return Link(
        index=message["index"],
        name=message["IFLA_IFNAME"],
        kind=kind(message),
        mtu=message["IFLA_MTU"],
        is_up=bool(message["flags"] & IFF_UP),
        master=message.get("IFLA_MASTER"),
        peer=message.get("IFLA_LINK"),
        peer_nsid=message.get("IFLA_LINK_NETNSID"),
        alias=message.get("IFLA_IFALIAS", ""),
        addresses=tuple(addresses),
    )


def routes_here(wanted: set[IPNetwork]) -> frozenset[IPNetwork]:
    """Return the destinations to which the main table of the thread's namespace has a route.

    Keep only those that are wanted: a pod may have any number of routes.
    """
    texts = {(str(Address.parse(str(one.network))), one.prefixlen): one for one in wanted}

    def take(stream: Iterator[Message]) -> frozenset[IPNetwork]:
        keys = ((message.get("RTA_DST", ANY[message["family"]]), message["dst_len"]) for message in stream
                if message.get("RTA_TABLE", message["table"]) == RT_TABLE_MAIN)  # fmt: skip
        return frozenset(texts[key] for key in keys if key in texts)

    with closing(Netlink()) as netlink:
        return frozenset().union(*(netlink.scan(RTM_GETROUTE, {"family": family}, take) for family in ANY))


def command(*words: object) -> str:
    """Return a command line for a shell. Quote every word: a pod chooses the names of its links."""
    return shlex.join(map(str, words))
