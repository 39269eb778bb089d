"""The benchmark runs to its end; this test does not look at its measurements."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.bench.__main__ import NEEDED
from tests.bench.cells import OTHERS
from tests.bench.report import CROWDED, clients_tables, document, tables
from tests.clients.container_host import require

ROOT = Path(__file__).resolve().parents[2]


def bench(bin_dir: Path, agent_dir: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    few = ("--rounds", "1", "--pods", "2", *more)
    directories = ("--bin-dir", str(bin_dir), "--agent-dir", str(agent_dir), "--out", str(out))
    command = [f"{ROOT}/tests/bench/run", *few, *directories]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_short_run_writes_table_samples_and_plot(installed: Path, installed_with_agent: Path, tmp_path: Path) -> None:
    done = bench(installed, installed_with_agent, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bench.md").read_text() in done.stdout
    assert (tmp_path / "bench.svg").read_text().rstrip().endswith("</svg>")
    assert re.search("The agent: it served [1-9][0-9]* calls, ", done.stdout), done.stdout
    outcome = json.loads((tmp_path / "bench.json").read_text())
    for row in (
        "loopback ADD",
        "bridge DEL, 10,000 leases",
        "masq ADD",
        "ptp ADD",
        "macvlan ADD",
        "host-device DEL",
        "static ADD",
        "sbr DEL",
        "dhcp ADD",
        "portmap DEL",
        "10 × masq DEL",
        "chain ADD, 2 pods",
        "macvlan DEL, 2 pods",
    ):
        found = {suite: len(samples) for suite, samples in outcome["rows"][row].items()}
        assert found == {"reference": 1, "executed": 1, "agent": 1}, row
    assert set(outcome["rows"]["tap ADD"]) == {"executed", "agent"}  # which the compared release lacks
    for network in OTHERS:  # a row or, for want of the kernel's links, a word
        assert (f"{network.row} ADD" in outcome["rows"]) != (network.row in outcome["plan"]["lacking"]), network.row
    assert set(outcome["memory"]["bridge ADD"]) == {"reference", "executed"}
    assert outcome["memory"]["agent with 4 idle workers, PSS"].keys() == {"agent"}


def test_pods_of_containerd(installed: Path, tmp_path: Path) -> None:
    require("containerd", "runc")
    done = bench(installed, installed, tmp_path, "--clients")
    assert done.returncode == 0, done.stderr
    assert "The agent: it was not measured. There is no agent: " in done.stdout
    rows = json.loads((tmp_path / "clients.json").read_text())["rows"]
    assert set(rows) == {"RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"}
    assert all(set(suites) == {"reference", "executed"} for suites in rows.values())


def test_the_page_gets_the_tables(tmp_path: Path) -> None:
    """The page in the documents has its place for them."""
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs/explanation/performance.md").read_text())
    plan = {"rounds": 1, "leases": [], "pods": [2], "agent": "none"}
    rows = {f"{name} {verb}{setting}": {"reference": [2.0], "executed": [1.0], "agent": [0.5]}
            for name in CROWDED for verb in ("ADD", "DEL") for setting in ("", ", 2 pods")}  # fmt: skip
    outcome = {"about": {"reference": "it", "machine": "here"}, "plan": plan, "rows": rows, "memory": {}}
    document("bench", tables(outcome), page)
    document("clients", clients_tables(outcome), page)
    shown = " ".join(page.read_text().split())
    assert "| bridge ADD | 2.0 | 1.0 | 0.50 | 0.50–0.50 | ≤ 1.40: met | 0.5 | 0.25 | 0.25–0.25 | ≤ 0.45: met |" in shown
    assert (
        "| chain ADD | 2.0 | 1.0 | 0.50 | 0.50–0.50 | ≤ 0.60: met | 0.5 | 0.25 | 0.25–0.25 | ≤ 0.22: not met |" in shown
    )
    assert shown.count("<!-- bench -->") == shown.count("<!-- clients -->") == 1 and shown.count("<!-- end -->") == 2


def test_a_failing_plugin_ends_the_run(tmp_path: Path) -> None:
    for name in NEEDED:
        plugin = tmp_path / name
        plugin.write_text("#!/bin/sh\necho broken on purpose >&2\nexit 3\n")
        plugin.chmod(0o755)
    out = tmp_path / "out"
    done = bench(tmp_path, tmp_path, out)
    assert done.returncode == 1
    assert "bench: executed, chain ADD" in done.stderr
    assert "exit status 3\n" in done.stderr
    assert "broken on purpose" in done.stderr
    assert not out.exists()


def test_what_the_log_costs(installed: Path) -> None:
    command = [
        f"{ROOT}/tests/bench/run",
        "log",
        "--rounds",
        "1",
        "--bin-dir",
        str(installed),
        "--before",
        str(installed),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in done.stdout.splitlines()[2:]]
    calls = ("loopback ADD", "loopback DEL", "bridge ADD", "bridge DEL")
    assert rows == [(call, variant) for call in calls for variant in ("before", "off", "on")]
