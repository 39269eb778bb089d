"""Unpack the operator tools' libraries from files, without pip: `install.sh --offline`.

All of them are pure Python: a wheel is a zip file of the packages, and a source distribution has them in a directory.
"""

from __future__ import annotations

import compileall
import hashlib
import io
import re
import sys
import tarfile
import zipfile
from pathlib import Path

PINS = "shared/cli/tools.txt"
STAMP = "unpacked"  # a file of the environment: a digest of the pins and the Python


def unpack(source: str, directory: str, target: str, final: str, *, keep: bool = False) -> None:
    """Unpack the libraries that `source` pins from their files in `directory` into the environment `target`.

    `final` is its later path; with `keep` nothing is done if the same libraries are there. Raise SystemExit with the
    name of a file that is missing or that no pinned hash fits; nothing is unpacked then.
    """
    text = Path(source, PINS).read_text(encoding="utf-8")
    stamp = hashlib.sha256(f"{sys.implementation.cache_tag}\0{text}".encode()).hexdigest()
    present = Path(final, STAMP)
    if keep and present.is_file() and present.read_text() == stamp:
        return
    pinned = pins(text)
    files = {name: _read(_find(Path(directory), name, version), hashes) for name, version, hashes in pinned}
    packages = Path(target, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    for name, content in files.items():
        if zipfile.is_zipfile(file := io.BytesIO(content)):
            zipfile.ZipFile(file).extractall(packages)  # noqa: S202  (the hash vouches for it)
        else:
            _unpack_package(name.replace("-", "_"), content, packages)
    compileall.compile_dir(target, quiet=2, stripdir=target, prependdir=final)
    Path(target, STAMP).write_text(stamp)


def pins(text: str) -> list[tuple[str, str, list[str]]]:
    """Return name, version and the files' SHA-256 digests of each library, from a file of requirements for pip."""
    requirements = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(.*)", text.replace("\\\n", " "), re.MULTILINE)
    return [(name, version, re.findall(r"--hash=sha256:([0-9a-f]{64})", rest)) for name, version, rest in requirements]


def _find(directory: Path, name: str, version: str) -> Path:
    """Return the file of a library, a wheel rather than a source distribution; raise SystemExit if there is none."""
    stem = f"{re.sub('[-_.]+', '_', name)}-{version}"
    for path in (*sorted(directory.glob(f"{stem}-*-none-any.whl")), directory / f"{stem}.tar.gz"):
        if path.is_file():
            return path
    raise SystemExit(f"there is no {stem}-py3-none-any.whl, nor {stem}.tar.gz")


def _read(path: Path, hashes: list[str]) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() not in hashes:
        raise SystemExit(f"{path.name} is not the file that {PINS} pins: its SHA-256 digest differs")
    return content


def _unpack_package(package: str, content: bytes, target: Path) -> None:
    """Unpack one package from a source distribution, a directory in the only one at its top."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            path = Path(*Path(member.name).parts[1:])
            if path.parts[:1] == (package,) and ".." not in path.parts and (file := archive.extractfile(member)):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(file.read())
