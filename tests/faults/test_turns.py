"""Calls that read rules and then change them take turns: a call that is stopped in its turn keeps the others waiting."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pretend import PATH, PATIENCE, PretendHost

RESULT = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod"}]}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
PLUGINS: dict[str, dict[str, Any]] = {
    "firewall": {"backend": "nftables"},
    "portmap": {"backend": "iptables", "runtimeConfig": PORTS},
}
STOPPED = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:signal=SIGSTOP:when=1")


def config(plugin: str, number: int) -> dict[str, Any]:
    keys = {**PLUGINS[plugin], "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    if plugin == "portmap":
        keys["runtimeConfig"] = {"portMappings": [{**PORTS["portMappings"][0], "hostPort": 8080 + number}]}
    ips = [{"address": f"10.1.0.{number}/24", "interface": 0}]
    return {"cniVersion": "1.1.0", "name": "net", "type": plugin, **keys, "prevResult": {**RESULT, "ips": ips}}


def start(host: PretendHost, plugin: str, verb: str, number: int, *prefix: str) -> subprocess.Popen[bytes]:
    """Start a call that goes on beside the test."""
    env = {
        "PATH": PATH, "CNI_COMMAND": verb, "CNI_CONTAINERID": f"c{number}", "CNI_NETNS": "/run/netns/pod",
        "CNI_IFNAME": "eth0", "CNI_PATH": host.bin_dir,
    }  # fmt: skip
    process = host.popen(*prefix, f"{host.bin_dir}/{plugin}", env=env)
    assert process.stdin is not None
    process.stdin.write(json.dumps(config(plugin, number)).encode())
    process.stdin.close()
    process.stdin = None
    return process


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Return True if the condition held before the process ended."""
    deadline = time.monotonic() + 60 * PATIENCE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


def read_locks() -> list[list[str]]:
    """Return the lines of /proc/locks, without the numbers: `-> FLOCK …` for those that wait."""
    return [line.split()[1:] for line in Path("/proc/locks").read_text().splitlines()]


def find_holders(tracer: subprocess.Popen[bytes]) -> list[str]:
    """Return the process that a tracer runs, when it has the lock. It is stopped before it returns."""
    children = Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()
    return [pid for pid in children if any(words[0] == "FLOCK" and words[3] == pid for words in read_locks())]


def is_waiting(process: subprocess.Popen[bytes]) -> bool:
    """Return True if the process waits for a lock."""
    return any(words[:2] == ["->", "FLOCK"] and words[4] == str(process.pid) for words in read_locks())


@pytest.mark.parametrize(("plugin", "verb"), [("firewall", "ADD"), ("firewall", "DEL"), ("firewall", "GC"), ("portmap", "ADD")])  # fmt: skip
def test_a_call_waits_for_the_turn_of_another(host: PretendHost, plugin: str, verb: str) -> None:
    host.netns("pod")
    assert host.cni(plugin, "ADD", config(plugin, 1), netns="/run/netns/pod", container_id="c1").status == 0
    holder = start(host, plugin, "ADD", 2, *STOPPED)
    assert wait_until(lambda: bool(find_holders(holder)), holder), "the ADD takes no lock"
    (pid,) = find_holders(holder)
    other = start(host, plugin, verb, 3 if verb == "ADD" else 1)
    assert wait_until(lambda: is_waiting(other), other), f"{verb} does not wait: {other.communicate()}"
    subprocess.run(["kill", "-CONT", pid], check=True)
    for process in (holder, other):
        out, err = process.communicate(timeout=60 * PATIENCE)
        assert process.returncode == 0, (out, err)
