"""The life of a cluster: a storm of joins, a steady minute, boots, an outage, and half of the nodes gone for good."""

from __future__ import annotations

from tests.cluster_scale.simulation import Costs, Simulation

JOIN_SECONDS, SETTLE_SECONDS = 60.0, 130.0
STEADY_SECONDS = 60.0  # each agent makes one step at least
OUTAGE_SECONDS = 1800.0
FULL_PODS = 200  # of 253 addresses: less than the watermark is free
FEW_PODS = 3


def join(simulation: Simulation, count: int) -> Costs:
    """Let nodes join within a minute."""
    with simulation.phase("join", count) as costs:
        simulation.begin(range(count), JOIN_SECONDS)
        simulation.run(JOIN_SECONDS + SETTLE_SECONDS)
    simulation.verify()
    return costs


def rest(simulation: Simulation) -> Costs:
    """Let a minute pass in which no pod comes or goes."""
    with simulation.phase("rest", len(simulation.agents)) as costs:
        simulation.run(STEADY_SECONDS)
    simulation.verify()
    return costs


def boot(simulation: Simulation, share: int = 100) -> Costs:
    """Boot one of so many nodes, one after the other."""
    numbers = [number for number in simulation.agents if number % share == 0]
    with simulation.phase("boot", len(numbers)) as costs:
        for number in numbers:
            simulation.agents[number].boot()
            simulation.wake(number, 0)
            simulation.run(1)
        simulation.run(STEADY_SECONDS)
    simulation.verify()
    return costs


def suffer_outage(simulation: Simulation, share: int = 50) -> Costs:
    """Stop etcd for half an hour. Pods come on all nodes, and fill one node of so many. Half as many nodes boot."""
    filled = [number for number in simulation.agents if number % share == 1]
    with simulation.phase("outage", len(simulation.agents)) as costs:
        with simulation.outage():
            for number, agent in simulation.agents.items():
                pods = FULL_PODS if number in filled else FEW_PODS
                assert all(agent.host.add_pod() for _ in range(pods))
            asked = simulation.requests.counts.copy()
            simulation.run(OUTAGE_SECONDS / 2)
            for agent in [one for number, one in simulation.agents.items() if number % (2 * share) == 0]:
                agent.boot()
                assert agent.host.add_pod()
            simulation.run(OUTAGE_SECONDS / 2)
            assert simulation.requests.counts == asked
        for number in simulation.agents:  # the follower of each wakes it
            simulation.wake(number, 0)
        simulation.run(SETTLE_SECONDS)
    simulation.verify()
    assert all(len(simulation.agents[number].host.ranges) == 3 for number in filled)
    return costs


def lose_half(simulation: Simulation) -> Costs:
    """Let half of the nodes be gone for good, and release each of them."""
    numbers = list(simulation.agents)
    with simulation.phase("release", len(numbers) // 2) as costs:
        gone = simulation.remove(numbers[::2])
        simulation.release(gone)
        simulation.run(STEADY_SECONDS)
    simulation.verify()
    return costs


def join_at_once(simulation: Simulation, first: int, count: int) -> Costs:
    """Let nodes join in the same second: none sees the claim of another."""
    with simulation.phase("join at once", count) as costs:
        simulation.begin(range(first, first + count), 0)
        simulation.run(SETTLE_SECONDS)
    simulation.verify()
    return costs
