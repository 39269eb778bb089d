"""The result of an ADD (specification, "ADD Success"), in the terms of version 1.1.0."""

from __future__ import annotations

from shared.cni import versions
from shared.cni.errors import DecodingFailure
from shared.cni.ip import Address, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]


U8, U32 = 255, 2**32 - 1  # the largest values of the kernel's types
DNS_KEYS = ("nameservers", "domain", "search", "options")


class Interface:
    """A link; `sandbox` is the path of the network namespace, empty for the host's."""

    def __init__(self, name: str, mac: str = "", sandbox: str = "", mtu: int = 0, extra: Json | None = None) -> None:
        self.name = name
        self.mac = mac
        self.sandbox = sandbox
        self.mtu = mtu
        self.extra = extra or {}

    def to_json(self) -> Json:
        """Return the members as version 1.1.0 writes them, without empty ones."""
        out: Json = {"name": self.name}
        if self.mac:
            out["mac"] = self.mac
        if self.mtu:
            out["mtu"] = self.mtu
        if self.sandbox:
            out["sandbox"] = self.sandbox
        return {**out, **self.extra}


class IP:
    """An address with its prefix length, the gateway of its network, and the index of its interface."""

    def __init__(self, address: Prefix, gateway: Address | None = None, interface: int | None = None) -> None:
        self.address = address
        self.gateway = gateway
        self.interface = interface

    def to_json(self) -> Json:
        """Return the members as version 1.1.0 writes them."""
        out: Json = {} if self.interface is None else {"interface": self.interface}
        out["address"] = str(self.address)
        if self.gateway:
            out["gateway"] = str(self.gateway)
        return out


class Route:
    """A destination, the gateway to it, and what 1.1.0 added: mtu and advmss in bytes, priority, table, scope."""

    def __init__(self, dst: Prefix, gw: Address | None = None, extra: dict[str, int] | None = None) -> None:
        self.dst = dst
        self.gw = gw
        self.extra = extra or {}

    def to_json(self) -> Json:
        """Return the members as version 1.1.0 writes them."""
        out: Json = {"dst": str(self.dst)}
        if self.gw:
            out["gw"] = str(self.gw)
        return {**out, **self.extra}


class Result:
    """Interfaces, addresses, routes and DNS settings of an attachment."""

    def __init__(self) -> None:
        self.interfaces: list[Interface] = []
        self.ips: list[IP] = []
        self.routes: list[Route] = []
        self.dns: Json = {}
        self.keeps_advertisements = False  # the IPAM plugin has set how the link takes router advertisements

    def to_json(self, version: str) -> Json:
        """Return the result in the form of a version. Raise IncompatibleVersion if it has none."""
        out: Json = {"cniVersion": versions.CURRENT}
        for key, members in (("interfaces", self.interfaces), ("ips", self.ips), ("routes", self.routes)):
            if members:
                out[key] = [member.to_json() for member in members]
        out["dns"] = self.dns
        return out if version == versions.CURRENT else versions.downgrade(out, version)

    def after(self, before: Result) -> Result:
        """Return the result of the list so far: that of the plugins `before`, then this one."""
        for ip in self.ips:
            if ip.interface is not None:
                ip.interface += len(before.interfaces)
        before.interfaces += self.interfaces
        before.ips += self.ips
        before.routes += self.routes
        before.dns = self.dns or before.dns
        return before

    @classmethod
    def from_json(cls, raw: Any, version: str, what: str = "result") -> Result:
        """Read a result of any version. Raise DecodingFailure naming the member that is wrong.

        `version` counts for a result that does not name its own.
        """
        if not isinstance(raw, dict):
            raise DecodingFailure(f"the {what} is not a JSON object")
        raw = versions.lower_case(raw)
        own = raw.get("cniversion")
        raw = versions.upgrade(raw, version if own in (None, "") else own)
        result = cls()
        try:
            result.interfaces = [_interface(member) for member in _list(raw, "interfaces")]
            result.ips = [_ip(member) for member in _list(raw, "ips")]
            result.routes = [route_from_json(member) for member in _list(raw, "routes")]
            result.dns = dns_from_json(raw.get("dns"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DecodingFailure(f"the {what} cannot be read", f"{type(error).__name__}: {error}") from None
        for ip in result.ips:
            if ip.interface is not None and not 0 <= ip.interface < len(result.interfaces):
                if (
                    not result.interfaces
                ):  # results of IPAM plugins have no interfaces; the calling plugin sets the index
                    ip.interface = None
                    continue
                raise DecodingFailure(f"the {what} has an address on interface {ip.interface}, which it does not list")
        return result


def _list(raw: Json, key: str) -> list[Json]:
    members = raw.get(key)
    if members is None:
        return []
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise ValueError(f'"{key}" is not a list of objects')
    return members


def _interface(raw: Json) -> Interface:
    raw = versions.lower_case(raw)
    name, mac, sandbox = (raw.get(key) for key in ("name", "mac", "sandbox"))
    if not all(member is None or isinstance(member, str) for member in (name, mac, sandbox)):
        raise ValueError("an interface's name, mac and sandbox must be strings")
    extra = {key: raw[key.lower()] for key in ("socketPath", "pciID") if raw.get(key.lower())}
    return Interface(name or "", mac or "", sandbox or "", _number(raw, "mtu", U32) or 0, extra)


def _ip(raw: Json) -> IP:
    raw = versions.lower_case(raw)
    return IP(
        Prefix.parse(raw["address"]), _optional_address(raw.get("gateway")), _number(raw, "interface", U32, least=-U32)
    )


def route_from_json(raw: Json) -> Route:
    """Read a route of a result or of an IPAM configuration. Raise ValueError or KeyError."""
    raw = versions.lower_case(raw)
    numbers = {key: _number(raw, key, U8 if key == "scope" else U32) for key in versions.ROUTE_KEYS_1_1}
    extra = {key: value for key, value in numbers.items() if value is not None}
    return Route(Prefix.parse(raw["dst"]), _optional_address(raw.get("gw")), extra)


def routes_from_config(key: str, raws: list[Json]) -> list[Route]:
    """Read the routes of an IPAM configuration. Raise InvalidConfig that names the element of `key`."""
    routes = []
    for number, raw in enumerate(raws):
        try:
            routes.append(route_from_json(raw))
        except (ValueError, KeyError, TypeError):
            from shared.cni.config import invalid

            reason = 'must have "dst" in CIDR notation and "gw" an address'
            raise invalid(f"{key}[{number}]", raw, reason) from None
    return routes


def dns_from_json(raw: Any) -> Json:
    """Read DNS settings, without null and empty members. Raise ValueError."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ValueError('"dns" is not an object')
    raw = versions.lower_case(raw)
    dns: Json = {}
    for key in DNS_KEYS:
        value = raw.get(key)
        if value is None:
            continue
        if key == "domain" and not isinstance(value, str):
            raise ValueError('"dns.domain" is not a string')
        if key != "domain" and not (isinstance(value, list) and all(isinstance(member, str) for member in value)):
            raise ValueError(f'"dns.{key}" is not a list of strings')
        if value:
            dns[key] = value
    return dns


def _number(raw: Json, key: str, most: int, least: int = 0) -> int | None:
    value = raw.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most):
        raise ValueError(f'"{key}" must be a whole number from {max(least, 0)} to {most}')
    return value


def _optional_address(text: Any) -> Address | None:
    return Address.parse(text) if text else None
