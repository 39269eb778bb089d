"""Copy the part of a node's state that affects an ADD into a throw-away host."""

from __future__ import annotations

import importlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from shared.cli import throwaway
from shared.cni.call import folded
from shared.executables import PLUGINS
from shared.net import sysctl
from shared.net.netns import Netns, open_netns
from shared.net.wire import IFA_F_NODAD, IFF_LOOPBACK, IFF_LOWER_UP, IFF_POINTOPOINT, IFF_PROMISC, IFF_UP
from shared.runtime.conflist import NetworkConfigList

Node = dict[str, Any]

HIDDEN = (Path("/run"), Path("/var/lib/cni"))
DATA_DIR = "/var/lib/cni/networks"  # host-local's default
SIDECAR = ".pycni"
OUTSIDE = Path("/run/outside")  # the namespace that holds the other ends of stand-in links
HOST_SYSCTLS = (
    *("ipv4/ip_forward", "ipv6/conf/all/forwarding"),  # first, because they change others
    *("ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6", "ipv6/conf/default/accept_ra"),
    *("ipv4/conf/all/route_localnet", "ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"),
)
LARGEST_MTU = 65535  # bytes; of bridges and veth pairs
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
LINK_SYSCTLS = ("ipv6/conf/{}/disable_ipv6", "ipv6/conf/{}/accept_ra", "ipv4/conf/{}/route_localnet")


# -- the network


def read_node() -> Node:
    """Return the node's links, addresses, default routes and relevant sysctls, as JSON values."""
    with IPRoute() as ip:
        found = ip.get_links()
        names = {link["index"]: link.get("ifname") for link in found}
        links = {
            link["index"]: _read_link(link, names)
            for link in found
            if not link["flags"] & (IFF_LOOPBACK | IFF_POINTOPOINT)
        }
        for address in ip.get_addr():
            if address["index"] in links:
                text = f"{address.get('local') or address.get('address')}/{address['prefixlen']}"
                links[address["index"]]["addresses"].append(text)
        routes = [
            {
                "via": route.get("gateway"),
                "metric": route.get("priority"),
                "link": names[route.get("oif")],
                "proto": route["proto"],
            }
            for route in ip.get_default_routes()
            if route.get("oif") in links
        ]
    wanted = [form.format(link["name"]) for link in links.values() for form in LINK_SYSCTLS]
    sysctls = {name: sysctl.read(name) for name in (*HOST_SYSCTLS, *wanted)}
    return {"links": list(links.values()), "routes": routes, "sysctls": sysctls}


def _read_link(link: Any, names: dict[int, str]) -> dict[str, Any]:
    is_bridge = link.get(("linkinfo", "kind")) == "bridge"
    is_pair_here = link.get(("linkinfo", "kind")) == "veth" and link.get("link_netnsid") is None
    return {
        "name": link.get("ifname"),
        "is_bridge": is_bridge,
        "peer": names.get(link.get("link")) if is_pair_here else None,
        "filters_vlans": bool(is_bridge and link.get(("linkinfo", "data", "br_vlan_filtering"))),
        "default_vlan": link.get(("linkinfo", "data", "br_vlan_default_pvid")) if is_bridge else None,
        "mtu": min(link.get("mtu"), LARGEST_MTU),
        "mac": link.get("address"),
        "alias": link.get("ifalias"),
        "master": names.get(link.get("master")),
        "flags": link["flags"] & (IFF_UP | IFF_PROMISC),
        "has_carrier": bool(link["flags"] & IFF_LOWER_UP),
        "addresses": [],
        "alternative_names": list(properties.altnames()) if (properties := link.get("prop_list")) else [],
    }


def recreate(node: Node) -> None:
    """Create the same links, addresses, routes and sysctls in the thread's namespace.

    Bridges and veth pairs keep their type; every other link is replaced by one end of a veth pair.
    """
    throwaway.new_netns(OUTSIDE)
    outside = open_netns(str(OUTSIDE))
    _set_sysctls(node, HOST_SYSCTLS)
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
        of_pairs: set[str] = set()
        for number, link in enumerate(node["links"]):
            if link["name"] in of_pairs:
                continue
            vlans = {"br_vlan_filtering": 1, "br_vlan_default_pvid": link["default_vlan"]}
            kind: dict[str, Any] = {"kind": "bridge"} | (vlans if link["filters_vlans"] else {})
            if not link["is_bridge"]:
                far = {"ifname": f"outside{number}", "net_ns_fd": outside.descriptor}
                kind = {"kind": "veth", "peer": {"ifname": link["peer"]} if link["peer"] else far}
                of_pairs.add(link["peer"])
            mac = {"address": link["mac"]} if MAC.fullmatch(link["mac"] or "") else {}
            ip.link("add", ifname=link["name"], mtu=link["mtu"], **mac, **kind)
        for link in node["links"]:
            index = ip.link_lookup(ifname=link["name"])[0]
            if link["name"] in of_pairs:
                ip.link("set", index=index, mtu=link["mtu"], address=link["mac"])
            for name in link["alternative_names"]:
                ip.link("property_add", index=index, altname=name)
        indexes = {link.get("ifname"): link["index"] for link in ip.get_links()}
        bridges = {link["name"] for link in node["links"] if link["is_bridge"]}
        for link in node["links"]:
            _set_sysctls(node, (form.format(link["name"]) for form in LINK_SYSCTLS))
            master = indexes[link["master"]] if link["master"] in bridges else None
            _set_link(ip, link, indexes[link["name"]], master)
        for route in node["routes"]:
            _set_default_route(ip, indexes[route["link"]], route["via"], route["metric"], route["proto"])
    _give_carrier(outside, node)


