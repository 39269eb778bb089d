"""Read a node's pod network from the kernel, the pods' namespaces and the runtime's cached results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Self

from shared.cli.view.namespaces import (
    KernelLink,
    View,
    named_paths,
    open_kernel,
    paths_by_id,
    printable,
    read_dump,
    view,
    view_inside,
)
from shared.cli.view.topology import ON_MASTERS, Bridge, Master, Node, Pod, Port, Traffic, Uplink
from shared.cni.errors import CniError
from shared.runtime import presence
from shared.runtime.cache import Cache, Cached

IFLA_STATS_LINK_64 = 0x1  # a bit of the filter, linux/if_link.h

WORDS = {"tun": "tap", "": "device"}  # for kinds of links

Counters = Mapping[int, tuple[int, int]]
Advance = Callable[[int, int], None]
Key = tuple[str, str, str]  # network, container id, ifname


def read_node(network: str, seconds: float, cache: Cache, advance: Advance) -> Node:
    """Return the node's current pod network, of one network or of all if `network` is empty.

    Measure traffic for `seconds`. `advance` receives the number of inspected pods and the total. Raise CacheError, or
    OSError if the kernel refuses.
    """
    with open_kernel() as ip:
        host, gateways = view(ip), _read_gateways(ip)
        started, before = time.monotonic(), _read_counters(ip)
        pods = Pods.read(ip, cache)
        behind = _find_pods(host.links, pods, advance)
        after = before
        if seconds:
            time.sleep(max(0.0, seconds - (time.monotonic() - started)))
            seconds, after = time.monotonic() - started, _read_counters(ip)
    survey = Survey(host, _traffic(before, after, seconds), behind)
    on_masters = pods.on_masters(host.links)
    node = Node(
        host=printable(os.uname().nodename),
        time=datetime.now().astimezone().isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        network=network,
        uplinks=survey.uplinks(gateways),
        bridges=survey.bridges(),
        masters=survey.masters(on_masters),
        unbridged=survey.unbridged(),
        unlinked=pods.without_link(),
    )
    return _limit_to(node, network) if network else node


class Survey:
    """Combine the host's links, addresses, traffic and pods."""

    def __init__(self, host: View, traffic: Mapping[int, Traffic], behind: Mapping[int, Pod | None]) -> None:
        self.links, self.addresses, self.traffic, self.behind = host.links, host.addresses, traffic, behind

    def uplinks(self, gateways: Mapping[int, list[str]]) -> tuple[Uplink, ...]:
        """Return the links with default routes."""
        return tuple(
            Uplink(**self._facts(self.links[index]), gateways=tuple(via))
            for index, via in gateways.items()
            if index in self.links
        )

    def bridges(self) -> tuple[Bridge, ...]:
        """Return all bridges with all their ports."""
        ports: dict[int, list[Port]] = {}
        for index in self.behind:
            link = self.links[index]
            if is_port(link, self.links) and link.master is not None:
                ports.setdefault(link.master, []).append(self._port(link))
        return tuple(
            Bridge(**self._facts(link), ports=tuple(ports.get(link.index, ())))
            for link in self.links.values()
            if link.kind == "bridge"
        )

    def masters(self, on_masters: Mapping[int, list[Port]]) -> tuple[Master, ...]:
        """Return the links below pods' links."""
        return tuple(
            Master(**self._facts(self.links[index]), ports=tuple(ports)) for index, ports in on_masters.items()
        )

    def unbridged(self) -> tuple[Port, ...]:
        """Return the pods' links that are not ports of a bridge."""
        mine = (self.links[index] for index in self.behind)
        return tuple(self._port(link) for link in mine if not is_port(link, self.links))

    def _port(self, link: KernelLink) -> Port:
        pod, facts = self.behind[link.index], self._facts(link)
        if pod and facts["traffic"]:  # the host sends what the pod receives
            facts["traffic"] = Traffic(facts["traffic"].sent, facts["traffic"].received)
        peer = self.links.get(link.peer) if link.peer is not None and link.netnsid is None else None
        return Port(**facts, pod=pod, peer=peer.name if peer else "")

    def _facts(self, link: KernelLink) -> dict[str, Any]:
        return {
            "name": link.name,
            "kind": link.kind,
            "state": link.state,
            "mtu": link.mtu,
            "mac": link.mac,
            "addresses": self.addresses.get(link.index, ()),
            "traffic": self.traffic.get(link.index),
        }


