"""Simulated agents: the real executor on a node that is in memory, with the real engine's requests counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TypeVar

from shared.cluster.checkpoint import Checkpoint
from shared.cluster.duty import Pace
from shared.cluster.engine import EngineError, Taken
from shared.cluster.etcd import Etcd
from shared.cluster.executor import Executor, Step
from shared.cluster.model import Address, Block, Cidr, Held, Local, Node, Peer, Route, Snapshot
from shared.cluster.routes import Outcome

NETWORK = "pods"
UNDERLAYS = (ip_network("172.16.0.0/14"), ip_network("fd16::/64"))
FIRST_ADDRESS = 2  # of a block: those before it are the network's and the gateway's
GRACE_SECONDS = 300.0
Answer = TypeVar("Answer")


class Requests:
    """The engine as executors use it. Counts the requests by their kinds, and knows the object that changed last."""

    def __init__(self, engine: Etcd) -> None:
        self.engine = engine
        self.counts: Counter[str] = Counter()
        self.is_cut_off = False
        self.last: Block | Peer | None = None
        self.is_last_gone = False

    def claim(self, block: Block) -> Block:
        try:
            return self._wrote(self._ask("claims", lambda: self.engine.claim(block)))
        except Taken:
            self.counts["claims of a taken block"] += 1
            raise

    def read_block(self, network: str, cidr: Cidr) -> Block | None:
        return self._ask("reads by name", lambda: self.engine.read_block(network, cidr))

    def update_block(self, block: Block) -> Block:
        return self._wrote(self._ask("marks", lambda: self.engine.update_block(block)))

    def release(self, block: Block) -> None:
        self._ask("releases", lambda: self.engine.release(block))
        self.last, self.is_last_gone = block, True

    def announce(self, peer: Peer) -> Peer:
        return self._wrote(self._ask("announcements", lambda: self.engine.announce(peer)))

    def withdraw(self, peer: Peer) -> None:
        self._ask("withdrawals", lambda: self.engine.withdraw(peer))
        self.last, self.is_last_gone = peer, True

    def find_life_refusal(self) -> str:
        return self.engine.find_life_refusal()

    def is_seen(self, snapshot: Snapshot) -> bool:
        """Return True if a snapshot has the last change, and so all before it: a watch tells them in their order."""
        if self.last is None:
            return True
        found: Block | Peer | None
        if isinstance(self.last, Block):
            found = snapshot.blocks.get((self.last.network, self.last.cidr))
        else:
            found = snapshot.peers.get(self.last.node)
        return found is None if self.is_last_gone else found is not None and found.revision == self.last.revision

    def _ask(self, kind: str, request: Callable[[], Answer]) -> Answer:
        if self.is_cut_off:
            self.counts["requests without an answer"] += 1
            raise EngineError("the engine does not answer")
        self.counts[kind] += 1
        return request()

    def _wrote(self, thing: Answer) -> Answer:
        assert isinstance(thing, (Block, Peer))
        self.last, self.is_last_gone = thing, False
        return thing


class MemoryStore:
    """A checkpoint that survives the agent."""

    def __init__(self) -> None:
        self.checkpoint = Checkpoint()

    def read(self) -> Checkpoint:
        return self.checkpoint

    def write(self, checkpoint: Checkpoint) -> bool:
        self.checkpoint = checkpoint
        return True


class MemoryHost:
    """A node's conflist, leases and routes."""

    def __init__(self, number: int, name: str, uid: str) -> None:
        addresses = tuple(type(one.network_address)(int(one.network_address) + 1 + number) for one in UNDERLAYS)
        assert all(isinstance(one, (IPv4Address, IPv6Address)) for one in addresses)
        self.node = Node(name, uid, addresses, UNDERLAYS, grace_seconds=GRACE_SECONDS)
        self.ranges: tuple[Cidr, ...] = ()
        self.leases: dict[Cidr, set[int]] = {}
        self.routes: frozenset[Route] = frozenset()

    def boot(self) -> None:
        """Lose the kernel's state. host-local frees the leases of the former boot."""
        self.leases, self.routes = {}, frozenset()

    def add_pod(self) -> bool:
        """Lease an address of each family for a pod. Return False if a family has none free."""
        found = []
        for version in (4, 6):
            ranges = (cidr for cidr in self.ranges if cidr.version == version)
            free = ((cidr, number) for cidr in ranges if (number := self._find_free(cidr)) is not None)
            found.append(next(free, None))
        for place in found if None not in found else ():
            assert place is not None
            self.leases.setdefault(place[0], set()).add(place[1])
        return None not in found

    def _find_free(self, cidr: Cidr) -> int | None:
        taken = self.leases.get(cidr, set())
        last = cidr.num_addresses - (1 if cidr.version == 4 else 0)
        return next(
            (n for n in range(FIRST_ADDRESS, min(last, FIRST_ADDRESS + len(taken) + 1)) if n not in taken), None
        )

    def delete_pods(self) -> None:
        self.leases = {}

    def addresses(self) -> set[Address]:
        """Return the addresses of all pods."""
        return {cidr.network_address + number for cidr, numbers in self.leases.items() for number in numbers}

    def look(self, checkpoint: Checkpoint, before: Local | None, *, now: float, wall_seconds: float) -> Local:
        held = {}
        keys = dict.fromkeys([*checkpoint.held, *((NETWORK, cidr) for cidr in self.ranges)])
        for key in keys:
            used, is_published = len(self.leases.get(key[1], ())), key[1] in self.ranges
            seen = before.held.get(key) if before else None
            since = (
                None if used or is_published else now if seen is None or seen.empty_since is None else seen.empty_since
            )
            known = checkpoint.held.get(key) or Held(*key, 0, is_published=True, since=0.0)
            held[key] = replace(known, used=used, is_published=is_published, empty_since=since)
        return Local(
            self.node, held, checkpoint.attempts, self.routes, checkpoint.kept_ranges, checkpoint.kept_routes, wall_seconds,
            checkpoint.announced,
        )  # fmt: skip

    def publish(self, network: str, cidrs: tuple[Cidr, ...], snapshot: Snapshot) -> None:
        del network, snapshot
        self.ranges = cidrs

    def set_routes(self, routes: frozenset[Route], local: Local) -> Outcome:
        del local
        self.routes = routes
        return Outcome(frozenset())

    def remove_gateways(self, cidrs: Iterable[Cidr]) -> None:
        """Do nothing: no bridge is simulated."""


class Agent:
    """One node with its agent."""

    def __init__(self, number: int, requests: Requests) -> None:
        self.name, self.uid = f"node-{number:05}", f"{number:032x}"
        self.host, self.store = MemoryHost(number, self.name, self.uid), MemoryStore()
        self._requests = requests
        self.is_idle = False  # it has found nothing to do
        self.start()

    def start(self) -> None:
        """Start the agent's process."""
        self._executor = Executor(self._requests, self.host, self.store)  # type: ignore[arg-type]
        self._pace = Pace()

    def boot(self) -> None:
        self.host.boot()
        self.start()

    def step(self, snapshot: Snapshot, now: float, wall_seconds: float) -> float:
        """Make one step. Return the seconds until the next one."""
        step = self._executor.step(snapshot, now, wall_seconds)
        self.is_idle = is_idle(step)
        return self._pace.next_seconds(step)


def is_idle(step: Step) -> bool:
    """Return True if a step neither had actions nor alarms."""
    return not step.decision.actions
