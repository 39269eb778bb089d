"""The agent's cluster duty: follow the engine, and bring node and cluster together, step by step.

A step is one look and one decision with its actions. A newer snapshot, a changed file or the time begins the next one.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread

from shared.cluster import report
from shared.cluster.checkpoint import Store
from shared.cluster.engine import Engine
from shared.cluster.engines import connect_or_wait
from shared.cluster.executor import Executor, Step
from shared.cluster.model import Alarm, Snapshot
from shared.cluster.node import NodeHost
from shared.cluster.settings import Settings
from shared.cni.errors import CniError

FIRST_SECONDS = 5.0  # to wait for the engine's first state; after a boot the routes of before are restored then
LOOK_SECONDS = 1.0  # between two looks for changed files
SETTLE_SECONDS = 0.1  # changes come in groups: one step is for all of them
SHORTEST_SECONDS = 0.2  # between two steps
SHARE = 5  # a step's pause is at least so many times its CPU time, so that a storm of changes costs a sixth of a CPU
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0  # after failures: doubled by each further one


class Feed:
    """The engine's newest state, which a thread of its own follows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = Condition()
        self._snapshot = Snapshot(failure="the engine has not answered yet")
        self._is_new = False
        self._end = ""  # of the thread: the state would look right for ever

    def start(self) -> None:
        """Begin to follow."""
        Thread(target=self._follow, name="cluster follow", daemon=True).start()

    def _follow(self) -> None:
        end = "returned"
        try:
            self._engine.follow(self._put)
        except Exception as error:  # noqa: BLE001  (of any kind: nobody follows any more)
            end = f"{type(error).__name__}: {error}"
        with self._changed:
            self._end, self._is_new = end, True
            self._changed.notify()

    def _put(self, snapshot: Snapshot) -> None:
        with self._changed:
            self._snapshot, self._is_new = snapshot, True
            self._changed.notify()

    def wait(self, seconds: float) -> bool:
        """Wait for a newer state than the last one taken. Return False after so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_new, seconds)

    def take(self) -> Snapshot:
        """Return the newest state. Raise RuntimeError if nobody follows the engine any more."""
        with self._changed:
            if self._end:
                raise RuntimeError(f"nobody follows the engine any more: {self._end}")
            self._is_new = False
            return self._snapshot


@dataclass
class Pace:
    """The pauses after failures."""

    failures: int = 0  # one after the other

    def next_seconds(self, step: Step) -> float:
        """Return the seconds until the next step."""
        if step.done or step.is_taken:
            self.failures = 0
            return step.again_seconds
        return self.fail()

    def fail(self) -> float:
        """Return the seconds of a pause after a failure."""
        self.failures += 1
        longest = min(FIRST_PAUSE_SECONDS * 2.0 ** (self.failures - 1), LONGEST_PAUSE_SECONDS)
        return longest * random.uniform(0.5, 1)  # noqa: S311  (spreads the nodes' requests)


class Duty:
    """The duty of one process."""

    def __init__(self, settings: Settings, say: Callable[[str], None], *, report_path: Path = report.PATH) -> None:
        """Raise ValueError for settings that cannot be used, and IOFailure without the node's memory."""
        name = settings.node_name()
        self._store = Store()
        self._engine: Engine = connect_or_wait(settings, name)
        self._engine.show_life(name, self._store.uid)
        self._host = NodeHost(settings, name, self._store.uid)
        self._executor = Executor(self._engine, self._host, self._store)
        self._settings, self._sayings = settings, Sayings(say)
        for problem in self._executor.checkpoint.problems:
            say(problem)
        self._report = report.Report(name, self._store.uid, settings.engine, report_path)
        self._feed = Feed(self._engine)
        self._pace = Pace()

    def run(self) -> None:
        """Do the duty without end, unless something unexpected happens."""
        self._feed.start()
        try:
            self._feed.wait(FIRST_SECONDS)
            while True:
                began = time.thread_time()
                watched = self._host.list_watched()
                before = _look_at(watched)  # a change during the step begins the next one
                seconds, is_attentive = self._step()
                spacing = max(SHORTEST_SECONDS, SHARE * (time.thread_time() - began))
                now = time.monotonic()
                if is_attentive:
                    self._listen(now + spacing, now + max(seconds, spacing), watched, before)
                else:
                    time.sleep(seconds)
        finally:
            self._engine.close()

    def _step(self) -> tuple[float, bool]:
        """Do one step, and report it. Return the longest pause after it, and if changes may shorten the pause."""
        snapshot = self._feed.take()
        step: Step | None = None
        alarms: tuple[Alarm, ...]
        self._host.prepare()
        try:
            step = self._executor.step(snapshot, time.monotonic(), time.time())
            alarms = (*step.alarms, *self._host.watch_neighbours(self._executor.checkpoint.kept_routes))
            failure = step.failure
        except (CniError, OSError) as error:
            failure = str(error)
            text = f"node {self._report.node} cannot be looked at: {failure}. Nothing changes until it can."
            alarms = (Alarm("node-unreadable", self._report.node, text),)
        seconds = self._pace.next_seconds(step) if step else self._pace.fail()
        self._sayings.say(alarms, failure)
        alarms = tuple(sorted(alarms, key=lambda one: (one.name, one.about, one.text)))
        self._report.write(snapshot, step, failure, alarms, self._executor, self._host.pools)
        return seconds, not failure or (step is not None and step.is_taken)

    def _listen(self, earliest: float, latest: float, watched: list[str], before: list[int]) -> None:
        """Wait between two moments for a newer snapshot or a changed file."""
        while (now := time.monotonic()) < latest:
            if self._feed.wait(min(LOOK_SECONDS, latest - now)) or _look_at(watched) != before:
                time.sleep(max(SETTLE_SECONDS, earliest - time.monotonic()))
                return


def _look_at(paths: list[str]) -> list[int]:
    """Return the times of change of files and directories in nanoseconds; 0 for those that do not exist.

    host-local sets the time of modification of its directories itself.
    """
    found = []
    for path in paths:
        try:
            found.append(os.stat(path).st_ctime_ns)
        except OSError:
            found.append(0)
    return found


class Sayings:
    """Tell each alarm when it begins and when it is over."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._known: dict[tuple[str, str], str] = {}
        self._failure = ""

    def say(self, alarms: tuple[Alarm, ...], failure: str) -> None:
        """Tell the alarms and the failure that are new, and the alarms that are over."""
        found = {(one.name, one.about): one.text for one in alarms}
        for key, text in found.items():
            if key not in self._known:
                self._say(f"{key[0]}: {text}")
        for name, about in self._known.keys() - found.keys():
            self._say(f"{name}: over for {about}")
        self._known = found
        if failure and failure != self._failure and not any(failure in text for text in found.values()):
            self._say(failure)
        self._failure = failure
