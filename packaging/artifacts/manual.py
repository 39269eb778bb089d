"""The manual page, the completion for bash and the names of the executables, from the code that knows them."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

from artifacts import wheels
from artifacts.context import Context

CNITOOL = "import sys; from shared.cli.cnitool import run; sys.exit(run('', sys.argv[1:]))"
NAMES = "from shared.executables import PLUGINS; print('pycni-agent', 'cnitool', *PLUGINS)"


def write(context: Context) -> Path:
    """Write cnitool.1.gz and the completion `cnitool`; return their directory."""
    target = context.work / "manual"
    target.mkdir()
    libraries = context.work / "libraries"
    files = [library.file for library in context.once("libraries", lambda: wheels.libraries(context))]
    words = "install --quiet --no-cache-dir --no-deps --no-index --no-build-isolation --no-compile"
    subprocess.run([sys.executable, "-I", "-m", "pip", *words.split(), "--target", libraries, *files], check=True)
    page = _run(context, CNITOOL, "manual", libraries=libraries)
    (target / "cnitool.1.gz").write_bytes(gzip.compress(page.encode(), 9, mtime=0))
    (target / "cnitool").write_text(_run(context, CNITOOL, "completion", libraries=libraries))
    return target


def executables(context: Context) -> list[str]:
    """Return the names of the executables that install.sh --agent makes."""
    return _run(context, NAMES).split()


def _run(context: Context, code: str, *arguments: str, libraries: Path = Path("/nonexistent")) -> str:
    """Return the output of code of the source; its lines are as long as on a terminal of 80 columns."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{context.source()}:{libraries}",
        "SOURCE_DATE_EPOCH": str(context.epoch),
        "COLUMNS": "80",
    }
    words = [sys.executable, "-s", "-B", "-c", code, *arguments]
    return subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
