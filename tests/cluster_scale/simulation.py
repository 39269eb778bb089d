"""A cluster of simulated agents on real etcd, by a virtual clock.

In each second of the clock the agents that are due make a step with the same snapshot, one after the other.
Then the simulation waits until its one follower has seen all of their changes. So an agent decides with knowledge that
is up to a second old, as over a network.

A view has all blocks, but only some peers. Routes to all of them would be 10,000 times the work of one host, which
tests/cluster_scale/host.py measures.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network

from shared.cluster import etcd as etcd_module
from shared.cluster.engine import Counts
from shared.cluster.etcd import Etcd
from shared.cluster.etcd_follow import Pace
from shared.cluster.model import Cidr, Kind, Peer, Pool, Range, Snapshot
from tests.cluster_scale.agents import NETWORK, Agent, Requests
from tests.etcd import Cluster
from tests.pretend import until

SHOWN_PEERS = 4  # of each view, besides the agent's own object
WALL_SECONDS = 1_700_000_000.0  # at the beginning
PACE = Pace(timeout=30.0, pause=0.05, spread=0.1)
MINUTE_SECONDS = 60
PATIENCE_SECONDS = 120.0


@dataclass
class Costs:
    """The requests of a phase, and the events that each agent hears meanwhile."""

    name: str
    nodes: int  # that have a part in it
    requests: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0  # of the requests, and of the answers
    received_bytes: int = 0
    events: int = 0  # to each agent that watches
    event_bytes: int = 0
    virtual_seconds: float = 0.0
    real_seconds: float = 0.0

    def total(self) -> int:
        """Return the number of requests; the claims of taken blocks are among the claims."""
        return self.requests.total() - self.requests["claims of a taken block"]


class Simulation:
    """The agents, their clock, and their etcd."""

    def __init__(self, cluster: Cluster, nodes: int, seed: int = 1) -> None:
        self.cluster, self.random = cluster, random.Random(seed)
        self.now = 0.0
        self.agents: dict[int, Agent] = {}
        self._due: list[tuple[float, int]] = []
        self._writer, self._watcher = cluster.engine(pace=PACE), cluster.engine(pace=PACE)
        self.requests = Requests(self._writer)
        self._snapshot = Snapshot()
        self._changed = threading.Condition()
        self._shown: tuple[Snapshot, list[tuple[str, Peer]]] = (self._snapshot, [])
        self._thread = threading.Thread(target=self._watcher.follow, args=(self._take,), daemon=True)
        bits = (nodes * 8 // 5).bit_length()  # blocks for 1.6 times the nodes at least
        self.pool = Pool(
            NETWORK, Kind.ROUTED,
            (Range(ip_network(f"10.0.0.0/{24 - bits}"), 24), Range(ip_network(f"fd00::/{64 - bits}"), 64)),
        )  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[Simulation]:
        """Follow etcd meanwhile."""
        self._writer.write_pool(self.pool)
        self._thread.start()
        try:
            self.wait(lambda snapshot: snapshot.is_current and NETWORK in snapshot.pools)
            yield self
        finally:
            self._watcher.close()
            self._writer.close()
            self._thread.join()

    def _take(self, snapshot: Snapshot) -> None:
        with self._changed:
            self._snapshot = snapshot
            self._changed.notify()

    def wait(self, condition: Callable[[Snapshot], bool]) -> Snapshot:
        """Return the first snapshot that meets the condition."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self._snapshot), PATIENCE_SECONDS), self._snapshot.failure
            return self._snapshot

    # -- time

    def begin(self, numbers: Iterable[int], within_seconds: float) -> None:
        """Let nodes join at any moment of so many seconds from now."""
        for number in numbers:
            self.agents[number] = Agent(number, self.requests)
            self.wake(number, self.random.uniform(0, within_seconds))

    def wake(self, number: int, seconds: float) -> None:
        """Let an agent make a step in so many seconds."""
        heapq.heappush(self._due, (self.now + seconds, number))

    def remove(self, numbers: Iterable[int]) -> list[Agent]:
        """Let nodes be gone for good; return them."""
        gone = [self.agents.pop(number) for number in numbers]
        self._due = [one for one in self._due if one[1] in self.agents]
        heapq.heapify(self._due)
        return gone

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now = max(self.now, self._due[0][0] // 1 + 1)
            due = []
            while self._due and self._due[0][0] <= self.now:
                due.append(heapq.heappop(self._due)[1])
            snapshot = self.wait(lambda one: one.is_current or self.requests.is_cut_off)  # not if the machine hangs
            for number in dict.fromkeys(due):
                if number in self.agents:
                    agent = self.agents[number]
                    self.wake(number, agent.step(self._view(snapshot, agent), self.now, WALL_SECONDS + self.now))
            self.settle()
        self.now = max(self.now, end)

    def settle(self) -> None:
        """Wait until the follower has seen all changes, unless it is cut off."""
        if not self.requests.is_cut_off:
            self.wait(self.requests.is_seen)

    def _view(self, snapshot: Snapshot, agent: Agent) -> Snapshot:
        """Return the snapshot as an agent gets it, with few peers. What is computed from the blocks is shared."""
        if self._shown[0] is not snapshot:
            self._shown = snapshot, list(itertools.islice(snapshot.peers.items(), SHOWN_PEERS))
        peers = dict(self._shown[1])
        if agent.name in snapshot.peers:
            peers[agent.name] = snapshot.peers[agent.name]
        view = Snapshot(
            snapshot.pools, snapshot.blocks, peers, is_current=snapshot.is_current, failure=snapshot.failure
        )
        vars(view).update(by_owner=snapshot.by_owner, spans=snapshot.spans)
        return view

    # -- measurements and faults

    @contextmanager
    def phase(self, name: str, nodes: int) -> Iterator[Costs]:
        """Count the requests and events of a phase."""
        costs = Costs(name, nodes)
        before, own, heard = self.requests.counts.copy(), self._writer.counts(), self._watcher.counts()
        began, began_at = time.monotonic(), self.now
        yield costs
        self.settle()
        costs.requests = self.requests.counts - before
        own, heard = _difference(self._writer.counts(), own), _difference(self._watcher.counts(), heard)
        costs.sent_bytes, costs.received_bytes = own.sent_bytes, own.received_bytes
        costs.events, costs.event_bytes = heard.events, heard.received_bytes
        costs.virtual_seconds, costs.real_seconds = self.now - began_at, time.monotonic() - began

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Kill etcd, and start it again with its data."""
        self.cluster.members[0].kill()
        self.requests.is_cut_off = True
        self.wait(lambda snapshot: not snapshot.is_current)
        yield
        self.cluster.start()
        self.requests.is_cut_off = False
        self.wait(lambda snapshot: snapshot.is_current)

    def release(self, gone: Iterable[Agent]) -> None:
        """Release nodes that are gone, as `cnitool cluster release` does."""
        snapshot = self._snapshot
        for agent in gone:
            for block in snapshot.by_owner.get(agent.uid, ()):
                self.requests.release(block)
            if agent.name in snapshot.peers:
                self.requests.withdraw(snapshot.peers[agent.name])
        self.settle()

    def measure_start(self) -> Costs:
        """Return the costs of one agent's start: it reads everything, and watches."""
        engine = self.cluster.engine(pace=PACE)
        with _following(engine):
            found = engine.counts()
        return Costs("start", 1, Counter(requests=found.requests), found.sent_bytes, found.received_bytes)

    def measure_minute(self, agent: Agent, part: int = 10) -> Costs:
        """Return the costs of a minute in which nothing happens, of one agent. It passes in a part of its time."""
        engine = self.cluster.engine(pace=Pace(sign=Pace.sign / part, timeout=30.0))
        kept, etcd_module.ALIVE_SECONDS = etcd_module.ALIVE_SECONDS, etcd_module.ALIVE_SECONDS // part
        try:
            with _following(engine):
                engine.show_life(agent.name, agent.uid)
                time.sleep(Pace.sign / part)
                before = engine.counts()
                time.sleep(MINUTE_SECONDS / part)
                found = _difference(engine.counts(), before)
        finally:
            etcd_module.ALIVE_SECONDS = kept
        return Costs(
            "minute", 1, Counter(requests=found.requests), found.sent_bytes, found.received_bytes, found.events
        )

    # -- invariants

    def verify(self) -> None:
        """Check that each block is its owner's in the engine and on one node, and that all agents have nothing to do."""
        blocks = self._snapshot.blocks
        held: dict[Cidr, str] = {}
        for agent in self.agents.values():
            assert agent.is_idle, agent.name
            assert not agent.store.checkpoint.attempts
            for _, cidr in agent.store.checkpoint.held:
                assert held.setdefault(cidr, agent.uid) == agent.uid
            assert {cidr.version for cidr in agent.host.ranges} == {4, 6}
            assert all(held.get(cidr) == agent.uid for cidr in agent.host.ranges)
            assert set(self._snapshot.peers[agent.name].cidrs[NETWORK]) >= set(agent.host.ranges)
        assert held == {cidr: block.uid for (_, cidr), block in blocks.items()}
        assert len(self._snapshot.peers) == len(self.agents)
        addresses = [address for agent in self.agents.values() for address in agent.host.addresses()]
        assert len(addresses) == len(set(addresses))


@contextmanager
def _following(engine: Etcd) -> Iterator[None]:
    state = Snapshot()

    def take(snapshot: Snapshot) -> None:
        nonlocal state
        state = snapshot

    thread = threading.Thread(target=engine.follow, args=(take,), daemon=True)
    thread.start()
    try:
        until(lambda: state.is_current, seconds=PATIENCE_SECONDS)
        yield
    finally:
        engine.close()
        thread.join()


def _difference(now: Counts, before: Counts) -> Counts:
    return Counts(
        now.requests - before.requests, now.sent_bytes - before.sent_bytes,
        now.received_bytes - before.received_bytes, now.events - before.events,
    )  # fmt: skip
