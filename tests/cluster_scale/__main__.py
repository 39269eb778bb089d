"""Simulate a cluster on real etcd, and one host with as many peers. Prints tables of requests, bytes and events.

Needs root, and Debian's etcd-server. The checks are on counts and on invariants, never on times.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

from tests.bench.report import document
from tests.cluster_scale import phases, report
from tests.cluster_scale.simulation import Costs, Simulation
from tests.etcd import running

PAGE = Path(__file__).resolve().parents[2] / "docs/explanation/cluster-scale.md"
NODES, ROUNDS = 10_000, 3
SWITCH_SECONDS = 0.0005  # between two threads: a request is not kept waiting for the follower


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/cluster_scale/run", description=__doc__)
    parser.add_argument("--nodes", type=int, default=NODES, help="%(default)s by default")
    parser.add_argument("--document", action="store_true", help=f"write the tables into {PAGE.name}, too")
    parser.add_argument("--host", action="store_true", help="measure the one host alone")
    return parser.parse_args()


def simulate(nodes: int) -> dict[str, Costs]:
    """Return the costs of each phase by its name."""
    found: dict[str, Costs] = {}

    def keep(costs: Costs) -> None:
        found[costs.name] = costs
        print(f"{costs.name}: {costs.real_seconds:.0f} s", file=sys.stderr)

    with running() as cluster, cluster.netns, Simulation(cluster, nodes).running() as simulation:
        keep(phases.join(simulation, nodes))
        keep(phases.rest(simulation))
        keep(simulation.measure_start())
        keep(simulation.measure_minute(simulation.agents[0]))
        keep(phases.boot(simulation))
        keep(phases.suffer_outage(simulation))
        keep(phases.lose_half(simulation))
        keep(phases.join_at_once(simulation, nodes, nodes // 2))
    return found


def main() -> None:
    """Run, and print the tables."""
    options = arguments()
    sys.setswitchinterval(SWITCH_SECONDS)
    began = time.monotonic()
    hosts = [report.measure_host(options.nodes, kind, ROUNDS) for kind in ("near", "far")]
    texts = {"host": report.host_table(hosts)}
    if not options.host:
        texts["cluster"] = report.cluster_table(simulate(options.nodes), options.nodes)
    about = f"Linux {platform.release()}, Python {platform.python_version()}, {time.monotonic() - began:.0f} seconds in all."
    for name, text in texts.items():
        print(text)
        if options.document:
            document(name, f"{text}\n", PAGE)
    print(about)


if __name__ == "__main__":
    main()
