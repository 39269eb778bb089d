"""Create a throw-away host: own namespaces in which plugins may do anything and that leave nothing behind.

`command` starts Python in new network, mount, process and host-name namespaces. The other functions are for the program
inside and prepare its mounts.
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
from typing import NoReturn

ORIGINALS = Path("/run/originals")  # hidden files stay reachable here, for links to them
KINDS = ("mnt", "net", "pid")
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096  # linux/mount.h
SYSCTLS = Path("/proc/sys")


class Failure(Exception):
    """The throw-away host cannot be created, or an expectation failed."""


def command(*arguments: str) -> list[str]:
    """Return the command line that runs Python, isolated, in namespaces that end with it.

    Raise Failure if this is not possible.
    """
    if os.geteuid():
        raise Failure("creating network namespaces needs root")
    unshare = shutil.which("unshare")
    if unshare is None:
        raise Failure("the program unshare is not in PATH; install util-linux")
    own = ("--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
    return [unshare, *own, sys.executable, "-I", "-B", *arguments]


def start_over(script: str, *arguments: str) -> NoReturn:
    """Run a script in namespaces that end with it, in this program's place. It gets --outside for `expect_own`."""
    again = command(script, *arguments, "--outside", " ".join(own_namespaces()))
    sys.stdout.flush()
    os.execv(again[0], again)  # noqa: S606 - no shell is needed


def own_namespaces() -> list[str]:
    """Return the identities of the process's namespaces."""
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS]


def expect_own(outside: Iterable[str]) -> None:
    """Raise Failure if the process shares a namespace with `outside`, the program that used `command`."""
    expect(not set(outside) & set(own_namespaces()), "this process is not in namespaces of its own")


def expect_visible(paths: Iterable[Path], hidden: Iterable[Path]) -> None:
    """Raise Failure if a needed path is in a directory that will be hidden."""
    for directory in hidden:
        for path in paths:
            expect(
                not path.resolve().is_relative_to(directory),
                f"{path} is in {directory}, which is hidden here: move it elsewhere",
            )


def hide(directory: Path) -> None:
    """Mount an empty tmpfs at `directory`.

    If it does not exist, replace its parent by a copy of links: creating the directory on the machine would leave it
    there.
    """
    if not directory.is_dir():
        replace_by_links(directory.parent)
        directory.mkdir()
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", directory)


def replace_by_links(directory: Path) -> None:
    """Mount a tmpfs at `directory` with links to its former entries, so that new entries can be created."""
    originals = ORIGINALS / directory.relative_to("/")
    originals.mkdir(parents=True)
    mount("--rbind", directory, originals)
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", directory)
    for entry in originals.iterdir():
        target = entry.readlink() if entry.is_symlink() else entry
        (directory / entry.name).symlink_to(target)


def protect() -> None:
    """Make every mount of the machine read-only here, and all sysctls but the network's.

    Call this first: later mounts, such as by `hide`, stay writable.
    """
    for path in (SYSCTLS, SYSCTLS / "net"):
        mount("--bind", path, path)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4].encode().decode("unicode_escape").encode("latin-1")  # \040 is a space
        if os.fsdecode(place) not in (str(SYSCTLS.parent), str(SYSCTLS / "net")):
            _remount_read_only(place)
    mount("-t", "sysfs", "-o", "ro", "sysfs", "/sys")


def _remount_read_only(place: bytes) -> None:
    """Use the system call, since a node has hundreds of mounts.

    A mount that another one covers cannot be changed and is skipped.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, place, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None):
        number = ctypes.get_errno()
        expect(number in (errno.ENOENT, errno.EINVAL), f"{os.fsdecode(place)} read-only: {os.strerror(number)}")


def mount(*arguments: str | Path) -> None:
    """Run the mount command. Raise Failure with its message."""
    execute("mount", *map(str, arguments))


def new_netns(path: Path) -> None:
    """Create a network namespace that a file keeps, as `ip netns add` does, with `lo` down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    execute("unshare", f"--net={path}", "true")


def execute(*argv: str) -> None:
    """Run a command of the system. Raise Failure with its message."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}")


def expect(truth: object, reason: str) -> None:
    """Raise Failure with the reason unless `truth` holds."""
    if not truth:
        raise Failure(reason)
