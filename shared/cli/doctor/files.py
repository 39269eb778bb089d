"""Read the files of runtimes and IPAM plugins: libcni's cache of results, host-local's leases."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from netaddr import IPNetwork

from ipam.host_local.lease import Lease
from shared.cli.doctor.links import Mark
from shared.cni.versions import SUPPORTED, upgrade

CACHE_KIND = "cniCacheV1"
RT_TABLE_MAIN = 254  # linux/rtnetlink.h


@dataclass(frozen=True)
class Remembered:
    """An attachment in the runtime's cache."""

    mark: Mark
    netns: str
    path: Path
    addresses: tuple[IPNetwork, ...]
    gateways: tuple[IPNetwork, ...]
    routes: tuple[tuple[IPNetwork, str], ...]  # of the main table: destination, gateway

    @property
    def name(self) -> str:
        """Return its name for findings."""
        return " ".join(self.mark)


@dataclass(frozen=True)
class Store:
    """A directory of host-local and its leases; an empty or garbled lease is None."""

    path: Path
    network: str
    leases: dict[str, Lease | None]


def entries(directory: Path) -> list[Path]:
    """Return the entries of a directory in order, without hidden files; none if it does not exist."""
    try:
        return sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []


def read_result(path: Path) -> Remembered:
    """Read a file of libcni's cache.

    Raise any exception that its content leads to.
    """
    raw = json.loads(path.read_bytes())
    if raw.get("kind") != CACHE_KIND:
        raise ValueError(f"its kind is {raw.get('kind')!r}, not {CACHE_KIND!r}")
    json.loads(base64.b64decode(raw["config"], validate=True))
    result = raw.get("result") or {}
    if "ips" not in result and result.get("cniVersion") in SUPPORTED:
        result = upgrade(result, result["cniVersion"])
    ips = result.get("ips") or []
    networks = [IPNetwork(ip["address"]) for ip in ips]
    gateways = [
        IPNetwork(f"{ip['gateway']}/{network.prefixlen}")
        for ip, network in zip(ips, networks, strict=True)
        if ip.get("gateway")
    ]
    routes = [
        (IPNetwork(route["dst"]), str(route.get("gw") or ""))
        for route in result.get("routes") or ()
        if route.get("table") in (None, RT_TABLE_MAIN)
    ]
    mark = (str(raw["networkName"]), str(raw["containerId"]), str(raw["ifName"]))
    # libcni before 1.2 writes the namespace into the result only.
    inside = [one.get("sandbox") for one in result.get("interfaces") or () if one.get("name") == mark[2]]
    netns = next(filter(None, [raw.get("netns"), *inside]), "")
    return Remembered(mark, str(netns), path, tuple(networks), tuple(gateways), tuple(routes))
