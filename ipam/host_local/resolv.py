"""Read DNS settings from a resolv.conf file."""

from __future__ import annotations

import posix

from shared.cni.config import invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIZE_LIMIT = 1 << 20  # bytes


def read(path: str) -> dict[str, Any]:
    """Return the file's settings in the form of a result's `dns`. Raises InvalidConfig if it cannot be read."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        try:
            lines = posix.read(descriptor, SIZE_LIMIT).decode(errors="replace").splitlines()
        finally:
            posix.close(descriptor)
    except OSError as error:
        raise invalid("ipam.resolvConf", path, f"cannot be read: {error.strerror}") from None
    dns: dict[str, Any] = {}
    for line in lines:
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            dns.setdefault("nameservers", []).append(words[1])
        elif words[0] == "domain":
            dns["domain"] = words[1]
        elif words[0] in ("search", "options"):
            dns.setdefault(words[0], []).extend(words[1:])
    return dns
