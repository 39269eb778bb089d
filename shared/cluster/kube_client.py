"""Requests to a Kubernetes API server, and the meaning of its answers."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from shared.cluster.codec import Unreadable, parse, serialise
from shared.cluster.connection import HttpError, Traffic
from shared.cluster.engine import EngineError, Refused, Taken
from shared.cluster.http import Answer, Client, Stream
from shared.cluster.kube_access import Access
from shared.cluster.kube_objects import GROUP

BASE = f"/apis/{GROUP}/v1"
LONGEST_WAIT_SECONDS = 300.0  # of those that a server may ask for by Retry-After
OPEN_SECONDS = 5.0  # for the head of a watch's answer
MESSAGE_CHARACTERS = 300


class Gone(EngineError):
    """The revision, or the next page of a list, is not there any more."""


class Gate:
    """The time before which the server wants no more requests, for all connections of a node."""

    def __init__(self) -> None:
        self._until = 0.0
        self._lock = threading.Lock()

    def shut(self, text: str | None) -> None:
        """Stay shut for the seconds of a Retry-After header."""
        try:
            seconds = min(float(text or ""), LONGEST_WAIT_SECONDS)
        except ValueError:
            return  # none, or a date, which no API server sends
        if seconds > 0:
            with self._lock:
                self._until = max(self._until, time.monotonic() + seconds)

    def remaining_seconds(self) -> float:
        """Return the seconds until requests are welcome again."""
        return max(self._until - time.monotonic(), 0.0)


class KubeClient:
    """One connection for requests, and one for each stream."""

    def __init__(self, access: Access, traffic: Traffic, gate: Gate, timeout_seconds: float) -> None:
        self.gate = gate
        self._access = access
        self._http = Client([access.server], access.tls(), timeout_seconds=timeout_seconds, traffic=traffic)

    def close(self) -> None:
        """End everything in progress, from any thread."""
        self._http.close()

    def request(self, method: str, path: str, about: str, document: object = None) -> Answer:
        """Send a request and return the answer. Raise EngineError if the server did not consider it."""
        body = b"" if document is None else serialise(document)
        answer = self._http.request(method, path, body, self._headers(about, has_body=bool(body)))
        if answer.status in (401, 403, 429, 503):
            raise self.failure(answer, about)
        return answer

    def read(self, path: str, about: str) -> dict[str, Any] | None:
        """Return an object or a list; None if the object is not there. Raise EngineError otherwise."""
        answer = self.request("GET", path, about)
        if answer.status == 200:
            return content(answer.body, about)
        if is_absent(answer, path):
            return None
        raise self.failure(answer, about)

    def watch(self, path: str, about: str) -> Stream:
        """Open a watch. Raise EngineError if the server does not begin it."""
        headers = self._headers(about, has_body=False)
        stream = self._http.open("GET", path, headers=headers, timeout_seconds=OPEN_SECONDS)
        if stream.status == 200:
            return stream
        with stream:
            raise self.failure(Answer(stream.status, stream.headers, stream.read_body()), about)

    def failure(self, answer: Answer, about: str) -> EngineError:
        """Return the error that an answer is, and note the wish for a pause in it."""
        status = answer.status
        text = f"{about}: the API server answered {status}: {message(answer.body)}"
        if status in (429, 503):
            self.gate.shut(answer.headers.get("Retry-After"))
        if status == 429:
            return HttpError(text, was_sent=False)  # it did nothing
        if status == 409:
            return Taken(text)
        if status == 410:
            return Gone(text)
        if status == 401:
            return Refused(f"{text}; the token or the client certificate is not valid")
        if status == 403:
            return Refused(f"{text}; apply the manifest access.yaml")
        if status == 404:
            return Refused(f"{text}; apply the manifest resources.yaml")
        if 400 <= status < 500 and status != 408:
            return Refused(text)
        return EngineError(text)

    def _headers(self, about: str, *, has_body: bool) -> dict[str, str]:
        if seconds := self.gate.remaining_seconds():
            raise HttpError(f"{about}: the API server wants no requests for {seconds:.1f} seconds", was_sent=False)
        try:
            headers = self._access.headers()
        except (OSError, ValueError) as error:
            raise HttpError(f"{about}: the token cannot be read: {error}", was_sent=False) from None
        headers |= {"Accept": "application/json", "User-Agent": "pycni-agent"}
        if has_body:
            headers["Content-Type"] = "application/json"
        return headers


def content(body: bytes, about: str) -> dict[str, Any]:
    """Return the object in an answer. Raise EngineError for anything else."""
    try:
        found = parse(body)
    except Unreadable as error:
        raise EngineError(f"{about}: the API server's answer: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
        raise EngineError(f"{about}: the API server's answer is no object")
    return found


def is_absent(answer: Answer, path: str) -> bool:
    """Return True if the object of a path is not there; False if the server does not know the kind, either."""
    try:
        details = json.loads(answer.body).get("details")
    except (ValueError, AttributeError):
        return False
    name = path.partition("?")[0].rpartition("/")[2]
    return answer.status == 404 and isinstance(details, dict) and details.get("name") == name


def message(body: bytes) -> str:
    """Return the server's own words, printable and short."""
    try:
        document = json.loads(body)
        text = str(document["message"])
    except (ValueError, KeyError, TypeError):
        text = body.decode("utf-8", "replace")
    text = " ".join(text.split())[:MESSAGE_CHARACTERS]
    return text if text.isprintable() else ascii(text)
