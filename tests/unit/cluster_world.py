"""A cluster in memory: an engine with compare-and-swap, and machines that execute decisions on it.

Requests and answers can be lost or late, views of the engine can be old, and an agent can die between any two effects.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from shared.cluster import claims
from shared.cluster.decide import decide
from shared.cluster.engine import EngineError, Taken
from shared.cluster.model import (
    Action,
    Address,
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
)  # fmt: skip

Key = tuple[str, Cidr]
GRACE_SECONDS, ADD_SECONDS = 300.0, 120.0
POOLS = {
    "pods": Pool(
        "pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/25"), 29), Range(ip_network("fd00::/121"), 125))
    ),
    "lan": Pool("lan", Kind.SEGMENT, (Range(ip_network("192.168.7.0/26"), 29, ip_address("192.168.7.9")),)),
}  # fmt: skip


class Fault(enum.Enum):
    """What becomes of one request."""

    NONE = "none"
    LOST = "the request is lost"
    UNANSWERED = "the answer is lost"
    LATE = "the request arrives much later"


class SimulatedEngine:
    """The engine's content, and each of its states so far."""

    def __init__(self) -> None:
        self.revision = 1
        self.blocks: dict[Key, Block] = {}
        self.peers: dict[str, Peer] = {}
        self.pools = dict(POOLS)
        self.assigned: dict[str, dict[str, tuple[Cidr, ...]]] = {}  # by node
        self.late: list[Callable[[], object]] = []
        self.history: list[tuple[dict[Key, Block], dict[str, Peer]]] = []
        self.note()

    def note(self) -> None:
        self.history.append((dict(self.blocks), dict(self.peers)))

    def _next(self) -> str:
        self.revision += 1
        return str(self.revision)

    def claim(self, block: Block) -> Block:
        if (block.network, block.cidr) in self.blocks:
            raise Taken
        return self._put(block)

    def update_block(self, block: Block) -> Block:
        self._compare(block)
        return self._put(block)

    def release(self, block: Block) -> None:
        if (block.network, block.cidr) in self.blocks:
            self._compare(block)
            del self.blocks[block.network, block.cidr]
            self.note()

    def announce(self, peer: Peer) -> Peer:
        self.peers[peer.node] = replace(peer, revision=self._next())
        self.note()
        return self.peers[peer.node]

    def _compare(self, block: Block) -> None:
        present = self.blocks.get((block.network, block.cidr))
        if present is None or present.revision != block.revision:
            raise Taken

    def _put(self, block: Block) -> Block:
        block = replace(block, revision=self._next())
        self.blocks[block.network, block.cidr] = block
        self.note()
        return block

    def land(self) -> None:
        """Let the oldest late request arrive."""
        with suppress(Taken):
            self.late.pop(0)()

    def restore(self, saved: tuple[dict[Key, Block], dict[str, Peer]]) -> None:
        """Go back to a former content. Requests on their way die with the old engine."""
        self.blocks, self.peers = dict(saved[0]), dict(saved[1])
        self.late.clear()
        self.note()


@dataclass
class Checkpoint:
    """What an agent keeps on disk."""

    held: dict[Key, Held] = field(default_factory=dict)
    attempts: dict[Key, bool] = field(default_factory=dict)
    announced: Peer | None = None
    ranges: dict[str, tuple[Cidr, ...]] = field(default_factory=dict)
    routes: frozenset[Route] = frozenset()


class Stopped(Exception):
    """An action failed: decide anew."""


