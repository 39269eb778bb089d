"""Digests, which give names to links, chains and files: the same on every host and with every Python."""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:
    try:
        from hashlib import blake2b
    except ImportError:
        blake2b = None  # type: ignore[assignment,misc]

DIGEST_BYTES = 24


def digest(data: bytes) -> str:
    """Return the data's BLAKE2b digest as 48 hexadecimal digits."""
    try:
        return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()
    except (TypeError, ValueError):  # in a FIPS build, BLAKE2b is missing, forbidden, or of OpenSSL and takes no size
        from shared.cni import blake2

        return blake2.hexdigest(data, DIGEST_BYTES)


def has_fast_digests() -> bool:
    """Return True if this Python has BLAKE2 with sizes. Without it, `digest` takes fifty times as long."""
    try:
        blake2b(b"", digest_size=DIGEST_BYTES)
    except (TypeError, ValueError):
        return False
    return True
