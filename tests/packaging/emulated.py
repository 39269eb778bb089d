"""A machine of another architecture: qemu runs each of its programs, as the kernel finds them, in a user namespace of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

QEMU = "/usr/bin/qemu-aarch64-static"
# The head of a program for this machine; the kernel reads these escapes itself. F opens qemu now: the root has none.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
# The registration belongs to the user namespace: the machine's own programs never see it. Linux 6.7 or newer.
ENTER = """
set -eu
root=$1
shift
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf '%s' ':aarch64:M::MAGIC:MASK:QEMU:F' >/proc/sys/fs/binfmt_misc/register
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind --make-rprivate /sys "$root/sys"
exec chroot "$root" "$@"
"""


def make_root(directory: Path) -> Path:
    """Make the directories that a host always has, and return the root."""
    for name in ("proc", "dev", "sys", "run", "tmp", "etc", "var"):
        (directory / name).mkdir(parents=True)
    return directory


def run(
    root: Path, *argv: str, text: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of that machine with this root, in namespaces of its own for mounts, network and processes."""
    script = ENTER.replace("MAGIC", MAGIC).replace("MASK", MASK).replace("QEMU", QEMU)
    words = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})}
    return subprocess.run(
        [*words, "sh", "-c", script, "sh", root, *argv], input=text, capture_output=True, text=True, env=variables
    )
