"""The plugins' own mistakes."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "plugins/tuning.py", "if path in HOST_WIDE:", "if path in ():", "sysctls of the host are refused",
        "tests/system/test_tuning.py -k refused",
    ),
    Mutant(
        "plugins/bridge.py", "bridges.learning_limit(bridge)) != wanted_limit", "bridges.learning_limit(bridge)) == -1",
        "CHECK names another limit of learned MACs", "tests/system/test_learned_addresses.py -k was_there",
    ),
)  # fmt: skip
