"""Detect dead attachments, using a mark that ADD stored.

A mark identifies the network namespace of the pod: `<device>:<inode>[:<time>] <path>`. An attachment is dead only if
the path leads to no namespace or to another one, and its host link no longer exists. If either is uncertain, it counts
as alive.

The kernel gives the inode number of a deleted namespace to the next one. The time distinguishes the two: it is the time
of modification in nanoseconds, which stays the same while the namespace is mounted at the path. A mark of a symbolic
link, as in /proc/PID/ns, has no time: nothing is mounted there, and the kernel creates the inode anew for each access.
"""

from __future__ import annotations

import posix

from shared.sockets import native as socket

S_IFMT, S_IFLNK = 0o170000, 0o120000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.owner import Owner


def mark(path: str) -> str:
    """Return the mark of the namespace at `path`; empty if the path does not exist."""
    identity = _identity(path)
    return f"{identity} {path}" if identity else ""


def is_dead(owner: Owner, marked: str, *, patient: bool = False) -> bool:
    """Return True if the attachment with this mark has lost its namespace and its host link.

    An empty mark, as stored by releases before 0.2.0, proves nothing: return False. The kernel deletes the link some
    time after the namespace. If `patient`, wait a moment for the deletion of the link.
    """
    return is_gone(owner.host_link, marked, patient=patient)


def is_gone(host_link: str, marked: str, *, patient: bool = False) -> bool:
    """Return True if the attachment with this host link and mark is dead, as `is_dead` does."""
    return is_lost(marked) and (not is_link(host_link) or _goes(host_link, patient=patient))


def is_lost(marked: str) -> bool:
    """Return True if the path of the mark leads to no namespace or to another one."""
    identity, _, path = marked.partition(" ")
    return bool(path) and _identity(path) not in (identity, None)


def _identity(path: str) -> str | None:
    """Return `<device>:<inode>[:<time>]`, empty if the path does not exist, None if that is uncertain."""
    try:
        found = posix.lstat(path)
        if found.st_mode & S_IFMT == S_IFLNK:
            found = posix.stat(path)
            return f"{found.st_dev}:{found.st_ino}"
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError):
        return None
    return f"{found.st_dev}:{found.st_ino}:{found.st_mtime_ns}"


def is_link(name: str) -> bool:
    """Return True if the host has a link of this name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _goes(name: str, *, patient: bool) -> bool:
    """Return True if the link is about to be deleted. If `patient`, wait a moment for its deletion."""
    from shared.net import wait
    from shared.net.netlink import Netlink

    host = Netlink()
    return wait.gone(host, name) if patient else wait.is_gone(host, name)
