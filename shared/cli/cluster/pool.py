"""cnitool cluster pool set, reserve: check a pool or a reservation against the cluster's content, and write it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

from shared.cli.cluster.access import reached
from shared.cli.cluster.tables import RESERVED, outside_of, sizes
from shared.cli.networks import Options, print_json, warn
from shared.cli.terminal import counted, say
from shared.cluster import claims, codec
from shared.cluster.model import Block, Cidr, Kind, Pool, Snapshot

KEYS = ("network", "kind", "ranges")
RANGE_KEYS = ("cidr", "blockLength", "gateway")


class InvalidPool(ValueError):
    """The pool cannot be used, or would take addresses in use; the message names file and key."""


def set_pool(options: Options) -> None:
    """Write the pool of the command line's file."""
    pool = read(options.file)
    with reached(options) as cluster:
        for reason in objections(pool, cluster.snapshot):
            raise InvalidPool(f"{options.file}: {reason}; nothing is written")
        if not options.dry_run:
            cluster.engine.write_pool(pool)
    taken = [cidr for network, cidr in cluster.snapshot.blocks if network == pool.network]
    outside = outside_of(pool, taken)
    if options.json:
        value = {"network": pool.network, **codec.pool_value(pool)}
        print_json({"pool": value, "isWritten": not options.dry_run, "outside": list(map(str, outside))})
        return
    for one in pool.ranges:
        size, free = sizes(pool, one, taken)
        say(f"{pool.network}: {one.cidr} has {counted(size, 'block')} of /{one.block_length}, {free} of them free")
    if outside:
        say(f"{pool.network}: {counted(len(outside), 'block')} outside of its ranges: their nodes drain them")
    say("nothing is written, because of --dry-run" if options.dry_run else f"pool {pool.network} is written")


def reserve(options: Options) -> None:
    """Claim addresses of a pool for nobody. Raise InvalidPool if a node has some of them."""
    network, cidr = options.network, codec.to_cidr(options.cidr)
    with reached(options) as cluster:
        pool = cluster.snapshot.pools.get(network)
        if pool is not None and not any(_is_within(cidr, one.cidr) for one in pool.ranges):
            warn(f"{cidr} is in no range of pool {network}, {', '.join(str(one.cidr) for one in pool.ranges)}")
        for block in _blocks_in(cluster.snapshot, network, cidr):
            raise InvalidPool(
                f"{cidr} shares addresses with block {block.cidr} of node {block.node}: nothing is reserved; choose"
                " others, or drain the node by a smaller pool first"
            )
        claimed = cluster.engine.claim(Block(network, cidr, RESERVED, RESERVED, time.time()))
        with reached(options, is_quiet=True) as later:  # its list has each claim that was before ours
            others = [one for one in _blocks_in(later.snapshot, network, cidr) if one.cidr != cidr]
        if others:
            cluster.engine.release(claimed)
            raise InvalidPool(f"node {others[0].node} has claimed {others[0].cidr} meanwhile: nothing is reserved")
    if options.json:
        print_json({"network": network, "reserved": str(cidr)})
    else:
        say(f"reserved {cidr} of {network}")


def _blocks_in(snapshot: Snapshot, network: str, cidr: Cidr) -> list[Block]:
    return [one for one in snapshot.blocks.values() if one.network == network and claims.overlap(one.cidr, cidr)]


def _is_within(cidr: Cidr, whole: Cidr) -> bool:
    return claims.overlap(cidr, whole) and cidr.prefixlen >= whole.prefixlen


def read(name: str) -> Pool:
    """Return the pool in a file. Raise InvalidPool that names file and key."""
    try:
        raw = json.loads(sys.stdin.read() if name == "-" else Path(name).read_bytes())
    except OSError as error:
        raise InvalidPool(f"{name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidPool(f"{name}: not JSON: {error}") from None
    try:
        _require_keys(raw, "the file", KEYS)
        pool = codec.to_pool(raw["network"], {key: raw[key] for key in KEYS[1:]})
        if not pool.ranges:
            raise InvalidPool("ranges is empty; one range at least is expected")
        for at, one in enumerate(raw["ranges"]):
            _require_keys(one, f"ranges[{at}]", RANGE_KEYS, optional=("gateway",))
    except ValueError as error:
        raise InvalidPool(f"{name}: {error}") from None
    return pool


def _require_keys(raw: object, place: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Raise InvalidPool for a key that is missing or unknown: it may be a misspelt one."""
    if not isinstance(raw, dict):
        raise InvalidPool(f"{place} is {codec.shown(raw)}; an object with the keys {', '.join(keys)} is expected")
    for key in raw:
        if key not in keys:
            raise InvalidPool(f"{place} has the unknown key {codec.shown(key)}; the keys are {', '.join(keys)}")
    for key in keys:
        if key not in raw and key not in optional:
            raise InvalidPool(f"{place} has no key {key!r}; the keys are {', '.join(keys)}")


def objections(pool: Pool, snapshot: Snapshot) -> Iterator[str]:
    """Yield the reasons against a pool: it would take addresses in use, or no node could use it."""
    for at, one in enumerate(pool.ranges):
        if not claims.count_free(pool.kind, one, ()):
            yield f"ranges[{at}]: a block of /{one.block_length} has no address for a pod; shorten blockLength"
        if pool.kind is Kind.ROUTED and one.gateway:
            yield f"ranges[{at}].gateway: is for the kind {Kind.SEGMENT.value}: each routed block has its own"
    present = snapshot.pools.get(pool.network)
    used = sum(network == pool.network for network, _ in snapshot.blocks)
    if present is not None and present.kind is not pool.kind and used:
        yield (
            f"kind is {pool.kind.value}, and network {pool.network} has {counted(used, 'block')} as a"
            f" {present.kind.value} one: give a network of another kind another name"
        )
    yield from _overlaps(pool, snapshot)


def _overlaps(pool: Pool, snapshot: Snapshot) -> Iterator[str]:
    """Yield the addresses of others that a pool has. Segments may share some: nothing routes between them."""
    theirs: list[tuple[Cidr, str]] = [
        (other.cidr, f"network {found.network}")
        for found in snapshot.pools.values()
        if found.network != pool.network and Kind.ROUTED in (pool.kind, found.kind)
        for other in found.ranges
    ]
    for peer in snapshot.peers.values() if pool.kind is Kind.ROUTED else ():
        theirs += [(ip_network(address), f"node {peer.node} itself") for address in peer.addresses]
        theirs += [
            (cidr, f"node {peer.node}, network {network}")
            for network, cidrs in peer.cidrs.items()
            if network != pool.network
            for cidr in cidrs
        ]
    for at, one in enumerate(pool.ranges):
        for cidr, owner in theirs:
            if claims.overlap(one.cidr, cidr):
                yield f"ranges[{at}].cidr: {one.cidr} overlaps {cidr} of {owner}"
