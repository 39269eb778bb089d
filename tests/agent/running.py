"""An agent that runs on a pretend host, for tests and benches."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.pretend import PATIENCE, PretendHost

PROGRAM = "pycni-agent"
CONTROL = "run/pycni/control.sock"
LOG = "/run/pycni-agent.log"
READY_SECONDS = 30
IDLE_WORKERS = 4  # the default


class Agent:
    """The agent of a host's bin directory. A context manager: it runs, and its workers are warm."""

    def __init__(self, host: PretendHost, bin_dir: str | Path = "", *, idle: int = IDLE_WORKERS) -> None:
        self.host, self.idle = host, idle
        self.program = f"{bin_dir or host.bin_dir}/{PROGRAM}"
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the agent. Return before it is ready."""
        with (self.host.root / LOG.lstrip("/")).open("ab") as log:
            self.process = self.host.popen(self.program, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        """Wait until the workers are warm. Fail with the agent's log if it ends before."""
        self._wait(lambda: self.status()["workers"]["idle"] >= self.idle)

    def wait_for_answer(self) -> None:
        """Wait until the agent answers, with or without warm workers."""
        self._wait(lambda: bool(self.status()))

    def _wait(self, condition: Callable[[], bool]) -> None:
        def is_met() -> bool:
            with suppress(OSError, ValueError):
                return condition()
            return False

        deadline = time.monotonic() + READY_SECONDS * PATIENCE
        while not is_met():
            assert self.process.poll() is None and time.monotonic() < deadline, f"the agent is not ready: {self.log}"
            time.sleep(0.01)

    def status(self) -> Any:
        """Ask the control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(READY_SECONDS * PATIENCE)
            control.connect(str(self.host.root / CONTROL))
            control.send(b"status")
            return json.loads(control.recv(1 << 20))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the agent with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Stop the agent with SIGTERM. Return its exit status."""
        self.process.terminate()
        return self.process.wait(60 * PATIENCE)

    @property
    def log(self) -> str:
        return (self.host.root / LOG.lstrip("/")).read_text()

    def taken(self) -> int:
        """Return the number of calls that workers have served."""
        calls = self.status()["calls"].values()
        return sum(count for verbs in calls for codes in verbs.values() for count in codes.values())

    def children(self) -> list[int]:
        """Return the pids of its children: workers, and the process of the duties."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def workers(self) -> list[int]:
        return [pid for pid in self.children() if not is_of_duties(pid)]

    def duties(self) -> list[int]:
        return [pid for pid in self.children() if is_of_duties(pid)]


def is_of_duties(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return b"cnitool" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def proportional_mib(pid: int) -> float:
    """Return the proportional set size of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"/proc/{pid}/smaps_rollup has no Pss (uid {os.geteuid()})")
