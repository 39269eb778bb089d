"""Supervise the duties process, `cnitool agent run`: start it, tell it of calls, start it again if it fails."""

from __future__ import annotations

import posix
from time import monotonic

from shared.agent.pause import Pause
from shared.signals import native as signal
from shared.undo import complain

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0  # pauses before a new start
MOST_RECORDS_BYTES = 1 << 16
STEADY_SECONDS = 60.0  # a process that ran for so long has not failed at its start


class Duties:
    """The process, at most one at a time."""

    def __init__(self, program: str, *, is_wanted: bool, predecessor: int = 0) -> None:
        """Supervise `program`. A `predecessor`, the process of the agent before an upgrade, must end first."""
        self.program = program
        self.is_wanted = is_wanted
        self.process = predecessor
        self.restarts = 0
        self.pause = Pause(FIRST_SECONDS, LONGEST_SECONDS)
        self._began = monotonic()
        self._stdin = -1
        self._records = b""

    def deadline(self) -> float | None:
        """Return the moment of the next start; None if it is not to be started."""
        return None if self.process or not self.is_wanted else self.pause.until

    def start_if_due(self) -> None:
        """Start the process if it is time to. A failure is a reason for a longer pause."""
        if self.process or not self.is_wanted or monotonic() < self.pause.until:
            return
        reader = writer = -1
        try:
            reader, writer = posix.pipe2(posix.O_CLOEXEC)
            self.process = posix.posix_spawn(
                self.program, [self.program, "agent", "run"], posix.environ,
                file_actions=[(posix.POSIX_SPAWN_DUP2, reader, 0)],
                setsigmask=(), setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )  # fmt: skip
            posix.set_blocking(writer, False)
            self._stdin, self._began, writer = writer, monotonic(), -1
        except OSError as error:
            complain(f"agent: {self.program} cannot be started: {error.strerror}; see install.sh --with-tools")
            self.pause.lengthen()
        finally:
            for descriptor in (reader, writer):
                if descriptor >= 0:
                    posix.close(descriptor)

    def note_call(self, record: bytes) -> None:
        """Note a call's record for `tell`; it is lost if the process does not read."""
        if self._stdin >= 0 and len(self._records) < MOST_RECORDS_BYTES:
            self._records += record + b"\n"

    def tell(self) -> None:
        """Write the noted records to the process, as far as its pipe takes them."""
        if self._records:
            try:
                self._records = self._records[posix.write(self._stdin, self._records) :]
            except OSError:  # EAGAIN; EPIPE: it has ended
                return

    def note_end(self, status: int) -> None:
        """Note the end of the process. Exit status 0 means that it has nothing to do."""
        was_started_here = self._stdin >= 0
        self.process = 0
        self.close_pipe()
        if not was_started_here:
            return
        if status == 0:
            self.is_wanted = False
            return
        if monotonic() - self._began > STEADY_SECONDS:
            self.pause.reset()
        self.pause.lengthen()
        self.restarts += 1

    def stop(self) -> None:
        """Tell the process to end, and start no other."""
        self.is_wanted = False
        self.close_pipe()
        if self.process:
            posix.kill(self.process, signal.SIGTERM)

    def close_pipe(self) -> None:
        """Close the process's input, which tells it that there is no agent any more."""
        if self._stdin >= 0:
            posix.close(self._stdin)
            self._stdin, self._records = -1, b""
