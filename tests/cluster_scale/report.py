"""The tables of tests/cluster_scale/run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.cluster_scale.simulation import Costs
from tests.pretend import PATH, TREE, PretendHost

HOST_SECONDS = 300.0  # for one measurement
LISTED = ("claims", "announcements", "reads by name", "marks", "releases", "withdrawals")
ABOUT = {
    "join": "a node joins, as {nodes:,} do within a minute",
    "rest": "a minute without changes, of decisions",
    "start": "an agent starts: it reads {objects:,} objects, and watches",
    "minute": "a minute without changes, of the watch and the sign of life",
    "boot": "a node boots, as 1 % do one after the other",
    "outage": "etcd is down for half an hour, and comes back; 2 % of the nodes need a block then",
    "release": "a node is released, as half of all are",
    "join at once": "a node joins, as {nodes:,} do in the same second",
}


def measure_host(peers: int, kind: str, rounds: int = 1) -> dict[str, Any]:
    """Return the figures of one host: tests/cluster_scale/host.py. Of several rounds each figure's least counts."""
    found: list[dict[str, Any]] = []
    for _ in range(rounds):
        with PretendHost() as host:
            command = [sys.executable, "-P", "-m", "tests.cluster_scale.host", str(peers), kind]
            out = host.run(*command, env={"PATH": PATH, "PYTHONPATH": TREE}, timeout=HOST_SECONDS).stdout
        found.append(json.loads(out))
    return {name: min(one[name] for one in found) for name in found[0]}


def cluster_table(phases: Mapping[str, Costs], nodes: int) -> str:
    """Return the requests and events of each phase."""
    rows = []
    for name, costs in phases.items():
        kinds = ", ".join(
            f"{_per(costs.requests[kind], costs.nodes)} {kind}" for kind in LISTED if costs.requests[kind]
        )
        rows.append([
            ABOUT[name].format(nodes=costs.nodes, objects=3 * nodes + 1),
            _per(costs.total(), costs.nodes) + (f": {kinds}" if kinds else ""),
            _kib(costs.sent_bytes / costs.nodes), _kib(costs.received_bytes / costs.nodes),
            f"{costs.events:,}" if costs.name != "minute" else "0", _kib(costs.event_bytes),
        ])  # fmt: skip
    head = ["for each node", "requests", "sent, KiB", "received, KiB", "events to each agent", "of KiB"]
    return _table(head, rows)


def host_table(hosts: Sequence[Mapping[str, Any]]) -> str:
    """Return the memory and processor time of one node's agent."""
    names = {"near": "on the node's link", "far": "behind tunnels"}
    rows = [
        [
            f"{one['peers']:,} {names[one['kind']]}", f"{one['routes']:,}", f"{one['empty_mib']:.0f}",
            f"{one['mib']:.0f}", f"{one['peak_mib']:.0f}",
            *(f"{one[f'{name}_seconds']:.2f}" for name in ("list", "join", "change", "steady")),
        ]
        for one in hosts
    ]  # fmt: skip
    head = [
        "peers", "routes", "MiB without peers", "MiB", "at its peak", "s of processor time: reading all objects",
        "first routes", "a peer joins", "nothing changed",
    ]  # fmt: skip
    return _table(head, rows)


def _per(count: float, nodes: int) -> str:
    return f"{count / nodes:.2f}".rstrip("0").rstrip(".")


def _kib(number: float) -> str:
    kib = number / 1024
    return f"{kib:.2f}" if 0 < kib < 100 else f"{kib:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first two columns are text."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
