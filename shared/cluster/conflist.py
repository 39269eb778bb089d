"""Write a network's conflist: the administrator's template, and in it the ranges of this node.

The template is a conflist in which one plugin has an `ipam` of type host-local without ranges. The agent fills in:

    ipam.ranges          of that plugin: one range set for each family
    mtu                  of that plugin, if it is "auto" or absent
    nonMasqueradeCIDRs   of each plugin with ipMasq: the pools
    severalGateways      of a bridge that is the gateway: each block has a gateway of its own

Nothing removes the file. Without a range, the network has an empty list: ADD and STATUS fail, and DEL works.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from shared.cluster import files
from shared.cluster.model import Address, Cidr, Kind, Pool, Range
from shared.cni.call import folded
from shared.cni.errors import InvalidConfig

HOST_LOCAL = "host-local"
DATA_DIR = "/var/lib/cni/networks"  # host-local's default
AUTO = "auto"


class InvalidTemplate(InvalidConfig):
    """The template cannot be used; the message names the file, the key, and the requirement."""


@dataclass(frozen=True)
class Template:
    """A template that was read and checked."""

    path: Path
    raw: dict[str, Any]
    plugin: int  # the place of the plugin that gets the ranges

    @property
    def data_dir(self) -> str:
        """Return host-local's directory of leases, in which each network has one of its name."""
        return str(folded(_ipam(self.raw["plugins"][self.plugin]), "dataDir") or DATA_DIR)


