"""Routes to the peers' CIDRs in the kernel: read them, and make them what one snapshot of the cluster demands.

They have a protocol number and a metric of their own. Any other program's route to the same CIDR stays. If its metric
is lower, as by default, the kernel prefers it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from shared.cluster import tunnel, wireguard
from shared.cluster.model import Address, Alarm, Cidr, Route
from shared.cluster.recall import Memory, Recalling
from shared.cluster.tunnel import PROTOCOL, WITHOUT_IPV6, End, Entries, Tables, kernel_address
from shared.cni.errors import InternalError
from shared.cni.ip import Prefix
from shared.net import addresses, links, tables
from shared.net.messages import next_hops
from shared.net.netlink import Netlink, Request
from shared.net.routes import ANY, RT_TABLE_MAIN, towards
from shared.net.wire import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RTM_DELROUTE,
    RTM_GETADDR,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    RTNH_F_ONLINK,
)

if TYPE_CHECKING:
    from shared.net.netlink import Message

REFUSED = 0  # the link's index of a route that has none: the kernel answers that the destination is unreachable
TYPES = (RTN_UNICAST, RTN_UNREACHABLE)
LOOPBACK = 1  # index, in each namespace; refused routes of IPv6 are on it
METRIC = 2048  # above that of an administrator's routes: 0 for IPv4, 1024 for IPv6
# another route has CIDR and metric; the link is gone, down or has no such neighbour; the address is this node's own
REFUSALS = (
    errno.EEXIST, errno.ENODEV, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL,
    *WITHOUT_IPV6,
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The wanted routes that the kernel does not have, and the errors of tunnels in words."""

    missing: frozenset[Route]
    problems: tuple[str, ...] = ()


class Hop(NamedTuple):
    """A route as the kernel has it."""

    cidr: Cidr
    gateway: Address | None
    link: int  # index, or REFUSED
    metric: int = METRIC


def read(noted: Iterable[Route], memory: Memory | None = None) -> frozenset[Route]:
    """Return this agent's routes in the kernel. The peers' names come from the checkpoint's routes.

    A route with an incomplete tunnel has no MAC, so that it differs from each wanted one. With a memory that is kept
    between calls, only changed entries are decoded.
    """
    host, entries = Recalling(memory), Tables(memory)
    try:
        known = {route.cidr: route for route in noted}
        tunnels = {link["index"]: tunnel.read(entries, link["index"]) for link in tunnel.devices(host).values()}
        device, ways = wireguard.read_routes(host)
        return frozenset(
            _encrypted(hop, known.get(hop.cidr), ways.get(hop.cidr)) if hop.link == device != REFUSED
            else _described(hop, known.get(hop.cidr), tunnels.get(hop.link))
            for hop in _hops(host)
        )  # fmt: skip
    finally:
        host.close()
        entries.close()


def _described(hop: Hop, noted: Route | None, entries: Entries | None) -> Route:
    """Return the route of a hop; the noted one itself if they are equal, so that it is in memory once."""
    via, mac, is_tunnelled = hop.gateway or hop.cidr.network_address, "", entries is not None
    if entries is not None:
        behind = entries.forwarding.get(entries.neighbours.get(via, ""), frozenset())
        if len(behind) == 1:
            (via,), mac = behind, entries.neighbours[via]
    node = noted.node if noted else ""
    found = Route(hop.cidr, node, via, is_tunnelled, mac, is_refused=hop.link == REFUSED)
    return noted if noted == found else found


def _encrypted(hop: Hop, noted: Route | None, way: tuple[str, Address] | None) -> Route:
    """Return an encrypted route; without a key if the device has no complete peer with the CIDR.

    The kernel sends to the address that the peer's last packet came from. So the noted address is as good.
    """
    node = noted.node if noted else ""
    if way is None:
        return Route(hop.cidr, node, hop.cidr.network_address, is_tunnelled=True)
    key, via = way
    return noted if noted and noted.key == key else Route(hop.cidr, node, via, is_tunnelled=True, key=key)


def apply(wanted: Iterable[Route], end: End, memory: Memory | None = None) -> Outcome:
    """Make the kernel have exactly these routes, and the tunnels to their peers.

    The kernel refuses a route if the link to the peer is gone or down. So it does if another program's route has both
    CIDR and metric. A run that is killed leaves a state from which the next one arrives at the same end.
    """
    host, entries = Recalling(memory), Tables(memory)
    try:
        return _apply(host, entries, list(wanted), end)
    finally:
        host.close()
        entries.close()


