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
        "shared/dbus/firewalld.py", "    except TryAgainLater:  # Absent is one", "    except Absent:",
        "a silent bus fails no ADD that can do without", "tests/system/test_busy_bus.py -k silent",
    ),
    Mutant(
        "shared/dbus/firewalld.py", "    if not any(posix.access(path, posix.F_OK) for path in FILES):", "    if False:",
        "a host without firewalld does not ask the bus", "tests/system/test_busy_bus.py -k without",
    ),
)  # fmt: skip
