"""Wall time, CPU time and peak memory of this suite against the reference's executables, alternated in one run.

Prints the tables and saves bench.md, bench.json (with every sample) and bench.svg. The exit status says whether the run
was whole, never how fast anything was: the targets are printed beside the ratios for information.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.report import markdown, plot
from tests.pretend import PretendHost

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ROUNDS, QUICK_ROUNDS = 40, 15
NEEDED = ("loopback", "bridge", "host-local", "portmap", "firewall", "bandwidth", "ptp")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, help=f"calls of each kind and suite (default: {ROUNDS}; with --quick {QUICK_ROUNDS})"
    )
    parser.add_argument("--quick", action="store_true", help="about two minutes: fewer rounds and pods")
    parser.add_argument("--pods", type=int, help="how many pods are many (default: 200; with --quick 50)")
    parser.add_argument(
        "--bin-dir",
        type=Path,
        help="measure the executables in this directory (default: install the suite for the run)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        default=Path("/usr/lib/cni"),
        help="the reference's executables (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=HERE / "out", help="where the three files go (default: tests/bench/out)"
    )
    chosen = parser.parse_args()
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds: at least 1")
    if chosen.pods is not None and chosen.pods < 2:
        parser.error("--pods: at least 2")
    if os.geteuid() != 0:
        parser.error("only root can make the pretend host")
    for directory in (chosen.reference, chosen.bin_dir):
        missing = [name for name in NEEDED if directory and not os.access(directory / name, os.X_OK)]
        if missing:
            parser.error(f"{directory} has no executable {', '.join(missing)}")
    return chosen


def install(into: Path) -> Path:
    """Install the suite below a directory of this run. Return its bin directory."""
    bin_dir = into / "bin"
    command = [str(ROOT / "install.sh"), "--bin-dir", str(bin_dir), "--lib-dir", str(into / "lib")]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode != 0:
        sys.exit("bench: install.sh failed, see above")
    return bin_dir


def interpreter(executable: Path) -> str:
    """Return the Python in a launcher's first line, or the running one if it names none."""
    first = executable.read_bytes()[:256].split(b"\n", 1)[0].decode(errors="replace")
    named = first[2:].split()[0] if first.startswith("#!/") else ""
    return named if Path(named).name.startswith("python") else str(Path(sys.executable).resolve())


def file_system(directory: Path) -> str:
    """Return the type of the file system that a directory is on, such as ext4."""
    command = ["df", "--output=fstype", str(directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def about(bin_dir: Path, reference: Path, chosen: argparse.Namespace) -> dict[str, str]:
    """Return the subject, place and time of the measurement, in words."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    python = interpreter(bin_dir / "loopback")
    version = subprocess.run([python, "-IS", "-V"], check=True, capture_output=True, text=True).stdout.strip()
    return {
        "ours": "this suite" if chosen.bin_dir is None else str(bin_dir),
        "reference": release(reference),
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


def measure(plan: dict[str, Any], bin_dir: Path) -> dict[str, Any]:
    """Run the driver inside a pretend host of its own. Exit with its status if it fails."""
    with PretendHost(bin_dir) as host:
        driver = host.popen(sys.executable, "-I", str(HERE / "driver.py"), stderr=None)
        stdout, _ = driver.communicate(json.dumps(plan).encode())
    if driver.returncode != 0:
        sys.exit(f"bench: the run ended early with status {driver.returncode}")
    samples: dict[str, Any] = json.loads(stdout)
    return samples


def main() -> None:
    chosen = arguments()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as scratch:
        bin_dir = (chosen.bin_dir or install(Path(scratch))).resolve()
        disk = Path(scratch, "leases")
        disk.mkdir(mode=0o700)
        rounds = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS)
        plan = {
            "suites": {"reference": str(chosen.reference.resolve()), "ours": str(bin_dir)},
            "python": interpreter(bin_dir / "loopback"),
            "rounds": rounds,
            "settle": 0.02,
            "lease_levels": [1000, 10000],
            "pod_levels": [1, chosen.pods or (50 if chosen.quick else 200)],
            "first_calls": min(rounds, 3 if chosen.quick else 9),
            "peak_calls": min(rounds, 3 if chosen.quick else 11),
            "disk": str(disk),
            "disk_type": file_system(disk),
        }
        outcome = {"about": about(bin_dir, chosen.reference, chosen), "plan": plan} | measure(plan, bin_dir)
    text = markdown(outcome)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "bench.md").write_text(text)
    (chosen.out / "bench.json").write_text(json.dumps(outcome, indent=1) + "\n")
    plot(outcome, chosen.out / "bench.svg")
    print(text)
    print(f"saved: {chosen.out}/bench.md, bench.json, bench.svg", file=sys.stderr)


if __name__ == "__main__":
    main()
