"""Single decisions of a node: by the engine's content and local truth, without either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from shared.cluster.decide import AGAIN_SECONDS, STEADY_SECONDS, decide
from shared.cluster.model import (
    Action,
    Alarm,
    Announce,
    Attempt,
    Block,
    Cidr,
    Claim,
    Confirm,
    Decision,
    Forget,
    Held,
    Kind,
    Local,
    Mark,
    Node,
    Peer,
    Pool,
    Publish,
    Range,
    Release,
    Route,
    SetRoutes,
    Snapshot,
    State,
)

NOW, GRACE = 10_000.0, 300.0
A, B, C, D = (ip_network(f"10.0.{number}.0/28") for number in range(4))
SIX = ip_network("fd00::/64")
POOL = Pool("pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/16"), 28),))
NODE = Node("me", "mine", (ip_address("172.16.0.1"), ip_address("fd16::1")), (ip_network("172.16.0.0/24"),))
KEY = tuple[str, Cidr]


def block(cidr: Cidr, uid: str = "mine", node: str = "me", **more: object) -> Block:
    return replace(Block("pods", cidr, node, uid, 1.0, revision="7"), **more)  # type: ignore[arg-type]


def held(cidr: Cidr, used: int = 1, **more: object) -> Held:
    return replace(Held("pods", cidr, used, is_published=True, since=1.0), **more)  # type: ignore[arg-type]


def idle(cidr: Cidr, seconds: float = GRACE, **more: object) -> Held:
    """Return a drained block without leases for so long."""
    one = held(cidr, 0, is_published=False, is_draining=True, empty_since=NOW - seconds)
    return replace(one, **more)  # type: ignore[arg-type]


def peer(node: str, *cidrs: Cidr, address: str = "172.16.0.2", since: float = 5.0, uid: str = "") -> Peer:
    return Peer(node, uid or f"uid-{node}", (ip_address(address),), {"pods": cidrs}, since)


def own_peer(*cidrs: Cidr) -> Peer:
    return Peer("me", "mine", NODE.addresses, {"pods": cidrs} if cidrs else {}, 5.0)


def snapshot(*objects: Block | Peer, pool: Pool | None = POOL, **more: object) -> Snapshot:
    blocks = {(one.network, one.cidr): one for one in objects if isinstance(one, Block)}
    peers = {one.node: one for one in objects if isinstance(one, Peer)}
    empty = Snapshot({pool.network: pool} if pool else {}, blocks, peers, is_current=True)
    return replace(empty, **more)  # type: ignore[arg-type]


def local(*parts: Held | Attempt | Route | Peer, node: Node = NODE, **more: object) -> Local:
    routes = frozenset(one for one in parts if isinstance(one, Route))
    base = Local(
        node,
        {(one.network, one.cidr): one for one in parts if isinstance(one, Held)},
        tuple(one for one in parts if isinstance(one, Attempt)),
        routes, kept_routes=routes, wall_seconds=100.0,
        announced=next((one for one in parts if isinstance(one, Peer)), None),
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


def actions(decision: Decision, *kinds: type) -> list[Action]:
    return [one for one in decision.actions if isinstance(one, kinds or (object,))]


def changes(decision: Decision) -> list[Action]:
    return [one for one in decision.actions if not isinstance(one, Alarm)]


def alarms(decision: Decision) -> set[tuple[str, str]]:
    return {(one.name, one.about) for one in decision.actions if isinstance(one, Alarm)}


def kinds(found: Sequence[Action]) -> list[str]:
    return [type(one).__name__ for one in found]


# -- the engine is silent

ROUTE = Route(C, "other", ip_address("172.16.0.2"), is_tunnelled=False)


def test_without_an_engine_nothing_changes() -> None:
    mine = local(held(A, 13), Attempt("pods", B, is_open=True), ROUTE, idle(D), kept_ranges={"pods": (A, D)})
    decision = decide(snapshot(is_current=False, failure="refused"), mine, NOW)
    assert changes(decision) == [] and alarms(decision) == {("not-synchronised", "me")}
    assert decision.again_seconds == STEADY_SECONDS


def test_a_boot_without_an_engine_restores_routes_and_conflist() -> None:
    mine = local(held(A, is_published=False), kept_routes=frozenset([ROUTE]), kept_ranges={"pods": (A,), "lan": ()})
    assert changes(decide(Snapshot(), mine, NOW)) == [Publish("pods", (A,)), SetRoutes(frozenset([ROUTE]))]


def test_the_checkpoint_adds_to_the_kernels_routes_and_replaces_none_else() -> None:
    other = Route(D, "third", ip_address("172.16.0.3"), is_tunnelled=False)
    mine = replace(local(other), kept_routes=frozenset([ROUTE]))
    assert changes(decide(Snapshot(), mine, NOW)) == [SetRoutes(frozenset([ROUTE, other]))]


# -- claims


def test_a_vanished_block_is_not_claimed() -> None:
    """Its owner may claim it again, as after a restored backup."""
    one, other = ip_network("10.0.0.0/28"), ip_network("10.0.0.16/28")
    small = replace(POOL, ranges=(Range(ip_network("10.0.0.0/27"), 28),))
    decision = decide(snapshot(pool=small), local(vanished=frozenset([one])), NOW)
    assert actions(decision, Claim) == [Claim("pods", other)]
    decision = decide(snapshot(pool=small), local(vanished=frozenset([one, other])), NOW)
    assert not actions(decision, Claim) and ("pool-exhausted", "pods") in alarms(decision)


def test_the_first_block_is_claimed_announced_published_in_this_order() -> None:
    decision = decide(snapshot(), local(), NOW)
    assert kinds(decision.actions) == ["Claim", "Announce", "Publish"]
    claim, announce, publish = decision.actions
    assert isinstance(claim, Claim) and isinstance(announce, Announce) and isinstance(publish, Publish)
    assert announce.peer.cidrs == {"pods": (claim.cidr,)} and publish.cidrs == (claim.cidr,)
    assert decision.again_seconds == AGAIN_SECONDS


def test_a_claim_that_fails_delays_no_other_network() -> None:
    lan = Pool("lan", Kind.SEGMENT, (Range(ip_network("192.168.0.0/24"), 28),))
    mine = Held("lan", ip_network("192.168.0.16/28"), 0, is_published=False, since=1.0)
    pools = {"pods": POOL, "lan": lan}
    seen = snapshot(replace(block(mine.cidr), network="lan"), own_peer(), pools=pools)
    decision = decide(seen, local(mine), NOW)
    assert kinds(decision.actions) == ["Publish", "Claim", "Announce", "Publish"]
    assert decision.actions[0] == Publish("lan", (mine.cidr,))
    for tried, other in (("lan", "pods"), ("pods", "lan")):
        both = decide(snapshot(pools=pools), local(Attempt(tried, D, is_open=False)), NOW)
        assert [one.network for one in both.actions if isinstance(one, Claim)] == [other, tried]


@pytest.mark.parametrize(("used", "is_claimed"), [(9, False), (10, True), (13, True), (99, True)])
def test_a_block_is_claimed_ahead_of_need(used: int, *, is_claimed: bool) -> None:
    """A /28 has 13 addresses; a quarter of them, 4, must be free."""
    decision = decide(snapshot(block(A), own_peer(A)), local(held(A, used)), NOW)
    assert bool(actions(decision, Claim)) == is_claimed


def test_an_open_claim_is_read_before_another_is_made() -> None:
    decision = decide(snapshot(own_peer()), local(Attempt("pods", A, is_open=True)), NOW)
    assert changes(decision) == [Confirm("pods", A)]


def test_a_taken_block_is_not_tried_again_until_the_snapshot_has_it() -> None:
    tiny = Pool("pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/27"), 28),))
    first, second = ip_network("10.0.0.0/28"), ip_network("10.0.0.16/28")
    for taken, free in ((first, second), (second, first)):
        mine = local(Attempt("pods", taken, is_open=False))
        assert Claim("pods", free) in decide(snapshot(pool=tiny), mine, NOW).actions
        seen = decide(snapshot(block(taken, "theirs", "other"), pool=tiny), mine, NOW)
        assert Forget("pods", taken, is_attempt=True) in seen.actions


def test_a_tried_block_is_tried_again_if_there_is_no_other() -> None:
    tiny = Pool("pods", Kind.ROUTED, (Range(A, 28),))
    assert Claim("pods", A) in decide(snapshot(pool=tiny), local(Attempt("pods", A, is_open=False)), NOW).actions


def test_an_exhausted_pool_is_an_alarm() -> None:
    tiny = Pool("pods", Kind.ROUTED, (Range(A, 28),))
    decision = decide(snapshot(block(A, "theirs", "other"), pool=tiny), local(), NOW)
    assert ("pool-exhausted", "pods") in alarms(decision) and not actions(decision, Claim, Publish)


def test_a_second_range_serves_when_the_first_is_full() -> None:
    two = Pool("pods", Kind.ROUTED, (Range(A, 28), Range(B, 28)))
    assert Claim("pods", B) in decide(snapshot(block(A, "theirs", "other"), pool=two), local(), NOW).actions


def test_a_peers_addresses_are_not_claimed() -> None:
    """A peer whose block the restored engine lacks claims it again by name."""
    tiny = Pool("pods", Kind.ROUTED, (Range(A, 28),))
    assert not actions(decide(snapshot(peer("other", A), pool=tiny), local(), NOW), Claim)


def test_addresses_of_other_networks_are_not_claimed() -> None:
    for kind, text, is_claimed in (
        (Kind.ROUTED, "172.16.0.0/24", False), (Kind.SEGMENT, "172.16.0.0/24", True), (Kind.ROUTED, str(A), False),
    ):  # fmt: skip
        pools = {"pods": POOL, "lan": Pool("lan", kind, (Range(ip_network(text), 28),))}
        decision = decide(snapshot(block(A), own_peer(A), pools=pools), local(held(A)), NOW)
        assert [one.network for one in decision.actions if isinstance(one, Claim)] == ["lan"] * is_claimed


def test_a_network_begins_with_all_families() -> None:
    both = Pool("pods", Kind.ROUTED, (*POOL.ranges, Range(ip_network("fd00::/48"), 64)))
    four = held(A, 0, is_published=False)
    waiting = decide(snapshot(block(A), pool=both), local(four, Attempt("pods", SIX, is_open=True)), NOW)
    assert not actions(waiting, Publish)
    ready = decide(snapshot(block(A), pool=both), local(four, held(SIX, 0, is_published=False)), NOW)
    assert actions(ready, Publish) == [Publish("pods", (A, SIX))]


def test_ranges_are_leased_from_the_fullest_with_free_addresses() -> None:
    mine = local(held(A, 13), held(B, 2), held(C, 5), held(D, 0))
    decision = decide(snapshot(*map(block, (A, B, C, D)), own_peer(A, B, C)), mine, NOW)
    assert actions(decision, Publish) == [Publish("pods", (C, B, A))]


# -- verification


def test_a_block_of_another_machine_leaves_the_conflist_at_once() -> None:
    decision = decide(snapshot(block(A, "theirs", "other"), block(B)), local(held(A, 3), held(B)), NOW)
    assert ("block-lost", str(A)) in alarms(decision)
    assert kinds(changes(decision))[0] == "Publish" and changes(decision)[0] == Publish("pods", (B,))
    (alarm,) = (one for one in decision.actions if isinstance(one, Alarm) and one.name == "block-lost")
    assert "node other" in alarm.text and "3 pods" in alarm.text


def test_a_read_by_name_tells_of_a_lost_block_before_the_snapshot() -> None:
    mine = local(held(A), held(B), Attempt("pods", A, is_open=False))
    decision = decide(snapshot(block(B)), mine, NOW)
    assert ("block-lost", str(A)) in alarms(decision) and Publish("pods", (B,)) in decision.actions


def test_a_network_without_a_family_pauses() -> None:
    """No pod starts without IPv4 because its last block is lost; the network begins again with all families."""
    both = replace(POOL, ranges=(*POOL.ranges, Range(ip_network("fd00::/48"), 64)))
    lost = snapshot(block(A, "theirs", "other"), block(SIX), pool=both)
    decision = decide(lost, local(held(A), held(SIX, 1)), NOW)
    assert actions(decision, Publish)[0] == Publish("pods", ())
    (claim,) = actions(decision, Claim)
    assert isinstance(claim, Claim) and actions(decision, Publish)[1] == Publish("pods", (claim.cidr, SIX))


def test_a_lost_block_is_forgotten_after_its_last_pod_and_the_grace() -> None:
    for one, is_forgotten in ((idle(A, 299), False), (idle(A), True), (idle(A, used=1), False)):
        decision = decide(snapshot(block(A, "theirs", "other"), block(B)), local(one, held(B)), NOW)
        assert (Forget("pods", A) in decision.actions) == is_forgotten
        assert not actions(decision, Release, Mark)


def test_a_missing_block_is_claimed_by_name_before_anything_is_published() -> None:
    decision = decide(snapshot(), local(held(A), held(B, 0, is_published=False)), NOW)
    assert kinds(changes(decision)) == ["Claim", "Claim", "Announce", "Publish"]
    assert actions(decision, Claim) == [Claim("pods", A), Claim("pods", B)]


@pytest.mark.parametrize("one", [held(A), held(A, 0), idle(A, used=1), idle(A, 299), idle(A, empty_since=None)])
def test_a_missing_block_that_pods_can_have_is_claimed(one: Held) -> None:
    assert Claim("pods", A) in decide(snapshot(block(B)), local(one, held(B)), NOW).actions


def test_a_missing_block_without_use_is_forgotten() -> None:
    decision = decide(snapshot(block(B), own_peer(B)), local(idle(A), held(B)), NOW)
    assert changes(decision) == [Forget("pods", A)]


def test_an_unknown_own_block_is_read_before_it_is_used() -> None:
    """An old snapshot may still show a released block."""
    decision = decide(snapshot(block(A), block(B), own_peer(B)), local(held(B)), NOW)
    assert changes(decision) == [Confirm("pods", A)]


def test_blocks_of_a_former_machine_are_told_and_left_alone() -> None:
    decision = decide(snapshot(block(A, "former"), block(B), own_peer(B)), local(held(B)), NOW)
    assert changes(decision) == [] and alarms(decision) == {("former-blocks", "me")}


def test_a_new_machine_withdraws_the_ranges_of_the_former_one() -> None:
    """Its disk may have the former conflist, but not the former id."""
    decision = decide(snapshot(block(A, "former"), block(B)), local(held(A), held(B)), NOW)
    assert changes(decision)[0] == Publish("pods", (B,))
    assert alarms(decision) == {("block-lost", str(A)), ("former-blocks", "me")}


def test_a_copied_machine_id_adopts_nothing() -> None:
    theirs = replace(peer("twin", A), uid="mine")
    decision = decide(snapshot(block(A, node="twin"), theirs, block(B), own_peer(B)), local(held(B)), NOW)
    assert changes(decision) == [] and alarms(decision) == {("id-twice", str(A))}
    renamed = decide(snapshot(block(A, node="before"), block(B), own_peer(B)), local(held(B)), NOW)
    assert changes(renamed) == [Confirm("pods", A)]


def test_a_machine_that_was_installed_again_uses_its_blocks() -> None:
    """It reads them by name before it claims others, then takes the first of them back."""
    state = snapshot(block(A), own_peer(A))
    assert actions(decide(state, local(), NOW), Confirm, Claim, Publish) == [Confirm("pods", A)]
    confirmed = decide(state, local(held(A, 0, is_published=False, is_draining=True)), NOW)
    assert actions(confirmed, Mark, Claim, Publish) == [Mark(block(A), State.OWNED), Publish("pods", (A,))]


def test_a_block_from_a_backup_is_left_to_the_peer_that_has_it() -> None:
    mine = local(held(A, 0, is_published=False), held(B, 13))
    decision = decide(snapshot(block(A), block(B), peer("other", A)), mine, NOW)
    assert not any(isinstance(one, Publish) and A in one.cidrs for one in decision.actions)
    assert Mark(block(A), State.DRAINING) in decision.actions


@pytest.mark.parametrize("used", [0, 1])
def test_a_drained_block_is_announced_unless_it_is_empty_and_a_peer_has_it(used: int) -> None:
    """Others would send the packets for the peer's pods here, as this node's claim is the older one."""
    mine = local(held(A, used, is_published=False, is_draining=True), held(B), own_peer(A, B))
    state = snapshot(block(A), block(B), own_peer(A, B), peer("other", A))
    announced = [one.peer.cidrs["pods"] for one in decide(state, mine, NOW).actions if isinstance(one, Announce)]
    assert announced == ([] if used else [(B,)])
    assert (("cidr-twice", str(A)) in alarms(decide(state, mine, NOW))) == bool(used)


def test_of_overlapping_blocks_the_younger_leaves() -> None:
    wide = ip_network("10.0.0.0/24")
    both = replace(POOL, ranges=(*POOL.ranges, Range(ip_network("10.0.0.0/16"), 24)))
    for since, leaves in ((0.5, True), (2.0, False)):
        other = block(wide, "theirs", "other", since=since)
        for pool in (POOL, both):
            mine = local(held(A), held(ip_network("10.0.9.0/24")) if pool is POOL else held(B))
            decision = decide(
                snapshot(block(A), block(B), block(ip_network("10.0.9.0/24")), other, pool=pool), mine, NOW
            )
            assert (("block-overlaps", str(A)) in alarms(decision)) == leaves


def test_an_unreadable_block_stays_as_it_is() -> None:
    unreadable = {f"blocks/pods/{A}": "garbled", f"blocks/pods/{B}": "garbled"}
    decision = decide(snapshot(own_peer(A, B), unreadable=unreadable), local(held(A), idle(B), own_peer(A)), NOW)
    assert not actions(decision, Claim, Publish, Release, Forget, Mark)
    assert {name for name, _ in alarms(decision)} == {"unreadable"}


def test_a_network_without_its_pool_keeps_its_ranges() -> None:
    decision = decide(snapshot(block(A), own_peer(A), pool=None), local(held(A, 13), own_peer(A)), NOW)
    assert changes(decision) == [] and alarms(decision) == {("pool-missing", "pods")}


# -- shrinking


def test_a_network_that_left_the_settings_gives_its_blocks_back() -> None:
    """A block with pods is drained, and an idle one is released; others' networks are left alone."""
    without = replace(NODE, networks=frozenset({"lan"}))
    told = snapshot(block(A), block(B, state=State.DRAINING), own_peer(A))
    decision = decide(told, local(held(A), idle(B), own_peer(A), node=without), NOW)
    assert changes(decision) == [
        Publish("pods", ()), Mark(block(A), State.DRAINING), Release(block(B, state=State.DRAINING)),
    ]  # fmt: skip
    assert alarms(decision) == {("network-unnamed", "pods")}
    decision = decide(snapshot(own_peer()), local(own_peer(), node=without), NOW)
    assert decision.actions == ()


