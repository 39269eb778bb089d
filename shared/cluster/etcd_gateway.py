"""etcd's JSON gateway: calls with a token, and watches that answer when they are asked for a sign of life."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shared.cluster.codec import Unreadable, parse, serialise, shown
from shared.cluster.connection import TooLong
from shared.cluster.engine import EngineError, Refused
from shared.cluster.http import Client, Stream

UNAVAILABLE_STATUS = 500  # and above: another member may do better
PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAUTHENTICATED = 7, 8, 16  # gRPC's codes
# The token is unknown to the member, older than a change of users or rights, or missing.
TOKEN_FAILURES = ("invalid auth token", "revision of auth store is old", "user name is empty")
REFUSALS = ("authentication failed", "permission denied", *TOKEN_FAILURES)
AUTHENTICATION_IS_OFF = "authentication is not enabled"
COMPACTED = "required revision has been compacted"
NAMED_CERTIFICATE = "CommonName of client sending a request against gateway"  # with users and passwords only
INT64_CHARACTERS = 20
PROGRESS = serialise({"progress_request": {}}) + b"\n"


class TooOld(EngineError):
    """The revision is not in the store: compacted, or the store is another than before."""


@dataclass(frozen=True)
class Header:
    """The state of the store as a member told it."""

    cluster: str
    term: int
    revision: int

    def is_before(self, other: Header) -> bool:
        """Return True if this is no later state of the same store: it was restored, or the member lags."""
        return self.cluster != other.cluster or self.term < other.term or self.revision < other.revision


@dataclass(frozen=True)
class Entry:
    """A key with its value; without one if an event tells that the key was deleted."""

    key: bytes
    value: bytes | None
    revision: int


@dataclass(frozen=True)
class Told:
    """One message of a watch."""

    header: Header
    is_created: bool
    is_requested: bool  # a sign of life that we asked for: it may overtake events, so it says nothing of them
    entries: tuple[Entry, ...]

    def watched_to(self) -> int:
        """Return the revision up to which the watch has told everything, as far as this message shows it."""
        if self.entries:
            return max(entry.revision for entry in self.entries)
        return 0 if self.is_requested or self.is_created else self.header.revision


class Gateway:
    """Calls to a cluster of etcd."""

    def __init__(self, client: Client, user: str = "", password: str = "") -> None:
        self._client = client
        self._user, self._password = user, password
        self._token = ""
        self._login = threading.Lock()

    def call(self, path: str, document: Mapping[str, object], *, timeout_seconds: float) -> dict[str, Any]:
        """Return the answer to a request, which is sent once more only if the token was refused. Raise EngineError."""
        deadline = time.monotonic() + timeout_seconds
        headers = self._headers(deadline)
        try:
            return self._post(path, document, headers, deadline)
        except Refused as error:
            if not self._user or not any(text in str(error) for text in TOKEN_FAILURES):
                raise
        self._forget(headers)
        return self._post(path, document, self._headers(deadline), deadline)

    @contextmanager
    def watch(self, start: bytes, end: bytes, revision: int, *, timeout_seconds: float) -> Iterator[Stream]:
        """Open a watch of a range from a revision on; `Stream.send(PROGRESS)` asks for a sign of life.

        A member without a leader ends it: its own content would be old, and its signs of life would hide that.
        """
        create = {
            "key": encode(start),
            "range_end": encode(end),
            "start_revision": str(revision),
            "progress_notify": True,
        }
        headers = self._headers(time.monotonic() + timeout_seconds)
        body = serialise({"create_request": create}) + b"\n"
        with self._client.open(
            "POST", "/v3/watch", body, {**headers, "Grpc-Metadata-hasleader": "true"},
            is_open_ended=True, timeout_seconds=timeout_seconds,
        ) as stream:  # fmt: skip
            try:
                if stream.status != 200:
                    raise self._failure("/v3/watch", stream.status, stream.read_body())
                yield stream
            except TooOld:
                raise
            except EngineError as error:
                self._client.rotate(stream.endpoint)
                if isinstance(error, Refused):  # of an old token a watch says no more than "permission denied"
                    self._forget(headers)
                raise

    def _headers(self, deadline: float) -> dict[str, str]:
        if not self._user:
            return {}
        with self._login:
            if not self._token:
                self._token = self._authenticate(deadline)
            return {"Authorization": self._token} if self._token else {}

    def _authenticate(self, deadline: float) -> str:
        document = {"name": self._user, "password": self._password}
        try:
            token = self._post("/v3/auth/authenticate", document, {}, deadline).get("token")
        except EngineError as error:
            if AUTHENTICATION_IS_OFF in str(error):
                return ""
            raise
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise EngineError(f"etcd gave {shown(token)} as a token")
        return token

    def _forget(self, headers: Mapping[str, str]) -> None:
        """Forget the token that was refused, unless another thread has a new one already."""
        with self._login:
            if headers.get("Authorization", "") == self._token:
                self._token = ""

    def _post(
        self, path: str, document: Mapping[str, object], headers: Mapping[str, str], deadline: float
    ) -> dict[str, Any]:
        seconds = max(deadline - time.monotonic(), 0.001)
        answer = self._client.request("POST", path, serialise(document), headers, timeout_seconds=seconds)
        if answer.status != 200:
            if answer.status >= UNAVAILABLE_STATUS:
                self._client.rotate(answer.endpoint)
            raise self._failure(path, answer.status, answer.body)
        return _document(answer.body)

    def _failure(self, path: str, status: int, body: bytes) -> EngineError:
        try:
            document = _document(body)
        except EngineError:
            document = {"error": body.decode("utf-8", "backslashreplace")}
        return _error(f"etcd {path}: status {status}", document)


def encode(data: bytes) -> str:
    """Return bytes as the gateway has them in JSON."""
    return base64.b64encode(data).decode()


def read_header(document: Mapping[str, Any]) -> Header:
    """Return an answer's header. Raise EngineError without one."""
    header = _object(document, "header")
    found = Header(str(header.get("cluster_id", "")), _number(header, "raft_term"), _number(header, "revision"))
    if found.revision <= 0:
        raise _garbage(document)
    return found


