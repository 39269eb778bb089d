"""Look at the node itself: checkpoint, conflists and leases become the `Local` that decisions are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shared.cluster import conflist, leases
from shared.cluster.checkpoint import Checkpoint
from shared.cluster.model import Cidr, Held, Local, Node, Route

Key = tuple[str, Cidr]


@dataclass(frozen=True)
class Place:
    """The files of one network: its conflist, and the directory in which host-local has its leases."""

    conflist: Path
    data_dir: str


def look(
    node: Node, checkpoint: Checkpoint, places: Mapping[str, Place], routes: frozenset[Route], before: Local | None, *,
    now: float, wall_seconds: float,
) -> Local:  # fmt: skip
    """Return the state of the node. Raise IOFailure if leases cannot be read.

    `before` is the state that was seen last: it tells since when blocks are empty. `now` is in monotonic seconds.
    """
    published = {(network, cidr) for network, one in places.items() for cidr in conflist.published(one.conflist)}
    known = {**{key: Held(*key, 0, is_published=True, since=0.0) for key in published}, **checkpoint.held}
    used: dict[Key, int] = {}
    for network, place in places.items():
        cidrs = [cidr for owner, cidr in known if owner == network]
        used |= {(network, cidr): number for cidr, number in leases.used(place.data_dir, network, cidrs).items()}
    empty_since = {key: one.empty_since for key, one in before.held.items()} if before else {}
    held = {}
    for key, one in known.items():
        # the leases of a network without files cannot be counted
        is_used = key in published or used.get(key, 1) > 0
        since = empty_since.get(key)
        held[key] = replace(
            one, used=used.get(key, 1), is_published=key in published,
            empty_since=None if is_used else now if since is None else since,
        )  # fmt: skip
    return Local(
        node, held, checkpoint.attempts, routes, checkpoint.kept_ranges, checkpoint.kept_routes, wall_seconds,
        checkpoint.announced,
    )  # fmt: skip
