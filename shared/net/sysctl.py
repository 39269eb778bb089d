"""sysctls of the network namespace that the thread is in."""

from __future__ import annotations

import errno
import posix

from shared.cni.errors import InternalError

ROOT = "/proc/sys/net/"
ABSENT = (errno.ENOENT, errno.ENOTDIR)


def read(path: str) -> str | None:
    """The value of /proc/sys/net/`path`, or None where the kernel has no such sysctl."""
    try:
        descriptor = posix.open(ROOT + path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    try:
        return posix.read(descriptor, 4096).decode().strip()
    finally:
        posix.close(descriptor)


def write(path: str, value: str) -> None:
    """Sets a sysctl; one that the kernel does not have (IPv6 disabled, or an older kernel) is passed over.

    Raises InternalError where it cannot be set and has another value.
    """
    try:
        descriptor = posix.open(ROOT + path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(descriptor, value.encode())
        finally:
            posix.close(descriptor)
    except OSError as error:
        if error.errno not in ABSENT and read(path) != value:  # a read-only /proc/sys may hold the value already
            raise InternalError(f"cannot set the sysctl net/{path} to {value}", str(error)) from None


def ensure(path: str, value: str) -> None:
    """Sets a sysctl that is mostly set already, such as the host's ip_forward."""
    if read(path) not in (value, None):
        write(path, value)