class Pods:
    """Find the pod behind a link by its alias, the kernel's ids of namespaces, and the cached results."""

    def __init__(self, paths: dict[int, str], entries: Iterable[Cached]) -> None:
        self.paths = paths
        self.entries: dict[Key, Cached] = {}
        self.by_host_end: dict[str, Key] = {}
        self.by_place: dict[tuple[tuple[int, int] | str, str], Key] = {}
        for entry in entries:
            mine = entry.attachment
            key = (entry.network, mine.container_id, mine.ifname)
            self.entries[key] = entry
            self.by_host_end.update(dict.fromkeys(host_ends(entry), key))
            self.by_place[identity(mine.netns), mine.ifname] = key
        self.reached: set[Key] = set()

    @classmethod
    def read(cls, ip: Any, cache: Cache, *, assigns: bool = False) -> Self:
        """Read all namespaces and cached results. With `assigns` give ids to the namespaces. Raise CacheError."""
        entries = [entry for entry in cache.attachments() if entry.attachment.ifname != "lo"]
        paths = [*named_paths(), *(entry.attachment.netns for entry in entries)]
        return cls(paths_by_id(ip, paths, assigns=assigns), entries)

    def knows(self, link: KernelLink) -> bool:
        """Return True if the link leads to a pod, without looking into the pod.

        An ifb is no such link: it only delays a pod's packets.
        """
        if link.kind == "ifb":
            return False
        return link.owner is not None or (link.kind != "bridge" and link.name in self.by_host_end)

    def behind(self, link: KernelLink) -> Pod | None:
        """Return the pod at the link's other end, None if it leads to none."""
        if link.netnsid is None and not self.knows(link):
            return None
        path = self.paths.get(link.netnsid, "") if link.netnsid is not None else ""
        inner = _view_inside(path)
        there = inner.links.get(link.peer) if inner and link.peer is not None else None
        pod = self.owner(link, path, there.name if there else "")
        if inner and there:
            addresses = inner.addresses.get(there.index, ())
            vrf = there.vrf_in(inner.links)
            pod = replace(pod, addresses=addresses, addresses_from="namespace", ifname=there.name, vrf=vrf)
        return replace(pod, netns=printable(path) or pod.netns)

    def owner(self, link: KernelLink, path: str, ifname: str) -> Pod:
        """Return the attachment of a link, from the alias or the cache; `ifname` is in the namespace at `path`."""
        return self._known(link, link.owner or self.by_host_end.get(link.name) or self._at(path, ifname))

    def owner_inside(self, link: KernelLink, path: str) -> Pod | None:
        """Return the attachment of a link in the pod's namespace at `path`, None if it is not known."""
        key = link.owner or self._at(path, link.name)
        return self._known(link, key) if key else None

    def _at(self, path: str, ifname: str) -> Key | None:
        place = identity(path)
        key = self.by_place.get((place, ifname))
        # the kernel gives the numbers of a deleted namespace to another one
        return key if key and identity(self.entries[key].attachment.netns) == place else None

    def _known(self, link: KernelLink, key: Key | None) -> Pod:
        if key is None:
            return Pod()
        self.reached.add(key)
        entry = self.entries.get(key)
        pod = from_cache(entry) if entry else Pod()
        if link.owner is None:
            return pod
        network, container_id, ifname = link.owner
        return replace(pod, network=network, container_id=container_id, ifname=ifname, owner_from="alias")

    def on_masters(self, links: Mapping[int, KernelLink]) -> dict[int, list[Port]]:
        """Return the pods' links that were made on links of the host, by the index of that one."""
        found: dict[int, list[Port]] = {}
        paths = [*named_paths(), *(entry.attachment.netns for entry in self.entries.values())]
        for path in {identity(path): path for path in reversed(paths)}.values():
            inner = _view_inside(path)
            if inner is None or inner.host is None:
                continue
            for link in inner.links.values():
                below = links.get(link.peer or 0)
                if below and link.kind in ON_MASTERS and link.netnsid == inner.host:
                    found.setdefault(below.index, []).append(self._on_master(link, path, inner))
        return found

    def _on_master(self, link: KernelLink, path: str, inner: View) -> Port:
        addresses = inner.addresses.get(link.index, ())
        pod = replace(
            self.owner_inside(link, path) or Pod(), addresses=addresses, addresses_from="namespace",
            netns=printable(path), ifname=link.name, vrf=link.vrf_in(inner.links),
        )  # fmt: skip
        return Port(
            name=link.name, kind=link.kind, vlan=link.vlan, state=link.state, mtu=link.mtu, mac=link.mac, pod=pod
        )

    def without_link(self) -> tuple[Pod, ...]:
        """Return the cached attachments without a link on the host: their plugin creates none, or it is gone."""
        return tuple(self._inside(entry) for key, entry in self.entries.items() if key not in self.reached)

    @staticmethod
    def _inside(entry: Cached) -> Pod:
        pod, inner = from_cache(entry), _view_inside(entry.attachment.netns)
        if inner is None:
            return replace(pod, gone=presence.of_namespace(entry.attachment.netns) == presence.GONE)
        for index, link in inner.links.items():
            if link.name == entry.attachment.ifname:
                return replace(
                    pod, addresses=inner.addresses.get(index, ()), addresses_from="namespace",
                    vrf=link.vrf_in(inner.links), link=WORDS.get(link.kind, link.kind), state=link.state,
                )  # fmt: skip
        return replace(pod, state="missing")


