"""A node's knowledge of its cluster: pools, blocks and peers in the engine, and its own ranges, leases and routes.

All of it is plain values. shared/cluster/decide.py turns them into actions and touches nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Cidr = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Revision = str  # opaque: the engine's name of one version of an object, for compare-and-swap


class State(enum.Enum):
    """A block's state in the engine."""

    OWNED = "owned"
    DRAINING = "draining"  # in no conflist: it is given back when no pod has an address of it


class Kind(enum.Enum):
    """The use that a network makes of its blocks."""

    ROUTED = "routed"  # a pod network: the nodes route to each other's blocks
    SEGMENT = "segment"  # one layer-2 segment over all nodes: unique addresses, no routes


@dataclass(frozen=True)
class Range:
    """One family of a pool: blocks of `block_length` are cut from `cidr`. A segment has its own subnet and gateway."""

    cidr: Cidr
    block_length: int  # bits of the prefix
    gateway: Address | None = None


@dataclass(frozen=True)
class Pool:
    """One network's addresses, which the administrator sets. New blocks are of the first range with a free one."""

    network: str
    kind: Kind
    ranges: tuple[Range, ...]


@dataclass(frozen=True)
class Block:
    """A claim: the addresses of `cidr` belong to one node for one network. It has no expiry."""

    network: str
    cidr: Cidr
    node: str  # the owner's name, for people
    uid: str  # the owner: the machine's own id, which survives a boot, and a node deleted and registered again
    since: float  # seconds since 1970 by the owner's clock: of two owners the older one keeps the route
    state: State = State.OWNED
    revision: Revision = ""


@dataclass(frozen=True)
class Peer:
    """A node as the others see it: how to reach it, and the CIDRs behind it."""

    node: str
    uid: str
    addresses: tuple[Address, ...]  # of the node itself, at most one of each family
    cidrs: Mapping[str, tuple[Cidr, ...]]  # of each routed network
    since: float  # as in a block: when it announced itself first
    vtep_mac: str = ""  # of its VXLAN device, if it has one
    public_key: str = ""  # of its WireGuard device, if it has one
    revision: Revision = ""


@dataclass(frozen=True)
class Snapshot:
    """The engine's content at one revision. A watch keeps it current; `is_current` is False if that has stopped."""

    pools: Mapping[str, Pool] = field(default_factory=dict)
    blocks: Mapping[tuple[str, Cidr], Block] = field(default_factory=dict)
    peers: Mapping[str, Peer] = field(default_factory=dict)
    assigned: Mapping[str, tuple[Cidr, ...]] = field(default_factory=dict)  # by a controller (podCIDRs): never claimed
    is_current: bool = False
    unreadable: Mapping[str, str] = field(default_factory=dict)  # by the object's key: why it is in none of the maps
    failure: str = ""  # why it is not current, for people

    @cached_property
    def by_owner(self) -> Mapping[str, list[Block]]:
        """The blocks by the ids, and by the names, of their owners."""
        found: dict[str, list[Block]] = {}
        for block in self.blocks.values():
            found.setdefault(block.uid, []).append(block)
            if block.node != block.uid:
                found.setdefault(block.node, []).append(block)
        return found

    @cached_property
    def spans(self) -> dict[tuple[str, Range], list[tuple[int, int]]]:
        """The taken parts of networks' ranges, as far as shared/cluster/claims.py has computed them."""
        return {}


@dataclass(frozen=True)
class Held:
    """A block or an assigned CIDR on this node, by local truth alone: host-local's store, conflist and checkpoint.

    `is_draining` is an intention. Mark(DRAINING) writes it to the checkpoint before its request. Mark(OWNED) removes it
    after its success. `empty_since` is not in the checkpoint: after a restart the grace begins again.
    """

    network: str
    cidr: Cidr
    used: int  # leases in it
    is_published: bool  # it is a range of the conflist, so that an ADD can lease from it
    since: float  # of the claim
    is_assigned: bool = False  # by a controller: never claimed, never released
    is_draining: bool = False
    empty_since: float | None = None  # monotonic seconds at which it was first seen unpublished and without leases


@dataclass(frozen=True)
class Attempt:
    """A claim whose answer is not known, or was "taken": the next one takes another block.

    It is in the checkpoint before the request of a Claim. A success removes the network's attempts of that family.
    """

    network: str
    cidr: Cidr
    is_open: bool  # the answer was lost: read the block by name before anything else


