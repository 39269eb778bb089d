"""Read the content of a lease: addresses, routes, DNS settings, MTU, in the terms of a CNI result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pyroute2.dhcp.enums.dhcp import Option

from shared.cni.ip import Address, Prefix
from shared.cni.result import IP, Result, Route
from shared.cni.versions import CURRENT
from shared.net.wire import RT_SCOPE_LINK

LEAST_MTU = 68  # bytes; RFC 2132, section 5.1, and the kernel
LEAST_LENGTH = 8  # bits of a netmask; a shorter one would lead all traffic to the link
LONGEST_NAME = 255  # of a domain; RFC 1035, section 2.3.4
NAME_SERVERS_IPV6, DOMAIN_SEARCH_IPV6 = 23, 24  # options of DHCPv6
CLASS_LENGTHS = ((0x80, 8), (0xC0, 16), (0xE0, 24))  # first bytes below the first number have that prefix length


@dataclass
class Content:
    """The parts of a lease that a pod gets."""

    address: Prefix
    gateway: Address | None = None
    routes: list[Route] = field(default_factory=list)
    dns: dict[str, Any] = field(default_factory=dict)
    mtu: int = 0

    def on_link(self) -> tuple[str, list[dict[str, Any]]]:
        """Return the parts that are on the pod's link, comparable with ==."""
        return str(self.address), [route.to_json() for route in self.routes]


