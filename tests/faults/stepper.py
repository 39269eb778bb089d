"""Strikes a command at its N-th system call of a class: kills it, makes the call fail, spoils a message.

stepper.c does the work; gcc makes a program of it for each session of pytest. Usage of that program:

    stepper REPORT CLASS NUMBER ACTION ERRNO COMMAND…

REPORT is a file. It gets a line for each call of the classes before the strike: "plugin" or "child" and its name.
ACTION at the NUMBER-th call:

- `none`
- `plugin`, `tree` and `child` get SIGKILL (`child` counts the children's calls alone)
- `signal` sends the plugin the signal ERRNO
- `error` and `own` make it fail with ERRNO (`own` counts the plugin's calls alone)
- `spoil` makes the request in it one that the kernel does not know, and counts the plugin's calls alone
- `interrupt` lets the first NUMBER replies to dumps say that the dump was interrupted (NLM_F_DUMP_INTR)
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("stepper.c")
REPORT = "/run/steps"
MESSAGE, FILES, CONTENT, OTHER, RECEIVE, WAIT, OPEN, EVERY = (1 << bit for bit in range(8))
CHANGES = MESSAGE | FILES | CONTENT | OTHER  # calls that change state, or ask for it
ON_DISK = FILES | CONTENT
CAN_BE_INTERRUPTED = MESSAGE | CONTENT | RECEIVE | WAIT | OPEN


@dataclass(frozen=True)
class Strike:
    """A strike at the N-th call of a class; 0 for none."""

    action: str = "none"
    number: int = 0
    classes: int = CHANGES
    errno: int = 0

    def prefix(self, program: Path) -> tuple[str, ...]:
        """Return the words in front of the command."""
        return (str(program), REPORT, str(self.classes), str(self.number), self.action, str(self.errno))


def compiled(directory: Path) -> Path:
    """Compile the program, and return its path."""
    path = directory / "stepper"
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", path, SOURCE], check=True)
    return path
