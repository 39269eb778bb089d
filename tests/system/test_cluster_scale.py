"""The requests, bytes and events of a cluster's life, by 300 nodes, and one host with many peers.

`tests/cluster_scale/run` does the same with 10,000.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster_scale import phases, report
from tests.cluster_scale.simulation import Simulation
from tests.etcd import running

NODES, SHARE = 300, 50
JOIN_BYTES = 1600  # of a node's requests, and of their answers
START_BYTES = 950  # of a node's three objects in a list
EVENT_BYTES = 500  # of one event


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with running() as cluster, cluster.netns, Simulation(cluster, NODES).running() as found:
        yield found


def test_costs_of_a_clusters_life(simulation: Simulation) -> None:
    """Each phase ends with one owner of each block, and without two pods of one address."""
    joined = phases.join(simulation, NODES)
    taken = joined.requests.pop("claims of a taken block")
    assert joined.requests == {"claims": 2 * NODES + taken, "announcements": NODES, "reads by name": taken}
    assert taken <= NODES // 20
    assert joined.events == 3 * NODES
    assert joined.event_bytes <= EVENT_BYTES * joined.events
    assert joined.sent_bytes <= JOIN_BYTES * NODES
    assert joined.received_bytes <= JOIN_BYTES * NODES

    rested = phases.rest(simulation)
    assert (rested.total(), rested.events) == (0, 0)

    started = simulation.measure_start()
    assert started.total() == 2  # a list of one page, and a watch
    assert started.received_bytes <= START_BYTES * NODES

    booted = phases.boot(simulation)
    assert (booted.total(), booted.events) == (0, 0)

    suffered = phases.suffer_outage(simulation, SHARE)
    full = NODES // SHARE
    assert suffered.requests["claims"] - suffered.requests["claims of a taken block"] == full
    assert suffered.requests["announcements"] == full
    assert suffered.total() <= 3 * full
    assert suffered.events == 2 * full

    half = NODES // 2
    left = phases.lose_half(simulation)
    extra = left.requests["releases"] - 2 * half  # a node that was full has three blocks
    assert 0 <= extra <= full
    assert left.requests == {"releases": 2 * half + extra, "withdrawals": half}
    assert left.events == left.total()

    rushed = phases.join_at_once(simulation, NODES, half)
    taken = rushed.requests["claims of a taken block"]
    assert rushed.requests["claims"] == 2 * half + taken
    assert rushed.requests["announcements"] == half
    assert rushed.requests["reads by name"] == taken
    assert taken <= half
    assert rushed.events == 3 * half


@pytest.mark.parametrize("kind", ["near", pytest.param("far", marks=pytest.mark.kernel_vxlan)])
def test_memory_of_one_host_with_many_peers(kind: str) -> None:
    peers, mib_of_a_peer, fixed_mib = 1000, 0.016, 8
    found = report.measure_host(peers, kind)
    assert found["peers"] == peers + 1
    assert found["routes"] == found["kernel_routes"] == 2 * found["peers"]
    assert found["peak_mib"] - found["empty_mib"] <= fixed_mib + mib_of_a_peer * peers
