"""A cluster's promises while requests, answers, views, agents, machines and backups get lost, in any order."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.cluster.model import Address, Alarm, Cidr
from tests.unit.cluster_world import GRACE_SECONDS, POOLS, Fault, Key, Machine, SimulatedEngine, usable

NODES = 3
LONGEST_RECOVERY = 60  # decisions of one node until it has nothing to do, many times the usual number
TIMES = st.sampled_from([1.0, 100.0, GRACE_SECONDS + 1])
NETWORKS = st.sampled_from(sorted(POOLS))
DEATHS = st.none() | st.integers(1, 8)
EFFECTS = st.integers(1, 25)


class World(RuleBasedStateMachine):
    """Nodes that come and go, pods, and faults. Every promise holds at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = SimulatedEngine()
        self.machines = [Machine(self.engine, f"node{n}", f"uid{n}", n + 1) for n in range(NODES)]
        self.dead: set[str] = set()  # uids of machines that are gone
        self.pods = 0
        self.is_restored = False  # from a backup: other machines may have the same blocks

    @initialize(shares_start=st.booleans())
    def start(self, *, shares_start: bool) -> None:
        if shares_start:  # all nodes decide on the same old view
            for machine in self.machines:
                machine.tick()

    nodes = st.integers(0, NODES - 1)

    # -- the agents

    @rule(node=nodes)
    def decide(self, node: int) -> None:
        self.tick(node, Fault.NONE, 0, None)

    @rule(node=nodes, rounds=st.integers(2, 4))
    def settle(self, node: int, rounds: int) -> None:
        for _ in range(rounds):
            self.hear(node, 1000)
            self.tick(node, Fault.NONE, 0, None)

    @rule(node=nodes, fault=st.sampled_from(list(Fault)[1:]), at=st.integers(0, 4))
    def decide_with_fault(self, node: int, fault: Fault, at: int) -> None:
        self.tick(node, fault, at, None)

    @rule(node=nodes, fault=st.sampled_from(Fault), at=st.integers(0, 4), dies_at=EFFECTS)
    def die(self, node: int, fault: Fault, at: int, dies_at: int) -> None:
        self.tick(node, fault, at, dies_at)

    def tick(self, node: int, fault: Fault, at: int, dies_at: int | None) -> None:
        machine = self.machines[node]
        conflists, held = dict(machine.conflists), dict(machine.disk.held)
        machine.tick(fault, at, dies_at)
        if not machine.is_connected:  # a pod's ADD needs no engine, and nothing is given away
            assert machine.disk.held == held
            for network, cidrs in machine.conflists.items():  # a deleted one comes from the checkpoint
                assert cidrs == (conflists.get(network) or machine.disk.kept_ranges[network])
            assert {network for network, cidrs in conflists.items() if cidrs} <= set(machine.conflists)

    @rule(node=nodes, states=st.integers(1, 6))
    def hear(self, node: int, states: int) -> None:
        machine = self.machines[node]
        if machine.is_connected:
            machine.seen = min(len(self.engine.history) - 1, machine.seen + states)

    @rule(node=nodes)
    def disconnect(self, node: int) -> None:
        self.machines[node].is_connected = False

    @rule(node=nodes)
    def connect(self, node: int) -> None:
        self.machines[node].is_connected = True
        self.machines[node].seen = len(self.engine.history) - 1

    @precondition(lambda self: self.engine.late)
    @rule()
    def land(self) -> None:
        self.engine.land()

    # -- the pods

    @rule(node=nodes, network=NETWORKS, number=st.integers(1, 9))
    def add_pods(self, node: int, network: str, number: int) -> None:
        for _ in range(number):
            self.begin_add(node, network)
            self.end_adds(node)

    @rule(node=nodes, network=NETWORKS)
    def begin_add(self, node: int, network: str) -> None:
        self.pods += 1
        self.machines[node].begin_add(network, self.pods)

    @rule(node=nodes)
    def end_adds(self, node: int) -> None:
        """Lease for all. A published range gives addresses until it is full, whatever the engine does."""
        machine = self.machines[node]
        while machine.adds:
            network, ranges = machine.adds[0][:2]
            taken = machine.leases.get(network, {})
            has_free = bool(ranges) and all(
                any(a not in taken for cidr in ranges if cidr.version == version for a in usable(network, cidr))
                for version in {cidr.version for cidr in ranges}
            )
            assert machine.end_add() == has_free

    @rule(node=nodes, place=st.integers(0, 50), number=st.integers(1, 12))
    def delete_pods(self, node: int, place: int, number: int) -> None:
        for _ in range(number):
            self.machines[node].delete_pod(place)

    # -- time and machines

    @rule(seconds=TIMES)
    def pass_time(self, seconds: float) -> None:
        for machine in self.machines:
            machine.pass_time(seconds)

    @rule(node=nodes, seconds=st.sampled_from([-1e6, -3600.0, 3600.0, 1e6]))
    def set_clock(self, node: int, seconds: float) -> None:
        self.machines[node].wall += seconds

    @rule(
        node=nodes,
        network=NETWORKS,
        fault=st.sampled_from(Fault),
        at=st.integers(0, 2),
        dies_at=DEATHS,
    )
    def grow(self, node: int, network: str, fault: Fault, at: int, dies_at: int | None) -> None:
        """Fill the ranges, so that another block is claimed."""
        self.add_pods(node, network, 8)
        self.tick(node, fault, at, dies_at)

    @rule(node=nodes, seconds=TIMES, fault=st.sampled_from(Fault), at=st.integers(0, 2), dies_at=DEATHS)
    def shrink(self, node: int, seconds: float, fault: Fault, at: int, dies_at: int | None) -> None:
        """Empty the ranges, so that a block is drained, and released after a while."""
        self.delete_pods(node, 0, 100)
        self.settle(node, 2)
        self.pass_time(seconds)
        self.tick(node, fault, at, dies_at)

    @rule(node=nodes, network=NETWORKS, seconds=st.sampled_from([1.0, 100.0]))
    def lease_late(self, node: int, network: str, seconds: float) -> None:
        """Let ADDs read a conflist, and lease from it when it is no longer the present one."""
        self.add_pods(node, network, 12)
        self.settle(node, 3)
        for _ in range(2):
            self.begin_add(node, network)
        adds, self.machines[node].adds = self.machines[node].adds, []
        self.delete_pods(node, 0, 100)
        self.settle(node, 3)
        self.pass_time(seconds)
        self.settle(node, 3)
        self.fill(node + 1, network)
        self.machines[node].adds += adds
        self.end_adds(node)
        self.settle(node, 1)

    @rule(node=nodes, network=NETWORKS, fault=st.sampled_from(Fault), at=st.integers(0, 2))
    def resume(self, node: int, network: str, fault: Fault, at: int) -> None:
        """Use a block again while the request that releases it is on its way."""
        self.add_pods(node, network, 12)
        self.settle(node, 4)
        self.delete_pods(node, 0, 100)
        self.settle(node, 3)
        self.pass_time(GRACE_SECONDS + 1)
        self.tick(node, fault, at, None)
        self.add_pods(node, network, 12)
        self.tick(node, Fault.NONE, 0, None)
        self.settle(node, 2)
        self.add_pods(node, network, 12)
        while self.engine.late:
            self.engine.land()
        self.fill(node + 1, network)

    def fill(self, node: int, network: str) -> None:
        """Let a node claim most blocks that are free."""
        for _ in range(6):
            self.add_pods(node % NODES, network, 8)
            self.settle(node % NODES, 2)

    @rule(node=nodes)
    def delete_conflists(self, node: int) -> None:
        self.machines[node].conflists = {}

    @rule(node=nodes)
    def boot(self, node: int) -> None:
        self.machines[node].boot()

    @rule(node=nodes, is_gone=st.sampled_from([False, False, True]))
    def replace_machine(self, node: int, *, is_gone: bool) -> None:
        """Give the name of a machine that is gone for good to a new one."""
        if not is_gone:
            return
        gone = self.machines[node]
        self.dead.add(gone.uid)
        uid = f"uid{node}-{len(self.dead)}"
        self.machines[node] = Machine(self.engine, gone.name, uid, node + 1)

    @precondition(lambda self: self.dead)
    @rule()
    def release_dead(self) -> None:
        """`cnitool cluster release`."""
        self.engine.blocks = {key: one for key, one in self.engine.blocks.items() if one.uid not in self.dead}
        self.engine.note()

    # -- the promises

    def holders(self) -> dict[str, dict[Address, list[str]]]:
        found: dict[str, dict[Address, list[str]]] = {name: {} for name in POOLS}
        for machine in self.machines:
            for network, leases in machine.leases.items():
                for address in leases:
                    found[network].setdefault(address, []).append(machine.name)
        return found

    def strangers(self, machine: Machine, keys: set[Key]) -> set[Key]:
        """Return the blocks that the engine does not have as the machine's own."""
        blocks = self.engine.blocks
        return {key for key in keys if key not in blocks or blocks[key].uid != machine.uid}

    @invariant()
    def no_address_is_in_two_pods(self) -> None:
        if not self.is_restored:
            doubles = {a: names for leases in self.holders().values() for a, names in leases.items() if len(names) > 1}
            assert doubles == {}

    @invariant()
    def published_and_used_blocks_are_owned(self) -> None:
        if not self.is_restored:
            for machine in self.machines:
                assert self.strangers(machine, published(machine) | inhabited(machine)) == set()

    @invariant()
    def own_blocks_are_never_routed_away(self) -> None:
        for machine in self.machines:
            local = {cidr for network, cidr in inhabited(machine) if network == "pods"}
            if machine.decided.actions and machine.is_connected and not self.is_restored:
                assert not local & {route.cidr for route in machine.routes}

    # -- the end

    def teardown(self) -> None:
        """Let every fault end: the nodes come to rest, and nothing is lost."""
        for node in range(NODES):
            self.end_adds(node)
            self.connect(node)
        while self.engine.late:
            self.engine.land()
        self.rest()
        self.check_rest()
        for machine in self.machines:
            machine.leases = {}
        self.rest()
        self.check_rest()
        for machine in self.machines:  # nobody keeps more than it needs
            counts = Counter((network, cidr.version) for network, cidr in published(machine))
            assert all(count <= 2 for count in counts.values()), counts

    def rest(self) -> None:
        """Decide until no node has an action for longer than the grace. Nothing flaps: the decisions are counted."""
        quiet_since = now = 0.0
        for _ in range(LONGEST_RECOVERY):
            is_quiet = True
            for machine in self.machines:
                machine.seen = len(self.engine.history) - 1
                machine.tick()
                is_quiet &= all(isinstance(one, Alarm) for one in machine.decided.actions)
            quiet_since = quiet_since if is_quiet else now
            if now - quiet_since > GRACE_SECONDS:
                break
            seconds = min(machine.decided.again_seconds for machine in self.machines)
            now += seconds
            self.pass_time(seconds)
        else:
            raise AssertionError([machine.decided for machine in self.machines])
        self.holds_after_rest()

    def holds_after_rest(self) -> None:
        self.published_are_owned_by_one()
        for machine in self.machines:
            alarms = {(one.name, one.about) for one in machine.decided.actions if isinstance(one, Alarm)}
            for _, cidr in self.strangers(machine, inhabited(machine)):  # pods of a lost block are named
                assert ("block-lost", str(cidr)) in alarms
            others = {cidr for peer in self.machines if peer is not machine for cidr in self.announced(peer)}
            own = self.announced(machine)
            assert {route.cidr for route in machine.routes} == others - own

    def announced(self, machine: Machine) -> set[Cidr]:
        peer = self.engine.peers[machine.name]
        assert peer.uid == machine.uid
        cidrs = set(peer.cidrs.get("pods", ()))
        assert cidrs >= {cidr for network, cidr in published(machine) | inhabited(machine) if network == "pods"}
        return cidrs

    def published_are_owned_by_one(self) -> None:
        for machine in self.machines:
            assert self.strangers(machine, published(machine)) == set()

    def check_rest(self) -> None:
        """Each block in the engine has an owner that lives and knows it, or an alarm about the machine that is gone."""
        living = {machine.uid: machine for machine in self.machines}
        for key, block in self.engine.blocks.items():
            if block.uid in living:
                assert key in living[block.uid].disk.held
            else:
                assert block.uid in self.dead
                told = [one for machine in self.machines for one in machine.decided.actions if isinstance(one, Alarm)]
                assert any(one.name == "former-blocks" and block.uid in one.text for one in told)
        for machine in self.machines:
            alarms = {one.name for one in machine.decided.actions if isinstance(one, Alarm)}
            if "pool-exhausted" not in alarms:  # a network waits until each of its families has a block
                assert set(machine.disk.held) == published(machine) | inhabited(machine)
                assert not machine.disk.attempts
            for name, pool in POOLS.items():
                for entry in pool.ranges:
                    mine = [c for c in machine.conflists.get(name, ()) if c.version == entry.cidr.version]
                    free = [a for c in mine for a in usable(name, c) if a not in machine.leases.get(name, {})]
                    assert len(free) >= 2 or "pool-exhausted" in alarms


