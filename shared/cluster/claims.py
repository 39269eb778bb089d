"""Choose blocks of a pool, and count their addresses. No function here has side effects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_network

from shared.cluster.model import Block, Cidr, Held, Kind, Pool, Range, Snapshot

Span = tuple[int, int]  # numbers of a range's blocks: the first one, and the one after the last


def order(cidr: Cidr) -> tuple[int, int, int]:
    """Return a key that sorts CIDRs of both families."""
    return cidr.version, int(cidr.network_address), cidr.prefixlen


def capacity(kind: Kind, entry: Range, cidr: Cidr) -> int:
    """Return how many addresses host-local can lease from a block.

    A routed block is a subnet of its own, with a gateway. A segment's blocks share one subnet.
    """
    if kind is Kind.ROUTED:
        return max(0, cidr.num_addresses - (3 if cidr.version == 4 else 2))
    first = entry.cidr.network_address
    reserved = {first, entry.gateway or first + 1}
    if cidr.version == 4:
        reserved.add(entry.cidr.broadcast_address)
    if cidr.num_addresses == 2 and (first in cidr or (cidr.version == 4 and entry.cidr.broadcast_address in cidr)):
        return 0  # a range of the one address that is left would look like another block
    return cidr.num_addresses - sum(address in cidr for address in reserved)


def usual_capacity(kind: Kind, entry: Range) -> int:
    """Return how many addresses most blocks of a range have, at least one."""
    size = 1 << entry.cidr.max_prefixlen - entry.block_length
    return max(1, size - (3 if entry.cidr.version == 4 else 2) if kind is Kind.ROUTED else size)


def find_range(pool: Pool, cidr: Cidr) -> Range | None:
    """Return the pool's range that has this block, or None: the administrator changed the pool."""
    for entry in pool.ranges:
        if entry.cidr.version == cidr.version and entry.block_length == cidr.prefixlen and overlap(entry.cidr, cidr):
            return entry
    return None


def overlap(one: Cidr, other: Cidr) -> bool:
    """Return True if two CIDRs share an address; False for two families."""
    if one.version != other.version:
        return False
    bits = one.max_prefixlen - min(one.prefixlen, other.prefixlen)
    return int(one.network_address) >> bits == int(other.network_address) >> bits


def find_taken(snapshot: Snapshot, network: str, entry: Range) -> list[Span]:
    """Return the parts of a network's range that its blocks take. They are computed once for each snapshot."""
    spans = snapshot.spans.get((network, entry))
    if spans is None:
        taken = (cidr for name, cidr in snapshot.blocks if name == network)
        spans = snapshot.spans[network, entry] = _merge(_spans(entry, taken), _count(entry))
    return spans


def choose(kind: Kind, entry: Range, taken: Iterable[Cidr], seed: str, known: Sequence[Span] = ()) -> Cidr | None:
    """Return one of the free blocks of a range, a pseudo-random one by the seed; None if there is no free block.

    The cost depends on the number of taken blocks, not on the size of the range. Each free block is equally probable,
    so that nodes with different seeds rarely choose the same one. `known` are further taken parts of the range.
    """
    spans, free = _taken_spans(kind, entry, taken, known)
    if not free:
        return None
    digest = hashlib.blake2b(seed.encode(), digest_size=16).digest()
    place = int.from_bytes(digest, "big") % free
    for start, end in spans:
        if place < start:
            break
        place += end - start
    return _block(entry, (int(entry.cidr.network_address) >> entry.cidr.max_prefixlen - entry.block_length) + place)


def find_hidden(kind: Kind, entry: Range, links: Iterable[Cidr]) -> list[Cidr]:
    """Return the networks of a node's links within a routed range. A block among them would hide them."""
    if kind is not Kind.ROUTED:
        return []
    return [link for link in links if link.prefixlen > entry.cidr.prefixlen and overlap(link, entry.cidr)]


def find_unreadable(snapshot: Snapshot, network: str) -> set[Cidr]:
    """Return the CIDRs of a network's blocks that cannot be read. Somebody has them."""
    found: set[Cidr] = set()
    for key in snapshot.unreadable:
        kind, _, name = key.partition("/")
        if kind == "blocks" and name.startswith(f"{network}/"):
            with suppress(ValueError):
                found.add(ip_network(name.removeprefix(f"{network}/")))
    return found


