"""Undo the steps of a failed call, the last one first."""

from __future__ import annotations

import posix

from shared import signals, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Undo:
    """A stack of undo steps for the things that this call itself made.

    The function that makes a thing pushes its undo step at once. On success the steps are dropped. If a step fails, it
    is reported on stderr; the other steps still run, and the first error is raised.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, Callable[[], object]]] = []

    def push(self, what: str, step: Callable[[], object]) -> None:
        """Add an undo step for the thing just made. Raise signals.Terminated if the call was terminated."""
        self.steps.append((what, step))
        signals.safe_point()

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            return
        signals.ignore()
        steps.begin(steps.UNDO)
        while self.steps:
            what, step = self.steps.pop()
            try:
                step()
            except Exception as failure:  # noqa: BLE001  (the other steps must run)
                complain(f"could not {what}: {failure}")


def complain(text: str) -> None:
    """Write a message for the operator to stderr. Ignore errors, as when stderr is closed."""
    try:
        posix.write(2, f"pycni: {text}\n".encode(errors="replace"))
    except OSError:
        return
