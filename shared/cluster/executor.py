"""Execute decisions: look at the node, decide, do the actions in order, and stop at the first failure.

There is no clock, no thread and no pause here. shared/cluster/duty.py has these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from shared.cluster.checkpoint import Checkpoint
from shared.cluster.conflist import InvalidTemplate
from shared.cluster.decide import decide
from shared.cluster.engine import Engine, EngineError, Refused, Taken
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
    Publish,
    Release,
    Route,
    SetRoutes,
    Snapshot,
    State,
)  # fmt: skip
from shared.cluster.routes import Outcome
from shared.cluster.vanished import Vanished
from shared.cni.errors import CniError

RETRY_SECONDS = 10.0  # until a template or a route is tried again, if nothing else is to be done
SHOWN = 3  # names in an alarm

Key = tuple[str, Cidr]


class Host(Protocol):
    """The node's files and kernel. Methods raise CniError or OSError."""

    def look(self, checkpoint: Checkpoint, before: Local | None, *, now: float, wall_seconds: float) -> Local:
        """Return all that the node knows without the engine. `before` is the last look's result."""

    def publish(self, network: str, cidrs: tuple[Cidr, ...], snapshot: Snapshot) -> None:
        """Write the network's conflist if it differs. Raise InvalidTemplate if its template cannot be used."""

    def set_routes(self, routes: frozenset[Route], local: Local) -> Outcome:
        """Make the kernel have exactly these routes of ours."""

    def remove_gateways(self, cidrs: Iterable[Cidr]) -> None:
        """Take the gateway addresses of these blocks off the node's links."""


class Storage(Protocol):
    """The node's memory; shared.cluster.checkpoint.Store is the real one."""

    def read(self) -> Checkpoint:
        """Return the checkpoint as it was written last."""

    def write(self, checkpoint: Checkpoint) -> bool:
        """Write the checkpoint. When it returns, a crash loses nothing."""


@dataclass(frozen=True)
class Step:
    """The result of one decision's execution."""

    done: bool  # all actions
    failure: str  # of the first action that failed, empty if done
    again_seconds: float  # until the next step if no newer snapshot comes; after a failure, the shortest pause
    alarms: tuple[Alarm, ...]
    decision: Decision
    local: Local  # before the actions
    is_taken: bool = False  # another node or a newer object was first: decide again with a newer snapshot
    missing: frozenset[Route] = frozenset()  # wanted routes that the kernel refused


