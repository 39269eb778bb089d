"""Text for a person at a terminal: light colour where it is wanted, tables, JSON that can be read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import IO, Any

WIDTH = 100  # columns that a line of JSON may take


def readable(value: Any, indent: str = "") -> str:
    """JSON with short objects and arrays on one line."""
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


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(head, *rows, strict=True)]
    for number, row in enumerate((head, *rows)):
        line = "  " + "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        say(line if number else paint("2", line))


def heading(text: str) -> None:
    """The title of what follows."""
    say(paint("1", f"\n== {text}"))


def good(text: str) -> None:
    """Something that is as it should be."""
    say(f"{paint('32', 'ok')} {text}")


def say(text: str) -> None:
    """A line, at once: what the reader sees is where the program is."""
    print(text, flush=True)


def paint(style: str, text: str, stream: IO[str] = sys.stdout) -> str:
    """The text in an ANSI style, where somebody looks at it and has not asked for none (no-color.org)."""
    return f"\033[{style}m{text}\033[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else text
