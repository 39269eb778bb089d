"""The log's cost for a call: the same executables with and without it, alternated call by call.

Run as `tests/bench/run log`; with --before, the executables of a version that has no log take turns, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.__main__ import ROOT, install, interpreter
from tests.bench.driver import Bench, Cell, Plan
from tests.pretend import PATH, PretendHost

LOG = "/run/bench.log"
NETWORK = {"cniVersion": "1.0.0", "isGateway": True, "ipam": {"type": "host-local", "subnet": "10.64.0.0/14"}}
LIVES = {"loopback": ("ADD", "DEL"), "bridge": ("ADD", "CHECK", "DEL")}


def cells(variants: dict[str, str], plugin: str) -> list[Cell]:
    """Return a network of each variant, so that all can take turns."""
    made = []
    for variant, bin_dir in variants.items():
        name = f"{variant}-{plugin}"
        config = NETWORK | {"name": name, "type": plugin, "bridge": f"br-{variant}"}
        if variant == "on":
            config["pycni"] = {"log": LOG}
        made.append(Cell(variant, bin_dir, name, plugin, "", LIVES[plugin], config))
    return made


def inside() -> None:
    """Run in the pretend host: the plan from stdin, the samples to stdout."""
    plan = Plan(**json.load(sys.stdin))
    bench = Bench(plan)
    bench.measure("log", [cells(plan.suites, plugin) for plugin in LIVES])
    if not Path(LOG).stat().st_size:
        sys.exit("bench: nothing was logged")
    json.dump(bench.samples.rows, sys.stdout)


def table(rows: dict[str, dict[str, list[list[float]]]]) -> str:
    """Return medians of wall time in ms, and of the differences between the calls of a round: wall and CPU time."""
    lines = ["| call | variant | median, ms | more than off, ms | CPU more than off, ms |", "|---|---|---|---|---|"]
    for row, samples in rows.items():
        for variant, calls in samples.items():
            wall, cpu = (
                statistics.median(call[kind] - off[kind] for call, off in zip(calls, samples["off"], strict=True))
                for kind in (0, 1)
            )
            median = statistics.median(call[0] for call in calls)
            lines.append(f"| {row} | {variant} | {median:.2f} | {wall:+.3f} | {cpu:+.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Install the suite, measure in a pretend host, print the table."""
    parser = argparse.ArgumentParser(prog="tests/bench/run log", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="calls of each kind and variant (default: %(default)s)")
    parser.add_argument("--bin-dir", type=Path, help="the executables (default: install the suite for the run)")
    parser.add_argument("--before", type=Path, help="the executables of a version without the log")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as scratch:
        bin_dir = (chosen.bin_dir or install(Path(scratch))).resolve()
        before = {"before": str(chosen.before.resolve())} if chosen.before else {}
        plan: dict[str, Any] = {
            "suites": {**before, "off": str(bin_dir), "on": str(bin_dir)},
            "python": interpreter(bin_dir / "loopback"), "rounds": chosen.rounds, "settle": 0.02, "lease_levels": [],
            "pod_levels": [], "first_calls": 0, "peak_calls": 0, "disk": "", "disk_type": "",
        }  # fmt: skip
        with PretendHost(bin_dir) as host:
            command = (sys.executable, "-P", "-m", "tests.bench.log", "inside")
            driver = host.popen(*command, env={"PATH": PATH, "PYTHONPATH": str(ROOT)}, stderr=None)
            stdout, _ = driver.communicate(json.dumps(plan).encode())
    if driver.returncode != 0:
        sys.exit(f"bench: the run ended early with status {driver.returncode}")
    print(table(json.loads(stdout)))


if __name__ == "__main__":
    inside() if sys.argv[1:] == ["inside"] else main()
