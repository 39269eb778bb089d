"""The Pythons of this machine that the suite supports; as a command, prints `<X.Y> <path>` for each.

Standard library only: tests/run calls it before there is any environment.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path

OLDEST = (3, 9)
OLDEST_OF_TOOLS = (3, 11)
# Where Pythons are found beside PATH: the system's, one's own, those of version managers (pyenv, asdf, mise, uv).
PLACES = (
    "/usr/bin",
    "/usr/local/bin",
    "/opt/*/bin",
    "~/.pyenv/versions/*/bin",
    "~/.asdf/installs/python/*/bin",
    "~/.local/share/mise/installs/python/*/bin",
    "~/.local/share/uv/python/*/bin",
    "~/.local/bin",
)
NAME = re.compile(r"python3(\.(9|1\d|[2-9]\d))?")
# A match may be a version manager's script or part of a virtual environment: ask it for the Python behind it.
ASK = "import sys; print(*sys.version_info[:2], getattr(sys, '_base_executable', sys.executable))"


@cache
def found() -> dict[str, str]:
    """Return the absolute path of one Python per version `X.Y`, oldest first; the system's own is preferred."""
    answers: dict[tuple[int, int], str] = {}
    for candidate in _candidates():
        done = subprocess.run(
            [candidate, "-I", "-S", "-c", ASK], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        words = done.stdout.split()
        if done.returncode == 0 and len(words) == 3:
            answers.setdefault((int(words[0]), int(words[1])), words[2])
    return {f"{major}.{minor}": path for (major, minor), path in sorted(answers.items()) if (major, minor) >= OLDEST}


def _candidates() -> list[Path]:
    directories: list[Path] = []
    for place in PLACES:
        directories += sorted(Path("/").glob(str(Path(place).expanduser().relative_to("/"))))
    directories += [Path(entry) for entry in os.environ.get("PATH", "").split(":") if entry.startswith("/")]
    candidates: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("python3*")):
            if NAME.fullmatch(path.name) and os.access(path, os.X_OK):
                candidates.setdefault(os.path.realpath(path), path)
    return list(candidates.values())


if __name__ == "__main__":
    for version, path in found().items():
        print(version, path)
