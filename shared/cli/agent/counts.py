"""Count the events of the duties, and write their log."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from typing import Any


class Counts:
    """Ignore all events. The metrics for Prometheus replace this class (shared/cli/agent/metrics.py)."""

    def call(self, record: dict[str, Any]) -> None:
        """Count a plugin's call, as the call server reports it."""

    def heal_pass(self, seconds: float) -> None:
        """Count a pass over the attachments."""

    def repaired(self, network: str, plugin: str, things: int) -> None:
        """Count repaired things of an attachment."""

    def unrepaired(self, network: str, plugin: str) -> None:
        """Count a repair that failed."""

    def collected(self, network: str) -> None:
        """Count a dead attachment after its remains were deleted."""


def say(text: str) -> None:
    """Write a line to stderr, which is the agent's log. Ignore a closed stderr.

    Others' objects have part in some texts. None of their characters begins a line, or moves a terminal's cursor.
    """
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    with suppress(OSError):
        os.write(2, f"pycni-agent: {text}\n".encode(errors="backslashreplace"))


def unexpected(error: Exception) -> str:
    """Return the type, the text and the place of an exception."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__}: {error}{''.join(f' ({one.filename}:{one.lineno})' for one in place)}"


class Sayings:
    """Write each line once, as long as every look finds it again."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, texts: list[str], *, is_all: bool = True) -> None:
        """Write the texts that are new. With `is_all`, a text that is missing now is new if it comes back."""
        for text in texts:
            if text not in self._said:
                say(text)
        self._said = set(texts) if is_all else self._said.union(texts)