@pytest.mark.parametrize(
    ("cidr", "kind", "is_told"),
    [
        ("10.0.128.0/17", Kind.ROUTED, True), ("10.0.0.0/8", Kind.SEGMENT, True), ("10.1.0.0/16", Kind.ROUTED, False),
    ],
)  # fmt: skip
def test_pools_with_common_addresses_are_told(cidr: str, kind: Kind, *, is_told: bool) -> None:
    other = Pool("zone", kind, (Range(ip_network(cidr), 28),))
    both = snapshot(block(A), own_peer(A), pools={"pods": POOL, "zone": other})
    decision = decide(both, local(held(A), own_peer(A), node=replace(NODE, networks=frozenset({"pods"}))), NOW)
    assert (("pools-overlap", "pods") in alarms(decision)) == is_told


def test_two_segments_may_have_the_same_addresses() -> None:
    pools = {name: Pool(name, Kind.SEGMENT, POOL.ranges) for name in ("left", "right")}
    nothing = replace(NODE, networks=frozenset())
    assert decide(snapshot(own_peer(), pools=pools), local(own_peer(), node=nothing), NOW).actions == ()


def test_the_emptiest_block_is_drained_and_marked_after_the_conflist() -> None:
    mine = local(held(A, 2), held(B, 1), held(C, 3))
    decision = decide(snapshot(block(A), block(B), block(C), own_peer(A, B, C)), mine, NOW)
    assert changes(decision) == [Publish("pods", (C, A)), Mark(block(B), State.DRAINING)]


