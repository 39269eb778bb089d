"""A throw-away host: namespaces of one's own, in which plugins may do anything and of which nothing is left.

`command` starts Python in new network, mount, process and host-name namespaces; the functions after it are for the
program that was started so, and prepare its mounts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ORIGINALS = Path("/run/originals")  # what is hidden stays reachable here, for links into it
KINDS = ("mnt", "net", "pid")
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096  # linux/mount.h
SYSCTLS = Path("/proc/sys")


class Failure(Exception):
    """Something is not as it should be."""


def command(*arguments: str) -> list[str]:
    """The command line that runs Python with `arguments`, isolated, in namespaces that end with it.

    Raises Failure where that cannot be.
    """
    if os.geteuid():
        raise Failure("making network namespaces needs root")
    unshare = shutil.which("unshare")
    if unshare is None:
        raise Failure("unshare (of util-linux) is needed and was not found")
    own = ("--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
    return [unshare, *own, sys.executable, "-I", "-B", *arguments]


def own_namespaces() -> list[str]:
    """What tells one set of namespaces from another."""
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS]


def expect_own(outside: Iterable[str]) -> None:
    """Raises Failure if any of the namespaces is one of `outside`, those of the program that used `command`."""
    expect(not set(outside) & set(own_namespaces()), "not in namespaces of its own")


def expect_visible(paths: Iterable[Path], hidden: Iterable[Path]) -> None:
    """Raises Failure for a path that is needed and lies in a directory that will be hidden."""
    for directory in hidden:
        for path in paths:
            expect(
                not path.resolve().is_relative_to(directory),
                f"{directory} will be hidden, and {path} is in there: it has to be elsewhere",
            )


def hide(directory: Path) -> None:
    """An empty tmpfs in place of `directory`, which need not exist: then its parent is replaced by a copy of links.

    Making the directory would be simpler, and leave it on the machine.
    """
    if not directory.is_dir():
        replace_by_links(directory.parent)
        directory.mkdir()
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", directory)


def replace_by_links(directory: Path) -> None:
    """A tmpfs in place of `directory` with links to all that was in it, so that more can be made there."""
    originals = ORIGINALS / directory.relative_to("/")
    originals.mkdir(parents=True)
    mount("--rbind", directory, originals)
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", directory)
    for entry in originals.iterdir():
        target = entry.readlink() if entry.is_symlink() else entry
        (directory / entry.name).symlink_to(target)


def protect() -> None:
    """Makes every mount of the machine read-only here, and of the sysctls those that are not the network's.

    To be called first: what is mounted later, such as by `hide`, can be written.
    """
    for path in (SYSCTLS, SYSCTLS / "net"):
        mount("--bind", path, path)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4].encode().decode("unicode_escape").encode("latin-1")  # \040 is a space
        if os.fsdecode(place) not in (str(SYSCTLS.parent), str(SYSCTLS / "net")):
            _remount_read_only(place)
    mount("-t", "sysfs", "-o", "ro", "sysfs", "/sys")


def _remount_read_only(place: bytes) -> None:
    """By the system call, since a node has hundreds of mounts; one that another mount covers is out of reach anyway."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, place, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None):
        number = ctypes.get_errno()
        expect(number in (errno.ENOENT, errno.EINVAL), f"{os.fsdecode(place)} read-only: {os.strerror(number)}")


def mount(*arguments: str | Path) -> None:
    """The mount command. Raises Failure with what it said."""
    execute("mount", *map(str, arguments))


def new_netns(path: Path) -> None:
    """A network namespace that is kept by a file, as `ip netns add` makes it, `lo` down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    execute("unshare", f"--net={path}", "true")


def execute(*argv: str) -> None:
    """Run a command of the system. Raises Failure with what it said."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}")


def expect(truth: object, reason: str) -> None:
    """Raises Failure with the reason unless `truth` holds."""
    if not truth:
        raise Failure(reason)
