"""A second interpreter, for tests that change the whole process: signals, blocked modules, file descriptors."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: str, without: tuple[str, ...] = ()) -> str:
    """Return a script's output in this tree without some modules. Fail the test if the script fails."""
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in without)
    head = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{blocked}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", head + textwrap.dedent(script), *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}{done.stderr}"
    assert not done.stderr, done.stderr
    return done.stdout
