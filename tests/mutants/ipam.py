"""Mistakes in the IPAM plugins."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
)  # fmt: skip
