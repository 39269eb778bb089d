"""A list of Kubernetes objects that the server never ends."""

from __future__ import annotations

from typing import Any

from shared.cluster.kube_client import Gate
from shared.cluster.kube_watch import Collection, Times


class Endless:
    """A client whose server has always one more page."""

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
