"""A Kubernetes API server for a test, the credentials for it, and an engine's snapshots."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shared.cluster.connection import Traffic
from shared.cluster.engine import Engine
from shared.cluster.http import Answer
from shared.cluster.kube_access import Access, Source
from shared.cluster.kube_client import BASE, Gate, KubeClient
from shared.cluster.kube_follow import Scope
from shared.cluster.kube_watch import Times
from shared.cluster.kubernetes import Kubernetes
from shared.cluster.model import Snapshot
from tests.kube_server import ADMIN, KubeServer, agent
from tests.pretend import PATIENCE, until

# Short limits, for a server that sends bookmarks five times a second.
TIMES = Times(
    silence=2 * PATIENCE, shortest_watch=1, longest_watch=60, shortest_pause=0.02, longest_pause=0.2, memory=60, page=3
)


class Following:
    """An engine's snapshots, as a thread takes them."""

    def __init__(self, engine: Engine) -> None:
        self.snapshots: list[Snapshot] = []
        self._thread = threading.Thread(target=engine.follow, args=(self.snapshots.append,), daemon=True)
        self._thread.start()

    @property
    def latest(self) -> Snapshot:
        return self.snapshots[-1] if self.snapshots else Snapshot()

    def until(self, condition: Callable[[Snapshot], bool]) -> Snapshot:
        """Return the first latest snapshot that fits."""
        fitting: list[Snapshot] = []
        until(lambda: condition(one := self.latest) and not fitting.append(one))  # type: ignore[func-returns-value]
        return fitting[0]

    def join(self) -> None:
        self._thread.join(30 * PATIENCE)
        assert not self._thread.is_alive()


@dataclass
class Cluster:
    """A server, in this repository or a real one, and the engines at it."""

    admin: Access
    server: KubeServer | None = None
    directory: Path = Path()
    engines: list[tuple[Kubernetes, list[Following]]] = field(default_factory=list)

    def access(self, node: str) -> Access:
        """Return an agent's access by a token in a file; at a real server, the administrator's."""
        if self.server is None:
            return self.admin
        path = self.directory / f"token-{node}"
        if not path.exists():
            path.write_text(f"secret-of-{node}\n")
        self.server.tokens[path.read_text().strip()] = agent(node)
        return replace(self.admin, certificate=Source(), key=Source(), token=Source(path))

    def engine(
        self, node: str = "node-1", scope: Scope | None = None, access: Access | None = None, times: Times = TIMES
    ) -> Kubernetes:
        """Return a new engine of an agent; `access` for other rights."""
        engine = Kubernetes(access or self.access(node), node, scope, times)
        self.engines.append((engine, []))
        return engine

    def follow(self, engine: Kubernetes) -> Following:
        following = Following(engine)
        next(followings for one, followings in self.engines if one is engine).append(following)
        return following

    def close(self) -> None:
        for engine, followings in self.engines:
            engine.close()
            for following in followings:
                following.join()

    def ask(self, method: str, path: str, document: object = None, access: Access | None = None) -> Answer:
        """Send one raw request as the administrator. Return the answer of whatever status."""
        client = KubeClient(access or self.admin, Traffic(), Gate(), 30)
        try:
            headers = {"Content-Type": "application/json", **(access or self.admin).headers()}
            body = b"" if document is None else json.dumps(document).encode()
            return client._http.request(method, path, body, headers)  # noqa: SLF001 - below the engine's own rules
        finally:
            client.close()

    def clear(self) -> None:
        """Delete all objects of the cluster's kinds."""
        for plural in ("pools", "blocks", "peers"):
            for found in json.loads(self.ask("GET", f"{BASE}/{plural}").body)["items"]:
                self.ask("DELETE", f"{BASE}/{plural}/{found['metadata']['name']}")


def administrator(server: KubeServer, ca: Path, certificate: Path, key: Path) -> Access:
    """Return the access of the server's administrator, by a client certificate."""
    assert certificate.name.startswith(ADMIN)
    return Access(server.url, ca=Source(ca), certificate=Source(certificate), key=Source(key))


def status(answer: Answer) -> tuple[int, Any]:
    """Return the code and the reason of an answer."""
    document = json.loads(answer.body)
    return answer.status, document.get("reason")
