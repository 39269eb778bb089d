"""Pauses that double with each failure, so that something that fails at once is not repeated at once."""

from __future__ import annotations

from time import monotonic


class Pause:
    """The moment before which nothing is tried again."""

    def __init__(self, first: float, longest: float) -> None:
        self.first = first  # seconds
        self.longest = longest
        self.seconds = 0.0
        self.until = 0.0  # on the monotonic clock

    def lengthen(self) -> None:
        """Pause after a failure, for twice as long as after the last one."""
        self.seconds = min(self.seconds * 2 or self.first, self.longest)
        self.until = monotonic() + self.seconds

    def reset(self) -> None:
        """Forget the failures."""
        self.seconds = self.until = 0.0
