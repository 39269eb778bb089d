"""The node itself: its addresses, leases, conflists and routes, as the executor sees and changes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cluster import codec, conflist, files, gateways, leases, neighbour_limits, routes, tunnel, wireguard
from shared.cluster.checkpoint import DIRECTORY, Checkpoint
from shared.cluster.look import Place, look
from shared.cluster.model import Address, Alarm, Cidr, Kind, Local, Node, Pool, Route, Snapshot
from shared.cluster.recall import Memory
from shared.cluster.routes import Outcome
from shared.cluster.settings import TUNNELS, Settings
from shared.cluster.tunnel import End, Tables
from shared.cni.errors import CniError, InternalError
from shared.net import links
from shared.net.netlink import Netlink
from shared.net.routes import towards
from shared.net.wire import IFF_LOOPBACK, RTM_GETADDR, RTM_GETLINK, RTN_UNICAST

if TYPE_CHECKING:
    from shared.net.netlink import Message

FAR = {4: ip_address("203.0.113.1"), 6: ip_address("3fff::1")}  # addresses that only a default route leads to
MEMORY = "networks.json"  # pools as they were last, and each network's files: for a silent engine, a removed network


class NodeHost:
    """The `Host` of the executor on a real node."""

    def __init__(self, settings: Settings, name: str, uid: str, *, directory: Path = DIRECTORY) -> None:
        """Read the memory of networks. Change nothing."""
        self._settings, self._name, self._uid = settings, name, uid
        self._directory, self._path = directory, directory / MEMORY
        self.pools, self._places = _read_memory(self._path)
        self._held: frozenset[tuple[str, Cidr]] = frozenset()  # networks and their blocks on this node
        self._own: tuple[Address, ...] = settings.addresses
        self.mac = tunnel.mac_of(f"{uid} {name}")  # a copied disk has the same id, and the copy another name
        self._entries: Memory = {}  # of the kernel's tables, as they were read last
        self._encryption_failure = ""

    def prepare(self) -> None:
        """Make the key and the device of encryption if the settings want it. Looks tell why that failed."""
        if self._settings.encryption:
            try:
                wireguard.prepare(self._directory)
                self._encryption_failure = ""
            except (CniError, OSError) as error:
                self._encryption_failure = str(error)

    def look(self, checkpoint: Checkpoint, before: Local | None, *, now: float, wall_seconds: float) -> Local:
        """Return all that the node knows without the engine. Raise IOFailure, or InternalError without an address."""
        self._held = frozenset(checkpoint.held)
        if not self._own and checkpoint.announced is not None:
            self._own = checkpoint.announced.addresses
        there = routes.read(checkpoint.kept_routes, self._entries)
        local = look(self._node(), checkpoint, self._find_places(), there, before, now=now, wall_seconds=wall_seconds)
        assigned = self._settings.pod_cidr_network()
        found = {
            key: replace(one, is_assigned=True)
            for key, one in local.held.items()
            if key[0] == assigned and key not in checkpoint.held  # the conflist alone knows it
        }
        return replace(local, held={**local.held, **found}) if found else local

    def _find_places(self) -> dict[str, Place]:
        """Return the files of each network: also of one that left the settings, and still has blocks here."""
        names = {network for network, _ in self._held} | set(self._settings.networks)
        known = {name: place for name, place in self._places.items() if name in names}
        return {**known, **self._settings.places()}

    def _node(self) -> Node:
        settings = self._settings
        host = Netlink()
        try:
            own = self._own = settings.addresses or _find_addresses(host, self._own)
            networks = tuple(_list_networks(host))
        finally:
            host.close()
        if not own:
            raise InternalError(
                f"node {self._name} has no default route whose source other nodes could use: set addresses"
            )
        return Node(
            self._name, self._uid, own, networks, settings.low, settings.graceSeconds, TUNNELS[settings.tunnels],
            vtep_mac="" if settings.tunnels == "never" else self.mac,
            networks=frozenset(settings.networks), public_key=self._find_public_key(),
            encrypts=bool(settings.encryption), encryption_failure=self._encryption_failure,
            cluster_cidrs=tuple(cidr for one in settings.networks.values() for cidr in one.clusterCIDRs),
        )  # fmt: skip

    def _find_public_key(self) -> str:
        """Return the key of encryption that is in use, empty if there is none."""
        try:
            return wireguard.read_public_key() if self._settings.encryption else ""
        except CniError:
            return ""  # prepare has told why

    def publish(self, network: str, cidrs: tuple[Cidr, ...], snapshot: Snapshot) -> None:
        """Write the network's conflist if it differs. Raise InvalidTemplate, IOFailure.

        Without a usable template, ranges that shall go still leave the present conflist. A network that is not in the
        settings has no template.
        """
        if network not in self._settings.networks:
            if network in self._places:
                conflist.withdraw(self._places[network].conflist, cidrs)
            return
        target = self._settings.target(network)
        try:
            template = conflist.read(self._settings.template(network), network)
            self._require_leases(network, target, template)
            self._remember(snapshot, {})
            unmasqueraded = (*conflist.exempt(self.pools.values()), *self._settings.networks[network].clusterCIDRs)
            mtu = self._find_mtu() or conflist.mtu(target)  # an address that is gone for a while changes nothing
            conflist.publish(template, target, self._require_pool(network), cidrs, mtu=mtu, unmasqueraded=unmasqueraded)
        except conflist.InvalidTemplate:
            conflist.withdraw(target, cidrs)
            raise
        former = self._places.get(network)
        if former is not None and former.conflist != target:
            conflist.withdraw(former.conflist, ())  # it would go on to lease from blocks that this node gives back
        self._remember(snapshot, {network: Place(target, template.data_dir)})

    def _require_leases(self, network: str, target: Path, template: conflist.Template) -> None:
        """Raise InvalidTemplate if leases would be counted no longer: their blocks would look empty."""
        present = conflist.data_dir(target)
        if present is None and network in self._places:
            present = self._places[network].data_dir
        if present in (None, template.data_dir):
            return
        number = sum(leases.used(present, network, [cidr for name, cidr in self._held if name == network]).values())
        if number:
            raise conflist.InvalidTemplate(
                f"{template.path}: dataDir: must stay {present}, because {number} leases of pods are there"
            )

    def _require_pool(self, network: str) -> Pool:
        """Return the pool as it was last. Raise InvalidTemplate if the engine never had one."""
        if network in self.pools:
            return self.pools[network]
        if self._settings.networks[network].podCIDRs:
            return Pool(network, Kind.ROUTED, ())
        raise conflist.InvalidTemplate(f"there is no pool {network}, which a conflist is written for")

    def _find_mtu(self) -> int:
        """Return the MTU of pods: that of the node's own links, less the headers of tunnels if there can be any.

        It does not depend on the present peers. Pods keep theirs when the first far node joins.
        """
        host = Netlink()
        try:
            smallest = min((link["IFLA_MTU"] for link in _find_links(host, self._own)), default=0)
        finally:
            host.close()
        if self._settings.encryption and smallest:
            return wireguard.pod_mtu(smallest)
        if self._settings.tunnels == "never" or not smallest:
            return smallest
        return tunnel.pod_mtu(smallest, {one.version for one in self._own})

    def _remember(self, snapshot: Snapshot, places: Mapping[str, Place]) -> None:
        """Keep pools and places on disk. A pool that is gone from the engine is kept, too: its ranges stay."""
        known = {**self.pools, **snapshot.pools} if snapshot.is_current else self.pools
        all_places = {**self._places, **places}
        if known == self.pools and all_places == self._places:
            return
        content = {
            "pools": {name: codec.pool_value(pool) for name, pool in sorted(known.items())},
            "places": {
                name: {"conflist": str(one.conflist), "dataDir": one.data_dir}
                for name, one in sorted(all_places.items())
            },
        }
        files.write(self._path, codec.serialise(content).decode())
        self.pools, self._places = known, all_places

    def set_routes(self, wanted: frozenset[Route], local: Local) -> Outcome:
        """Make the kernel have exactly these routes of ours, and the tunnels that they need.

        A held block with a route is lost to another node. This node's own addresses of it would hide the route.
        """
        held = {cidr for network, cidr in local.held if self._is_routed(network)}
        lost = held & {route.cidr for route in wanted}
        if lost:
            self.remove_gateways(lost)
        sources = tuple(sorted(held - lost, key=str))
        return routes.apply(wanted, End(self.mac, local.node.addresses, sources), self._entries)

    def _is_routed(self, network: str) -> bool:
        pool = self.pools.get(network)
        return pool is None or pool.kind is Kind.ROUTED

    def remove_gateways(self, cidrs: Iterable[Cidr]) -> None:
        """Take the gateway addresses of these blocks off the node's links."""
        gateways.remove(cidrs)

    def watch_neighbours(self, wanted: Iterable[Route]) -> list[Alarm]:
        """Compare the peers' number with the kernel's limits. Raise them if the settings allow it.

        Return an alarm for each limit that is too low.
        """
        entries = Tables()
        try:
            found = routes.crowding(wanted, tunnel.neighbour_limits(entries))
            if found and self._settings.raiseNeighbourLimit and neighbour_limits.raise_for(wanted):
                found = routes.crowding(wanted, tunnel.neighbour_limits(entries))
        finally:
            entries.close()
        return found

    def list_watched(self) -> list[str]:
        """Return the files and directories whose change is worth a look."""
        directories = [f"{place.data_dir}/{name}" for name, place in self._find_places().items()]
        files_of = [[self._settings.template(name), self._settings.target(name)] for name in self._settings.networks]
        return [*directories, *(str(path) for paths in files_of for path in paths)]


