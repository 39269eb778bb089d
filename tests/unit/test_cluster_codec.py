"""Objects of a cluster as JSON values, and any other value."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cluster import codec
from shared.cluster.codec import Content, Unreadable
from shared.cluster.model import Block, Kind, Peer, Pool, Range, State

CIDR, CIDR6 = IPv4Network("10.4.0.0/24"), IPv6Network("fd04::/80")
BLOCK = Block("pods", CIDR, "one", "uid-1", 1790000000.125, State.DRAINING, "7")
PEER = Peer(
    "one", "uid-1", (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")), {"pods": (CIDR, CIDR6), "other": ()},
    1790000000.0, "02:00:00:00:00:01", f"{'A' * 43}=", "8",
)  # fmt: skip
POOL = Pool(
    "pods", Kind.SEGMENT, (Range(IPv4Network("10.4.0.0/16"), 28, IPv4Address("10.4.0.1")), Range(IPv6Network("fd04::/64"), 80))
)  # fmt: skip
TEXTS = st.text(max_size=8) | st.sampled_from(["owned", "routed", "10.4.0.0/24", "192.0.2.1"])
NAMES = st.sampled_from(["node", "nodeUID", "state", "kind", "ranges", "cidr", "cidrs", "addresses", "uid", "since"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=8,
)


def through_json(value: object) -> object:
    return codec.parse(codec.serialise(value))


def test_each_object_survives() -> None:
    assert codec.to_block("pods", CIDR, through_json(codec.block_value(BLOCK)), "7") == BLOCK
    assert codec.to_peer("one", through_json(codec.peer_value(PEER)), "8") == PEER
    assert codec.to_pool("pods", through_json(codec.pool_value(POOL))) == POOL
    bare = replace(PEER, addresses=(), cidrs={}, vtep_mac="", public_key="")
    assert codec.to_peer("one", through_json(codec.peer_value(bare)), "8") == bare


def test_a_value_lacks_its_key() -> None:
    text = codec.serialise(codec.block_value(BLOCK)) + codec.serialise(codec.pool_value(POOL))
    assert b"pods" not in text and str(CIDR).encode() not in text


def test_a_wrong_pool_is_not_written() -> None:
    wide, narrow = POOL.ranges[0], Range(IPv4Network("10.4.7.0/24"), 28)
    with pytest.raises(Unreadable, match="overlaps"):
        codec.pool_value(replace(POOL, ranges=(wide, narrow)))
    with pytest.raises(Unreadable, match="network is 'a/b'"):
        codec.pool_value(replace(POOL, network="a/b"))


def test_fields_of_a_later_release_are_passed_over() -> None:
    assert codec.to_block("pods", CIDR, {**codec.block_value(BLOCK), "more": 1}, "7") == BLOCK


@given(VALUES)
def test_any_value(value: object) -> None:
    for read in (
        lambda: codec.to_block("pods", CIDR, value, "1"),
        lambda: codec.to_pool("pods", value),
        lambda: codec.to_peer("one", value, "1"),
        lambda: codec.to_cidr(value),
    ):
        message = ""
        try:
            read()
        except Unreadable as error:
            message = str(error)
        assert message.isprintable()


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    message = ""
    try:
        codec.parse(data)
    except Unreadable as error:
        message = str(error)
    assert message.isprintable()


def test_deep_json() -> None:
    with pytest.raises(Unreadable):
        codec.parse(b"[" * 100_000)


@pytest.mark.parametrize(
    ("value", "field", "wrong"),
    [
        (codec.block_value(BLOCK), "node", "a b"),
        (codec.block_value(BLOCK), "node", "../x"),
        (codec.block_value(BLOCK), "nodeUID", ""),
        (codec.block_value(BLOCK), "nodeUID", 7),
        (codec.block_value(BLOCK), "since", True),
        (codec.block_value(BLOCK), "since", math.nan),
        (codec.block_value(BLOCK), "since", -1),
        (codec.block_value(BLOCK), "since", 1e300),
        (codec.block_value(BLOCK), "state", "free"),
        (codec.block_value(BLOCK), "state", []),
    ],
)
def test_wrong_block(value: dict[str, Any], field: str, wrong: object) -> None:
    with pytest.raises(Unreadable, match=f"^{field} is "):
        codec.to_block("pods", CIDR, {**value, field: wrong}, "7")
    with pytest.raises(Unreadable, match=f"^{field} is None"):
        codec.to_block("pods", CIDR, {key: one for key, one in value.items() if key != field}, "7")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("uid", None),
        ("addresses", ["192.0.2.1", "192.0.2.2"]),
        ("addresses", ["127.0.0.1"]),
        ("addresses", ["fe80::1"]),
        ("addresses", ["224.0.0.1"]),
        ("addresses", ["::"]),
        ("addresses", "192.0.2.1"),
        ("addresses", ["192.0.2.1", "2001:db8::1", "2001:db8::2"]),
        ("cidrs", {"pods": ["10.4.0.1/24"]}),
        ("cidrs", {"pods": ["0.0.0.0/0"]}),
        ("cidrs", {"pods": ["fd04:0::/80"]}),
        ("cidrs", {"pods": [7]}),
        ("cidrs", {"a/b": []}),
        ("cidrs", {f"n{number}": [] for number in range(1000)}),
        ("vtepMAC", "01:00:00:00:00:01"),
        ("vtepMAC", "02:00:00:00:00:0A"),
        ("vtepMAC", None),
        ("publicKey", "AAAA"),
        ("publicKey", "\xe9"),
        ("publicKey", 7),
    ],
)
def test_wrong_peer(field: str, wrong: object) -> None:
    with pytest.raises(Unreadable, match=f"^{field}"):
        codec.to_peer("one", {**codec.peer_value(PEER), field: wrong}, "7")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("kind", "other"),
        ("ranges", {}),
        ("ranges", [{"cidr": "10.4.0.0/16", "blockLength": 15}]),
        ("ranges", [{"cidr": "10.4.0.0/16", "blockLength": 33}]),
        ("ranges", [{"cidr": "10.4.0.0/16", "blockLength": True}]),
        ("ranges", [{"cidr": "10.4.0.0/16", "blockLength": 24, "gateway": "10.5.0.1"}]),
        ("ranges", [{"cidr": "10.4.0.0/16", "blockLength": 24}, {"cidr": "10.4.7.0/24", "blockLength": 24}]),
        ("ranges", [7]),
    ],
)
def test_wrong_pool(field: str, wrong: object) -> None:
    with pytest.raises(Unreadable, match=f"^{field}"):
        codec.to_pool("pods", {**codec.pool_value(POOL), field: wrong})


def test_messages_are_short() -> None:
    with pytest.raises(Unreadable, match=r"x… \(1000002 characters\)"):
        codec.to_block("pods", CIDR, {"node": "x" * 1_000_000}, "7")


def test_content_is_copied_on_write() -> None:
    content = Content()
    content.put("blocks/a", b"", lambda: BLOCK)
    content.put("nodes/one", b"", lambda: PEER)
    before = content.snapshot(is_current=True)
    content.put("blocks/a", b"", lambda: replace(BLOCK, revision="9"))
    after = content.snapshot(is_current=False, failure="why")
    assert before.blocks[("pods", CIDR)] == BLOCK and after.blocks[("pods", CIDR)].revision == "9"
    assert before.peers is after.peers
    assert (before.is_current, after.is_current, after.failure) == (True, False, "why")


def test_content_moves_an_object() -> None:
    """A key whose object turns unreadable, readable, or of another name leaves nothing behind."""
    content = Content()
    content.put("a", "good", lambda: BLOCK)
    content.put("a", "bad", lambda: codec.to_block("pods", CIDR, "bad", "1"))
    state = content.snapshot(is_current=True)
    assert not state.blocks
    assert state.unreadable == {"a": "a: the value is 'bad'; an object is expected; the object is 'bad'"}
    content.put("a", "good", lambda: replace(BLOCK, network="other"))
    content.put("a", "good", lambda: BLOCK)
    state = content.snapshot(is_current=True)
    assert state.blocks == {("pods", CIDR): BLOCK} and not state.unreadable and content.keys() == {"a"}
    content.drop("a")
    content.drop("a")
    state = content.snapshot(is_current=True)
    assert not state.blocks and not content.keys()


def test_serialised_once() -> None:
    """The same object is the same text, so that a comparison of values is one of bytes."""
    assert (
        codec.serialise({"b": 1, "a": [2]}) == b'{"a":[2],"b":1}' == codec.serialise(json.loads('{"a": [2], "b": 1}'))
    )
