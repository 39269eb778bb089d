"""The compiled launcher, as install.sh compiles it on a node: packages bring it, and the node needs no compiler."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

from artifacts.context import Architecture, BuildError, Context


def flags(context: Context) -> list[str]:
    """Return install.sh's own words for a program without libc."""
    text = (context.source() / "install.sh").read_text()
    return [word for part in re.findall(r'^without_libc\+?="(.*)"$', text, re.MULTILINE) for word in shlex.split(part)]


def compile_for(context: Context, architecture: Architecture) -> Path:
    """Compile the launcher and return it; its place is not filled in."""
    target = context.work / f"launcher-{architecture.machine}"
    if not shutil.which(architecture.compiler):
        raise BuildError(f"no {architecture.compiler}; install Debian's package of that compiler, or name one --arch")
    words = [architecture.compiler, "-std=c11", *flags(context), "-o", str(target), "launcher.c"]
    subprocess.run(words, cwd=context.source() / "shared", check=True)
    return target
