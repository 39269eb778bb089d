"""What the running installation consists of; launch fills it in."""

from __future__ import annotations

plugins: dict[str, str] = {}  # executable: module
tree = ""  # the directory that stands in each launcher
