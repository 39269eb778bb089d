"""The duty `heal`: repair running pods after an event that may have cut them off, and every minute."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from shared.cli.agent import repairs
from shared.cli.agent.counts import Counts, Sayings, say, unexpected
from shared.cli.agent.events import Links, Rules
from shared.cli.agent.pacing import Pacing
from shared.cli.agent.reloads import Reloads
from shared.cli.agent.repairs import Executables, Lost, Outcome, Runners, Step
from shared.runtime.cache import Cache, CacheError

LOOK_SECONDS = 60.0  # between two looks without an event
SETTLE_SECONDS = 0.1  # an ADD changes links and rules a few times: all of them are read at once
BUSY_SECONDS = 1.0  # until attachments are tried again that another call was using
BUSY_TRIES = 30
INSIDE = ("tuning",)  # plugins whose repair changes something in the pod: only a repair by hand does that
RELOAD, AGAIN = "firewalld", "attachments that other calls were using"


class Readable(Protocol):
    """Something to wait for."""

    def fileno(self) -> int:
        """Return the descriptor."""


class Heal:
    """Listen to the kernel and to firewalld, and repair the attachments in the runtime's cache."""

    def __init__(self, cache_dir: Path | str, bin_dirs: Iterable[Path | str], counts: Counts) -> None:
        self.cache, self.bin_dirs, self.counts = Cache(cache_dir), tuple(bin_dirs), counts
        self.pacing, self.runners = Pacing(), Runners()
        self.sayings, self.errors = Sayings(), Sayings()  # for reasons to skip an attachment, for its errors
        self.links, self.reloads = Links(), Reloads()
        self.rules = self._listen_to_rules()
        self._busy: list[Step] = []
        self._made: set[str] = set()  # by the last pass
        self._complaints: list[str] = []  # of the running pass
        self._tries = 0

    def _listen_to_rules(self) -> Rules | None:
        try:
            return Rules(lambda: self.runners.pids)
        except OSError as error:
            say(f"heal: nf_tables tells no changes ({error.strerror}): rules are looked at every {LOOK_SECONDS:.0f} s")
            return None

    def run(self) -> None:
        """Repair, listen and repair again, without end."""
        while True:
            self.reloads.connect()
            self.look(every=True)
            self._listen(time.monotonic() + LOOK_SECONDS)

    def _listen(self, end: float) -> None:
        """Serve events until a moment of the monotonic clock."""
        while (now := time.monotonic()) < end:
            due = self.pacing.due
            self._wait(min(end, end if due is None else due) - now)
            self._read()
            due = self.pacing.due
            if due is not None and due <= time.monotonic():
                self.look()

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        sources: list[Readable] = [self.links.socket, self.reloads]
        if self.rules is not None:
            sources.append(self.rules.socket)
        for source in sources:
            if source.fileno() >= 0:
                poll.register(source.fileno(), select.POLLIN)
        if poll.poll(max(seconds, 0) * 1000):
            time.sleep(SETTLE_SECONDS)

    def _read(self) -> None:
        now = time.monotonic()
        for reason in self.rules.read() if self.rules is not None else ():
            self.pacing.note(reason, now)
        for name, is_there in self.links.read():
            if is_there:
                self.pacing.note(f"link {name}", now)
            else:
                self.pacing.withdraw(f"link {name}")
        if self.reloads.read():
            self.pacing.note(RELOAD, now)

    def look(self, *, every: bool = False) -> None:
        """Repair the attachments for the noted reasons, or the busy ones; with `every`, all without a reason."""
        begin, reasons = time.monotonic(), self.pacing.begin()
        is_all = every or reasons != [AGAIN]
        if is_all:
            self._tries = 0
        has_repaired = self._repair([] if is_all else self._busy, is_all=is_all)
        self._read()  # the runners' own events
        self.runners.close()
        now = time.monotonic()
        self.pacing.end([one for one in reasons if one != AGAIN], now, has_repaired=has_repaired)
        if self._busy and self._tries < BUSY_TRIES:
            self._tries += 1
            self.pacing.note(AGAIN, now + BUSY_SECONDS)
        if is_all:
            self.counts.heal_pass(now - begin)

    def _plan(self, only: list[Step]) -> list[Step]:
        executables = Executables(self.bin_dirs)
        try:
            plan = repairs.plan_again(only, self.cache, executables) if only else repairs.plan(self.cache, executables)
        except CacheError as error:
            self.sayings.say([f"heal: {error}"])
            return []
        self.sayings.say([f"heal: {reason}" for reason in plan.skipped])
        return [step for step in plan.steps if step.plugin not in INSIDE]

    def _repair(self, only: list[Step], *, is_all: bool) -> bool:
        """Plan and repair, say and count it. Return True if something was missing.

        The same things as in the last pass do not count: another program may delete them again and again.
        """
        before, self._busy, self._complaints = self._made, [], []
        self._made = set() if is_all else set(before)
        try:
            for outcome in self.runners.repair(self._plan(only)):
                self._tell(outcome)
        except Lost as error:
            self._complaints.append(f"heal: {error}")
        except Exception as error:  # noqa: BLE001  (the next look may succeed)
            self._complaints.append(f"heal: unexpected {unexpected(error)}")
        self.errors.say(self._complaints, is_all=is_all)
        return not self._made <= before

    def _tell(self, outcome: Outcome) -> None:
        """Say and count an outcome."""
        step = outcome.step
        if outcome.is_busy:
            self._busy.append(step)
            return
        for line in outcome.repairs:
            say(f"heal: {line}")
        if outcome.complaint:
            self._complaints.append(f"heal: {outcome.complaint}")
        if outcome.made:
            self.counts.repaired(step.network, step.plugin, len(outcome.made))
        if outcome.is_wrong:
            self.counts.unrepaired(step.network, step.plugin)
        self._made.update(f"{step}: {text}" for text in outcome.made)
