"""An unpacked bundle, and the ways to run its Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

from artifacts.context import ARCHITECTURES
from artifacts.python import command

PLACE = "/bundle"  # in a root file system


def archive(artefacts: Path, architecture: str) -> Path:
    """Return the bundle's file."""
    (found,) = artefacts.glob(f"pycni-*-linux-{architecture}.tar.gz")
    return found


def unpack(artefacts: Path, architecture: str, directory: Path) -> Path:
    """Unpack a bundle and return its directory."""
    file = archive(artefacts, architecture)
    subprocess.run(["tar", "-xzf", file, "-C", directory], check=True)
    return directory / file.name.removesuffix(".tar.gz")


def python(top: str | Path = PLACE, architecture: str = "amd64") -> list[str]:
    """Return the words that start the Python of a bundle at this path."""
    return [*command(Path(top), ARCHITECTURES[architecture]), "-ISB"]
