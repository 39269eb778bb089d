"""The source that is packed: the checkout's tracked files, whatever their modes and times are there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from artifacts.context import Context


def export(context: Context) -> Path:
    """Copy the tracked files and return the copy; with --dirty also new ones that git does not ignore."""
    target = context.work / "source"
    words = ["git", "ls-files", "-z", "--cached"]
    if context.is_dirty:
        words += ["--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=context.root, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in sorted(set(listed.split("\0")) - {""}):
        path, copy = context.root / name, target / name
        if path.is_file() and not path.is_symlink():  # a file may be deleted and not committed yet
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            copy.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    return target
