"""Answer on the control socket: any message from root gets the agent's state as one JSON document."""

from __future__ import annotations

import posix
from time import monotonic

from shared.agent.callers import CREDENTIALS_BYTES
from shared.agent.protocol import CONTROL_BYTES
from shared.sockets import accept
from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT_SECONDS = 1.0  # a client that sends nothing for so long is dropped
MOST_CLIENTS = 16  # at once; a further one replaces the oldest


class Control:
    """The listening socket and its clients. No client can make the server wait."""

    def __init__(self, listener: socket.socket, document: Callable[[], bytes]) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.document = document
        self.clients: dict[int, tuple[socket.socket, float]] = {}  # by descriptor, the oldest first

    def descriptors(self) -> list[int]:
        """Return the descriptors to wait for."""
        return [self.listener.fileno(), *self.clients]

    def handle(self, descriptor: int) -> None:
        """Handle a descriptor that can be read."""
        if descriptor == self.listener.fileno():
            self._accept()
        elif descriptor in self.clients:
            self._answer(self.clients[descriptor][0])
            self._drop(descriptor)

    def deadline(self) -> float | None:
        """Return the moment at which the oldest client is to be dropped; None without clients."""
        return next((deadline for _, deadline in self.clients.values()), None)

    def drop_late(self) -> None:
        """Drop the clients that sent nothing in time."""
        now = monotonic()
        for descriptor in [one for one, (_, deadline) in self.clients.items() if deadline <= now]:
            self._drop(descriptor)

    def _accept(self) -> None:
        try:
            client = accept(self.listener)
        except OSError:  # EAGAIN: it has left; EMFILE: the next look finds it again
            return
        client.setblocking(False)
        _, user, _ = memoryview(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS_BYTES)).cast("i")
        if user != posix.geteuid():
            client.close()
            return
        if len(self.clients) >= MOST_CLIENTS:
            self._drop(next(iter(self.clients)))
        self.clients[client.fileno()] = client, monotonic() + CLIENT_SECONDS

    def _answer(self, client: socket.socket) -> None:
        try:
            if client.recv(CONTROL_BYTES):
                client.send(self.document())
        except OSError:  # it has left, or does not read
            return

    def _drop(self, descriptor: int) -> None:
        self.clients.pop(descriptor)[0].close()
