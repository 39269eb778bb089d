"""Learn which pages of memory calls write to, and copy them for a worker before its call comes.

A forked process shares its parent's memory until it writes to it. Then each first write to a page is a page fault, 2 µs
at least; a call has some hundreds. Some workers note at their call's end which pages they have of their own. The other
workers copy those that a quarter of the last calls wrote to, with a few system calls while they are idle. All workers
are forked from one process, so their addresses agree.
"""

from __future__ import annotations

import mmap
import posix
import sys

from shared import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_BYTES = mmap.PAGESIZE
ENTRY_BYTES = 8  # of /proc/PID/pagemap
FLAGS_BYTE = 7 if sys.byteorder == "little" else 0  # of an entry
IS_PRESENT, IS_OF_FILE, IS_OWN = 0x80, 0x20, 0x01  # bits 63, 61 and 56 of an entry
OWN = bytes((flags & (IS_PRESENT | IS_OF_FILE | IS_OWN)) == IS_PRESENT | IS_OWN for flags in range(256))
MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23  # from Linux 5.14; an older one refuses them
SMALL_GAP = bytes(2)  # pages between two hot ones; to copy them is cheaper than another system call
READ_BYTES = 1 << 16
SAMPLE = 8  # one worker of so many copies nothing, and notes its pages
NEWEST = 7  # the bit of the last noted call in a page's history of eight
POPULAR = bytes(bin(history).count("1") >= 2 for history in range(256))


class Pages:
    """The private memory that a process and the workers forked from it have in common."""

    def __init__(self) -> None:
        """Divide this process's memory into regions."""
        self.writable: list[tuple[int, int]] = []  # address and number of pages
        self.code: list[tuple[int, int]] = []  # address and bytes
        for line in _maps().splitlines():
            place, mode, *_, name = [*line.split(maxsplit=5), b""][:6]
            start, end = (int(word, 16) for word in place.split(b"-"))
            if mode == b"rw-p" and name != b"[stack]":
                self.writable.append((start, (end - start) // PAGE_BYTES))
            elif mode == b"r-xp" and name.startswith(b"/"):
                self.code.append((start, end - start))
        # One byte for each page: a bit for each of the last noted calls, 1 if it wrote to the page. Workers share it.
        self.history = mmap.mmap(-1, max(sum(count for _, count in self.writable), 1))
        self.has_copied = False

    def note(self) -> None:
        """Note the pages that this worker's call wrote to. Ignore errors, as where /proc hides them."""
        if self.has_copied:
            return
        try:
            file = posix.open("/proc/self/pagemap", posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return
        place = 0
        for start, count in self.writable:
            entries = posix.pread(file, count * ENTRY_BYTES, start // PAGE_BYTES * ENTRY_BYTES)
            own = int.from_bytes(entries[FLAGS_BYTE::ENTRY_BYTES].translate(OWN), "big")
            before = int.from_bytes(self.history[place : place + count], "big")
            older = before >> 1 & int.from_bytes(b"\x7f" * count, "big")
            self.history[place : place + count] = (older | own << NEWEST).to_bytes(count, "big")
            place += count

    def copy(self, number: int) -> None:
        """Get the pages that many calls write to, and those of code. An older kernel leaves it to page faults.

        `number` counts the workers.
        """
        libc.advise(self.code, MADV_POPULATE_READ)
        if number % SAMPLE:
            ranges = [*self._hot_ranges()]
            libc.advise(ranges, MADV_POPULATE_WRITE)
            self.has_copied = bool(ranges)

    def _hot_ranges(self) -> Iterator[tuple[int, int]]:
        place = 0
        for start, count in self.writable:
            for first, length in _runs(self.history[place : place + count].translate(POPULAR)):
                yield start + first * PAGE_BYTES, length * PAGE_BYTES
            place += count


def _maps() -> bytes:
    """Return the regions of this process's memory, as proc(5) has them."""
    file = posix.open("/proc/self/maps", posix.O_RDONLY | posix.O_CLOEXEC)
    text = b""
    while part := posix.read(file, READ_BYTES):
        text += part
    posix.close(file)
    return text


def _runs(hot: bytes) -> Iterator[tuple[int, int]]:
    """Yield place and length of each run of hot pages, with small gaps in it."""
    end = 0
    while (first := hot.find(1, end)) >= 0:
        gap = hot.find(SMALL_GAP, first)
        end = len(hot) if gap < 0 else gap
        yield first, end - first
