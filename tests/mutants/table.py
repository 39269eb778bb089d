"""The mutants: a file, a change that breaks a promise, the promise in words, and the tests that must notice.

`before` stands exactly once in the file; tests/unit/test_mutants.py holds that, so that a change of the code does not
leave mutants behind that are none.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One mistake: `before` becomes `after` in the file; pytest then runs `tests` (paths and -k words)."""

    path: str
    before: str
    after: str
    promise: str
    tests: str


TABLE = (
    Mutant(
        "plugins/tuning.py", "if path in HOST_WIDE:", "if path in ():", "sysctls of the host are refused",
        "tests/system/test_tuning.py -k refused",
    ),
    Mutant(
        "shared/cni/fastjson.py", "NESTING_LIMIT and _is_deep(value)", "NESTING_LIMIT and False",
        "deep JSON is code 6 on every Python", "tests/unit/test_fastjson.py -k deep",
    ),
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
        "shared/iptables/programs.py", 'self._restore, "--noflush", "-w", str(SECONDS)', 'self._restore, "--noflush"',
        "iptables-restore waits for its lock", "tests/system/test_iptables_programs.py",
    ),
    Mutant(
        "shared/iptables/programs.py", "TRIES = 5", "TRIES = 1", "a change in between is read and tried again",
        "tests/system/test_iptables_programs.py",
    ),
)  # fmt: skip
