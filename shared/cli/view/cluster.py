"""Model the cluster as this node sees it, for all outputs: pools, nodes by the way to them, machines that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.cli.cluster import state
from shared.cli.cluster.access import Cluster
from shared.cli.cluster.tables import DIRECT, ENCRYPTED, NONE, OWN, REFUSED, RESERVED, TUNNEL, sizes, ways_to
from shared.cli.terminal import rounded
from shared.cluster.claims import order
from shared.cluster.model import Cidr, Peer, Snapshot

UNROUTED, UNKNOWN = "unrouted", "unknown"
TITLES = {
    OWN: "this node",
    DIRECT: "host routes",
    TUNNEL: "through the tunnel",
    ENCRYPTED: "encrypted",
    REFUSED: "no encrypted way",
    NONE: "no route leads there",
    UNROUTED: "without routed CIDRs",
    UNKNOWN: "nodes",
}


@dataclass(frozen=True)
class Stock:
    """One range of a pool, and its blocks."""

    network: str
    kind: str
    cidr: str
    block_length: int
    size: int
    free: int


@dataclass(frozen=True)
class Span:
    """A CIDR of a node. This node knows its state and its use, too."""

    network: str
    cidr: str
    state: str = ""
    used: int | None = None
    free: int | None = None

    @property
    def use(self) -> str:
        """Return state and use for people, empty if they are not known."""
        return "" if self.used is None else f"{self.state}, {self.used} used, {rounded(self.free or 0)} free"


@dataclass(frozen=True)
class Member:
    """A node with its CIDRs. `way` is one of TITLES' keys."""

    node: str
    uid: str
    addresses: tuple[str, ...]
    spans: tuple[Span, ...]
    way: str


@dataclass(frozen=True)
class Remains:
    """Blocks of a machine that no node announces."""

    node: str
    uid: str
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """The whole cluster."""

    node: str
    engine: str
    time: str
    pools: tuple[Stock, ...] = ()
    members: tuple[Member, ...] = ()
    remains: tuple[Remains, ...] = ()
    alarms: tuple[str, ...] = field(default=())

    def groups(self) -> Iterator[tuple[str, tuple[Member, ...]]]:
        """Yield each way with the nodes that it leads to, this node first."""
        for way in TITLES:
            found = tuple(one for one in self.members if one.way == way)
            if found:
                yield way, found


def describe(cluster: Cluster, network: str = "") -> Picture:
    """Return the cluster, or one network of it."""
    snapshot, ways = cluster.snapshot, ways_to(cluster)
    own = {one.cidr: one for one in _own_spans()}
    return Picture(
        cluster.node, cluster.settings.engine, datetime.now(UTC).isoformat(timespec="seconds"),
        tuple(_stocks(snapshot, network)),
        tuple(
            _member(peer, _worst(ways.get(peer.node), is_node=bool(ways)), own, network)
            for _, peer in sorted(snapshot.peers.items())
        ),
        tuple(_remains(snapshot, network)),
        tuple(_alarms()),
    )  # fmt: skip


def _worst(way: str | None, *, is_node: bool) -> str:
    """Return the worst way to a node."""
    if not is_node:
        return UNKNOWN
    if way is None:
        return UNROUTED
    return next(one for one in (OWN, NONE, REFUSED, TUNNEL, ENCRYPTED, DIRECT) if one in way)


def _member(peer: Peer, way: str, own: dict[str, Span], network: str) -> Member:
    spans = [
        Span(name, str(cidr))
        for name, cidrs in sorted(peer.cidrs.items())
        if network in ("", name)
        for cidr in sorted(cidrs, key=order)
    ]
    if way == OWN:
        announced = {one.cidr for one in spans}
        spans = [own.get(one.cidr, one) for one in spans]
        spans += [one for one in own.values() if one.cidr not in announced and network in ("", one.network)]
    return Member(peer.node, peer.uid, tuple(map(str, peer.addresses)), tuple(spans), way)


def _own_spans() -> Iterator[Span]:
    """Yield this node's ranges as the agent reported them; none without a report."""
    try:
        report = state.read()
    except state.NoState:
        return
    for name, network in report["networks"].items():
        for one in network["ranges"]:
            yield Span(name, one["cidr"], one["state"], one["used"], one["free"])


def _alarms() -> Iterator[str]:
    try:
        report = state.read()
    except state.NoState:
        return
    for one in report.get("alarms") or ():
        yield f"{one.get('name')} {one.get('about')}"


def _stocks(snapshot: Snapshot, network: str) -> Iterator[Stock]:
    for name, pool in sorted(snapshot.pools.items()):
        if network in ("", name):
            taken: list[Cidr] = [cidr for owner, cidr in snapshot.blocks if owner == name]
            for one in pool.ranges:
                yield Stock(name, pool.kind.value, str(one.cidr), one.block_length, *sizes(pool, one, taken))


def _remains(snapshot: Snapshot, network: str) -> Iterable[Remains]:
    present = {peer.uid for peer in snapshot.peers.values()}
    found: dict[tuple[str, str], list[Cidr]] = {}
    for one in snapshot.blocks.values():
        if one.uid not in present and one.uid != RESERVED and network in ("", one.network):
            found.setdefault((one.node, one.uid), []).append(one.cidr)
    for (node, uid), cidrs in sorted(found.items()):
        yield Remains(node, uid, tuple(map(str, sorted(cidrs, key=order))))
