"""Findings, and how they are told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from rich.console import Console
from rich.text import Text

SHOWN = 10  # findings of one check in the text; --json has all of them
STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


class Severity(IntEnum):
    """How bad it is; the worst is the exit status."""

    NOTE = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        """As it is printed."""
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """Something about one object, `where`: a path, a link, a sysctl… `todo` is a command wherever one helps."""

    severity: Severity
    where: str
    what: str
    todo: str
    check: str = ""


def error(where: object, what: str, todo: str) -> Finding:
    """Pods have no working network, or the node is not safe."""
    return Finding(Severity.ERROR, str(where), what, todo)


def warning(where: object, what: str, todo: str) -> Finding:
    """Something is left over, or will be a trap."""
    return Finding(Severity.WARNING, str(where), what, todo)


def note(where: object, what: str, todo: str) -> Finding:
    """Good to know; nothing has to be done."""
    return Finding(Severity.NOTE, str(where), what, todo)


def status(findings: Iterable[Finding]) -> int:
    """The exit status: 0 nothing but notes, 1 warnings, 2 errors."""
    return int(max((finding.severity for finding in findings), default=Severity.NOTE))


def print_json(findings: Sequence[Finding]) -> None:
    """One object: how many of each severity, and all findings."""
    members = [
        {
            "severity": finding.severity.word,
            "check": finding.check,
            "where": finding.where,
            "what": finding.what,
            "todo": finding.todo,
        }
        for finding in findings
    ]
    print(json.dumps({**_counts(findings), "findings": members}, indent=2))


def print_text(findings: Sequence[Finding]) -> None:
    """Two lines for each, the second with what to do; of many of a kind the first few. The last line sums up."""
    console = Console(highlight=False, soft_wrap=True)
    told: Counter[tuple[Severity, str]] = Counter()
    for finding in findings:
        kind = (finding.severity, finding.check)
        told[kind] += 1
        if told[kind] <= SHOWN:
            word = finding.severity.word
            where, what, todo = map(_harmless, (finding.where, finding.what, finding.todo))
            head = Text.assemble((f"{word:<8}", STYLES[word]), (where, "bold"), f": {what}")
            console.print(head, Text.assemble(("      → ", "dim"), todo), sep="\n")
    for (severity, check), count in told.items():
        if count > SHOWN:
            console.print(Text(f"… and {count - SHOWN} more {severity.word}s of the check {check}: --json has all"))
    summed = ", ".join(f"{count} {word if count != 1 else word[:-1]}" for word, count in _counts(findings).items())
    console.print(Text(summed))


def _harmless(text: str) -> str:
    """Without what could move a terminal's cursor: a pod may call its links what it likes."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counted = Counter(finding.severity for finding in findings)
    return {f"{severity.word}s": counted[severity] for severity in reversed(Severity)}
