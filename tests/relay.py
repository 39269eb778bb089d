"""A TCP relay in front of a server, which loses connections and answers on demand; and servers that misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

PIECE_BYTES = 1 << 16


class Listener:
    """A server on a free port of 127.0.0.1 that serves each connection in a thread of its own."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(60)
        self._socket.close()

    @property
    def is_busy(self) -> bool:
        return bool(self._open)

    def cut(self) -> None:
        """End all connections."""
        for one in tuple(self._open):
            _end(one)

    def serve(self, connection: socket.socket) -> None:
        """Serve a connection; its end closes it."""
        raise NotImplementedError

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        with connection, contextlib.suppress(OSError):
            self.serve(connection)
        self._open.discard(connection)


class Relay(Listener):
    """Passes bytes to and from a port. `is_deaf` ends new connections, `is_lossy` ends one instead of an answer."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.is_deaf = self.is_lossy = False
        self.seen = bytearray()  # of all requests
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        if self.is_deaf:
            return
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            self._open.add(server)
            answers = threading.Thread(target=self._answer, args=(server, connection), daemon=True)
            answers.start()
            with contextlib.suppress(OSError):
                while data := connection.recv(PIECE_BYTES):
                    self.seen += data
                    self.pass_on(data, server)
            _end(server)
            answers.join()
            self._open.discard(server)

    def pass_on(self, data: bytes, server: socket.socket) -> None:
        """Send a piece of a request to the server. An OSError ends the connection."""
        server.sendall(data)

    def _answer(self, server: socket.socket, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := server.recv(PIECE_BYTES)) and not self.is_lossy:
                connection.sendall(data)
        _end(connection)


class Hostile(Listener):
    """Answers each request with the pieces that a function makes of it, and keeps the connection open after the last."""

    def __init__(self, make: Callable[[bytes], Iterable[bytes]]) -> None:
        self.make = make
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        while request := connection.recv(PIECE_BYTES):
            for piece in self.make(request):
                connection.sendall(piece)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
