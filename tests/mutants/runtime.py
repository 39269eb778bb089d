"""Mistakes on the runtime's side: shared/runtime."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
)  # fmt: skip
