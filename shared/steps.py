"""Where a call's time goes: its steps with the moment each began; shared/cni/log.py writes them down if asked to.

A mark reads the clock without a system call (vDSO, 0.1 µs): no dearer than to ask first whether there is a log.
"""

from __future__ import annotations

from time import monotonic

START = "start"  # making the suite's modules; the interpreter's own start is over by then
UNDO = "undo"
ANSWER = "answer"
LOG = "log"

begun: list[tuple[str, float]] = [(START, monotonic())]  # seconds on the monotonic clock


def begin(step: str) -> None:
    """A step begins, and with it the one before ends."""
    begun.append((step, monotonic()))
