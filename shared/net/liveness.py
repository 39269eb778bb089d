"""Whether an attachment is still alive, from a mark that its ADD left behind.

A mark names the network namespace of the pod: `<device>:<inode> <path>`. An attachment is dead only if its path leads
to no namespace or to another one, and its link on the host is gone as well. If that cannot be told, it counts as alive.
"""

from __future__ import annotations

import posix

from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.owner import Owner


def mark(path: str) -> str:
    """Return the mark of the namespace at `path`; empty if nothing is there."""
    identity = _identity(path)
    return f"{identity} {path}" if identity else ""


def is_dead(owner: Owner, marked: str) -> bool:
    """Return True if the attachment with this mark has lost its namespace and its host link.

    An empty mark, as releases before 0.2.0 leave it, proves nothing: False.
    """
    return is_gone(owner.host_link, marked)


def is_gone(host_link: str, marked: str) -> bool:
    """Return True for an attachment of this host link and mark under the same conditions."""
    identity, _, path = marked.partition(" ")
    return bool(path) and _identity(path) not in (identity, None) and not is_link(host_link)


def _identity(path: str) -> str | None:
    """Return `<device>:<inode>`, empty if nothing is there, None if that cannot be told."""
    try:
        found = posix.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError):
        return None
    return f"{found.st_dev}:{found.st_ino}"


def is_link(name: str) -> bool:
    """Return True if the host has a link of this name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True