@pytest.mark.parametrize(("used", "is_drained"), [(2, True), (3, False)])
def test_draining_leaves_half_a_block_above_the_watermark(used: int, *, is_drained: bool) -> None:
    """13 addresses, 4 of them the watermark, and 7 more: 11 must stay free."""
    decision = decide(snapshot(block(A), block(B), own_peer(A, B)), local(held(A, used), held(B, used)), NOW)
    assert bool(actions(decision, Mark)) == is_drained


def settle(cidrs: frozenset[Cidr], used: int) -> frozenset[Cidr]:
    """Return the published blocks after enough decisions for so many pods."""
    for _ in range(8):
        rest = used
        parts = []
        for cidr in sorted(cidrs):
            parts.append(held(cidr, min(rest, 13)))
            rest -= min(rest, 13)
        decision = decide(snapshot(*map(block, cidrs), own_peer(*cidrs)), local(*parts), NOW)
        for one in actions(decision, Publish):
            assert isinstance(one, Publish)
            cidrs = frozenset(one.cidrs)
    return cidrs


@pytest.mark.parametrize("used", range(0, 40, 3))
def test_few_pods_that_come_and_go_do_not_claim_and_drain(used: int) -> None:
    few = settle(frozenset([A]), used)
    more = settle(few, used + 3)
    for _ in range(3):
        assert settle(more, used) == more
        assert settle(more, used + 3) == more


