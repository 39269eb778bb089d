"""Termination and deadlines, raised only where a call still knows everything that it made.

A runtime that gives up sends SIGTERM, and later SIGKILL, which cannot be caught. A handler that raised at once could
interrupt between the system call that creates a link and the note of how to delete it. Therefore the handler only
remembers the signal. It is raised at the next safe point: after an undo step was noted (Undo.push), or while the call
waits.

A signal can arrive between the last check and a system call that then blocks, and would not wake that call. Therefore
the alarm repeats: it wakes a waiting call every TICK seconds, and the call checks again.
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


native = _signal  # for the agent, which handles more signals than a call
SIGCHLD, SIGKILL = _signal.SIGCHLD, _signal.SIGKILL
TICK = 1.0  # seconds
SOONEST = 0.001  # seconds; a timer of 0 would be off, and the deadline may be over already


class Terminated(BaseException):
    """SIGTERM or SIGINT arrived; args[0] is its number."""


class DeadlineExpired(Exception):
    """The time of an `interruptible` block is over."""


_pending = 0
_interruptible = False
_deadline = 0.0  # on the monotonic clock, of the current interruptible block


def install() -> None:
    """Handle SIGTERM, SIGINT and SIGALRM. Call once, before anything is made."""
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGALRM):
        _signal.signal(number, _remember)


def ignore() -> None:
    """Ignore SIGTERM and SIGINT from now on, during undo and after the answer; deadlines still work."""
    global _pending
    _pending = 0
    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, _signal.SIG_IGN)


def restore() -> None:
    """Reset a forked child's signal handling to the default, which programs expect at start."""
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGALRM, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_DFL)


def safe_point() -> None:
    """Raise Terminated if a signal has arrived since the last safe point."""
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
    _signal.setitimer(_signal.ITIMER_REAL, 0)  # the block may not have begun yet: then __exit__ does not run
    if _pending:
        raise Terminated(_pending)
    raise DeadlineExpired


class interruptible:  # noqa: N801  (used like a function)
    """A block that waits: a signal interrupts it at once, and DeadlineExpired after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        global _interruptible, _deadline
        _deadline = monotonic() + self.seconds
        # Allow interruption first, then check: the handler raises later signals, the check earlier ones.
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
