"""Answer Prometheus on a Unix socket or a local port, each scraper in a thread of its own with a time limit."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import BaseServer, TCPServer, ThreadingMixIn, UnixStreamServer
from threading import BoundedSemaphore, Thread
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SCRAPER_SECONDS = 10.0  # for its request, and for each part of the answer
SCRAPERS = 8  # at once; more are refused


class Refused(Exception):
    """The place cannot be used; the message says why."""


class _Handler(BaseHTTPRequestHandler):
    timeout = SCRAPER_SECONDS
    server: _Bounded

    def do_GET(self) -> None:
        """Answer with the metrics."""
        if self.path.partition("?")[0] not in ("/", "/metrics"):
            self.send_error(404)
            return
        body = self.server.text()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (http.server's name)
        """Write no log of scrapes."""


class _Bounded(ThreadingMixIn, BaseServer):
    """A server with a limited number of threads."""

    daemon_threads = True
    request_queue_size = 64
    text: Callable[[], bytes]

    def __init__(self, place: Any, text: Callable[[], bytes]) -> None:
        self.text = text
        self._places = BoundedSemaphore(SCRAPERS)
        super().__init__(place, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a scraper in a thread, or close its connection if there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a scraper, then free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a scraper that is gone."""


class _Unix(_Bounded, UnixStreamServer):
    pass


class _Port(_Bounded, TCPServer):
    allow_reuse_address = True


class _Port6(_Port):
    address_family = socket.AF_INET6


def serve(place: str, text: Callable[[], bytes]) -> None:
    """Serve `text()` at a path or at ADDRESS:PORT, in a thread. Raise Refused."""
    try:
        server = _at_path(Path(place), text) if place.startswith("/") else _at_port(place, text)
    except (OSError, ValueError) as error:
        raise Refused(f"metrics cannot be served at {place}: {error}") from error
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()


def _at_path(path: Path, text: Callable[[], bytes]) -> _Bounded:
    """Return a server on a Unix socket that only root can open. Replace the socket of an earlier agent.

    Raise OSError; raise ValueError if other users can write to the directory, or another file is in the place.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _require_private(path.parent)
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ValueError("another file has this name: remove it")
        path.unlink()
    before = os.umask(0o177)
    try:
        return _Unix(str(path), text)
    finally:
        os.umask(before)


def _require_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ValueError(f"{directory} must be a directory that only root can write to")


def _at_port(place: str, text: Callable[[], bytes]) -> _Bounded:
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    return (_Port6 if ":" in host else _Port)((host, int(port)), text)