def host_ends(entry: Cached) -> list[str]:
    """Return the names of the host links in a cached result; links of the pod have a sandbox."""
    return [printable(one.get("name")) for one in _objects(entry, "interfaces") if not one.get("sandbox")]


def from_cache(entry: Cached) -> Pod:
    """Return the cached facts of an attachment, with the addresses of its ADD."""
    mine, result = entry.attachment, entry.result or {}
    addresses = [one.get("address") for one in _objects(entry, "ips")]
    addresses += [one.get("ip") for key in ("ip4", "ip6") if isinstance(one := result.get(key), dict)]  # before 0.3.0
    return Pod(
        network=printable(entry.network),
        container_id=printable(mine.container_id),
        ifname=printable(mine.ifname),
        namespace=printable(mine.cni_args.get("K8S_POD_NAMESPACE")),
        name=printable(mine.cni_args.get("K8S_POD_NAME")),
        netns=printable(mine.netns),
        addresses=tuple(printable(address) for address in addresses if address),
        owner_from="cache",
        addresses_from="cache" if any(addresses) else "",
    )


def _objects(entry: Cached, key: str) -> list[dict[str, Any]]:
    """Return the objects of a list in a cached result, which may contain anything."""
    found = (entry.result or {}).get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def is_port(link: KernelLink, links: Mapping[int, KernelLink]) -> bool:
    """Return True if the link is a port of a bridge."""
    master = links.get(link.master) if link.master is not None else None
    return master is not None and master.kind == "bridge"


def _find_pods(links: Mapping[int, KernelLink], pods: Pods, advance: Advance) -> dict[int, Pod | None]:
    """Return the pod, or None, behind each port and each link of a pod, by index."""
    mine = [link for link in links.values() if is_port(link, links) or pods.knows(link)]
    found = {}
    for done, link in enumerate(mine):
        advance(done, len(mine))
        found[link.index] = pods.behind(link)
    return found


def _view_inside(path: str) -> View | None:
    """Return a namespace's links and addresses, None if it is gone or cannot be entered."""
    try:
        return view_inside(path) if path else None
    except (CniError, OSError):  # NetlinkError is an OSError
        return None


def identity(path: str) -> tuple[int, int] | str:
    """Return a value that is equal for paths of the same namespace."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return path
    return status.st_dev, status.st_ino


def _read_gateways(ip: Any) -> dict[int, list[str]]:
    """Return the gateways of the main table's default routes by link; a link without a gateway has none."""
    found: dict[int, list[str]] = {}
    for route in read_dump(ip.get_default_routes):
        for hop in route.get("multipath") or [route]:
            index = hop.get("oif")
            if index is None:
                continue
            gateways = found.setdefault(index, [])
            via = hop.get("gateway") or (hop.get("via") or {}).get("addr")
            if via and via not in gateways:
                gateways.append(via)
    return found


def _read_counters(ip: Any) -> Counters:
    """Return the bytes received and sent by link."""
    found = {}
    for message in read_dump(ip.stats, "dump", filter_mask=IFLA_STATS_LINK_64):
        counted = message.get("IFLA_STATS_LINK_64")
        if counted:
            found[message["ifindex"]] = (counted["rx_bytes"], counted["tx_bytes"])
    return found


def _traffic(before: Counters, after: Counters, seconds: float) -> dict[int, Traffic]:
    """Return the traffic per second, or the totals if no time passed. Omit links that did not exist throughout."""
    if not seconds:
        return {index: Traffic(*counted) for index, counted in after.items()}
    return {
        index: Traffic(*(max(0, now - then) / seconds for now, then in zip(after[index], counted, strict=True)))
        for index, counted in before.items()
        if index in after
    }


def _limit_to(node: Node, network: str) -> Node:
    """Return the part of the node that belongs to one network."""

    def mine(ports: Iterable[Port]) -> tuple[Port, ...]:
        return tuple(port for port in ports if port.pod and port.pod.network == network)

    bridges = (replace(bridge, ports=mine(bridge.ports)) for bridge in node.bridges)
    masters = (replace(master, ports=mine(master.ports)) for master in node.masters)
    return replace(
        node,
        bridges=tuple(bridge for bridge in bridges if bridge.ports),
        masters=tuple(master for master in masters if master.ports),
        unbridged=mine(node.unbridged),
        unlinked=tuple(pod for pod in node.unlinked if pod.network == network),
    )
