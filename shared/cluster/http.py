"""HTTP(S) requests and streams to one of several endpoints, by http.client and ssl.

No wait is without an end. A request has one deadline for all of its steps, and a stream has one for each line, so a
server that sends a byte now and then gains nothing. Other threads may call `close` at any time.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.cluster.connection import (
    PIECE_BYTES,
    Closed,
    Connection,
    Endpoint,
    HttpError,
    Silent,
    Tls,
    TooLong,
    Traffic,
    resolve,
)

if TYPE_CHECKING:
    from typing import Self

TIMEOUT_SECONDS = 5.0
LONGEST_REASON_CHARACTERS = 300
LONGEST_BODY_BYTES = 32 << 20
LONGEST_LINE_BYTES = 16 << 20


@dataclass(frozen=True)
class Answer:
    """An answer that was read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    endpoint: Endpoint | None = None


class Stream:
    """An answer without an end, on a connection of its own. `with` closes it."""

    def __init__(self, connection: Connection, response: http.client.HTTPResponse, forget: Callable[[], None]) -> None:
        self.status = response.status
        self.headers = response.headers
        self.endpoint = connection.endpoint
        self._connection = connection
        self._response = response
        self._forget = forget

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._forget()

    def send(self, data: bytes) -> None:
        """Send a piece of the request's body, if the stream was opened with `is_open_ended`."""
        with _named(self.endpoint):
            self._connection.send(_chunk(data))

    def read_body(self) -> bytes:
        """Return all of an answer that has an end, such as an error."""
        with _named(self.endpoint):
            return _read_body(self._response, LONGEST_BODY_BYTES)

    def batches(
        self,
        *,
        silence_seconds: float,
        tick: Callable[[], float] | None = None,
        longest_bytes: int = LONGEST_LINE_BYTES,
    ) -> Iterator[list[bytes]]:
        """Yield the lines as they come, without their ends, those that came together as one list.

        `tick` is called at once, and returns the seconds until it is to be called again. It may send. Raise Silent if
        no whole line came for `silence_seconds`, and HttpError if the stream ends within a line.
        """
        connection, kept = self._connection, bytearray()
        connection.tick = tick
        connection.deadline = time.monotonic() + silence_seconds
        with _named(self.endpoint):
            while piece := self._response.read1(PIECE_BYTES):
                kept += piece
                if b"\n" in piece:
                    *lines, rest = kept.split(b"\n")
                    kept = bytearray(rest)
                    yield [bytes(line) for line in lines]
                    connection.deadline = time.monotonic() + silence_seconds
                if len(kept) > longest_bytes:
                    raise TooLong(f"a line of more than {longest_bytes} bytes")
            if kept:
                raise HttpError(f"the stream ended within a line: {bytes(kept[:80])!r}")