@dataclass(frozen=True)
class Route:
    """The way to a peer's CIDR: through an address on a link of this node, or through the tunnel to the peer.

    Of a tunnelled route, `via` is the peer's own address, of either family. A refused route has no way: this node
    encrypts, and packets to these addresses would leave in clear. Its `via` is the CIDR's first address.
    """

    cidr: Cidr
    node: str
    via: Address
    is_tunnelled: bool
    mac: str = ""  # of the peer's VXLAN device, if that is the tunnel
    key: str = ""  # the peer's public key, if the tunnel is WireGuard's
    is_refused: bool = False


@dataclass(frozen=True)
class Node:
    """The node itself, and the limits of the administrator."""

    name: str
    uid: str
    addresses: tuple[Address, ...]
    links: tuple[Cidr, ...] = ()  # networks of its own links: a peer within them needs no tunnel
    low: float = 0.25  # claim another block if less than this part of a block is free
    grace_seconds: float = 300.0  # an unpublished block is released after so long without leases; longer than any ADD
    tunnels: bool | None = None  # True: to all peers, False: to none, None: to those that are on no own link
    vtep_mac: str = ""
    public_key: str = ""  # of its WireGuard device
    encrypts: bool = False  # all packets to other nodes' pods, by WireGuard
    encryption_failure: str = ""  # why it cannot, for people
    cluster_cidrs: tuple[Cidr, ...] = ()  # of networks without a pool: nothing leaves to them in clear if it encrypts
    networks: frozenset[str] | None = None  # by name in the settings; None: all that have a pool


@dataclass(frozen=True)
class Local:
    """All that the node knows without the engine. It is enough to run pods with while the engine is down."""

    node: Node
    held: Mapping[tuple[str, Cidr], Held] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    routes: frozenset[Route] = frozenset()  # those of our own routing protocol number in the kernel
    kept_ranges: Mapping[str, tuple[Cidr, ...]] = field(default_factory=dict)  # of each Publish, from the checkpoint
    kept_routes: frozenset[Route] = frozenset()  # of the last SetRoutes, from the checkpoint: a boot empties the kernel
    wall_seconds: float = 0.0  # since 1970 by the node's clock: only for the `since` of a first announcement
    announced: Peer | None = None  # our own object, as we wrote it last
    vanished: frozenset[Cidr] = frozenset()  # were other nodes' blocks a moment ago: their owners may claim them again


@dataclass(frozen=True)
class Claim:
    """Create the block in the engine; that is the claim.

    If the engine says "taken", read the block by name: one of our own uid is a success. A block that is held already
    keeps its state on this node, and its `since`. A block of another uid leaves a closed attempt.
    """

    network: str
    cidr: Cidr


@dataclass(frozen=True)
class Confirm:
    """Read a block by name, not from a cache. One of our own uid becomes held.

    It has the engine's state after an attempt. Without one it is draining: after a restored backup another node may
    still use it, so that it is released or used again with a mark. Without a block, drop the attempt. A block of
    another uid closes it.
    """

    network: str
    cidr: Cidr


@dataclass(frozen=True)
class Publish:
    """Write the network's conflist with these ranges, the one to lease from first at the front of its family.

    The checkpoint has the ranges before the conflist has them. A CIDR that is not held is an assigned one: it becomes
    held. Without ranges the network is not ready.
    """

    network: str
    cidrs: tuple[Cidr, ...]


@dataclass(frozen=True)
class Mark:
    """Note the block's state in the engine, by compare-and-swap with the snapshot's revision."""

    block: Block
    state: State


@dataclass(frozen=True)
class Release:
    """Delete the block in the engine if it still has the snapshot's revision."""

    block: Block


@dataclass(frozen=True)
class Forget:
    """Drop a block from the checkpoint: it is not ours, and no pod has an address of it.

    With `is_attempt` drop only the note of an attempt.
    """

    network: str
    cidr: Cidr
    is_attempt: bool = False


@dataclass(frozen=True)
class Announce:
    """Write our own peer object."""

    peer: Peer


@dataclass(frozen=True)
class SetRoutes:
    """Make the kernel have exactly these routes of our own protocol number, and keep them in the checkpoint."""

    routes: frozenset[Route]


@dataclass(frozen=True)
class Alarm:
    """Tell people: in doctor, in metrics, in the log. `about` is a CIDR, a network or a node."""

    name: str  # such as "block-lost"
    about: str
    text: str  # object, observed, expected, next step


Action = Claim | Confirm | Publish | Mark | Release | Forget | Announce | SetRoutes | Alarm


@dataclass(frozen=True)
class Decision:
    """The actions to do, in this order, and the time to decide again if nothing happens before."""

    actions: tuple[Action, ...]
    again_seconds: float
