"""Mistakes in the operator's tools and install.sh."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
)  # fmt: skip
