"""Debian's packages, from mmdebstrap: apt checks the archive's signature and each file's hash."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from artifacts.checksums import sha256
from artifacts.context import Architecture, BuildError, Context

SUITE, RELEASE = "bookworm", "12"
# The licence of the files that a bundle takes; licences/ has the package's whole text.
LICENCES = {
    "bash-static": "GPL-3.0-or-later",
    "busybox-static": "GPL-2.0-only",
    "libc6": "LGPL-2.1-or-later",
    "libexpat1": "MIT",
    "libffi8": "MIT",
    "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libpython3.11-minimal": "PSF-2.0",
    "libpython3.11-stdlib": "PSF-2.0",
    "libsqlite3-0": "blessing",
    "libssl3": "Apache-2.0",
    "python3.11-minimal": "PSF-2.0",
    "zlib1g": "Zlib",
}
FIELDS = ("Package", "Version", "Architecture", "source:Package", "source:Version", "Built-Using")


@dataclass(frozen=True)
class Package:
    """A package and the directory with its files."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str
    built_using: tuple[tuple[str, str], ...]  # source packages and versions that are linked in
    sha256: str  # of the package's file
    files: Path

    @property
    def licence(self) -> str:
        """Return an SPDX expression."""
        return LICENCES[self.name]

    def copyright(self) -> bytes:
        """Return the package's copyright file. Its directory may be a link to that of a package of the same source."""
        documents = self.files / "usr/share/doc" / self.name
        if documents.is_symlink():
            other = str(documents.readlink())
            unpack(next(self.files.parent.glob(f"archives/{other}_*.deb")), self.files)
        return (documents / "copyright").read_bytes()


def unpack(file: Path, target: Path) -> None:
    """Unpack a package's files."""
    subprocess.run(["dpkg-deb", "--extract", file, target], check=True)


def download(context: Context, architecture: Architecture) -> list[Path]:
    """Return the packages' files, and those of all that they depend on."""
    target = context.work / f"debian-{architecture.name}"
    target.mkdir()
    words = ["mmdebstrap", "--quiet", "--variant=extract", "--format=null", f"--architectures={architecture.name}"]
    hook = f"copy-out /var/cache/apt/archives '{target}'"
    words += [f"--include={','.join(LICENCES)}", f"--extract-hook={hook}", SUITE, "/dev/null", *context.mirrors]
    subprocess.run(words, check=True)
    return sorted(target.glob("archives/*.deb"))


def read(file: Path) -> Package:
    """Unpack a package beside its file."""
    form = "\n".join(f"${{{field}}}" for field in FIELDS)
    words = ["dpkg-deb", "--show", f"--showformat={form}", str(file)]
    shown = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    name, version, architecture, source, source_version, built_using = shown.split("\n")
    files = file.parent.parent / name
    unpack(file, files)
    # as in "glibc (= 2.36-9), ncurses (= 6.4-4)"
    pairs = [one.replace("(= ", "").rstrip(")").split() for one in built_using.split(", ") if one]
    used = tuple((one, its_version) for one, its_version in pairs)
    return Package(name, version, architecture, source, source_version, used, sha256(file), files)


def fetch(context: Context, architecture: Architecture) -> dict[str, Package]:
    """Return the packages by name."""
    files = download(context, architecture)
    found = {file.name.partition("_")[0]: file for file in files}
    if missing := LICENCES.keys() - found.keys():
        raise BuildError(f"mmdebstrap brought no {', '.join(sorted(missing))}")
    return {name: read(found[name]) for name in LICENCES}
