"""Decide when events lead to a pass over the attachments. No function here reads a clock."""

from __future__ import annotations

DEBOUNCE_SECONDS = 0.3  # events of one change arrive together, those of a DEL even on a busy node
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 60.0  # of a pause


class Pacing:
    """The reasons for the next pass.

    If a pass repairs nothing, its reasons get a pause. The pause begins at SHORTEST_SECONDS and doubles each time, up
    to LONGEST_SECONDS. A pass that repairs something removes it, and so does a rest of the pause's length after it.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._pauses: dict[str, tuple[float, float]] = {}  # the pause in seconds, and its end

    def note(self, reason: str, now: float) -> None:
        """Remember a reason, which counts once until the next pass."""
        pause, end = self._pauses.get(reason, (0.0, now))
        if now > end + pause:
            self._pauses.pop(reason, None)
        self._due.setdefault(reason, max(now + DEBOUNCE_SECONDS, end))

    def withdraw(self, reason: str) -> None:
        """Forget a reason: its object is gone, as after a DEL."""
        self._due.pop(reason, None)

    @property
    def due(self) -> float | None:
        """The moment of the next pass, None without a reason."""
        return min(self._due.values(), default=None)

    def begin(self) -> list[str]:
        """Return the reasons for the pass that begins now, and forget them: a pass serves all."""
        reasons, self._due = sorted(self._due), {}
        return reasons

    def end(self, reasons: list[str], now: float, *, has_repaired: bool) -> None:
        """Set the pauses of a pass's reasons."""
        for reason in reasons:
            if has_repaired:
                self._pauses.pop(reason, None)
            else:
                pause = min(max(2 * self._pauses.get(reason, (0.0, 0.0))[0], SHORTEST_SECONDS), LONGEST_SECONDS)
                self._pauses[reason] = (pause, now + pause)
        self._pauses = {reason: one for reason, one in self._pauses.items() if now <= one[1] + one[0]}
