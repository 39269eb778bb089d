"""The digest from which the reference derives the names of a container's things; it knows no interface."""

from __future__ import annotations

try:
    from _sha512 import sha512
except ImportError:
    try:
        from _sha2 import sha512  # from Python 3.12
    except ImportError:
        from hashlib import sha512


def container_digest(network: str, container_id: str) -> str:
    """128 hexadecimal digits, of which a name takes as many of the first as it has room for."""
    return str(sha512(f"{network}{container_id}".encode()).hexdigest())
