"""The cluster's objects as JSON values, and back, whoever wrote them.

A value lacks the facts that its key or its object's name has. An object that cannot be read is reported by its key and
left out, and the others are as good as before.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable
from sys import intern
from typing import Any, TypeVar

from shared.cluster.model import Address, Block, Cidr, Kind, Peer, Pool, Range, Revision, Snapshot, State

LONGEST_NAME = 253  # characters of a node's name, as in Kubernetes
MOST_RANGES, MOST_NETWORKS, MOST_CIDRS = 64, 256, 1024  # of one object
LAST_SECOND = 1e11  # since 1970; NaN is not below it
SHOWN_CHARACTERS = 120  # of a value in a message
PUBLIC_KEY_BYTES = 32
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")  # CNI's rule for networks; the names of nodes have fewer characters
UID = re.compile(r"[\x21-\x7e]{1,128}")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
Thing = Pool | Block | Peer
E = TypeVar("E", Kind, State)


class Unreadable(ValueError):
    """An object in the engine is not as it must be."""


def parse(data: bytes) -> object:
    """Return the JSON value in `data`. Raise Unreadable for anything else."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{shown(data)} is not JSON: {error}") from None


def serialise(value: object) -> bytes:
    """Return a value as compact JSON."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def shown(value: object) -> str:
    """Return a value for a message: printable, and not long."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"


def to_name(text: object, what: str) -> str:
    """Return the name of a network or a node. Raise Unreadable for anything else."""
    if not isinstance(text, str) or not NAME.fullmatch(text) or len(text) > LONGEST_NAME:
        raise Unreadable(f"{what} is {shown(text)}; a name has 1-{LONGEST_NAME} letters, digits, '.', '_' and '-'")
    return intern(text)  # each node's name and id is in several objects


def to_cidr(text: object, what: str = "CIDR") -> Cidr:
    """Return a CIDR of unicast addresses in its one canonical form. Raise Unreadable for anything else."""
    try:
        cidr = ipaddress.ip_network(text if isinstance(text, str) else "")
    except ValueError:
        raise Unreadable(f"{what} is {shown(text)}; a network such as 10.4.0.0/24 is expected") from None
    if str(cidr) != text:
        raise Unreadable(f"{what} is {shown(text)}; its canonical form is {cidr}")
    if not cidr.prefixlen or not is_unicast(cidr.network_address):
        raise Unreadable(f"{what} is {cidr}; it must have unicast addresses only")
    return cidr


def block_value(block: Block) -> dict[str, object]:
    """Return a block's value, to be stored below its network and CIDR."""
    return {"node": block.node, "nodeUID": block.uid, "since": block.since, "state": block.state.value}


def to_block(network: str, cidr: Cidr, value: object, revision: Revision) -> Block:
    """Return the block of a value. Raise Unreadable if it is none."""
    fields = _object(value, "the value")
    return Block(
        to_name(network, "network"), cidr, to_name(fields.get("node"), "node"), _uid(fields.get("nodeUID"), "nodeUID"),
        _seconds(fields.get("since"), "since"), _member(State, fields.get("state"), "state"), revision,
    )  # fmt: skip


def pool_value(pool: Pool) -> dict[str, object]:
    """Return a pool's value, to be stored below its network. Raise Unreadable for a pool that no node could use."""
    ranges: list[dict[str, object]] = []
    for one in pool.ranges:
        gateway = {"gateway": str(one.gateway)} if one.gateway else {}
        ranges.append({"cidr": str(one.cidr), "blockLength": one.block_length, **gateway})
    value: dict[str, object] = {"kind": pool.kind.value, "ranges": ranges}
    to_pool(pool.network, value)
    return value


def to_pool(network: str, value: object) -> Pool:
    """Return the pool of a value. Raise Unreadable if it is none."""
    fields = _object(value, "the value")
    kind = _member(Kind, fields.get("kind"), "kind")
    listed = _list(fields.get("ranges"), "ranges", MOST_RANGES)
    ranges = tuple(_range(one, f"ranges[{at}]") for at, one in enumerate(listed))
    for at, one in enumerate(ranges):
        for other in ranges[:at]:
            if one.cidr.version == other.cidr.version and one.cidr.overlaps(other.cidr):
                raise Unreadable(f"ranges[{at}].cidr is {one.cidr}, which overlaps with {other.cidr}")
    return Pool(to_name(network, "network"), kind, ranges)


def peer_value(peer: Peer) -> dict[str, object]:
    """Return a peer's value, to be stored below its node's name."""
    return {
        "uid": peer.uid,
        "addresses": [str(address) for address in peer.addresses],
        "cidrs": {network: [str(cidr) for cidr in cidrs] for network, cidrs in peer.cidrs.items()},
        "since": peer.since,
        **({"vtepMAC": peer.vtep_mac} if peer.vtep_mac else {}),
        **({"publicKey": peer.public_key} if peer.public_key else {}),
    }


