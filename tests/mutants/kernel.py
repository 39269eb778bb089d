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
        "shared/net/owner.py", "parts[0] in (network, _stand_in(network))", "True",
        "GC tells networks whose names have equal digits", "tests/system/test_gc_of_namesakes.py -k room",
    ),
    Mutant(
        "shared/net/left_behind.py", "monotonic() - since / 100 > YOUNG_SECONDS", "True",
        "GC leaves a young link without alias alone", "tests/system/test_gc_of_namesakes.py -k without",
    ),
    Mutant(
        "shared/net/left_behind.py", "return _is_old(link) if known is None else known", "return bool(known)",
        "GC removes an old link without alias", "tests/system/test_gc_of_namesakes.py -k without",
    ),
)  # fmt: skip
