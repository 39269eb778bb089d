"""Name the loader of a Python that a bundle brings: the kernel reads its path from the program's PT_INTERP segment.

The path is absolute, so it is known once the Python has its place. Until then the segment holds PLACEHOLDER.
"""

from __future__ import annotations

import struct

PLACEHOLDER = "/pycni-interpreter/".ljust(255, "/")
MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
PT_INTERP = 3


def fill(program: bytes, loader: str) -> bytes:
    """Return an ELF program with the path of its loader replaced, PLACEHOLDER or an earlier one.

    Raise ValueError if it is no such program, or if the path is too long for the segment.
    """
    offset, size = _segment(program)
    path = loader.encode()
    if len(path) >= size:
        raise ValueError(f"the path {loader} of the Python's loader is longer than {size - 1} bytes")
    return program[:offset] + path.ljust(size, b"\0") + program[offset + size :]


def _segment(program: bytes) -> tuple[int, int]:
    """Return the offset and size of the path in the file, its NUL included."""
    if program.startswith(MAGIC) and len(program) >= 64:
        (table,) = struct.unpack_from("<Q", program, 32)  # e_phoff
        entry_bytes, entries = struct.unpack_from("<HH", program, 54)  # e_phentsize, e_phnum
        for start in range(table, table + entries * entry_bytes, entry_bytes):
            kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", program, start)  # Elf64_Phdr
            if kind == PT_INTERP:
                return offset, size
    raise ValueError("the Python is not a program of 64 bits with a loader")