def test_a_drained_block_is_used_again_before_a_claim() -> None:
    mine = local(held(A, 13), idle(B), idle(C, used=3), idle(D, used=13))
    blocks = [block(A), *(block(cidr, state=State.DRAINING) for cidr in (B, C, D))]
    decision = decide(snapshot(*blocks, own_peer(A, C, D)), mine, NOW)
    assert not actions(decision, Claim)
    assert kinds(changes(decision)) == ["Mark", "Publish", "Release"]  # a new revision stops a Release on its way
    mark, publish, release = changes(decision)
    assert mark == Mark(block(C, state=State.DRAINING), State.OWNED) and publish == Publish("pods", (C, A))
    assert release == Release(block(B, state=State.DRAINING))


def test_a_block_that_is_used_again_is_announced_before_it_is_published() -> None:
    decision = decide(snapshot(block(A), block(B, state=State.DRAINING), own_peer(A)), local(held(A, 13), idle(B)), NOW)
    assert kinds(changes(decision)) == ["Mark", "Announce", "Publish"]


@pytest.mark.parametrize(("one", "is_released"), [
    (idle(B), True), (idle(B, 299), False), (idle(B, empty_since=None), False), (idle(B, used=1), False),
    (idle(B, is_published=True), False), (idle(B, empty_since=NOW + 50), False),
])  # fmt: skip
def test_a_drained_block_is_released_when_no_pod_can_have_an_address(one: Held, *, is_released: bool) -> None:
    draining = block(B, state=State.DRAINING)
    decision = decide(snapshot(block(A), draining, own_peer(A, B)), local(held(A), one), NOW)
    assert (Release(draining) in decision.actions) == is_released


