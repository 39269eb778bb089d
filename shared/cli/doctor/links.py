"""Links, addresses and routes as pyroute2 reads them, of the host and of its pods."""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import dataclass
from socket import AF_INET6
from typing import Any

from netaddr import IPAddress, IPNetwork
from pyroute2 import IPRoute

from shared.net.owner import attachment
from shared.net.wire import IFF_UP

IFA_F_DADFAILED = 0x08  # linux/if_addr.h
RT_TABLE_MAIN = 254  # linux/rtnetlink.h

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
        return attachment(self.alias)


@dataclass(frozen=True)
class Pod:
    """A network namespace other than the host's; `nsid` is the host's number for it."""

    path: str
    identity: Identity
    nsid: int
    links: tuple[Link, ...]
    routes: frozenset[IPNetwork]  # the destinations in its main table

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
    with IPRoute() as netlink:
        addresses: dict[int, list[Held]] = defaultdict(list)
        for message in netlink.get_addr():
            ip = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            held = Held(IPNetwork(f"{ip}/{message['prefixlen']}"), bool(message["flags"] & IFA_F_DADFAILED))
            addresses[message["index"]].append(held)
        return tuple(_link(message, addresses) for message in netlink.get_links())


def _link(message: Any, addresses: dict[int, list[Held]]) -> Link:
    index = message["index"]
    return Link(
        index=index,
        name=message.get_attr("IFLA_IFNAME"),
        kind=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
        mtu=message.get_attr("IFLA_MTU"),
        is_up=bool(message["flags"] & IFF_UP),
        master=message.get_attr("IFLA_MASTER"),
        peer=message.get_attr("IFLA_LINK"),
        peer_nsid=message.get_attr("IFLA_LINK_NETNSID"),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        addresses=tuple(addresses[index]),
    )


def routes_here() -> frozenset[IPNetwork]:
    """The destinations of the main table's routes in the namespace that the thread is in."""
    with IPRoute() as netlink:
        routes = [
            (IPAddress(message.get_attr("RTA_DST") or 0, 6 if message["family"] == AF_INET6 else 4), message["dst_len"])
            for message in netlink.get_routes(table=RT_TABLE_MAIN)
        ]
    return frozenset(IPNetwork(f"{address}/{length}") for address, length in routes)


def command(*words: object) -> str:
    """A command line that a shell takes as these words: a pod may call its links what it likes."""
    return shlex.join(map(str, words))
