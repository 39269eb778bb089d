"""Rows 20 and 29: the soak with the agent, which is killed, frozen, reloaded, upgraded and stopped at random."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.agent.running import PROGRAM, Agent
from tests.conftest import ROOT, install
from tests.faults.plugin import Tally
from tests.faults.test_soak import Soak
from tests.pretend import PretendHost, until

LONGEST_FREEZE_SECONDS = 1.0  # a launcher waits 0.2 s for a worker
LONGEST_PAUSE_SECONDS = 0.5


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PretendHost]:
    with PretendHost(install(tmp_path, "--agent")) as host:
        yield host


class Trouble:
    """An agent that is troubled in random ways. Each way returns when the agent runs again."""

    def __init__(self, agent: Agent, sources: Sequence[Path]) -> None:
        self.agent = agent
        self.sources = itertools.cycle(sources)
        self.counts: Counter[str] = Counter()
        self.ways: list[Callable[[], None]] = [
            self.kill,
            self.freeze,
            self.freeze_workers,
            self.kill_worker,
            self.reload,
            self.upgrade,
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
        send(random.choice(self.agent.children()), signal.SIGKILL)

    def reload(self) -> None:
        self.agent.signal(signal.SIGHUP)

    def upgrade(self) -> None:
        """Install the other release. The agent goes on with it."""
        host, before = self.agent.host, self.agent.status()["tree"]
        directory = Path(host.bin_dir).parent
        host.run(f"{next(self.sources)}/install.sh", "--bin-dir", host.bin_dir, "--lib-dir", f"{directory}/lib")
        until(lambda: self.agent.status()["tree"] != before)

    def stop(self) -> None:
        assert self.agent.stop() == 0, self.agent.log
        pause()
        self.agent.start()


def copy_release(directory: Path) -> Path:
    """Return a copy of this tree with another digest."""
    for part in ("install.sh", "pyproject.toml", "shared", "plugins", "ipam"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        copy(ROOT / part, directory / part)
    with (directory / "shared/undo.py").open("a") as file:
        file.write("# another release\n")
    return directory


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def pause(longest: float = LONGEST_PAUSE_SECONDS) -> None:
    time.sleep(random.random() * longest)


@pytest.mark.slow
@pytest.mark.row(20, 29)
def test_soak_with_the_agent(host: PretendHost, tmp_path_factory: pytest.TempPathFactory, tally: Tally) -> None:
    other = copy_release(tmp_path_factory.mktemp("release"))
    with Agent(host) as agent:
        soak = Soak(host)
        trouble = Trouble(agent, (other, ROOT))
        served = 0
        while soak.process.poll() is None:
            served = max(served, agent.taken())
            trouble.make()
        assert agent.stop() == 0, agent.log
        assert served > 0, agent.log
        # a child that deletes links may outlive its call, and the agent
        until(lambda: host.run("pgrep", "-f", PROGRAM, check=False).stdout == "")
        soak.finish(tally, 20, 29)
        assert trouble.counts
