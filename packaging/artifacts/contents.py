"""A directory in the making, of which each file is known to come from one component."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Contents:
    """The directory, and the name of the component of each file in it."""

    top: Path
    origins: dict[str, str] = field(default_factory=dict)

    def place(self, name: str, origin: str) -> Path:
        """Return the path of a file that the caller writes."""
        target = self.top / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self.origins[name] = origin
        return target

    def write(self, name: str, content: bytes, origin: str, *, is_executable: bool = False) -> None:
        """Write a file."""
        target = self.place(name, origin)
        target.write_bytes(content)
        target.chmod(0o755 if is_executable else 0o644)

    def copy(self, source: Path, name: str, origin: str, *, is_executable: bool = False) -> None:
        """Copy a file, without its mode; of a symbolic link the file that it leads to."""
        target = self.place(name, origin)
        shutil.copyfile(source, target)
        target.chmod(0o755 if is_executable else 0o644)

    def link(self, name: str, destination: str, origin: str) -> None:
        """Make a symbolic link."""
        self.place(name, origin).symlink_to(destination)