def test_nobody_announces_a_block_that_is_released() -> None:
    """Else its next owner has no route: the older claim keeps it."""
    for written in (own_peer(A, B), own_peer(A)):  # an old snapshot may look right
        mine = local(held(A), idle(B), own_peer(A, B))
        decision = decide(snapshot(block(A), block(B, state=State.DRAINING), written), mine, NOW)
        assert kinds(changes(decision)) == ["Announce", "Release"]


def test_a_release_waits_for_the_mark() -> None:
    decision = decide(snapshot(block(A), block(B), own_peer(A)), local(held(A), idle(B)), NOW)
    assert changes(decision) == [Mark(block(B), State.DRAINING)]


def test_the_next_decision_is_at_the_end_of_a_grace() -> None:
    mine = local(held(A), idle(B, 280))
    decision = decide(snapshot(block(A), block(B, state=State.DRAINING), own_peer(A, B)), mine, NOW)
    assert changes(decision) == [] and decision.again_seconds == 20.0


def test_blocks_that_the_pool_no_longer_has_go_after_a_new_one() -> None:
    old, old_too = ip_network("10.9.0.0/28"), ip_network("10.0.1.0/27")
    for former in (old, old_too):
        first = decide(snapshot(block(former)), local(held(former)), NOW)
        assert actions(first, Claim)
        (published,) = actions(first, Publish)
        assert isinstance(published, Publish) and former in published.cidrs
        then = decide(snapshot(block(former), block(D), own_peer(former, D)), local(held(former), held(D)), NOW)
        assert changes(then) == [Publish("pods", (D,)), Mark(block(former), State.DRAINING)]


# -- assigned CIDRs


def test_an_assigned_cidr_is_published_and_never_claimed() -> None:
    decision = decide(snapshot(assigned={"pods": (A, SIX)}, pool=None), local(), NOW)
    assert kinds(changes(decision)) == ["Announce", "Publish"]
    assert changes(decision)[-1] == Publish("pods", (A, SIX))
    full = local(held(A, 99, is_assigned=True), held(SIX, is_assigned=True))
    assert changes(decide(snapshot(own_peer(A, SIX), assigned={"pods": (A, SIX)}, pool=None), full, NOW)) == []


def test_a_new_assigned_cidr_comes_first_and_the_old_one_is_drained() -> None:
    old = held(A, 2, is_assigned=True)
    decision = decide(snapshot(assigned={"pods": (B,)}, pool=None), local(old), NOW)
    assert kinds(changes(decision)) == ["Announce", "Publish"]
    announce, publish = changes(decision)
    assert isinstance(announce, Announce) and announce.peer.cidrs == {"pods": (A, B)}
    assert publish == Publish("pods", (B,))
    new = held(B, is_assigned=True)
    for one, expected in ((replace(old, is_published=False), []), (idle(A, is_assigned=True), [Forget("pods", A)])):
        written = own_peer(*((A, B) if not expected else (B,)))
        assert changes(decide(snapshot(written, assigned={"pods": (B,)}, pool=None), local(one, new), NOW)) == expected


def test_an_assignment_that_is_gone_stays_in_use() -> None:
    decision = decide(snapshot(own_peer(A), pool=None), local(held(A, is_assigned=True)), NOW)
    assert changes(decision) == [] and alarms(decision) == {("assignment-missing", str(A))}


def test_from_blocks_to_assigned_and_back() -> None:
    there = decide(snapshot(block(A), own_peer(A), assigned={"pods": (B,)}), local(held(A)), NOW)
    assert kinds(changes(there)) == ["Announce", "Publish", "Mark"] and Publish("pods", (B,)) in there.actions
    back = decide(snapshot(own_peer(A)), local(held(A, is_assigned=True)), NOW)
    (publish,) = actions(back, Publish)
    assert actions(back, Claim) and isinstance(publish, Publish) and A in publish.cidrs
    gone = decide(snapshot(block(B), own_peer(A, B)), local(held(A, is_assigned=True), held(B)), NOW)
    assert Publish("pods", (B,)) in gone.actions and not actions(gone, Mark, Release)


# -- segments


def test_a_segments_blocks_have_no_routes_and_are_not_announced() -> None:
    lan = Pool("lan", Kind.SEGMENT, (Range(ip_network("192.168.0.0/24"), 28),))
    other = Peer("other", "theirs", (ip_address("172.16.0.2"),), {"lan": (C,)}, 1.0)
    decision = decide(snapshot(other, pool=lan), local(), NOW)
    assert not actions(decision, SetRoutes)
    assert [one.peer.cidrs for one in decision.actions if isinstance(one, Announce)] == [{}]


# -- peers and routes


def routes(decision: Decision) -> dict[Cidr, tuple[str, str, bool]]:
    found = [one for one in decision.actions if isinstance(one, SetRoutes)]
    return {one.cidr: (one.node, str(one.via), one.is_tunnelled) for one in (found[0].routes if found else ())}


