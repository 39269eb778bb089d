"""Measure wall time and memory: the reference's executables, this suite's, and this suite's with its agent.

The suites alternate call by call in one run, each on a pretend host of its own. Prints the tables and saves bench.md,
bench.json (with every sample) and bench.svg. The exit status says whether the run was whole, never how fast anything
was: the targets are printed beside the ratios for information.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.agent.running import IDLE_WORKERS, PROGRAM, Agent, proportional_mib
from tests.bench import cells
from tests.bench.cells import FOUR, LOOPBACK, MACVLAN, MASQ, OTHERS, PLAIN, POINT_TO_POINT, PORTS, Network, Suites
from tests.bench.report import clients_tables, document, plot, tables
from tests.kernel import features
from tests.pretend import until

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/explanation/performance.md"
ROUNDS, QUICK_ROUNDS, FIRST_CALLS, DHCP_CALLS = 40, 15, 3, 7
LEASES, PODS = (1000, 10_000), (50, 200)
NEEDED = ("loopback", "bridge", "host-local", "portmap", "firewall", "bandwidth", "ptp")
BARE = "interpreter, bare start"
Samples = dict[str, dict[str, list[float]]]  # of a row and a suite, one for each round


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, help=f"calls of each kind and suite (default: {ROUNDS}; with --quick {QUICK_ROUNDS})"
    )
    parser.add_argument("--quick", action="store_true", help="about two minutes: fewer rounds and pods")
    parser.add_argument("--pods", type=int, help="how many pods are many (default: 200; with --quick 50)")
    parser.add_argument("--bin-dir", type=Path, help="executables to measure (default: install the suite for the run)")
    parser.add_argument("--agent-dir", type=Path, help="the same, installed with --agent (default: install it, too)")
    parser.add_argument(
        "--reference", type=Path, default=Path("/usr/lib/cni"), help="the reference (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=HERE / "out", help="directory of the files (default: %(default)s)")
    parser.add_argument("--clients", action="store_true", help="measure containerd's pods instead of the plugins")
    parser.add_argument("--document", action="store_true", help=f"write the tables into {PAGE.name}, too")
    chosen = parser.parse_args()
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds: at least 1")
    if chosen.pods is not None and chosen.pods < 2:
        parser.error("--pods: at least 2")
    if os.geteuid() != 0:
        parser.error("only root can make the pretend host")
    for directory in (chosen.reference, chosen.bin_dir, chosen.agent_dir):
        missing = [name for name in NEEDED if directory and not os.access(directory / name, os.X_OK)]
        if missing:
            parser.error(f"{directory} has no executable {', '.join(missing)}")
    return chosen


def installed(chosen: Path | None, scratch: Path) -> Path:
    """Return the chosen bin directory, or install the suite for this run."""
    bin_dir, said = (chosen, "") if chosen else cells.install(scratch / "executed")
    if bin_dir is None:
        sys.exit(f"bench: install.sh failed:\n{said}")
    return bin_dir.resolve()


def bin_dirs(chosen: argparse.Namespace, scratch: Path) -> tuple[dict[str, Path], str]:
    """Return the suites' directories, and the reason if the one with the agent is missing."""
    found = {"reference": chosen.reference.resolve(), "executed": installed(chosen.bin_dir, scratch)}
    agent, said = (chosen.agent_dir, "") if chosen.agent_dir else cells.install(scratch / "agent", "--agent")
    if agent is None or not os.access(agent / PROGRAM, os.X_OK):
        return found, f"There is no agent: {said.splitlines()[-1] if said else f'{agent} has no {PROGRAM}'}"
    return found | {"agent": agent.resolve()}, ""


def interpreter(executable: Path) -> str:
    """Return the Python in a launcher's first line, or the running one if it names none."""
    first = executable.read_bytes()[:256].split(b"\n", 1)[0].decode(errors="replace")
    named = first[2:].split()[0] if first.startswith("#!/") else ""
    return named if Path(named).name.startswith("python") else str(Path(sys.executable).resolve())


