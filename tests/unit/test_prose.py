"""The words of the project: few free relatives, short sentences, docstrings that begin with a verb."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELATIVES = re.compile(r"\b(?:what|whatever|who|whoever|whose|which(?:ever)? of|those (?:that|who))\b", re.IGNORECASE)
OPENINGS = re.compile(r"(?:what|who|whoever|whose|those|whatever)\b", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z`\"(])|\n\s*\n|\n(?=\s*[-*|#])")
WORD = re.compile(r"[^\W\d_][\w'’-]*")
GENERATED = (
    "wire.py",
    "tc_wire.py",
    "kinds_wire.py",
    "rule_wire.py",
    "conntrack_wire.py",
    "RESULTS.md",
    "known_differences.py",
)
PER_THOUSAND, LONGEST = 5, 28


def texts(path: Path) -> list[str]:
    """Return the documents of a file: all of a Markdown file's prose, or a module's docstrings."""
    text = path.read_text()
    if path.suffix == ".md":
        text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"`[^`\n]*`", "`code`", re.sub(r"\]\([^)]*\)", "]", text))
        return ["\n".join(line for line in text.splitlines() if not line.startswith("|"))]
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(ast.parse(text)) if isinstance(node, nodes))
    return [one for one in found if one]


def measured(path: Path) -> dict[str, int]:
    """Return the numbers that are worse than the target."""
    documents = texts(path)
    words = sum(len(WORD.findall(document)) for document in documents)
    relatives = sum(len(RELATIVES.findall(document)) for document in documents)
    lengths = sorted(len(WORD.findall(one)) for document in documents for one in SENTENCE.split(document))
    numbers = {
        # a file of a few sentences may have one
        "relatives": relatives if relatives > max(1, words * PER_THOUSAND / 1000) else 0,
        "openings": sum(bool(OPENINGS.match(document)) for document in documents) if path.suffix == ".py" else 0,
        "ninetieth": lengths[len(lengths) * 9 // 10] if lengths else 0,
    }
    if numbers["ninetieth"] <= LONGEST:
        numbers["ninetieth"] = 0
    return {name: number for name, number in numbers.items() if number}


def files() -> list[str]:
    """Return the product's modules, the tests' and the documents."""
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if not name.endswith(GENERATED)]


@pytest.mark.parametrize("name", files())
def test_words(name: str) -> None:
    assert measured(ROOT / name) == {}