def find_overlapping(snapshot: Snapshot, network: str, cidr: Cidr, lengths: set[int]) -> list[Block]:
    """Return the blocks of other lengths that share addresses with a CIDR. The network's lengths are known."""
    found = []
    for length in lengths - {cidr.prefixlen}:
        if length < cidr.prefixlen:
            names = [cidr.supernet(new_prefix=length)]
        elif length - cidr.prefixlen <= 8:
            names = list(cidr.subnets(new_prefix=length))
        else:  # too many to try each name
            names = [key[1] for key in snapshot.blocks if key[0] == network and overlap(key[1], cidr)]
        found += [block for name in names if (block := snapshot.blocks.get((network, name)))]
    return found


def find_foreign(pool: Pool | None, held: Sequence[Held], snapshot: Snapshot) -> Held | None:
    """Return a range of the pool's addresses that no agent wrote into the conflist, None if there is none.

    It is from the time before the cluster, so that other nodes may have it, too. A network with a block that this
    node or the engine knows has none.
    """
    if pool is None or any(one.since or (one.network, one.cidr) in snapshot.blocks for one in held):
        return None
    strange = (one for one in held if not one.is_assigned and find_range(pool, one.cidr) is None)
    return next((one for one in strange if any(overlap(entry.cidr, one.cidr) for entry in pool.ranges)), None)


def count_free(kind: Kind, entry: Range, taken: Iterable[Cidr]) -> int:
    """Return how many blocks of a range can be claimed beside the taken ones."""
    return _taken_spans(kind, entry, taken)[1]


def _taken_spans(kind: Kind, entry: Range, taken: Iterable[Cidr], known: Sequence[Span] = ()) -> tuple[list[Span], int]:
    """Return the parts of a range that cannot be claimed, in numbers of blocks, and how many blocks are left."""
    count = _count(entry)
    spans = _merge(_spans(entry, (*taken, *_useless(kind, entry))), count)
    spans = _merge([*known, *spans], count) if spans else list(known)
    return spans, count - sum(end - start for start, end in spans)


def _block(entry: Range, number: int) -> Cidr:
    address = type(entry.cidr.network_address)(number << entry.cidr.max_prefixlen - entry.block_length)
    return ip_network((address, entry.block_length))


def _useless(kind: Kind, entry: Range) -> list[Cidr]:
    """Return the blocks whose every address is reserved. Without a seed of luck they would be claimed for nothing."""
    bits = entry.cidr.max_prefixlen - entry.block_length
    if kind is Kind.ROUTED:
        return [] if capacity(kind, entry, _block(entry, int(entry.cidr.network_address) >> bits)) else [entry.cidr]
    first, last = int(entry.cidr.network_address), int(entry.cidr.broadcast_address)
    ends = (first, int(entry.gateway) if entry.gateway else first + 1, last)
    blocks = {_block(entry, address >> bits) for address in ends if first <= address <= last}
    return [block for block in blocks if not capacity(kind, entry, block)]


def _count(entry: Range) -> int:
    """Return how many blocks a range has."""
    return 1 << (entry.block_length - entry.cidr.prefixlen)


def _spans(entry: Range, taken: Iterable[Cidr]) -> list[Span]:
    """Return the taken parts of a range in numbers of blocks, without the end. Blocks may have any length."""
    bits = entry.cidr.max_prefixlen - entry.block_length
    version, first = entry.cidr.version, int(entry.cidr.network_address) >> bits
    spans = []
    for cidr in taken:
        if cidr.version == version:
            start = int(cidr.network_address) >> bits
            spans.append((start - first, start - first + max(1, 1 << cidr.max_prefixlen - cidr.prefixlen >> bits)))
    return spans


def _merge(spans: list[Span], count: int) -> list[Span]:
    """Sort the spans, join overlapping ones, and cut them to 0..count."""
    merged: list[Span] = []
    covered = 0
    for start, end in sorted(spans):
        start, end = max(start, covered), min(end, count)  # noqa: PLW2901
        if start < end:
            merged.append((start, end))
            covered = end
    return merged
