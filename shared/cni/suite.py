"""The running installation: its plugins and directory, set by launch; its settings; its launchers."""

from __future__ import annotations

plugins: dict[str, str] = {}  # executable: module
tree = ""  # the directory that stands in each launcher

NODE_CONFIG = "/etc/cni/pycni.json"
# The log of calls: size of a full file in bytes (default and bounds), and the number of full files to keep.
LOG_BYTES, LEAST_LOG_BYTES, LARGEST_LOG_BYTES = 10 << 20, 4096, 1 << 40
LOGS_KEPT = 2

LAUNCHER_BYTES = 8192  # the mark must be in the first bytes of a file
MARK = b"\n# pycni launcher: "  # install.sh writes it, with plugin and tree, as the second line of a launcher


def launched(text: bytes) -> tuple[str, str] | None:
    """Return the tree and the plugin that a launcher names, None for any other file.

    `text` is the beginning of the file; its name is not evidence. The plugin is empty in launchers of release 0.1.0.
    """
    first, mark, rest = text.partition(MARK)
    line, end, _ = rest.partition(b"\n")
    subject, place, path = line.rpartition(b"the code is in ")
    if b"\n" in first or not (mark and end and place):
        return None
    plugin = subject[:-2] if subject.endswith(b"; ") and b" " not in subject[:-2] else b""
    return path.decode(errors="surrogateescape"), plugin.decode(errors="replace")
