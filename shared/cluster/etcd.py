"""The engine on etcd v3. Keys below the prefix are blocks/NETWORK/CIDR, nodes/NODE, pools/NETWORK, alive/NODE/UID.

Blocks and nodes have no lease: ownership never expires. Only the last kind has one, for people and alarms.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from shared.cluster import codec
from shared.cluster.connection import Endpoint, Tls
from shared.cluster.engine import Counts, EngineError, Refused, Taken
from shared.cluster.etcd_follow import BLOCKS, NODES, POOLS, Follower, Pace, read_block
from shared.cluster.etcd_gateway import Entry, Gateway, encode, read_entries, read_header, read_swap
from shared.cluster.http import Client
from shared.cluster.model import Block, Cidr, Peer, Pool, Revision, Snapshot

ALIVE = "alive/"
ALIVE_SECONDS = 60  # the lease of a node's sign of life
ALIVE_TIMEOUT_SECONDS = 2.0  # nothing waits for it, and the watch is not read meanwhile


@dataclass(frozen=True)
class Settings:
    """How to reach a cluster of etcd."""

    endpoints: tuple[str, ...]
    tls: Tls = field(default_factory=Tls)
    user: str = ""
    password: str = field(default="", repr=False)
    prefix: str = "/pycni/v1/"
    pace: Pace = field(default_factory=Pace)


class Etcd:
    """An `Engine` on etcd. Raises ValueError for an endpoint that is none, or that a password must not be sent to."""

    def __init__(self, settings: Settings) -> None:
        for url in settings.endpoints if settings.user else ():
            endpoint = Endpoint.of(url)
            if not endpoint.is_tls and not endpoint.is_loopback:
                raise ValueError(f"{url}: a password goes over https alone, but to loopback addresses")
        self._prefix = settings.prefix
        self._pace = settings.pace
        self._client = Client(settings.endpoints, settings.tls, timeout_seconds=settings.pace.timeout)
        self._gateway = Gateway(self._client, settings.user, settings.password)
        self._closed = threading.Event()
        self._follower: Follower | None = None
        self._alive = Alive(self._gateway, settings.prefix)

    def follow(self, take: Callable[[Snapshot], None]) -> None:
        """Read everything, then watch, until `close`."""
        self._follower = Follower(self._gateway, self._prefix, self._pace, take, self._alive.beat)
        self._follower.run(self._closed)

    def close(self) -> None:
        """End `follow`, and every request in progress."""
        self._closed.set()
        self._client.close()

    def claim(self, block: Block) -> Block:
        """Create the block, in one transaction that finds no such key. Raise Taken if there is one."""
        key = _block_key(block.network, block.cidr)
        return replace(block, revision=self._swap(key, "CREATE", 0, [self._put(key, codec.block_value(block))]))

    def read_block(self, network: str, cidr: Cidr) -> Block | None:
        """Return the block as the quorum has it; None without one."""
        key = _block_key(network, cidr)
        entries = self._read(key)
        return _read_block(key, entries[0]) if entries else None

    def update_block(self, block: Block) -> Block:
        """Write the block if it still has its revision. Raise Taken otherwise."""
        key, revision = _block_key(block.network, block.cidr), _number(block.revision)
        return replace(block, revision=self._swap(key, "MOD", revision, [self._put(key, codec.block_value(block))]))

    def release(self, block: Block) -> None:
        """Delete the block if it still has its revision. Raise Taken otherwise; one that is gone is a success."""
        self._delete(_block_key(block.network, block.cidr), _number(block.revision))

    def announce(self, peer: Peer) -> Peer:
        """Write this node's own peer object, whatever its revision."""
        revision = self._write(f"{NODES}{codec.to_name(peer.node, 'node')}", codec.peer_value(peer))
        return replace(peer, revision=revision)

    def withdraw(self, peer: Peer) -> None:
        """Delete a peer object if it still has its revision. Raise Taken otherwise; one that is gone is a success."""
        self._delete(f"{NODES}{codec.to_name(peer.node, 'node')}", _number(peer.revision))

    def show_life(self, node: str, uid: str) -> None:
        """Let `follow` keep this machine's key with a lease from now on."""
        self._alive.name = f"{codec.to_name(node, 'node')}/{uid}"

    def find_life_refusal(self) -> str:
        """Return why etcd does not let this machine keep its key; empty if it does."""
        return self._alive.refusal

    def find_life(self, node: str, uid: str) -> str:
        """Return the sign of life of a machine's agent, which keeps a key with a lease; empty without one."""
        key = f"{ALIVE}{codec.to_name(node, 'node')}/{uid}"
        if not self._read(key):
            return ""
        return f"its agent has renewed the key {self._prefix}{key} in the last {ALIVE_SECONDS} seconds"

    def write_pool(self, pool: Pool) -> None:
        """Write a pool."""
        self._write(f"{POOLS}{codec.to_name(pool.network, 'network')}", codec.pool_value(pool))

    def counts(self) -> Counts:
        """Return the requests, bytes and events so far."""
        traffic, events = self._client.traffic, self._follower.events if self._follower else 0
        return Counts(traffic.requests, traffic.sent_bytes, traffic.received_bytes, events)

    def _key(self, name: str) -> bytes:
        return f"{self._prefix}{name}".encode()

    def _read(self, name: str) -> list[Entry]:
        """Return the key as the quorum has it, none if it does not exist."""
        asked = {"key": encode(self._key(name))}
        answer = self._gateway.call("/v3/kv/range", asked, timeout_seconds=self._pace.timeout)
        read_header(answer)  # without one it is no answer, and proves nothing
        return read_entries(answer)

    def _delete(self, name: str, revision: int) -> None:
        delete = {"request_delete_range": {"key": encode(self._key(name))}}
        self._swap(name, "MOD", revision, [delete], is_gone_fine=True)

    def _put(self, name: str, value: object) -> object:
        return {"request_put": {"key": encode(self._key(name)), "value": encode(codec.serialise(value))}}

    def _write(self, name: str, value: object) -> Revision:
        put = {"key": encode(self._key(name)), "value": encode(codec.serialise(value))}
        answer = self._gateway.call("/v3/kv/put", put, timeout_seconds=self._pace.timeout)
        return str(read_header(answer).revision)

    def _swap(
        self, name: str, target: str, revision: int, changes: list[Any], *, is_gone_fine: bool = False
    ) -> Revision:
        """Make the changes if the key's revision of creation or modification is this one. Return the new revision."""
        key = encode(self._key(name))
        field_name = {"CREATE": "create_revision", "MOD": "mod_revision"}[target]
        transaction = {
            "compare": [{"key": key, "target": target, "result": "EQUAL", field_name: str(revision)}],
            "success": changes,
            "failure": [{"request_range": {"key": key}}],
        }
        answer = self._gateway.call("/v3/kv/txn", transaction, timeout_seconds=self._pace.timeout)
        header, (is_done, found) = read_header(answer), read_swap(answer)
        if not is_done and not (is_gone_fine and not found):
            raise Taken(f"{name}: {_described(name, found)}")
        return str(header.revision)


