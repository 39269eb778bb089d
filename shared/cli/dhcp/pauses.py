"""The pauses between messages, and the words about them, that the clients of both families share."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

PATIENT_SECONDS = 8.0  # the longest pause while an ADD waits: a port with STP forwards after 30 seconds
RENEWAL_SECONDS = 60.0  # the least pause between renewals of a long lease; RFC 2131, section 4.4.5
LONGEST_REFUSAL_SECONDS = 60.0  # the longest pause before a client asks again that servers refuse
LONGEST_SLEEP_SECONDS = 3600.0  # between two looks at the clock, which goes on while the machine is suspended
OBJECTIONS = 3  # that error texts have


def growing(first: float, limits: tuple[float, float], is_patient: Callable[[], bool]) -> Iterator[float]:
    """Yield the seconds until a message is sent again: twice as many each time, up to a limit, not quite regular."""
    pause, longest = min(first, limits[0]), limits[1]
    while True:
        limit = min(longest, PATIENT_SECONDS) if is_patient() else longest
        yield min(pause, limit) * random.uniform(0.9, 1.1)  # noqa: S311  (no secret)
        pause = min(pause * 2, longest)


def renewal(lease_seconds: float, left: float) -> float:
    """Return the seconds until a lease is renewed again. `left` seconds remain; either may be infinite."""
    least = min(RENEWAL_SECONDS, lease_seconds / 10)
    return least if left == inf else max(left / 2, least)


def after_refusals(number: int) -> float:
    """Return the seconds until a client asks again after so many refusals in a row: none at first."""
    return 0.0 if number < 2 else min(2.0 ** (number - 2), LONGEST_REFUSAL_SECONDS)


def _count(numbers: Counter[str]) -> list[str]:
    return [f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in numbers.items()]


class Tally:
    """The numbers of a client's messages, and its objections to answers that were not used. Errors of ADD tell them."""

    sent: Counter[str]
    heard: Counter[str]
    objections: deque[str]
    _sock: Any  # counts messages that are `unreadable`

    def count_anew(self) -> None:
        """Forget the messages that belong to a lost lease."""
        for counts in (self.sent, self.heard, self.objections):
            counts.clear()
        self._sock.unreadable = 0

    def summary(self) -> str:
        """Return the numbers of messages, such as `3 DISCOVERs sent, 0 replies`, and the objections."""
        messages = ", ".join(_count(self.sent))
        received = ", ".join(_count(self.heard + Counter({"unreadable message": self._sock.unreadable})))
        counts = f"{messages or 'nothing'} sent, {received + ' received' if received else '0 replies'}"
        return "; ".join([counts, *dict.fromkeys(self.objections)])
