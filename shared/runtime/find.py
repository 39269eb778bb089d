"""Find a plugin's executable: the first match in an ordered list of directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path


class PluginNotFound(Exception):
    """No directory of the list has an executable of that name; the message lists them."""


def find(plugin_type: str, directories: Sequence[Path | str]) -> Path:
    """Return the first regular, executable file called `plugin_type`.

    Raise ValueError if the type is not a single path component, or a directory is relative. Either could lead root to a
    file that is not installed as a plugin (CVE-2021-20206). Raise PluginNotFound if there is none.
    """
    if not plugin_type or plugin_type in (".", "..") or "/" in plugin_type or "\0" in plugin_type:
        raise ValueError(f"plugin type {plugin_type!r} is not a file name")
    for directory in map(Path, directories):
        if not directory.is_absolute():
            raise ValueError(f"plugin directory {str(directory)!r} is not an absolute path")
        candidate = directory / plugin_type
        try:
            mode = candidate.stat().st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and os.access(candidate, os.X_OK):
            return candidate
    raise PluginNotFound(f"plugin {plugin_type} not found in {', '.join(map(str, directories)) or 'no directory'}")