def settled(*objects: Block | Peer, unreadable: Sequence[str] = ()) -> Snapshot:
    return snapshot(block(A), own_peer(A), *objects, unreadable=dict.fromkeys(unreadable, "garbled"))


def test_routes_go_by_family_and_through_the_tunnel_off_the_link() -> None:
    six, far_six, third = SIX, ip_network("fd01::/64"), ip_network("fd02::/64")
    near = Peer("near", "n", (ip_address("172.16.0.2"), ip_address("fd16::2")), {"pods": (B, six)}, 1.0, "02::2")
    far = Peer("far", "f", (ip_address("172.17.0.2"),), {"pods": (C, far_six)}, 1.0, "02::3")
    none = Peer("none", "x", (ip_address("172.16.0.4"), ip_address("fd16::4")), {"pods": (D, third)}, 1.0)
    by_link = {
        B: ("near", "172.16.0.2", False), six: ("near", "fd16::2", True), D: ("none", "172.16.0.4", False),
        C: ("far", "172.17.0.2", True), far_six: ("far", "172.17.0.2", True),
    }  # fmt: skip
    decision = decide(settled(near, far, none), local(held(A)), NOW)
    assert routes(decision) == by_link
    (action,) = actions(decision, SetRoutes)
    assert isinstance(action, SetRoutes)
    assert {(one.is_tunnelled, one.mac) for one in action.routes} == {(False, ""), (True, "02::2"), (True, "02::3")}
    never = decide(settled(near, far, none), local(held(A), node=replace(NODE, tunnels=False)), NOW)
    assert routes(never) == {
        **{cidr: (name, via, False) for cidr, (name, via, _) in by_link.items() if cidr != far_six},
        third: ("none", "fd16::4", False),
    }
    always = decide(settled(near, far, none), local(held(A), node=replace(NODE, tunnels=True)), NOW)
    assert routes(always) == {cidr: (name, via, True) for cidr, (name, via, _) in by_link.items() if name != "none"}


def test_a_new_mac_of_a_tunnels_end_sets_the_routes() -> None:
    right = Route(B, "other", ip_address("172.17.0.2"), is_tunnelled=True, mac="02::2")
    for mac, is_set in (("02::2", False), ("02::3", True)):
        other = replace(peer("other", B, address="172.17.0.2"), vtep_mac=mac)
        mine = replace(local(held(A), right), kept_routes=frozenset([replace(right, mac=mac)]))
        assert bool(actions(decide(settled(other), mine, NOW), SetRoutes)) == is_set


def test_routes_that_are_right_are_not_set_again() -> None:
    right = Route(B, "", ip_address("172.16.0.2"), is_tunnelled=False)  # the kernel knows no node
    named = frozenset([replace(right, node="other")])
    assert changes(decide(settled(peer("other", B)), replace(local(held(A), right), kept_routes=named), NOW)) == []


def test_the_engines_owner_else_the_older_peer_keeps_the_route() -> None:
    older, younger = peer("older", B, since=1.0), peer("younger", B, address="172.16.0.3", since=2.0)
    for peers in ((older, younger), (younger, older)):
        assert routes(decide(settled(*peers), local(held(A)), NOW))[B][0] == "older"
    assert routes(decide(settled(younger), local(held(A)), NOW))[B][0] == "younger"
    by_block = settled(older, younger, block(B, "uid-younger", "younger", since=9.0))
    assert routes(decide(by_block, local(held(A)), NOW))[B][0] == "younger"
    assert changes(
        decide(settled(), local(held(A), Route(B, "older", older.addresses[0], is_tunnelled=False)), NOW)
    ) == [SetRoutes(frozenset())]


@pytest.mark.parametrize("cidr", [A, ip_network("10.0.0.0/30"), ip_network("10.0.0.0/24")])
def test_own_addresses_are_never_routed_away(cidr: Cidr) -> None:
    decision = decide(settled(peer("other", cidr)), local(held(A)), NOW)
    assert ("cidr-twice", str(A)) in alarms(decision)
    assert (cidr in routes(decision)) == (cidr.prefixlen < A.prefixlen)


@pytest.mark.parametrize("text", ["172.16.0.0/24", "172.16.0.2/32", "172.16.0.0/16", "0.0.0.0/0"])
def test_the_nodes_own_network_is_never_routed_away(text: str) -> None:
    decision = decide(settled(peer("other", ip_network(text))), local(held(A)), NOW)
    assert routes(decision) == {} and ("cidr-unroutable", text) in alarms(decision)


@pytest.mark.parametrize("network", ["pods", "another"])
def test_a_part_of_anothers_block_gets_no_route(network: str) -> None:
    """Its route would be preferred to that of the whole block."""
    part = ip_network((int(C.network_address), C.prefixlen + 2))
    liar = replace(peer("liar"), cidrs={network: (part,)})
    found = snapshot(block(C, "uid-other", "other"), peer("other", C, address="172.16.0.3"), liar)
    decision = decide(found, local(held(A)), NOW)
    assert set(routes(decision)) == {C} and ("cidr-unroutable", str(part)) in alarms(decision)


def test_a_closed_attempt_is_read_again_until_the_snapshot_shows_its_block() -> None:
    """Its owner may have released it in the meantime, so that no snapshot ever shows it."""
    closed = Attempt("pods", B, is_open=False)
    assert Confirm("pods", B) in decide(settled(), local(held(A), closed), NOW).actions
    shown = decide(settled(block(B, "uid-other", "other")), local(held(A), closed), NOW)
    assert Forget("pods", B, is_attempt=True) in shown.actions and Confirm("pods", B) not in shown.actions


