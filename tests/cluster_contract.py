"""The contract of an `Engine`: each engine's tests have a subclass, with a fixture that makes engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from shared.cluster.engine import Engine, Taken
from shared.cluster.model import Block, Cidr, Kind, Peer, Pool, Range, Snapshot, State
from tests.pretend import until

if TYPE_CHECKING:
    from typing import Self

CIDR = IPv4Network("10.4.0.0/24")
SECONDS = 1790000000.25  # since 1970; a float that JSON keeps
CLAIMERS, BLOCKS = 24, 8

Connect = Callable[[], Engine]


def block(cidr: Cidr = CIDR, *, node: str = "one", network: str = "pods") -> Block:
    return Block(network, cidr, node, f"uid-{node}", SECONDS)


def peer(node: str = "one", **fields: object) -> Peer:
    addresses = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
    found = Peer(node, f"uid-{node}", addresses, {"pods": (CIDR, ip_network("fd04::/80"))}, SECONDS)
    return replace(found, **fields)  # type: ignore[arg-type]


def pool(network: str = "pods") -> Pool:
    four, six = ip_network("10.4.0.0/16"), ip_network("fd04::/64")
    return Pool(network, Kind.SEGMENT, (Range(four, 24, ip_address("10.4.0.1")), Range(six, 80)))


class Following:
    """A `follow` in a thread. A context manager, which closes the engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.states: list[Snapshot] = []
        self.thread = threading.Thread(target=engine.follow, args=(self.states.append,), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.engine.close()
        self.thread.join(60)
        assert not self.thread.is_alive()

    @property
    def state(self) -> Snapshot:
        """Return the newest state, or the empty one before the first."""
        return self.states[-1] if self.states else Snapshot()

    def until(self, condition: Callable[[Snapshot], bool], *, seconds: float = 60) -> Snapshot:
        """Return the first newest state that meets a condition."""
        found: list[Snapshot] = []

        def is_met() -> bool:
            state = self.state
            if condition(state):
                found.append(state)
            return bool(found)

        until(is_met, seconds=seconds)
        return found[0]

    def until_current(self) -> Snapshot:
        return self.until(lambda state: state.is_current)


class EngineContract:
    """Tests of an engine. The fixture `connect` returns a function that makes engines to one, empty cluster."""

    @pytest.fixture
    def engine(self, connect: Connect) -> Iterator[Engine]:
        engine = connect()
        yield engine
        engine.close()

    @pytest.fixture
    def following(self, connect: Connect) -> Iterator[Following]:
        with Following(connect()) as following:
            following.until_current()
            yield following

    def test_claim(self, engine: Engine) -> None:
        claimed = engine.claim(block())
        assert claimed == replace(block(), revision=claimed.revision) and claimed.revision
        assert engine.read_block("pods", CIDR) == claimed

    def test_a_claimed_block_is_taken(self, engine: Engine) -> None:
        claimed = engine.claim(block())
        for again in (block(node="two"), block(), claimed):
            with pytest.raises(Taken):
                engine.claim(again)
        assert engine.read_block("pods", CIDR) == claimed

    def test_a_block_is_of_one_network(self, engine: Engine) -> None:
        first, second = engine.claim(block()), engine.claim(block(node="two", network="nodes"))
        assert engine.read_block("pods", CIDR) == first and engine.read_block("nodes", CIDR) == second

    def test_both_families(self, engine: Engine) -> None:
        claimed = engine.claim(block(ip_network("fd04:0:0:0:1::/80")))
        assert engine.read_block("pods", ip_network("fd04:0:0:0:1::/80")) == claimed

    def test_no_block(self, engine: Engine) -> None:
        assert engine.read_block("pods", CIDR) is None

    def test_update(self, engine: Engine) -> None:
        claimed = engine.claim(block())
        drained = engine.update_block(replace(claimed, state=State.DRAINING))
        assert drained.state is State.DRAINING and drained.revision not in ("", claimed.revision)
        assert engine.read_block("pods", CIDR) == drained
        assert engine.update_block(replace(drained, state=State.OWNED)).state is State.OWNED

    def test_an_older_revision_changes_nothing(self, engine: Engine) -> None:
        claimed = engine.claim(block())
        drained = engine.update_block(replace(claimed, state=State.DRAINING))
        for stale in (
            claimed,
            replace(claimed, revision=""),
            replace(claimed, revision="0"),
            replace(claimed, revision="x"),
        ):
            with pytest.raises(Taken):
                engine.update_block(stale)
            with pytest.raises(Taken):
                engine.release(stale)
        assert engine.read_block("pods", CIDR) == drained

    def test_an_update_claims_nothing(self, engine: Engine) -> None:
        claimed = engine.claim(block())
        engine.release(claimed)
        for stale in (claimed, block(), replace(block(), revision="0")):
            with pytest.raises(Taken):
                engine.update_block(stale)
        assert engine.read_block("pods", CIDR) is None

    def test_release(self, engine: Engine) -> None:
        claimed = engine.claim(block())
        engine.release(claimed)
        assert engine.read_block("pods", CIDR) is None
        engine.release(claimed)  # gone is a success

    def test_a_release_spares_the_next_owner(self, engine: Engine) -> None:
        first = engine.claim(block())
        engine.release(first)
        second = engine.claim(block(node="two"))
        with pytest.raises(Taken):
            engine.release(first)
        assert engine.read_block("pods", CIDR) == second

    def test_follow_begins_with_everything(self, engine: Engine, connect: Connect) -> None:
        engine.write_pool(pool())
        claimed = engine.claim(block())
        announced = engine.announce(peer(vtep_mac="02:00:00:00:00:01", public_key=f"{'A' * 43}="))
        with Following(connect()) as following:
            state = following.until_current()
        assert state.pools == {"pods": pool()}
        assert state.blocks == {("pods", CIDR): claimed}
        assert state.peers == {"one": announced}
        assert not state.unreadable and not state.failure

    def test_follow_tells_each_change(self, engine: Engine, following: Following) -> None:
        claimed = engine.claim(block())
        following.until(lambda state: state.blocks == {("pods", CIDR): claimed})
        drained = engine.update_block(replace(claimed, state=State.DRAINING))
        following.until(lambda state: state.blocks == {("pods", CIDR): drained})
        engine.release(drained)
        following.until(lambda state: not state.blocks)
        announced = engine.announce(peer())
        following.until(lambda state: state.peers == {"one": announced})
        engine.withdraw(announced)
        following.until(lambda state: not state.peers)
        engine.write_pool(pool())
        following.until(lambda state: state.pools == {"pods": pool()})

    def test_a_state_does_not_change_later(self, engine: Engine, following: Following) -> None:
        before = following.state
        engine.claim(block())
        after = following.until(lambda state: bool(state.blocks))
        engine.claim(block(ip_network("10.4.1.0/24")))
        following.until(lambda state: len(state.blocks) > 1)
        assert not before.blocks and len(after.blocks) == 1

    def test_an_announcement_has_no_condition(self, engine: Engine, connect: Connect) -> None:
        other = connect()
        first = engine.announce(peer())
        second = other.announce(peer(addresses=(ip_address("192.0.2.7"),)))
        assert first.revision != second.revision
        third = engine.announce(first)
        with Following(other) as following:
            assert following.until_current().peers == {"one": third}

    def test_withdraw_compares_the_revision(self, engine: Engine, following: Following) -> None:
        old = engine.announce(peer())
        new = engine.announce(peer(vtep_mac="02:00:00:00:00:02"))
        for stale in (old, replace(new, revision=""), replace(new, revision="x")):
            with pytest.raises(Taken):
                engine.withdraw(stale)
        engine.withdraw(new)
        engine.withdraw(new)  # gone
        following.until(lambda state: not state.peers and bool(following.states[1:]))

    def test_nobody_lives(self, engine: Engine) -> None:
        engine.announce(peer())
        assert engine.find_life("two", "uid-one") == ""

    def test_a_pool_is_replaced(self, engine: Engine, following: Following) -> None:
        engine.write_pool(pool())
        routed = replace(pool(), kind=Kind.ROUTED, ranges=pool().ranges[:1])
        engine.write_pool(routed)
        following.until(lambda state: state.pools == {"pods": routed})

    def test_claimers_at_once(self, connect: Connect) -> None:
        cidrs = list(IPv4Network("10.4.0.0/16").subnets(new_prefix=24))[:BLOCKS]
        engines = [connect() for _ in range(CLAIMERS)]

        def claim_first_free(number: int) -> Block | None:
            for cidr in cidrs:
                try:
                    return engines[number].claim(block(cidr, node=f"node-{number}"))
                except Taken:
                    continue
            return None

        with ThreadPoolExecutor(CLAIMERS) as pool:
            claimed = [found for found in pool.map(claim_first_free, range(CLAIMERS)) if found]
        assert sorted(found.cidr for found in claimed) == cidrs
        assert len({found.uid for found in claimed}) == BLOCKS
        assert [engines[0].read_block("pods", found.cidr) for found in claimed] == claimed
        for engine in engines:
            engine.close()

    def test_requests_are_counted(self, engine: Engine, following: Following) -> None:
        before = engine.counts()
        engine.claim(block())
        after = engine.counts()
        assert after.requests > before.requests
        assert after.sent_bytes > before.sent_bytes and after.received_bytes > before.received_bytes
        following.until(lambda state: bool(state.blocks))
        assert following.engine.counts().events >= 1

    def test_a_closed_engine_follows_no_more(self, connect: Connect) -> None:
        engine = connect()
        with Following(engine) as following:
            following.until_current()
            engine.close()
            following.thread.join(60)
            assert not following.thread.is_alive()
