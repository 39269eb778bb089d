"""A Kubernetes API server for a test, the credentials for it, and an engine's snapshots."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cluster.connection import Traffic
from shared.cluster.engine import Engine
from shared.cluster.http import Answer
from shared.cluster.kube_access import Access, Source
from shared.cluster.kube_client import BASE, Gate, KubeClient
from shared.cluster.kube_follow import Scope
from shared.cluster.kube_watch import Times
from shared.cluster.kubernetes import Kubernetes
from tests.cluster_contract import Following
from tests.kube_server import ADMIN, KubeServer, agent
from tests.pretend import PATIENCE

if TYPE_CHECKING:
    from typing import Self

# Short pauses and pages. A server that is slow at load is not silent.
TIMES = Times(silence=60 * PATIENCE, shortest_watch=1, longest_watch=60, shortest_pause=0.02, longest_pause=0.2, page=3)
IMPATIENT = replace(TIMES, silence=2 * PATIENCE)


@dataclass
class Cluster:
    """A server, in this repository or a real one, and the engines at it."""

    admin: Access
    server: KubeServer | None = None
    directory: Path = Path()
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

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
        self._stack.callback(engine.close)
        return engine

    def follow(self, engine: Engine) -> Following:
        """Return the states of an engine, the first of which is current."""
        following = self._stack.enter_context(Following(engine))
        following.until_current()
        return following

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
