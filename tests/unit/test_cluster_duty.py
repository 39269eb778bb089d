"""The duty's pauses, its words, its report, and the kernel's limits of neighbours."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.agent import settings as agent_settings
from shared.cluster import neighbour_limits, report
from shared.cluster.checkpoint import Checkpoint
from shared.cluster.duty import LONGEST_PAUSE_SECONDS, Feed, Pace, Sayings
from shared.cluster.engine import Counts
from shared.cluster.executor import Step
from shared.cluster.model import Alarm, Decision, Held, Kind, Local, Node, Peer, Pool, Range, Route, Snapshot
from shared.cni.errors import IOFailure
from tests.pretend import until

A, B = ip_network("10.0.0.0/28"), ip_network("10.0.1.0/28")
LAN, SIX = ip_network("192.168.0.0/28"), ip_network("fd00::/64")
NODE = Node("me", "mine", (ip_address("172.16.0.1"),))
LOST = Alarm("block-lost", "10.0.1.0/28", "block 10.0.1.0/28 is another node's")


def step(*held: Held, **more: Any) -> Step:
    local = Local(NODE, {(one.network, one.cidr): one for one in held})
    return Step(**{
        "done": True, "failure": "", "again_seconds": 7.0, "alarms": (), "decision": Decision((), 7.0), "local": local,
        **more,
    })  # fmt: skip


def test_the_duty_is_off_by_default_and_enough_for_a_process() -> None:
    assert not agent_settings.parse({}).cluster
    assert agent_settings.parse({"heal": False, "collect": False, "metrics": "", "cluster": True}).has_duties


def test_pauses_grow_with_failures_and_have_a_limit() -> None:
    pace, failed = Pace(), step(done=False, failure="no answer")
    assert pace.next_seconds(step()) == 7.0
    for longest in (1, 2, 4, 8, 16, 32, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS):
        assert longest / 2 <= pace.next_seconds(failed) <= longest
    assert pace.next_seconds(step(done=False, failure="taken", is_taken=True)) == 7.0
    assert pace.next_seconds(failed) <= 1


def test_alarms_are_told_when_they_begin_and_end() -> None:
    told: list[str] = []
    sayings = Sayings(told.append)
    sayings.say((LOST,), "")
    sayings.say((LOST,), "no answer")
    sayings.say((Alarm(LOST.name, LOST.about, "its 2 pods"),), "no answer")
    sayings.say((), "")
    sayings.say((LOST,), "no answer")
    lost = f"block-lost: {LOST.text}"
    assert told == [lost, "no answer", "block-lost: over for 10.0.1.0/28", lost, "no answer"]


def test_a_failure_that_an_alarm_has_is_told_once() -> None:
    told: list[str] = []
    Sayings(told.append).say((Alarm("refused", "me", "the engine refuses: forbidden"),), "forbidden")
    assert told == ["refused: the engine refuses: forbidden"]


class Deaf:
    """An engine that is followed no longer."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def follow(self, take: Callable[[Snapshot], None]) -> None:
        take(Snapshot(is_current=True))
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(("error", "words"), [(None, "returned"), (KeyError("field"), "KeyError: 'field'")])
def test_a_state_that_nobody_keeps_current_ends_the_duty(error: Exception | None, words: str) -> None:
    """It would look right for ever. The duty begins anew, with another connection."""
    feed = Feed(Deaf(error))  # type: ignore[arg-type]
    assert not feed.wait(0) and not feed.take().is_current

    def take() -> bool:
        return not feed.take().is_current  # never again

    feed.start()
    with pytest.raises(RuntimeError, match=f"nobody follows the engine any more: {words}"):
        until(take)


