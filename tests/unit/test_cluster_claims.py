"""The choice of a block: a free one, a different one for each node, at a cost that the size of a pool does not change."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cluster.claims import capacity, choose, find_range, find_taken, overlap, usual_capacity
from shared.cluster.model import Block, Cidr, Kind, Pool, Range, Snapshot

FOUR = Range(ip_network("10.0.0.0/25"), 29)
SIX = Range(ip_network("fd00::/48"), 64)
INSIDE = st.builds(
    lambda number, length: ip_network((number << 32 - length & 0x7F | 0x0A000000, length), strict=False),
    st.integers(0, 127), st.integers(24, 32),
)  # fmt: skip


@settings(deadline=None)
@given(
    taken=st.lists(INSIDE | st.just(ip_network("10.9.0.0/29")) | st.just(ip_network("fd00::/64")), max_size=12),
    seed=st.text(),
)
def test_a_chosen_block_overlaps_no_taken_one(taken: list[Cidr], seed: str) -> None:
    free = [one for one in FOUR.cidr.subnets(new_prefix=29) if not any(overlap(one, other) for other in taken)]
    chosen = choose(Kind.ROUTED, FOUR, taken, seed)
    assert chosen in free if free else chosen is None
    blocks = {("pods", cidr): Block("pods", cidr, "a", "u", 0.0) for cidr in taken[::2]}
    known = find_taken(Snapshot(blocks=blocks), "pods", FOUR)
    assert choose(Kind.ROUTED, FOUR, taken[1::2], seed, known) == chosen


def test_blocks_of_other_networks_take_nothing() -> None:
    blocks = {("other", FOUR.cidr): Block("other", FOUR.cidr, "a", "u", 0.0)}
    snapshot = Snapshot(blocks=blocks)
    assert find_taken(snapshot, "pods", FOUR) == []
    assert find_taken(snapshot, "other", FOUR) == [(0, 16)]


def test_every_free_block_is_chosen_by_some_seed() -> None:
    taken = [ip_network("10.0.0.0/29"), ip_network("10.0.0.64/28"), ip_network("10.0.0.120/32")]
    chosen = {choose(Kind.ROUTED, FOUR, taken, str(seed)) for seed in range(500)}
    assert chosen == {one for one in FOUR.cidr.subnets(new_prefix=29) if not any(overlap(one, t) for t in taken)}


def test_nodes_that_claim_at_once_rarely_collide() -> None:
    """Try 40 nodes with one view of 16,384 blocks, half of them taken: by chance one pair in ten such storms collides."""
    entry = Range(ip_network("10.0.0.0/10"), 24)
    taken: list[Cidr] = [*entry.cidr.subnets(new_prefix=24)][::2]
    chosen = {choose(Kind.ROUTED, entry, taken, f"uid{node} 0") for node in range(40)}
    assert len(chosen) >= 39
    assert not chosen & {None, *taken}


def test_a_pool_of_many_blocks_is_not_listed() -> None:
    huge = Range(ip_network("fd00::/16"), 64)
    chosen = {choose(Kind.ROUTED, huge, [ip_network("fd00::/20")], str(node)) for node in range(100)}
    assert len(chosen) == 100
    assert all(one is not None and find_range(Pool("p", Kind.ROUTED, (huge,)), one) for one in chosen)


@pytest.mark.parametrize(("kind", "text", "length", "gateway", "block", "expected"), [
    (Kind.ROUTED, "10.0.0.0/16", 28, None, "10.0.1.0/28", 13), (Kind.ROUTED, "fd00::/48", 64, None, "fd00::/64", 2**64 - 2),
    (Kind.ROUTED, "10.0.0.0/16", 31, None, "10.0.1.0/31", 0), (Kind.SEGMENT, "10.0.0.0/24", 28, None, "10.0.0.16/28", 16),
    (Kind.SEGMENT, "10.0.0.0/24", 28, None, "10.0.0.0/28", 14), (Kind.SEGMENT, "10.0.0.0/24", 28, "10.0.0.17", "10.0.0.16/28", 15),
    (Kind.SEGMENT, "10.0.0.0/24", 28, "10.0.0.17", "10.0.0.0/28", 15), (Kind.SEGMENT, "10.0.0.0/24", 28, None, "10.0.0.240/28", 15),
    (Kind.SEGMENT, "fd00::/64", 120, None, "fd00::ff00/120", 256),
])  # fmt: skip
def test_capacity(kind: Kind, text: str, length: int, gateway: str | None, block: str, expected: int) -> None:
    entry = Range(ip_network(text), length, ip_address(gateway) if gateway else None)
    assert capacity(kind, entry, ip_network(block)) == expected
    assert usual_capacity(kind, entry) >= max(1, expected)


def test_a_block_without_addresses_for_pods_is_not_claimed() -> None:
    assert choose(Kind.ROUTED, Range(ip_network("10.0.0.0/16"), 31), (), "x") is None
    segment = Range(ip_network("192.168.0.0/30"), 32)
    assert {choose(Kind.SEGMENT, segment, (), str(seed)) for seed in range(50)} == {ip_network("192.168.0.2/32")}


@pytest.mark.parametrize(("cidr", "number"), [("10.0.0.0/31", 0), ("10.0.0.2/31", 2), ("10.0.0.254/31", 0)])
def test_a_segments_block_of_two_has_both_addresses_or_none(cidr: str, number: int) -> None:
    entry = Range(ip_network("10.0.0.0/24"), 31, ip_address("10.0.0.9"))
    assert capacity(Kind.SEGMENT, entry, ip_network(cidr)) == number
