"""Share the version, the time, the source and common parts between the artefacts of one run."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Made = TypeVar("Made")


@dataclass(frozen=True)
class Architecture:
    """A machine as the tools name it."""

    name: str  # Debian's, and OCI's
    machine: str  # the kernel's
    libraries: str  # Debian's directory of libraries
    loader: str  # the file name of glibc's loader
    page_bytes: int  # the largest page of a kernel
    compiler: str


ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture("amd64", "x86_64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2", 4096, "x86_64-linux-gnu-gcc"),
        Architecture("arm64", "aarch64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1", 65536, "aarch64-linux-gnu-gcc"),
    )
}


class BuildError(Exception):
    """Say why there is no artefact."""


@dataclass
class Context:
    """A run of packaging/build."""

    root: Path  # the checkout
    output: Path
    work: Path  # a directory of this run alone, empty at its start
    architectures: tuple[Architecture, ...]
    epoch: int  # seconds; the time of all files
    mirrors: tuple[str, ...] = ()  # of Debian; none: mmdebstrap's own
    is_dirty: bool = False  # changes that are not committed are built too
    made: dict[str, object] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Return the version as pyproject.toml has it."""
        return str(tomllib.loads((self.root / "pyproject.toml").read_text())["project"]["version"])

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """Return the result of the first call with this name."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]  # type: ignore[return-value]

    def source(self) -> Path:
        """Return a copy of the tracked files, with plain modes. Copy it before you change it."""
        from artifacts import source

        return self.once("source", lambda: source.export(self))

    def launcher(self, architecture: Architecture) -> Path:
        """Return the compiled shared/launcher.c, its place not filled in."""
        from artifacts import launcher

        return self.once(f"launcher-{architecture.name}", lambda: launcher.compile_for(self, architecture))

    def wheels(self) -> Path:
        """Return the directory of the tools' wheels and their SHA256SUMS. They fit all architectures."""
        from artifacts import wheels

        return self.once("wheels", lambda: wheels.collect(self))

    def bundle(self, architecture: Architecture) -> Path:
        """Return the unpacked bundle, a directory with the name of its tar. Copy it before you change it."""
        from artifacts import bundle

        return self.once(f"bundle-{architecture.name}", lambda: bundle.unpacked(self, architecture))
