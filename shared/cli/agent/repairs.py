"""Repair the attachments in the runtime's cache: let the suite's plugins create missing things again.

A runner process (shared/cni/repair.py) does the work, with one line of JSON for each attachment and plugin.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from shared.cni import repair as repair_process
from shared.cni import suite
from shared.cni.errors import TryAgainLater, UnknownContainer
from shared.cni.versions import at_least
from shared.executables import PLUGINS
from shared.runtime import attach, presence
from shared.runtime.attach import PluginError
from shared.runtime.cache import Cache, Cached, CacheError, Unreadable, converted
from shared.runtime.find import PluginNotFound, find

ANSWER_SECONDS = 60.0  # for one attachment and plugin
LINE_BYTES = 1 << 20
LOST_IN_A_ROW = 3
FIRST_WITH_CHECK = "0.4.0"
LOST = -1  # in place of an error code: the runner ended or did not answer
MOST_RUNNERS = 4
ATTACHMENTS_EACH = 20  # that are worth another runner, which takes 0.1 s to start


@dataclass(frozen=True)
class Step:
    """A plugin of an attachment's chain, and its input."""

    network: str
    container_id: str
    ifname: str
    plugin: str
    executable: Path
    message: dict[str, Any]
    environment: dict[str, str]
    cache: tuple[str, int]  # the file that the message is from, and its time of modification in nanoseconds

    @property
    def request(self) -> dict[str, Any]:
        """Return the runner's input."""
        return {
            "plugin": self.plugin, "environment": self.environment, "config": self.message, "cache": self.cache,
        }  # fmt: skip

    @property
    def is_repairable(self) -> bool:
        """Return False if the plugin repairs nothing: all that it makes is in the pod."""
        return hasattr(importlib.import_module(PLUGINS[self.plugin]), "repair")

    def __str__(self) -> str:
        return f"{self.network} {self.container_id} {self.ifname}: {self.plugin}"


@dataclass(frozen=True)
class Outcome:
    """The texts of a step: a text for each repaired thing, and the error."""

    step: Step
    made: tuple[str, ...] = ()
    code: int = 0
    error: str = ""

    @property
    def is_busy(self) -> bool:
        """Return True if another call for the attachment was running."""
        return self.code == TryAgainLater.code

    @property
    def is_gone(self) -> bool:
        """Return True if the attachment's namespace is gone, or a DEL came first."""
        return self.code == UnknownContainer.code

    @property
    def is_wrong(self) -> bool:
        """Return True if something is not in order: neither is the attachment gone, nor is the interface another's."""
        return bool(self.error) and not self.is_gone and self.code != repair_process.ANOTHER_CODE

    @property
    def repairs(self) -> list[str]:
        """Return a line of text for each repair."""
        return [f"{self.step}: repaired: {text}" for text in self.made]

    @property
    def complaint(self) -> str:
        """Return a line of text for the error, empty without one, or if the attachment is gone."""
        if not self.error or self.is_gone:
            return ""
        return f"{self.step}: {'cannot repair it' if self.is_wrong else 'passed over'}: {self.error}"


@dataclass
class Plan:
    """The steps for all attachments that may exist, the number of these, and the reasons why others are left out."""

    steps: list[Step] = field(default_factory=list)
    attachments: int = 0
    skipped: list[str] = field(default_factory=list)


class Executables:
    """Find this suite's executables in the plugin directories."""

    def __init__(self, bin_dirs: Sequence[Path | str]) -> None:
        self.bin_dirs = tuple(bin_dirs)
        self._found: dict[str, Path | None] = {}

    def own(self, name: str) -> Path | None:
        """Return the path of this suite's executable; None if the plugin is missing or of another suite."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> Path | None:
        if name not in PLUGINS:
            return None
        with suppress(PluginNotFound, ValueError, OSError):
            path = find(name, self.bin_dirs)
            return path if _launched_plugin(path) == name else None
        return None


def _launched_plugin(path: Path) -> str:
    """Return the plugin that a launcher of this suite names, empty for other files."""
    found = suite.launched(str(path))
    return found[1] if found else ""


def plan(cache: Cache, executables: Executables, network: str = "") -> Plan:
    """Return the steps for the cached attachments of a network, or of all. Raise CacheError."""
    entries, unreadable = cache.look(network)
    made = Plan(skipped=[f"{one.reason}; it is not repaired" for one in unreadable if _concerns(one, network)])
    for entry in entries:
        if presence.of_namespace(entry.attachment.netns) == presence.GONE:
            continue
        try:
            steps = list(_steps(entry, executables))
        except (CacheError, PluginError) as error:
            made.skipped.append(f"{error}; it is not repaired")
            continue
        made.attachments += 1
        made.steps += steps
    return made


def plan_again(steps: Iterable[Step], cache: Cache, executables: Executables, network: str = "") -> Plan:
    """Return the plan for the same steps by the present cache: an attachment may be another ADD's by now."""
    wanted = {str(step) for step in steps}
    made = plan(cache, executables, network)
    made.steps = [step for step in made.steps if str(step) in wanted]
    return made


def _concerns(one: Unreadable, network: str) -> bool:
    return not network or bool(one.keys(network))


