"""Links, addresses and routes of the host and of its pods.

pyroute2 is not used here: any process in a pod's namespace can send to its sockets, and a message of it holds 20 KiB.
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
    is_duplicate: bool  # IPv6's duplicate address detection found another that has it

    @property
    def ip(self) -> IPAddress:
        """The address alone."""
        return self.network.ip


@dataclass(frozen=True)
class Link:
    """A link of the host or of a pod; `peer` is the index of a veth's other end, `peer_nsid` where that is."""

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
        """Whose it is by its alias."""
        return parse_alias(self.alias)


@dataclass(frozen=True)
class Pod:
    """A network namespace other than the host's; `nsid` is the host's number for it."""

    path: str
    identity: Identity
    nsid: int
    links: tuple[Link, ...]
    routes: frozenset[IPNetwork]  # those destinations that the cache names and its main table has

    def link(self, name: str) -> Link | None:
        """Its link of that name."""
        return next((link for link in self.links if link.name == name), None)

    def inside(self, *words: object) -> str:
        """The command line that executes a command in it."""
        return command("nsenter", f"--net={self.path}", *words)


@dataclass(frozen=True)
class Wire:
    """A veth pair between the host and a pod, and whose it is as far as that is known."""

    port: Link
    pod: Pod
    inside: Link
    mark: Mark | None

    @property
    def network(self) -> str:
        """Its network's name, empty where it is not known."""
        return self.mark[0] if self.mark else ""

    @property
    def name(self) -> str:
        """As findings call it."""
        return f"{self.inside.name} in {self.pod.path}"


def links_here() -> tuple[Link, ...]:
    """The links of the namespace that the thread is in, with their addresses."""
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
    """Return those of the destinations to which the main table has a route, in the thread's namespace.

    A pod may have any number of routes, so the others are not kept.
    """
    texts = {(str(Address.parse(str(one.network))), one.prefixlen): one for one in wanted}

    def take(stream: Iterator[Message]) -> frozenset[IPNetwork]:
        keys = ((message.get("RTA_DST", ANY[message["family"]]), message["dst_len"]) for message in stream
                if message.get("RTA_TABLE", message["table"]) == RT_TABLE_MAIN)  # fmt: skip
        return frozenset(texts[key] for key in keys if key in texts)

    with closing(Netlink()) as netlink:
        return frozenset().union(*(netlink.scan(RTM_GETROUTE, {"family": family}, take) for family in ANY))


def command(*words: object) -> str:
    """A command line that a shell takes as these words: a pod may call its links what it likes."""
    return shlex.join(map(str, words))
