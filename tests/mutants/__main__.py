"""Runs the mutants: `python -m tests.mutants [WORD…]`, all, or those with one of the words in file or promise.

Each is put into a copy of the tree. Its tests run there until the first fails. RESULTS.md has the outcomes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.mutant import Mutant
from tests.mutants.table import TABLE

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("RESULTS.md")
ENVIRONMENTS = ".venv*"
SECONDS = 600  # for the tests of one mutant; a mutant that makes them hang is noticed, too
NOT_RUN = "not run"
DEAD, ALIVE, BROKEN, INVALID = "dead", "ALIVE", "tests did not run", "no valid code"
GCC = ("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only")
FAULTS_OF_SYNTAX = "E9,F821,F823"  # ruff's codes: code that does not compile, names that do not exist


def copy_tree(directory: Path) -> None:
    """Copy the files that git knows or would add, and link to the environments."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    for environment in ROOT.glob(ENVIRONMENTS):
        (directory / environment.name).symlink_to(environment.resolve())


@contextmanager
def mutated(tree: Path, mutant: Mutant) -> Iterator[None]:
    """Put the mistake into a tree for a while."""
    path = tree / mutant.path
    text = path.read_text()
    assert text.count(mutant.before) == 1, f"{mutant.path}: {mutant.before!r} does not stand there once"
    path.write_text(text.replace(mutant.before, mutant.after))
    try:
        yield
    finally:
        path.write_text(text)
        _forget_compiled(tree)


def _forget_compiled(tree: Path) -> None:
    """Remove compiled files: one of the same second and size would count as compiled from the right code."""
    for directory, names, _ in os.walk(tree):
        if "__pycache__" in names:
            shutil.rmtree(Path(directory, "__pycache__"))
            names.remove("__pycache__")


def is_valid(tree: Path, path: str) -> bool:
    """Return True if a file compiles: any test notices one that does not."""
    if path.endswith(".py"):
        ruff = str(tree / ".venv/bin/ruff")
        command = [ruff, "check", "--isolated", "--no-cache", "--quiet", "--select", FAULTS_OF_SYNTAX, path]
    elif path.endswith(".c"):
        command = [*GCC, path]
    elif path.endswith("_bare.h"):
        command = [*GCC, "-ffreestanding", path.replace("_bare.h", ".c")]  # which includes it then
    else:
        command = ["bash", "-n", path]
    return subprocess.run(command, cwd=tree, capture_output=True, check=False).returncode == 0


def outcome(tree: Path, mutant: Mutant | None, tests: str) -> str:
    """Return how the tests end in a tree with a mutant, or without one."""
    command = [str(tree / ".venv/bin/python"), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *_words(tests)]
    with mutated(tree, mutant) if mutant else _nothing():
        if mutant and not is_valid(tree, mutant.path):
            return INVALID
        # no pipes: a process that a killed test left behind would keep them open
        with subprocess.Popen(
            command, cwd=tree, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, process_group=0,
        ) as process:  # fmt: skip
            try:
                status = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return DEAD
    return {0: ALIVE, 1: DEAD}.get(status, BROKEN)


def _words(tests: str) -> list[str]:
    paths, _, words = tests.partition(" -k ")
    return [*paths.split(), *(["-k", words] if words else [])]


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def run(mutants: Sequence[Mutant]) -> list[tuple[Mutant, str]]:
    """Return the mutants with their outcomes, in order."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        trees: SimpleQueue[Path] = SimpleQueue()
        workers = os.cpu_count() or 1
        for number in range(workers):
            tree = Path(directory, str(number))
            tree.mkdir()
            copy_tree(tree)
            trees.put(tree)

        def ended(mutant: Mutant | None, tests: str) -> str:
            tree = trees.get()
            try:
                return outcome(tree, mutant, tests)
            finally:
                trees.put(tree)

        def judge(mutant: Mutant) -> tuple[Mutant, str]:
            how = ended(mutant, mutant.tests) if passing[mutant.tests] == ALIVE else BROKEN
            print(f"{how:8} {mutant.path}: {mutant.promise}", flush=True)
            return mutant, how

        with ThreadPoolExecutor(workers) as pool:
            # tests that fail without a mutant, or of which there are none, notice nothing
            every = dict.fromkeys(mutant.tests for mutant in mutants)
            passing = dict(zip(every, pool.map(lambda tests: ended(None, tests), every), strict=True))
            return list(pool.map(judge, mutants))


def table(outcomes: list[tuple[Mutant, str]], before: str) -> str:
    """Return the text of RESULTS.md. Mutants that were not run keep their rows."""
    results = {one: _cell(one, how) for one, how in outcomes}
    rows = [line.removesuffix(" |").split(" | ") for line in before.splitlines()]
    kept = {(row[1], row[2]): row[3] for row in rows if len(row) == 4}
    cells = [results.get(one) or kept.get((one.promise, one.path), NOT_RUN) for one in TABLE]
    lines = [
        "# Mutants: which mistakes the tests notice",
        "",
        f"""Written by `./tests/run --mutants`; with words it renews the mutants that have one.
{cells.count(DEAD)} of {len(cells)} are noticed, {cells.count(NOT_RUN)} were not run.""",
        "",
        "| tests | promise | file | outcome |",
        "|---|---|---|---|",
        *(f"| `{one.tests}` | {one.promise} | {one.path} | {cell} |" for one, cell in zip(TABLE, cells, strict=True)),
    ]
    return "\n".join([*lines, ""])


def _cell(mutant: Mutant, how: str) -> str:
    return f"{how}: {mutant.excuse}" if how != DEAD and mutant.excuse else how


def main(words: list[str]) -> int:
    """Run the requested mutants. Return 1 if one survives without an excuse."""
    chosen = [one for one in TABLE if not words or any(word in f"{one.path} {one.promise}" for word in words)]
    if not chosen:
        print(f"no mutant has {' or '.join(words)} in its file or promise", file=sys.stderr)
        return 2
    outcomes = run(chosen)
    RESULTS.write_text(table(outcomes, RESULTS.read_text() if RESULTS.exists() else ""))
    dead = sum(how == DEAD for _, how in outcomes)
    print(f"{dead} of {len(outcomes)} mutants are dead")
    return int(any(how != DEAD and not one.excuse for one, how in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
