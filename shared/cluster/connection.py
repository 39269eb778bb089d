"""A socket to one endpoint: TLS, time limits, counted bytes, and an end that other threads may demand."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.cluster.engine import EngineError

if TYPE_CHECKING:
    from typing import Self

    from _typeshed import WriteableBuffer

CONNECT_SECONDS = 2.0  # for each address. A TLS handshake has all of the request's time: a busy server is slow at it
KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES = 15, 5, 3
UNACKNOWLEDGED_MS = 30_000
SHORTEST_TICK_SECONDS = 0.01
PIECE_BYTES = 1 << 16


class HttpError(EngineError):
    """The exchange failed. If `was_sent` is False, the server got nothing of the request."""

    def __init__(self, text: str, *, was_sent: bool = True) -> None:
        super().__init__(text)
        self.was_sent = was_sent


class Silent(HttpError):
    """The server did not answer in time."""


class TooLong(HttpError):
    """The answer is longer than the caller can use."""


class Closed(HttpError):
    """Another thread closed the client."""


@dataclass(frozen=True)
class Tls:
    """The files of a TLS client. They are read for each new connection, so renewed ones need no restart."""

    ca_file: str = ""  # empty, and no ca_text: the system's authorities
    ca_text: str = ""  # certificates in PEM
    certificate_file: str = ""  # of the client
    key_file: str = ""
    server_name: str = ""  # to find in the server's certificate, if it is not the endpoint's host

    def context(self) -> ssl.SSLContext:
        """Return a context that verifies the server. Raise OSError if a file cannot be used."""
        context = ssl.create_default_context(cafile=self.ca_file or None, cadata=self.ca_text or None)
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file or None)
        return context


@dataclass
class Traffic:
    """Connections, requests and bytes so far, without TLS's own. Clients may share one."""

    connections: int = 0
    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, connections: int = 0, requests: int = 0, sent_bytes: int = 0, received_bytes: int = 0) -> None:
        """Add to the counters."""
        with self._lock:
            self.connections += connections
            self.requests += requests
            self.sent_bytes += sent_bytes
            self.received_bytes += received_bytes


@dataclass(frozen=True)
class Endpoint:
    """A server's address from a URL."""

    host: str
    port: int
    is_tls: bool
    base: str  # the path before each request's path, without a slash at its end

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL of scheme http or https. Raise ValueError with the reason if it is none."""
        parts, shown = urlsplit(url), url.rpartition("@")[2]  # the rest may have a password
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{shown!r} is not a URL such as https://192.0.2.1:2379")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(f"the URL of {shown!r} has more than a scheme, a host, a port and a path")
        is_tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/"))

    @property
    def is_loopback(self) -> bool:
        """Return True if the host is this one, so that nobody else reads the traffic."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connection:
    """A connected socket, with a deadline, counters, and an end that other threads may demand."""

    def __init__(self, endpoint: Endpoint, plain: socket.socket, traffic: Traffic, deadline: float) -> None:
        self.endpoint = endpoint
        self.deadline = deadline
        self.tick: Callable[[], float] | None = None
        self._next_tick = 0.0
        self._socket = plain  # later TLS over it
        self._traffic = traffic
        self._is_ended = False

    def connect(self, address: tuple[str, int], tls: Tls) -> None:
        """Connect, and begin TLS if the endpoint demands it, before the deadline. Raise OSError otherwise."""
        for level, option, value in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS),
        ):
            self._socket.setsockopt(level, option, value)
        self._socket.settimeout(min(self._remaining(), CONNECT_SECONDS))
        self._socket.connect(address)
        if self.endpoint.is_tls:
            name, context = tls.server_name or self.endpoint.host, tls.context()
            self._socket = over = context.wrap_socket(self._socket, server_hostname=name, do_handshake_on_connect=False)
            over.settimeout(self._remaining())
            over.do_handshake()

    def is_idle(self) -> bool:
        """Return True if the server has neither ended the connection nor sent anything that nobody asked for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not self._is_ended and not poll.poll(0)

    def send(self, data: bytes) -> None:
        """Send all of it before the deadline."""
        self._socket.settimeout(self._remaining())
        self._socket.sendall(data)
        self._traffic.add(sent_bytes=len(data))

    def receive(self, buffer: WriteableBuffer) -> int:
        """Read some bytes before the deadline, and call `tick` when it is time; 0 at the end."""
        while True:
            if self._is_ended:
                raise Closed("the client was closed")
            seconds = self._remaining()
            if self.tick:
                if (now := time.monotonic()) >= self._next_tick:
                    self._next_tick = now + self.tick()
                seconds = min(seconds, max(self._next_tick - now, SHORTEST_TICK_SECONDS))
            self._socket.settimeout(seconds)
            try:
                count = self._socket.recv_into(buffer)
            except TimeoutError:
                continue
            if self._is_ended:
                raise Closed("the client was closed")
            self._traffic.add(received_bytes=count)
            return count

    def _remaining(self) -> float:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("no answer in time")
        return remaining

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the file that http.client reads from."""
        return io.BufferedReader(_Reader(self), PIECE_BYTES)

    def end(self) -> None:
        """Wake the thread that uses the connection; only that one closes it."""
        self._is_ended = True
        # SSLSocket.shutdown would turn the thread's next read into one of plain bytes.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket, by the thread that uses it."""
        self._is_ended = True
        self._socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._connection.receive(buffer)


def resolve(endpoint: Endpoint, deadline: float) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """Return the addresses of an endpoint. The resolver has no time-out, so a thread of its own waits for it."""
    found: list[tuple[socket.AddressFamily, tuple[str, int]]] = []
    failures: list[Exception] = []

    def look_up() -> None:
        try:
            for family, _, _, _, address in socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM):
                found.append((family, address))  # type: ignore[arg-type]
        except (OSError, ValueError) as error:
            failures.append(error)

    try:
        socket.inet_pton(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET, endpoint.host)
    except OSError:
        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(max(deadline - time.monotonic(), 0))
    else:
        look_up()
    if failures:
        raise failures[0]
    if not found:
        raise TimeoutError("the name was not resolved in time")
    return list(found)
