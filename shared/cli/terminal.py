"""Print text for a person at a terminal: colours, tables, readable JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import IO, Any

WIDTH = 100  # columns of a line of JSON
UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def readable(value: Any, indent: str = "") -> str:
    """Return JSON with short objects and arrays on one line."""
    line = json.dumps(value)
    if len(indent) + len(line) <= WIDTH or not isinstance(value, dict | list):
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{deeper}{json.dumps(key)}: {readable(member, deeper)}" for key, member in value.items()]
    else:
        parts = [deeper + readable(member, deeper) for member in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return start + "\n" + ",\n".join(parts) + "\n" + indent + end


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table with columns as wide as their widest cell."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(head, *rows, strict=True)]
    for number, row in enumerate((head, *rows)):
        line = "  " + "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        say(line if number else paint("2", line))


def tell_failure(error: Exception) -> int:
    """Print an error and its notes to stderr. Return a program's exit status for it, 1."""
    sys.stdout.flush()
    for line in (str(error), *getattr(error, "__notes__", [])):
        print(paint("1;31", f"FAILED: {line}", sys.stderr), file=sys.stderr)
    return 1


def print_heading(text: str) -> None:
    """Print a title."""
    say(paint("1", f"\n== {text}"))


def print_ok(text: str) -> None:
    """Print that a check succeeded."""
    say(f"{paint('32', 'ok')} {text}")


def age(seconds: float) -> str:
    """Return an age in its two largest units; a moment in the future has age 0."""
    left = max(int(seconds), 0)
    parts = []
    for length, unit in UNITS:
        amount, left = divmod(left, length)
        parts.append(f"{amount}{unit}")
    first = next((place for place, part in enumerate(parts) if part[0] != "0"), len(parts) - 1)
    return " ".join(parts[first : first + 2])


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def rounded(value: int) -> str:
    """Return the exact number if it is short, else a rounded one."""
    return f"{value:,}" if value < 10**9 else f"{value:.1e}"


def printable(value: object) -> str:
    """Return text without control characters, which could move a terminal's cursor: others choose names and texts."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value))


def say(text: str) -> None:
    """Print a line at once, so that the reader sees the program's progress."""
    print(text, flush=True)


def paint(style: str, text: str, stream: IO[str] = sys.stdout) -> str:
    """Return the text in an ANSI style if the stream is a terminal and NO_COLOR is not set (no-color.org)."""
    return f"\033[{style}m{text}\033[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else text
