"""The plugins' own mistakes."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "plugins/tuning.py", "if path in HOST_WIDE:", "if path in ():", "sysctls of the host are refused",
        "tests/system/test_tuning.py -k refused",
    ),
    Mutant(
        "plugins/tuning.py", "if lost and 0 < mtu < LEAST_IPV6_MTU:", "if False:",
        "tuning refuses an MTU that takes IPv6 addresses away", "tests/system/test_small_mtu.py -k tuning",
    ),
)  # fmt: skip
