"""Mistakes in the rules of packet filters: shared/nft, shared/iptables, shared/dbus, filters and admission."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/iptables/programs.py", 'self._restore, "--noflush", "-w", str(SECONDS)', 'self._restore, "--noflush"',
        "iptables-restore waits for its lock", "tests/system/test_iptables_programs.py",
    ),
    Mutant(
        "shared/iptables/programs.py", "TRIES = 5", "TRIES = 1", "a change in between is read and tried again",
        "tests/system/test_iptables_programs.py",
    ),
    Mutant(
        "shared/nft/conntrack.py", "if len(self.waiting) == AT_ONCE:", "if len(self.waiting) == -1:",
        "connections are removed while they are read", "tests/system/test_large_namespaces.py -k flows",
    ),
)  # fmt: skip
