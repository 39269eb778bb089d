"""The names of a container's things as the reference makes them; it knows no interface."""

from __future__ import annotations

try:
    from _sha512 import sha512
except ImportError:
    try:
        from _sha2 import sha512  # from Python 3.12
    except ImportError:
        from hashlib import sha512


from shared.net.owner import digest

LONGEST_NAME = 100  # characters of a network or container id in a comment, so that it has at most 255 bytes
COMMENT_BYTES = 255  # XT_MAX_COMMENT_LEN in linux/netfilter/xt_comment.h, less the closing NUL


def container_digest(network: str, container_id: str) -> str:
    """128 hexadecimal digits, of which a name takes as many of the first as it has room for."""
    return str(sha512(f"{network}{container_id}".encode()).hexdigest())


def shortened(name: str) -> str:
    """Return a name as comments have it, with a digest for the rest of a longer one."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 17]}-{digest(name.encode())[:16]}"
