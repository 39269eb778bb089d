"""Rows 20 and 29: the soak with the agent, which is killed, frozen, reloaded and stopped at random."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.agent.running import PROGRAM, Agent
from tests.faults.plugin import Tally
from tests.faults.test_soak import Soak
from tests.pretend import PretendHost, until

LONGEST_FREEZE_SECONDS = 1.0  # a launcher waits 0.2 s for a worker
LONGEST_PAUSE_SECONDS = 0.5


@pytest.fixture
def host(installed_with_agent: Path) -> Iterator[PretendHost]:
    with PretendHost(installed_with_agent) as host:
        yield host


class Trouble:
    """An agent that is troubled in random ways. Each way returns when the agent runs again."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.counts: Counter[str] = Counter()
        self.ways: list[Callable[[], None]] = [
            self.kill,
            self.freeze,
            self.freeze_workers,
            self.kill_worker,
            self.reload,
            self.stop,
        ]

    def make(self) -> None:
        way = random.choice(self.ways)
        way()
        self.counts[way.__name__] += 1
        self.agent.wait_for_answer()
        pause()

    def kill(self) -> None:
        self.agent.kill()
        pause()
        self.agent.start()

    def freeze(self) -> None:
        """Stop the server alone. Its workers go on."""
        self.agent.signal(signal.SIGSTOP)
        pause(LONGEST_FREEZE_SECONDS)
        self.agent.signal(signal.SIGCONT)

    def freeze_workers(self) -> None:
        """Stop the workers, busy and idle."""
        workers = self.agent.workers()
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in workers:
                send(pid, number)
            pause(LONGEST_FREEZE_SECONDS)

    def kill_worker(self) -> None:
        """Kill a worker, busy or idle, or the duties."""
        send(random.choice(list(self.agent.children())), signal.SIGKILL)

    def reload(self) -> None:
        self.agent.signal(signal.SIGHUP)

    def stop(self) -> None:
        assert self.agent.stop() == 0, self.agent.log
        pause()
        self.agent.start()


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def pause(longest: float = LONGEST_PAUSE_SECONDS) -> None:
    time.sleep(random.random() * longest)


@pytest.mark.slow
@pytest.mark.row(20)
def test_soak_with_the_agent(host: PretendHost, tally: Tally) -> None:
    with Agent(host) as agent:
        soak = Soak(host)
        trouble = Trouble(agent)
        served = 0
        while soak.process.poll() is None:
            served = max(served, agent.taken())
            trouble.make()
        assert agent.stop() == 0, agent.log
        assert served > 0, agent.log
        # a child that deletes links may outlive its call, and the agent
        until(lambda: host.run("pgrep", "-f", PROGRAM, check=False).stdout == "")
        soak.finish(tally, 20)
        assert trouble.counts
