"""The versions of the CNI specification, and the conversion of results between them."""

from __future__ import annotations

from shared.cni.errors import DecodingFailure, IncompatibleVersion
from shared.cni.ip import Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
# By module: the first version that a plugin supports, if it does not support all.
FIRST = {"plugins.bandwidth": "0.3.0", "plugins.firewall": "0.4.0", "plugins.vrf": "0.3.1"}
CURRENT = SUPPORTED[-1]
REFERENCE = "1.9.1"  # the release of the reference plugins whose keys the plugins have

INTERFACE_KEYS_1_1 = ("mtu", "socketPath", "pciID")
ROUTE_KEYS_1_1 = ("mtu", "advmss", "priority", "table", "scope")


def of_plugin(module: str) -> tuple[str, ...]:
    """Return the versions that a plugin supports."""
    return SUPPORTED[SUPPORTED.index(FIRST[module]) :] if module in FIRST else SUPPORTED


def at_least(version: str, least: str) -> bool:
    """Return True if a supported version is `least` or later."""
    return SUPPORTED.index(version) >= SUPPORTED.index(least)


def lower_case(raw: Json) -> Json:
    """Return members under lower-case names, since Go matches any case; an exact name wins."""
    return {**{key.lower(): value for key, value in raw.items()}, **{key: raw[key] for key in raw if key.islower()}}


def upgrade(result: Json, version: str) -> Json:
    """Convert a result of any version, with lower-case names, to 1.1.0. Raise DecodingFailure."""
    if version not in SUPPORTED:
        raise DecodingFailure(f"a result has cniVersion {version!r}, which is not known")
    if at_least(version, "0.3.0"):
        return {**result, "cniVersion": CURRENT}
    ips: list[Json] = []
    routes: list[Json] = []
    for key in ("ip4", "ip6"):
        config = result.get(key)
        if config is None:
            continue
        config = lower_case(config) if isinstance(config, dict) else {}
        if not isinstance(config.get("ip"), str):
            raise DecodingFailure(f'a result of version {version} has no address in "{key}"')
        ip = {"address": config["ip"]}
        if config.get("gateway"):
            ip["gateway"] = config["gateway"]
        ips.append(ip)
        more = config.get("routes") or []
        if not isinstance(more, list):
            raise DecodingFailure(f'a result of version {version} has routes in "{key}" that are not a list')
        routes += more
    return {"cniVersion": CURRENT, "ips": ips, "routes": routes, "dns": result.get("dns") or {}}


def downgrade(result: Json, version: str) -> Json:
    """Convert a result of version 1.1.0 to an earlier version.

    Raise IncompatibleVersion if that version cannot express it: 0.1.0 and 0.2.0 need an address.
    """
    if not at_least(version, "0.3.0"):
        return _downgrade_0_2(result, version)
    out = {**result, "cniVersion": version}
    if not at_least(version, "1.1.0"):
        out["interfaces"] = [_without(interface, INTERFACE_KEYS_1_1) for interface in result.get("interfaces", ())]
        out["routes"] = [_without(route, ROUTE_KEYS_1_1) for route in result.get("routes", ())]
    if not at_least(version, "1.0.0"):
        out["ips"] = [{"version": str(_family(ip["address"])), **ip} for ip in result.get("ips", ())]
    return {key: value for key, value in out.items() if value or key in ("cniVersion", "dns")}


def _downgrade_0_2(result: Json, version: str) -> Json:
    out: Json = {"cniVersion": version}
    for ip in result.get("ips", ()):
        key = f"ip{_family(ip['address'])}"
        if key not in out:
            out[key] = {"ip": ip["address"], **({"gateway": ip["gateway"]} if ip.get("gateway") else {})}
    if len(out) == 1:
        raise IncompatibleVersion(f"a result of version {version} needs an address, and this one has none")
    for route in result.get("routes", ()):
        config = out.get(f"ip{_family(route['dst'])}")
        if config is not None:
            config.setdefault("routes", []).append({key: route[key] for key in ("dst", "gw") if route.get(key)})
    out["dns"] = result.get("dns") or {}
    return out


def _without(member: Json, keys: tuple[str, ...]) -> Json:
    return {key: value for key, value in member.items() if key not in keys}


def _family(cidr: str) -> int:
    return Prefix.parse(cidr).version
