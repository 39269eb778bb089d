"""A cluster in memory: an engine with compare-and-swap, and machines that execute decisions on it.

Requests and answers can be lost or late, views of the engine can be old, and an agent can die between any two effects.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TypeVar

from shared.cluster import claims
from shared.cluster.checkpoint import Checkpoint
from shared.cluster.engine import Counts, EngineError, Taken
from shared.cluster.executor import Executor
from shared.cluster.model import (
    Address,
    Block,
    Cidr,
    Decision,
    Held,
    Kind,
    Local,
    Node,
    Peer,
    Pool,
    Range,
    Route,
    Snapshot,
)  # fmt: skip
from shared.cluster.routes import Outcome

Key = tuple[str, Cidr]
GRACE_SECONDS, ADD_SECONDS = 300.0, 120.0
POOLS = {
    "pods": Pool(
        "pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/25"), 29), Range(ip_network("fd00::/121"), 125))
    ),
    "lan": Pool("lan", Kind.SEGMENT, (Range(ip_network("192.168.7.0/26"), 29, ip_address("192.168.7.9")),)),
}  # fmt: skip


class Fault(enum.Enum):
    """The fate of one request."""

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


class Died(Exception):
    """The agent is gone in the middle of its work."""


T = TypeVar("T")


class Machine:
    """One node: its disk, its kernel, its pods, and an agent that may die. The executor is the real one."""

    def __init__(self, engine: SimulatedEngine, name: str, uid: str, number: int) -> None:
        self.engine, self.name, self.uid = engine, name, uid
        self.addresses: tuple[Address, ...] = (ip_address(f"172.16.0.{number}"), ip_address(f"fd16::{number}"))
        self.disk = Checkpoint()
        self.conflists: dict[str, tuple[Cidr, ...]] = {}
        self.leases: dict[str, dict[Address, int]] = {}
        self.adds: list[tuple[str, tuple[Cidr, ...], float, int]] = []  # in progress: network, ranges, deadline, pod
        self.routes: frozenset[Route] = frozenset()
        self.monotonic, self.wall = 10.0, 1_000_000.0
        self.is_connected = True
        self.seen = len(engine.history) - 1
        self.decided = Decision((), 0.0)
        self.requests = 0
        self.executor = Executor(self, self, self)

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
        self.executor = Executor(self, self, self)
        self.seen = len(self.engine.history) - 1

    # -- the agent

    def look(self, checkpoint: Checkpoint, before: Local | None, *, now: float, wall_seconds: float) -> Local:
        published = {(network, cidr) for network, cidrs in self.conflists.items() for cidr in cidrs}
        empty_since = {key: one.empty_since for key, one in before.held.items()} if before else {}
        held = {}
        for key in {**checkpoint.held, **dict.fromkeys(published)}:
            network, cidr = key
            used = sum(address in cidr for address in self.leases.get(network, {}))
            since = empty_since.get(key)
            known = checkpoint.held.get(key) or Held(network, cidr, 0, is_published=True, since=0.0)
            held[key] = replace(
                known, used=used, is_published=key in published,
                empty_since=None if used or key in published else now if since is None else since,
            )  # fmt: skip
        node = Node(
            self.name, self.uid, self.addresses, (ip_network("172.16.0.0/24"), ip_network("fd16::/64")),
            grace_seconds=GRACE_SECONDS,
        )  # fmt: skip
        return Local(
            node, held, checkpoint.attempts, self.routes, checkpoint.kept_ranges, checkpoint.kept_routes, wall_seconds,
            checkpoint.announced,
        )  # fmt: skip

    def view(self) -> Snapshot:
        blocks, peers = self.engine.history[self.seen]
        return Snapshot(self.engine.pools, blocks, peers, self.engine.assigned.get(self.name, {}), self.is_connected)

    def tick(self, fault: Fault = Fault.NONE, fault_at: int = 0, dies_at: int | None = None) -> bool:
        """Decide and execute. The request number `fault_at` has the fault; the agent dies after so many effects.

        Return True if all actions were done.
        """
        self._fault, self._fault_at = fault, fault_at
        self._effects, self._dies_at = 0, dies_at
        try:
            step = self.executor.step(self.view(), self.monotonic, self.wall)
        except Died:
            self.restart()
            return False
        self.decided = step.decision
        return step.done

    def _live(self) -> None:
        """Die if it is time to. This is called at each effect, before and after it."""
        self._effects += 1
        if self._effects == self._dies_at:
            raise Died

    def _ask(self, request: Callable[[], T]) -> T:
        """Send one request with its fault."""
        self._live()
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
        self._live()
        return answer

    # -- the engine, as the executor calls it

    def claim(self, block: Block) -> Block:
        return self._ask(lambda: self.engine.claim(block))

    def read_block(self, network: str, cidr: Cidr) -> Block | None:
        return self._ask(lambda: self.engine.blocks.get((network, cidr)))

    def update_block(self, block: Block) -> Block:
        return self._ask(lambda: self.engine.update_block(block))

    def release(self, block: Block) -> None:
        self._ask(lambda: self.engine.release(block))

    def announce(self, peer: Peer) -> Peer:
        return self._ask(lambda: self.engine.announce(peer))

    def follow(self, take: Callable[[Snapshot], None]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def withdraw(self, peer: Peer) -> None:
        raise NotImplementedError

    def find_life(self, node: str, uid: str) -> str:
        raise NotImplementedError

    def show_life(self, node: str, uid: str) -> None:
        raise NotImplementedError

    def find_life_refusal(self) -> str:
        return ""

    def write_pool(self, pool: Pool) -> None:
        raise NotImplementedError

    def counts(self) -> Counts:
        raise NotImplementedError

    # -- its files and its kernel

    def read(self) -> Checkpoint:
        return self.disk

    def write(self, checkpoint: Checkpoint) -> bool:
        self._live()
        is_new, self.disk = checkpoint != self.disk, checkpoint
        self._live()
        return is_new

    def publish(self, network: str, cidrs: tuple[Cidr, ...], snapshot: Snapshot) -> None:  # noqa: ARG002
        if self.conflists.get(network) != cidrs:
            self._live()
            self.conflists[network] = cidrs
            self._live()

    def set_routes(self, routes: frozenset[Route], local: Local) -> Outcome:  # noqa: ARG002
        self.routes = routes
        self._live()
        return Outcome(frozenset())

    def remove_gateways(self, cidrs: Iterable[Cidr]) -> None:  # noqa: ARG002
        self._live()


def usable(network: str, cidr: Cidr) -> list[Address]:
    """Return the addresses that host-local leases from a block."""
    entry = claims.find_range(POOLS[network], cidr)
    assert entry is not None
    every = [cidr.network_address + number for number in range(cidr.num_addresses)]
    if POOLS[network].kind is Kind.ROUTED:
        return every[2:-1] if cidr.version == 4 else every[2:]
    reserved = {entry.cidr.network_address, entry.cidr.broadcast_address, entry.gateway}
    return [address for address in every if address not in reserved]
