"""The peak memory of a call, for the tests with large tables of the kernel."""

from __future__ import annotations

import sys

from tests.pretend import Answer, PretendHost

# Executes a command and notes its ru_maxrss in KiB, which begins at that of the process that executes it: a small one.
NOTE = """
import posix, sys
argv = sys.argv[1:]
child = posix.posix_spawn(argv[0], argv, posix.environ)
_, status, usage = posix.wait4(child, 0)
with open("/run/peak", "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(status >> 8)
"""
WRAPPER = (sys.executable, "-I", "-S", "-c", NOTE)
"""To be put in front of an executable, whose path is absolute."""


def peak(host: PretendHost, answer: Answer) -> float:
    """Return the MiB that a call under WRAPPER has held at most; it must have succeeded."""
    assert answer.status == 0, answer
    return int(host.run("cat", "/run/peak").stdout) / 1024
