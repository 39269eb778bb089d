"""Create a throw-away host: own namespaces in which plugins may do anything and that leave nothing behind.

`command` starts Python in new network, mount, process and host-name namespaces; this file is the program that creates
them. The other functions are for the program inside and prepare its mounts. All of it is system calls, since a host may
have neither mount nor a full unshare.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

ORIGINALS = Path("/run/originals")  # hidden files stay reachable here, for links to them
KINDS = ("mnt", "net", "pid")
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096  # linux/mount.h
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2  # the last is in linux/fs.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x20000000, 0x40000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SYSCTLS = Path("/proc/sys")
OWN_NETNS = Path("/proc/thread-self/ns/net")


class Failure(Exception):
    """The throw-away host cannot be created, or an expectation failed."""


def command(*arguments: str) -> list[str]:
    """Return the command line that runs Python, isolated, in namespaces that end with it.

    Raise Failure if this is not possible.
    """
    if os.geteuid():
        raise Failure("creating network namespaces needs root")
    python = (sys.executable, "-I", "-B")
    return [*python, __file__, *python, *arguments]


def run_apart(argv: list[str]) -> int:
    """Run a program in new namespaces, which end with it or with this process. Return its exit status.

    The two signals of a terminal and of a supervisor are the program's, as with util-linux's unshare.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    call_kernel("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNET)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if not child:
        call_kernel("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL))
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        os.execv(argv[0], argv)  # noqa: S606 - no shell is needed
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


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
    """Mount an empty tmpfs at `directory`, which need not exist."""
    if not directory.is_dir():
        make_creatable(directory)
        directory.mkdir(parents=True)
    mount("tmpfs", directory, "tmpfs", options="mode=0755")


def make_creatable(directory: Path) -> None:
    """Replace the nearest directory above by a copy of links: a new directory on the machine would stay there.

    Raise Failure if that is the root directory.
    """
    parent = next(parent for parent in directory.parents if parent.is_dir())
    expect(
        parent != Path("/"),
        f"{directory} does not exist, and a new directory in / cannot be pretended: create it first",
    )
    if not _originals(parent).exists():
        replace_by_links(parent)


def replace_by_links(directory: Path) -> None:
    """Mount a tmpfs at `directory` with links to its former entries, so that new entries can be created."""
    originals = _originals(directory)
    originals.mkdir(parents=True)
    mount(directory, originals, flags=MS_BIND | MS_REC)
    mount("tmpfs", directory, "tmpfs", options="mode=0755")
    for entry in originals.iterdir():
        target = entry.readlink() if entry.is_symlink() else entry
        (directory / entry.name).symlink_to(target)


def _originals(directory: Path) -> Path:
    return ORIGINALS / directory.relative_to("/")


def protect() -> None:
    """Make every mount of the machine read-only here, and all sysctls but the network's.

    Call this first: later mounts, such as by `hide`, stay writable.
    """
    for path in (SYSCTLS, SYSCTLS / "net"):
        mount(path, path, flags=MS_BIND)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4].encode().decode("unicode_escape").encode("latin-1")  # \040 is a space
        if os.fsdecode(place) not in (str(SYSCTLS.parent), str(SYSCTLS / "net")):
            _remount_read_only(place)
    mount("sysfs", "/sys", "sysfs", MS_RDONLY)


def _remount_read_only(place: bytes) -> None:
    """Change a mount, except one that another mount covers: it cannot be changed."""
    try:
        call_kernel("mount", None, place, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)
    except OSError as error:
        expect(error.errno in (errno.ENOENT, errno.EINVAL), f"{os.fsdecode(place)} read-only: {error.strerror}")


def mount(source: str | Path, target: str | Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, or change or bind a mount, as `flags` say. Raise Failure with the kernel's reason."""
    words = [os.fsencode(word) or None for word in (source, target, kind, options)]
    try:
        call_kernel("mount", *words[:3], flags, words[3])
    except OSError as error:
        raise Failure(f"cannot mount {source} at {target}: {error.strerror}") from None


def new_netns(path: Path) -> None:
    """Create a network namespace that a file keeps, as `ip netns add` does, with `lo` down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    home = os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        call_kernel("unshare", CLONE_NEWNET)
        try:
            mount(OWN_NETNS, path, flags=MS_BIND)
        finally:
            call_kernel("setns", home, CLONE_NEWNET)
    finally:
        os.close(home)


def delete_netns(path: Path) -> None:
    """Delete a network namespace as runtimes do: programs that have it open keep it."""
    call_kernel("umount2", os.fsencode(path), MNT_DETACH)
    path.unlink()


def call_kernel(function: str, *arguments: bytes | int | None) -> None:
    """Call the C library's function for a system call. Raise OSError if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    # without this, ctypes would cut flags to 32 bits
    if getattr(libc, function)(*(ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function)


def execute(*argv: str) -> None:
    """Run a command of the system. Raise Failure with its message."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}")


def expect(truth: object, reason: str) -> None:
    """Raise Failure with the reason unless `truth` holds."""
    if not truth:
        raise Failure(reason)


if __name__ == "__main__":
    try:
        sys.exit(run_apart(sys.argv[1:]))
    except (Failure, OSError) as error:
        sys.exit(f"no namespaces of its own: {error}")
