"""One mutant: a file, a change that breaks a promise, the promise in words, and the tests that must notice."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One mistake: `before` becomes `after` in the file; pytest then runs `tests` (paths and -k words).

    `before` stands exactly once in the file. tests/unit/test_mutants.py holds that: a change of the code cannot leave
    dead mutants behind.
    """

    path: str
    before: str
    after: str
    promise: str
    tests: str
    excuse: str = ""
    """Why no test can notice this one, if none can."""