class Client:
    """One connection for requests, one after another, and one for each stream.

    A request goes to the endpoint that answered last. An endpoint that cannot be connected to is passed over at once.
    After any other failure the next request goes to the next endpoint.
    """

    def __init__(
        self,
        urls: Sequence[str],
        tls: Tls | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        traffic: Traffic | None = None,
    ) -> None:
        self.traffic = traffic or Traffic()
        self._endpoints = [Endpoint.of(url) for url in urls]
        if not self._endpoints:
            raise ValueError("no endpoint is configured: one URL at least is needed")
        self._tls = tls or Tls()
        self._timeout_seconds = timeout_seconds
        self._turn = threading.Lock()  # for requests: one connection has one at a time
        self._kept: Connection | None = None
        self._live: set[Connection] = set()
        self._is_closed = False

    @property
    def endpoint(self) -> Endpoint:
        """Return the endpoint that the next request goes to."""
        return self._endpoints[0]

    def rotate(self, failed: Endpoint | None = None) -> None:
        """Use the next endpoint from now on, unless `failed` is another than the one in use."""
        if failed in (None, self._endpoints[0]):
            self._endpoints = [*self._endpoints[1:], self._endpoints[0]]

    def close(self) -> None:
        """End everything in progress in any thread with Closed, and refuse requests from now on."""
        self._is_closed = True
        for connection in tuple(self._live):
            connection.end()
        if self._turn.acquire(blocking=False):  # otherwise the thread that has the turn drops it
            self._release()

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = {},
        *,
        timeout_seconds: float | None = None,
        longest_bytes: int | None = None,
    ) -> Answer:
        """Send a request and return the answer, of whatever status. Raise HttpError without one.

        It is sent once. A GET is sent again if a connection that was kept turns out to be at its end.
        """
        deadline = time.monotonic() + (timeout_seconds or self._timeout_seconds)
        longest = LONGEST_BODY_BYTES if longest_bytes is None else longest_bytes
        if not self._turn.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise Silent(f"{self.endpoint}: other requests took all the time", was_sent=False)
        try:
            if self._kept and (not self._kept.is_idle() or self._kept.endpoint != self.endpoint):
                self._drop(self._kept)
            is_kept = self._kept is not None
            try:
                return self._exchange(deadline, longest, method, path, headers, body)
            except (Silent, TooLong, Closed):
                raise
            except HttpError:
                if method != "GET" or not is_kept:
                    raise
                # The server ended the kept connection while the request was on its way.
                return self._exchange(deadline, longest, method, path, headers, body)
        finally:
            self._release()

    def open(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = {},
        *,
        is_open_ended: bool = False,
        timeout_seconds: float | None = None,
    ) -> Stream:
        """Send a request on a new connection, and return the answer as a stream as soon as its head has come.

        With `is_open_ended`, `body` is the first piece of the request's body, and `Stream.send` sends more.
        "Connection: close" lets Go's servers answer before that body's end.
        """
        deadline = time.monotonic() + (timeout_seconds or self._timeout_seconds)
        connection = self._connect(deadline)
        try:
            if is_open_ended:
                open_ended = {**headers, "Transfer-Encoding": "chunked", "Connection": "close"}
                data = _head(connection, method, path, open_ended, None) + _chunk(body)
            else:
                data = _head(connection, method, path, headers, body)
            response = self._begin(connection, data)
        except BaseException:
            self._drop(connection)
            self.rotate(connection.endpoint)
            raise
        return Stream(connection, response, lambda: self._drop(connection))

    def _release(self) -> None:
        if self._is_closed and self._kept:
            self._drop(self._kept)
        self._turn.release()

    def _exchange(self, deadline: float, longest_bytes: int, *request: Any) -> Answer:
        connection = self._kept = self._kept or self._connect(deadline)
        connection.deadline = deadline
        try:
            response = self._begin(connection, _head(connection, *request))
            with _named(connection.endpoint):
                body = _read_body(response, longest_bytes)
        except BaseException:
            self._drop(connection)
            self.rotate(connection.endpoint)
            raise
        if response.will_close:
            self._drop(connection)
        return Answer(response.status, response.headers, body, connection.endpoint)

    def _begin(self, connection: Connection, data: bytes) -> http.client.HTTPResponse:
        """Send a request and read the answer's head."""
        self.traffic.add(requests=1)
        with _named(connection.endpoint):
            connection.send(data)
            response = http.client.HTTPResponse(connection, method=data[: data.index(b" ")].decode())  # type: ignore[arg-type]
            response.begin()
            return response

    def _connect(self, deadline: float) -> Connection:
        """Connect to the first endpoint that lets us. Raise HttpError with each one's reason if none does."""
        reasons = []
        for endpoint in tuple(self._endpoints):
            if self._is_closed:
                break
            try:
                connection = self._connect_to(endpoint, deadline)
            except (OSError, ValueError) as error:
                reasons.append(f"{endpoint}: {error}")
                self.rotate(endpoint)
                continue
            self.traffic.add(connections=1)
            if not self._is_closed:  # `close` ends the connections that it sees, and this one is new
                return connection
            self._drop(connection)
        if self._is_closed:
            raise Closed("the client was closed", was_sent=False)
        raise HttpError("; ".join(reasons), was_sent=False)

    def _connect_to(self, endpoint: Endpoint, deadline: float) -> Connection:
        failure = OSError("the name has no address")
        for family, address in resolve(endpoint, deadline):
            connection = Connection(endpoint, socket.socket(family, socket.SOCK_STREAM), self.traffic, deadline)
            self._live.add(connection)
            try:
                connection.connect(address, self._tls)
            except OSError as error:
                self._drop(connection)
                failure = error
            except BaseException:
                self._drop(connection)
                raise
            else:
                return connection
        raise failure

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._live.discard(connection)
        if self._kept is connection:
            self._kept = None


@contextlib.contextmanager
def _named(endpoint: Endpoint) -> Iterator[None]:
    """Turn each failure of an exchange into an HttpError that names the endpoint."""
    try:
        yield
    except HttpError as error:
        if str(error).startswith(f"{endpoint}: "):
            raise
        raise type(error)(f"{endpoint}: {error}", was_sent=error.was_sent) from None
    except TimeoutError as error:
        raise Silent(f"{endpoint}: {error}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        text = str(error) if str(error).isprintable() else ascii(str(error))
        raise HttpError(f"{endpoint}: {type(error).__name__}: {text[:LONGEST_REASON_CHARACTERS]}") from None


def _head(connection: Connection, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Return a request as it goes over the wire; without its body if that is None."""
    every = {"Host": str(connection.endpoint), **headers}
    if body is not None:
        every["Content-Length"] = str(len(body))
    lines = [
        f"{method} {connection.endpoint.base}{path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in every.items()),
    ]
    if any(not line.isascii() or not line.isprintable() for line in lines):
        raise HttpError(f"{method} {path!r}: a character that HTTP does not admit", was_sent=False)
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _read_body(response: http.client.HTTPResponse, longest_bytes: int) -> bytes:
    """Return the whole body. Raise TooLong for one of more bytes, and HttpError for one that is cut off."""
    if response.length is not None and response.length > longest_bytes:
        raise TooLong(f"an answer of {response.length} bytes, more than {longest_bytes}")
    body = response.read(longest_bytes + 1) if response.length != 0 else b""
    if len(body) > longest_bytes:
        raise TooLong(f"an answer of more than {longest_bytes} bytes")
    if response.length:
        raise HttpError(f"the answer was cut off after {len(body)} bytes")
    return body
