"""Processes that are killed right before one of their calls."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CALLS = ("open", "fsync", "rename", "unlink", "mkdir")


def killed_at_each(act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fork a child for each call of `act` to one of CALLS, which dies before it; at last one that does not die.

    Yield after each of them.
    """
    status, number = -1, 0
    while status:
        child = os.fork()
        if not child:
            _die_before(number, monkeypatch)
            act()
            os._exit(0)
        status, number = os.waitpid(child, 0)[1], number + 1
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
        yield


def _die_before(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [number]

    def dying(real: Any) -> Any:
        def call(*args: Any, **keys: Any) -> Any:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(*args, **keys)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
