"""Calls through an agent's workers, whole and one part at a time, for the tests of server and workers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.agent.running import Agent
from tests.plugins import BRIDGE
from tests.pretend import PATH, PretendHost, until

VERSION = '{"cniVersion": "1.0.0"}'
NO_DUTIES = '{"heal": false, "collect": false, "metrics": ""}'
LOOPBACK: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "loopback"}
BRIDGED: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", **BRIDGE}
SETTINGS = "etc/cni/pycni-agent.json"

# A caller that follows orders: it is no launcher. Each word sends or waits; it ends with its input.
CALLER = """
import array, json, os, socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect("/run/pycni/agent.sock")
connection.settimeout(30)
def send(data, count=0):
    descriptors = array.array("i", ([0, 1, 2, os.open("/", os.O_PATH)] * 3)[:count])
    connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if count else [])
def said():
    try:
        return connection.recv(64).decode()
    except OSError as error:
        return type(error).__name__
answers = []
for order, *words in json.loads(sys.argv[1]):
    if order == "send":
        send(words[0].encode("latin-1") * (words[2] if len(words) > 2 else 1), words[1] if len(words) > 1 else 0)
    elif order == "receive":
        answers.append(said())
    elif order == "tell":
        print(json.dumps(answers), flush=True)
print(json.dumps(answers), flush=True)
sys.stdin.read()
"""


class Calls:
    """A host with an agent without duties, and the calls to it."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        (host.root / SETTINGS).write_text(NO_DUTIES)
        self.agent = Agent(host)
        self.tree = self.agent.status()["tree"]

    def close(self) -> None:
        """Kill the agent."""
        self.agent.kill()

    def begin(
        self, plugin: str, verb: str, *prefix: str, env: Mapping[str, str] | None = None, pod: str = "pod"
    ) -> subprocess.Popen[bytes]:
        """Start a call. Its configuration is yet to be sent."""
        variables = {
            "PATH": PATH, "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "eth0", "CNI_PATH": str(self.host.bin_dir),
        }  # fmt: skip
        return self.host.popen(*prefix, f"{self.host.bin_dir}/{plugin}", env={**variables, **(env or {})})

    def begin_taken(self, plugin: str, verb: str, config: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """Start a call, and return when a worker has taken it. The call still waits for the end of its input."""
        busy = self.busy()
        process = self.begin(plugin, verb)
        assert process.stdin is not None
        process.stdin.write(json.dumps(config).encode())
        process.stdin.flush()
        until(lambda: self.busy() == busy + 1)
        return process

    def follow(self, *orders: tuple[Any, ...]) -> subprocess.Popen[bytes]:
        """Start a caller inside the host that follows orders, and then waits."""
        return self.host.popen("/usr/bin/python3", "-c", CALLER, json.dumps(orders))

    def request(self, plugin: str = "loopback", tree: str = "") -> str:
        """Return a request, with the environment of a VERSION."""
        return "\0".join(["pycni 1", tree or self.tree, plugin, "CNI_COMMAND=VERSION", ""])

    def serve_until(self, condition: Callable[[], bool]) -> None:
        """Call the simplest verb until a condition holds. Each call must succeed, through a worker or not."""

        def call() -> None:
            assert self.host.cni("loopback", "VERSION", VERSION).status == 0

        until(condition, call)

    def busy(self) -> int:
        """Return the number of calls in progress."""
        return int(self.agent.status()["workers"]["busy"])

    def counted(self) -> tuple[int, int]:
        """Return the number of calls that workers have served, and of those that launchers executed."""
        return self.agent.taken(), int(self.agent.status()["fallbacks"])

    def workers(self) -> list[int]:
        """Return the process ids of the workers, as the machine has them."""
        return self.agent.children()

    def idle_workers(self) -> list[int]:
        """Return the workers that have the listening socket open."""
        inode = next(
            line.split()[6]
            for line in self.host.run("cat", "/proc/net/unix").stdout.splitlines()
            if line.endswith("/run/pycni/agent.sock") and line.split()[3] == "00010000"
        )
        return [pid for pid in self.workers() if f"socket:[{inode}]" in open_files(pid)]


def open_files(pid: int) -> list[str]:
    """Return the open files of a process, none if it has ended."""
    try:
        return [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []


def ended(pid: int) -> bool:
    """Return True if a process is gone, or waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def inside(pids: Iterable[int]) -> list[int]:
    """Return process ids as the host has them."""
    found = []
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found.append(int(next(line for line in lines if line.startswith("NSpid:")).split()[-1]))
    return found
