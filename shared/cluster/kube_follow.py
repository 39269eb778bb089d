"""Follow all kinds of objects at a Kubernetes API server, and make one snapshot of them after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from shared.cluster import codec, kube_objects
from shared.cluster.codec import Content, Unreadable
from shared.cluster.kube_client import BASE, KubeClient
from shared.cluster.kube_objects import Object
from shared.cluster.kube_watch import Collection, Times
from shared.cluster.model import Cidr, Peer, Snapshot

NODES = "/api/v1/nodes"
NODE_WEIGHT = 5  # a Node is as long as so many objects and more: its pages have fewer


@dataclass(frozen=True)
class Scope:
    """The objects that a node follows."""

    claims_blocks: bool = True  # pools and blocks
    pod_cidr_network: str = ""  # the network that the own Node's podCIDRs are for
    peers_from_nodes: bool = False  # peers are the Nodes' podCIDRs and InternalIPs, in a cluster without Peer objects

    def __post_init__(self) -> None:
        """Raise ValueError if Nodes are peers of no network."""
        if self.peers_from_nodes and not self.pod_cidr_network:
            raise ValueError("peers_from_nodes needs pod_cidr_network: the network of the Nodes' podCIDRs")


class Follower:
    """The snapshots of a scope. Each kind has a thread; one lock guards all that these change."""

    def __init__(self, node: str, scope: Scope, times: Times, make_client: Callable[[], KubeClient]) -> None:
        self._node, self._scope, self._times, self._make_client = node, scope, times, make_client
        self._content = Content()
        self._assigned: Mapping[str, tuple[Cidr, ...]] = {}
        self._changed = threading.Condition()
        self._is_dirty = self._is_closed = False
        self._collections: list[Collection] = []
        if scope.claims_blocks:
            self._add("pools", kube_objects.read_pool)
            self._add("blocks", kube_objects.read_block)
        if not scope.peers_from_nodes:
            self._add("peers", kube_objects.read_peer)
        if scope.pod_cidr_network:
            selector = "" if scope.peers_from_nodes else f"metadata.name={node}"
            self._collect(NODES, self._replace_nodes, self._change_node, selector, times.page // NODE_WEIGHT or 1)

    @property
    def events(self) -> int:
        """Return the number of changes heard so far."""
        return sum(one.events for one in self._collections)

    def run(self, take: Callable[[Snapshot], None]) -> None:
        """Give each new state to `take`, until `close`."""
        threads = [threading.Thread(target=one.run, name=one.path, daemon=True) for one in self._collections]
        for thread in threads:
            thread.start()
        before = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_dirty or self._is_closed)
                if self._is_closed:
                    break
                self._is_dirty = False
                snapshot = self._snapshot()
            if snapshot != before:  # a Node's heartbeat changes nothing
                before = snapshot
                take(snapshot)
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """End `run`, from any thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for one in self._collections:
            one.close()

    def keep(self, peer: Peer) -> None:
        """Put the node's own peer into the snapshots, where no Peer objects are."""
        with self._changed:
            self._content.put(f"nodes/{peer.node}", codec.peer_value(peer), lambda: peer)
        self._tell()

    def _snapshot(self) -> Snapshot:
        failure = "; ".join(sorted({one.failure for one in self._collections if one.failure}))
        if not all(one.is_complete for one in self._collections):
            return Snapshot(failure=failure)  # a part of the objects would look like the loss of the others
        return replace(self._content.snapshot(is_current=not failure, failure=failure), assigned=self._assigned)

    def _tell(self) -> None:
        with self._changed:
            self._is_dirty = True
            self._changed.notify_all()

    def _collect(
        self,
        path: str,
        exchange: Callable[[list[Object]], None],
        change: Callable[[str, Object], None],
        selector: str = "",
        page: int = 0,
    ) -> None:
        self._collections.append(
            Collection(
                self._make_client(),
                path,
                replace(self._times, page=page or self._times.page),
                selector=selector,
                replace=exchange,
                change=change,
                tell=self._tell,
            )
        )

    def _add(self, plural: str, read: Callable[[Object], codec.Thing]) -> None:
        """Follow a kind whose objects are in the snapshot as `read` returns them."""
        prefix = "nodes/" if plural == "peers" else f"{plural}/"

        def put(found: Object) -> str:
            key = kube_objects.key(plural, found)
            self._content.put(key, found.get("spec"), partial(read, found))
            return key

        def exchange(items: list[Object]) -> None:
            with self._changed:
                kept = {put(found) for found in items}
                for key in self._content.keys() - kept:
                    if key.startswith(prefix):
                        self._content.drop(key)

        def change(kind: str, found: Object) -> None:
            with self._changed:
                if kind == "DELETED":
                    self._content.drop(kube_objects.key(plural, found))
                else:
                    put(found)

        self._collect(f"{BASE}/{plural}", exchange, change)

    def _replace_nodes(self, items: list[Object]) -> None:
        with self._changed:
            names = {found["metadata"]["name"] for found in items}
            if self._scope.peers_from_nodes:
                for key in self._content.keys() - {f"nodes/{name}" for name in names | {self._node}}:
                    if key.startswith("nodes/"):
                        self._content.drop(key)
            if self._node not in names:
                self._assigned = {self._scope.pod_cidr_network: ()}
            for found in items:
                self._put_node(found)

    def _change_node(self, kind: str, found: Object) -> None:
        with self._changed:
            if kind != "DELETED":
                self._put_node(found)
            elif found["metadata"]["name"] == self._node:
                self._assigned = {self._scope.pod_cidr_network: ()}
            else:
                self._content.drop(f"nodes/{found['metadata']['name']}")

    def _put_node(self, found: Object) -> None:
        """Read a Node: the own one's CIDRs, or another one as a peer."""
        network, name = self._scope.pod_cidr_network, found["metadata"]["name"]
        if name != self._node:
            self._content.put(f"nodes/{name}", found.get("spec"), partial(kube_objects.read_node, found, network))
            return
        key = f"assigned/{name}"
        self._content.drop(key)
        try:
            self._assigned = {network: kube_objects.pod_cidrs(found)}
        except Unreadable as error:  # the ranges of before stay: pods have addresses of them
            self._content.put(key, found.get("spec"), partial(_raise, error))


def _raise(error: Unreadable) -> codec.Thing:
    raise error