class Executor:
    """One node's execution: its checkpoint and its last look."""

    def __init__(self, engine: Engine, host: Host, store: Storage) -> None:
        """Read the checkpoint."""
        self.engine, self.host, self.store = engine, host, store
        self.checkpoint = store.read()
        self._before: Local | None = None
        self._vanished = Vanished()
        self._sources: frozenset[Cidr] | None = None  # the own CIDRs for which tunnels were made last
        self._missing: frozenset[Route] = frozenset()
        self._alarms: list[Alarm] = []

    def step(self, snapshot: Snapshot, now: float, wall_seconds: float) -> Step:
        """Look, decide, and do the actions. Raise CniError or OSError if the node cannot be looked at."""
        local, decision = self.plan(snapshot, now, wall_seconds)
        self._alarms, self._missing = [], frozenset()
        failure, is_taken = "", False
        try:
            self._execute_all(decision.actions, snapshot, local)
        except (EngineError, CniError, OSError) as error:
            failure = str(error) or type(error).__name__
            is_taken = isinstance(error, Taken)
            if isinstance(error, Refused):
                self._alarms.append(_alarm_of_refusal(local, failure))
        alarms = [action for action in decision.actions if isinstance(action, Alarm)] + self._alarms
        alarms += _tell_life_refusal(local, self.engine.find_life_refusal())
        again = RETRY_SECONDS if self._is_futile(decision) else decision.again_seconds
        return Step(not failure, failure, again, tuple(alarms), decision, local, is_taken, self._missing)

    def plan(self, snapshot: Snapshot, now: float, wall_seconds: float) -> tuple[Local, Decision]:
        """Look at the node and decide, without doing anything. Raise CniError or OSError."""
        local = self._before = self.host.look(self.checkpoint, self._before, now=now, wall_seconds=wall_seconds)
        local = replace(local, vanished=self._vanished.note(snapshot, local, now))
        return local, decide(snapshot, local, now)

    def _is_futile(self, decision: Decision) -> bool:
        """Return True if the same actions would have the same alarms in a second from now."""
        kinds = {type(action) for action in decision.actions} - {Alarm}
        return bool(self._alarms) and kinds <= {Publish, SetRoutes}

    def _execute_all(self, actions: Iterable[Action], snapshot: Snapshot, local: Local) -> None:
        """Do the actions in order. Leave out those of a network if its conflist could not be written.

        Raise Refused at the end if the engine refuses to take a block back.
        """
        failed: set[str] = set()
        refusal: Refused | None = None
        written: set[str] = set()
        for action in actions:
            if isinstance(action, Publish):
                written.add(action.network)
                if action.network not in failed and not self._publish(action, snapshot, local):
                    failed.add(action.network)
            elif _network_of(action) not in failed:
                try:
                    self._execute(action, snapshot, local)
                except Refused as error:
                    if not _frees(action):
                        raise
                    refusal = error  # of one block, as of a machine that was renamed: the others go on
        self._refresh(written, snapshot, local)
        if refusal is not None:
            raise refusal

    def _refresh(self, written: set[str], snapshot: Snapshot, local: Local) -> None:
        """Follow changes that need no decision: of templates, of pools, and of the tunnels' own addresses."""
        published: dict[str, set[Cidr]] = {}
        for one in local.held.values():
            if one.is_published and one.network not in written:
                published.setdefault(one.network, set()).add(one.cidr)
        for network, cidrs in sorted(published.items()):
            kept = self.checkpoint.kept_ranges.get(network, ())
            if set(kept) == cidrs:  # else a crash came between note and conflist, and the decision wants the conflist's
                self._write_conflist(network, kept, snapshot)
        sources = frozenset(key[1] for key in local.held)
        if sources != self._sources and any(route.is_tunnelled for route in self.checkpoint.kept_routes):
            self._set_routes(self.checkpoint.kept_routes, local)

    def _execute(self, action: Action, snapshot: Snapshot, local: Local) -> None:
        match action:
            case Claim():
                self._claim(action, local)
            case Confirm(network, cidr):
                self._confirm((network, cidr), local)
            case Mark():
                self._mark(action)
            case Release(block):
                self._leave((block.network, block.cidr), snapshot)
                self.engine.release(block)
                self._drop((block.network, block.cidr))
            case Forget(network, cidr, is_attempt):
                self._settle((network, cidr), is_open=None)
                if not is_attempt:
                    self._leave((network, cidr), snapshot)
                    self._drop((network, cidr))
            case Announce(peer):  # the engine may keep less of it: decide tells so
                self._note(announced=replace(peer, revision=self.engine.announce(peer).revision))
            case SetRoutes(routes):
                self._set_routes(routes, local)
            case _:
                pass  # an alarm, which the step has

    # -- blocks

    def _claim(self, action: Claim, local: Local) -> None:
        key = (action.network, action.cidr)
        self._settle(key, is_open=True)
        since = self.checkpoint.held[key].since if key in self.checkpoint.held else local.wall_seconds
        try:
            self.engine.claim(Block(*key, local.node.name, local.node.uid, since))
        except Taken:
            if not self._confirm(key, local):
                raise
        else:
            self._hold(key, State.OWNED, since)

    def _confirm(self, key: Key, local: Local) -> bool:
        """Read a block by name, and note its owner. Return True if that is this node."""
        block = self.engine.read_block(*key)
        is_attempted = any((one.network, one.cidr) == key for one in self.checkpoint.attempts)
        if block is not None and block.uid == local.node.uid:
            self._hold(key, block.state if is_attempted else State.DRAINING, block.since)
        elif block is None:
            self._settle(key, is_open=None)
        elif is_attempted:
            self._settle(key, is_open=False)
        return block is not None and block.uid == local.node.uid

    def _hold(self, key: Key, state: State, since: float) -> None:
        """Note a block as held, unless it is. Drop the attempts of its network and family."""
        one = Held(*key, used=0, is_published=False, since=since, is_draining=state is State.DRAINING)
        kept = [
            other
            for other in self.checkpoint.attempts
            if (other.network, other.cidr.version) != (key[0], key[1].version)
        ]
        self._note(held={key: one, **self.checkpoint.held}, attempts=tuple(kept))

    def _settle(self, key: Key, *, is_open: bool | None) -> None:
        """Note an attempt as open or closed; with None drop its note."""
        attempts = [one for one in self.checkpoint.attempts if (one.network, one.cidr) != key]
        if is_open is not None:
            attempts.append(Attempt(*key, is_open=is_open))
        if tuple(attempts) != self.checkpoint.attempts:
            self._note(attempts=tuple(attempts))

    def _mark(self, action: Mark) -> None:
        key = (action.block.network, action.block.cidr)
        is_draining = action.state is State.DRAINING
        if is_draining:
            self._note_draining(key, is_draining=True)
        self.engine.update_block(replace(action.block, state=action.state))
        if not is_draining:
            self._note_draining(key, is_draining=False)

    def _note_draining(self, key: Key, *, is_draining: bool) -> None:
        """Note the intention. A block that only the conflist knew is noted with it."""
        assert self._before is not None  # noqa: S101  (step has looked)
        one = self.checkpoint.held.get(key) or self._before.held[key]
        self._note(held={**self.checkpoint.held, key: replace(one, is_draining=is_draining)})

    def _leave(self, key: Key, snapshot: Snapshot) -> None:
        """Make a block without pods unreachable here: its gateway address would hide the next owner's route."""
        pool = snapshot.pools.get(key[0])
        if pool is None or pool.kind is Kind.ROUTED:
            self.host.remove_gateways([key[1]])

    def _drop(self, key: Key) -> None:
        self._note(held={other: one for other, one in self.checkpoint.held.items() if other != key})

    # -- conflists and routes

    def _publish(self, action: Publish, snapshot: Snapshot, local: Local) -> bool:
        """Note the ranges, then write them. Return False, with an alarm, if the template cannot be used."""
        network, cidrs = action.network, action.cidrs
        assigned = {
            (network, cidr): Held(network, cidr, 0, is_published=False, since=local.wall_seconds, is_assigned=True)
            for cidr in cidrs
        }
        known = {key: one for key, one in local.held.items() if key[0] == network}  # some by the conflist alone
        gone = known.keys() - self.checkpoint.held.keys() - {key for key, one in known.items() if one.is_published}
        held = {**assigned, **{key: one for key, one in known.items() if key not in gone}, **self.checkpoint.held}
        self._note(held=held, kept_ranges={**self.checkpoint.kept_ranges, network: cidrs})
        return self._write_conflist(network, cidrs, snapshot)

    def _write_conflist(self, network: str, cidrs: tuple[Cidr, ...], snapshot: Snapshot) -> bool:
        try:
            self.host.publish(network, cidrs, snapshot)
        except InvalidTemplate as error:
            text = (
                f"network {network}: the conflist cannot be written: {error}. Correct the template; it is tried again."
            )
            self._alarms.append(Alarm("template-unusable", network, text))
            return False
        return True

    def _set_routes(self, routes: frozenset[Route], local: Local) -> None:
        """Change the kernel, then note the routes. Missing ones are an alarm, and are tried again."""
        outcome = self.host.set_routes(routes, local)
        self._sources, self._missing = frozenset(key[1] for key in local.held), outcome.missing
        self._note(kept_routes=routes)
        self._alarms += [Alarm("tunnel-missing", local.node.name, problem) for problem in outcome.problems]
        if outcome.missing:
            names = sorted({route.node for route in outcome.missing})
            shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            text = (
                f"the kernel has {len(outcome.missing)} of {len(routes)} routes not, those to {shown}, expected all. "
                f"Look at the links to these nodes, and for other programs' routes: ip route show proto 112."
            )
            self._alarms.append(Alarm("routes-missing", local.node.name, text))

    def _note(self, **changes: object) -> None:
        """Write the checkpoint with changes. A failure keeps the former one."""
        changed = replace(self.checkpoint, **changes)  # type: ignore[arg-type]
        self.store.write(changed)
        self.checkpoint = changed


def _network_of(action: Action) -> str:
    match action:
        case Claim() | Confirm() | Forget():
            return action.network
        case Mark(block) | Release(block):
            return block.network
        case _:
            return ""


def _frees(action: Action) -> bool:
    """Return True if an action gives a block back: no later one relies on it."""
    return isinstance(action, Release) or (isinstance(action, Mark) and action.state is State.DRAINING)


def _alarm_of_refusal(local: Local, failure: str) -> Alarm:
    text = f"the engine refuses a request of node {local.node.name}: {failure}. Correct its credentials and rights."
    return Alarm("refused", local.node.name, text)


def _tell_life_refusal(local: Local, refusal: str) -> list[Alarm]:
    """Return an alarm if the engine refuses the node's sign of life."""
    text = (
        f"the engine refuses the sign of life of node {local.node.name}: {refusal}. `cnitool cluster release` would "
        f"take this node for gone. Give its user the right to write below alive/."
    )
    return [Alarm("refused", local.node.name, text)] if refusal else []