def _apply(host: Recalling, entries: Tables, wanted: list[Route], end: End) -> Outcome:
    ready: dict[str, int] = {}
    problems = []
    for version in sorted({int(route.via.version) for route in wanted if _uses(route) in tunnel.NAMES.values()}):
        try:
            ready[tunnel.NAMES[version]] = tunnel.ensure(host, end, version)["index"]
        except InternalError as error:
            problems.append(str(error))  # the other family's tunnels, and routes without one, are made
    encryption = None
    try:
        encryption = wireguard.begin(host, wanted, end)
    except InternalError as error:
        problems.append(str(error))
    try:
        if encryption is not None:
            ready[wireguard.NAME] = encryption.index
        missing = _change(host, entries, wanted, ready)
        if encryption is not None:
            encryption.finish()
    finally:
        if encryption is not None:
            encryption.close()
    return Outcome(missing, tuple(problems))


def _change(host: Recalling, entries: Tables, wanted: list[Route], ready: dict[str, int]) -> frozenset[Route]:
    """Make the kernel have these routes and the entries of VXLAN devices. Return the routes that it does not have."""
    exist = {link["index"]: tunnel.NAMES[version] for version, link in tunnel.devices(host).items()}
    plans = [
        tunnel.plan(index, tunnel.read(entries, index), [one for one in wanted if _uses(one) == name])
        for index, name in exist.items()
    ]
    hops = _wanted_hops(host, wanted, ready)
    entries.batch([request for before, _ in plans for request in before])
    have = set(_hops(host))
    kept = _find_kept(host, have, [route for route in wanted if route not in hops])
    is_done = host.change(_changes(have, {*hops.values(), *kept}))
    entries.batch([request for _, after in plans for request in after])
    if not is_done:
        have = set(_hops(host))
        return frozenset(route for route in wanted if hops.get(route) not in have)
    return frozenset(route for route in wanted if route not in hops)


def _find_kept(host: Netlink, have: set[Hop], unready: list[Route]) -> set[Hop]:
    """Return the present ways to the CIDRs of routes that cannot be made now: these stay.

    Of an encrypted route only an encrypted way stays.
    """
    if not unready:
        return set()
    keys = {route.cidr: route.key for route in unready}
    link = links.get(host, wireguard.NAME) if any(keys.values()) else None
    index = link["index"] if link is not None else None
    return {hop for hop in have if hop.cidr in keys and (not keys[hop.cidr] or hop.link == index)}


def _uses(route: Route) -> str:
    """Return the name of the tunnel's device; empty for a route without a tunnel."""
    if route.key:
        return wireguard.NAME
    return tunnel.NAMES[route.via.version] if route.is_tunnelled else ""


def _wanted_hops(host: Netlink, wanted: list[Route], tunnels: dict[str, int]) -> dict[Route, Hop]:
    """Return the kernel's form of each route that has a link, and of the refused ones."""
    found = {}
    networks = _networks(host) if any(not route.is_tunnelled for route in wanted) else []
    for route in wanted:
        gateway: Address | None = route.via
        link: int | None = tunnels.get(_uses(route))
        if route.is_refused:
            link, gateway = REFUSED, None
        elif route.key:
            gateway = None
        elif route.is_tunnelled:
            gateway = tunnel.gateway(route.cidr)
        else:
            link = _link_to(host, route, networks)
        if link is not None:
            found[route] = Hop(route.cidr, gateway, link)
    return found


def _networks(host: Netlink) -> list[tuple[Prefix, int]]:
    """Return the networks on this node's links, the smallest first, each with the link's index."""
    found = [
        (Prefix.parse(f"{message.get('IFA_ADDRESS') or message['IFA_LOCAL']}/{message['prefixlen']}"), message["index"])
        for message in host.dump(RTM_GETADDR)
    ]
    return sorted(found, key=lambda one: -one[0].length)


def _link_to(host: Netlink, route: Route, networks: list[tuple[Prefix, int]]) -> int | None:
    """Return the index of the link to a peer; None if it is on no link, or the CIDR is of the other family."""
    if route.via.version != route.cidr.version:
        return None
    via = kernel_address(route.via)
    for network, index in networks:
        if via in network:
            return index
    found = towards(host, via)  # a network without an address on the link, as clouds have them
    is_on_link = found is not None and found["type"] == RTN_UNICAST and "RTA_GATEWAY" not in found
    return found["RTA_OIF"] if found is not None and is_on_link else None


