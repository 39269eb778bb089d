"""The fabric and its probes keep their promises: tests of clusters rely on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.fabric import OUTSIDE, Fabric, PodHost
from tests.network_probes import client_seen, silent
from tests.pretend import PretendHost, until

LINK_MTU = 1500
Parts = tuple[Fabric, PodHost, PodHost]


@pytest.fixture
def parts() -> Iterator[Parts]:
    """Return a fabric with a host on each link."""
    with ExitStack() as stack:
        first, *hosts = (stack.enter_context(PretendHost()) for _ in range(3))
        fabric = stack.enter_context(Fabric(first))
        for link, host in enumerate(hosts):
            fabric.attach(host, link, 1)
        yield fabric, PodHost(hosts[0], "a"), PodHost(hosts[1], "b")


def test_hosts_reach_each_other_and_the_outside(parts: Parts) -> None:
    fabric, a, b = parts
    far = ["192.0.1.1", "fd80:1::1"]
    asked = {a.netns(): [*far, *OUTSIDE.values()], b.netns(): ["192.0.0.1", *OUTSIDE.values()]}
    with fabric.capture("net1") as capture:
        assert silent(asked, packet_bytes=LINK_MTU) == []
        packets = capture.packets()
    assert {one.target for one in packets} >= {*far, *OUTSIDE.values()}
    assert max(one.length for one in packets if one.target in far) == LINK_MTU + 14
    for address in far:
        assert client_seen(b.netns(), address, a.netns()) in ("192.0.0.1", "fd80::1")


def test_silence_is_told(parts: Parts) -> None:
    """An address that nobody has, one to which the router has no way, and packets that are too large."""
    _, a, _ = parts
    strange = ["10.244.0.1", "192.0.0.77", "fd00::1"]
    asked = {a.netns(): [*strange, "192.0.1.1"]}
    assert silent(asked, seconds=1) == [(a.netns(), one) for one in strange]
    far = ["192.0.1.1", "fd80:1::1"]
    assert silent({a.netns(): far}, packet_bytes=LINK_MTU + 2, seconds=1) == [(a.netns(), one) for one in far]


def test_an_engine_of_three_members(parts: Parts) -> None:
    fabric, a, _ = parts
    engine = fabric.add_engine(3)
    assert silent({a.netns(): ["192.0.2.1", "192.0.2.2", "192.0.2.3"]}) == []
    with fabric.home:
        leader = engine.leader()
        engine.put("pools/x", b"{}")
        leader.kill()
        until(engine.is_ready)
        engine.put("pools/y", b"{}")
        assert list(engine.keys()) == ["pools/x", "pools/y"]
        assert engine.leader() is not leader
