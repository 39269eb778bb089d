"""The HTTP client's connections: which are kept, which are made anew, and how each wait ends."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from shared.cluster.connection import Closed, Endpoint, HttpError, Silent, TooLong
from shared.cluster.http import Client, Stream
from tests.own_network import own_network
from tests.pretend import until
from tests.relay import Hostile

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        yield


@contextlib.contextmanager
def serving(*answers: bytes) -> Iterator[tuple[Hostile, list[bytes]]]:
    """Answer the first requests so, and all others with OK. Yield the server and its requests."""
    seen: list[bytes] = []

    def make(request: bytes) -> list[bytes]:
        seen.append(request)
        return [answers[len(seen) - 1] if len(seen) <= len(answers) else OK]

    with Hostile(make) as server:
        yield server, seen


def test_a_request() -> None:
    with serving() as (server, seen), contextlib.closing(Client([f"{server.url}/base/"])) as client:
        answer = client.request("PUT", "/x?y=z", b"body", {"Accept": "a/b"})
        assert (answer.status, answer.body) == (200, b"ok")
        assert seen == [
            b"PUT /base/x?y=z HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: a/b\r\nContent-Length: 4\r\n\r\nbody"
            % server.port
        ]
        traffic = client.traffic
        assert (traffic.connections, traffic.requests, traffic.sent_bytes) == (1, 1, len(seen[0]))
        assert traffic.received_bytes == len(OK)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_kept_connection_that_ends(method: str) -> None:
    """A GET is sent again on a new connection. Another request may have been executed, so it fails."""
    with Hostile(lambda _: [OK]) as server, contextlib.closing(Client([server.url])) as client:
        client.request("GET", "/")
        requests: list[bytes] = []

        def end_the_first(request: bytes) -> list[bytes]:
            requests.append(request)
            if len(requests) == 1:
                server.cut()
            return [OK]

        server.make = end_the_first
        if method == "GET":
            assert client.request(method, "/").status == 200
            assert client.traffic.connections == 2
        else:
            with pytest.raises(HttpError) as caught:
                client.request(method, "/")
            assert caught.value.was_sent and len(requests) == 1


def test_unasked_bytes() -> None:
    """Bytes that nobody asked for are not the next request's answer."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    with serving(OK + evil) as (server, _), contextlib.closing(Client([server.url])) as client:
        assert [client.request("GET", "/").body for _ in range(3)] == [b"ok"] * 3


def test_a_connection_that_the_server_closes_is_not_kept() -> None:
    last = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with serving(last) as (server, _), contextlib.closing(Client([server.url])) as client:
        assert client.request("POST", "/").body == client.request("POST", "/").body == b"ok"
        assert client.traffic.connections == 2


@pytest.mark.parametrize("text", ["x\r\nEvil: 1", "x\n", "\xe9", "\0"])
def test_header_injection(text: str) -> None:
    with serving() as (server, seen), contextlib.closing(Client([server.url])) as client:
        for path, headers in ((f"/{text}", {}), ("/", {"Authorization": text})):
            with pytest.raises(HttpError) as caught:
                client.request("GET", path, headers=headers)
            assert not caught.value.was_sent
        assert not seen


def test_an_answer_that_is_cut_off() -> None:
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"

    def make(_: bytes) -> Iterator[bytes]:
        yield short
        server.cut()

    with (
        Hostile(make) as server,
        contextlib.closing(Client([server.url])) as client,
        pytest.raises(HttpError, match=r"cut off after 2 bytes|reset"),
    ):
        client.request("POST", "/")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_each_line_renews_a_streams_time() -> None:
    heard, sent = threading.Event(), threading.Event()

    def make(_: bytes) -> Iterator[bytes]:
        yield CHUNKED + b"2\r\n1\n\r\n"
        heard.wait(60)
        yield b"2\r\n2\n\r\n"
        sent.set()

    with Hostile(make) as server, Client([server.url]).open("GET", "/") as stream:
        batches = stream.batches(silence_seconds=1)
        assert next(batches) == [b"1"]
        heard.set()
        assert sent.wait(60)
        time.sleep(1.1)  # longer than the silence that is allowed, while the second line is there
        assert next(batches) == [b"2"]


