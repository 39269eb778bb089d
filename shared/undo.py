"""Takes back what a failed call has made, last step first."""

from __future__ import annotations

import posix

from shared import signals, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Undo:
    """The steps that take back what this call, and nobody else, has made.

    The function that makes a thing pushes its step at once. On success the steps are dropped. A step that fails is
    told on stderr and neither stops the others nor hides the first error.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, Callable[[], object]]] = []

    def push(self, what: str, step: Callable[[], object]) -> None:
        """Notes how to take back what was just made; raises signals.Terminated if the call was told to end."""
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
            except Exception as failure:  # noqa: BLE001  (the other steps must have their turn)
                complain(f"could not {what}: {failure}")


def complain(text: str) -> None:
    """Tells the operator what the answer cannot; raises nothing where nobody listens."""
    try:
        posix.write(2, f"pycni: {text}\n".encode(errors="replace"))
    except OSError:
        return
