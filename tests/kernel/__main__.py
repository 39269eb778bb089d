"""Runs one command on Debian's stock kernel, in the root of this tree: `python -m tests.kernel ip -V`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.kernel.boot import BootError, run
from tests.kernel.image import SUITE, ImageError

NO_STATUS = 125


def main() -> int:
    """Run the command. Return its exit status, or NO_STATUS if there is none."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel", description=__doc__)
    parser.add_argument("--share", type=Path, help="a directory that the command finds at /mnt and may write to")
    parser.add_argument("--limit", type=float, default=4 * 3600, help="seconds that it may take (default: %(default)s)")
    parser.add_argument("--suite", default=SUITE, help="a Debian whose kernel it shall be (default: this system)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="and its arguments")
    options = parser.parse_args()
    if not options.command:
        parser.error("what command?")

    def write(chunk: bytes) -> None:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()

    with tempfile.TemporaryDirectory() as directory:
        try:
            return run(
                options.command, write, share=options.share or Path(directory), limit=options.limit, suite=options.suite
            )
        except (BootError, ImageError) as error:
            print(error, file=sys.stderr)
            return NO_STATUS


if __name__ == "__main__":
    raise SystemExit(main())
