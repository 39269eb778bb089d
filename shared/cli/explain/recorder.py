"""What plugins do, as a list of steps, each with the plugin's call that it belongs to.

The recording is put on from outside, in a process that runs the plugins' own code; nothing of it is in that code.
wiretap.py listens on the netlink sockets and filetap.py at the calls of `posix`; a process that is executed cannot be
listened to and is seen by what it changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shared.cli.explain.changes import State, Step, difference
from shared.undo import Undo


class Recorder:
    """Steps in the order in which they were taken; each belongs to one of `calls`."""

    def __init__(self, host: int, pod: int, observe: Callable[[], State]) -> None:
        """`host` and `pod` are the inode numbers of the network namespaces; `observe` looks at all that may change."""
        self.calls: list[dict[str, Any]] = []
        self.steps: list[Step] = []
        self.places = {host: "host", pod: "pod"}
        self.observe = observe
        self._now: dict[str, Any] = {}

    def install(self) -> None:
        """Begins to tell what a failing call takes back from what it does, for the rest of the process's life."""
        wrap(Undo, "__exit__", self._undoing)

    @contextmanager
    def call(self, plugin: str, verb: str, *, executed: bool) -> Iterator[None]:
        """What is done meanwhile is done by that plugin, which is `executed` rather than listened to."""
        before = self._now
        self._now = {"call": len(self.calls), "undo": False}
        self.calls.append({"plugin": plugin, "command": verb, "executed": executed})
        try:
            yield
        finally:
            self._now = before

    @property
    def plugin(self) -> str:
        """Whose call it is."""
        return str(self.calls[self._now["call"]]["plugin"]) if self._now else ""

    def tell(self, where: str, what: str, **facts: Any) -> Step:
        """Notes a step; more facts may be added to what is returned."""
        step = {**self._now, "where": where, "what": what, **facts}
        self.steps.append(step)
        return step

    def place(self) -> str:
        """Whose network namespace the thread is in."""
        return self.places.get(os.stat("/proc/thread-self/ns/net").st_ino, "elsewhere")

    @contextmanager
    def differences(self) -> Iterator[None]:
        """Notes what is different afterwards."""
        before = self.observe()
        try:
            yield
        finally:
            self.note(before)

    def note(self, before: State) -> None:
        """Notes what is different now."""
        for step in difference(before, self.observe()):
            self.tell(**step)

    def _undoing(self, leave: Callable[..., Any], undo: Undo, kind: Any, *rest: Any) -> Any:
        self._now["undo"] = kind is not None
        return leave(undo, kind, *rest)


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Puts `around`, which gets the function as its first argument, in place of a function."""
    real = getattr(owner, name)
    setattr(owner, name, lambda *arguments: around(real, *arguments))
