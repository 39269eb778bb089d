"""Mistakes in what every call needs: shared/cni, signals, undo, launchers."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/cni/fastjson.py", "NESTING_LIMIT and _is_deep(value)", "NESTING_LIMIT and False",
        "deep JSON is code 6 on every Python", "tests/unit/test_fastjson.py -k deep",
    ),
    Mutant(
        "shared/cni/lock.py", "posix.fchmod(descriptor, mode)", "posix.fstat(descriptor)",
        "a lock file that others can open is closed to them", "tests/system/test_locks.py -k reference",
    ),
    Mutant(
        "shared/cni/lock.py", "            if lock_holders.are_foreign(descriptor):", "            if False:",
        "a lock file that another user holds gives way to a new one", "tests/system/test_locks.py -k already",
    ),
    Mutant(
        "shared/cni/log.py", "if lock_holders.are_foreign(file) else -1", "if False else -1",
        "a user who may read the log delays no line and stops no change of files", "tests/system/test_locks.py -k log",
    ),
)  # fmt: skip
