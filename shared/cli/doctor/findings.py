"""Represent and print findings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from rich.console import Console
from rich.text import Text

from shared.cli.terminal import printable

SHOWN = 10  # findings of one check in the text; --json prints all
STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


class Severity(IntEnum):
    """How bad a finding is; the worst determines the exit status."""

    NOTE = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        """Return the word that is printed."""
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """A statement about one object, `where`: a path, a link, a sysctl… `todo` is a command if one helps."""

    severity: Severity
    where: str
    what: str
    todo: str
    check: str = ""


def error(where: object, what: str, todo: str) -> Finding:
    """Return a finding that pods have no working network, or that the node is not safe."""
    return Finding(Severity.ERROR, str(where), what, todo)


def warning(where: object, what: str, todo: str) -> Finding:
    """Return a finding that something is left over, or may cause trouble later."""
    return Finding(Severity.WARNING, str(where), what, todo)


def note(where: object, what: str, todo: str) -> Finding:
    """Return a finding that is good to know and needs no action."""
    return Finding(Severity.NOTE, str(where), what, todo)


def status(findings: Iterable[Finding]) -> int:
    """Return the exit status: 0 for notes only, 1 for warnings, 2 for errors."""
    return int(max((finding.severity for finding in findings), default=Severity.NOTE))


def print_json(findings: Sequence[Finding]) -> None:
    """Print one JSON object with the counts and all findings."""
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
    """Print two lines for each finding, the second with the next step, and a last line with the counts.

    Print at most SHOWN findings of a kind.
    """
    console = Console(highlight=False, soft_wrap=True)
    printed: Counter[tuple[Severity, str]] = Counter()
    for finding in findings:
        kind = (finding.severity, finding.check)
        printed[kind] += 1
        if printed[kind] <= SHOWN:
            word = finding.severity.word
            where, what, todo = map(printable, (finding.where, finding.what, finding.todo))
            head = Text.assemble((f"{word:<8}", STYLES[word]), (where, "bold"), f": {what}")
            console.print(head, Text.assemble(("      → ", "dim"), todo), sep="\n")
    for (severity, check), count in printed.items():
        if count > SHOWN:
            console.print(Text(f"… and {count - SHOWN} more {severity.word}s of the check {check}: --json has all"))
    summed = ", ".join(f"{count} {word if count != 1 else word[:-1]}" for word, count in _counts(findings).items())
    console.print(Text(summed))


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counted = Counter(finding.severity for finding in findings)
    return {f"{severity.word}s": counted[severity] for severity in reversed(Severity)}
