"""Build the wheel: the package `pycni`, which contains the suite's packages under its own name.

A wheel must not install packages called `shared` or `ipam` beside those of others. They become part of `pycni`, and
their imports of each other are rewritten.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools.command.build_py import build_py

PACKAGES = ("shared", "plugins", "ipam")
IMPORT = re.compile(rf"^(\s*(?:from|import) )({'|'.join(PACKAGES)})(?=[. ])", re.MULTILINE)


def rewritten(source: str) -> str:
    """Return a module's source with its imports of the suite's packages below `pycni`."""
    return IMPORT.sub(r"\1pycni.\2", source)


class BuildPy(build_py):
    """Copy the packages and rewrite their imports."""

    def run(self) -> None:
        """Copy as setuptools does, then rewrite the copies."""
        super().run()
        for path in Path(self.build_lib, "pycni").rglob("*.py"):
            path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