def read(path: Path, network: str) -> Template:
    """Return the template of a network. Raise InvalidTemplate."""
    try:
        raw = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise InvalidTemplate(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidTemplate(f"{path}: not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidTemplate(f"{path}: a JSON object is required")
    if raw.get("name") != network:
        raise InvalidTemplate(f"{path}: name: must be the pool's name {network!r}, not {raw.get('name')!r}")
    plugins = raw.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise InvalidTemplate(f"{path}: plugins: a list of at least one plugin is required")
    for number, plugin in enumerate(plugins):
        if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str):
            raise InvalidTemplate(f"{path}: plugins[{number}]: an object with a type is required")
        _check(path, f"plugins[{number}]", plugin)
    return Template(path, raw, _find_plugin(path, plugins))


def _check(path: Path, key: str, plugin: dict[str, Any]) -> None:
    mtu, exempt = folded(plugin, "mtu"), folded(plugin, "nonMasqueradeCIDRs")
    if mtu is not None and mtu != AUTO and (not isinstance(mtu, int) or isinstance(mtu, bool)):
        raise InvalidTemplate(f'{path}: {key}.mtu: a number of bytes or "{AUTO}" is required, not {mtu!r}')
    if exempt is not None and not (isinstance(exempt, list) and all(isinstance(one, str) for one in exempt)):
        raise InvalidTemplate(f"{path}: {key}.nonMasqueradeCIDRs: a list of networks is required, not {exempt!r}")
    data_dir = folded(_ipam(plugin), "dataDir")
    if data_dir is not None and not (isinstance(data_dir, str) and data_dir.startswith("/")):
        raise InvalidTemplate(f"{path}: {key}.ipam.dataDir: an absolute path is required, not {data_dir!r}")


def _find_plugin(path: Path, plugins: list[dict[str, Any]]) -> int:
    """Return the place of the one plugin that has an `ipam` of type host-local. It must have no ranges.

    The ranges of a second one would look like blocks of this node, and its leases would be counted in their place.
    """
    local = [number for number, one in enumerate(plugins) if folded(_ipam(one), "type") == HOST_LOCAL]
    if not local:
        raise InvalidTemplate(f"{path}: plugins: one with an ipam of type {HOST_LOCAL} is required")
    if len(local) > 1:
        raise InvalidTemplate(
            f"{path}: plugins[{local[1]}].ipam: must be of another type than {HOST_LOCAL}, because the ranges of the"
            f" cluster are for one plugin, which is plugins[{local[0]}]"
        )
    for key in ("ranges", "subnet"):
        if _has(plugins[local[0]], key):
            raise InvalidTemplate(
                f"{path}: plugins[{local[0]}].ipam.{key}: must be absent, because the agent fills in this node's ranges"
            )
    return local[0]


def _has(plugin: dict[str, Any], key: str) -> bool:
    return bool(folded(_ipam(plugin), key))


def _ipam(plugin: dict[str, Any]) -> dict[str, Any]:
    found = folded(plugin, "ipam")
    return found if isinstance(found, dict) else {}


def exempt(pools: Iterable[Pool]) -> tuple[Cidr, ...]:
    """Return the networks to which pods' packets keep their source: all pods of the cluster."""
    return tuple(one.cidr for pool in pools if pool.kind is Kind.ROUTED for one in pool.ranges)


def render(template: Template, pool: Pool, cidrs: Iterable[Cidr], *, mtu: int, unmasqueraded: Sequence[Cidr]) -> str:
    """Return the conflist with these CIDRs, those to lease from first at the front of their family.

    `mtu` is in bytes, 0 if it is the kernel's own choice. Raise InvalidTemplate if a block is outside of the pool.
    """
    raw = json.loads(json.dumps(template.raw))  # a copy
    plugin = raw["plugins"][template.plugin]
    _set(_ipam(plugin), "ranges", _range_sets(template, pool, list(cidrs)))
    if folded(plugin, "mtu") in (None, AUTO):
        _set(plugin, "mtu", mtu or None)
    is_gateway = folded(plugin, "isGateway") is True or folded(plugin, "isDefaultGateway") is True
    if plugin["type"] == "bridge" and is_gateway and folded(plugin, "severalGateways") is None:
        _set(plugin, "severalGateways", pool.kind is Kind.ROUTED or None)
    for one in raw["plugins"]:
        if folded(one, "ipMasq") is True:
            known = folded(one, "nonMasqueradeCIDRs") or []
            _set(one, "nonMasqueradeCIDRs", list(dict.fromkeys([*known, *map(str, unmasqueraded)])))
    return json.dumps(raw, indent=2) + "\n"


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a key, in place of one that differs in case alone; remove it if the value is None."""
    for other in [one for one in raw if one.lower() == key.lower()]:
        del raw[other]
    if value is not None:
        raw[key] = value


def _range_sets(template: Template, pool: Pool, cidrs: list[Cidr]) -> list[list[dict[str, str]]]:
    """Return one range set for each family. IPv4 comes first, so that the sets keep their numbers."""
    families = ([one for one in cidrs if one.version == version] for version in (4, 6))
    return [[_range(template, pool, one) for one in family] for family in families if family]


def _range(template: Template, pool: Pool, cidr: Cidr) -> dict[str, str]:
    if pool.kind is Kind.ROUTED:
        return {"subnet": str(cidr)}
    whole = next((one for one in pool.ranges if _is_inside(cidr, one)), None)
    if whole is None:
        raise InvalidTemplate(f"{template.path}: block {cidr} is in no range of pool {pool.network}")
    subnet = whole.cidr
    first, last = cidr.network_address, cidr.broadcast_address
    start = first + 1 if first == subnet.network_address else first
    end = last - 1 if last == subnet.broadcast_address and subnet.version == 4 else last
    found = {"subnet": str(subnet), "rangeStart": str(start), "rangeEnd": str(end)}
    return {**found, "gateway": str(whole.gateway)} if whole.gateway else found


def _is_inside(cidr: Cidr, whole: Range) -> bool:
    return cidr.version == whole.cidr.version and cidr.network_address in whole.cidr


def publish(
    template: Template, target: Path, pool: Pool, cidrs: Iterable[Cidr], *, mtu: int, unmasqueraded: Sequence[Cidr]
) -> bool:
    """Write the conflist if it differs. Return False if it does not. Raise InvalidTemplate, IOFailure.

    Write no file without a range: a runtime takes a network that it finds for usable.
    """
    wanted = list(cidrs)
    text = render(template, pool, wanted, mtu=mtu, unmasqueraded=unmasqueraded)
    try:
        if target.read_text(encoding="utf-8", errors="replace") == text:
            return False
    except FileNotFoundError:
        if not wanted:
            return False
    except OSError:
        pass  # writing tells the reason
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write(target, text)
    return True


def withdraw(target: Path, cidrs: Iterable[Cidr]) -> bool:
    """Remove all ranges but these from a published conflist. Return False if it has no others. Raise IOFailure."""
    kept = set(cidrs)
    try:
        raw = json.loads(target.read_bytes())
        if set(cidrs_in(raw)) <= kept:
            return False
        for plugin in raw["plugins"]:
            ipam = _ipam(plugin)
            if folded(ipam, "type") == HOST_LOCAL and folded(ipam, "ranges"):
                sets = [[one for one in entries if _leased(one) in kept] for entries in folded(ipam, "ranges")]
                _set(ipam, "ranges", [entries for entries in sets if entries])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False  # no ADD can use it
    files.write(target, json.dumps(raw, indent=2) + "\n")
    return True


def published(target: Path) -> tuple[Cidr, ...]:
    """Return the CIDRs from which ADDs lease now, in the file's order; none if it is missing or garbled."""
    try:
        raw = json.loads(target.read_bytes())
        return tuple(cidrs_in(raw))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ()


def data_dir(target: Path) -> str | None:
    """Return the directory of leases that a published conflist names; None if it is missing or garbled."""
    try:
        raw = json.loads(target.read_bytes())
        local = [
            ipam
            for one in raw["plugins"]
            if folded(ipam := _ipam(one), "type") == HOST_LOCAL and folded(ipam, "ranges")
        ]
        return str(folded(local[0], "dataDir") or DATA_DIR)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return None


def mtu(target: Path) -> int:
    """Return the MTU in bytes that a published conflist names; 0 if it names none, is missing or garbled."""
    try:
        plugins = json.loads(target.read_bytes())["plugins"]
        found = next(folded(one, "mtu") for one in plugins if folded(_ipam(one), "type") == HOST_LOCAL)
        return found if isinstance(found, int) else 0
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration, RecursionError):
        return 0


def cidrs_in(raw: dict[str, Any]) -> Iterator[Cidr]:
    """Yield the CIDRs from which a conflist leases. Raise KeyError, TypeError or ValueError if it is garbled."""
    for plugin in raw["plugins"]:
        ipam = _ipam(plugin)
        for one in folded(ipam, "ranges") or () if folded(ipam, "type") == HOST_LOCAL else ():
            for entry in one:
                yield _leased(entry)


def _leased(entry: dict[str, Any]) -> Cidr:
    """Return the CIDR that a range leases from."""
    if "rangeStart" in entry:
        return _spanning(ip_address(entry["rangeStart"]), ip_address(entry["rangeEnd"]))
    found: Cidr = ip_network(entry["subnet"])
    return found


def _spanning(start: Address, end: Address) -> Cidr:
    """Return the smallest network with both addresses: the block of a segment's range."""
    bits = (int(start) ^ int(end)).bit_length()
    found: Cidr = ip_network((int(start) >> bits << bits, start.max_prefixlen - bits))
    return found
