"""Keep idle workers at hand: fork one for each that takes a call.

A fork beside a call makes the call slower, by a third on two processors. So the crew waits until no call has been in
progress for a while, unless half of the idle workers are gone.
"""

from __future__ import annotations

import gc
import posix
from time import monotonic

from shared.agent.pause import Pause
from shared.agent.worker import DISMISSAL, Worker
from shared.signals import native as signal
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

WARMING, IDLE, BUSY = "warming", "idle", "busy"
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 30.0
REST_SECONDS = 0.02  # without a call; a runtime's calls for one pod follow each other faster


class Crew:
    """The server's children that serve calls."""

    def __init__(self, wanted: int, make: Callable[[], Worker], strangers: dict[int, str]) -> None:
        """Keep `wanted` idle workers. `strangers` are the workers of the agent before an upgrade."""
        self.wanted = wanted
        self.make = make
        self.workers: dict[int, str] = {}
        self.strangers = strangers
        self.forks = 0
        self.pause = Pause(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self.rests_at = 0.0  # on the monotonic clock

    def count(self, *states: str) -> int:
        """Return the number of workers in these states, without idle ones of another release."""
        others = sum(state == BUSY for state in self.strangers.values()) if BUSY in states else 0
        return others + sum(state in states for state in self.workers.values())

    def is_serving(self) -> bool:
        """Return True if a call is in progress."""
        return BUSY in self.workers.values()

    def _needed(self) -> int:
        """Return how many workers must be there: beside a call, one more than half of the wanted idle ones."""
        return min(self.wanted, self.wanted // 2 + 1) if self.is_serving() else self.wanted

    def _lacking(self) -> int:
        return self._needed() - self.count(WARMING, IDLE)

    def deadline(self) -> float | None:
        """Return the moment at which workers are to be forked; None if there are enough."""
        if self._lacking() <= 0:
            return None
        is_urgent = self.count(WARMING, IDLE) <= self.wanted // 2
        return self.pause.until if is_urgent else max(self.pause.until, self.rests_at)

    def is_due(self) -> bool:
        """Return True if workers are to be forked now."""
        moment = self.deadline()
        return moment is not None and monotonic() >= moment

    def fill(self) -> None:
        """Fork the workers that are lacking, unless one cannot be forked."""
        while self._lacking() > 0 and monotonic() >= self.pause.until:
            server = posix.getpid()
            self.forks += 1
            try:
                process = posix.fork()
            except OSError as error:  # EAGAIN: a limit of processes; ENOMEM
                self.pause.lengthen()
                complain(f"agent: no worker can be forked: {error.strerror}; calls are executed meanwhile")
                return
            if process == 0:
                self._become_worker(server)
            self.workers[process] = WARMING

    def _become_worker(self, server: int) -> NoReturn:
        """Be a worker from here on. Nothing of the server's signal handling is left."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            posix.setpgid(0, 0)  # the terminal's signals are for the server
            worker = self.make()
            worker.obey(server)
            gc.disable()
            worker.prepare(self.forks)
            worker.report("ready")
            worker.run()
        except BaseException as error:  # noqa: BLE001  (it must not go on as a second server)
            complain(f"agent: a worker failed: {type(error).__name__}: {error}")
        finally:
            posix._exit(status)

    def note_ready(self, process: int) -> None:
        """Note that a worker waits for calls. Once enough do, dismiss those of another release."""
        if self.workers.get(process) == WARMING:
            self.workers[process] = IDLE
        if self.count(IDLE) >= self._needed():
            self.dismiss(self.strangers)

    def note_taken(self, process: int) -> None:
        """Note that a worker serves a call."""
        self.pause.reset()
        for workers in (self.workers, self.strangers):
            if process in workers:
                workers[process] = BUSY

    def note_end(self, process: int) -> bool:
        """Note the end of a process; return False if it was no worker. One that served no call has failed."""
        if self.strangers.pop(process, None):
            return True
        state = self.workers.pop(process, None)
        self.rests_at = monotonic() + REST_SECONDS
        if state in (WARMING, IDLE) and self.wanted:
            self.pause.lengthen()
        return state is not None

    def dismiss(self, workers: dict[int, str] | None = None) -> None:
        """End idle workers, by default all. Those that have taken a call ignore this."""
        for process in [*(self.workers if workers is None else workers)]:
            posix.kill(process, DISMISSAL)
