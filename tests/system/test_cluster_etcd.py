"""The engine on real etcd: the contract, and everything that may go wrong between a node and it."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from pathlib import Path

import pytest

from shared.cluster import codec
from shared.cluster.connection import Closed, HttpError, Silent, Tls
from shared.cluster.engine import EngineError, Refused, Taken
from shared.cluster.etcd import Etcd, Settings
from shared.cluster.etcd_gateway import encode
from shared.cluster.http import Client
from shared.cluster.model import Block, State
from tests import certificates
from tests.cluster_contract import CIDR, Connect, EngineContract, Following, block, peer, pool
from tests.etcd import CLIENT_PORT, NODE, NODE_PASSWORD, PACE, PREFIX, Cluster, running
from tests.pretend import until
from tests.relay import Hostile, Relay

CLAIMERS, FEW_BLOCKS = 500, 40
IMPATIENT = replace(PACE, sign=0.5, timeout=1)
LARGE_BYTES = 1_200_000  # etcd takes 1.5 MiB of a request
OTHER_CIDR = IPv4Network("10.4.1.0/24")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def etcd_program() -> str:
    """Return the etcd to run: this system's."""
    return "etcd"


@pytest.fixture(scope="module")
def running_plain(etcd_program: str) -> Iterator[Cluster]:
    """Run one member without TLS and users."""
    with running(program=etcd_program) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def running_secure(etcd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run one member that demands a client's certificate and a user."""
    authority = certificates.make(tmp_path_factory.mktemp("ca"))
    with running(authority=authority, program=etcd_program) as cluster:
        with cluster.netns:
            cluster.demand_users()
        yield cluster


@pytest.fixture
def plain(running_plain: Cluster) -> Iterator[Cluster]:
    with running_plain.netns:
        running_plain.empty()
        yield running_plain


@pytest.fixture
def secure(running_secure: Cluster) -> Iterator[Cluster]:
    with running_secure.netns:
        running_secure.empty()
        yield running_secure


@pytest.fixture
def relay(plain: Cluster) -> Iterator[Relay]:
    """Return a relay in front of `plain`, in whose network it listens."""
    assert plain.urls == (f"http://127.0.0.1:{CLIENT_PORT}",)
    with Relay(CLIENT_PORT) as relay:
        yield relay


class TestPlain(EngineContract):
    @pytest.fixture
    def connect(self, plain: Cluster) -> Connect:
        return plain.engine


class TestSecure(EngineContract):
    @pytest.fixture
    def connect(self, secure: Cluster) -> Connect:
        return secure.node


# --- what is in the store


def test_keys_and_leases(plain: Cluster) -> None:
    """Only the sign of life has a lease: ownership never expires."""
    with contextlib.closing(plain.engine()) as engine, Following(plain.engine()) as following:
        engine.claim(block())
        engine.write_pool(pool())
        following.engine.announce(peer())
        following.engine.show_life("one", "uid-one")
        until(lambda: "alive/one/uid-one" in set(plain.keys()))
        keys = plain.keys()
        assert "/pycni/v1/alive/one/uid-one" in engine.find_life("one", "uid-one")
        assert engine.find_life("one", "uid-two") == engine.find_life("two", "uid-one") == ""
    assert list(keys) == ["alive/one/uid-one", "blocks/pods/10.4.0.0/24", "nodes/one", "pools/pods"]
    assert [name for name, kv in keys.items() if "lease" in kv] == ["alive/one/uid-one"]
    assert plain.value("blocks/pods/10.4.0.0/24") == {
        "node": "one",
        "nodeUID": "uid-one",
        "since": 1790000000.25,
        "state": "owned",
    }


def test_a_sign_of_life_that_is_refused(secure: Cluster) -> None:
    """A user without the right to the key still hears everything."""
    span = {"key": encode(PREFIX.encode()), "range_end": encode(b"/pycni/v10")}
    secure.call("auth/role/add", name="reader")
    secure.call("auth/role/grant", name="reader", perm={"permType": "READ", **span})
    secure.call("auth/user/add", name="reader", password=NODE_PASSWORD)
    secure.call("auth/user/grant", user="reader", role="reader")
    with (
        contextlib.closing(Etcd(secure.settings(user="reader", password=NODE_PASSWORD))) as engine,
        Following(engine) as following,
    ):
        engine.show_life("one", "uid-one")
        until(lambda: "permission denied" in engine.find_life_refusal())
        following.until_current()
    with contextlib.closing(secure.node()) as engine, Following(engine):
        engine.show_life("one", "uid-one")
        until(lambda: engine.find_life("one", "uid-one") != "")
        assert engine.find_life_refusal() == ""


def test_the_alive_key_is_not_watched(plain: Cluster) -> None:
    with Following(plain.engine()) as following:
        following.until_current()
        following.engine.announce(peer())
        following.engine.show_life("one", "uid-one")
        until(lambda: "alive/one/uid-one" in set(plain.keys()))
        plain.put("pools/last", b"{}")
        following.until(lambda state: "pools/last" in state.unreadable)
        assert following.engine.counts().events == 2


HOSTILE = {
    "pools/x": b"",
    "pools/y": b"[" * 100_000,
    "pools/z": b'{"kind":"routed","ranges":[{"cidr":"10.0.0.0/16","blockLength":8}]}',
    "blocks/pods/10.4.9.0/24": b'{"node":"a b","nodeUID":"u","since":1,"state":"owned"}',
    "blocks/pods/10.4.8.0/24": b'{"node":"a","nodeUID":"u","since":NaN,"state":"owned"}',
    "blocks/pods/10.4.7.1/24": b'{"node":"a","nodeUID":"u","since":1,"state":"owned"}',
    "blocks/pods": b"{}",
    "nodes/\xe9": b"{}",
    "nodes/big": b"9" * 10_000,
    "nodes/bytes": b"\xff\x00\xfe",
    "nodes/lo": b'{"uid":"u","addresses":["127.0.0.1"],"cidrs":{},"since":1}',
    "nodes/two": b'{"uid":"u","addresses":["192.0.2.1","192.0.2.2"],"cidrs":{},"since":1}',
    "nodes/all": b'{"uid":"u","addresses":[],"cidrs":{"pods":["0.0.0.0/0"]},"since":1}',
}


def test_unreadable_objects_are_named(plain: Cluster) -> None:
    with contextlib.closing(plain.engine()) as engine, Following(plain.engine()) as following:
        following.until_current()
        for name, value in HOSTILE.items():
            plain.put(name, value)
        plain.put("later-kind/x", b"of a later release")
        claimed = engine.claim(block())
        watched = following.until(lambda state: bool(state.blocks))
        with pytest.raises(EngineError, match=r"blocks/pods/10\.4\.9\.0/24: node is 'a b'"):
            engine.read_block("pods", ip_network("10.4.9.0/24"))
        with pytest.raises(Taken, match=r"somebody has it, but .*'a b'"):
            engine.claim(block(ip_network("10.4.9.0/24")))
    with Following(plain.engine()) as following:
        listed = following.until_current()
    for state in (watched, listed):
        assert state.blocks == {("pods", CIDR): claimed} and not state.pools and not state.peers
        assert set(state.unreadable) == set(HOSTILE)
        for name, text in state.unreadable.items():
            assert (
                text.startswith(f"{name}: ") and "; the object is " in text and len(text) < 600 and text.isprintable()
            )


def test_an_unreadable_object_is_mended(plain: Cluster) -> None:
    with Following(plain.engine()) as following:
        plain.put("pools/pods", b"{")
        following.until(lambda state: bool(state.unreadable))
        following.engine.write_pool(pool())
        following.until(lambda state: not state.unreadable and state.pools == {"pods": pool()})
        plain.put("pools/pods", b"{")
        following.until(lambda state: bool(state.unreadable) and not state.pools)


def test_pages(plain: Cluster) -> None:
    """Many pages make one list."""
    with contextlib.closing(plain.engine()) as engine:
        cidrs = list(IPv4Network("10.4.0.0/16").subnets(new_prefix=24))[:25]
        claimed = [engine.claim(block(cidr)) for cidr in cidrs]
        with Following(plain.engine(pace=replace(PACE, page_keys=1))) as following:
            state = following.until_current()
        assert state.blocks == {("pods", one.cidr): one for one in claimed}
        assert following.engine.counts().requests > 25


def test_large_values(plain: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are too long for us are asked for in smaller parts."""
    monkeypatch.setattr("shared.cluster.http.LONGEST_BODY_BYTES", 4 * LARGE_BYTES)
    for number in range(6):
        plain.put(f"nodes/large-{number}", b"x" * LARGE_BYTES)
    with contextlib.closing(plain.engine()) as engine:
        engine.claim(block())
        with Following(plain.engine()) as following:
            state = following.until_current()
            assert len(state.unreadable) == 6 and len(state.blocks) == 1
    monkeypatch.setattr("shared.cluster.http.LONGEST_BODY_BYTES", LARGE_BYTES)
    with Following(plain.engine()) as following:
        following.until(lambda state: "more than" in state.failure)


def test_many_claimers_of_few_blocks(plain: Cluster) -> None:
    cidrs = list(IPv4Network("10.4.0.0/16").subnets(new_prefix=24))[:FEW_BLOCKS]
    engines = [plain.engine() for _ in range(CLAIMERS)]

    def claim(number: int) -> Block | None:
        # each begins elsewhere, so that all blocks are fought for at the same time
        for at in range(FEW_BLOCKS):
            try:
                return engines[number].claim(block(cidrs[(number + at) % FEW_BLOCKS], node=f"node-{number}"))
            except Taken:
                if at >= 2:
                    return None
        return None

    with ThreadPoolExecutor(CLAIMERS) as threads:
        claimed = [found for found in threads.map(claim, range(CLAIMERS)) if found]
    for engine in engines:
        engine.close()
    assert sorted(found.cidr for found in claimed) == cidrs
    assert len({found.uid for found in claimed}) == FEW_BLOCKS


# --- connections


def test_a_lost_answer(plain: Cluster, relay: Relay) -> None:
    """The claim was done, and its answer was lost: an EngineError, and the block is ours when it is read by name."""
    with contextlib.closing(plain.engine(relay.url)) as engine:
        relay.is_lossy = True
        with pytest.raises(EngineError) as caught:
            engine.claim(block())
        assert not isinstance(caught.value, Taken | Refused)
        relay.is_lossy = False
        found = engine.read_block("pods", CIDR)
        assert found is not None and found.uid == "uid-one"


def test_a_request_that_never_left(plain: Cluster) -> None:
    with contextlib.closing(plain.engine("http://127.0.0.1:1")) as engine, pytest.raises(HttpError) as caught:
        engine.claim(block())
    assert not caught.value.was_sent


def test_a_connection_that_ended_while_idle(plain: Cluster, relay: Relay) -> None:
    """It is seen before a claim is sent over it, so that the claim is not ambiguous."""
    with contextlib.closing(plain.engine(relay.url)) as engine:
        engine.claim(block())
        relay.cut()
        until(lambda: not relay.is_busy)
        engine.claim(block(OTHER_CIDR))


def test_a_dead_endpoint(plain: Cluster) -> None:
    with contextlib.closing(
        plain.engine("http://127.0.0.1:1", "http://no-such-host.invalid:1", plain.urls[0])
    ) as engine:
        engine.claim(block())
        with Following(plain.engine("http://127.0.0.1:1", *plain.urls)) as following:
            following.until_current()


def test_a_frozen_server(plain: Cluster) -> None:
    """It accepts connections and never answers. Only time-outs tell."""
    member = plain.members[0]
    with (
        contextlib.closing(plain.engine()) as patient,
        contextlib.closing(plain.engine(pace=IMPATIENT)) as engine,
        Following(plain.engine(pace=IMPATIENT)) as following,
    ):
        claimed = patient.claim(block())
        following.until(lambda state: state.is_current and bool(state.blocks))
        member.signal(signal.SIGSTOP)
        try:
            state = following.until(lambda state: not state.is_current)
            with pytest.raises(Silent):
                engine.claim(block(OTHER_CIDR))
        finally:
            member.signal(signal.SIGCONT)
        assert state.failure and state.blocks == {("pods", CIDR): claimed}
        following.until_current()


def test_a_watch_goes_on_where_it_ended(plain: Cluster, relay: Relay) -> None:
    with contextlib.closing(plain.engine()) as engine, Following(plain.engine(relay.url)) as following:
        first = engine.claim(block())
        following.until(lambda state: bool(state.blocks))
        relay.is_deaf = True
        relay.cut()
        following.until(lambda state: not state.is_current)
        second = engine.claim(block(OTHER_CIDR))
        engine.release(first)
        relay.is_deaf = False
        following.until(lambda state: state.is_current and state.blocks == {("pods", OTHER_CIDR): second})
        assert relay.seen.count(b"/v3/kv/range") == 1


def test_compaction_under_a_watch(plain: Cluster, relay: Relay) -> None:
    """A watch that is too old is replaced by a list, and all that has changed is one new state."""
    with contextlib.closing(plain.engine()) as engine, Following(plain.engine(relay.url)) as following:
        engine.release(engine.claim(block()))
        first = engine.claim(block())
        following.until(lambda state: state.blocks == {("pods", CIDR): first})
        relay.is_deaf = True
        relay.cut()
        following.until(lambda state: not state.is_current)
        seen = len(following.states)
        engine.release(first)
        second = engine.claim(block(OTHER_CIDR))
        third = engine.claim(block(ip_network("10.4.2.0/24")))
        plain.compact()
        relay.is_deaf = False
        state = following.until_current()
        assert state.blocks == {("pods", second.cidr): second, ("pods", third.cidr): third}
        between = following.states[seen : following.states.index(state)]
        assert all(not one.is_current and one.blocks == {("pods", CIDR): first} for one in between)
        assert relay.seen.count(b"/v3/kv/range") == 2
        fourth = engine.claim(block(ip_network("10.4.3.0/24")))
        following.until(lambda state: state.blocks.get(("pods", fourth.cidr)) == fourth)


def test_a_restored_backup(plain: Cluster) -> None:
    """The store goes back to an earlier revision. A watch from the later one would wait for it in silence."""
    member = plain.members[0]
    with contextlib.closing(plain.engine()) as engine, Following(plain.engine()) as following:
        kept = engine.claim(block())
        member.kill()
        member.back_up()
        plain.start()
        lost = [engine.claim(block(ip_network(f"10.4.{number}.0/24"))) for number in range(2, 12)]
        following.until(lambda state: len(state.blocks) == 11)
        member.kill()
        member.restore()
        plain.start()
        following.until(lambda state: state.is_current and state.blocks == {("pods", CIDR): kept})
        assert engine.read_block("pods", lost[0].cidr) is None


# --- rights


def test_a_new_token_after_a_restart(secure: Cluster) -> None:
    """The members have the tokens in memory alone, and find them again as far as their log reaches."""
    with contextlib.closing(secure.node()) as engine, Following(secure.node()) as following:
        following.until_current()
        engine.claim(block())
        secure.members[0].kill()
        following.until(lambda state: not state.is_current)
        secure.start()
        claimed = engine.claim(block(OTHER_CIDR))
        following.until(lambda state: state.is_current and ("pods", OTHER_CIDR) in state.blocks)
        assert claimed.revision


def test_a_new_token_when_the_old_one_is_refused(secure: Cluster) -> None:
    """A change of a user's password, even to the same one, makes its tokens invalid. Watches go on."""
    settings = secure.settings(user=NODE, password=NODE_PASSWORD)
    with Relay(CLIENT_PORT) as relay, contextlib.closing(Etcd(settings)) as engine:
        through_relay = replace(settings, endpoints=(f"https://127.0.0.1:{relay.port}",))
        with Following(Etcd(through_relay)) as following:
            following.until_current()
            engine.claim(block())
            secure.call("auth/user/changepw", name=NODE, password=NODE_PASSWORD)
            claimed = engine.claim(block(OTHER_CIDR))
            relay.cut()
            following.until(lambda state: not state.is_current)
            following.until(lambda state: state.is_current and state.blocks.get(("pods", OTHER_CIDR)) == claimed)


def test_refusals(secure: Cluster) -> None:
    settings = {
        "password": secure.settings(user=NODE, password="wrong"),  # noqa: S106
        "user": secure.settings(),
        "rights": replace(secure.settings(user=NODE, password=NODE_PASSWORD), prefix="/other/"),
    }
    for what, one in settings.items():
        with Following(Etcd(one)) as following:
            with pytest.raises(Refused):
                following.engine.claim(block())
            state = following.until(lambda state: bool(state.failure))
            assert not state.is_current, what


def test_no_password_in_clear() -> None:
    for url in ("http://192.0.2.1:2379", "http://etcd.example:2379"):
        Etcd(Settings((url,)))
        with pytest.raises(ValueError, match="https"):
            Etcd(Settings(("https://192.0.2.1:2379", url), user=NODE, password=NODE_PASSWORD))


def test_connections_are_kept(secure: Cluster) -> None:
    client = Client(secure.urls, secure.tls)
    with contextlib.closing(client):
        for _ in range(3):
            assert client.request("GET", "/version").status == 200
        assert (client.traffic.connections, client.traffic.requests) == (1, 3)


def test_certificates(secure: Cluster, tmp_path: Path) -> None:
    stranger = certificates.make(tmp_path)
    own, own_key = stranger.issue("stranger", client=True)
    assert secure.authority is not None
    named, named_key = secure.authority.issue("named", client=True)
    ca_file = str(secure.authority.certificate)
    for tls, message in (
        (Tls(ca_file=str(stranger.certificate)), "CERTIFICATE_VERIFY_FAILED"),
        (Tls(ca_file=ca_file), "SSL|reset"),
        (Tls(ca_file=ca_file, certificate_file=str(own), key_file=str(own_key)), "SSL|reset"),
        (replace(secure.tls, server_name="etcd.example"), "CERTIFICATE_VERIFY_FAILED"),
        (replace(secure.tls, key_file="/nonexistent"), "No such file"),
        (Tls(ca_file=ca_file, certificate_file=str(named), key_file=str(named_key)), "no CN"),
    ):
        settings = replace(secure.settings(user=NODE, password=NODE_PASSWORD), tls=tls)
        with contextlib.closing(Etcd(settings)) as engine, pytest.raises(EngineError, match=message):
            engine.claim(block())


# --- hostile servers


def _answer(body: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: [HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body]


def _slowly(data: bytes) -> Iterator[bytes]:
    for byte in itertools.cycle(data):
        yield bytes([byte])
        time.sleep(0.05)


def _forever(head: bytes, piece: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: itertools.chain([head], itertools.repeat(piece))


SERVERS: dict[str, Callable[[], Iterable[bytes]]] = {
    "not HTTP": lambda: [b"220 mail.example ESMTP\r\n"],
    "nothing": list,
    "half a head": lambda: [b"HTTP/1.1 200"],
    "a drip": lambda: _slowly(b"HTTP/1.1 200 OK\r\n"),
    "a drip of continues": lambda: _slowly(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers without end": _forever(HEAD, b"X: y\r\n"),
    "a header without end": _forever(HEAD + b"X: ", b"y" * 4096),
    "a body without end": _forever(HEAD + b"\r\n", b"y" * 65536),
    "chunks without end": _forever(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"y" * 65536 + b"\r\n"),
    "a chunk of a bad size": lambda: [HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc"],
    "a huge length": lambda: [HEAD + b"Content-Length: 99999999999999999\r\n\r\n"],
    "not JSON": _answer(b"<html>"),
    "deep JSON": _answer(b"[" * 100_000),
    "a list": _answer(b"[]"),
    "no header": _answer(b"{}"),
    "a header without a revision": _answer(b'{"header":{},"succeeded":true}'),
    "a header alone": _answer(b'{"header":{"revision":"5"}}'),
    "a header that is none": _answer(b'{"header":[],"succeeded":true,"kvs":[]}'),
    "a revision that is none": _answer(b'{"header":{"revision":"-1e9"},"succeeded":true}'),
    "an error in words": lambda: [b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\n\xff\x00abc"],
    "redirection": lambda: [b"HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"],
}
LISTS: dict[str, bytes] = {
    "kvs that are none": b'{"header":{"revision":"5"},"kvs":5}',
    "a key that is none": b'{"header":{"revision":"5"},"kvs":[{"key":5}]}',
    "not base64": b'{"header":{"revision":"5"},"kvs":[{"key":"!"}]}',
    "a key elsewhere": b'{"header":{"revision":"5"},"kvs":[{"key":"L2V0Yw=="}]}',
    "more of nothing": b'{"header":{"revision":"5"},"more":true}',
}
EMPTY = b'{"header":{"revision":"5"}}'
WATCHES: dict[str, Callable[[], Iterable[bytes]]] = {
    "a line without end": _forever(b"", b"10000\r\n" + b"y" * 65536 + b"\r\n"),
    "half lines": lambda: (b"1\r\n%s\r\n" % piece for piece in _slowly(b'{"result":')),
    "empty lines": lambda: (b"1\r\n\n\r\n" for _ in itertools.repeat(0)),
    "half a line and the end": lambda: [b'5\r\n{"res\r\n0\r\n\r\n'],
    "the end": lambda: [b"0\r\n\r\n"],
    "not JSON": lambda: [b"2\r\n!\n\r\n"],
    "an event that is none": lambda: [_line(b'{"result":{"header":{"revision":"5"},"events":[7]}}')],
    "no result": lambda: [_line(b"{}")],
    "an error": lambda: [_line(b'{"error":{"message":"so sorry","grpc_code":13}}')],
    "created without end": lambda: itertools.repeat(_line(b'{"result":{"header":{"revision":"5"},"created":true}}')),
}


def _line(text: bytes) -> bytes:
    return b"%x\r\n%s\n\r\n" % (len(text) + 1, text)


@pytest.mark.parametrize("name", SERVERS)
def test_hostile_server(plain: Cluster, name: str) -> None:
    with Hostile(lambda _: SERVERS[name]()) as server:
        engine = plain.engine(server.url, pace=IMPATIENT)
        with Following(engine) as following:
            with pytest.raises(EngineError) as caught:
                engine.claim(block())
            assert not isinstance(caught.value, Taken)
            state = following.until(lambda state: bool(state.failure))
            assert not state.is_current and len(state.failure) < 1000 and state.failure.isprintable()


def test_an_empty_object_is_no_answer(plain: Cluster) -> None:
    """It looks like a range without the key, or a deletion."""
    with Hostile(lambda _: _answer(b"{}")()) as server, contextlib.closing(plain.engine(server.url)) as engine:
        with pytest.raises(EngineError):
            engine.read_block("pods", CIDR)
        with pytest.raises(EngineError):
            engine.withdraw(replace(peer(), revision="7"))


@pytest.mark.parametrize("name", LISTS)
def test_hostile_list(plain: Cluster, name: str) -> None:
    """A list that is none is a failure, and the next endpoint is as good as before."""
    with Hostile(lambda _: _answer(LISTS[name])()) as server, contextlib.closing(plain.engine()) as engine:
        claimed = engine.claim(block())
        with Following(plain.engine(server.url, pace=IMPATIENT)) as following:
            following.until(lambda state: bool(state.failure))
            assert not following.state.is_current and not following.state.blocks
            assert engine.read_block("pods", CIDR) == claimed


@pytest.mark.parametrize("name", WATCHES)
def test_hostile_watch(plain: Cluster, name: str) -> None:
    """A watch that is none is a failure, and the next endpoint's state replaces its own."""

    def answer(request: bytes) -> Iterable[bytes]:
        if b"/v3/watch" not in request:
            return _answer(EMPTY)()
        return itertools.chain([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], WATCHES[name]())

    with Hostile(answer) as server, contextlib.closing(plain.engine()) as engine:
        claimed = engine.claim(block())
        with Following(plain.engine(server.url, *plain.urls, pace=IMPATIENT)) as following:
            following.until(lambda state: bool(state.failure))
            state = following.until_current()
            assert state.blocks == {("pods", CIDR): claimed}


def _told(revision: int, watch: int = 0, **more: object) -> bytes:
    result = {"header": {"revision": str(revision)}, "watch_id": str(watch), **more}
    return _line(codec.serialise({"result": result}))


def _put(revision: int, claimed: Block) -> bytes:
    key = encode(f"{PREFIX}blocks/{claimed.network}/{claimed.cidr}".encode())
    kv = {"key": key, "value": encode(codec.serialise(codec.block_value(claimed))), "mod_revision": str(revision)}
    return _told(revision, events=[{"kv": kv}])


def test_a_sign_of_life_that_events_overtook(plain: Cluster) -> None:
    """etcd answers the request, and sends the answer after later events. The state is as current as before."""

    def watch() -> Iterator[bytes]:
        yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _told(5, created=True) + _told(5, watch=-1)
        yield _put(7, block()) + _told(6, watch=-1) + _put(8, block(OTHER_CIDR))
        while True:
            yield _told(8, watch=-1)
            time.sleep(0.05)

    def answer(request: bytes) -> Iterable[bytes]:
        requests.append(request.split()[1])
        return watch() if b"/v3/watch" in request else _answer(EMPTY)()

    requests: list[bytes] = []
    with Hostile(answer) as server, Following(plain.engine(server.url)) as following:
        following.until(lambda state: len(state.blocks) == 2)
        assert [state.failure for state in following.states if state.failure] == []
        assert requests == [b"/v3/kv/range", b"/v3/watch"]


# --- the end


@pytest.mark.parametrize("is_frozen", [False, True], ids=["answering", "frozen"])
def test_close_waits_for_nothing(plain: Cluster, *, is_frozen: bool) -> None:
    """It ends a follow and a claim in other threads, long before their time-outs."""
    patient = replace(PACE, sign=600, timeout=600, pause=600)
    engine, errors = plain.engine(pace=patient), []

    def claim() -> None:
        try:
            engine.claim(block(OTHER_CIDR))
        except EngineError as error:
            errors.append(error)

    with Following(engine) as following:
        following.until_current()
        if is_frozen:
            plain.members[0].signal(signal.SIGSTOP)
        try:
            before = engine.counts().requests
            thread = threading.Thread(target=claim, daemon=True)
            thread.start()
            until(lambda: engine.counts().requests > before)
            engine.close()
            for one in (thread, following.thread):
                one.join(60)
                assert not one.is_alive()
        finally:
            plain.members[0].signal(signal.SIGCONT)
    assert errors or not is_frozen
    with pytest.raises(Closed):
        engine.claim(block())


def test_close_ends_a_pause(plain: Cluster) -> None:
    with Following(plain.engine("http://127.0.0.1:1", pace=replace(PACE, pause=600))) as following:
        following.until(lambda state: bool(state.failure))


# --- three members


def test_three_members(etcd_program: str) -> None:
    """The leader is killed, then the quorum is lost, and comes back."""
    with (
        running(size=3, program=etcd_program) as cluster,
        cluster.netns,
        contextlib.closing(cluster.engine(pace=replace(PACE, timeout=5))) as engine,
        Following(cluster.engine(pace=replace(PACE, timeout=5))) as following,
    ):
        first = engine.claim(block())
        following.until(lambda state: bool(state.blocks))
        leader = cluster.leader()
        leader.kill()
        until(lambda: is_ours(engine, OTHER_CIDR), seconds=60)
        following.until(lambda state: state.is_current and ("pods", OTHER_CIDR) in state.blocks)
        second = next(member for member in cluster.members if member is not leader)
        second.kill()
        state = following.until(lambda state: not state.is_current)
        assert len(state.blocks) == 2
        following.until(lambda state: "no leader" in state.failure)
        with contextlib.closing(cluster.engine(pace=IMPATIENT)) as impatient, pytest.raises(EngineError) as caught:
            impatient.update_block(replace(first, state=State.DRAINING))
        assert not isinstance(caught.value, Taken | Refused)
        cluster.start(leader, second)
        following.until_current()
        until(lambda: following.state.blocks[("pods", CIDR)] == read(engine, CIDR))


def read(engine: Etcd, cidr: IPv4Network) -> Block | None:
    """Read a block from a cluster that may not be ready."""
    try:
        return engine.read_block("pods", cidr)
    except EngineError:
        return None


def is_ours(engine: Etcd, cidr: IPv4Network) -> bool:
    """Claim as the caller does: after a failure it reads the block by name."""
    try:
        found = engine.read_block("pods", cidr) or engine.claim(block(cidr))
    except EngineError:
        return False
    return found.uid == "uid-one"
