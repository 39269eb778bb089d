"""Blocks of other nodes that are gone from the engine a moment ago."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from shared.cluster.model import Block, Cidr, Local, Node, Peer, Route, Snapshot
from shared.cluster.vanished import Vanished

A, B, C = (ip_network(f"10.0.{number}.0/28") for number in range(3))
LOCAL = Local(Node("me", "mine", (ip_address("172.16.0.1"),), grace_seconds=300))


def snapshot(*cidrs: Cidr, uid: str = "theirs", peers: tuple[Peer, ...] = ()) -> Snapshot:
    blocks = {("pods", cidr): Block("pods", cidr, uid, uid, 1.0) for cidr in cidrs}
    return Snapshot(blocks=blocks, peers={one.node: one for one in peers}, is_current=True)


def route(cidr: Cidr) -> Route:
    return Route(cidr, "other", ip_address("172.16.0.2"), is_tunnelled=False)


def test_a_block_that_is_gone_is_remembered_for_the_grace() -> None:
    seen = Vanished()
    assert seen.note(snapshot(A, B), LOCAL, 0) == frozenset()
    assert seen.note(snapshot(B), LOCAL, 10) == {A}
    assert seen.note(snapshot(B, C), LOCAL, 300) == {A}
    assert seen.note(snapshot(B, C), LOCAL, 310) == frozenset()


def test_own_blocks_are_not_remembered() -> None:
    seen = Vanished()
    seen.note(snapshot(A, uid="mine"), LOCAL, 0)
    assert seen.note(snapshot(), LOCAL, 10) == frozenset()


def test_an_old_state_says_nothing() -> None:
    seen = Vanished()
    seen.note(snapshot(A), LOCAL, 0)
    assert seen.note(Snapshot(), LOCAL, 10) == frozenset()
    assert seen.note(snapshot(A), LOCAL, 20) == frozenset()


def test_the_first_state_is_compared_with_the_kept_routes() -> None:
    """A block that has a route belongs to a node, unless that announces it no more."""
    local = replace(LOCAL, kept_routes=frozenset([route(A), route(B), route(C)]))
    other = Peer("other", "theirs", (ip_address("172.16.0.2"),), {"pods": (C,)}, 1.0)
    assert Vanished().note(snapshot(B, peers=(other,)), local, 0) == {A}
