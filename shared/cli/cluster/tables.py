"""cnitool cluster blocks, peers, pool: tables of the engine's content."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.cli.cluster.access import Cluster, reached
from shared.cli.networks import Options, print_json
from shared.cli.terminal import age, counted, print_table, printable, rounded, say
from shared.cluster import claims, routes
from shared.cluster.model import Block, Cidr, Peer, Pool, Range, Route, Snapshot

RESERVED = "reserved"  # the owner that administrators write for addresses that no node may claim
OWN, DIRECT, TUNNEL, ENCRYPTED, REFUSED, NONE = "this node", "direct", "tunnel", "encrypted", "refused", "none"


def blocks(options: Options) -> None:
    """List the blocks with their owners."""
    with reached(options) as cluster:
        chosen = _select(cluster.snapshot, options.network, options.node)
        found = list(zip(chosen, notes(chosen, cluster.snapshot, cluster.node), strict=True))
    if options.json:
        print_json({"blocks": [_block_json(*one) for one in found]})
        return
    if not found:
        say(f"no blocks{f' of network {options.network}' if options.network else ''}")
        return
    now = time.time()
    rows = [
        (one.network, one.cidr, one.node, one.state.value, age(now - one.since), printable(one.uid), note)
        for one, note in found
    ]
    print_table(("NETWORK", "CIDR", "NODE", "STATE", "AGE", "UID", "NOTE"), rows)
    say(f"{counted(len(found), 'block')} of {counted(len({one.uid for one in chosen}), 'machine')}")


def _select(snapshot: Snapshot, network: str, node: str) -> list[Block]:
    found = [one for one in snapshot.blocks.values() if network in ("", one.network) and node in ("", one.node)]
    return sorted(found, key=lambda one: (one.network, claims.order(one.cidr)))


def notes(blocks: Iterable[Block], snapshot: Snapshot, node: str) -> Iterator[str]:
    """Yield a remark on each block's owner: this node, or one that the other nodes do not see."""
    names = {one.uid: one.node for one in snapshot.peers.values()}
    for block in blocks:
        yield _note(block, snapshot, node, names)


def _note(block: Block, snapshot: Snapshot, node: str, names: Mapping[str, str]) -> str:
    peer = snapshot.peers.get(block.node)
    if f"nodes/{block.node}" in snapshot.unreadable:
        return "the node's peer object is unreadable"
    if peer is not None and peer.uid == block.uid:
        return OWN if block.node == node else ""
    if block.node == block.uid == RESERVED:
        return "by an administrator"
    if block.uid in names:
        return f"the machine is node {names[block.uid]} now"
    return "another machine has this name now" if peer else "no such node"


def _block_json(one: Block, note: str) -> dict[str, Any]:
    return {
        "network": one.network, "cidr": str(one.cidr), "node": one.node, "uid": one.uid, "state": one.state.value,
        "since": one.since, "note": note,
    }  # fmt: skip


def peers(options: Options) -> None:
    """List the nodes, and the way from this node to each."""
    with reached(options) as cluster:
        snapshot = cluster.snapshot
        ways = ways_to(cluster)
    found = sorted(snapshot.peers.values(), key=lambda one: one.node)
    if options.json:
        print_json({"peers": [_peer_json(one, ways) for one in found]})
        return
    now = time.time()
    rows = [
        (one.node, " ".join(map(str, one.addresses)), _ranges(one), ways.get(one.node, "–"), age(now - one.since),
         printable(one.uid))
        for one in found
    ]  # fmt: skip
    print_table(("NODE", "ADDRESSES", "CIDRS", "WAY", "AGE", "UID"), rows)
    say(counted(len(found), "node"))


def ways_to(cluster: Cluster) -> dict[str, str]:
    """Return how this node's kernel reaches each node with CIDRs of routed networks; empty on a machine that is none.

    A way is direct, tunnel, encrypted, refused, none, or a list of them with their CIDRs.
    """
    snapshot = cluster.snapshot
    if cluster.node not in snapshot.peers:
        return {}
    have = {one.cidr: one for one in routes.read(())}
    found = {peer.node: _way(peer, have) for peer in snapshot.peers.values() if any(peer.cidrs.values())}
    return {**found, cluster.node: OWN}


