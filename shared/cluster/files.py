"""Files that must survive a crash of the machine: written whole by temporary file, fsync and rename."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from shared.cni.errors import IOFailure

UNFINISHED = ".new"  # suffix of a file while it is written
LIMIT_BYTES = 1 << 26  # of a file that is read: 10,000 routes have 1.5 MB
FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
OTHERS_WRITE = 0o022


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Create or replace a file. Its directory must exist. Raise IOFailure.

    After a crash of the machine, the file has the old content or the new one, and after this function the new one.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, mode)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise IOFailure(f"cannot write {path}", str(error.strerror)) from None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_own(path: Path) -> str | None:
    """Return the content of a file of this process's user, None if it does not exist. Bytes that are no text become �.

    Raise IOFailure if it cannot be read, or if another user owns it or can write to it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IOFailure(f"cannot read {path}", str(error.strerror)) from None
    with open(descriptor, "rb") as file:
        _require_own(path, os.fstat(descriptor))
        return file.read(LIMIT_BYTES).decode(errors="replace")


def make_own_directory(path: Path) -> None:
    """Create a directory for this process's user alone. Raise IOFailure if it is there and another user can write."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        _require_own(path, path.lstat(), stat.S_IFDIR)
    except OSError as error:
        raise IOFailure(f"cannot create {path}", str(error.strerror)) from None


def _require_own(path: Path, held: os.stat_result, kind: int = stat.S_IFREG) -> None:
    if stat.S_IFMT(held.st_mode) != kind:
        raise IOFailure(f"{path} is not a {'directory' if kind == stat.S_IFDIR else 'regular file'}: remove it")
    if held.st_uid != os.geteuid() or held.st_mode & OTHERS_WRITE:
        raise IOFailure(
            f"{path} has owner {held.st_uid} and mode {held.st_mode & 0o7777:04o}, but must belong to the agent's user"
            f" ({os.geteuid()}) and be writable for nobody else: run chown, and chmod go-w"
        )
