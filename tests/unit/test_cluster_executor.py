"""The execution of decisions: the order of effects, and the state after each failure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from shared.cluster.checkpoint import Checkpoint
from shared.cluster.conflist import InvalidTemplate
from shared.cluster.engine import EngineError, Refused, Taken
from shared.cluster.executor import RETRY_SECONDS, Executor, Step
from shared.cluster.model import (
    Attempt,
    Block,
    Cidr,
    Held,
    Kind,
    Local,
    Mark,
    Node,
    Peer,
    Pool,
    Publish,
    Range,
    Route,
    Snapshot,
    State,
)
from shared.cluster.routes import Outcome
from shared.cni.errors import IOFailure

NOW, WALL = 10_000.0, 500.0
A, B, C = (ip_network(f"10.0.{number}.0/28") for number in range(3))
POOL = Pool("pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/16"), 28),))
NODE = Node("me", "mine", (ip_address("172.16.0.1"),), (ip_network("172.16.0.0/24"),))
FAR = Route(ip_network("10.0.9.0/28"), "far", ip_address("192.0.2.7"), is_tunnelled=True, mac="02::7")
SAID = Peer("me", "mine", NODE.addresses, {"pods": (A,)}, 5.0)


class World:
    """The engine, the host and the memory of one executor. Each effect is noted, and may fail."""

    def __init__(self, *blocks: Block, **checkpoint: Any) -> None:
        self.blocks = {(one.network, one.cidr): one for one in blocks}
        self.peers: dict[str, Peer] = {}
        self.pools = {"pods": POOL}
        self.assigned: dict[str, tuple[Cidr, ...]] = {}
        self.disk = Checkpoint(**checkpoint)
        self.conflists: dict[str, tuple[Cidr, ...]] = {}
        self.used: dict[Cidr, int] = {}
        self.routes: frozenset[Route] = frozenset()
        self.empty_since: float | None = 0.0
        self.effects: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.missing: frozenset[Route] = frozenset()
        self.life_refusal = ""
        self.executor = Executor(self, self, self)  # type: ignore[arg-type]

    def step(self, **snapshot: Any) -> Step:
        self.effects.clear()
        told = Snapshot(self.pools, dict(self.blocks), self.peers, self.assigned, is_current=True)
        return self.executor.step(replace(told, **snapshot), NOW, WALL)

    def _do(self, effect: str) -> None:
        if effect in self.failures:
            raise self.failures[effect]
        self.effects.append(effect)

    # the engine

    def claim(self, block: Block) -> Block:
        self._do("claim")
        if (block.network, block.cidr) in self.blocks:
            raise Taken("somebody has it")
        self.blocks[block.network, block.cidr] = replace(block, revision="1")
        return block

    def read_block(self, network: str, cidr: Cidr) -> Block | None:
        self._do("read")
        return self.blocks.get((network, cidr))

    def update_block(self, block: Block) -> Block:
        self._do(f"mark {block.state.value}")
        self.blocks[block.network, block.cidr] = block
        return block

    def release(self, block: Block) -> None:
        self._do("release")
        del self.blocks[block.network, block.cidr]

    def find_life_refusal(self) -> str:
        return self.life_refusal

    def announce(self, peer: Peer) -> Peer:
        self._do("announce")
        self.peers = {peer.node: replace(peer, public_key="", revision=f"{len(self.peers) + 1}")}
        return self.peers[peer.node]

    # the memory

    def read(self) -> Checkpoint:
        return self.disk

    def write(self, checkpoint: Checkpoint) -> bool:
        self._do("note")
        self.disk = checkpoint
        return True

    # the host

    def look(self, checkpoint: Checkpoint, before: Local | None, *, now: float, wall_seconds: float) -> Local:  # noqa: ARG002
        published = {(network, cidr) for network, cidrs in self.conflists.items() for cidr in cidrs}
        known = {**{key: Held(*key, 0, is_published=True, since=0.0) for key in published}, **checkpoint.held}
        held = {
            key: replace(
                one, used=self.used.get(key[1], 0), is_published=key in published,
                empty_since=None if key in published else self.empty_since,
            )
            for key, one in known.items()
        }  # fmt: skip
        return Local(
            NODE, held, checkpoint.attempts, self.routes, checkpoint.kept_ranges, checkpoint.kept_routes, wall_seconds,
            checkpoint.announced,
        )  # fmt: skip

    def publish(self, network: str, cidrs: tuple[Cidr, ...], snapshot: Snapshot) -> None:  # noqa: ARG002
        self._do(f"publish {network}")
        self.conflists[network] = cidrs

    def set_routes(self, routes: frozenset[Route], local: Local) -> Outcome:  # noqa: ARG002
        self._do("routes")
        self.routes = routes - self.missing
        return Outcome(self.missing, ())

    def remove_gateways(self, cidrs: Iterable[Cidr]) -> None:  # noqa: ARG002
        self._do("gateways")


def block(cidr: Cidr, uid: str = "mine", **more: Any) -> Block:
    return replace(Block("pods", cidr, "me" if uid == "mine" else "other", uid, 3.0, revision="7"), **more)


def held(cidr: Cidr, **more: Any) -> dict[tuple[str, Cidr], Held]:
    return {("pods", cidr): replace(Held("pods", cidr, 0, is_published=False, since=3.0), **more)}


def settled(*more: Block, **checkpoint: Any) -> World:
    """Return a node with a published block, which it has announced."""
    known = {**held(A), **checkpoint.pop("held", {})}
    world = World(block(A), *more, held=known, kept_ranges={"pods": (A,)}, announced=SAID, **checkpoint)
    world.conflists, world.peers, world.used = {"pods": (A,)}, {"me": SAID}, {A: 5}
    return world


def alarms(step: Step) -> set[str]:
    return {one.name for one in step.alarms}


def test_a_node_joins_in_this_order() -> None:
    """A crash between any two leaves a note of the next one's subject."""
    world = World()
    assert world.step().done
    first = ["note", "claim", "note", "announce", "note", "note", "publish pods"]
    assert world.effects == first
    ((key, one),) = world.disk.held.items()
    assert (one.since, one.is_assigned, world.disk.attempts) == (WALL, False, ())
    assert world.disk.kept_ranges == world.conflists == {"pods": (key[1],)}


