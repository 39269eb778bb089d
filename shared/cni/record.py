"""Small JSON files of state, one per attachment: written whole, and never through a symbolic link."""

from __future__ import annotations

import posix

from shared.cni.errors import IOFailure
from shared.cni.fastjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIZE_LIMIT = 1 << 20  # bytes
UNFINISHED = ".new"  # suffix of a file while it is written
TRIES = 8  # of a write; each GC that runs meanwhile may end one
S_IFMT, S_IFREG = 0o170000, 0o100000


def read(path: str) -> dict[str, Any]:
    """Return the file's object; empty if there is no file or it is unreadable as JSON. Raise IOFailure."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise IOFailure(f"cannot read {path}", str(error)) from None
    try:
        status = posix.fstat(descriptor)
        regular = status.st_mode & S_IFMT == S_IFREG
        found = loads(posix.read(descriptor, min(status.st_size, SIZE_LIMIT))) if regular else {}
    except ValueError:
        found = {}
    finally:
        posix.close(descriptor)
    return found if isinstance(found, dict) else {}


def write(path: str, content: dict[str, Any]) -> None:
    """Create or replace the file, and create its directory for root alone. Raise IOFailure."""
    try:
        make_directories(path.rpartition("/")[0])
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                return _write_whole(path, dumps(content).encode())
            except FileNotFoundError:  # GC removed the unfinished file
                if not tries_left:
                    raise
    except OSError as error:
        raise IOFailure(f"cannot write {path}", str(error)) from None


def _write_whole(path: str, data: bytes) -> None:
    unfinished = f"{path}{UNFINISHED}"
    _unlink_if_there(unfinished)
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
    descriptor = posix.open(unfinished, flags, 0o600)
    try:
        while data:
            data = data[posix.write(descriptor, data) :]
        posix.rename(unfinished, path)
    except OSError:
        _unlink_if_there(unfinished)
        raise
    finally:
        posix.close(descriptor)


def mark(path: str) -> None:
    """Create an empty file, and its directory for root alone. Raise IOFailure."""
    try:
        make_directories(path.rpartition("/")[0])
        posix.close(posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC, 0o600))
    except OSError as error:
        raise IOFailure(f"cannot write {path}", str(error)) from None


def remove(path: str) -> None:
    """Remove the file if it exists. Raise IOFailure."""
    try:
        for one in (path, f"{path}{UNFINISHED}"):
            _unlink_if_there(one)
    except OSError as error:
        raise IOFailure(f"cannot remove {path}", str(error)) from None


def listed(directory: str) -> list[tuple[str, dict[str, Any]]]:
    """Return path and object of each file in a directory; none if it does not exist. Raise IOFailure."""
    paths = [f"{directory}/{name}" for name in names(directory)]
    return [(path, read(path)) for path in paths]


def remove_unfinished(directory: str) -> None:
    """Remove the files that killed calls did not write to their end. Raise IOFailure.

    Only for GC: nothing else removes them if no DEL comes. A call that writes such a file now writes it again.
    """
    try:
        for name in entries(directory):
            if name.endswith(f".json{UNFINISHED}"):
                _unlink_if_there(f"{directory}/{name}")
    except OSError as error:
        raise IOFailure(f"cannot remove unfinished files in {directory}", str(error)) from None


def names(directory: str) -> list[str]:
    """Return the sorted names of the files in a directory; none if it does not exist. Raise IOFailure."""
    try:
        return sorted(name for name in entries(directory) if name.endswith(".json"))
    except OSError as error:
        raise IOFailure(f"cannot read {directory}", str(error)) from None


def entries(directory: str) -> list[str]:
    """Return the names of all files in a directory, none if it does not exist. Raise OSError."""
    try:
        # use a descriptor: Python repeats open if a signal interrupts it, but not opendir
        descriptor = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        return posix.listdir(descriptor)
    finally:
        posix.close(descriptor)


def make_directories(path: str) -> None:
    """Create a directory for root alone, and its parents for all to read. Raise OSError."""
    place = 0
    while place >= 0:
        place = path.find("/", place + 1)
        try:
            posix.mkdir(path if place < 0 else path[:place], 0o700 if place < 0 else 0o755)
        except FileExistsError:
            continue


def _unlink_if_there(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return
    except OSError:
        # a read-only file system refuses to unlink even a file that does not exist
        if is_there(path):
            raise


def is_there(path: str) -> bool:
    """Return True if there is a file, or if that cannot be known."""
    try:
        posix.lstat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
