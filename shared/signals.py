"""Termination and deadlines, taken only where a call can be left without losing track of what it made.

A runtime that gives up sends SIGTERM (and later SIGKILL, which nobody sees). Raising at once from the handler could
strike between the system call that makes a link and the note of how to remove it, so a signal is only remembered,
and raised at the next safe point: when a step has been noted (Undo.push) or while the call waits for something.

A signal can come between the last look at what is pending and the system call that then blocks; nothing wakes that
call again. So the alarm ticks: a wait is woken every TICK seconds at the latest and looks again.
"""

from __future__ import annotations

try:
    import _signal  # type: ignore[import-not-found]
except ImportError:
    import signal as _signal
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType


SIGKILL = _signal.SIGKILL
TICK = 1.0  # seconds
SOONEST = 0.001  # seconds; a timer of 0 is none, and a deadline can be past already


class Terminated(BaseException):
    """SIGTERM or SIGINT arrived; args[0] is its number."""


class DeadlineExpired(Exception):
    """What an `interruptible` block waited for did not come in time."""


_pending = 0
_interruptible = False
_deadline = 0.0  # on the monotonic clock, of the block that is interruptible now


def install() -> None:
    """Takes SIGTERM, SIGINT and SIGALRM; call once, before anything is made."""
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGALRM):
        _signal.signal(number, _remember)


def ignore() -> None:
    """From here on nothing but a deadline interrupts: the call takes back what it did, or has given its answer."""
    global _pending
    _pending = 0
    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, _signal.SIG_IGN)


def restore() -> None:
    """Gives a forked child the dispositions that a program expects to start with."""
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGALRM, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_DFL)


def safe_point() -> None:
    """Raises Terminated if a signal has come since the last safe point."""
    if _pending:
        raise Terminated(_pending)


def _remember(number: int, _frame: FrameType | None) -> None:
    global _pending, _interruptible
    if number != _signal.SIGALRM:
        _pending = number
    if not _interruptible:
        return
    if not _pending and monotonic() < _deadline:
        return
    _interruptible = False
    _signal.setitimer(_signal.ITIMER_REAL, 0)  # the signal may have come before the block began: then it is not left
    if _pending:
        raise Terminated(_pending)
    raise DeadlineExpired


class interruptible:  # noqa: N801  (used like a function)
    """A block that waits: signals strike at once, and after `seconds` DeadlineExpired is raised."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        global _interruptible, _deadline
        _deadline = monotonic() + self.seconds
        # First open, then look: a signal in between is raised by its handler, one from before by the look.
        _interruptible = True
        if _pending:
            _interruptible = False
            raise Terminated(_pending)
        _signal.setitimer(_signal.ITIMER_REAL, max(min(self.seconds, TICK), SOONEST), TICK)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _interruptible
        _interruptible = False
        _signal.setitimer(_signal.ITIMER_REAL, 0)