def test_report(tmp_path: Path) -> None:
    path = tmp_path / "run" / "cluster.json"
    pools = {
        "pods": Pool("pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/16"), 28),)),
        "lan": Pool("lan", Kind.SEGMENT, (Range(ip_network("192.168.0.0/24"), 28, ip_address("192.168.0.9")),)),
    }
    held = [
        Held("pods", B, 2, is_published=False, since=1.0, is_draining=True),
        Held("pods", A, 5, is_published=True, since=1.0),
        Held("pods", SIX, 1, is_published=True, since=1.0, is_assigned=True),
        Held("lan", LAN, 1, is_published=True, since=1.0),
    ]
    route = Route(ip_network("10.0.9.0/28"), "far", ip_address("172.16.0.9"), is_tunnelled=False)
    executor: Any = SimpleNamespace(
        checkpoint=Checkpoint(kept_routes=frozenset({route})),
        engine=SimpleNamespace(counts=lambda: Counts(9, 80, 70, 6)),
    )
    peers = {name: Peer(name, name, (), {}, 0.0) for name in ("me", "far")}
    writer = report.Report("me", "mine", "etcd", path)
    assert report.read(path) is None
    writer.write(
        Snapshot(peers=peers, is_current=True),
        step(*held, alarms=(LOST,), missing=frozenset({route})),
        "",
        (LOST,),
        executor,
        pools,
    )
    found = report.read(path)
    assert found is not None and path.stat().st_mode & 0o777 == 0o600
    since, updated = found.pop("since"), found.pop("updated")
    assert updated >= since > 1e9
    assert found == {
        "node": "me", "uid": "mine", "engine": "etcd", "isCurrent": True, "failure": "", "peers": 1, "routes": 1,
        "missingRoutes": 1, "alarms": [{"name": "block-lost", "about": "10.0.1.0/28", "text": LOST.text}],
        "networks": {
            "pods": {"kind": "routed", "ranges": [
                {"cidr": "10.0.0.0/28", "state": "owned", "used": 5, "free": 8, "isPublished": True},
                {"cidr": "10.0.1.0/28", "state": "lost", "used": 2, "free": 11, "isPublished": False},
                {"cidr": "fd00::/64", "state": "assigned", "used": 1, "free": 2**64 - 3, "isPublished": True},
            ]},
            "lan": {"kind": "segment", "ranges": [
                {"cidr": "192.168.0.0/28", "state": "owned", "used": 1, "free": 13, "isPublished": True},
            ]},
        },
        "counts": {"requests": 9, "sentBytes": 80, "receivedBytes": 70, "events": 6, "steps": 1, "failures": 0},
    }  # fmt: skip
    writer.write(Snapshot(failure="the engine is silent"), None, "", (), executor, pools)
    later = report.read(path)
    assert later is not None and later["networks"] == found["networks"]
    assert (later["isCurrent"], later["failure"], later["counts"]["steps"]) == (False, "the engine is silent", 2)
    assert later["since"] >= since
    writer.write(Snapshot(failure="the engine is silent"), step(), "no space", (), executor, pools)
    last = report.read(path)
    assert last is not None and last["failure"] == "no space" and last["counts"]["failures"] == 1


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_garbled_report(text: str, tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(ValueError, match=r"line 1|no report"):
        report.read(tmp_path / "cluster.json")


def test_a_report_of_another_user(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({}))
    path.chmod(0o666)
    with pytest.raises(IOFailure, match="writable"):
        report.read(path)


def test_limits_of_neighbours_are_raised_for_the_peers(tmp_path: Path) -> None:
    """The kernel refuses a third limit below the others, and removes young entries above the second one."""
    for version, numbers in ((4, (128, 512, 1024)), (6, (9000, 9000, 9000))):
        directory = tmp_path / f"ipv{version}/neigh/default"
        directory.mkdir(parents=True)
        for number, value in enumerate(numbers, 1):
            (directory / f"gc_thresh{number}").write_text(f"{value}\n")
    vias = [ip_address("172.16.0.0") + number for number in range(1000)]
    routes = [Route(A, "x", via, is_tunnelled=False) for via in [*vias, *vias, ip_address("fd00::1")]]
    assert neighbour_limits.raise_for(routes, tmp_path)
    paths = [[tmp_path / f"ipv{version}/neigh/default/gc_thresh{n}" for n in (1, 2, 3)] for version in (4, 6)]
    raised = [[int(path.read_text()) for path in one] for one in paths]
    assert raised == [[1000, 1500, 2000], [9000, 9000, 9000]]
    assert not neighbour_limits.raise_for(routes, tmp_path)
    assert not neighbour_limits.raise_for(routes, tmp_path / "another namespace")