def test_the_answer_of_a_claim_is_lost() -> None:
    """The attempt is noted before the request, and then the block is read by name."""
    world = World()
    world.failures["claim"] = EngineError("no answer")
    step = world.step()
    assert (step.done, step.is_taken, step.failure) == (False, False, "no answer")
    (attempt,) = world.disk.attempts
    assert attempt.is_open and world.effects == ["note"]
    world.blocks["pods", attempt.cidr] = block(attempt.cidr)
    del world.failures["claim"]
    assert world.step(blocks={}).done
    assert world.effects[0] == "read" and "claim" not in world.effects
    assert world.disk.held["pods", attempt.cidr].since == 3.0 and not world.disk.attempts


def test_an_own_block_that_is_taken_is_a_success() -> None:
    world = World(held=held(A))
    world.conflists, world.used = {"pods": (A,)}, {A: 5}
    world.blocks["pods", A] = block(A)
    step = world.step(blocks={})
    assert step.done and world.effects[:3] == ["note", "claim", "read"]
    assert world.disk.held["pods", A].since == 3.0


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_block_that_another_node_took(*, is_gone: bool) -> None:
    """Nothing after the claim is done, even if that node has released the block since."""
    world = World()
    world.failures["claim"] = Taken("another node was first")
    (choice,) = (
        one.cidr for one in world.executor.plan(world_view(world), NOW, WALL)[1].actions if hasattr(one, "cidr")
    )
    if not is_gone:
        world.blocks["pods", choice] = block(choice, "theirs")
    step = world.step(blocks={})
    assert not step.done and step.is_taken
    assert world.conflists == {} and not world.disk.held and "announce" not in world.effects
    assert world.disk.attempts == (() if is_gone else (Attempt("pods", choice, is_open=False),))


def world_view(world: World) -> Snapshot:
    return Snapshot(world.pools, dict(world.blocks), world.peers, is_current=True)


def test_an_unknown_own_block_is_drained() -> None:
    """It is known from the engine alone: after a restored backup another node may use it."""
    world = settled(block(B))
    world.step()
    assert world.disk.held["pods", B].is_draining
    assert world.effects[:2] == ["read", "note"]


def test_draining_is_noted_before_its_request_and_after_the_conflist() -> None:
    world = settled(block(B), held=held(B), kept_routes=frozenset())
    world.conflists["pods"], world.used = (A, B), {A: 1}
    world.failures["mark draining"] = EngineError("no answer")
    assert not world.step().done
    assert world.effects[-3:] == ["note", "publish pods", "note"] and world.conflists["pods"] == (A,)
    assert world.disk.held["pods", B].is_draining and world.blocks["pods", B].state is State.OWNED