def about(dirs: dict[str, Path], python: str) -> dict[str, str]:
    """Return the subject, place and time of the measurement, in words."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].split(":", 1)[1].strip() if models else platform.machine()
    version = subprocess.run([python, "-IS", "-V"], check=True, capture_output=True, text=True).stdout.strip()
    return {
        "reference": release(dirs["reference"]),
        "machine": f"{os.cpu_count()} × {model}, Linux {platform.release()}, {version}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def release(directory: Path) -> str:
    """Return the Debian package and version of a directory's executables, or the directory itself."""
    try:
        owner = subprocess.run(["dpkg-query", "-S", f"{directory}/bridge"], check=True, capture_output=True, text=True)
        package = owner.stdout.split(":")[0]
        command = ["dpkg-query", "-W", "-f", "${Package} ${Version}", package]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return str(directory)


class Bench:
    """One run: the suites, and the samples so far."""

    def __init__(self, suites: Suites, rounds: int, pods: list[int], python: str, others: list[Network]) -> None:
        self.suites, self.rounds, self.pods, self.python, self.others = suites, rounds, pods, python, others
        self.rows: Samples = {}
        self.memory: Samples = {}

    def run(self) -> None:
        for suite in self.suites:
            suite.host.run("sh", "-ec", cells.LINKS)
            for network in (FOUR, MACVLAN):
                suite.populate(network, 0, 1)
        self.measure("one pod", [LOOPBACK, PLAIN, MASQ, POINT_TO_POINT, PORTS, FOUR], is_bare_too=True)
        self.measure("at once", [replace(MASQ, row=f"{cells.AT_ONCE} × masq")], at_once=cells.AT_ONCE)
        self.measure("other plugins", self.others)
        for suite in self.suites:
            suite.serve_dhcp()
        self.measure("dhcp", [cells.DHCP], rounds=min(self.rounds, DHCP_CALLS))
        self.measure("leases", [self.leases(count) for count in LEASES])
        self.peaks()
        for before, count in zip([1, *self.pods], self.pods, strict=False):
            progress(f"{count} pods")
            for suite in self.suites:
                for network in (FOUR, MACVLAN):
                    suite.populate(network, before, count)
            crowd = [replace(one, row=f"{one.row}, {count} pods") for one in (PLAIN, MASQ, PORTS, FOUR, MACVLAN)]
            self.measure(f"{count} pods", crowd)

    def note(self, row: str, suite: str, value: float) -> None:
        self.rows.setdefault(row, {}).setdefault(suite, []).append(round(value, 4))

    def measure(
        self, title: str, networks: list[Network], *, at_once: int = 1, is_bare_too: bool = False, rounds: int = 0
    ) -> None:
        """Measure ADD and DEL of networks, suite against suite. Round -1 is the warm-up, which is not kept."""
        rounds = rounds or self.rounds
        for number in range(-1, rounds):
            progress(f"{title}: round {number + 1} of {rounds}")
            for network in networks:
                for verb in ("ADD", "DEL"):
                    for suite in (one for one in self.suites.in_turn(number) if one.has(network)):
                        value = suite.run(verb, network, suite.pods[:at_once])
                        if number >= 0:
                            self.note(row_of(network, verb), suite.name, value)
            if is_bare_too and number >= 0:
                bare = self.suites[1].execute(self.python, "-IS", "-c", "pass")
                self.note(BARE, "executed", bare)

    def leases(self, count: int) -> Network:
        """Return a network of that many leases that another program wrote. Its first ADD is a row of its own."""
        for number in range(min(FIRST_CALLS, self.rounds)):
            network = network_of(count, number)
            for suite in self.suites.in_turn(number):
                progress(f"{suite.name}: {count:,} leases of another program")
                suite.write_leases(network, count)
                row = f"bridge ADD, the first after {count:,} leases of another program"
                self.note(row, suite.name, suite.run("ADD", network, suite.pods[:1]))
                suite.run("DEL", network, suite.pods[:1])
        return network_of(count, 0)

    def peaks(self) -> None:
        """Measure peak memory, with /bin/true and the bare interpreter as the floor, and that of the agent."""
        progress("memory")
        executed = self.suites[1]
        for number in range(min(self.rounds, 11)):
            for row, argv in ("/bin/true", ("/bin/true",)), (BARE, (self.python, "-IS", "-c", "pass")):
                self.note_memory(row, "executed", executed.peak_of(*argv))
            for verb in ("ADD", "DEL"):
                for suite in self.suites.in_turn(number):
                    row = "bridge" if suite.agent is None else "bridge, launcher"
                    self.note_memory(f"{row} {verb}", suite.name, suite.peak(verb, PLAIN))
        for suite in self.suites:
            if suite.agent is not None:
                for row, value in agent_memory(suite.agent).items():
                    self.note_memory(row, suite.name, value)

    def note_memory(self, row: str, suite: str, value: float) -> None:
        self.memory.setdefault(row, {}).setdefault(suite, []).append(round(value, 3))


