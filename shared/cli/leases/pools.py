"""Read host-local's pools and leases on this node, and find leases that are certainly dead.

Leases are read without the store's lock, so that no call waits. Before a lease is released it is read again with the
lock.
"""

from __future__ import annotations

import os
import posix
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netaddr import IPRange, IPSet
from pyroute2 import IPRoute

from ipam.host_local import IpamConfig
from ipam.host_local.files import READ_ONLY_DIRECTORY
from ipam.host_local.index import Index
from ipam.host_local.lease import Lease
from ipam.host_local.ranges import RangeSet
from ipam.host_local.store import SIDECAR, Store
from shared.cli.config import reading
from shared.cli.leases.inhabited import Namespaces
from shared.cni.errors import CniError
from shared.cni.ip import Address
from shared.cni.names import is_name
from shared.net.owner import Owner
from shared.runtime.attachment import Attachment
from shared.runtime.cache import Cache, Cached, CacheError
from shared.runtime.conflist import NetworkConfigList
from shared.runtime.presence import ALIVE, GONE, UNKNOWN, of_namespace

DATA_DIR: str = IpamConfig.fields["dataDir"].default
UP, DOWN = "up", "down"


class Look(Store):
    """A store that is only read: lock, create, rebuild and delete nothing."""

    def _open(self) -> None:
        self.directory = posix.open(self.path, READ_ONLY_DIRECTORY)
        try:
            self.index = Index(posix.open(f"{self.data_dir}/{SIDECAR}/{self.network}", READ_ONLY_DIRECTORY))
        except OSError:
            self.index = Index()  # the reference has no index


@dataclass(frozen=True)
class Usage:
    """A range set, its number of addresses without gateways, and the number of leased ones."""

    ranges: str
    size: int
    used: int

    @property
    def free(self) -> int:
        """Return the number of addresses without a lease."""
        return self.size - self.used


@dataclass(frozen=True)
class Held:
    """A lease, its age and the state of its pod.

    `lease` is None for an empty or garbled file. `made` is in seconds since 1970. `dead` is the reason why nobody can
    use the address any more, empty if somebody may.
    """

    address: str
    lease: Lease | None
    made: float
    netns: str = ""
    netns_state: str = UNKNOWN
    link: str = ""
    link_state: str = UNKNOWN
    dead: str = ""

    @property
    def is_in_use(self) -> bool:
        """Return True if the pod is known to exist."""
        return self.netns_state == ALIVE or self.link_state in (UP, DOWN)


@dataclass
class Pool:
    """The leases of a network in one directory, and the range sets if a configuration has any for it."""

    network: str
    data_dir: str
    configuration: Path | None = None
    trouble: str = ""
    sets: list[RangeSet] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Return the directory of the leases."""
        return f"{self.data_dir}/{self.network}"

    def usage(self) -> list[Usage]:
        """Return the usage of each range set.

        Empty and garbled files count as used, since the reference never reuses them.
        """
        taken = IPSet(held.address for held in self.held)
        given = [(str(one), addresses(one)) for one in self.sets]
        return [Usage(ranges, every.size, (every & taken).size) for ranges, every in given]


def addresses(entry: RangeSet) -> IPSet:
    """Return the addresses that a range set can assign."""
    ranges = IPSet(IPRange(str(one.start), str(one.end)) for one in entry.ranges)
    return ranges - IPSet(str(one.gateway) for one in entry.ranges)


def pools(networks: Iterable[NetworkConfigList]) -> list[Pool]:
    """Return the pools of the configurations, and stores without a configuration.

    Their leases are not read yet.
    """
    found: dict[tuple[str, str], Pool] = {}
    for network in networks:
        for plugin in network.plugins:
            data_dir, sets, trouble = DATA_DIR, [], ""
            try:
                read = reading.pool(network, plugin)
                if read is None:
                    continue
                data_dir, sets = read.store.data_dir, read.sets
            except CniError as error:
                trouble = str(error)
            pool = found.setdefault((data_dir, network.name), Pool(network.name, data_dir, network.path, trouble))
            pool.sets += sets
    for data_dir in {DATA_DIR, *(data_dir for data_dir, _ in found)}:
        for name in _stores(data_dir):
            found.setdefault((data_dir, name), Pool(name, data_dir))
    return [found[key] for key in sorted(found, key=lambda key: (found[key].configuration is None, *key))]


def _stores(data_dir: str) -> list[str]:
    try:
        with os.scandir(data_dir) as entries:
            return [one.name for one in entries if one.is_dir(follow_symlinks=False) and is_name(one.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


class Node:
    """The state of a node that shows whether a lease's pod exists: links, namespaces, cached results."""

    def __init__(self, cache_dir: str) -> None:
        self.cache = Cache(cache_dir)
        self.namespaces = Namespaces()
        self.links: dict[str, tuple[str, str]] = {}
        with IPRoute() as kernel:
            for link in kernel.get_links():
                is_up = link.get("state") == "up" and link.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN")
                kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
                self.links[link.get_attr("IFLA_IFNAME")] = (UP if is_up else DOWN, kind)

    def examine(self, network: str, address: str, lease: Lease | None, made: float, *, is_left_over: bool) -> Held:
        """Return the state of a lease; `made` is its file's modification time."""
        if lease is None:
            return Held(address, lease, made, dead="empty or garbled")
        cached = self._cached(network, lease)
        paths = [path for one in cached if (path := one.attachment.netns)]
        states = [of_namespace(path) for path in paths]
        # An old lease does not name its interface, so any of the container's interfaces keeps it.
        state = next((one for one in (ALIVE, UNKNOWN, GONE) if one in states), UNKNOWN)
        link, link_state = self._link(network, lease, cached)
        held = Held(address, lease, made, paths[0] if paths else "", state, link, link_state)
        dead = ""
        if is_left_over:
            dead = "of an earlier boot"
        elif state == GONE and len(paths) == len(cached) and not held.is_in_use and _is_before(made, cached):
            # A process or another mount may keep the namespace after its path is gone.
            dead = "" if self._is_inside(address, lease) else "its namespace is gone"
        return Held(address, lease, made, held.netns, state, link, link_state, dead)

    def _is_inside(self, address: str, lease: Lease) -> bool:
        return bool(self.namespaces.home(lease.ifname, {Address.parse(address)}, set(), guess=False))

    def _cached(self, network: str, lease: Lease) -> list[Cached]:
        """Return the cache entries of a lease, none if one of them cannot be read."""
        try:
            if not lease.ifname:
                found, unreadable = self.cache.look(network, lease.container_id)
                return [] if any(one.keys(network) for one in unreadable) else found
            one = self.cache.load(network, Attachment(lease.container_id, "", lease.ifname))
        except CacheError:
            return []
        # Other attachments may have the same file name.
        same = one is not None and (one.network, one.attachment.container_id, one.attachment.ifname) == (
            network, lease.container_id, lease.ifname,
        )  # fmt: skip
        return [one] if one is not None and same else []

    def _link(self, network: str, lease: Lease, cached: Sequence[Cached]) -> tuple[str, str]:
        """Return the host link and its state.

        Look for this suite's name first. The reference's names are random, so look for those in the result next.
        """
        named = Owner(network, lease.container_id, lease.ifname).host_link
        if named in self.links:
            return named, self.links[named][0]
        names = [name for one in cached for name in _host_links(one)]
        for name in names:
            state, kind = self.links.get(name, (GONE, ""))
            if kind == "veth":
                return name, state
        gone = [name for name in names if name not in self.links]
        return (gone[-1], GONE) if gone else ("", UNKNOWN)


