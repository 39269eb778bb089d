"""Follow one kind of Kubernetes objects: list them in pages, watch from there on, and begin anew when that ends.

A watch is silent if nothing changes, and also if the server is dead. So the server is asked for bookmarks, which come
about once a minute, and a watch that was silent for twice that time has failed. Some servers send no bookmarks: their
watches ask for an end before that time.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote

from shared.cluster.codec import Unreadable, parse
from shared.cluster.engine import EngineError
from shared.cluster.kube_client import Gone, KubeClient, message
from shared.cluster.kube_objects import is_object

MOST_OBJECTS = 1_000_000  # of one kind
EVENTS = ("ADDED", "MODIFIED", "DELETED")


@dataclass(frozen=True)
class Times:
    """Limits in seconds, and the length of a page."""

    silence: float = 120.0  # twice the interval of an API server's bookmarks
    shortest_watch: float = 90.0  # of a server that sends no bookmarks; within `silence`
    longest_watch: float = 600.0
    longest_list: float = 300.0  # for all pages
    shortest_pause: float = 0.5  # after a failure; it doubles with each further one
    longest_pause: float = 30.0
    memory: float = 60.0  # after a longer failure, a new list: the server's history may be another
    page: int = 500


class Collection:
    """The objects of one path.

    `run` is for a thread of its own. It calls `replace` with a whole list, `change` with an event's type and object,
    and `tell` after one or more changes and after each change of `failure`.
    """

    def __init__(
        self,
        client: KubeClient,
        path: str,
        times: Times,
        *,
        selector: str = "",
        replace: Callable[[list[dict[str, Any]]], None],
        change: Callable[[str, dict[str, Any]], None],
        tell: Callable[[], None],
    ) -> None:
        self.client = client
        self.path = path
        self.failure = "not read yet"  # why it is not current; empty if it is
        self.is_complete = False  # it was current once
        self.events = 0
        self._times = times
        self._selector = f"&fieldSelector={quote(selector, safe='')}" if selector else ""
        self._replace, self._change, self._tell = replace, change, tell
        self._revision = ""
        self._failures = 0
        self._failing_since = 0.0
        self._is_suspect = False  # the last watch ended otherwise than a living one does
        self._has_bookmarks = False
        self._closed = threading.Event()

    def close(self) -> None:
        """End `run`, from any thread."""
        self._closed.set()
        self.client.close()

    def run(self) -> None:
        """Follow the objects until `close`. Any failure is noted, and tried again after a pause."""
        while not self._closed.is_set():
            try:
                self._follow()
            except Gone as error:
                self._revision = ""
                self._failures += 1
                if self._failures > 1:  # the list of just now is too old already
                    self._fail(str(error))
            except EngineError as error:
                self._failures += 1
                self._fail(str(error))
            except Exception as error:  # noqa: BLE001 - a thread that ended would leave a state that looks current
                self._revision = ""
                self._failures += 1
                self._fail(f"{self.path}: {type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        if self._closed.is_set():
            return
        if not self._failing_since:
            self._failing_since = time.monotonic()
        self._is_suspect = True
        self.failure = reason
        self._tell()
        pause = min(self._times.shortest_pause * 2 ** min(self._failures - 1, 16), self._times.longest_pause)
        # Jittered: thousands of nodes lose a server at one time.
        self._closed.wait(self.client.gate.remaining_seconds() + pause * random.uniform(0.5, 1.5))  # noqa: S311

    def _follow(self) -> None:
        if self._is_suspect and self._revision:
            self._verify()
        if not self._revision:
            self._list()
        self._watch()

    def _verify(self) -> None:
        """Forget the revision if the server's history may be another one, as after a backup was restored."""
        if self._failing_since and time.monotonic() - self._failing_since > self._times.memory:
            self._revision = ""
            return
        found = self._read(f"{self.path}?limit=1{self._selector}")
        if self._number(found) < int(self._revision):
            self._revision = ""

    def _list(self) -> None:
        items: list[dict[str, Any]] = []
        token, deadline = "", time.monotonic() + self._times.longest_list
        while True:
            found = self._read(f"{self.path}?limit={self._times.page}{token}{self._selector}")
            items += found["items"] or []
            following = found["metadata"].get("continue")
            if not following:
                break
            if time.monotonic() > deadline or len(items) > MOST_OBJECTS:
                raise EngineError(f"{self.path}: the API server's list does not end: {len(items)} objects so far")
            token = f"&continue={quote(str(following), safe='')}"
        number = self._number(found)
        self._replace(items)
        self._revision = str(number)

    def _read(self, path: str) -> dict[str, Any]:
        found = self.client.read(path, self.path)
        # Another object would look like an empty list.
        items = found.get("items", 0) if found and str(found.get("kind")).endswith("List") else 0
        if found is None or not isinstance(items, list | None) or not all(is_object(one) for one in items or ()):
            raise EngineError(f"{self.path}: the API server's answer is no list of objects")
        return found

    def _watch(self) -> None:
        times, begin = self._times, time.monotonic()
        seconds = times.longest_watch * random.uniform(0.5, 1) if self._has_bookmarks else times.shortest_watch  # noqa: S311
        path = (
            f"{self.path}?watch=1&allowWatchBookmarks=true&resourceVersion={self._revision}"
            f"&timeoutSeconds={max(int(seconds), 1)}{self._selector}"
        )
        self._has_bookmarks = has_heard = False
        with self.client.watch(path, self.path) as stream:
            self.failure, self._failing_since, self.is_complete = "", 0.0, True
            self._tell()
            for lines in stream.batches(silence_seconds=times.silence):
                before = self.events
                for line in filter(None, lines):
                    self._take(line)
                    has_heard = True
                self._failures = 0
                if self.events > before:
                    self._tell()
        # A server that is restored from a backup says nothing until it is where it was: look if it is.
        self._is_suspect = not has_heard
        if time.monotonic() - begin < min(times.shortest_watch, 1) / 2:
            if not has_heard:
                raise EngineError(f"{self.path}: the API server ends watches at once")
            self._closed.wait(times.shortest_pause * random.uniform(0.5, 1.5))  # noqa: S311

    def _take(self, line: bytes) -> None:
        """Take one event of a watch. Raise Gone or EngineError for one that ends it."""
        try:
            event = parse(line)
            kind, found = event["type"], event["object"]  # type: ignore[index]
            if kind in EVENTS and is_object(found):
                revision = self._number(found)
                self.events += 1
                self._change(kind, found)
            elif kind == "BOOKMARK":
                revision = self._number(found)
                self._has_bookmarks = True
            else:
                self._refuse(kind, found, line)
        except (Unreadable, KeyError, TypeError) as error:
            self._revision = ""
            raise EngineError(f"{self.path}: an event of the watch cannot be read: {error}") from None
        self._revision = str(revision)

    def _refuse(self, kind: object, found: Any, line: bytes) -> NoReturn:
        self._revision = ""
        if kind == "ERROR" and isinstance(found, dict) and found.get("code") == 410:
            raise Gone(f"{self.path}: {message(line)}")
        raise EngineError(f"{self.path}: the watch ended with {message(line)}")

    def _number(self, found: dict[str, Any]) -> int:
        """Return the revision of an object or list, a number: Kubernetes promises an order within a kind."""
        text = found["metadata"].get("resourceVersion")
        if not isinstance(text, str) or not text.isdecimal():
            raise EngineError(f"{self.path}: the API server's resourceVersion is {text!r}; a number is expected")
        return int(text)