def test_a_peer_without_a_way_is_told() -> None:
    """It is on no link of this node, and it has no tunnel."""
    near, far = peer("near", B), peer("far", C, address="203.0.113.7")
    assert ("peers-unreached", "me") not in alarms(decide(settled(near), local(held(A)), NOW))
    assert ("peers-unreached", "me") in alarms(decide(settled(near, far), local(held(A)), NOW))
    reached = replace(far, vtep_mac="02:00:00:00:00:01")
    assert ("peers-unreached", "me") not in alarms(decide(settled(near, reached), local(held(A)), NOW))


def test_a_range_from_before_the_cluster_is_left_alone() -> None:
    """Each node may have the same one: nothing is claimed, and the conflist stays."""
    whole = held(POOL.ranges[0].cidr, 3, since=0.0)
    decision = decide(snapshot(own_peer()), local(whole, own_peer()), NOW)
    assert ("range-foreign", str(whole.cidr)) in alarms(decision) and changes(decision) == []
    adopted = decide(snapshot(), local(held(A, since=0.0), own_peer()), NOW)  # the checkpoint is lost
    assert Claim("pods", A) in adopted.actions


def test_a_route_stays_while_its_peer_has_no_address_or_cannot_be_read() -> None:
    silent = replace(peer("other", C), addresses=())
    assert changes(decide(settled(silent), local(held(A), ROUTE), NOW)) == []
    assert changes(decide(settled(unreadable=["nodes/other"]), local(held(A), ROUTE), NOW)) == []


def test_a_peer_with_this_nodes_address_or_id_gets_no_route() -> None:
    wrong = (peer("other", B, address="172.16.0.1"), peer("before", C, uid="mine"), peer("me", D, uid="former"))
    for one in wrong:
        assert routes(decide(snapshot(block(A), one), local(held(A)), NOW)) == {}


def test_a_new_machine_takes_over_its_name_with_a_later_age() -> None:
    decision = decide(snapshot(block(A), peer("me", B, since=5000.0, uid="former")), local(held(A)), NOW)
    (announce,) = actions(decision, Announce)
    assert isinstance(announce, Announce) and (announce.peer.uid, announce.peer.since) == ("mine", 5001.0)


def test_two_living_machines_of_one_name_do_not_write_in_turns() -> None:
    newer = replace(own_peer(B), uid="newer", since=5001.0)
    yielding = decide(snapshot(block(A), newer), local(held(A), own_peer(A)), NOW)
    assert not actions(yielding, Announce) and ("name-twice", "me") in alarms(yielding)
    older = replace(newer, since=4.0)
    assert actions(decide(snapshot(block(A), older), local(held(A), own_peer(A)), NOW), Announce)


def test_the_age_of_the_own_peer_object_survives_a_lost_checkpoint() -> None:
    assert changes(decide(settled(), local(held(A)), NOW)) == []


# -- encryption

CODED = replace(NODE, encrypts=True, public_key="mine")


def coded(node: str, *cidrs: Cidr, key: str = "theirs") -> Peer:
    return replace(peer(node, *cidrs), public_key=key, vtep_mac="02::2")


def way(cidr: Cidr, node: str = "other", via: str = "172.16.0.2", key: str = "theirs") -> Route:
    return Route(cidr, node, ip_address(via), is_tunnelled=True, key=key)


def refused(cidr: Cidr, node: str = "") -> Route:
    return Route(cidr, node, cidr.network_address, is_tunnelled=False, is_refused=True)


WHOLE = refused(POOL.ranges[0].cidr)


def set_routes(decision: Decision) -> frozenset[Route]:
    (found,) = [one.routes for one in decision.actions if isinstance(one, SetRoutes)]
    return found


