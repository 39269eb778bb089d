"""cnitool log: finding entries, following a log, and the message if there is no log."""

from __future__ import annotations

import json
import math
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.cni import log
from tests.conftest import ROOT
from tests.pretend import PATH, PretendHost, read_line

COMMAND = (
    sys.executable, "-c", "import sys; from shared.cli.cnitool import run; sys.exit(run('/none', sys.argv[1:]))", "log",
)  # fmt: skip
ENVIRONMENT = {"PATH": PATH, "PYTHONPATH": str(ROOT), "TZ": "UTC", "PYTHONIOENCODING": "utf-8"}


def cnitool(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [*COMMAND, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, stdin=subprocess.DEVNULL, timeout=60)


def entry(number: int, **keys: Any) -> dict[str, Any]:
    return {
        "time": f"2026-01-31T22:15:{number:02}.000Z", "verb": "ADD", "plugin": "bridge", "network": "pods",
        "containerID": f"{number:064x}", "ifname": "eth0", "ms": float(number), "steps": {"start": 1.0}, "outcome": "ok",
    } | keys  # fmt: skip


FAILED = {
    "outcome": "error", "code": 11, "msg": "no IP addresses available", "details": "all 5\x1b[31m", "failedStep": "ipam",
    "errno": "ENOSPC",
}  # fmt: skip
WRONG: list[dict[str, Any]] = [
    {"ms": "1"}, {"time": "yesterday"}, {"time": "2026-01-31T22:15:00"}, {"verb": None}, {"steps": []},
    {"steps": {"a": "b"}}, {"ms": True}, {"ms": math.nan}, {"ms": -1}, {"ms": math.inf},
]  # fmt: skip
ENTRIES = [
    entry(1),
    entry(2, containerID="4f2a" + "0" * 60),
    entry(3, network="other"),
    entry(4, verb="DEL", ifname="net1"),
    entry(5, plugin="loopback"),
    entry(6, **FAILED),
    entry(7, containerID="4f2b", steps={"start": 1.0, "veth": 4.0, "del": 0.5, "carrier": 3.25}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a log whose first calls have moved to rotated files; return its path."""
    for name, part in (("x.log.2", ENTRIES[:2]), ("x.log.1", ENTRIES[2:4]), ("x.log", ENTRIES[4:])):
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in part))
    return tmp_path / "x.log"


def numbers(path: Path, *arguments: object) -> list[int]:
    """Return the numbers of the calls shown; --json must show them as they stand in the log."""
    done = cnitool(path, "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    lines = done.stdout.splitlines()
    assert set(lines) <= {json.dumps(one) for one in ENTRIES}
    return [int(json.loads(line)["ms"]) for line in lines]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), [1, 2, 3, 4, 5, 6, 7]),
        (("--network", "other"), [3]),
        (("--container", "4f2"), [2, 7]),
        (("--container", "4f2b"), [7]),
        (("--ifname", "net1"), [4]),
        (("--verb", "del"), [4]),
        (("--plugin", "loopback"), [5]),
        (("--errors",), [6]),
        (("--since", "2026-01-31T22:15:05Z"), [5, 6, 7]),
        (("--since", "2026-01-31T22:15:05"), [5, 6, 7]),
        (("--since", "2026-01-31T23:15:05+01:00"), [5, 6, 7]),
        (("--since", "2026-02-01"), []),
        (("--slowest", "2"), [7, 6]),
        (("--slowest", "9", "--verb", "ADD", "--network", "pods", "--plugin", "bridge"), [7, 6, 2, 1]),
        (("--errors", "--verb", "DEL"), []),
    ],
)
def test_which_calls(path: Path, arguments: tuple[str, ...], expected: list[int]) -> None:
    assert numbers(path, *arguments) == expected


def test_an_age(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ages = {1: timedelta(minutes=1), 2: timedelta(hours=1), 3: timedelta(days=2)}
    made = [
        entry(n, time=(now - age).isoformat(timespec="milliseconds")) for n, age in sorted(ages.items(), reverse=True)
    ]
    (tmp_path / "x.log").write_text("".join(json.dumps(one) + "\n" for one in made))
    for age, expected in {"90s": [1], "59m": [1], "1.5h": [2, 1], "1d": [2, 1], "3d": [3, 2, 1]}.items():
        done = cnitool(tmp_path / "x.log", "--json", "--since", age)
        assert [json.loads(line)["ms"] for line in done.stdout.splitlines()] == expected, age


def test_a_line_for_people(path: Path) -> None:
    done = cnitool(path, "--since", "2026-01-31T22:15:06Z")
    assert done.stdout.splitlines() == [
        "2026-01-31T22:15:06.000Z ADD    bridge     pods 0000000000000 eth0     6.00 ms (start 1.00) error 11 in ipam ENOSPC: no IP addresses available: all 5\\x1b[31m",
        "2026-01-31T22:15:07.000Z ADD    bridge     pods 4f2b eth0     7.00 ms (veth 4.00, carrier 3.25, start 1.00) ok",
    ]


def test_histogram(tmp_path: Path) -> None:
    made = [entry(0, ms=float(ms)) for ms in range(1, 101)] + [entry(1, verb="DEL", ms=99_999.0, **FAILED)]
    (tmp_path / "x.log").write_text("".join(json.dumps(one) + "\n" for one in made))
    done = cnitool(tmp_path / "x.log", "--histogram", "--json")
    add, delete = json.loads(done.stdout)
    assert (add["verb"], add["plugin"], add["calls"], add["failed"]) == ("ADD", "bridge", 100, 0)
    assert (add["p50"], add["p90"], add["p99"], add["max"]) == (50, 90, 99, 100)
    assert [(bucket["above"], bucket["upTo"], bucket["calls"]) for bucket in add["buckets"]] == [
        (0, 1, 1), (1, 2, 1), (2, 5, 3), (5, 10, 5), (10, 20, 10), (20, 50, 30), (50, 100, 50),
    ]  # fmt: skip
    assert (delete["calls"], delete["failed"], delete["p50"]) == (1, 1, 99_999)
    assert delete["buckets"] == [{"above": 50_000, "upTo": None, "calls": 1}]
    text = cnitool(tmp_path / "x.log", "--histogram").stdout.splitlines()
    assert text[0] == "ADD bridge: 100 calls, 0 failed; ms: p50 50.00, p90 90.00, p99 99.00, max 100.00"
    assert text[7] == f"    50 to 100   {'█' * 40} 50" and text[6] == f"    20 to 50    {'█' * 24} 30"
    assert text[8].startswith("DEL bridge: 1 calls, 1 failed") and text[9].split()[:2] == ["50000", "more"]
    nothing = cnitool(tmp_path / "x.log", "--histogram", "--network", "none")
    assert (nothing.returncode, nothing.stdout) == (0, "")


GARBAGE = [b" ", b"{", b"[]", b"5", b"{}", b"\xff\xfe", b"[" * 100_000, b"\0" * 50]
GARBAGE += [json.dumps(entry(1) | wrong).encode() for wrong in WRONG]


def test_garbled_lines_are_counted_and_passed_over(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(b"\n".join(GARBAGE) + b"\n\n" + whole + b'{"time": "20')
    for arguments in ((), ("--histogram",), ("--slowest", "2"), ("--json",)):
        done = cnitool(path, *arguments)
        assert done.returncode == 0 and done.stdout
        assert done.stderr == f"cnitool log: {len(GARBAGE) + 1} garbled lines skipped\n"


@pytest.mark.parametrize("what", ["missing", "directory", "below a file"])
def test_no_log(tmp_path: Path, what: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    done = cnitool(tmp_path / {"below a file": "file/x"}.get(what, what))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cnitool log: cannot read the log ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("when", ["yesterday", "5", "-5m", "2026-13-01", "25:00", "99999999999d", ""])
def test_no_time(path: Path, when: str) -> None:
    done = cnitool(path, f"--since={when}")
    if when:
        assert (done.returncode, done.stdout) == (2, "") and repr(when) in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [("--slowest", "0"), ("--slowest", "x"), ("--slowest", "1", "--follow"), ("--histogram", "--follow"), ("a", "b")],
)
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    done = cnitool(*arguments)
    assert (done.returncode, done.stdout) == (2, "") and "usage: cnitool" in done.stderr


def test_a_reader_that_has_seen_enough(path: Path) -> None:
    path.write_text(path.read_text() * 3000)
    argv = ["bash", "-o", "pipefail", "-c", '"$@" | head -n 1', "bash", *COMMAND, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") == 1


def test_the_nodes_log(host: PretendHost) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        argv = ("env", *(f"{name}={value}" for name, value in ENVIRONMENT.items()), *COMMAND)
        done = host.run(*argv, check=False)
        return subprocess.CompletedProcess(argv, done.returncode, done.stdout, done.stderr)

    done = run()
    assert done.returncode == 2 and "/etc/cni/pycni.json names no log" in done.stderr
    (host.root / "etc/cni/pycni.json").write_text('{"log": "x"}')
    done = run()
    assert done.returncode == 2 and '"x" must be an absolute path' in done.stderr
    (host.root / "etc/cni/pycni.json").write_text('{"log": "/run/x.log"}')
    done = run()
    assert done.returncode == 1 and "/run/x.log" in done.stderr
    host.cni("loopback", "STATUS", {"cniVersion": "1.1.0", "name": "pods"}, container_id="c7")
    done = run()
    assert done.returncode == 0 and " STATUS loopback   pods c7 eth0 " in done.stdout, done


# -- following


@contextmanager
def following(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Follow a log; interrupt the process as a user does."""
    argv = ["env", "--default-signal=INT", *COMMAND, *map(str, arguments), "--follow", "--json"]  # also under nohup
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (130, "")
    finally:
        process.kill()
        process.communicate()


def append(path: Path, number: int, size: int = 1 << 20) -> None:
    log.append(str(path), json.dumps(entry(number)).encode() + b"\n", size)


def told(process: subprocess.Popen[str]) -> int:
    return int(json.loads(read_line(process))["ms"])


def test_follow(path: Path) -> None:
    """Print the existing entries if asked to, then new ones, across one rotation after the other."""
    path.chmod(0o640)
    with following(path, "--since", "2026-01-01") as process:
        assert [told(process) for _ in ENTRIES] == [1, 2, 3, 4, 5, 6, 7]
        for number in range(8, 40):
            append(path, number, 600)  # two lines
            assert told(process) == number
        for number in range(40, 43):  # more than one file at once
            append(path, number, 600)
        assert [told(process) for _ in range(3)] == [40, 41, 42]
        with path.open("ab") as file:
            whole = json.dumps(entry(43)).encode() + b"\n"
            file.write(whole[:50])
            file.flush()
            file.write(whole[50:])
        assert told(process) == 43
        path.unlink()
        append(path, 44)
        assert told(process) == 44


def test_follow_what_is_not_there_yet(tmp_path: Path) -> None:
    with following(tmp_path / "x.log", "--since", "2026-01-01") as process:
        for number in (1, 2):
            append(tmp_path / "x.log", number)
            assert told(process) == number


def test_follow_begins_with_what_comes(path: Path) -> None:
    """Nothing shows when it has begun: the test adds calls until one is printed."""
    path.chmod(0o640)
    with following(path) as process:
        number = 10
        append(path, number)
        while not select.select([process.stdout or 0], [], [], 0.05)[0]:
            number += 1
            append(path, number)
        first = told(process)
        assert first >= 10
        assert [told(process) for _ in range(first, number)] == list(range(first + 1, number + 1))