def row_of(network: Network, verb: str) -> str:
    """Return the name of a row, such as `bridge ADD, 50 pods`."""
    name, comma, setting = network.row.partition(",")
    return f"{name} {verb}{comma}{setting}"


def network_of(count: int, number: int) -> Network:
    """Return a network with the `number`th store for that many leases."""
    ipam = cells.IPAM | {"dataDir": f"{cells.STORE}-{count}-{number}"}
    return Network(f"bridge, {count:,} leases", (cells.BRIDGE | {"ipam": ipam},))


def agent_memory(agent: Agent) -> dict[str, float]:
    """Return proportional set sizes in MiB: of server and idle workers, of one worker, of the duties."""
    at_rest = {"idle": IDLE_WORKERS, "busy": 0}  # a worker may be on its way out
    until(lambda: bool(agent.status()["workers"] == at_rest and len(agent.workers()) == IDLE_WORKERS))
    workers = [proportional_mib(pid) for pid in agent.workers()]
    duties = [proportional_mib(pid) for pid in agent.duties()]
    found = {
        f"agent with {IDLE_WORKERS} idle workers, PSS": proportional_mib(agent.process.pid) + sum(workers),
        "one idle worker, PSS": max(workers),
    }
    return found | ({"duties, PSS": sum(duties)} if duties else {})


def describe_calls(agent: Agent) -> str:
    """Return the numbers of calls that workers served, and that fell back: their times are not those of the agent."""
    status = agent.status()
    reasons = "".join(f"; {number} declined: {reason}" for reason, number in status["reasons"].items())
    return f"it served {agent.taken():,} calls, and {status['fallbacks']:,} fell back to executables{reasons}."


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(chosen: argparse.Namespace, dirs: dict[str, Path], missing: str) -> dict[str, Any]:
    """Return the outcome: the content of bench.json."""
    rounds = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS)
    python = interpreter(dirs["executed"] / "loopback")
    served = f"it was not measured. {missing}" if missing else "it served the calls."
    plan: dict[str, Any] = {"rounds": rounds, "agent": served}
    outcome: dict[str, Any] = {"about": about(dirs, python), "plan": plan}
    if chosen.clients:
        from tests.bench import clients

        return outcome | {"rows": clients.measure(dirs, rounds)}
    most = chosen.pods or (PODS[0] if chosen.quick else PODS[-1])
    plan |= {"leases": LEASES, "pods": sorted({count for count in PODS if count < most} | {most})}
    others = [one for one in OTHERS if features.has(one.needs)]
    plan["lacking"] = [one.row for one in OTHERS if one not in others]
    with Suites(dirs) as suites:
        bench = Bench(suites, rounds, plan["pods"], python, others)
        bench.run()
        for suite in suites:
            if suite.agent is not None:
                plan["agent"] = describe_calls(suite.agent)
    return outcome | {"rows": bench.rows, "memory": bench.memory}


def main() -> None:
    chosen = arguments()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as scratch:
        outcome = measure(chosen, *bin_dirs(chosen, Path(scratch)))
    name, title = ("clients", clients_tables) if chosen.clients else ("bench", tables)
    text = title(outcome)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / f"{name}.md").write_text(text)
    (chosen.out / f"{name}.json").write_text(json.dumps(outcome, indent=1) + "\n")
    plot(outcome, chosen.out / f"{name}.svg")
    if chosen.document:
        document(name, text, PAGE)
    print(text)
    print(f"saved: {chosen.out}/{name}.md, {name}.json, {name}.svg", file=sys.stderr)


if __name__ == "__main__":
    main()
