"""Import the C half of the socket module; the Python half's enums and selectors take 8 ms."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as native
else:
    try:
        import _socket as native

        native.socket, native.AF_NETLINK, native.inet_pton, native.inet_ntop, native.timeout  # noqa: B018
    except (ImportError, AttributeError):
        import socket as native

__all__ = ["accept", "native"]


def accept(listener: native.socket) -> native.socket:
    """Return the next connection of a listening socket. Raise OSError."""
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    return native.socket(listener.family, listener.type, listener.proto, descriptor)
