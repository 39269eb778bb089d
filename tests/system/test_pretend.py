"""The pretend host keeps its promises, for every other system test relies on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pretend import PATIENCE, PretendHost, Silent, read_line

NAMESPACES = ("net", "mnt", "pid", "uts")


@pytest.fixture
def bare() -> Iterator[PretendHost]:
    with PretendHost() as pretend_host:
        yield pretend_host


def namespaces_of(process: str) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{process}/ns/{name}") for name in NAMESPACES}


# The places where a host mounts; the last is a namespace name that no other program uses.
POD = f"pod-{os.getpid()}"
PLACES = (
    "/etc",
    "/etc/cni",
    "/proc",
    "/run",
    "/sys",
    "/var/lib",
    "/var/lib/cni",
    "/var/lib/pycni",
    f"/run/netns/{POD}",
)


def mounted() -> list[str]:
    """Return the machine's mounts in these places; others may come and go in the meantime."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] in PLACES]


def test_host_is_empty_and_apart(bare: PretendHost) -> None:
    assert [link["ifname"] for link in bare.ip("link")] == ["lo"]
    assert "UP" in bare.ip("link")[0]["flags"]
    assert bare.run("ls", "/sys/class/net").stdout == "lo\n"
    assert bare.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"
    assert [list((bare.root / one).iterdir()) for one in ("var/lib/cni", "var/lib/pycni", "etc/cni")] == [[], [], []]
    inside = dict(line.split() for line in bare.run("sh", "-c", _READ_NAMESPACES).stdout.splitlines())
    assert not set(inside.values()) & set(namespaces_of("self").values())


def test_host_leaves_nothing() -> None:
    mounts = mounted()
    known = {
        path: path.exists()
        for path in map(Path, ("/etc/cni", "/var/lib/cni", "/var/lib/pycni", f"/run/netns/{POD}", f"/run/{POD}"))
    }
    with PretendHost() as bare:
        bare.netns(POD)
        bare.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", POD)
        bare.run("touch", "/var/lib/cni/mark", "/var/lib/pycni/mark", "/etc/cni/mark", f"/run/{POD}")
        sleeper = bare.popen("sleep", "1000", stdin=None, stdout=None, stderr=None)
    assert sleeper.returncode == -signal.SIGKILL
    assert not bare.root.exists()
    assert mounted() == mounts
    assert {path: path.exists() for path in known} == known
    bare.close()


def test_host_ends_with_the_process_that_made_it() -> None:
    script = f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n" + _MAKE_AND_WAIT
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as maker:
        first, grandchild = (Path("/proc", pid) for pid in read_line(maker).decode().split())
        assert first.exists() and grandchild.exists()
        maker.kill()
    deadline = time.monotonic() + 30 * PATIENCE
    while first.exists() or grandchild.exists():
        assert time.monotonic() < deadline, "the host outlives its maker"
        time.sleep(0.01)


def test_run_passes_input_output_and_environment(bare: PretendHost) -> None:
    done = bare.run("sh", "-c", "cat; env; echo wrong >&2; exit 3", input="in\n", env={"ONLY": "this"}, check=False)
    assert done.returncode == 3
    assert done.stdout.startswith("in\n") and "ONLY=this\n" in done.stdout
    assert "HOME" not in done.stdout
    assert done.stderr == "wrong\n"
    with pytest.raises(RuntimeError, match=r"(?s)status 3.*wrong"):
        bare.run("sh", "-c", "echo wrong >&2; exit 3")


def test_time_limit_ends_the_command(bare: PretendHost) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        bare.run("sleep", "1000", timeout=0.1)
    assert "sleep" not in bare.run("ps", "-e", "-o", "comm").stdout


def test_a_program_that_says_nothing_is_not_waited_for_for_ever(bare: PretendHost) -> None:
    with bare.popen("sh", "-c", "echo one; printf two; exec sleep 1000") as process:
        assert read_line(process) == b"one\n"
        with pytest.raises(Silent, match="b'two' and no more"):
            read_line(process, seconds=1)
        process.kill()
        assert read_line(process) == b""


def test_signals_reach_the_command_itself(bare: PretendHost) -> None:
    with bare.popen("sh", "-c", "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done") as process:
        assert read_line(process) == b"ready\n"
        process.terminate()
        assert read_line(process) == b"caught\n"
    assert process.returncode == 7


def test_pod_namespace_comes_and_goes(bare: PretendHost) -> None:
    path = bare.netns("pod")
    assert path == "/run/netns/pod"
    (loopback,) = bare.ip("address", netns="pod")
    assert "UP" not in loopback["flags"] and loopback["addr_info"] == []
    bare.drop_netns("pod")
    assert not (bare.root / "run/netns/pod").exists()
    assert bare.ip("route") == []


def test_snapshot_shows_every_kind_of_change(bare: PretendHost) -> None:
    bare.netns("pod")
    before = bare.snapshot(["pod"])
    assert bare.snapshot(["pod"]) == before
    pod = ("ip", "-n", "pod")
    changes = (
        (["ip", "link", "add", "br0", "mtu", "1400", "type", "bridge"], ["ip", "link", "del", "br0"]),
        (["ip", "link", "set", "lo", "mtu", "1500"], ["ip", "link", "set", "lo", "mtu", "65536"]),
        (["ip", "addr", "add", "10.0.0.1/32", "dev", "lo"], ["ip", "addr", "del", "10.0.0.1/32", "dev", "lo"]),
        (["ip", "route", "add", "blackhole", "10.9.0.0/16"], ["ip", "route", "del", "blackhole", "10.9.0.0/16"]),
        (
            ["ip", "-6", "route", "add", "fd00::/64", "dev", "lo"],
            ["ip", "-6", "route", "del", "fd00::/64", "dev", "lo"],
        ),
        ([*pod, "addr", "add", "fd00::1/64", "dev", "lo"], [*pod, "addr", "del", "fd00::1/64", "dev", "lo"]),
        (["sh", "-c", "mkdir -p /run/cni/a; echo x >/run/cni/a/b"], ["rm", "-r", "/run/cni"]),
        (["ln", "-s", "/etc/passwd", "/var/lib/cni/link"], ["rm", "/var/lib/cni/link"]),
    )
    for change, undo in changes:
        bare.run(*change)
        assert bare.snapshot(["pod"]) != before, change
        bare.run(*undo)
        assert bare.snapshot(["pod"]) == before, undo


def test_cni_gives_exactly_the_variables_of_the_protocol(bare: PretendHost, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text("#!/bin/sh\ncat >&2\nenv | grep ^CNI_ | sort >&2\necho '{\"code\": 7}'\nexit 1\n")
    plugin.chmod(0o755)
    answer = bare.cni(
        "plugin", "ADD", {"a": 1}, netns="/n", bin_dir=str(tmp_path), args="A=b", env={"CNI_IFNAME": None, "CNI_X": "y"}
    )
    assert (answer.status, answer.code, answer.json) == (1, 7, {"code": 7})
    assert answer.stderr.splitlines() == [
        '{"a": 1}CNI_ARGS=A=b',
        "CNI_COMMAND=ADD",
        "CNI_CONTAINERID=c1",
        "CNI_NETNS=/n",
        f"CNI_PATH={tmp_path}",
        "CNI_X=y",
    ]


_READ_NAMESPACES = "for name in net mnt pid uts; do echo $name $(readlink /proc/self/ns/$name); done"
_MAKE_AND_WAIT = """
from tests.pretend import PretendHost
host = PretendHost()
child = host.popen("sh", "-c", "sleep 1000 & wait")
print(host.first_pid, child.pid, flush=True)
time.sleep(1000)
"""
