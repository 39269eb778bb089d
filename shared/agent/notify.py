"""Tell systemd of the agent's state: one datagram, as sd_notify(3) sends it."""

from __future__ import annotations

import posix

from shared.sockets import native as socket


def send(*lines: str) -> None:
    """Send the lines to the service manager. Do nothing without one."""
    address = posix.environ.get(b"NOTIFY_SOCKET", b"")
    if not address.startswith((b"/", b"@")):
        return
    if address.startswith(b"@"):
        address = b"\0" + address[1:]
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sender.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, address)
    except OSError:  # nobody listens there
        pass
    finally:
        sender.close()
