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
        "shared/nft/hostports.py", 'Rule("hairpin4", ct_label(ASKED), ct_status', 'Rule("hairpin4", ct_status',
        "what a stranger redirected before keeps its source", "tests/system/test_redirected_by_others.py -k itself",
    ),
    Mutant(
        "shared/nft/hostports.py", 'Rule("not redirected", ct_label(NOT_REDIRECTED), return_()),\n', "",
        "what a stranger redirects behind the maps keeps its source",
        "tests/system/test_redirected_by_others.py -k conditions",
    ),
)  # fmt: skip
