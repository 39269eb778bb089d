"""The log's cost for a call: the same executables with and without it, alternated call by call.

Run as `tests/bench/run log`; with --before, the executables of a version that has no log take turns, too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.bench.__main__ import Samples, installed
from tests.bench.cells import LOOPBACK, PLAIN, Network, Suites

LOG = "/run/bench.log"


def logging(network: Network, variant: str) -> Network:
    """Return the network of a variant."""
    if variant != "on":
        return network
    return replace(network, plugins=tuple(keys | {"pycni": {"log": LOG}} for keys in network.plugins))


def measure(suites: Suites, rounds: int) -> Samples:
    """Return the samples. Round -1 is the warm-up, which is not kept."""
    rows: Samples = {}
    for number in range(-1, rounds):
        for network in (LOOPBACK, PLAIN):
            for verb in ("ADD", "DEL"):
                for suite in suites.in_turn(number):
                    value = suite.run(verb, logging(network, suite.name), suite.pods[:1])
                    if number >= 0:
                        rows.setdefault(f"{network.row} {verb}", {}).setdefault(suite.name, []).append(value)
    (on,) = (suite for suite in suites if suite.name == "on")
    if not (on.host.root / LOG.lstrip("/")).stat().st_size:
        sys.exit("bench: nothing was logged")
    return rows


def table(rows: Samples, variants: list[str]) -> str:
    """Return medians of wall time in ms, and of the differences between the calls of a round."""
    lines = ["| call | variant | median, ms | more than off, ms |", "|---|---|---|---|"]
    for row, samples in rows.items():
        for variant in variants:
            differences = [call - off for call, off in zip(samples[variant], samples["off"], strict=True)]
            median = statistics.median(samples[variant])
            lines.append(f"| {row} | {variant} | {median:.2f} | {statistics.median(differences):+.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Install the suite, measure on pretend hosts, print the table."""
    parser = argparse.ArgumentParser(prog="tests/bench/run log", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="calls of each kind and variant (default: %(default)s)")
    parser.add_argument("--bin-dir", type=Path, help="the executables (default: install the suite for the run)")
    parser.add_argument("--before", type=Path, help="the executables of a version without the log")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as scratch:
        bin_dir = installed(chosen.bin_dir, Path(scratch))
        variants = {"before": chosen.before.resolve()} if chosen.before else {}
        variants |= {"off": bin_dir, "on": bin_dir}
        with Suites(variants) as suites:
            rows = measure(suites, chosen.rounds)
    print(table(rows, list(variants)))


if __name__ == "__main__":
    main()
