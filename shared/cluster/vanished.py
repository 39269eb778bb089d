"""Remember blocks of other nodes that vanish from the engine.

A restored backup lacks the claims since it was made. Their owners claim them again by name as soon as they reconnect.
Until then their blocks look free, but pods have addresses of them: this node does not claim them.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.cluster.model import Block, Cidr, Local, Snapshot

Key = tuple[str, Cidr]


class Vanished:
    """The memory of one process."""

    def __init__(self) -> None:
        self._blocks: Mapping[Key, Block] | None = None  # of the last current snapshot
        self._groups: list[tuple[float, frozenset[Cidr]]] = []  # by the moment at which they vanished
        self._all: frozenset[Cidr] = frozenset()

    def note(self, snapshot: Snapshot, local: Local, now: float) -> frozenset[Cidr]:
        """Return the CIDRs that vanished less than the grace of an empty block ago.

        The first snapshot is compared with the routes of the checkpoint, the others with the one before.
        """
        if snapshot.is_current and snapshot.blocks is not self._blocks:
            if self._blocks is None:
                gone = _find_unclaimed(snapshot, local)
            else:
                before = self._blocks
                gone = {
                    key[1] for key in frozenset(before).difference(snapshot.blocks) if before[key].uid != local.node.uid
                }
            self._blocks = snapshot.blocks
            if gone:
                self._groups.append((now, frozenset(gone)))
                self._all |= gone
        if self._groups and now - self._groups[0][0] >= local.node.grace_seconds:
            self._groups = [group for group in self._groups if now - group[0] < local.node.grace_seconds]
            self._all = frozenset().union(*(cidrs for _, cidrs in self._groups))
        return self._all


def _find_unclaimed(snapshot: Snapshot, local: Local) -> set[Cidr]:
    """Return the CIDRs of kept routes that no node has in the engine."""
    kept = {route.cidr for route in local.kept_routes if not route.is_refused}
    if kept:
        kept -= {cidr for _, cidr in snapshot.blocks}
        kept -= {cidr for peer in snapshot.peers.values() for cidrs in peer.cidrs.values() for cidr in cidrs}
    return kept
