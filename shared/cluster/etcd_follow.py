"""The content of an etcd: one list at one revision, and a watch from there until the end."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from shared.cluster import codec
from shared.cluster.codec import Content
from shared.cluster.connection import Silent, TooLong
from shared.cluster.engine import EngineError
from shared.cluster.etcd_gateway import (
    PROGRESS,
    Entry,
    Gateway,
    Header,
    Told,
    TooOld,
    encode,
    read_entries,
    read_header,
    read_told,
)
from shared.cluster.http import Stream
from shared.cluster.model import Block, Snapshot

BLOCKS, NODES, POOLS = "blocks/", "nodes/", "pools/"
FIRST, END = BLOCKS, "pools0"  # the range of all three; "alive/" is before it
PAGE_KEYS = 1000
UNCREATED_TICK_SECONDS = 0.05
# etcd answers to a request for a sign of life at once, before 3.4.25 also while earlier events wait for their turn. It
# looks each 0.1 seconds for watches that have to catch up, and takes 512 of them.
CATCH_UP_SECONDS = 2.0
LIST_SECONDS = 120.0  # for all pages
DOUBLINGS = 4  # of the pause after a failure


def read_object(key: str, value: bytes, revision: int) -> codec.Thing:
    """Return the object of a key below the prefix. Raise Unreadable if it is none."""
    kind, _, rest = key.partition("/")
    if kind + "/" == POOLS:
        return codec.to_pool(rest, codec.parse(value))
    if kind + "/" == NODES:
        return codec.to_peer(rest, codec.parse(value), str(revision))
    return read_block(rest, value, revision)


def read_block(name: str, value: bytes, revision: int) -> Block:
    """Return the block of NETWORK/CIDR. Raise Unreadable if it is none."""
    network, _, cidr = name.partition("/")
    return codec.to_block(network, codec.to_cidr(cidr), codec.parse(value), str(revision))


@dataclass(frozen=True)
class Pace:
    """How often, and how long. The intervals are seconds."""

    sign: float = 10.0  # between two requests for a sign of life
    timeout: float = 5.0  # of a request
    pause: float = 1.0  # after the first failure; jittered, and doubled by each further one
    spread: float = 10.0  # in which a list that replaces a watch begins, for each page of it: see `spread_seconds`
    page_keys: int = PAGE_KEYS


def spread_seconds(pace: Pace, keys: int) -> float:
    """Return the time in which the nodes' new lists begin.

    When etcd compacts during an outage, each node lists everything after it. So the whole grows with the square of the
    nodes' number, and the time with the number.
    """
    return pace.spread * max(1.0, keys / pace.page_keys)


class Follower:
    """One follow: the content, the revision that it is known to, and the state that was told last."""

    def __init__(
        self, gateway: Gateway, prefix: str, pace: Pace, take: Callable[[Snapshot], None], beat: Callable[[], None]
    ) -> None:
        self._gateway = gateway
        self._prefix = prefix
        self._pace = pace
        self._take = take
        self._beat = beat
        self._content = Content()
        self._header = Header("", 0, 0)  # of the list, and then as far as the watch has told
        self._is_listed = self._is_resumed = False
        self._failures = 0
        self._alive_at = 0.0  # the time of the last sign of life
        self._ask_at = math.inf  # the time to ask for the next one
        self._told = (False, "")  # `is_current` and `failure` of the state that was told last
        self.events = 0

    def run(self, closed: threading.Event) -> None:
        """List and watch until `closed` is set."""
        while not closed.is_set():
            try:
                self._follow()
            except EngineError as error:
                failure, is_too_old = str(error), isinstance(error, TooOld)
            if closed.is_set():
                return
            if is_too_old:
                self._is_listed = False
                if self._is_resumed:  # a new list is the remedy, unless it is too old itself
                    closed.wait(spread_seconds(self._pace, len(self._content.keys())) * random.random())  # noqa: S311
                    continue
            self._failures += 1
            self._tell(is_current=False, failure=failure)
            longest = self._pace.pause * 2 ** min(self._failures - 1, DOUBLINGS)
            closed.wait(longest * random.uniform(0.5, 1))  # noqa: S311  (spreads the nodes' requests)

    def _follow(self) -> NoReturn:
        """List if there is nothing to watch from, then watch. Raise EngineError when it ends."""
        self._is_resumed = self._is_listed
        if not self._is_listed:
            self._header, self._is_listed = self._list(), True
        first, end = (f"{self._prefix}{key}".encode() for key in (FIRST, END))
        with self._gateway.watch(first, end, self._header.revision + 1, timeout_seconds=self._pace.timeout) as stream:
            self._alive_at = time.monotonic()
            self._ask_at = math.inf  # until etcd tells that the watch exists
            for batch in stream.batches(silence_seconds=2 * self._pace.sign, tick=lambda: self._tick(stream)):
                self._hear([read_told(line) for line in batch])
            raise EngineError(f"etcd {stream.endpoint} ended the watch")

    def _tick(self, stream: Stream) -> float:
        """Ask for a sign of life if it is time. Return the seconds until the next look."""
        if time.monotonic() >= self._ask_at:
            stream.send(PROGRESS)
            self._beat()
            self._ask_at = time.monotonic() + self._pace.sign
        return UNCREATED_TICK_SECONDS if self._ask_at == math.inf else self._ask_at - time.monotonic()

    def _list(self) -> Header:
        """Make the content that of one revision, in pages, and return the revision's header."""
        key, end = (f"{self._prefix}{name}".encode() for name in (FIRST, END))
        first = Header("", 0, 0)
        found: list[Entry] = []
        limit, deadline = self._pace.page_keys, time.monotonic() + LIST_SECONDS
        is_more = True
        while is_more:
            if time.monotonic() > deadline:
                raise EngineError(f"etcd: the list did not end in {LIST_SECONDS:.0f} seconds, after {len(found)} keys")
            try:
                document = self._read_page(key, end, limit, first.revision)
            except TooLong:
                if limit == 1:
                    raise
                limit //= 2
                continue
            first = first if found else read_header(document)
            page = read_entries(document)
            is_more = document.get("more") is True
            if [entry.key for entry in page] != sorted({entry.key for entry in page}) or any(
                not key <= entry.key < end for entry in page
            ):
                raise EngineError("etcd: a page of the list has keys that were not asked for")
            if not page and is_more:
                raise EngineError("etcd: a page of the list is empty, and there is to be more")
            found += page
            key = page[-1].key + b"\0" if page else key
        self._replace(found)
        return first

    def _read_page(self, key: bytes, end: bytes, limit: int, revision: int) -> dict[str, Any]:
        asked = {"key": encode(key), "range_end": encode(end), "limit": str(limit), "revision": str(revision)}
        return self._gateway.call("/v3/kv/range", asked, timeout_seconds=self._pace.timeout)

    def _replace(self, entries: list[Entry]) -> None:
        """Make the content that of these keys."""
        names = {self._name(entry.key) for entry in entries}
        for name in self._content.keys() - names:
            self._content.drop(name)
        for entry in entries:
            self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        """Change the content as an event demands. Keys of kinds that a later release may have are passed over."""
        name = self._name(entry.key)
        if entry.value is None:
            self._content.drop(name)
        elif name.startswith((BLOCKS, NODES, POOLS)):
            value, revision = entry.value, entry.revision
            self._content.put(name, value, lambda: read_object(name, value, revision))

    def _name(self, key: bytes) -> str:
        return key.decode("utf-8", "backslashreplace").removeprefix(self._prefix)

    def _hear(self, messages: list[Told]) -> None:
        """Take in the messages that came together, and tell the state if they changed it or are a sign of life."""
        is_alive = False
        for told in messages:
            if told.header.is_before(self._header):
                raise TooOld("etcd's store is older than before, or another one: it was restored, or a member lags")
            for entry in told.entries:
                self._apply(entry)
            reached = max(self._header.revision, told.watched_to())
            self._header = Header(told.header.cluster, told.header.term, reached)
            self.events += len(told.entries)
            if told.is_created:
                is_caught_up = told.header.revision == self._header.revision
                self._ask_at = time.monotonic() + (0 if is_caught_up else min(CATCH_UP_SECONDS, self._pace.sign / 2))
            is_alive = is_alive or not (told.entries or told.is_created)
        is_current = self._told[0]
        if is_alive:
            self._failures, self._alive_at = 0, time.monotonic()
        elif time.monotonic() - self._alive_at > 2 * self._pace.sign:
            raise Silent("etcd tells events, but does not answer to requests for a sign of life")
        if (is_current and any(told.entries for told in messages)) or (is_alive and not is_current):
            self._tell(is_current=True)

    def _tell(self, *, is_current: bool, failure: str = "") -> None:
        """Hand over the state, unless only a failure is told that was told before."""
        if is_current or self._told != (False, failure):
            self._told = (is_current, failure)
            self._take(self._content.snapshot(is_current=is_current, failure=failure))