def test_a_mark_as_owned_is_noted_after_its_success() -> None:
    world = settled(block(B, state=State.DRAINING), held=held(B, is_draining=True))
    world.used = {A: 11}
    world.failures["mark owned"] = EngineError("no answer")
    assert not world.step().done
    assert world.disk.held["pods", B].is_draining and world.conflists == {"pods": (A,)}
    world.failures.clear()
    world.step()
    assert not world.disk.held["pods", B].is_draining and set(world.conflists["pods"]) == {A, B}


def test_a_release_removes_the_gateway_first_and_the_note_last() -> None:
    world = settled(block(B, state=State.DRAINING), held=held(B, is_draining=True))
    world.failures["release"] = EngineError("no answer")
    assert not world.step().done
    assert world.effects == ["gateways", *world.effects[1:]] and ("pods", B) in world.disk.held
    world.failures.clear()
    world.step()
    assert world.effects[:3] == ["gateways", "release", "note"]
    assert ("pods", B) not in world.disk.held and ("pods", B) not in world.blocks


def test_a_segments_gateway_stays() -> None:
    """It is the segment's, not the block's."""
    world = World(block(A, state=State.DRAINING), held=held(A, is_draining=True), announced=replace(SAID, cidrs={}))
    world.pools, world.peers = {"pods": Pool("pods", Kind.SEGMENT, ())}, {"me": replace(SAID, cidrs={})}
    step = world.step()
    assert step.done and "gateways" not in world.effects and "release" in world.effects


def test_a_lost_block_that_is_forgotten_leaves_no_gateway() -> None:
    """Its network would hide the route to the block's owner."""
    world = settled(block(B, "theirs"), held=held(B, is_draining=True))
    world.step()
    assert world.effects[:2] == ["gateways", "note"] and ("pods", B) not in world.disk.held


def test_routes_are_noted_after_the_kernel_has_them() -> None:
    far = Peer("far", "theirs", (ip_address("172.16.0.9"),), {"pods": (FAR.cidr,)}, 1.0)
    world = settled()
    world.peers["far"] = far
    world.failures["routes"] = IOFailure("netlink is broken")
    assert not world.step().done and not world.disk.kept_routes
    world.failures.clear()
    assert world.step().done
    assert world.effects[:2] == ["routes", "note"] and world.disk.kept_routes == world.routes


def test_missing_routes_are_an_alarm_and_tried_again_later() -> None:
    world = settled()
    world.peers["far"] = Peer("far", "theirs", (ip_address("172.16.0.9"),), {"pods": (FAR.cidr,)}, 1.0)
    world.missing = frozenset({Route(FAR.cidr, "far", ip_address("172.16.0.9"), is_tunnelled=False)})
    for _ in range(2):
        step = world.step()
        assert step.done and alarms(step) == {"routes-missing"} and step.again_seconds == RETRY_SECONDS
        assert step.missing == world.missing


def test_tunnels_follow_the_own_blocks() -> None:
    """The tunnel's device has an address of each, for which no decision is made."""
    world = settled(kept_routes=frozenset({FAR}))
    world.peers["far"] = Peer("far", "theirs", (FAR.via,), {"pods": (FAR.cidr,)}, 1.0, vtep_mac=FAR.mac)
    world.routes = frozenset({FAR})
    assert world.step().decision.actions == ()
    assert world.effects == ["publish pods", "routes", "note"]
    world.step()
    assert "routes" not in world.effects
    world.used[A] = 12
    world.step()
    assert "routes" not in world.effects
    world.step()
    assert "routes" in world.effects


def test_a_template_that_cannot_be_used_delays_its_network_alone() -> None:
    world = World()
    world.pools = {name: Pool(name, Kind.ROUTED, POOL.ranges[:1]) for name in ("pods", "zone")}
    world.failures["publish pods"] = InvalidTemplate("pods.conflist: No such file or directory")
    world.step()
    world.step()
    step = world.step()
    assert "template-unusable" in alarms(step) and step.done
    assert set(world.conflists) == {"zone"}
    assert step.again_seconds == RETRY_SECONDS
    world.failures.clear()
    assert "template-unusable" not in alarms(world.step())
    assert set(world.conflists) == {"pods", "zone"}


