"""Checksums, as sha256sum --check reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256(path: Path) -> str:
    """Return a file's hash in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(files: Iterable[Path], target: Path) -> None:
    """Write the hash and the name of each file, sorted by name."""
    lines = sorted((path.name, sha256(path)) for path in files)
    target.write_text("".join(f"{digest}  {name}\n" for name, digest in lines))
