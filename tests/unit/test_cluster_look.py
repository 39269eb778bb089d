"""The node's own state: from its files, and from the time at which a block was first seen empty."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path

import pytest

from shared.cluster.checkpoint import Checkpoint
from shared.cluster.look import Place, look
from shared.cluster.model import Attempt, Held, Local, Node, Peer, Route

A, B, C = (IPv4Network(f"10.1.{number}.0/24") for number in range(3))
NODE = Node("a", "u", (ip_address("192.0.2.1"),))
ROUTES = frozenset([Route(ip_network("10.2.0.0/24"), "b", ip_address("192.0.2.2"), is_tunnelled=False)])
DRAINING = Held("pods", B, 0, is_published=False, since=5.0, is_draining=True)


class Files:
    """The files of the network `pods`, and looks at them."""

    def __init__(self, directory: Path) -> None:
        self.places = {"pods": Place(directory / "pods.conflist", str(directory))}
        self.leases = directory / "pods"
        self.leases.mkdir(mode=0o700)

    def publish(self, *cidrs: IPv4Network) -> None:
        ranges = [[{"subnet": str(one)} for one in cidrs]]
        raw = {"plugins": [{"ipam": {"type": "host-local", "ranges": ranges}}]}
        self.places["pods"].conflist.write_text(json.dumps(raw))

    def look(self, checkpoint: Checkpoint, before: Local | None = None, *, now: float = 0.0) -> Local:
        return look(NODE, checkpoint, self.places, ROUTES, before, now=now, wall_seconds=9.0)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_all_of_the_checkpoint_is_there(files: Files) -> None:
    peer = Peer("a", "u", NODE.addresses, {"pods": (A,)}, 1.0)
    kept = Checkpoint({}, (Attempt("pods", C, is_open=True),), {"pods": (A,)}, ROUTES, peer)
    assert files.look(kept) == Local(NODE, {}, kept.attempts, ROUTES, kept.kept_ranges, ROUTES, 9.0, peer)


def test_blocks_by_conflist_and_leases(files: Files) -> None:
    """A range of the conflist is held, even if the checkpoint is lost."""
    files.publish(A, C)
    for name in ("10.1.0.2", "10.1.0.3", "10.1.1.2"):
        (files.leases / name).touch()
    own = Held("pods", A, 0, is_published=False, since=4.0, is_assigned=True)
    found = files.look(Checkpoint({("pods", A): own, ("pods", B): DRAINING})).held
    assert found == {
        ("pods", A): replace(own, used=2, is_published=True),
        ("pods", B): replace(DRAINING, used=1),
        ("pods", C): Held("pods", C, 0, is_published=True, since=0.0),
    }


def test_empty_since(files: Files) -> None:
    """From the first look at which a block has neither leases nor a range, and anew after each lease."""
    kept = Checkpoint({("pods", B): DRAINING})

    def seen(before: Local | None, now: float) -> Local:
        return files.look(kept, before, now=now)

    def since(local: Local) -> float | None:
        return local.held["pods", B].empty_since

    first = seen(None, 3.0)
    second = seen(first, 7.0)
    assert (since(first), since(second)) == (3.0, 3.0)
    lease = files.leases / "10.1.1.2"
    lease.touch()
    third = seen(second, 9.0)
    lease.unlink()
    fourth = seen(third, 11.0)
    files.publish(B)
    fifth = seen(fourth, 12.0)
    assert (since(third), since(fourth), since(fifth)) == (None, 11.0, None)


def test_a_network_without_files_is_not_taken_for_empty(files: Files) -> None:
    """Its template is gone: nobody knows where its leases are."""
    kept = Checkpoint({("other", B): replace(DRAINING, network="other")})
    (held,) = files.look(kept).held.values()
    assert (held.used, held.empty_since) == (1, None)
