"""Lists and watches of a Kubernetes API server that misbehaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Self

from shared.cluster.kube_client import Gate
from shared.cluster.kube_watch import Collection, Times


class Endless:
    """A client of a server that has always one more page."""

    pages, gate = 0, Gate()

    def close(self) -> None:
        pass

    def read(self, path: str, about: str) -> dict[str, Any]:  # noqa: ARG002
        self.pages += 1
        assert self.pages < 1000
        item = {"metadata": {"name": f"n{self.pages}", "resourceVersion": "1"}}
        return {"kind": "PeerList", "metadata": {"resourceVersion": "1", "continue": "more"}, "items": [item]}


def test_a_list_without_an_end_is_given_up() -> None:
    told: list[str] = []

    def tell() -> None:
        told.append(found.failure)
        found.close()

    found = Collection(
        Endless(), "/peers", Times(longest_list=0.0), replace=lambda _: None, change=lambda *_: None, tell=tell  # type: ignore[arg-type]
    )  # fmt: skip
    found.run()
    assert len(told) == 1 and "does not end" in told[0]


class Short:
    """A watch of one bookmark."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def batches(self, **limits: object) -> Iterator[list[bytes]]:  # noqa: ARG002
        yield [b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "2"}}}']


class Hasty(Endless):
    """A client of a server that ends each watch after a bookmark."""

    watches = 0

    def read(self, path: str, about: str) -> dict[str, Any]:  # noqa: ARG002
        return {"kind": "PeerList", "metadata": {"resourceVersion": "1"}, "items": []}

    def watch(self, path: str, about: str) -> Short:  # noqa: ARG002
        self.watches += 1
        return Short()


def test_a_server_that_ends_each_watch_is_not_asked_without_a_pause() -> None:
    client = Hasty()
    found = Collection(
        client, "/peers", Times(shortest_pause=60.0), replace=lambda _: None, change=lambda *_: None, tell=lambda: None  # type: ignore[arg-type]
    )  # fmt: skip
    timer = threading.Timer(0.2, found.close)
    timer.start()
    found.run()
    timer.join()
    assert client.watches == 1