def test_blocks_stay_unmarked_while_their_range_cannot_leave_the_conflist() -> None:
    world = settled(block(B), held=held(B))
    world.conflists["pods"], world.used = (A, B), {A: 1}
    world.failures["publish pods"] = InvalidTemplate("garbled")
    decision = world.step().decision
    assert [one.state for one in decision.actions if isinstance(one, Mark)] == [State.DRAINING]
    assert world.blocks["pods", B].state is State.OWNED and not world.disk.held["pods", B].is_draining


def test_published_conflists_are_written_again_without_a_decision() -> None:
    """The template or another pool may have changed."""
    world = settled()
    step = world.step()
    assert step.decision.actions == () and world.effects == ["publish pods"]


def test_a_conflist_that_is_still_right_stays() -> None:
    """A crash came between the note of a range's end and the conflist, and then pods needed the range again."""
    world = World(*(Block("pods", cidr, "me", "mine", 1.0, revision="1") for cidr in (A, B)))
    world.step()
    world.used = {A: 13, B: 5}
    world.conflists = {"pods": (A, B)}
    world.executor.checkpoint = replace(
        world.disk, kept_ranges={"pods": (A,)},
        held={("pods", one): Held("pods", one, 0, is_published=False, since=1.0) for one in (A, B)},
    )  # fmt: skip
    step = world.step()
    assert step.done and not any(isinstance(one, Publish) for one in step.decision.actions)
    assert world.conflists == {"pods": (A, B)}


def test_an_assigned_cidr_is_noted_before_it_is_published() -> None:
    world = World()
    world.pools, world.assigned = {}, {"pods": (A,)}
    world.failures["publish pods"] = IOFailure("no space")
    assert not world.step().done
    assert world.disk.held["pods", A].is_assigned and world.disk.kept_ranges == {"pods": (A,)}
    world.failures.clear()
    assert world.step().done and world.conflists == {"pods": (A,)}


def test_a_range_that_the_conflist_alone_knows_is_noted_when_it_is_published_again() -> None:
    """The checkpoint is lost. Without a note the block would be unknown as soon as it leaves the conflist."""
    world = settled()
    world.disk = Checkpoint()
    world.executor = Executor(world, world, world)  # type: ignore[arg-type]
    world.used[A] = 11
    assert world.step().done
    assert len(world.conflists["pods"]) == 2 and ("pods", A) in world.disk.held
    assert not world.disk.held["pods", A].is_assigned


def test_a_refusal_is_an_alarm() -> None:
    world = World()
    world.failures["announce"] = Refused("peer me: forbidden")
    step = world.step()
    assert alarms(step) == {"refused"} and "forbidden" in step.failure and not world.conflists


def test_a_refused_sign_of_life_is_an_alarm() -> None:
    """The node looks gone to `cnitool cluster release`, and works otherwise."""
    world = settled()
    world.life_refusal = "permission denied"
    step = world.step()
    assert step.done and [(one.name, one.about) for one in step.alarms] == [("refused", "me")]
    assert "permission denied" in step.alarms[0].text


def test_an_engine_with_older_kinds_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """It drops a field that it does not know. The node goes on, and does not write it each second."""
    monkeypatch.setattr(f"{__name__}.NODE", replace(NODE, public_key="k" * 43 + "="))
    world = World()
    world.step()
    step = world.step()
    assert step.done and alarms(step) == {"peer-altered"} and "announce" not in world.effects
    assert "without its public_key, expected" in step.alarms[0].text and "resources.yaml" in step.alarms[0].text
    assert world.conflists


def test_a_checkpoint_that_cannot_be_written_stops_everything() -> None:
    world = World()
    world.failures["note"] = IOFailure("no space left on device")
    step = world.step()
    assert "no space" in step.failure and world.effects == [] and world.executor.checkpoint == Checkpoint()


def test_a_block_that_the_engine_does_not_take_back_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's rules may give a block to the name that its machine had before."""
    drained = [block(cidr, state=State.DRAINING) for cidr in (B, C)]
    world = settled(*drained, held={key: one for cidr in (B, C) for key, one in held(cidr, is_draining=True).items()})
    release = world.release

    def refuse(one: Block) -> None:
        if one.cidr == B:
            raise Refused("not yours")
        release(one)

    monkeypatch.setattr(world, "release", refuse)
    step = world.step()
    assert (step.done, step.failure, alarms(step)) == (False, "not yours", {"refused"})
    assert {key[1] for key in world.blocks} == {key[1] for key in world.disk.held} == {A, B}
