"""Copy and move the routes through a link between routing tables."""

from __future__ import annotations

import errno

from shared.cni.ip import Address, Prefix
from shared.net import addresses, tables
from shared.net.messages import next_hops
from shared.net.netlink import Request
from shared.net.routes import ANY, LAST_SMALL_TABLE
from shared.net.wire import (
    NLM_F_CREATE,
    RT_SCOPE_NOWHERE,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTNH_F_ONLINK,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shared.net.netlink import Message, Netlink

    Key = tuple[Prefix, "Address | None", int]  # destination, gateway, table

COPIED = (
    "family", "dst_len", "tos", "proto", "scope", "type", "RTA_DST", "RTA_OIF", "RTA_GATEWAY", "RTA_PREFSRC",
    "RTA_PRIORITY", "RTA_METRICS", "RTA_VIA",
)  # fmt: skip
PRESENT = (errno.EEXIST,)
FAMILY_BYTES = 2  # of struct rtvia in linux/rtnetlink.h, before the address
MULTICAST = Prefix(Address(6, 0xFF << 120), 8)


def of_link(netlink: Netlink, index: int) -> list[Message]:
    """Return the unicast routes through a link, of all tables but `local`, in an order in which they can be added.

    Leave out link-local and multicast networks. The kernel joins IPv6 routes to one destination through several links:
    the result has the next hop of this one. IPv4 routes with several next hops, and those with an encapsulation, are an
    administrator's, and left out.
    """

    def take(stream: Iterator[Message]) -> list[Message]:
        own = (route for route in stream if route["family"] == family and _is_copied(route))
        return [hop for route in own for hop in _hops(route) if hop.get("RTA_OIF") == index]

    found = []
    for family in addresses.FAMILIES.values():  # a kernel without IPv6 answers with the routes of IPv4
        found += netlink.scan(RTM_GETROUTE, {"family": family, "type": RTN_UNICAST}, take)
    return sorted(found, key=lambda route: gateway(route) is not None)


def _hops(route: Message) -> Iterable[Message]:
    if "RTA_MULTIPATH" not in route:
        return (route,)
    single = {key: value for key, value in route.items() if key != "RTA_MULTIPATH"}
    return [{**single, **hop} for hop in next_hops(route["RTA_MULTIPATH"])] if version(route) == 6 else ()


def _is_copied(route: Message) -> bool:
    network = destination(route)
    is_special = network.address in addresses.LINK_LOCAL or network.address in MULTICAST
    is_plain = route["type"] == RTN_UNICAST and not route["src_len"] and "RTA_ENCAP_TYPE" not in route
    return bool(is_plain and not (network.length and is_special))


def version(route: Message) -> int:
    """Return the family of a route: 4 or 6."""
    return 4 if route["family"] == addresses.FAMILIES[4] else 6


def destination(route: Message) -> Prefix:
    """Return the network to which a route leads."""
    return Prefix(Address.parse(route.get("RTA_DST", ANY[route["family"]])), route["dst_len"])


def gateway(route: Message) -> Address | None:
    """Return a route's gateway, None if it has none. That of an IPv4 route may be an IPv6 address."""
    if "RTA_VIA" in route:
        return Address(6, int.from_bytes(_via(route["RTA_VIA"])[FAMILY_BYTES:], "big"))
    return Address.parse(route["RTA_GATEWAY"]) if "RTA_GATEWAY" in route else None


def _via(value: bytes | str) -> bytes:
    """Return the bytes of RTA_VIA, as the kernel has them or as a record has them."""
    return value if isinstance(value, bytes) else bytes.fromhex(value)


def key(route: Message) -> Key:
    """Return destination, gateway and table of a route."""
    return destination(route), gateway(route), tables.of_route(route)


def add_requests(routes: Iterable[Message], table: int = 0) -> list[Request]:
    """Return requests that add routes, as `of_link` returns them, to `table`, by default to their own.

    Tolerate present ones.
    """
    bodies = [_body(route, table or tables.of_route(route)) for route in routes]
    return [Request(RTM_NEWROUTE, body, NLM_F_CREATE, PRESENT) for body in bodies]


def without_rest(routes: Iterable[Message]) -> list[Message]:
    """Return routes with the members that `add_requests` needs, to be recorded."""
    names = (*COPIED, "table", "RTA_TABLE", "flags")
    short = [{name: route[name] for name in names if name in route} for route in routes]
    return [{**one, "RTA_VIA": _via(one["RTA_VIA"]).hex()} if "RTA_VIA" in one else one for one in short]


def _body(route: Message, table: int) -> Message:
    body = _members(route, COPIED)
    return {**body, **_place(table), "flags": route["flags"] & RTNH_F_ONLINK}


def _members(route: Message, names: Iterable[str]) -> Message:
    body = {name: route[name] for name in names if route.get(name)}
    return {**body, "RTA_VIA": _via(body["RTA_VIA"])} if "RTA_VIA" in body else body


def _place(table: int) -> Message:
    return {"table": table} if table <= LAST_SMALL_TABLE else {"RTA_TABLE": table}


def delete_requests(routes: Iterable[Message], further: Iterable[str] = ()) -> list[Request]:
    """Return requests that delete these routes from their tables. Tolerate absent ones.

    A route that is equal but for the members in `further` stays.
    """
    names = ("family", "dst_len", "tos", "RTA_DST", "RTA_OIF", "RTA_GATEWAY", "RTA_VIA", "RTA_PRIORITY", *further)
    bodies = [{**_members(route, names), **_place(tables.of_route(route))} for route in routes]
    return [Request(RTM_DELROUTE, {**body, "scope": RT_SCOPE_NOWHERE}, 0, (errno.ESRCH,)) for body in bodies]