def _way(peer: Peer, have: Mapping[Cidr, Route]) -> str:
    """Return the way to a peer. A route through another node's address does not lead to it."""
    kinds: dict[str, list[str]] = {}
    for cidr in (cidr for cidrs in peer.cidrs.values() for cidr in cidrs):
        kinds.setdefault(_kind(peer, have.get(cidr)), []).append(str(cidr))
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(f"{kind} to {' '.join(cidrs)}" for kind, cidrs in sorted(kinds.items()))


def _kind(peer: Peer, route: Route | None) -> str:
    """Return the kind of a route, none if it does not lead to the peer. An encrypted one finds the peer by its key."""
    if route is None or (not route.is_refused and not route.key and route.via not in peer.addresses):
        return NONE
    if route.is_refused:
        return REFUSED
    if route.key:
        return ENCRYPTED if route.key == peer.public_key else NONE
    return TUNNEL if route.is_tunnelled else DIRECT


def _ranges(peer: Peer) -> str:
    named = [f"{network}: {' '.join(map(str, cidrs))}" for network, cidrs in sorted(peer.cidrs.items()) if cidrs]
    return "; ".join(named) or "–"


def _peer_json(one: Peer, ways: Mapping[str, str]) -> dict[str, Any]:
    return {
        "node": one.node, "uid": one.uid, "addresses": list(map(str, one.addresses)),
        "cidrs": {network: list(map(str, cidrs)) for network, cidrs in one.cidrs.items()}, "since": one.since,
        "vtepMAC": one.vtep_mac or None, "publicKey": one.public_key or None, "way": ways.get(one.node),
    }  # fmt: skip


def pools(options: Options) -> None:
    """List the pools with their free blocks."""
    with reached(options) as cluster:
        snapshot = cluster.snapshot
    taken: dict[str, list[Cidr]] = {name: [] for name in snapshot.pools}
    for network, cidr in snapshot.blocks:
        taken.setdefault(network, []).append(cidr)
    found = sorted(snapshot.pools.values(), key=lambda one: one.network)
    if options.json:
        print_json({"pools": [_pool_json(one, taken[one.network]) for one in found]})
        return
    if found:
        rows = [row for pool in found for row in _pool_rows(pool, taken[pool.network])]
        print_table(("NETWORK", "KIND", "RANGE", "BLOCKS", "GATEWAY", "SIZE", "FREE"), rows)
    for pool in found:
        outside = outside_of(pool, taken[pool.network])
        if outside:
            say(f"{pool.network}: {counted(len(outside), 'block')} outside of its ranges: their nodes drain them")
    for network in sorted(taken.keys() - snapshot.pools.keys()):
        say(f"{network}: {counted(len(taken[network]), 'block')} and no pool: `cnitool cluster pool set FILE`")
    if not taken:
        say("no pools: `cnitool cluster pool set FILE` writes one")


def outside_of(pool: Pool, cidrs: Iterable[Cidr]) -> list[Cidr]:
    """Return the blocks that a pool has no place for."""
    return [cidr for cidr in cidrs if claims.find_range(pool, cidr) is None]


def sizes(pool: Pool, one: Range, taken: Iterable[Cidr]) -> tuple[int, int]:
    """Return the number of usable blocks in a range, and that of the free ones."""
    return claims.count_free(pool.kind, one, ()), claims.count_free(pool.kind, one, taken)


def _pool_rows(pool: Pool, taken: list[Cidr]) -> Iterator[tuple[object, ...]]:
    for one in pool.ranges:
        size, free = sizes(pool, one, taken)
        block, gateway = f"/{one.block_length}", one.gateway or "–"
        yield pool.network, pool.kind.value, one.cidr, block, gateway, rounded(size), rounded(free)


def _pool_json(pool: Pool, taken: list[Cidr]) -> dict[str, Any]:
    ranges = []
    for one in pool.ranges:
        size, free = sizes(pool, one, taken)
        gateway = str(one.gateway) if one.gateway else None
        ranges.append(
            {"cidr": str(one.cidr), "blockLength": one.block_length, "gateway": gateway, "size": size, "free": free}
        )
    outside = list(map(str, outside_of(pool, taken)))
    return {"network": pool.network, "kind": pool.kind.value, "ranges": ranges, "outside": outside}