def test_lines_in_pieces() -> None:
    pieces = [CHUNKED, b"3\r\na\nb\r\n", b"1\r\nc\r\n", b"4\r\n\n\nde\r\n", b"1\r\n\n\r\n", b"0\r\n\r\n"]
    with Hostile(lambda _: pieces) as server, Client([server.url]).open("GET", "/") as stream:
        assert b"|".join(itertools.chain(*stream.batches(silence_seconds=60))) == b"a|bc||de"


def test_a_line_without_an_end() -> None:
    endless = itertools.chain([CHUNKED], itertools.repeat(b"10000\r\n" + b"x" * 65536 + b"\r\n"))
    with (
        Hostile(lambda _: endless) as server,
        Client([server.url]).open("GET", "/") as stream,
        pytest.raises(TooLong),
    ):
        next(stream.batches(silence_seconds=600, longest_bytes=1 << 20))


def test_a_stream_is_closed_by_another_thread() -> None:
    errors = []

    def read(stream: Stream) -> None:
        try:
            next(stream.batches(silence_seconds=600))
        except HttpError as error:
            errors.append(error)

    with Hostile(lambda _: [CHUNKED]) as server:
        client = Client([server.url])
        with client.open("GET", "/") as stream:
            thread = threading.Thread(target=read, args=(stream,), daemon=True)
            thread.start()
            client.close()
            thread.join(60)
            assert not thread.is_alive() and [type(error) for error in errors] == [Closed]


def test_a_name() -> None:
    with serving() as (server, _), contextlib.closing(Client([f"http://localhost:{server.port}"])) as client:
        assert client.request("GET", "/").status == 200


def test_addresses_that_swallow_packets() -> None:
    """A connection attempt ends by its own time-out, and by `close`."""
    for command in (
        "link add d0 type veth peer d1",
        "addr add 192.0.2.1/24 dev d0",
        "link set d0 up",
        "link set d1 up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    subprocess.run(["ip", "neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "d0"], check=True)
    with pytest.raises(HttpError, match="timed out") as caught:
        Client(["http://192.0.2.9:1"], timeout_seconds=0.2).request("POST", "/")
    assert not caught.value.was_sent
    client, errors = Client(["http://192.0.2.9:1"] * 100, timeout_seconds=600), []

    def request() -> None:
        try:
            client.request("POST", "/")
        except HttpError as error:
            errors.append(error)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    until(lambda: bool(subprocess.run(["ss", "-Htn", "state", "syn-sent"], capture_output=True, check=True).stdout))
    client.close()
    thread.join(60)
    assert not thread.is_alive() and [type(error) for error in errors] == [Closed]


def test_one_request_at_a_time() -> None:
    """Threads share the connection, and one that waits too long for its turn has sent nothing."""
    gate = threading.Event()

    def make(_: bytes) -> list[bytes]:
        gate.wait(60)
        return [OK]

    with Hostile(make) as server, contextlib.closing(Client([server.url], timeout_seconds=60)) as client:
        first = threading.Thread(target=client.request, args=("GET", "/"))
        first.start()
        until(lambda: client.traffic.requests == 1)
        with pytest.raises(Silent) as caught:
            client.request("POST", "/", timeout_seconds=0.05)
        assert not caught.value.was_sent
        gate.set()
        first.join()
        assert client.request("GET", "/").status == 200
        assert client.traffic.connections == 1


@pytest.mark.parametrize(
    "url", ["", "etcd:2379", "ftp://x", "http://", "http://x:99999", "http://a:b@x", "http://x?y", "http://x#y"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Client([url])


def test_endpoints() -> None:
    assert str(Endpoint.of("https://[2001:db8::1]:2379/")) == "[2001:db8::1]:2379"
    with pytest.raises(ValueError, match="has more than") as caught:
        Endpoint.of("https://root:secret@x")
    assert "secret" not in str(caught.value)
    assert Endpoint.of("https://x") == Endpoint("x", 443, is_tls=True, base="")
    with pytest.raises(ValueError, match="no endpoint"):
        Client([])
