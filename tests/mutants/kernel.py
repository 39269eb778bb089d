"""Mistakes in shared/net: links, addresses, routes, namespaces, netlink."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/net/liveness.py", " and (not is_link(host_link) or _goes(host_link, patient=patient))", "", "an attachment with its link is alive",
        "tests/system/test_liveness.py",
    ),
    Mutant(
        "shared/net/liveness.py", "not in (identity, None)", "!= identity", "what cannot be told counts as alive",
        "tests/system/test_liveness.py",
    ),
    Mutant(
        "shared/net/netns.py", "IOC_NONE if machine.startswith(WITH_IOC_NONE) else 0", "0",
        "a namespace's type is asked for on every architecture", "tests/unit/test_architectures.py",
    ),
    Mutant(
        "shared/net/blake2.py", "mixed[12] ^= counted & MASK", "mixed[12] ^= len(block) & MASK",
        "names are the same on FIPS hosts", "tests/unit/test_accelerators.py",
    ),
    Mutant(
        "shared/net/bridges.py", 'is_new = bridge.get("IFLA_GROUP") == HALF_MADE_GROUP', "is_new = False",
        "a half-made bridge is set up by the next ADD", "tests/faults/test_half_made.py -k '6-bridge]'",
    ),
    Mutant(
        "shared/net/vlans.py", '*([] if port.get("IFLA_MASTER") else joining),', "",
        "a half-made gateway port joins its bridge", "tests/system/test_vlans.py -k half_made",
    ),
    Mutant(
        "shared/net/vlans.py", 'if port is None or not (is_own or master == bridge["index"]):', "if port is None:",
        "a stranger's link of the gateway port's name is refused", "tests/system/test_vlans.py -k strangers",
    ),
)  # fmt: skip