def _host_links(cached: Cached) -> Iterator[str]:
    interfaces = (cached.result or {}).get("interfaces")
    for one in interfaces if isinstance(interfaces, list) else ():
        if isinstance(one, dict) and not one.get("sandbox") and isinstance(one.get("name"), str):
            yield one["name"]


def _is_before(made: float, cached: Sequence[Cached]) -> bool:
    """Return True if the lease is not newer than the cached result.

    A newer lease belongs to a later ADD that may still be running.
    """
    try:
        return all(made <= one.path.stat().st_mtime for one in cached)
    except OSError:
        return False


Progress = Callable[[Sequence[str], str], Iterable[str]]


def read(pool: Pool, node: Node, progress: Progress) -> None:
    """Read a pool's leases in the order of addresses. Pass their names through `progress` with the network's name."""
    look = Look(pool.data_dir, pool.network)
    if not look.exists():
        return
    with look:
        found = {name: (lease, is_left_over) for name, lease, is_left_over in look.survey(look.index.entries())}
        for name in progress(sorted(found, key=_order), pool.network):
            lease, is_left_over = found[name]
            held = _held(look, node, name, lease, is_left_over=is_left_over)
            if held is not None:
                pool.held.append(held)


def _order(name: str) -> tuple[int, int]:
    address = Address.parse(name)
    return address.version, address.value


def _held(store: Store, node: Node, name: str, lease: Lease | None, *, is_left_over: bool) -> Held | None:
    try:
        found = os.stat(name, dir_fd=store.directory, follow_symlinks=False)
    except FileNotFoundError:  # released in the meantime
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return node.examine(store.network, name, lease, found.st_mtime, is_left_over=is_left_over)


def release_dead(pool: Pool, dead: Sequence[Held], cache_dir: str) -> list[Held]:
    """Release leases that are still dead under the store's lock. Return those that are free afterwards.

    Garbled leases and leases of an earlier boot are deleted when the store is opened, as in every call.
    """
    freed = []
    with Store(pool.data_dir, pool.network) as store:
        node = Node(cache_dir)
        for held in dead:
            lease = store.read(held.address)
            if lease is not None and held.lease is not None and lease in (held.lease, held.lease.bare):
                again = _held(store, node, held.address, held.lease, is_left_over=False)
                if again is not None and again.dead:
                    store.release_address(held.address)
            if not store.is_taken(held.address):
                freed.append(held)
    return freed


def release(pool: Pool, what: str) -> list[tuple[str, Lease | None]]:
    """Release an address, or all addresses of a container id. Return them with their former leases."""
    store = Store(pool.data_dir, pool.network)
    if not store.exists():
        return []
    with store:
        found = [(name, store.read(name)) for name in sorted(store.names(), key=_order)]
        freed = [(name, lease) for name, lease in found if what == name or (lease and what == lease.container_id)]
        for name, _ in freed:
            store.release_address(name)
    return freed
