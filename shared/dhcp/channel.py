"""Ask the dhcp daemon, over its Unix socket.

A request and its answer are one line of JSON each. A request may carry the descriptor of the pod's network namespace:
the daemon may live in another mount namespace, where the path leads nowhere. The connection's end during a request
tells the daemon that nobody waits for the answer.
"""

from __future__ import annotations

import errno
import sys

from shared import signals
from shared.cni import errors
from shared.cni.errors import CniError, InternalError
from shared.cni.fastjson import dumps, loads
from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET_PATH = "/run/cni/dhcp.sock"
PATH_BYTES = 107  # sun_path in linux/un.h, less the closing NUL
ANSWER_BYTES = 1 << 20
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0  # for requests that the daemon answers at once
ACQUIRE_SECONDS = 50.0  # below the 55 seconds that a plugin of this suite gives an executed IPAM plugin
REFUSALS = {"InvalidConfig", "InvalidNetns", "UnknownContainer", "UnsupportedField", "TryAgainLater", "InternalError"}


class NoDaemon(InternalError):
    """No daemon answers at the socket."""


def ask(path: str, request: dict[str, Any], *, descriptor: int = -1, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
    """Return the daemon's answer. Raise NoDaemon, or the error that the daemon answers."""
    connection = _connect(path)
    passed = descriptor.to_bytes(4, sys.byteorder, signed=True)  # an int of C
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)] if descriptor >= 0 else []
    data = b""
    try:
        with signals.interruptible(seconds):
            sent = connection.sendmsg([line := dumps(request).encode() + b"\n"], rights)
            if sent < len(line):  # even nothing cannot be sent to a daemon that has answered and closed
                connection.sendall(line[sent:])
            while not data.endswith(b"\n") and len(data) < ANSWER_BYTES:
                part = connection.recv(65536)
                if not part:
                    break
                data += part
    except signals.DeadlineExpired:
        raise NoDaemon(f"the dhcp daemon at {path} did not answer within {seconds:.0f} seconds", REMEDY) from None
    except OSError as error:
        raise NoDaemon(f"the dhcp daemon at {path} broke the connection", str(error)) from None
    finally:
        connection.close()
    return _read(path, data)


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with signals.interruptible(CONNECT_SECONDS):
            connection.connect(path)
    except signals.DeadlineExpired:
        connection.close()
        raise NoDaemon(f"the dhcp daemon at {path} accepts no connection", REMEDY) from None
    except (OSError, ValueError) as error:
        connection.close()
        number = getattr(error, "errno", None)
        seen = {errno.ENOENT: "the socket does not exist", errno.ECONNREFUSED: "nobody listens there"}
        raise NoDaemon(f"the dhcp daemon does not run at {path}: {seen.get(number or 0, str(error))}", REMEDY) from None
    return connection


REMEDY = "start it with `dhcp daemon`, or set ipam.daemonSocketPath to its socket"


def _read(path: str, data: bytes) -> dict[str, Any]:
    """Return the answer's result. Raise the error that it describes."""
    try:
        answer = loads(data)
        failure = answer.get("error")
        result = answer.get("result", {})
    except (ValueError, AttributeError):
        seen = data[:80].decode(errors="replace").strip() or "nothing"
        raise NoDaemon(
            f"the program at {path} is not the dhcp daemon of this suite: it answered {seen!r}", REMEDY
        ) from None
    if failure:
        kind = failure.get("kind")
        known: type[CniError] = getattr(errors, kind) if kind in REFUSALS else InternalError
        raise known(str(failure.get("msg")), str(failure.get("details") or ""))
    return dict(result)
