"""Decide whether a worker may serve the process that connected: a launcher in the worker's own place.

A worker does with its own rights all that the caller asks for. So the caller must be root with at least these rights,
and see the same network, files, users and processes. Any other caller executes its plugin itself.
"""

from __future__ import annotations

import posix

from shared.signals import native as signal
from shared.sockets import native as socket

PLACES = {
    "ns/net": "another network namespace",
    "ns/mnt": "another mount namespace",
    "ns/user": "another user namespace",
    "ns/pid": "another process namespace",
    "root": "another root directory",
}
GONE = "the caller has ended"
SO_PEERPIDFD = 77  # asm-generic/socket.h, from Linux 6.5; sparc and parisc, with other numbers, refuse this one
CREDENTIALS_BYTES = 12  # struct ucred in linux/socket.h: pid, uid and gid
STATUS_BYTES = 8192  # of /proc/PID/status
# Values of variables that name files of the caller itself.
CALLERS_OWN = (b"=/proc/self/", b"=/proc/thread-self/", b"=/dev/fd/")


class Refused(Exception):
    """The caller is not to be served; the text is the reason."""


class Rights:
    """A process's place and rights: namespaces, root directory, group, capabilities and umask."""

    def __init__(self, process: str) -> None:
        """Read them from /proc. Raise OSError if the process has ended, or may not be looked at."""
        self.places = {}
        for name in PLACES:
            found = posix.stat(f"/proc/{process}/{name}")
            self.places[name] = (found.st_dev, found.st_ino)
        status = _status(process)
        self.capabilities = int(_word(status, b"\nCapEff:"), 16)
        self.umask = int(_word(status, b"\nUmask:") or b"022", 8)  # from Linux 4.7


def _status(process: str) -> bytes:
    file = posix.open(f"/proc/{process}/status", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(file, STATUS_BYTES)
    finally:
        posix.close(file)


def _word(text: bytes, label: bytes) -> bytes:
    return text.partition(label)[2].partition(b"\n")[0].strip()


def examine(connection: socket.socket, own: Rights) -> Rights:
    """Return the rights of the process at the other end. Raise Refused if it may not be served."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS_BYTES)
    process, user, group = memoryview(credentials).cast("i")
    if user != 0:
        raise Refused("not root")
    if group != posix.getegid():
        raise Refused("another group")
    if process == 0:
        raise Refused(PLACES["ns/pid"])
    found = _look(process, connection)
    for name, place in own.places.items():
        if found.places[name] != place:
            raise Refused(PLACES[name])
    if own.capabilities & ~found.capabilities:
        raise Refused("fewer capabilities")
    return found


def _look(process: int, connection: socket.socket) -> Rights:
    """Return the rights of the caller, and not of another process to which its number has gone. Raise Refused."""
    handle = _handle(connection)
    try:
        found = Rights(str(process))
        if handle >= 0:
            signal.pidfd_send_signal(handle, 0)
    except (ProcessLookupError, FileNotFoundError):
        raise Refused(GONE) from None
    except OSError as error:
        raise Refused(f"/proc/PID of the caller: {error.strerror}") from None
    finally:
        if handle >= 0:
            posix.close(handle)
    return found


def _handle(connection: socket.socket) -> int:
    """Return a pidfd of the process that connected; -1 if the kernel has none to give."""
    try:
        return connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError:
        return -1