class Alive:
    """A key with a lease, which says that the node's agent runs. Nothing depends on it."""

    def __init__(self, gateway: Gateway, prefix: str) -> None:
        self.name = ""  # NODE/UID; none before `show_life`
        self.refusal = ""  # of the last beat
        self._gateway = gateway
        self._prefix = prefix
        self._lease = ""
        self._next = 0.0

    def beat(self) -> None:
        """Renew the lease when a third of it has passed. A failure is for the next beat."""
        if not self.name or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + ALIVE_SECONDS / 3
        try:
            kept = self._call("lease/keepalive", ID=self._lease).get("result") if self._lease else None
            if not isinstance(kept, dict) or not kept.get("TTL"):
                self._lease = str(self._call("lease/grant", TTL=str(ALIVE_SECONDS)).get("ID", ""))
                self._call("kv/put", key=encode(f"{self._prefix}{ALIVE}{self.name}".encode()), lease=self._lease)
            self.refusal = ""
        except Refused as error:
            self._lease, self.refusal = "", str(error)
        except EngineError:
            self._lease = ""

    def _call(self, name: str, **document: object) -> dict[str, Any]:
        return self._gateway.call(f"/v3/{name}", document, timeout_seconds=ALIVE_TIMEOUT_SECONDS)


def _block_key(network: str, cidr: Cidr) -> str:
    return f"{BLOCKS}{codec.to_name(network, 'network')}/{cidr}"


def _number(revision: Revision) -> int:
    """Return a revision of this engine. Raise Taken for another text, which no block has."""
    if not revision.isascii() or not revision.isdecimal() or not int(revision):
        raise Taken(f"{revision!r} is not a revision in etcd, so no block has it")
    return int(revision)


def _read_block(name: str, entry: Entry) -> Block:
    """Return the block of a key. Raise EngineError, naming key and value, if it is none."""
    try:
        return read_block(name.removeprefix(BLOCKS), entry.value or b"", entry.revision)
    except codec.Unreadable as error:
        raise EngineError(f"{name}: {error}; the object is {codec.shown(entry.value)}") from None


def _described(name: str, found: list[Entry]) -> str:
    if not found:
        return "the block is gone"
    if not name.startswith(BLOCKS):
        return f"somebody has written it, at revision {found[0].revision}"
    try:
        block = _read_block(name, found[0])
    except EngineError as error:
        return f"somebody has it, but {error}"
    return f"node {block.node} ({block.uid}) has it, at revision {block.revision}"
