"""Remember blocks of other nodes that vanish from the engine.

After a backup was restored the engine lacks the claims since then. Their owners claim them again by name as soon as
they reconnect. A node that claimed a new block in these seconds would take one whose addresses pods have.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.cluster.model import Block, Cidr, Local, Snapshot

Key = tuple[str, Cidr]


class Vanished:
    """The memory of one process."""

    def __init__(self) -> None:
        self._blocks: Mapping[Key, Block] | None = None  # of the last current snapshot
        self._since: dict[Cidr, float] = {}

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
            self._since |= dict.fromkeys(gone, now)
            self._blocks = snapshot.blocks
        grace = local.node.grace_seconds
        self._since = {cidr: since for cidr, since in self._since.items() if now - since < grace}
        return frozenset(self._since)


def _find_unclaimed(snapshot: Snapshot, local: Local) -> set[Cidr]:
    """Return the CIDRs of kept routes that no node has in the engine."""
    kept = {route.cidr for route in local.kept_routes if not route.is_refused}
    if kept:
        kept -= {cidr for _, cidr in snapshot.blocks}
        kept -= {cidr for peer in snapshot.peers.values() for cidrs in peer.cidrs.values() for cidr in cidrs}
    return kept
