"""Derive names as the reference plugins do: from the network and the container id, without the interface."""

from __future__ import annotations

try:
    from _sha512 import sha512
except ImportError:
    try:
        from _sha2 import sha512  # from Python 3.12
    except ImportError:
        from hashlib import sha512


from shared.cni.digests import digest

LONGEST_NAME = 100  # characters of a network or container id, so that a comment with both has at most 255 bytes
COMMENT_BYTES = 255  # XT_MAX_COMMENT_LEN in linux/netfilter/xt_comment.h, less the closing NUL


def container_digest(network: str, container_id: str) -> str:
    """Return 128 hexadecimal digits. A name takes as many of the first digits as it has space for."""
    return str(sha512(f"{network}{container_id}".encode()).hexdigest())


def shortened(name: str) -> str:
    """Return a name for a comment. Replace the end of a long name by a digest."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 17]}-{digest(name.encode())[:16]}"
