"""Record the steps of a call with the moment each began; shared/cni/log.py writes them to the log.

Reading the clock needs no system call (vDSO, 0.1 µs). To check for a log first would not be cheaper.
"""

from __future__ import annotations

from time import monotonic

START = "start"  # loading the suite's modules, after the interpreter's own start
UNDO = "undo"
ANSWER = "answer"
LOG = "log"

begun: list[tuple[str, float]] = [(START, monotonic())]  # seconds on the monotonic clock


def begin(step: str) -> None:
    """Begin a step, and thereby end the one before."""
    begun.append((step, monotonic()))
