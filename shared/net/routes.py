"""Build, look up and test routes."""

from __future__ import annotations

import errno

from shared.cni.ip import Address, Prefix
from shared.net.addresses import FAMILIES
from shared.net.messages import next_hops
from shared.net.netlink import NetlinkError, Request
from shared.net.wire import (
    AF_INET,
    AF_INET6,
    NLM_F_CREATE,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_LOCAL,
    RTN_UNICAST,
    RTPROT_BOOT,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.cni.result import Route
    from shared.net.netlink import Message, Netlink

    Wanted = tuple[Prefix, Address | None]  # destination and gateway

ANY = {AF_INET: "0.0.0.0", AF_INET6: "::"}  # noqa: S104  (the destination of a default route)
RT_TABLE_MAIN = 254  # linux/rtnetlink.h
# no route, or a route of a type such as unreachable, blackhole or prohibit
UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES)
LAST_SMALL_TABLE = 255  # the header's table field is one byte; RTA_TABLE takes larger numbers


def add_request(index: int, route: Route, gateway: Address | None) -> Request:
    """Return a request that adds a route through a link, via `gateway` if the route has none of its own.

    A route that its scope restricts to the link or the host gets none. Leave out NLM_F_EXCL, as the reference does: a
    second gateway to a destination becomes another next hop.
    """
    extra = route.extra
    via = route.gw or (gateway if extra.get("scope", RT_SCOPE_UNIVERSE) < RT_SCOPE_LINK else None)
    default_scope = RT_SCOPE_LINK if via is None and route.dst.version == 4 else RT_SCOPE_UNIVERSE
    table = extra.get("table", RT_TABLE_MAIN)
    body: Message = {
        "family": FAMILIES[route.dst.version],
        "dst_len": route.dst.length,
        "table": table if table <= LAST_SMALL_TABLE else 0,
        "proto": RTPROT_BOOT,
        "scope": extra.get("scope", default_scope),
        "type": RTN_UNICAST,
        "RTA_OIF": index,
    }
    if route.dst.length:
        body["RTA_DST"] = str(route.dst.first)
    if via is not None:
        body["RTA_GATEWAY"] = str(via)
    if table > LAST_SMALL_TABLE:
        body["RTA_TABLE"] = table
    if "priority" in extra:
        body["RTA_PRIORITY"] = extra["priority"]
    metrics = {name: extra[key] for key, name in (("mtu", "RTAX_MTU"), ("advmss", "RTAX_ADVMSS")) if extra.get(key)}
    if metrics:
        body["RTA_METRICS"] = metrics
    return Request(RTM_NEWROUTE, body, NLM_F_CREATE)


def found(netlink: Netlink, index: int, wanted: set[Wanted]) -> set[Wanted]:
    """Return the wanted routes that go through a link, in any table. A gateway of None matches any gateway.

    A pod's tables may be large: only the result stays in memory. The kernel joins two IPv6 routes to one destination
    through different links into one route with two next hops. Linux before 4.20 does not filter the dump.
    """
    destinations = {(str(dst.first), dst.length) for dst, _ in wanted}

    def take(stream: Iterator[Message]) -> set[Wanted]:
        present = set()
        for message in stream:
            first = message.get("RTA_DST", ANY[message["family"]])
            if message["type"] != RTN_UNICAST or (first, message["dst_len"]) not in destinations:
                continue
            dst = Prefix(Address.parse(first), message["dst_len"])
            for hop in next_hops(message["RTA_MULTIPATH"]) if "RTA_MULTIPATH" in message else (message,):
                if hop.get("RTA_OIF") == index:
                    gateway = Address.parse(hop["RTA_GATEWAY"]) if "RTA_GATEWAY" in hop else None
                    present.update(wanted & {(dst, gateway), (dst, None)})
        return present

    families = {FAMILIES[dst.version] for dst, _ in wanted}
    like = {"type": RTN_UNICAST, "RTA_OIF": index}
    return {one for family in families for one in netlink.scan(RTM_GETROUTE, {"family": family, **like}, take)}


def has_gateway(netlink: Netlink, index: int) -> bool:
    """Return True if any table has a unicast route through a link with a gateway."""

    def take(stream: Iterator[Message]) -> bool:
        hops = (
            hop
            for message in stream
            if message["type"] == RTN_UNICAST
            for hop in (next_hops(message["RTA_MULTIPATH"]) if "RTA_MULTIPATH" in message else (message,))
        )
        return any(hop.get("RTA_OIF") == index and "RTA_GATEWAY" in hop for hop in hops)

    like = {"type": RTN_UNICAST, "RTA_OIF": index}
    return any(netlink.scan(RTM_GETROUTE, {"family": family, **like}, take) for family in FAMILIES.values())


def towards(netlink: Netlink, address: Address, link: int = 0) -> Message | None:
    """Return the host's route to an address, through `link` if it is set; None if there is none."""
    message: Message = {"family": FAMILIES[address.version], "dst_len": address.bits, "RTA_DST": str(address)}
    if link:  # The link may belong to a VRF, which has its own routes.
        message["RTA_OIF"] = link
    try:
        return netlink.get(RTM_GETROUTE, message)
    except NetlinkError as error:
        if error.errno in UNREACHABLE:
            return None
        raise


def is_local(netlink: Netlink, address: Address, link: int = 0) -> bool:
    """Return True if an address is local to this host, as nf_tables' `fib daddr type local`; or to `link`."""
    route = towards(netlink, address, link)
    return route is not None and route["type"] == RTN_LOCAL
