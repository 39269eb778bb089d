"""A kernel from a Debian package, downloaded and unpacked in this tree, never installed; and an initramfs for it."""

from __future__ import annotations

import fcntl
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import systems

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".kernel"
PACKAGE = os.environ.get("KERNEL_PACKAGE") or "linux-image-amd64"
SUITE = os.environ.get("KERNEL_SUITE", "")  # a system of tests.systems, by default this one
BUSYBOX = Path("/bin/busybox")  # Debian package busybox-static
DRIVERS = ("virtio_pci", "9pnet_virtio", "9p", "overlay")  # init needs them to reach the root file system


class ImageError(Exception):
    """There is no such kernel, or a program is missing."""


@dataclass(frozen=True)
class Image:
    """An unpacked kernel."""

    release: str  # as `uname -r` says
    root: Path

    @property
    def vmlinuz(self) -> Path:
        """Return the kernel for qemu."""
        return self.root / f"boot/vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        """Return the directory for /lib/modules/<release>."""
        return self.root / "lib/modules" / self.release


def image(package: str = PACKAGE, suite: str = SUITE) -> Image:
    """Return the kernel of a package, or of a metapackage's dependency; it is unpacked once, until .kernel is removed.

    The package is that of another Debian, if `suite` names one. Raise ImageError if it is not available.
    """
    root = CACHE / (f"{suite}-{package}" if suite else package)
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as directory:
                options = _apt_options(suite, Path(directory)) if suite else []
                try:
                    _unpack(_concrete(package, options), options, Path(directory))
                except ImageError:  # apt's lists may be missing or old
                    _output("apt-get", *options, "-q", "update")
                    _unpack(_concrete(package, options), options, Path(directory))
                Path(directory, "root").rename(root)
    (modules,) = (root / "lib/modules").iterdir()
    return Image(modules.name, root)


def _apt_options(suite: str, directory: Path) -> list[str]:
    """Return options by which apt reads the lists of another system, of which it keeps nothing."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    places = {"Etc": systems.root(suite) / "etc/apt", "State": directory / "state", "Cache": directory / "cache"}
    return ["-oAcquire::Check-Valid-Until=false", *(f"-oDir::{name}={path}" for name, path in places.items())]


def _concrete(package: str, options: Sequence[str]) -> str:
    """Return the package with the kernel in it: a metapackage's name has no version."""
    if re.search(r"\d+\.\d+", package):
        return package
    depends = _output("apt-cache", *options, "depends", "--important", package)
    found = re.search(r"Depends: (linux-image-\d\S+)", depends)
    if found is None:
        raise ImageError(f"package {package} is neither a kernel nor depends on one:\n{depends}")
    return found[1]


def _unpack(package: str, options: Sequence[str], directory: Path) -> None:
    _output("apt-get", *options, "-q", "-o", "APT::Sandbox::User=root", "download", package, cwd=directory)
    (archive,) = directory.glob("*.deb")
    root = directory / "root"
    _output("dpkg-deb", "--extract", str(archive), str(root))
    if not (root / "lib/modules").exists():  # Debian 13's packages
        (root / "lib").symlink_to("usr/lib")
    (modules,) = (root / "lib/modules").iterdir()
    _output("depmod", "--basedir", str(root), modules.name)


def write_initramfs(kernel: Image, path: Path) -> None:
    """Write busybox, the modules of DRIVERS in load order, and `init`, as the archive that the kernel unpacks."""
    if not BUSYBOX.exists():
        raise ImageError(f"{BUSYBOX} is missing (Debian package busybox-static)")
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        for name in ("bin", "modules", "lower", "upper", "root", "dev"):
            (top / name).mkdir()
        shutil.copy(BUSYBOX, top / "bin/busybox")
        shutil.copy(Path(__file__).with_name("init"), top / "init")
        depends = "".join(
            _output("modprobe", "-d", str(kernel.root), "-S", kernel.release, "--show-depends", driver)
            for driver in DRIVERS
        )
        for number, file in enumerate(dict.fromkeys(re.findall(r"^insmod (\S+)", depends, re.MULTILINE))):
            content = Path(file).read_bytes()
            if file.endswith(".xz"):
                content = lzma.decompress(content)
            (top / f"modules/{number:02}.ko").write_bytes(content)
        names = "\n".join(str(entry.relative_to(top)) for entry in sorted(top.rglob("*")))
        with path.open("wb") as archive:
            subprocess.run(
                [BUSYBOX, "cpio", "-o", "-H", "newc"], cwd=top, input=names.encode(), stdout=archive,
                stderr=subprocess.DEVNULL, check=True,
            )  # fmt: skip


def _output(*argv: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise ImageError(f"{argv[0]} is missing; tests/run installs the packages that bring it") from None
    if done.returncode:
        raise ImageError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
