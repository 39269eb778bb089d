"""The table of mutants quotes the present code, and its runner counts only failures of tests."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.mutants import __main__ as runner
from tests.mutants.mutant import Mutant
from tests.mutants.table import TABLE

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", TABLE, ids=lambda one: f"{one.path}: {one.promise}")
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    text = (ROOT / mutant.path).read_text()
    assert text.count(mutant.before) == 1
    assert mutant.before != mutant.after
    paths = mutant.tests.partition(" -k ")[0].split()
    assert "'" not in mutant.tests  # there is no shell
    assert paths and all((ROOT / path.partition("::")[0]).exists() for path in paths)


def test_no_mutant_stands_twice() -> None:
    changes = [(one.path, one.before, one.after) for one in TABLE]
    assert len(set(changes)) == len(changes)


def test_every_area_has_mutants() -> None:
    """The table is made of all areas."""
    areas = {path.stem for path in (ROOT / "tests/mutants").glob("*.py")} - {"__init__", "__main__", "mutant", "table"}
    modules = [importlib.import_module(f"tests.mutants.{area}") for area in sorted(areas)]
    assert all(module.TABLE for module in modules)
    assert sorted(one for module in modules for one in module.TABLE) == sorted(TABLE)


# -- the runner cannot lie

CODE = "import os\n\nSECRET = 7\n\n\ndef double(number):\n    return number * 2\n"
TESTS = """
import subprocess, time
from code_under_test import double

def test_double():
    if double(2) == 99:
        subprocess.Popen(["sleep", "600"])
        time.sleep(600)
    assert double(2) == 4

def test_zero():
    assert double(0) == 0
"""


@pytest.mark.parametrize(("before", "after", "tests", "expected"), [
    ("number * 2", "number * 3", "test_it.py", runner.DEAD), ("number * 2", "number * 3", "test_it.py -k zero", runner.ALIVE),
    ("number * 2", "number * 3", "test_it.py -k nothing", runner.BROKEN), ("number * 2", "number * 3", "test_none.py", runner.BROKEN),
    ("number * 2", "number * (", "test_it.py", runner.INVALID), ("number * 2", "numbr * 2", "test_it.py", runner.INVALID),
    ("number * 2", "99", "test_it.py", runner.DEAD),
])  # fmt: skip
def test_outcomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, tests: str, expected: str
) -> None:
    """A mutant that no test can run, or that any test would notice, does not count.

    A mutant that hangs is ended with its children.
    """
    (tmp_path / "code_under_test.py").write_text(CODE)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / ".venv").symlink_to((ROOT / ".venv").resolve())
    assert runner.outcome(tmp_path, None, "test_it.py") == runner.ALIVE
    if after == "99":
        monkeypatch.setattr(runner, "SECONDS", 10)
    mutant = Mutant("code_under_test.py", before, after, "twice", tests)
    assert runner.outcome(tmp_path, mutant, tests) == expected
    assert (tmp_path / "code_under_test.py").read_text() == CODE and not (tmp_path / "__pycache__").exists()


def test_words_that_select_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["no such promise"]) == 2
    assert "no mutant" in capsys.readouterr().err
