"""Tar archives that depend on nothing but the files' content, names and execute bits."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from typing import BinaryIO


def add(archive: tarfile.TarFile, path: Path, name: str, epoch: int) -> None:
    """Add a file, a symbolic link or a directory without its entries, as root's and of that time in seconds."""
    entry = tarfile.TarInfo(name)
    entry.mtime, entry.uname, entry.gname = epoch, "root", "root"
    if path.is_symlink():
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        archive.addfile(entry)
    elif path.is_dir():
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)
    else:
        status = path.stat()
        entry.mode, entry.size = 0o755 if status.st_mode & 0o100 else 0o644, status.st_size
        with path.open("rb") as file:
            archive.addfile(entry, file)


def add_tree(archive: tarfile.TarFile, tree: Path, name: str, epoch: int) -> None:
    """Add a directory under this name, with all below it in the order of the names."""
    add(archive, tree, name, epoch)
    for path in sorted(tree.rglob("*")):
        add(archive, path, f"{name}/{path.relative_to(tree)}", epoch)


def write_tar(tree: Path, name: str, file: BinaryIO, epoch: int) -> None:
    """Write a tar with this tree at the top."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        add_tree(archive, tree, name, epoch)


def write_tar_gz(tree: Path, name: str, target: Path, epoch: int) -> None:
    """Write a tar with this tree at the top, compressed without a name or a time."""
    with target.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, compresslevel=9, mtime=0) as file:
        write_tar(tree, name, file, epoch)  # type: ignore[arg-type] # it has all that tarfile calls