def read_entries(document: Mapping[str, Any]) -> list[Entry]:
    """Return the keys of the answer to a range request. Raise EngineError if it is none."""
    return [_entry(kv) for kv in _list(document, "kvs")]


def read_swap(document: Mapping[str, Any]) -> tuple[bool, list[Entry]]:
    """Return if a transaction's condition held, and otherwise the keys that its one range request found."""
    if document.get("succeeded") is True:
        return True, []
    responses = _list(document, "responses")
    if len(responses) != 1 or not isinstance(responses[0], dict):
        raise _garbage(document)
    return False, read_entries(_object(responses[0], "response_range"))


def read_told(line: bytes) -> Told:
    """Return a message of a watch. Raise TooOld, Refused or another EngineError if it is the watch's end."""
    document = _document(line)
    if "error" in document:
        raise _error("etcd ended the watch", document)
    result = _object(document, "result")
    if _number(result, "compact_revision"):
        raise TooOld(f"etcd has compacted the revisions before {_number(result, 'compact_revision')}")
    if result.get("canceled"):
        raise _error("etcd ended the watch", {"error": result.get("cancel_reason", "no reason was told")})
    entries = []
    for event in _list(result, "events"):
        if not isinstance(event, dict):
            raise _garbage(event)
        entry = _entry(event.get("kv"))
        entries.append(Entry(entry.key, None, entry.revision) if event.get("type") == "DELETE" else entry)
    is_requested = result.get("watch_id") in (-1, "-1")
    return Told(read_header(result), result.get("created") is True, is_requested, tuple(entries))


def _error(what: str, document: Mapping[str, Any]) -> EngineError:
    """Return the error of a document. Releases of etcd differ in the place of its text and of gRPC's code."""
    inner = document.get("error")
    fields = inner if isinstance(inner, dict) else document
    text = fields.get("message", inner)
    code = fields.get("grpc_code", fields.get("code"))
    message = f"{what}: {shown(text.encode('utf-8', 'backslashreplace') if isinstance(text, str) else text)}"
    if code == RESOURCE_EXHAUSTED and "larger than max" in message:
        return TooLong(message)
    if COMPACTED in message:
        return TooOld(message)
    if NAMED_CERTIFICATE in message:
        return Refused(f"{message}; give this node a client's certificate whose subject has no CN")
    if code in (PERMISSION_DENIED, UNAUTHENTICATED) or any(text in message for text in REFUSALS):
        return Refused(message)
    return EngineError(message)


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = parse(data)
    except Unreadable as error:
        raise EngineError(f"etcd answered {error}") from None
    if not isinstance(document, dict):
        raise _garbage(document)
    return document


def _garbage(value: object) -> EngineError:
    return EngineError(f"etcd answered {shown(value)}, which is not of its JSON interface")


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise _garbage(document)
    return value


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name, [])  # the gateway leaves out empty and zero values
    if not isinstance(value, list):
        raise _garbage(document)
    return value


def _number(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name, 0)
    if isinstance(value, str) and len(value) <= INT64_CHARACTERS and value.isascii() and value.isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _garbage(document)
    return value


def _bytes(document: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(document.get(name, ""), validate=True)
    except (TypeError, ValueError):
        raise _garbage(document) from None


def _entry(kv: object) -> Entry:
    if not isinstance(kv, dict):
        raise _garbage(kv)
    return Entry(_bytes(kv, "key"), _bytes(kv, "value"), _number(kv, "mod_revision"))
