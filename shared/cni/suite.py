"""The running installation: its plugins and directory, set by launch; its settings; its launchers."""

from __future__ import annotations

import posix

plugins: dict[str, str] = {}  # executable: module
tree = ""  # the directory that stands in each launcher

NODE_CONFIG = "/etc/cni/pycni.json"
# The log of calls: size of a full file in bytes (default and bounds), and the number of full files to keep.
LOG_BYTES, LEAST_LOG_BYTES, LARGEST_LOG_BYTES = 10 << 20, 4096, 1 << 40
LOGS_KEPT = 2

LAUNCHER_BYTES = 8192  # the mark must be in the first bytes of a script, or in the last ones of a compiled program
MARK = b"\n# pycni launcher: "  # install.sh writes it, with plugin and tree: a script's second line, a program's last
ELF = b"\x7fELF"


def launched(path: str) -> tuple[str, str] | None:
    """Return the tree and the plugin that a launcher names, None for any other file.

    The file's name is not evidence. The plugin is empty in launchers of release 0.1.0. Raise OSError.
    """
    first, mark, rest = _read_head(path).partition(MARK)
    line, end, _ = rest.partition(b"\n")
    subject, place, tree = line.rpartition(b"the code is in ")
    if b"\n" in first or not (mark and end and place):
        return None
    plugin = subject[:-2] if subject.endswith(b"; ") and b" " not in subject[:-2] else b""
    return tree.decode(errors="surrogateescape"), plugin.decode(errors="replace")


def _read_head(path: str) -> bytes:
    """Return the beginning of a script, or the last line of a compiled program with the newline before it."""
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        head = posix.read(descriptor, LAUNCHER_BYTES)
        if not head.startswith(ELF):
            return head
        length = posix.fstat(descriptor).st_size
        tail = posix.pread(descriptor, LAUNCHER_BYTES, max(length - LAUNCHER_BYTES, 0))
        return tail[tail.rfind(b"\n", 0, -1) :]
    finally:
        posix.close(descriptor)
