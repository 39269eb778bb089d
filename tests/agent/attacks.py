"""Calls a launcher many times, inside a pretend host, and compares each call's fate with a model.

    attacks fuzz SEED NUMBER    random agents, environments and signals
    attacks strike SCENE        a strike at each system call

Each call must be done once: by the worker, which begins when it has GO and four descriptors, or by the interpreter. The
program prints a JSON document: the numbers of each fate, and the faults.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import select
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.agent.fake_agent import Worker, listen, say
from tests.faults.stepper import EVERY

LAUNCHER, RAN, REPORT, STATUS = "/run/bridge", "/run/ran", "/run/steps", 7
HEAD = b"pycni 1\0/run/code\0bridge\0"
PATIENCE_SECONDS = 60.0
TAKE: list[Any] = ["request", ["send", "T"], "go"]
SCENES: dict[str, list[Any]] = {
    "served": [*TAKE, ["write", "answer"], ["status", 3]],
    "declined": ["request", ["send", "D"]],
    "dying": TAKE,
    "no agent": [],
}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Fate:
    """One call's end."""

    status: int  # negative: the signal that ended it
    output: str
    ran: int
    record: dict[str, Any]

    def fault(self, *, may_be_killed: bool) -> str:
        """Return a text if the call was not done once, or the launcher did not say so."""
        begun = self.record.get("begun", False)
        answer, status = [*self.record.get("sent", []), "", ""][:2]
        if begun + self.ran > 1:
            return "done twice"
        if self.status < 0:
            if not may_be_killed:
                return "killed by a signal that nobody sent"
            return "the signal ended the launcher, not the worker" if begun and self.status != -signal.SIGKILL else ""
        if self.ran:
            return "" if (self.status, self.output) == (STATUS, "done\n") else "wrong status of the interpreter"
        if answer != "T":
            return "the call is lost"
        # The kernel drops the status of a worker that ends before it has read GO.
        if self.is_lost() and not (status and begun):
            return ""
        return "" if status and self.status == ord(status) else "wrong status of the worker"

    def is_lost(self) -> bool:
        """Return True if the launcher reported that the worker is gone."""
        return self.status == 1 and '"code": 11' in self.output


def count_executions() -> int:
    """Return the number of executions of the interpreter so far."""
    try:
        return os.stat(RAN).st_size // len("-IS /run/code/launcher bridge\n")
    except FileNotFoundError:
        return 0


def spawn(argv: list[str], environment: list[bytes], output: int) -> int:
    """Start a program with any strings as its environment: os.execve takes names and values only."""
    pid = os.fork()
    if pid:
        return pid
    os.dup2(output, 1)
    os.dup2(output, 2)
    words = (ctypes.c_char_p * (len(argv) + 1))(*[word.encode() for word in argv], None)
    strings = (ctypes.c_char_p * (len(environment) + 1))(*environment, None)
    _libc.execve(argv[0].encode(), words, strings)
    os._exit(99)


def wait_for(pid: int, output: int) -> tuple[int, str]:
    """Return the status and the whole output; raise TimeoutError instead of a hang."""
    deadline, said = time.monotonic() + PATIENCE_SECONDS, b""
    while True:
        if not select.select([output], [], [], max(deadline - time.monotonic(), 0))[0]:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"hangs after {said!r}")
        data = os.read(output, 65536)
        if not data:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode("latin-1")
        said += data


def play(
    argv: list[str],
    environment: list[bytes],
    listener: socket.socket | None,
    script: list[Any],
    kill: tuple[int, float] | None = None,
) -> Fate:
    """Call the launcher once, follow the script, and send a signal at a moment if `kill` says so."""
    before, record = count_executions(), {}
    reading, writing = os.pipe()
    pid = spawn(argv, environment, writing)
    os.close(writing)
    if kill and kill[1] < 1:
        time.sleep(kill[1] / 100)
        os.kill(pid, kill[0])
    if listener:
        # The launcher may end before it connects.
        end = os.pidfd_open(pid)
        ready = select.select([listener.fileno(), end], [], [], PATIENCE_SECONDS)[0]
        os.close(end)
        if listener.fileno() in ready:
            worker = Worker(listener.accept()[0])
            at = random.Random(len(environment)).randrange(len(script) + 1) if kill and kill[1] >= 1 else None
            for number, step in enumerate([*script, "hold"]):
                if number == at and kill:
                    os.kill(pid, kill[0])
                if not worker.record["error"]:
                    worker.follow([step, "hold"])
            record = worker.record
            worker.close()
    status, said = wait_for(pid, reading)
    os.close(reading)
    return Fate(status, said, count_executions() - before, record)


