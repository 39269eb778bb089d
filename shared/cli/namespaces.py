"""Pods' network namespaces as the host's kernel knows them: which id has which path, and what is inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from shared.cni.errors import CniError
from shared.net.netns import open_netns

PLACES = (Path("/run/netns"), Path("/run/docker/netns"))  # where runtimes keep namespaces by name
DUMP_TRIES = 10
RT_SCOPE_LINK = 253  # linux/rtnetlink.h
NO_ID = 0xFFFFFFFF  # NETNSA_NSID_NOT_ASSIGNED of linux/net_namespace.h


@dataclass(frozen=True)
class InnerLink:
    """A link inside a namespace; `addresses` are those that others can reach, with prefix length."""

    index: int
    name: str
    addresses: tuple[str, ...]


@contextmanager
def kernel() -> Iterator[Any]:
    """The kernel's view of the network namespace that the thread is in: a pyroute2 IPRoute."""
    with IPRoute() as ip:
        yield ip


def steady(dump: Callable[..., Iterable[Any]], *arguments: Any, **filters: Any) -> list[Any]:
    """What a dump of pyroute2 returns, begun anew when a change interrupted it; raises NetlinkDumpInterrupted."""
    for _ in range(DUMP_TRIES - 1):
        try:
            return list(dump(*arguments, **filters))
        except NetlinkDumpInterrupted:
            continue
    return list(dump(*arguments, **filters))


def named() -> list[str]:
    """The paths of the namespaces that have a name on this host."""
    found = []
    for place in PLACES:
        try:
            found += sorted(str(path) for path in place.iterdir())
        except OSError:
            continue
    return found


def by_id(ip: Any, paths: Iterable[str]) -> dict[int, str]:
    """The namespaces that the kernel has given an id here, as it does for those that a veth leads to; id and path."""
    found: dict[int, str] = {}
    for path in paths:
        try:
            with closing(open_netns(path)) as netns:
                answer = ip.get_netnsid(fd=netns.descriptor)
        except (CniError, OSError):  # gone meanwhile, or something else
            continue
        if answer and answer["nsid"] not in (None, NO_ID):
            found.setdefault(answer["nsid"], path)
    return found


def inside(path: str) -> list[InnerLink]:
    """The links of a namespace. Raises CniError, OSError where it cannot be entered, NetlinkError."""
    # with its netns argument IPRoute would fork, and make what is missing
    with closing(open_netns(path)) as netns, netns, kernel() as ip:
        links = steady(ip.link, "dump")
        addresses = addresses_of(ip)
    return [InnerLink(one["index"], printable(one.get("ifname")), addresses.get(one["index"], ())) for one in links]


def addresses_of(ip: Any) -> dict[int, tuple[str, ...]]:
    """By link, the addresses that others can reach, with prefix length: IPv6's link-local ones are left out."""
    found: dict[int, tuple[str, ...]] = {}
    for one in steady(ip.addr, "dump"):
        if one["scope"] < RT_SCOPE_LINK:
            found[one["index"]] = (*found.get(one["index"], ()), address_of(one))
    return found


def address_of(message: Any) -> str:
    """The address of an RTM_NEWADDR; IFA_ADDRESS alone would be the other end of a point-to-point link."""
    return f"{message.get('local') or message.get('address')}/{message['prefixlen']}"


def printable(text: str | bytes | None) -> str:
    """A name from the kernel or a file, in which anything may stand, as it may be shown."""
    whole = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in whole)
