"""The benchmark runs to its end; this test does not look at its measurements."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.bench.__main__ import NEEDED

ROOT = Path(__file__).resolve().parents[2]


def bench(bin_dir: Path, out: Path) -> subprocess.CompletedProcess[str]:
    few = ("--quick", "--rounds", "1", "--pods", "2")
    command = [f"{ROOT}/tests/bench/run", *few, "--bin-dir", str(bin_dir), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_short_run_writes_table_samples_and_plot(installed: Path, tmp_path: Path) -> None:
    done = bench(installed, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bench.md").read_text() in done.stdout
    assert (tmp_path / "bench.svg").read_text().rstrip().endswith("</svg>")
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    for row in ("loopback ADD", "bridge ADD", "bridge CHECK", "bridge DEL, 10,000 leases", "bridge DEL, 1 pod", "bridge ADD, ipMasq (iptables)", "ptp ADD",
                "portmap DEL, two ports (nftables)", "bridge DEL, ipMasq, 1 pod",
                "bridge ADD, ipMasq + portmap + firewall + bandwidth, 2 pods"):  # fmt: skip
        assert {suite: len(samples) for suite, samples in rows[row].items()} == {"reference": 1, "ours": 1}, row


def test_a_failing_plugin_ends_the_run(tmp_path: Path) -> None:
    for name in NEEDED:
        plugin = tmp_path / name
        plugin.write_text("#!/bin/sh\necho broken on purpose >&2\nexit 3\n")
        plugin.chmod(0o755)
    out = tmp_path / "out"
    done = bench(tmp_path, out)
    assert done.returncode == 1
    assert "bench: ours, bridge ADD" in done.stderr
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
    calls = ("loopback ADD", "loopback DEL", "bridge ADD", "bridge CHECK", "bridge DEL")
    assert rows == [(call, variant) for call in calls for variant in ("before", "off", "on")]
