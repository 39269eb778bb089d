"""Look at the node's pod networks without changing anything and without taking a lock.

Each property is read once for a Node, when a check first asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path

from netaddr import AddrFormatError
from pyroute2 import IPRoute

from ipam.host_local.store import SIDECAR
from shared.cli.doctor.files import Remembered, Store, entries, read_result
from shared.cli.doctor.links import Identity, Link, Mark, Pod, Wire, links_here, routes_here
from shared.cli.doctor.network import Network
from shared.cli.leases import inhabited
from shared.cli.leases.traces import read_leases
from shared.cni.errors import CniError
from shared.net.links import leads_to_pod
from shared.net.netlink import Netlink
from shared.net.netns import OWN, open_netns
from shared.net.owner import Owner
from shared.net.wire import RTM_GETLINK
from shared.runtime import presence
from shared.runtime.cache import Unreadable
from shared.runtime.conflist import ConfigError, load

NO_NSID = 0xFFFFFFFF  # NETNSA_NSID_NOT_ASSIGNED of linux/net_namespace.h


class Node:
    """The node at the time of the look."""

    def __init__(self, conf_dir: Path, bin_dirs: Sequence[Path], state_dir: Path) -> None:
        self.conf_dir, self.bin_dirs, self.state_dir = conf_dir, bin_dirs, state_dir

    # -- files

    @cached_property
    def _configurations(self) -> tuple[list[Network], list[str], ConfigError | None]:
        complaints: list[str] = []
        try:
            networks = [Network(config) for config in load(self.conf_dir, complaints.append)]
        except ConfigError as reason:
            return [], complaints, reason
        return networks, complaints, None

    @property
    def networks(self) -> list[Network]:
        """Return the valid configurations in the order of their files."""
        return self._configurations[0]

    @property
    def complaints(self) -> list[str]:
        """Return a complaint about each invalid file; each begins with the path."""
        return self._configurations[1]

    @property
    def no_network(self) -> ConfigError | None:
        """Return the reason if there is no valid configuration, or None."""
        return self._configurations[2]

    def network(self, name: str) -> Network | None:
        """Return the configuration of this name, or None."""
        return next((network for network in self.networks if network.name == name), None)

    @cached_property
    def data_dirs(self) -> list[Path]:
        """Return the directories where host-local keeps leases: its default, and those in configurations."""
        named = [pool.store.data_dir for network in self.networks for pool in network.pools]
        return list(map(Path, dict.fromkeys([str(self.state_dir / "networks"), *named])))

    @cached_property
    def stores(self) -> list[Store]:
        """Return host-local's directories with their leases, also of networks without a configuration."""
        return [
            Store(entry, entry.name, dict(read_leases(entry)))
            for data_dir in self.data_dirs
            for entry in entries(data_dir)
            if entry.name != SIDECAR and entry.is_dir() and not entry.is_symlink()
        ]

    @cached_property
    def _cache(self) -> tuple[list[Remembered], dict[Path, str]]:
        found, unreadable = [], {}
        for path in entries(self.state_dir / "results"):
            try:
                found.append(read_result(path))
            except FileNotFoundError:  # deleted in the meantime
                continue
            except (CniError, OSError, ValueError, KeyError, TypeError, AttributeError, AddrFormatError) as reason:
                unreadable[path] = f"{type(reason).__name__}: {reason}"
        return found, unreadable

    @property
    def remembered(self) -> list[Remembered]:
        """Return the attachments in the runtime's cache."""
        return self._cache[0]

    @property
    def unreadable(self) -> dict[Path, str]:
        """Return the files of the cache that cannot be read, each with the reason."""
        return self._cache[1]

    # -- kernel

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Return the host's links."""
        return links_here()

    def link(self, name: str) -> Link | None:
        """Return the host's link of this name, or None."""
        return next((link for link in self.links if link.name == name), None)

    def link_at(self, index: int | None) -> Link | None:
        """Return the host's link of this index, or None."""
        return next((link for link in self.links if link.index == index), None)

    @cached_property
    def pods(self) -> dict[Identity, Pod]:
        """Return the network namespaces that have a name, a mount or a process, or are in the cache."""
        paths: dict[Identity, str] = {}
        for path in (*(entry.netns for entry in self.remembered), *inhabited.paths()):
            identity = inhabited.identity(path)
            if identity and identity != inhabited.identity(OWN):
                paths.setdefault(identity, path)
        found = {}
        destinations = {destination for entry in self.remembered for destination, _gateway in entry.routes}
        with IPRoute() as host:
            for identity, path in paths.items():
                try:
                    netns = open_netns(path)
                except CniError:  # deleted in the meantime, or not a namespace
                    continue
                try:
                    nsid = host.get_netnsid(fd=netns.descriptor)["nsid"]
                    with netns:
                        found[identity] = Pod(path, identity, nsid, links_here(), routes_here(destinations))
                finally:
                    os.close(netns.descriptor)
                    os.close(netns.home)
        return found

    def pod(self, entry: Remembered) -> Pod | None:
        """Return the pod of an attachment, None if its namespace is gone."""
        identity = inhabited.identity(entry.netns)
        return self.pods.get(identity) if identity else None

    @cached_property
    def alive(self) -> dict[Mark, Remembered]:
        """Return the cached attachments with an existing namespace."""
        return {entry.mark: entry for entry in self.remembered if self.pod(entry)}

    @cached_property
    def leading(self) -> set[str]:
        """Return the names of the host's links that lead to a pod."""
        with closing(Netlink()) as host:
            return {link["IFLA_IFNAME"] for link in host.dump(RTM_GETLINK) if leads_to_pod(host, link)}

    def is_certainly_gone(self, mark: Mark) -> bool:
        """Return False if an attachment's namespace or host link exists, or if its cache entry is unclear."""
        network, container_id, ifname = mark
        ports = [link.name for link in self.links if link.mark == mark]
        if not self.leading.isdisjoint((Owner(*mark).host_link, *ports)):
            return False
        mine = (container_id, ifname) if ifname else (container_id,)
        if any(key[: len(mine)] == mine for path in self.unreadable for key in Unreadable(path, "").keys(network)):
            return False
        own = [one for one in self.remembered if one.mark[: len(mine) + 1] == (network, *mine)]
        return all(presence.of_namespace(one.netns) == presence.GONE for one in own)

    @cached_property
    def wires(self) -> list[Wire]:
        """Return the veth pairs between the host and its pods."""
        by_nsid = {pod.nsid: pod for pod in self.pods.values() if pod.nsid != NO_NSID}
        marks = {(pod.identity, entry.mark[2]): entry.mark for entry in self.remembered if (pod := self.pod(entry))}
        found = []
        for port in self.links:
            pod = by_nsid.get(port.peer_nsid) if port.kind == "veth" and port.peer_nsid is not None else None
            inside = next((link for link in pod.links if link.index == port.peer), None) if pod else None
            if pod and inside:
                found.append(Wire(port, pod, inside, port.mark or marks.get((pod.identity, inside.name))))
        return found

    def wires_of(self, network: Network) -> list[Wire]:
        """Return the veth pairs of a network's pods."""
        return [wire for wire in self.wires if wire.network == network.name]
