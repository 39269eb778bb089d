"""Row 29: launcher, worker and server are struck at each of their system calls during a call. DEL leaves nothing.

strace strikes: it delivers a signal at the n-th system call of a process. A sample is in the normal run, and every
point in `./tests/run --faults`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.agent.calls import Calls, ended, inside
from tests.faults.chains import CHAINS, NETWORK, NOT_FOR_DEL, Attachments
from tests.faults.plugin import Tally
from tests.plugins import Keys
from tests.pretend import until

SAMPLE = 2
# Calls by which a process changes something, or learns that something has changed; "?" passes over unknown names.
STRUCK = ",".join(f"?{name}" for name in (
    "sendto", "sendmsg", "recvmsg", "recvfrom", "write", "pwrite64", "openat", "unlink", "unlinkat", "rename", "renameat",
    "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat", "rmdir", "ftruncate", "setns", "fork",
    "clone", "clone3", "vfork", "dup2", "dup3", "fchdir", "umask", "close", "close_range", "fcntl", "connect",
    "shutdown", "exit_group", "wait4", "poll", "rt_sigaction", "prctl", "execve",
))  # fmt: skip
TRACE = "/run/strikes"
# A caller with fewer capabilities is declined: its plugin is executed.
EXECUTED = ("setpriv", "--bounding-set=-sys_boot")
many = pytest.mark.parametrize("sample", [SAMPLE, pytest.param(0, marks=pytest.mark.faults, id="all")])
chains = pytest.mark.parametrize("chain", [
    "bridge, ipMasq", *(pytest.param(name, marks=pytest.mark.faults) for name in ("portmap", "firewall", "ptp, iptables")),
])  # fmt: skip
verbs = pytest.mark.parametrize("verb", ["ADD", "DEL"])


class Struck:
    """Attachments through an agent, whose processes are struck."""

    def __init__(self, calls: Calls, chain: str) -> None:
        self.calls = calls
        self.host = calls.host
        self.attachments = Attachments(calls.host, CHAINS[chain], Path())
        self.attachments.warm_up()
        self.before = self.attachments.state()
        self.complaints: list[str] = []

    def prepare(self, verb: str) -> None:
        """Make the state that the struck verb needs, and wait for idle workers."""
        if verb == "DEL":
            self.attachments.must_add()
        else:
            self.attachments.result = self.attachments.state_before
        if self.calls.agent.process.poll() is not None:
            self.calls.agent.start()
        self.calls.agent.wait_until_ready()

    def begin(self, verb: str, *prefix: str) -> subprocess.Popen[bytes]:
        """Start the verb of the struck plugin, with its whole input."""
        (keys,) = self.attachments.chain.plugins
        config: Keys = {"cniVersion": "1.0.0", "name": NETWORK, **keys}
        if verb == "DEL":
            config = {key: value for key, value in config.items() if key not in NOT_FOR_DEL}
        elif self.attachments.result is not None:
            config["prevResult"] = self.attachments.result
        process = self.calls.begin(keys["type"], verb, *prefix, pod="c1")
        assert process.stdin is not None
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
        return process

    def attach(self, pids: Iterable[int], *inject: str) -> subprocess.Popen[bytes]:
        """Attach strace to processes; it writes one file for each."""
        pids = [*pids]
        words = [word for pid in inside(pids) for word in ("-p", str(pid))]
        tracer = self.host.popen("strace", "-ff", "-qq", "-o", TRACE, "-e", f"trace={STRUCK}", *inject, *words)
        until(lambda: all("TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text() for pid in pids))
        return tracer

    def count(self, verb: str, whose: str) -> int:
        """Return the number of system calls of the worker, or of the server, during the verb."""
        self.prepare(verb)
        self.host.run("sh", "-c", f"rm -f {TRACE}*")
        pids = self.calls.idle_workers() if whose == "worker" else [self.calls.agent.process.pid]
        names = inside(pids)
        tracer = self.attach(pids)
        assert self.begin(verb).wait(60) == 0
        until(lambda: self.calls.agent.status()["workers"] == {"idle": 4, "busy": 0})
        detach(tracer)
        self.attachments.delete()
        counts = [
            sum("(" in line for line in (self.host.root / f"{TRACE[1:]}.{name}").read_text().splitlines())
            for name in names
        ]
        return max(counts)

    def thaw(self) -> None:
        """Let all frozen workers go on. One that strace has just left may stop a moment later."""
        for worker in filter(is_stopped, self.calls.workers()):
            os.kill(worker, signal.SIGCONT)

    def look(self, point: str, status: int | None, *, allowed: tuple[int, ...]) -> None:
        """DEL, executed or through a worker, and note everything that is left, and a wrong status."""
        if status not in allowed:
            self.complaints.append(f"{point}: status {status}")
        prefix = EXECUTED if random.random() < 0.5 else ()
        (keys,) = self.attachments.chain.plugins
        for _ in ("once", "again"):
            process = self.begin("DEL", *prefix)
            if process.wait(60):
                assert process.stdout is not None
                self.complaints.append(f"{point}: {keys['type']} DEL: {process.stdout.read().decode()}")
        left = self.attachments.differences(self.before, self.attachments.state())
        self.complaints += [f"{point}: {one}" for one in left]


def detach(tracer: subprocess.Popen[bytes]) -> None:
    tracer.terminate()
    tracer.wait()


def points(count: int, sample: int) -> list[int]:
    numbers = range(1, count + 1)
    return sorted(random.sample(numbers, min(sample, count))) if sample else [*numbers]


@pytest.fixture
def struck(calls: Calls, chain: str) -> Iterator[Struck]:
    found = Struck(calls, chain)
    yield found
    found.calls.agent.process.poll()


def settle(struck: Struck, tally: Tally, count: int) -> None:
    tally(29, count, len(struck.complaints))
    assert not struck.complaints, "\n".join(struck.complaints[:40])


@many
@verbs
@chains
@pytest.mark.row(29)
def test_worker_killed(struck: Struck, verb: str, sample: int, tally: Tally) -> None:
    """The launcher answers with error 11 if the worker had not answered yet."""
    found = points(struck.count(verb, "worker"), sample)
    for number in found:
        struck.prepare(verb)
        tracer = struck.attach(struck.calls.idle_workers(), "-e", f"inject={STRUCK}:signal=KILL:when={number}")
        status = struck.begin(verb).wait(60)
        detach(tracer)
        struck.look(f"worker killed at {number}", status, allowed=(0, 1))
    settle(struck, tally, len(found))


@many
@verbs
@chains
@pytest.mark.row(29)
def test_worker_frozen_and_its_launcher_killed(struck: Struck, verb: str, sample: int, tally: Tally) -> None:
    """A runtime gives up on a frozen call. The worker undoes it when it goes on."""
    found = points(struck.count(verb, "worker"), sample)
    for number in found:
        struck.prepare(verb)
        workers = struck.calls.idle_workers()
        tracer = struck.attach(workers, "-e", f"inject={STRUCK}:signal=STOP:when={number}")
        process = struck.begin(verb)
        until(lambda workers=workers, process=process: process.poll() is not None or any(map(is_stopped, workers)))  # type: ignore[misc]
        process.kill()
        process.wait()
        detach(tracer)
        until(lambda: struck.calls.busy() == 0 and not any(map(is_stopped, struck.calls.workers())), struck.thaw)
        struck.look(f"worker frozen at {number}", 0, allowed=(0,))
    settle(struck, tally, len(found))


def is_stopped(pid: int) -> bool:
    return not ended(pid) and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"


@many
@verbs
@chains
@pytest.mark.row(29)
def test_server_killed(struck: Struck, verb: str, sample: int, tally: Tally) -> None:
    """The call succeeds: its worker, or its launcher, does it alone."""
    found = points(struck.count(verb, "server"), sample)
    for number in found:
        struck.prepare(verb)
        server = struck.calls.agent.process
        tracer = struck.attach([server.pid], "-e", f"inject={STRUCK}:signal=KILL:when={number}")
        status = struck.begin(verb).wait(60)
        server.kill()
        server.wait()
        tracer.wait()
        struck.look(f"server killed at {number}", status, allowed=(0,))
    settle(struck, tally, len(found))


@many
@verbs
@chains
@pytest.mark.row(29)
def test_launcher_killed(struck: Struck, verb: str, sample: int, tally: Tally) -> None:
    """A killed launcher's call is undone, or was complete."""
    struck.prepare(verb)
    prefix = ("strace", "-qq", "-o", TRACE)
    assert struck.begin(verb, *prefix).wait(60) == 0
    struck.attachments.delete()
    count = sum("(" in line for line in (struck.host.root / TRACE[1:]).read_text().splitlines())
    found = points(count, sample)
    for number in found:
        struck.prepare(verb)
        struck.begin(verb, *prefix, "-e", f"inject=all:signal=KILL:when={number}").wait(60)
        until(lambda: struck.calls.busy() == 0)
        struck.look(f"launcher killed at {number}", 0, allowed=(0,))
    settle(struck, tally, len(found))
