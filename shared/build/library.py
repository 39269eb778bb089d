"""Builds the wheel: the package `pycni`, in which the suite's packages lie under names of their own.

A wheel must not put packages called `shared` or `ipam` beside those of others. They go into `pycni`, and their imports
of each other are rewritten.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools.command.build_py import build_py

PACKAGES = ("shared", "plugins", "ipam")
IMPORT = re.compile(rf"^(\s*(?:from|import) )({'|'.join(PACKAGES)})(?=[. ])", re.MULTILINE)


def rewritten(source: str) -> str:
    """Return a module's source with the imports that it needs below `pycni`."""
    return IMPORT.sub(r"\1pycni.\2", source)


class BuildPy(build_py):
    """Copies the packages and rewrites their imports."""

    def run(self) -> None:
        """Copy as setuptools does, then rewrite the copies."""
        super().run()
        for path in Path(self.build_lib, "pycni").rglob("*.py"):
            path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