def _hops(host: Recalling) -> Iterator[Hop]:
    """Yield this agent's routes."""
    for family in addresses.FAMILIES.values():
        like = {"family": family, "table": RT_TABLE_MAIN, "proto": PROTOCOL}
        for hops in host.recall(RTM_GETROUTE, like, _own_hops):
            yield from hops


def _own_hops(message: Message) -> tuple[Hop, ...] | None:
    """Return the hops of a route of this agent."""
    is_own = message["family"] in ANY and message["proto"] == PROTOCOL and message["type"] in TYPES
    if not is_own or tables.of_route(message) != RT_TABLE_MAIN:
        return None
    cidr = ip_network(f"{message.get('RTA_DST', ANY[message['family']])}/{message['dst_len']}")
    metric = message.get("RTA_PRIORITY", 0)
    if message["type"] == RTN_UNREACHABLE:
        return (Hop(cidr, None, REFUSED, metric),)
    hops = next_hops(message["RTA_MULTIPATH"]) if "RTA_MULTIPATH" in message else (message,)
    return tuple(
        Hop(cidr, ip_address(hop["RTA_GATEWAY"]) if "RTA_GATEWAY" in hop else None, hop.get("RTA_OIF", 0), metric)
        for hop in hops
    )


def _changes(have: set[Hop], wanted: set[Hop]) -> list[Request]:
    """Return the requests that turn the routes into the wanted ones; a new next hop comes before the old one goes.

    A CIDR of this agent gets a further route; a new one is refused if another program's route has CIDR and metric.
    """
    known = {hop.cidr for hop in have if hop.metric == METRIC}
    new = list(wanted - have)
    flags = [NLM_F_CREATE | (NLM_F_APPEND if hop.cidr in known else NLM_F_EXCL) for hop in new]
    added = [Request(RTM_NEWROUTE, _new(hop), flag, REFUSALS) for hop, flag in zip(new, flags, strict=True)]
    deleted = [Request(RTM_DELROUTE, _body(hop), 0, (errno.ESRCH,)) for hop in have - wanted]
    return added + deleted


def _new(hop: Hop) -> Message:
    if hop.link == REFUSED:
        return {**_name(hop), "scope": RT_SCOPE_UNIVERSE}
    if hop.gateway is None:
        return {**_name(hop), "scope": RT_SCOPE_LINK, "RTA_OIF": hop.link}
    return {**_body(hop), "scope": RT_SCOPE_UNIVERSE, "flags": RTNH_F_ONLINK}


def _body(hop: Hop) -> Message:
    body = {**_name(hop), "scope": RT_SCOPE_NOWHERE}
    if hop.gateway is not None:
        body["RTA_GATEWAY"] = str(hop.gateway)
    if hop.link != REFUSED:
        body["RTA_OIF"] = hop.link
    elif hop.cidr.version == 6:
        body["RTA_OIF"] = LOOPBACK  # without a link, the kernel would delete any route with CIDR and metric
    return body


def _name(hop: Hop) -> Message:
    """Return the attributes that tell the hop's route from most others."""
    return {
        "family": addresses.FAMILIES[hop.cidr.version], "dst_len": hop.cidr.prefixlen, "table": RT_TABLE_MAIN,
        "proto": PROTOCOL, "type": RTN_UNREACHABLE if hop.link == REFUSED else RTN_UNICAST,
        "RTA_DST": str(hop.cidr.network_address), "RTA_PRIORITY": hop.metric,
    }  # fmt: skip


def crowding(wanted: Iterable[Route], limits: dict[int, int]) -> list[Alarm]:
    """Return an alarm for each family with more peers than the kernel keeps neighbours.

    The permanent entries of tunnels do not count, but a peer's own address on a link does.
    """
    peers = {route.via for route in wanted if not route.is_refused}
    found = []
    for version, limit in sorted(limits.items()):
        number = sum(one.version == version for one in peers)
        if number >= limit:
            key = f"net.ipv{version}.neigh.default.gc_thresh3"
            text = f"{key} is {limit}, and there are {number} peers with IPv{version} addresses: set it to {2 * number}"
            found.append(Alarm("neighbour-table", f"IPv{version}", text))
    return found
