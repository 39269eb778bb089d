"""Compare pods' times with and without the node's agent, which the demo starts in its own namespaces."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from shared.agent import settings
from shared.cli.agent.status import NoAgent, ask
from shared.cli.terminal import print_heading, print_table, say
from shared.cli.throwaway import Failure, expect
from shared.cni import suite

ROUNDS = 5
START_SECONDS = 20.0
STOP_SECONDS = 70.0  # the agent waits a minute for its calls
NO_DUTIES = {"heal": False, "collect": False, "metrics": ""}


def is_installed(bin_dir: Path) -> bool:
    """Return True if there is an agent, and executables that ask it."""
    with (bin_dir / "bridge").open("rb") as file:
        return (bin_dir / "pycni-agent").exists() and file.read(4).startswith(suite.ELF)


def compare(bin_dir: Path, turn: Callable[[], dict[str, float]]) -> None:
    """Print the times of `turn`, which returns milliseconds by step, without the agent and with it."""
    print_heading("The same with pycni-agent")
    executed = [turn() for _ in range(ROUNDS)]
    with _running(bin_dir):
        served = [turn() for _ in range(ROUNDS)]
        missed = ask()["fallbacks"]
    rows = [[step, *(f"{median(times[step] for times in rounds):.1f} ms" for rounds in (executed, served))]
            for step in executed[0]]  # fmt: skip
    print_table(("", "executed", "with the agent"), rows)
    say(f"(medians of {ROUNDS} pods; {f'{missed} calls' if missed else 'no call'} found no worker of the agent)")


@contextmanager
def _running(bin_dir: Path) -> Iterator[None]:
    """Start the agent without duties; end it afterwards. Raise Failure if it does not start."""
    Path(settings.PATH).write_text(json.dumps(NO_DUTIES))
    command = [str(bin_dir / "pycni-agent")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as agent:
        try:
            _await_workers(agent)
            yield
        finally:
            agent.terminate()
            with suppress(subprocess.TimeoutExpired):
                agent.communicate(timeout=STOP_SECONDS)
            agent.kill()


def _await_workers(agent: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if agent.poll() is not None:
            said = agent.communicate()[1].strip()
            raise Failure(f"pycni-agent does not start: {said or f'exit status {agent.returncode}'}")
        with suppress(NoAgent):
            if ask()["workers"]["idle"] >= settings.Settings.read({}).workers:
                return
        time.sleep(0.01)
    expect(False, f"pycni-agent has no workers after {START_SECONDS:.0f} seconds")
