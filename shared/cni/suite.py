"""The parts of the running installation, which launch fills in, and how an executable is known for one of them."""

from __future__ import annotations

plugins: dict[str, str] = {}  # executable: module
tree = ""  # the directory that stands in each launcher

LAUNCHER_BYTES = 8192  # of a file, in which the mark is looked for
MARK = b"\n# pycni launcher: "  # install.sh writes it, the plugin and the tree into a launcher's second line


def launched(text: bytes) -> tuple[str, str] | None:
    """Return the tree and the plugin that a launcher names, None for any other file.

    `text` is how the file begins; the file's own name says nothing. The plugin is empty in launchers of release 0.1.0.
    """
    first, mark, rest = text.partition(MARK)
    line, end, _ = rest.partition(b"\n")
    subject, place, path = line.rpartition(b"the code is in ")
    if b"\n" in first or not (mark and end and place):
        return None
    plugin = subject[:-2] if subject.endswith(b"; ") and b" " not in subject[:-2] else b""
    return path.decode(errors="surrogateescape"), plugin.decode(errors="replace")