def _find_addresses(host: Netlink, known: Iterable[Address]) -> tuple[Address, ...]:
    """Return the node's address of each family: the known one as long as a link has it, else that of the default route.

    So neither a default route that is gone for a while nor a further address changes the node's object.
    """
    present = {message.get("IFA_LOCAL") or message["IFA_ADDRESS"] for message in host.dump(RTM_GETADDR)}
    found = {one.version: one for one in _find_sources(host)}
    found |= {one.version: one for one in known if str(tunnel.kernel_address(one)) in present}
    return tuple(found[version] for version in sorted(found))


def _find_sources(host: Netlink) -> Iterable[Address]:
    """Return the source address of the default route of each family."""
    for far in FAR.values():
        route = towards(host, tunnel.kernel_address(far))
        if route is not None and route["type"] == RTN_UNICAST and "RTA_PREFSRC" in route:
            address = ip_address(route["RTA_PREFSRC"])
            if not address.is_link_local:
                yield address


def _list_networks(host: Netlink) -> Iterable[Cidr]:
    """Return the networks of the node's links, without those of the loopback link, and without single addresses."""
    names = {link["index"]: link for link in host.dump(RTM_GETLINK)}
    for message in host.dump(RTM_GETADDR):
        link = names.get(message["index"])
        address = ip_address(message.get("IFA_ADDRESS") or message["IFA_LOCAL"])
        if link is None or link["flags"] & IFF_LOOPBACK or address.is_link_local:
            continue
        if message["prefixlen"] < address.max_prefixlen:
            yield ip_network((int(address), message["prefixlen"]), strict=False)


def _find_links(host: Netlink, own: Iterable[Address]) -> Iterable[Message]:
    """Return the links with the node's own addresses."""
    wanted = {str(tunnel.kernel_address(one)) for one in own}
    for message in host.dump(RTM_GETADDR):
        if (message.get("IFA_LOCAL") or message["IFA_ADDRESS"]) in wanted:
            link = links.by_index(host, message["index"])
            if link is not None:
                yield link


def _read_memory(path: Path) -> tuple[dict[str, Pool], dict[str, Place]]:
    """Return pools and places that were kept; none if the file is missing or garbled: they are found anew."""
    text = files.read_own(path)
    try:
        raw: Any = codec.parse((text or '{"pools": {}, "places": {}}').encode())
        pools = {name: codec.to_pool(name, value) for name, value in raw["pools"].items()}
        places = {name: Place(Path(one["conflist"]), str(one["dataDir"])) for name, one in raw["places"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}, {}
    return pools, places
