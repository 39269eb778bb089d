"""No test waits for a program without a deadline."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ENDLESS = re.compile(r"\w+\.readline\(|for \w+ in \w+(\.\w+)*\.stdout:")


def test_lines_are_read_with_a_deadline() -> None:
    """Tests use `read_line` of tests/pretend.py; scripts of other processes may read without it."""
    found = [
        f"{path.relative_to(TESTS)}:{number}"
        for path in TESTS.rglob("*.py")
        for number, text in enumerate(path.read_text().splitlines(), 1)
        if ENDLESS.search(text) and "sys.stdin.readline()" not in text and path.name != Path(__file__).name
    ]
    assert found == []