def _give_carrier(outside: Netns, node: Node) -> None:
    """Set the other ends of stand-ins up whose links have carrier: plugins wait for it."""
    with outside, IPRoute() as ip:
        for number, link in enumerate(node["links"]):
            for index in ip.link_lookup(ifname=f"outside{number}") if link["has_carrier"] else ():
                ip.link("set", index=index, state="up")


def _set_link(ip: IPRoute, link: Mapping[str, Any], index: int, master: int | None) -> None:
    """Set a link's master, flags, alias and addresses."""
    others = {name: value for name, value in (("ifalias", link["alias"]), ("master", master)) if value}
    ip.link("set", index=index, flags=link["flags"], change=IFF_UP | IFF_PROMISC, **others)
    for text in link["addresses"]:
        address, _, length = text.partition("/")
        how = {"flags": IFA_F_NODAD} if ":" in address else {}
        ip.addr("replace", index=index, address=address, prefixlen=int(length), **how)


def _set_default_route(ip: IPRoute, index: int, via: str | None, metric: int | None, proto: int) -> None:
    """Add a default route, which tells plugins the uplink. Skip it if the gateway is not on the link."""
    others = {name: value for name, value in (("gateway", via), ("priority", metric), ("proto", proto)) if value}
    with suppress(NetlinkError):
        ip.route("add", dst="::/0" if via and ":" in via else "0.0.0.0/0", oif=index, **others)


def _set_sysctls(node: Node, names: Iterable[str]) -> None:
    for name in names:
        value = node["sysctls"].get(name)
        if value is not None:
            sysctl.ensure(name, value)


# -- the files


class Kept:
    """A file, directory or symbolic link, held in memory while a tmpfs replaces its directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = path.lstat()
        self.mode, self.modified, self.inode = found.st_mode, found.st_mtime_ns, found.st_ino
        self.content = b""
        if stat.S_ISLNK(self.mode):
            self.content = os.fsencode(path.readlink())
        elif stat.S_ISREG(self.mode):
            self.content = path.read_bytes()

    def restore(self) -> None:
        """Create it again. Skip other types of files."""
        if stat.S_ISDIR(self.mode):
            self.path.mkdir(exist_ok=True)
        elif stat.S_ISLNK(self.mode):
            self.path.symlink_to(os.fsdecode(self.content))
        elif stat.S_ISREG(self.mode):
            self.path.write_bytes(self.content)
        if stat.S_ISDIR(self.mode) or stat.S_ISREG(self.mode):
            self.path.chmod(stat.S_IMODE(self.mode))


def hide_files(network: NetworkConfigList, needed: Iterable[Path]) -> list[str]:
    """Mount a private tmpfs over the directories of plugins' state, and copy the network's leases into it.

    Return the directories that are writable then. A directory that did not exist still does not, but can be created.
    Raise Failure if a `needed` path would be hidden.
    """
    ipams = [ipam for plugin in network.plugins if isinstance(ipam := folded(dict(plugin), "ipam"), dict)]
    data_dirs = {
        Path(str(folded(ipam, "dataDir") or DATA_DIR)) for ipam in ipams if folded(ipam, "type") == "host-local"
    }
    data_dirs = {path for path in data_dirs if path.is_absolute()}  # the plugin rejects relative paths
    tops = [*HIDDEN, *(path for path in sorted(data_dirs) if not any(path.is_relative_to(top) for top in HIDDEN))]
    throwaway.expect_visible(needed, tops)
    kept = {entry.path: entry for path in data_dirs for entry in _lease_files(path, network.name, tops)}
    for ipam in ipams:
        file = Path(str(folded(ipam, "resolvConf") or "/")).resolve()
        if file.is_file() and any(file.is_relative_to(top) for top in tops):
            kept |= {entry.path: entry for entry in _with_parents(file, tops)}
    throwaway.protect()
    for top in tops:
        _hide(top)
    for entry in kept.values():
        entry.restore()
    _seal_copies(entry for entry in kept.values() if entry.path.parent in data_dirs)
    return [str(top) for top in tops]


def _hide(top: Path) -> None:
    if top.is_dir():
        throwaway.hide(top)
        return
    throwaway.make_creatable(top)


def _lease_files(data_dir: Path, network: str, tops: list[Path]) -> Iterator[Kept]:
    """Return the entries of a network's host-local store, and the directories above them."""
    for place in (data_dir / network, data_dir / SIDECAR / network):
        yield from _with_parents(place, tops)
        if place.is_dir():
            for entry in place.iterdir():
                with suppress(FileNotFoundError):  # a lease may be deleted in the meantime
                    yield Kept(entry)


def _with_parents(path: Path, tops: list[Path]) -> Iterator[Kept]:
    """Return the path and its parents below a hidden directory, as far as they exist."""
    for place in (*reversed(path.parents), path):
        if any(place != top and place.is_relative_to(top) for top in tops) and os.path.lexists(place):
            yield Kept(place)


def _seal_copies(directories: Iterable[Kept]) -> None:
    """Seal the copied store if the original was sealed.

    The seal marks host-local's index as complete; it is a date that depends on the directory's inode number.
    """
    store = importlib.import_module(PLUGINS["host-local"] + ".store")
    for kept in directories:
        if stat.S_ISDIR(kept.mode) and kept.modified == store.seal_time(kept.inode):
            sealed = store.seal_time(kept.path.stat().st_ino)
            os.utime(kept.path, ns=(sealed, sealed))
