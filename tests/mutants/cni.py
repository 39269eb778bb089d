"""Mistakes in what every call needs: shared/cni, signals, undo, launchers."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/cni/fastjson.py", "NESTING_LIMIT and _is_deep(value)", "NESTING_LIMIT and False",
        "deep JSON is code 6 on every Python", "tests/unit/test_fastjson.py -k deep",
    ),
)  # fmt: skip
