"""Record the steps of plugins, each with its plugin call.

The recorder is attached from outside, in a process that runs the plugins' own code; that code contains nothing of it.
wiretap.py records netlink sockets, filetap.py calls of `posix`. An executed program cannot be recorded: its steps are
the differences afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shared.cli.explain.changes import State, Step, difference
from shared.undo import Undo


class Recorder:
    """Steps in their order; each belongs to one of `calls`."""

    def __init__(self, host: int, pod: int, observe: Callable[[], State]) -> None:
        """Start without steps.

        `host` and `pod` are the inode numbers of the network namespaces; `observe` returns all state that may change.
        """
        self.calls: list[dict[str, Any]] = []
        self.steps: list[Step] = []
        self.places = {host: "host", pod: "pod"}
        self.observe = observe
        self._now: dict[str, Any] = {}

    def install(self) -> None:
        """Mark the steps of each rollback, until the process ends."""
        wrap(Undo, "__exit__", self._undoing)

    @contextmanager
    def call(self, plugin: str, verb: str, *, executed: bool) -> Iterator[None]:
        """Assign the steps inside the block to a plugin's call; `executed` if another program serves it."""
        before = self._now
        self._now = {"call": len(self.calls), "undo": False}
        self.calls.append({"plugin": plugin, "command": verb, "executed": executed})
        try:
            yield
        finally:
            self._now = before

    @property
    def plugin(self) -> str:
        """Return the plugin whose call is running, empty if none is."""
        return str(self.calls[self._now["call"]]["plugin"]) if self._now else ""

    def record(self, where: str, what: str, **facts: Any) -> Step:
        """Record a step and return it; the caller may add facts."""
        step = {**self._now, "where": where, "what": what, **facts}
        self.steps.append(step)
        return step

    def place(self) -> str:
        """Return the name of the thread's network namespace: host, pod or elsewhere."""
        return self.places.get(os.stat("/proc/thread-self/ns/net").st_ino, "elsewhere")

    @contextmanager
    def differences(self) -> Iterator[None]:
        """Record the differences that the block makes."""
        before = self.observe()
        try:
            yield
        finally:
            self.note(before)

    def note(self, before: State) -> None:
        """Record the differences since an observation."""
        for step in difference(before, self.observe()):
            self.record(**step)

    def _undoing(self, leave: Callable[..., Any], undo: Undo, kind: Any, *rest: Any) -> Any:
        self._now["undo"] = kind is not None
        return leave(undo, kind, *rest)


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by `around`, which gets the original as its first argument."""
    real = getattr(owner, name)
    setattr(owner, name, lambda *arguments, **keywords: around(real, *arguments, **keywords))
