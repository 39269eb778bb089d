"""Read and set the sysctls of the thread's network namespace."""

from __future__ import annotations

import errno
import posix

from shared.cni.errors import InternalError

ROOT = "/proc/sys/net/"
ABSENT = (errno.ENOENT, errno.ENOTDIR)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
PRESENT = "ipv4/ip_forward"  # exists on every supported kernel
FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}


def read(path: str) -> str | None:
    """Return the value of /proc/sys/net/`path`, None if the kernel has no such sysctl.

    Raises InternalError if the sysctl cannot be read, or something hides all of them.
    """
    try:
        descriptor = posix.open(ROOT + path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            return posix.read(descriptor, 4096).decode(errors="surrogateescape").strip()
        finally:
            posix.close(descriptor)
    except OSError as error:
        if error.errno not in ABSENT:
            raise InternalError(f"cannot read the sysctl net/{path}", str(error.strerror)) from None
    require_visible()
    return None


def require_visible() -> None:
    """Raise InternalError if the host's sysctls are hidden: a missing file then proves nothing about the kernel."""
    if not posix.access(ROOT + PRESENT, posix.F_OK):
        raise InternalError(
            f"sysctls cannot be found: there is no {ROOT}{PRESENT}",
            "/proc is not mounted, or a mount hides /proc/sys: findmnt -R /proc shows it, umount removes it",
        )


def write(path: str, value: str) -> None:
    """Set a sysctl. Do nothing if the kernel lacks it (IPv6 disabled, an older kernel).

    Raises InternalError if it has another value and cannot be set, or sysctls are hidden.
    """
    error = _write(path, value)
    if error is None:
        return
    current = read(path)  # a read-only /proc/sys may hold the value already
    if current in (value, None):
        return
    reason = str(error.strerror)
    if error.errno in FORBIDDEN:
        reason += f": {_remedy(path, value)}, or make /proc/sys writable for the plugin (mount -o remount,rw /proc/sys)"
    raise InternalError(f"cannot set the sysctl net/{path}: it is {current}, and must be {value}", reason)


def ensure(path: str, value: str) -> None:
    """Set a sysctl if it has another value, such as the host's ip_forward. Raises as `write`."""
    if read(path) not in (value, None):
        write(path, value)


def require(path: str, value: str) -> None:
    """Set a sysctl if it has another value. Raises InternalError as `write`, and if the kernel lacks it."""
    if read(path) is None:
        raise InternalError(f"the sysctl net/{path} cannot be found, and must be {value}", "see findmnt -R /proc/sys")
    ensure(path, value)


def prefer(path: str, value: str) -> bool:
    """Set a sysctl. Return False if that fails: everything works without it, though not as well."""
    return _write(path, value) is None


def refuse_advertisements(link: str) -> None:
    """Make a link ignore router advertisements (CVE-2020-10749).

    Raises InternalError if the sysctl cannot be set and the link would accept them: IPv6 is enabled on the link, and it
    does not forward, or accept_ra is 2.
    """
    conf = f"ipv6/conf/{link}/"
    try:
        write(f"{conf}accept_ra", "0")
    except InternalError:
        forwards = read(f"{conf}forwarding") != "0" and read(f"{conf}accept_ra") == "1"
        if read(f"{conf}disable_ipv6") == "0" and not forwards:
            raise


def _write(path: str, value: str) -> OSError | None:
    """Write the value; return the error, if any."""
    try:
        descriptor = posix.open(ROOT + path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(descriptor, value.encode(errors="surrogateescape"))
        finally:
            posix.close(descriptor)
    except OSError as error:
        return error
    return None


def _remedy(path: str, value: str) -> str:
    """Return the administrator's next step to set the sysctl."""
    family, conf, rest = path.partition("/conf/")
    link, _, name = rest.rpartition("/")
    if not conf or link == "all":
        return f"run sysctl -w net/{path}={value} on the node"
    default = f"net/{family}/conf/default/{name}={value}"
    return f"set it in the network namespace of {link}, or have {default} there before {link} is created"