def to_peer(node: str, value: object, revision: Revision) -> Peer:
    """Return the peer of a value. Raise Unreadable if it is none."""
    fields = _object(value, "the value")
    addresses = tuple(_address(one, "addresses") for one in _list(fields.get("addresses"), "addresses", 2))
    if len({address.version for address in addresses}) < len(addresses):
        raise Unreadable(f"addresses is {shown(fields['addresses'])}; at most one of each family is expected")
    networks = _object(fields.get("cidrs"), "cidrs")
    if len(networks) > MOST_NETWORKS:
        raise Unreadable(f"cidrs has {len(networks)} networks; at most {MOST_NETWORKS} are expected")
    cidrs = {
        to_name(network, "cidrs' network"): tuple(
            to_cidr(one, f"cidrs.{network}") for one in _list(found, f"cidrs.{network}", MOST_CIDRS)
        )
        for network, found in networks.items()
    }
    return Peer(
        to_name(node, "node"), _uid(fields.get("uid"), "uid"), addresses, cidrs, _seconds(fields.get("since"), "since"),
        _mac(fields.get("vtepMAC", ""), "vtepMAC"), _public_key(fields.get("publicKey", ""), "publicKey"), revision,
    )  # fmt: skip


class Content:
    """The objects of an engine by their keys, and the snapshots that they make.

    Snapshots share a map until something in it changes.
    """

    def __init__(self) -> None:
        self._maps: dict[type, dict[Any, Any]] = {Pool: {}, Block: {}, Peer: {}, Unreadable: {}}
        self._shared: set[type] = set()
        self._places: dict[str, tuple[type, object]] = {}

    def keys(self) -> set[str]:
        """Return the keys of all objects, the unreadable ones too."""
        return set(self._places)

    def put(self, key: str, value: object, read: Callable[[], Thing]) -> None:
        """Set the object of a key as `read` returns it. Note the Unreadable that it raises, with key and value."""
        found: Thing | str
        place: tuple[type, object]
        try:
            found = read()
            place = type(found), _index(found)
        except Unreadable as error:
            found = f"{key}: {error}; the object is {shown(value)}"
            place = Unreadable, key
        if self._places.get(key) != place:
            self.drop(key)
        self._places[key] = place
        self._own(place[0])[place[1]] = found

    def drop(self, key: str) -> None:
        """Remove the object of a key, if there is one."""
        if place := self._places.pop(key, None):
            del self._own(place[0])[place[1]]

    def snapshot(self, *, is_current: bool, failure: str = "") -> Snapshot:
        """Return the state as it is now. Later changes do not touch it."""
        self._shared.update(self._maps)
        pools, blocks, peers, unreadable = self._maps.values()
        return Snapshot(pools, blocks, peers, is_current=is_current, unreadable=unreadable, failure=failure)

    def _own(self, kind: type) -> dict[Any, Any]:
        """Return a map that no snapshot has."""
        if kind in self._shared:
            self._maps[kind] = dict(self._maps[kind])
            self._shared.remove(kind)
        return self._maps[kind]


def _index(thing: Thing) -> object:
    if isinstance(thing, Pool):
        return thing.network
    return (thing.network, thing.cidr) if isinstance(thing, Block) else thing.node


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable(f"{what} is {shown(value)}; an object is expected")
    return value


def _list(value: object, what: str, most: int) -> list[object]:
    if not isinstance(value, list):
        raise Unreadable(f"{what} is {shown(value)}; a list is expected")
    if len(value) > most:
        raise Unreadable(f"{what} has {len(value)} entries; at most {most} are expected")
    return value


def _uid(value: object, what: str) -> str:
    if not isinstance(value, str) or not UID.fullmatch(value):
        raise Unreadable(f"{what} is {shown(value)}; 1-128 printable characters are expected")
    return intern(value)


def _seconds(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
        raise Unreadable(f"{what} is {shown(value)}; seconds since 1970 are expected")
    return float(value)


def _member(kinds: type[E], value: object, what: str) -> E:
    try:
        return kinds(value)
    except ValueError:
        raise Unreadable(f"{what} is {shown(value)}; expected {' or '.join(one.value for one in kinds)}") from None


def _range(value: object, what: str) -> Range:
    fields = _object(value, what)
    cidr, length = to_cidr(fields.get("cidr"), f"{what}.cidr"), fields.get("blockLength")
    if isinstance(length, bool) or not isinstance(length, int) or not cidr.prefixlen <= length <= cidr.max_prefixlen:
        raise Unreadable(f"{what}.blockLength is {shown(length)}; {cidr.prefixlen}-{cidr.max_prefixlen} is expected")
    gateway = None if fields.get("gateway") is None else _address(fields["gateway"], f"{what}.gateway")
    if gateway is not None and gateway not in cidr:
        raise Unreadable(f"{what}.gateway is {gateway}, which is not in {cidr}")
    return Range(cidr, length, gateway)


def _address(value: object, what: str) -> Address:
    try:
        address = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise Unreadable(f"{what} is {shown(value)}; an IP address is expected") from None
    if not is_unicast(address) or getattr(address, "scope_id", None):
        raise Unreadable(f"{what} is {address}; a unicast address that other nodes can reach is expected")
    return address


def is_unicast(address: Address) -> bool:
    """Return True if one host has the address, and hosts on other links can reach it."""
    return not (address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local)


def _mac(value: object, what: str) -> str:
    if value != "" and (not isinstance(value, str) or not MAC.fullmatch(value) or int(value[:2], 16) & 1):
        raise Unreadable(f"{what} is {shown(value)}; a unicast MAC address in lower case is expected")
    return str(value)


def _public_key(value: object, what: str) -> str:
    try:
        if value == "" or (isinstance(value, str) and len(base64.b64decode(value, validate=True)) == PUBLIC_KEY_BYTES):
            return str(value)
    except (binascii.Error, ValueError):
        pass
    raise Unreadable(f"{what} is {shown(value)}; {PUBLIC_KEY_BYTES} bytes in base64 are expected")
