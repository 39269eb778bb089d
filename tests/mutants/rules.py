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
    Mutant(
        "shared/nft/isolation.py", 'Rule("pods of its bridge", own, drop()),', "",
        "isolated holds at layer 3", "tests/system/test_isolation.py -k 'layer_3 and nftables-past'",
    ),
    Mutant(
        "shared/nft/isolation.py", 'Rule("connections from uplinks", own, ct_label(FROM_UPLINK), return_()),', "",
        "isolated lets pass what comes from an uplink", "tests/system/test_isolation.py -k uplinks",
    ),
    Mutant(
        "shared/nft/isolation.py", 'Rule("from uplinks", own, _with_priority(CARRIED), return_()),', "",
        "isolated lets pass packets of no connection from an uplink",
        "tests/system/test_isolation.py -k 'no_connection and through'",
    ),
    Mutant(
        "shared/nft/isolation.py", 'Rule("passed on", _with_priority(CARRIED), _set_priority(NO_PRIORITY)),', "",
        "no priority is left on what a bridge passes on", "tests/system/test_isolation.py -k priorities",
    ),
    Mutant(
        "shared/nft/admission.py", 'now is None or element.data not in (None, now.get("NFTA_SET_ELEM_DATA"))',
        "now is None", "pods of the release before are isolated at layer 3 by the next ADD",
        "tests/system/test_isolation.py -k release_before",
    ),
)  # fmt: skip