class Machine:
    """One node: its disk, its kernel, its pods, and an agent that may be dead."""

    def __init__(self, engine: SimulatedEngine, name: str, uid: str, number: int) -> None:
        self.engine, self.name, self.uid = engine, name, uid
        self.addresses: tuple[Address, ...] = (ip_address(f"172.16.0.{number}"), ip_address(f"fd16::{number}"))
        self.disk = Checkpoint()
        self.conflists: dict[str, tuple[Cidr, ...]] = {}
        self.leases: dict[str, dict[Address, int]] = {}
        self.adds: list[tuple[str, tuple[Cidr, ...], float, int]] = []  # in progress: network, ranges, deadline, pod
        self.routes: frozenset[Route] = frozenset()
        self.monotonic, self.wall = 10.0, 1_000_000.0
        self.empty_since: dict[Key, float] = {}
        self.is_connected = True
        self.seen = len(engine.history) - 1
        self.decided = Decision((), 0.0)
        self.requests = 0

    # -- pods

    def begin_add(self, network: str, pod: int) -> None:
        self.adds.append((network, self.conflists.get(network, ()), self.monotonic + ADD_SECONDS, pod))

    def end_add(self) -> bool:
        """Lease for the oldest ADD in progress, by the conflist that it read. Return True if all families have one."""
        network, ranges, _, pod = self.adds.pop(0)
        leases = self.leases.setdefault(network, {})
        found = []
        for version in {cidr.version for cidr in ranges}:
            free = (
                address
                for cidr in ranges[:: 1 if pod % 2 else -1]  # round robin may be anywhere
                if cidr.version == version
                for address in usable(network, cidr)
                if address not in leases
            )
            found.append(next(free, None))
        if not found or None in found:
            return False
        leases.update({address: pod for address in found if address is not None})
        return True

    def delete_pod(self, place: int) -> None:
        pods = sorted({pod for leases in self.leases.values() for pod in leases.values()})
        if pods:
            gone = pods[place % len(pods)]
            self.leases = {
                network: {address: pod for address, pod in leases.items() if pod != gone}
                for network, leases in self.leases.items()
            }

    def pass_time(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds
        self.adds = [add for add in self.adds if add[2] > self.monotonic]

    def boot(self) -> None:
        """Lose everything except the disk. host-local frees the leases of the former boot."""
        self.adds, self.leases, self.routes, self.monotonic = [], {}, frozenset(), 10.0
        self.restart()

    def restart(self) -> None:
        """Start the agent anew, which reads everything from the engine."""
        self.empty_since = {}
        self.seen = len(self.engine.history) - 1

    # -- the agent

    def look(self) -> Local:
        published = {(network, cidr) for network, cidrs in self.conflists.items() for cidr in cidrs}
        held = {}
        for key in {**self.disk.held, **dict.fromkeys(published)}:
            network, cidr = key
            used = sum(address in cidr for address in self.leases.get(network, {}))
            if used or key in published:
                self.empty_since.pop(key, None)
            else:
                self.empty_since.setdefault(key, self.monotonic)
            known = self.disk.held.get(key) or Held(network, cidr, 0, is_published=True, since=0.0)
            held[key] = replace(
                known, used=used, is_published=key in published, empty_since=self.empty_since.get(key)
            )  # fmt: skip
        node = Node(
            self.name, self.uid, self.addresses, (ip_network("172.16.0.0/24"), ip_network("fd16::/64")),
            grace_seconds=GRACE_SECONDS,
        )  # fmt: skip
        attempts = tuple(Attempt(*key, is_open=is_open) for key, is_open in self.disk.attempts.items())
        return Local(
            node, held, attempts, self.routes, dict(self.disk.ranges), self.disk.routes, self.wall, self.disk.announced
        )  # fmt: skip

    def view(self) -> Snapshot:
        blocks, peers = self.engine.history[self.seen]
        return Snapshot(self.engine.pools, blocks, peers, self.engine.assigned.get(self.name, {}), self.is_connected)

    def tick(self, fault: Fault = Fault.NONE, fault_at: int = 0, dies_at: int | None = None) -> bool:
        """Decide and execute. The request number `fault_at` has the fault; the agent dies after so many effects.

        Return True if all actions were done.
        """
        self._fault, self._fault_at = fault, fault_at
        self.decided = decide(self.view(), self.look(), self.monotonic)
        effects = 0
        try:
            for action in self.decided.actions:
                for _ in self._execute(action):
                    effects += 1
                    if effects == dies_at:
                        self.restart()
                        return False
        except (Stopped, EngineError):
            return False
        return True

    def _ask(self, request: Callable[[], object]) -> object:
        """Send one request with its fault."""
        fault, self._fault_at = self._fault if self._fault_at == 0 else Fault.NONE, self._fault_at - 1
        if not self.is_connected:
            fault = Fault.LOST
        self.requests += 1
        if fault is Fault.LATE:
            self.engine.late.append(request)
        if fault in (Fault.LATE, Fault.LOST):
            raise EngineError
        answer = request()
        if fault is Fault.UNANSWERED:
            raise EngineError
        return answer

    def _execute(self, action: Action) -> Iterator[None]:  # noqa: C901  (a case for each kind)
        """Do one action; each yield is a moment at which the agent can die."""
        yield
        if isinstance(action, Claim):
            yield from self._claim(action)
        elif isinstance(action, Confirm):
            yield from self._confirm(action.network, action.cidr)
        elif isinstance(action, Publish):
            self.disk.ranges[action.network] = action.cidrs
            yield
            self.conflists[action.network] = action.cidrs
            yield
            for cidr in action.cidrs:
                if (action.network, cidr) not in self.disk.held:
                    one = Held(action.network, cidr, 0, is_published=True, since=self.wall, is_assigned=True)
                    self.disk.held[action.network, cidr] = one
        elif isinstance(action, Mark):
            yield from self._mark(action)
        elif isinstance(action, Release):
            self._ask(lambda: self.engine.release(action.block))
            yield
            self.disk.held.pop((action.block.network, action.block.cidr), None)
        elif isinstance(action, Forget):
            self.disk.attempts.pop((action.network, action.cidr), None)
            if not action.is_attempt:
                self.disk.held.pop((action.network, action.cidr), None)
        elif isinstance(action, Announce):
            peer = self._ask(lambda: self.engine.announce(action.peer))
            yield
            assert isinstance(peer, Peer)
            self.disk.announced = peer
        elif isinstance(action, SetRoutes):
            self.routes = action.routes
            yield
            self.disk.routes = action.routes
        else:
            assert isinstance(action, Alarm)

    def _claim(self, action: Claim) -> Iterator[None]:
        key = (action.network, action.cidr)
        self.disk.attempts[key] = True
        yield
        since = self.disk.held[key].since if key in self.disk.held else self.wall
        block = Block(*key, self.name, self.uid, since)
        try:
            self._ask(lambda: self.engine.claim(block))
        except Taken:
            yield
            yield from self._confirm(*key)
            if self.disk.attempts.get(key) is False:
                raise Stopped from None
        else:
            yield
            self._hold(key, State.OWNED)

    def _confirm(self, network: str, cidr: Cidr) -> Iterator[None]:
        key = (network, cidr)
        block = self._ask(lambda: self.engine.blocks.get(key))
        yield
        if isinstance(block, Block) and block.uid == self.uid:
            self._hold(key, block.state)
        elif block is None:
            self.disk.attempts.pop(key, None)
        elif key in self.disk.attempts:
            self.disk.attempts[key] = False

    def _hold(self, key: Key, state: State) -> None:
        one = Held(*key, used=0, is_published=False, since=self.wall, is_draining=state is State.DRAINING)
        self.disk.held.setdefault(key, one)
        self.disk.attempts = {
            other: is_open
            for other, is_open in self.disk.attempts.items()
            if (other[0], other[1].version) != (key[0], key[1].version)
        }

    def _mark(self, action: Mark) -> Iterator[None]:
        key = (action.block.network, action.block.cidr)
        if action.state is State.DRAINING:
            self.disk.held[key] = replace(self.disk.held[key], is_draining=True)
            yield
        self._ask(lambda: self.engine.update_block(replace(action.block, state=action.state)))
        yield
        if action.state is State.OWNED:
            self.disk.held[key] = replace(self.disk.held[key], is_draining=False)


def usable(network: str, cidr: Cidr) -> list[Address]:
    """Return the addresses that host-local leases from a block."""
    entry = claims.find_range(POOLS[network], cidr)
    assert entry is not None
    every = [cidr.network_address + number for number in range(cidr.num_addresses)]
    if POOLS[network].kind is Kind.ROUTED:
        return every[2:-1] if cidr.version == 4 else every[2:]
    reserved = {entry.cidr.network_address, entry.cidr.broadcast_address, entry.gateway}
    return [address for address in every if address not in reserved]
