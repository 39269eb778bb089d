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
    Mutant(
        "shared/nft/hostports.py", 'address("saddr", LOCALHOST), drop()', 'address("saddr", Prefix(Address(4, 127 << 24 | 1), 32)), drop()',
        "packets from all of 127.0.0.0/8 are dropped", "tests/system/test_route_localnet.py -k let_in",
    ),
    Mutant(
        "shared/nft/hostports.py", 'address("daddr", LOCALHOST), drop()', 'address("daddr", Prefix(Address(4, 127 << 24 | 1), 32)), drop()',
        "packets to all of 127.0.0.0/8 are dropped", "tests/system/test_route_localnet.py -k let_in",
    ),
    Mutant(
        "shared/iptables/hostport_rules.py", 'for option in ("-d", "-s")', 'for option in ("-d",)',
        "packets from 127.0.0.0/8 are dropped by iptables, too", "tests/system/test_route_localnet.py -k let_in",
    ),
)  # fmt: skip