def random_environment(chance: random.Random) -> list[bytes]:
    """Return strings as no shell makes them, too: without a name, twice, empty; few or thousands, short or long."""
    kind = chance.randrange(12)
    if kind == 0:
        return []
    if kind == 1:
        return [b"N%d=" % number for number in range(chance.choice([500, 995, 997, 998, 1001, 5000]))]
    if kind == 2:
        return [b"L%d=" % number + b"x" * chance.randrange(1 << 17) for number in range(chance.randrange(1, 12))]
    strings = [
        b"CNI_%d=%s" % (number, chance.randbytes(30).replace(b"\0", b"")) for number in range(chance.randrange(30))
    ]
    return strings + chance.choices([b"", b"=", b"A", b"A=1", b"A=2", b"=x"], k=chance.randrange(4))


def random_script(chance: random.Random) -> list[Any]:
    """Return a script that is right more often than not, and then broken somewhere."""
    script: list[Any] = list(chance.choice([SCENES["served"], SCENES["served"], SCENES["declined"], SCENES["dying"]]))
    if "go" in script and chance.random() < 0.3:
        script[-1:] = [["status", chance.randrange(256)]]
    for _ in range(chance.choice([0, 0, 1, 1, 2])):
        at = chance.randrange(len(script) + 1)
        hostile = [
            ["send", chance.choice(["", "T", "D", "X", "TT", "\0", "D" * 100_000])], ["send", "X", 300], "descriptors", ["sleep", 0.02],
        ]  # fmt: skip
        if chance.random() < 0.5:
            script[at:at] = [chance.choice(hostile)]
        else:
            del script[at:]
    return script


def fuzz(seed: int, number: int) -> dict[str, Any]:
    """Play random calls."""
    chance, listener, fates, faults = random.Random(seed), listen(), Counter[str](), []
    for turn in range(number):
        environment, script = random_environment(chance), random_script(chance)
        kill = (
            (chance.choice([15, 2, 1, 9]), chance.choice([0, 0.1, chance.random(), 1, 1]))
            if chance.random() < 0.25
            else None
        )
        try:
            fate = play([LAUNCHER], environment, listener, script, kill)
        except TimeoutError as error:
            faults.append([turn, str(error), script, kill])
            continue
        fault = fate.fault(may_be_killed=kill is not None)
        request = fate.record.get("request")
        if request and request.encode("latin-1") != HEAD + b"".join(string + b"\0" for string in environment):
            fault = fault or "another request"
        if fault:
            faults.append([turn, fault, script, kill, len(environment), repr(fate)[:800]])
        outcome = "killed" if fate.status < 0 else "ran" if fate.ran else "lost" if fate.is_lost() else "begun"
        fates[outcome] += 1
    return {**fates, "faults": faults}


def strike(scene: str) -> dict[str, Any]:
    """Strike each system call of the launcher, from its start to its end or its execve."""
    script, faults, strikes = SCENES[scene], [], 0
    listener = listen() if script else None
    environment = [b"CNI_COMMAND=ADD"]

    def run(number: int, action: str, error: int) -> Fate:
        argv = ["/run/stepper", REPORT, str(EVERY), str(number), action, str(error), LAUNCHER]
        return play(argv, environment, listener, script)

    whole = run(0, "none", 0)
    assert not whole.fault(may_be_killed=False), whole
    with open(REPORT) as report:
        calls = report.read().split("\n")
    # The first execve is the stepper's own; the second one executes the interpreter.
    execs = [at for at, call in enumerate(calls, 1) if call == "plugin execve"]
    last = execs[1] if len(execs) > 1 else len(calls) - 1
    for number in range(2, last + 1):
        for action, code in (
            ("plugin", 0), ("error", errno.EINTR), ("error", errno.ENOMEM), ("error", errno.EMFILE), ("signal", signal.SIGTERM),
        ):  # fmt: skip
            strikes += 1
            try:
                fate = run(number, action, code)
            except TimeoutError as error:
                faults.append([number, calls[number - 1], action, code, str(error)])
                continue
            if fault := judge(fate, action):
                faults.append([number, calls[number - 1], action, code, fault, repr(fate)])
    return {"strikes": strikes, "faults": faults, "calls": calls[:last]}


def judge(fate: Fate, action: str) -> str:
    """Return a text if a struck call was done twice, or ended well without having been done."""
    begun = bool(fate.record.get("begun"))
    if fate.status > 128:  # as the stepper reports a signal
        fate.status = 128 - fate.status
    if begun + fate.ran > 1:
        return "done twice"
    if fate.status == 0 or (fate.status in (3, STATUS) and not begun + fate.ran):
        return "a good end of a call that nobody did"
    if action == "plugin":
        return "" if fate.status == -signal.SIGKILL else "it lives on"
    if action == "signal":
        return fate.fault(may_be_killed=True)
    if begun + fate.ran or fate.is_lost() or '"code": 999' in fate.output:
        return ""
    # The C library could not start the program: no call has been made.
    return "" if fate.status in (127, -signal.SIGSEGV, -signal.SIGABRT) else "no answer"


def main() -> None:
    """Print the report."""
    what, *rest = sys.argv[1:]
    report = fuzz(int(rest[0]), int(rest[1])) if what == "fuzz" else strike(rest[0])
    say(json.dumps(report))


if __name__ == "__main__":
    main()
