"""The cluster duty in a process, until nothing is left to do: `python -m tests.faults.duty_once SETTINGS REPORT SECONDS`.

It is the agent's own duty: its steps, its memory, the node's kernel and the engine's requests. Two things differ.
Before each step it lists the engine's objects itself, so that it has one thread and its system calls one order. Pauses
take no time: the clock goes on by their length. With SECONDS the duty ends after as many.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from shared.cluster import duty, kube_follow
from shared.cluster.decide import STEADY_SECONDS
from shared.cluster.engine import EngineError
from shared.cluster.etcd import Etcd
from shared.cluster.etcd_follow import Follower
from shared.cluster.executor import RETRY_SECONDS
from shared.cluster.kubernetes import Kubernetes
from shared.cluster.model import Snapshot
from shared.cluster.settings import Settings, parse
from shared.cni.errors import CniError

MOST_STEPS = 80
FUTILE_STEPS = 8  # one after the other, which try again what an alarm tells: longer than the grace of an empty block
UNUSABLE = 3  # exit status without the node's memory: the agent begins again later


def say(text: str) -> None:
    """Write a line to stderr, as the agent does: a full disk loses it."""
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class EtcdList(Follower):
    """Lists of etcd's objects."""

    def read(self) -> Snapshot:
        """Return the present objects. Raise EngineError."""
        self._header = self._list()
        return self._content.snapshot(is_current=True, failure="")


def list_kubernetes(follower: kube_follow.Follower) -> Snapshot:
    """Return the present objects. Raise EngineError."""
    for one in follower._collections:  # noqa: SLF001
        one._list()  # noqa: SLF001
        one.is_complete, one.failure = True, ""
    return follower._snapshot()  # noqa: SLF001


class Once(duty.Duty):
    """The duty without its watch."""

    def __init__(self, settings: Settings, report: Path) -> None:
        super().__init__(settings, say, report_path=report)
        self.now = 1000.0
        self._feed = self  # type: ignore[assignment]
        self._read = self._reader()

    def _reader(self) -> Callable[[], Snapshot]:
        engine = self._engine
        if isinstance(engine, Etcd):
            return EtcdList(engine._gateway, engine._prefix, engine._pace, lambda _: None, lambda: None).read  # noqa: SLF001
        assert isinstance(engine, Kubernetes)
        return lambda: list_kubernetes(engine._follower)  # noqa: SLF001

    def take(self) -> Snapshot:
        """Return the engine's present content, as the watch's feed does."""
        try:
            return self._read()
        except EngineError as error:
            return Snapshot(failure=str(error))

    def settle(self, seconds_left: float) -> bool:
        """Do steps until nothing is to be done, or the seconds are over. Return False if there is no end."""
        futile, end = 0, self.now + seconds_left
        for _ in range(MOST_STEPS):
            seconds, _ = self._step()
            self.now += seconds
            futile = futile + 1 if seconds == RETRY_SECONDS else 0
            if self.now >= end:
                return True
            is_steady = self._pace.failures == 0 and seconds >= STEADY_SECONDS and not self._waits()
            if is_steady or futile == FUTILE_STEPS:
                return True
        return False

    def _waits(self) -> bool:
        """Return True if an empty block's grace is not over."""
        local = self._executor._before  # noqa: SLF001
        return local is None or any(one.empty_since is not None for one in local.held.values())


def main() -> int:
    """Run the duty. Return 0 when it is done, 1 if it has no end, 3 if it cannot begin."""
    try:
        once = Once(parse(json.loads(sys.argv[1])), Path(sys.argv[2]))
    except CniError as error:
        say(f"unusable: {error}")
        return UNUSABLE
    clock = {"monotonic": lambda: once.now, "time": time.time, "sleep": None}
    duty.time = SimpleNamespace(**clock)  # type: ignore[assignment,attr-defined]
    return 0 if once.settle(float(sys.argv[3])) else 1


if __name__ == "__main__":
    sys.exit(main())
