"""The table of mutants is about the code as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.table import TABLE

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", TABLE, ids=lambda one: f"{one.path}: {one.promise}")
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    text = (ROOT / mutant.path).read_text()
    assert text.count(mutant.before) == 1
    assert mutant.before != mutant.after
    paths = mutant.tests.partition(" -k ")[0].split()
    assert paths and all((ROOT / path.partition("::")[0]).exists() for path in paths)


def test_no_mutant_stands_twice() -> None:
    changes = [(one.path, one.before, one.after) for one in TABLE]
    assert len(set(changes)) == len(changes)