def encrypting(*routes: Route, **more: object) -> Local:
    return local(held(A), *routes, own_peer(A), node=replace(CODED, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("tunnels", [None, True, False])
def test_encrypted_routes_go_over_one_address_of_the_peer(tunnels: bool | None) -> None:
    """WireGuard has one for each key: the first one of a family that this node has."""
    both = replace(coded("other", B, SIX), addresses=(ip_address("fd16::2"), ip_address("172.16.0.2")))
    decision = decide(settled(both), encrypting(tunnels=tunnels), NOW)
    assert set_routes(decision) == {way(B, via="fd16::2"), way(SIX, via="fd16::2"), WHOLE}
    single = encrypting(addresses=NODE.addresses[:1], tunnels=tunnels)
    assert set_routes(decide(settled(both), single, NOW)) == {way(B), way(SIX), WHOLE}
    assert alarms(decision) == set()


@pytest.mark.parametrize("key", ["", "mine"])
def test_a_peer_without_a_key_of_its_own_is_refused(key: str) -> None:
    """No packet goes to it in clear, whichever way there was before; one alarm names such peers."""
    third = ip_network("10.9.0.0/28")  # of no pool
    before = Route(B, "other", ip_address("172.16.0.2"), is_tunnelled=False)
    peers = coded("other", B, third, key=key), coded("right", C)
    decision = decide(settled(*peers), encrypting(before), NOW)
    assert set_routes(decision) == {refused(B, "other"), refused(third, "other"), way(C, "right"), WHOLE}
    (alarm,) = actions(decision, Alarm)
    assert isinstance(alarm, Alarm) and alarm.name == "encryption-differs"
    assert "1 nodes (other) have no WireGuard key" in alarm.text


@pytest.mark.parametrize("present", [way(B, key="old"), way(B, key=""), refused(B), way(B, via="172.16.0.3")])
def test_the_kernels_routes_are_corrected(present: Route) -> None:
    mine = replace(encrypting(present, WHOLE), kept_routes=frozenset([way(B), WHOLE]))
    for silent in (settled(coded("other", B)), Snapshot()):
        assert set_routes(decide(silent, mine, NOW)) == {way(B), WHOLE}


def test_an_old_key_is_no_way() -> None:
    decision = decide(settled(coded("other", B, key="")), encrypting(way(B)), NOW)
    assert set_routes(decision) == {refused(B, "other"), WHOLE}
    replaced = decide(settled(coded("other", B, key="new")), encrypting(way(B), WHOLE), NOW)
    assert set_routes(replaced) == {way(B, key="new"), WHOLE}


def test_a_node_that_cannot_encrypt_refuses_all() -> None:
    node = {"public_key": "", "encryption_failure": "no such kind of link"}
    decision = decide(settled(coded("other", B)), encrypting(**node), NOW)
    assert set_routes(decision) == {refused(B, "other"), WHOLE}
    assert ("encryption-unavailable", "me") in alarms(decision)
    assert ("encryption-unavailable", "me") in alarms(decide(Snapshot(), encrypting(**node), NOW))


def test_ranges_without_a_pool_are_refused_unless_nodes_are_in_them() -> None:
    ranges = ip_network("10.7.0.0/16"), ip_network("172.16.0.0/12")
    decision = decide(settled(coded("other", B)), encrypting(cluster_cidrs=ranges), NOW)
    assert set_routes(decision) == {way(B), WHOLE, refused(ranges[0])}


def test_routes_of_an_unreadable_peer_stay_if_they_are_encrypted() -> None:
    clear = Route(C, "odd", ip_address("172.16.0.3"), is_tunnelled=False)
    decision = decide(settled(unreadable=["nodes/odd"]), encrypting(way(B, "odd"), clear), NOW)
    assert set_routes(decision) == {way(B, "odd"), refused(C, "odd"), WHOLE}


def test_nothing_leaves_in_clear_while_the_engine_is_silent() -> None:
    clear = Route(C, "third", ip_address("172.16.0.3"), is_tunnelled=False)
    decision = decide(Snapshot(), encrypting(way(B), clear, WHOLE), NOW)
    assert set_routes(decision) == {way(B), refused(C, "third"), WHOLE}
    assert not actions(decide(Snapshot(), encrypting(way(B), WHOLE), NOW), SetRoutes)


def test_encryption_is_switched_off() -> None:
    """Routes are clear again. Peers that still encrypt are named."""
    decision = decide(settled(coded("other", B)), local(held(A), way(B), WHOLE), NOW)
    assert set_routes(decision) == {Route(B, "other", ip_address("172.16.0.2"), is_tunnelled=False)}
    assert ("encryption-differs", "me") in alarms(decision)
    unreadable = decide(settled(unreadable=["nodes/other"]), local(held(A), way(B), refused(C, "other")), NOW)
    assert set_routes(unreadable) == {way(B)}


# -- blocks that cannot be read


def test_an_unreadable_block_is_not_claimed() -> None:
    two = Pool("pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/27"), 28),))
    unreadable = {"blocks/pods/10.0.0.16/28": "newer", "blocks/pods/garbage": "no CIDR", "blocks/podsy/10.0.0.0/28": ""}
    found = decide(snapshot(block(A), pool=two, unreadable=unreadable), local(held(A, 12)), NOW)
    assert not actions(found, Claim)
    assert ("pool-exhausted", "pods") in alarms(found)


def test_an_attempt_at_an_unreadable_block_holds_up_nothing() -> None:
    mine = local(held(A, 12), Attempt("pods", B, is_open=True))
    found = decide(snapshot(block(A), unreadable={f"blocks/pods/{B}": "newer"}), mine, NOW)
    assert not actions(found, Confirm)
    assert [one.cidr not in (A, B) for one in actions(found, Claim) if isinstance(one, Claim)] == [True]


# -- nodes with another name, and addresses of nodes


@pytest.mark.parametrize("names", [("old", "new"), ("new", "old")])
def test_the_route_follows_a_machine_that_was_renamed(names: tuple[str, str]) -> None:
    old, new = (
        peer(name, C, address=f"172.16.0.{number}", since=float(number), uid="one")
        for number, name in enumerate(names, 7)
    )
    for objects in ((old, new), (new, old)):
        found = actions(decide(snapshot(block(C, "one", names[0]), *objects), local(), NOW), SetRoutes)
        assert [[one.via for one in routes.routes] for routes in found if isinstance(routes, SetRoutes)] == [
            [new.addresses[0]]
        ]


@pytest.mark.parametrize("seed", ["a", "b", "c", "d", "e", "f"])
def test_no_node_claims_a_block_with_the_address_of_a_node(seed: str) -> None:
    two = Pool("pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/27"), 28),))
    alone = replace(NODE, uid=seed, addresses=(ip_address("10.0.0.5"),), links=())
    mine = actions(decide(snapshot(pool=two), local(node=alone), NOW), Claim)
    other = peer("far", address="10.0.0.21")
    theirs = actions(decide(snapshot(other, pool=two), local(node=replace(NODE, uid=seed)), NOW), Claim)
    assert (mine, theirs) == ([Claim("pods", ip_network("10.0.0.16/28"))], [Claim("pods", ip_network("10.0.0.0/28"))])


@pytest.mark.parametrize("seed", ["a", "b", "c", "d", "e", "f"])
def test_no_node_claims_a_block_of_another_link(seed: str) -> None:
    """A network that contains all of the pool, as an old bridge may have, hides nothing."""
    two = Pool("pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/27"), 28),))
    links = (*NODE.links, ip_network("10.0.0.16/29"), ip_network("10.0.0.0/16"))
    mine = local(node=replace(NODE, uid=seed, links=links))
    assert actions(decide(snapshot(pool=two), mine, NOW), Claim) == [Claim("pods", ip_network("10.0.0.0/28"))]
