"""The files of the tools' libraries, which install.sh --offline reads. shared/cli/tools.txt has the hash of each."""

from __future__ import annotations

import email.parser
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from artifacts.checksums import sha256, write_checksums
from artifacts.context import BuildError, Context

LICENCE_FILE = re.compile(r"(licen[cs]es?|copying|authors|notice)\b[^/]*$", re.IGNORECASE)


def collect(context: Context) -> Path:
    """Download the files and return their directory.

    A library without a wheel stays a source archive: install.sh unpacks it. To read its metadata, pip takes setuptools
    from this environment.
    """
    target = context.work / "wheels"
    words = "download --quiet --no-deps --no-build-isolation --require-hashes --no-cache-dir"
    pins = context.source() / "shared/cli/tools.txt"
    subprocess.run([sys.executable, "-I", "-m", "pip", *words.split(), "-r", pins, "-d", target], check=True)
    files = sorted(target.iterdir())
    write_checksums(files, target / "SHA256SUMS")
    return target


@dataclass(frozen=True)
class Library:
    """One of the files, and the facts that it has about itself."""

    file: Path
    name: str
    version: str
    licence: str  # an SPDX expression, or the words that its author has for it
    sha256: str
    texts: dict[str, bytes]  # the files of its licence


def members(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of metadata and licences in a wheel or a source archive."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            for name in wheel.namelist():
                if ".dist-info/" in name:
                    yield name.partition("/")[2], wheel.read(name)
    else:
        with tarfile.open(file) as archive:
            for entry in archive:
                if entry.isfile() and entry.name.count("/") == 1 and (content := archive.extractfile(entry)):
                    yield entry.name.partition("/")[2], content.read()


def licence_of(metadata: Message) -> str:
    """Return the licence. The first of these fields is the newest."""
    classifiers = [one for one in metadata.get_all("Classifier", []) if one.startswith("License :: OSI Approved ::")]
    words = [metadata["License-Expression"], metadata["License"], *(one.split(" :: ")[-1] for one in classifiers)]
    found = next((str(one) for one in words if one and "\n" not in one), None)
    if found is None:
        raise BuildError(f"{metadata['Name']} {metadata['Version']} does not name its licence")
    return found


def read(file: Path) -> Library:
    """Return the facts of one of the files."""
    found = dict(members(file))
    metadata = email.parser.BytesParser().parsebytes(found.get("METADATA") or found["PKG-INFO"], headersonly=True)
    texts = {name.rpartition("/")[2]: content for name, content in found.items() if LICENCE_FILE.search(name)}
    if not texts:
        raise BuildError(f"{file.name} has no file of its licence")
    return Library(file, metadata["Name"], metadata["Version"], licence_of(metadata), sha256(file), texts)


def libraries(context: Context) -> list[Library]:
    """Return all of them."""
    return [read(file) for file in sorted(context.wheels().iterdir()) if file.name != "SHA256SUMS"]