def _steps(entry: Cached, executables: Executables) -> Iterator[Step]:
    """Return the steps of an attachment in ADD's order. Raise CacheError."""
    if entry.config is None or entry.result is None or not entry.attachment.netns:
        raise CacheError(f"{entry.path} has no configuration, result or namespace")
    result = converted(entry.result, entry.config.cni_version)
    for plugin in entry.config.plugins:
        name = str(plugin["type"])
        executable = executables.own(name)
        if executable is not None:
            yield Step(
                entry.network, *entry.key, name, executable,
                attach.request(entry.config, plugin, entry.attachment, result),
                entry.attachment.environment("CHECK", executables.bin_dirs),
                (str(entry.path), entry.modified),
            )  # fmt: skip


class Lost(CacheError):
    """The runner ended or did not answer; the message says so."""


class Runner:
    """The process that repairs; it is started with the first request."""

    def __init__(self, limit: float = ANSWER_SECONDS) -> None:
        self.limit = limit
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id, 0 if the runner is not running."""
        return self._process.pid if self._process else 0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer. Raise Lost; the next request starts another runner."""
        try:
            return self._ask(request)
        except (OSError, ValueError, RecursionError) as error:  # the last one for a result that is too deep
            self.close(at_once=True)
            raise Lost(str(error)) from error

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise ValueError("the runner has no pipes")
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(_read_line(process.stdout.fileno(), self.limit))
        if not isinstance(answer, dict):
            raise ValueError(f"the runner answers {answer!r}")
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(repair_process.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self, *, at_once: bool = False) -> None:
        """End the runner after its last answer; with `at_once`, kill it."""
        process, self._process = self._process, None
        if process is not None:
            if at_once:
                process.kill()
            with suppress(OSError), process:  # closes the pipes, then waits
                pass


def _read_line(descriptor: int, limit: float) -> bytes:
    """Return the one line that comes next. Raise ValueError after `limit` seconds, or at the end."""
    deadline, found = time.monotonic() + limit, b""
    while not found.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))[0]:
            raise ValueError(f"no answer within {limit:g} s")
        data = os.read(descriptor, 65536)
        found += data
        if not data:
            raise ValueError("the runner ended without an answer")
        if len(found) > LINE_BYTES:
            raise ValueError(f"the runner answers more than {LINE_BYTES} bytes")
    return found


class Runners:
    """Several runners, which repair different attachments at the same time."""

    def __init__(self, most: int = MOST_RUNNERS) -> None:
        self._all = [Runner() for _ in range(max(1, min(most, os.cpu_count() or 1)))]

    @property
    def pids(self) -> set[int]:
        """Return the process ids of the running ones."""
        return {one.pid for one in self._all if one.pid}

    def close(self) -> None:
        """End all of them after their last answers."""
        for one in self._all:
            one.close()

    def repair(self, steps: Iterable[Step]) -> Iterator[Outcome]:
        """Repair, and return the outcomes as they come; the steps of one attachment stay in order.

        Raise Lost if the runners are lost several times in a row: they would be for all others, too.
        """
        attachments: dict[tuple[str, str, str], list[Step]] = {}
        for step in steps:
            attachments.setdefault((step.network, step.container_id, step.ifname), []).append(step)
        waiting, found = deque(attachments.values()), SimpleQueue[Outcome | None]()
        chosen = self._all[: 1 + len(attachments) // ATTACHMENTS_EACH]
        for runner in chosen:
            Thread(target=_work, args=(runner, waiting, found), daemon=True).start()
        for _ in chosen:
            yield from iter(found.get, None)
        if waiting:
            raise Lost(f"the process that repairs does not work: {len(waiting)} attachments are left")


def _work(runner: Runner, waiting: deque[list[Step]], found: SimpleQueue[Outcome | None]) -> None:
    """Repair attachments until none is waiting, or the runner is lost with several in a row, at each of their steps."""
    lost = 0
    try:
        while lost < LOST_IN_A_ROW:
            outcomes = [_put(_repair(runner, step), found) for step in waiting.popleft()]
            lost = lost + 1 if all(one.code == LOST for one in outcomes) else 0
    except IndexError:  # all are done, by this runner or by another one
        return
    finally:
        found.put(None)


def _put(outcome: Outcome, found: SimpleQueue[Outcome | None]) -> Outcome:
    found.put(outcome)
    return outcome


def _repair(runner: Runner, step: Step) -> Outcome:
    try:
        answer = runner.ask(step.request)
    except Lost as error:
        return Outcome(step, code=LOST, error=str(error))
    return _outcome(step, answer)


def _outcome(step: Step, answer: dict[str, Any]) -> Outcome:
    error, listed = answer.get("error"), answer.get("repaired")
    made = tuple(map(str, listed if isinstance(listed, list) else ()))
    if isinstance(error, dict):
        texts = [str(error[key]) for key in ("msg", "details") if error.get(key)]
        code = error.get("code")
        return Outcome(step, made, code if isinstance(code, int) else attach.INTERNAL_ERROR, ": ".join(texts))
    return Outcome(step, made)


def complaints(steps: Iterable[Step], limit: float = attach.TIME_LIMIT) -> Iterator[Outcome]:
    """Execute CHECK of each step whose version of the specification has it; return the outcomes with an error."""
    for step in steps:
        if not at_least(step.message["cniVersion"], FIRST_WITH_CHECK):
            continue
        try:
            attach.execute(step.executable, "CHECK", step.message, step.environment, limit)
        except PluginError as error:
            yield Outcome(step, code=error.code, error=f"{error.msg}{f': {error.details}' if error.details else ''}")
