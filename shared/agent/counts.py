"""Count the calls that workers served and declined."""

from __future__ import annotations

from shared.cni.fastjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_REASONS = 32  # of declined calls; each is one of a few texts


class Counts:
    """The numbers since the agent's start; an upgrade hands them on."""

    def __init__(self, since: float, calls: dict[str, dict[str, dict[str, int]]], reasons: dict[str, int]) -> None:
        self.since = since  # on the clock of the day
        self.calls = calls  # plugin: verb: error code, 0 for none: number
        self.reasons = reasons  # why calls were declined

    def add_call(self, record: dict[str, Any]) -> None:
        """Count a call that ended."""
        codes = self.calls.setdefault(record["plugin"], {}).setdefault(record["verb"], {})
        codes[str(record["code"])] = codes.get(str(record["code"]), 0) + 1

    def add_declined(self, reason: str) -> None:
        """Count a call that a worker declined."""
        if reason in self.reasons or len(self.reasons) < MOST_REASONS:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def handed(self) -> dict[str, Any]:
        """Return the arguments that make the same counts in the next agent."""
        return {"since": self.since, "calls": self.calls, "reasons": self.reasons}

    def document(self, **more: Any) -> bytes:
        """Return the answer of the control socket."""
        numbers = {"calls": self.calls, "declined": sum(self.reasons.values()), "reasons": self.reasons}
        return dumps({**more, "since": self.since, **numbers}, "").encode()
