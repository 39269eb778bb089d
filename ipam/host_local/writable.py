"""STATUS's question about the store: whether a lease could be written now."""

from __future__ import annotations

import posix

from ipam.host_local.files import S_IFMT

S_IFDIR = 0o040000


def problem(data_dir: str, network: str) -> str:
    """Return the reason why no lease could be written now (read-only, full, not a directory…), empty if it could."""
    path = f"{data_dir}/{network}"
    held = None
    while held is None:
        try:
            held = posix.lstat(path)
        except FileNotFoundError:
            path = path.rpartition("/")[0] or "/"
        except OSError as error:
            return f"{path}: {error.strerror}"
    if held.st_mode & S_IFMT != S_IFDIR and path == f"{data_dir}/{network}":
        return f"{path} is not a directory"
    if not posix.access(path, posix.W_OK):
        return f"{path} is not writable"
    free = posix.statvfs(path)
    if free.f_blocks and not free.f_bavail:
        return f"the file system of {path} is full"
    if free.f_files and not free.f_favail:
        return f"the file system of {path} has no inode left"
    return ""
