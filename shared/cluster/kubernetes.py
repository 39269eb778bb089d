"""The engine on the Kubernetes API: cluster-scoped objects Pool, Block and Peer, and the podCIDRs of Nodes.

A Block is named by its network and CIDR, so creating it is the claim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shared.cluster import codec, kube_objects
from shared.cluster.codec import Unreadable
from shared.cluster.connection import Traffic
from shared.cluster.engine import Counts, EngineError, Refused, Taken
from shared.cluster.kube_access import Access
from shared.cluster.kube_client import BASE, Gate, KubeClient, content, is_absent
from shared.cluster.kube_follow import NODES, Follower, Scope
from shared.cluster.kube_names import block_name, is_subdomain, network_name
from shared.cluster.kube_objects import Object
from shared.cluster.kube_watch import Times
from shared.cluster.model import Block, Cidr, Peer, Pool, Revision, Snapshot

REQUEST_SECONDS = 5.0
PAGE_SECONDS = 30.0  # to read one page of a list
T = TypeVar("T")


class Kubernetes:
    """An engine for one node; its name is that of its Kubernetes Node."""

    def __init__(self, access: Access, node: str, scope: Scope | None = None, times: Times | None = None) -> None:
        traffic, gate = Traffic(), Gate()
        self._traffic = traffic
        self._scope = scope or Scope()
        self._client = KubeClient(access, traffic, gate, REQUEST_SECONDS)
        self._follower = Follower(
            node, self._scope, times or Times(), lambda: KubeClient(access, traffic, gate, PAGE_SECONDS)
        )

    def follow(self, take: Callable[[Snapshot], None]) -> None:
        """Read everything, then watch, until `close`."""
        self._follower.run(take)

    def close(self) -> None:
        """End `follow`, and every request in progress."""
        self._client.close()
        self._follower.close()

    def claim(self, block: Block) -> Block:
        """Create the block. Return it with its revision. Raise Taken if somebody has it."""
        name = _checked(block_name, block.network, block.cidr)
        document = kube_objects.make("Block", name, codec.block_value(block))
        return self._write("POST", f"{BASE}/blocks", document, kube_objects.read_block)

    def read_block(self, network: str, cidr: Cidr) -> Block | None:
        """Return the block as it is now; None without one."""
        name = _checked(block_name, network, cidr)
        found = self._client.read(f"{BASE}/blocks/{name}", f"block {name}")
        return None if found is None else _parsed(kube_objects.read_block, found, f"block {name}")

    def update_block(self, block: Block) -> Block:
        """Write the block if it still has `block.revision`. Return it with the new one. Raise Taken otherwise."""
        name = _checked(block_name, block.network, block.cidr)
        document = kube_objects.make(
            "Block", name, codec.block_value(block), _condition(block.revision, f"block {name}")
        )
        return self._write("PUT", f"{BASE}/blocks/{name}", document, kube_objects.read_block)

    def release(self, block: Block) -> None:
        """Delete the block if it still has `block.revision`. Raise Taken otherwise; one that is gone is a success."""
        name = _checked(block_name, block.network, block.cidr)
        self._delete(f"{BASE}/blocks/{name}", f"block {name}", _condition(block.revision, f"block {name}"))

    def announce(self, peer: Peer) -> Peer:
        """Write this node's own peer object, of any revision. Return it with the new one.

        Keep it for the snapshots alone if peers are read from Nodes.
        """
        if self._scope.peers_from_nodes:
            self._follower.keep(peer)
            return peer
        name = _checked(_node_name, peer.node)
        return self._set("Peer", "peers", name, codec.peer_value(peer), kube_objects.read_peer)

    def withdraw(self, peer: Peer) -> None:
        """Delete a peer object if it still has its revision. Raise Taken otherwise; one that is gone is a success."""
        name = _checked(_node_name, peer.node)
        self._delete(f"{BASE}/peers/{name}", f"peer {name}", _condition(peer.revision, f"peer {name}"))

    def show_life(self, node: str, uid: str) -> None:
        """Do nothing: the kubelet keeps the Node."""

    def find_life_refusal(self) -> str:
        """Return nothing: see `show_life`."""
        return ""

    def find_life(self, node: str, uid: str) -> str:
        """Return the Node as a machine's sign of life, unless its peer object is of another machine: its successor."""
        name = _checked(_node_name, node)
        if self._client.read(f"{NODES}/{name}", f"node {name}") is None:
            return ""
        found = None if self._scope.peers_from_nodes else self._client.read(f"{BASE}/peers/{name}", f"peer {name}")
        if found is not None and _parsed(kube_objects.read_peer, found, f"peer {name}").uid != uid:
            return ""
        return f"Kubernetes has the Node {name}"

    def write_pool(self, pool: Pool) -> None:
        """Write a pool, for administrators."""
        name = _checked(network_name, pool.network)
        self._set("Pool", "pools", name, codec.pool_value(pool), kube_objects.read_pool)

    def counts(self) -> Counts:
        """Return the number of requests, bytes and events so far."""
        traffic = self._traffic
        return Counts(traffic.requests, traffic.sent_bytes, traffic.received_bytes, self._follower.events)

    def _write(self, method: str, path: str, document: Object, read: Callable[[Object], T]) -> T:
        """Send an object, and return it as the server has it then. Raise Taken if the server has another one."""
        about = f"{document['kind'].lower()} {document['metadata']['name']}"
        answer = self._client.request(method, path, about, document)
        if answer.status in (200, 201):
            return _parsed(read, content(answer.body, about), about)
        if is_absent(answer, path):
            raise Taken(f"{about}: it is not there any more")
        raise self._client.failure(answer, about)

    def _set(self, kind: str, plural: str, name: str, value: object, read: Callable[[Object], T]) -> T:
        """Create an object, or replace the one that is there."""
        about = f"{kind.lower()} {name}"
        found = self._client.read(f"{BASE}/{plural}/{name}", about)
        try:
            if found is None:
                return self._write("POST", f"{BASE}/{plural}", kube_objects.make(kind, name, value), read)
            revision = {"resourceVersion": found["metadata"].get("resourceVersion")}
            return self._write("PUT", f"{BASE}/{plural}/{name}", kube_objects.make(kind, name, value, revision), read)
        except Taken as error:
            raise EngineError(f"{about}: somebody else writes it at the same time: {error}") from None

    def _delete(self, path: str, about: str, preconditions: Object) -> None:
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}
        answer = self._client.request("DELETE", path, about, options)
        if answer.status not in (200, 202) and not is_absent(answer, path):
            raise self._client.failure(answer, about)


def _checked(make: Callable[..., str], *parts: object) -> str:
    """Return a name. Raise Refused if Kubernetes has none for these parts."""
    try:
        return make(*parts)
    except ValueError as error:
        raise Refused(str(error)) from None


def _node_name(node: str) -> str:
    if not is_subdomain(node):
        raise ValueError(f"node {node[:60]!r} is not the name of a Kubernetes Node: a DNS subdomain in lower case")
    return node


def _condition(revision: Revision, about: str) -> Object:
    """Return the uid and resourceVersion to compare with. Raise Taken for a revision that is none."""
    condition = kube_objects.split(revision)
    if not condition:
        # Without them a DELETE would be unconditional.
        raise Taken(f"{about}: {revision!r} is not a revision of it")
    return condition


def _parsed(read: Callable[[Object], T], found: Object, about: str) -> T:
    if not kube_objects.is_object(found) or found["metadata"]["name"] != about.rpartition(" ")[2]:
        raise EngineError(f"{about}: the API server's answer is not this object")
    try:
        return read(found)
    except Unreadable as error:
        raise EngineError(f"{about}: the API server's answer cannot be read: {error}") from None