class RestoredWorld(World):
    """The same with an engine that is restored from an old backup: the loser leaves as soon as it knows."""

    saved = None

    @precondition(lambda self: self.saved is None)
    @rule()
    def back_up(self) -> None:
        self.saved = self.engine.history[-1]

    @precondition(lambda self: self.saved is not None and not self.is_restored)
    @rule()
    def restore(self) -> None:
        assert self.saved is not None
        self.engine.restore(self.saved)
        self.is_restored = True
        for machine in self.machines:
            if machine.is_connected:
                machine.seen = len(self.engine.history) - 1

    @precondition(lambda self: not self.is_restored)
    @rule(node=World.nodes, network=NETWORKS, is_known=st.booleans())
    def lose_claims(self, node: int, network: str, *, is_known: bool) -> None:
        """Claim blocks that the restored engine lacks, while their owner does not know."""
        self.saved = self.saved or self.engine.history[-1]
        self.add_pods(node, network, 12)
        self.settle(node, 4)
        self.machines[node].is_connected = is_known
        self.restore()
        self.fill(node + 1, network)
        self.add_pods(node, network, 3)
        self.a_current_loser_leaves(node)

    @precondition(lambda self: self.is_restored)
    @rule(node=World.nodes)
    def a_current_loser_leaves(self, node: int) -> None:
        self.connect(node)
        for _ in range(3):  # a claim that fails stops a decision
            self.hear(node, 1000)
            if self.machines[node].tick():
                break
        assert self.strangers(self.machines[node], published(self.machines[node])) == set()


def published(machine: Machine) -> set[Key]:
    return {(network, cidr) for network, cidrs in machine.conflists.items() for cidr in cidrs}


def inhabited(machine: Machine) -> set[Key]:
    return {
        (network, ip_network((address, entry.block_length), strict=False))
        for network, leases in machine.leases.items()
        for entry in POOLS[network].ranges
        for address in leases
        if address in entry.cidr
    }


SETTINGS = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    phases=[Phase.generate],  # with Phase.shrink a failure is shorter, and takes minutes
)  # fmt: skip
TestWorld = World.TestCase
TestWorld.settings = SETTINGS
TestRestoredWorld = RestoredWorld.TestCase
TestRestoredWorld.settings = SETTINGS