def to_json(contents: Iterable[Content], dns: dict[str, Any]) -> dict[str, Any]:
    """Return the result of the plugin's ADD, of all its leases, with further DNS settings."""
    result = Result()
    for one in contents:
        result.ips.append(IP(one.address, one.gateway))
        result.routes += one.routes
        result.dns = _merge(result.dns, one.dns)
    result.dns = _merge(result.dns, dns)
    return result.to_json(CURRENT)


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the DNS settings of two servers: each list with the members of both."""
    lists = {
        name: list(dict.fromkeys([*first.get(name, ()), *second.get(name, ())])) for name in ("nameservers", "search")
    }
    return {name: value for name, value in {**second, **first, **lists}.items() if value}


def read_ipv6(address: str, raw: dict[int, bytes]) -> Content:
    """Return the content of a DHCPv6 lease. Routes come from routers, not from the server."""
    return Content(Prefix(Address.parse(address), 128), dns=dns_ipv6(raw))


def dns_ipv6(raw: dict[int, bytes]) -> dict[str, Any]:
    """Return the DNS settings of a DHCPv6 server (RFC 3646)."""
    servers = raw.get(NAME_SERVERS_IPV6, b"")
    packed = [servers[place : place + 16] for place in range(0, len(servers) - 15, 16)]
    dns: dict[str, Any] = {
        "nameservers": [str(Address(6, int.from_bytes(one, "big"))) for one in packed],
        "search": _domains(raw.get(DOMAIN_SEARCH_IPV6, b"")),
    }
    return {name: value for name, value in dns.items() if value}


def read(
    address: str, raw: dict[int, bytes], used: Iterable[int], *, priority: int | None, without_gateway: bool
) -> Content:
    """Return the content of a lease, of the options in `used`, and of the netmask in any case.

    Raises ValueError for an address or a netmask that no pod can use. Other garbled options count as missing.
    """
    options = {number: value for number, value in raw.items() if number in {*used, Option.SUBNET_MASK}}
    own = Address.parse(address)
    mask = options.get(Option.SUBNET_MASK, b"")
    if len(mask) != 4:
        raise ValueError("no subnet mask (option 1)")
    length = f"{int.from_bytes(mask, 'big'):032b}".rstrip("0")
    prefix = Prefix(own, len(length))
    is_unicast = own.value and own.value >> 28 < 0xE and own.value >> 24 != 127
    is_host = prefix.length > 30 or own not in (prefix.first, prefix.last)
    if "0" in length or len(length) < LEAST_LENGTH or not is_unicast or not is_host:
        raise ValueError(f"{address} with the mask {_dotted(mask)} is no address of a host")
    content = Content(prefix)
    content.routes = list(_routes(options, without_gateway=without_gateway))
    default = next((route for route in content.routes if not route.dst.length), None)
    content.gateway = default.gw if default else None
    if priority is not None:
        for route in content.routes:
            route.extra["priority"] = priority
    content.dns = _dns(options)
    content.mtu = int.from_bytes(options.get(Option.INTERFACE_MTU, b""), "big")
    content.mtu = content.mtu if content.mtu >= LEAST_MTU else 0
    return content


def _dotted(data: bytes) -> str:
    return ".".join(map(str, data))


def _routes(options: dict[int, bytes], *, without_gateway: bool) -> Iterator[Route]:
    """Yield the routes. Option 121 excludes 33 and 3 (RFC 3442)."""
    classless = _classless(options.get(Option.CLASSLESS_STATIC_ROUTE, b""))
    found = classless or [*_classful(options.get(Option.STATIC_ROUTE, b"")), *_default(options)]
    for route in found:
        if route.dst.length or not without_gateway:
            yield route


def _default(options: dict[int, bytes]) -> list[Route]:
    routers = options.get(Option.ROUTER, b"")
    return [_route(bytes(4), 0, routers[:4])] if len(routers) >= 4 else []


def _route(destination: bytes, length: int, router: bytes) -> Route:
    """Return a route; the router 0.0.0.0 means that the destination is on the link."""
    dst = Prefix(Address(4, int.from_bytes(destination, "big")), length).network
    if any(router):
        return Route(dst, Address(4, int.from_bytes(router, "big")))
    return Route(dst, None, {"scope": RT_SCOPE_LINK})


def _classless(data: bytes) -> list[Route]:
    """Return the routes of option 121, none if it is garbled."""
    routes = []
    while data:
        length = data[0]
        size = (length + 7) // 8
        if length > 32 or len(data) < 1 + size + 4:
            return []
        routes.append(_route(data[1 : 1 + size].ljust(4, b"\0"), length, data[1 + size : 5 + size]))
        data = data[5 + size :]
    return routes


def _classful(data: bytes) -> Iterator[Route]:
    """Yield the routes of option 33. RFC 2132 forbids a default route there."""
    for place in range(0, len(data) - 7, 8):
        destination, router = data[place : place + 4], data[place + 4 : place + 8]
        length = next((length for below, length in CLASS_LENGTHS if destination[0] < below), 32)
        if any(destination):
            yield _route(destination, length, router)


def _dns(options: dict[int, bytes]) -> dict[str, Any]:
    servers = options.get(Option.NAME_SERVER, b"")
    dns: dict[str, Any] = {
        "nameservers": [_dotted(servers[place : place + 4]) for place in range(0, len(servers) - 3, 4)],
        "domain": _text(options.get(Option.DOMAIN_NAME, b"")),
        "search": _domains(options.get(Option.DOMAIN_SEARCH, b"")),
    }
    return {name: value for name, value in dns.items() if value}


def _text(data: bytes) -> str:
    """Return a domain; empty if it has characters that no domain has."""
    text = data.rstrip(b"\0").decode("ascii", errors="replace")
    return text if len(text) <= LONGEST_NAME and all(char.isalnum() or char in "-_." for char in text) else ""


def _domains(data: bytes) -> list[str]:
    """Return the domains of option 119 (RFC 3397); those before a garbled one."""
    domains: list[str] = []
    place = 0
    while place < len(data):
        labels, following, at = [], 0, place
        while at < len(data) and data[at]:
            if data[at] >= 0xC0:  # a pointer to an earlier label
                target = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
                following, at = following or at + 2, target if target < at else len(data)
            else:
                labels.append(data[at + 1 : at + 1 + data[at]])
                at += 1 + data[at]
            if len(labels) > LONGEST_NAME // 2:
                return domains
        name = _text(b".".join(labels))
        if at >= len(data) or not name:
            break
        domains.append(name)
        place = following or at + 1
    return domains
