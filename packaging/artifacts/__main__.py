"""Build artefacts: packaging/build calls it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from artifacts.checksums import write_checksums
from artifacts.context import ARCHITECTURES, BuildError, Context
from artifacts.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]


def git(*words: str) -> str:
    """Return the output of a git command in the checkout."""
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def parse(words: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="packaging/build", description="Build pycni's packages, bundle, image and chart."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIR", help="default: dist")
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES, help="can be given twice (default: both)")
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="URL", help="a mirror of Debian, for mmdebstrap"
    )
    parser.add_argument("--dirty", action="store_true", help="build changes that are not committed, too")
    options = parser.parse_args(words)
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return options


def build(context: Context, targets: list[str]) -> list[Path]:
    """Return the files of the targets, in the output directory."""
    made: list[Path] = []
    for target in targets:
        start = time.monotonic()
        files = TARGETS[target](context)
        made += files
        print(f"{target:8} {time.monotonic() - start:5.1f} s  {' '.join(path.name for path in files)}", flush=True)
    return made


def main(words: list[str]) -> None:
    """Build the targets that the command line names."""
    options = parse(words)
    if not options.dirty and (changes := git("status", "--porcelain")):
        raise BuildError(f"these files are not committed; commit them, or build with --dirty:\n{changes}")
    epoch = int(os.environ.setdefault("SOURCE_DATE_EPOCH", git("log", "-1", "--format=%ct")))
    options.output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=ROOT / "build", prefix="packaging-"))
    try:
        context = Context(
            root=ROOT,
            output=options.output.resolve(),
            work=work,
            architectures=tuple(ARCHITECTURES[name] for name in sorted(set(options.arch or ARCHITECTURES))),
            epoch=epoch,
            mirrors=tuple(options.mirror),
            is_dirty=options.dirty,
        )
        made = build(context, options.targets or list(TARGETS))
        write_checksums(made, context.output / "SHA256SUMS")
    finally:
        shutil.rmtree(work)


try:
    main(sys.argv[1:])
except BuildError as error:
    sys.exit(f"packaging/build: {error}")
except subprocess.CalledProcessError as error:
    sys.exit(f"packaging/build: {' '.join(map(str, error.cmd))} failed with status {error.returncode}")
