"""Decide on one network's blocks: verify, claim ahead of need, drain, release. Nothing here has side effects."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network

from shared.cluster import claims, network_alarms
from shared.cluster.model import (
    Alarm,
    Block,
    Cidr,
    Claim,
    Confirm,
    Forget,
    Held,
    Kind,
    Local,
    Mark,
    Pool,
    Publish,
    Range,
    Release,
    Snapshot,
    State,
)  # fmt: skip
from shared.cluster.peering import Owners, find_underlay

DRAIN_MARGIN = 0.5  # of a block must be free above the watermark before one is drained: the hysteresis


@dataclass
class Plan:
    """The decisions on one network. shared/cluster/decide.py brings those of all networks into their order."""

    alarms: list[Alarm] = field(default_factory=list)
    withdrawal: Publish | None = None  # of lost ranges: it waits for nothing
    confirms: list[Confirm] = field(default_factory=list)
    reclaims: list[Claim] = field(default_factory=list)
    resumed: list[Mark] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    announced: tuple[Cidr, ...] = ()
    publication: Publish | None = None
    drained: list[Mark] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    forgets: list[Forget] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # seconds until a block's grace ends

    def has_requests(self) -> bool:
        """Return True if the publication waits for the engine."""
        return bool(self.confirms or self.reclaims or self.resumed or self.claims)

    def list_new(self) -> list[Cidr]:
        """Return the CIDRs that pods here can have only after this plan's requests."""
        return [claim.cidr for claim in self.claims] + [mark.block.cidr for mark in self.resumed]


class Network:
    """One network while it is decided on: its held blocks, sorted by their fate."""

    def __init__(self, name: str, snapshot: Snapshot, local: Local, now: float, owners: Owners) -> None:
        pool = snapshot.pools.get(name)
        self.name, self.snapshot, self.local, self.now, self.owners = name, snapshot, local, now, owners
        self.is_wanted = local.node.networks is None or name in local.node.networks
        self.pool: Pool | None = pool if pool is not None and pool.ranges and self.is_wanted else None
        self.assigned = snapshot.assigned.get(name, ())
        self.held = sorted((h for h in local.held.values() if h.network == name), key=lambda h: claims.order(h.cidr))
        self.attempts = [one for one in local.attempts if one.network == name]
        self.unreadable = claims.find_unreadable(snapshot, name)
        self.open_attempts = [one for one in self.attempts if one.is_open and one.cidr not in self.unreadable]
        self.plan = Plan()
        self.unknown: set[int] = set()  # families with blocks of this node that are to be confirmed
        self.inside: list[Held] = []  # to be in the conflist
        self.outside: list[Held] = []  # ours, and drained
        self.lost: list[Held] = []
        self.gone: list[Held] = []  # not in the engine, and without use here

    def decide(self) -> Plan:
        """Return the plan."""
        foreign = claims.find_foreign(self.pool, self.held, self.snapshot)
        if foreign is not None:
            self.plan.alarms.append(network_alarms.range_foreign(foreign))
            return self.plan
        self._settle_attempts()
        for one in self.held:
            self._sort(one)
        for version in (4, 6):
            self._adjust(version)
        if self.held and not self.is_wanted:
            self.plan.alarms.append(network_alarms.network_unnamed(self.name, len(self.held)))
        self._publish()
        self._mark()
        self._release()
        self._announce()
        return self.plan

    # -- verification

    def _settle_attempts(self) -> None:
        """Confirm attempts by name. Drop a closed one as soon as the snapshot shows the block, too.

        A block that cannot be read cannot be confirmed, either. Its attempt waits, and nothing waits for it.
        """
        for one in self.attempts:
            if not one.is_open and (one.network, one.cidr) in self.snapshot.blocks:
                self.plan.forgets.append(Forget(one.network, one.cidr, is_attempt=True))
            elif one.cidr not in self.unreadable:  # a closed one's owner may have released the block meanwhile
                self.plan.confirms.append(Confirm(one.network, one.cidr))

    def _block(self, one: Held) -> Block | None:
        return self.snapshot.blocks.get((one.network, one.cidr))

    def _sort(self, one: Held) -> None:
        """Decide on one held CIDR by its owner in the engine."""
        if one.is_assigned:
            self._sort_assigned(one)
            return
        block = self._block(one)
        if one.cidr in self.unreadable:  # it may be ours: keep it as it is
            (self.inside if one.is_published and not one.is_draining else self.outside).append(one)
        elif block is None and self._is_taken(one.cidr):
            self._lose(one, "another node")
        elif block is None:
            self._reclaim(one)
        elif block.uid != self.local.node.uid:
            self._lose(one, f"node {block.node} (id {block.uid})")
        elif one.is_draining or self._must_leave(one, block):
            self.outside.append(one)
        else:
            self.inside.append(one)

    def _sort_assigned(self, one: Held) -> None:
        """Keep an assigned CIDR until the controller has assigned another one of its family."""
        others = [cidr for cidr in self.assigned if cidr.version == one.cidr.version]
        if one.cidr in others:
            self.inside.append(one)
        elif others:
            self.outside.append(one)
        elif self.pool is not None:
            self.inside.append(one)  # until a block is claimed in its place
        else:
            self.inside.append(one)
            self.plan.alarms.append(network_alarms.assignment_missing(one))

    def _is_taken(self, cidr: Cidr) -> bool:
        """Return True if a read by name found another owner, which the snapshot does not show yet."""
        return any(one.cidr == cidr and not one.is_open for one in self.attempts)

    def _lose(self, one: Held, owner: str) -> None:
        """Take a block of another owner out of the conflist. Name it until no pod can have an address of it."""
        self.lost.append(one)
        if one.is_published or one.used or not one.is_draining:
            self.plan.alarms.append(network_alarms.block_lost(one, owner))

    def _reclaim(self, one: Held) -> None:
        """Claim a block by name that the engine lacks, as after a restored backup. Without use here it is gone.

        A claim that the snapshot does not show yet is claimed again, too: that is a success without effect.
        """
        if self._is_idle(one):
            self.gone.append(one)
            return
        self.plan.reclaims.append(Claim(one.network, one.cidr))
        (self.outside if one.is_draining else self.inside).append(one)

    def _must_leave(self, one: Held, block: Block) -> bool:
        """Return True if another node's claim on these addresses is better, though the engine has ours.

        A block that is not published yet goes if a peer has its addresses: its claim is from a backup. Of two blocks
        of different lengths the younger goes: the engine compares names only.
        """
        if not one.is_published and not one.used and one.cidr in self.owners:
            return True
        ranges = self.pool.ranges if self.pool else ()
        lengths = {entry.block_length for entry in ranges if entry.cidr.version == one.cidr.version}
        lengths |= {other.cidr.prefixlen for other in self.held if other.cidr.version == one.cidr.version}
        for other in claims.find_overlapping(self.snapshot, self.name, one.cidr, lengths):
            if other.uid != block.uid and (other.since, other.uid) < (block.since, block.uid):
                self.plan.alarms.append(network_alarms.block_overlaps(one, other))
                return True
        return False

    def _is_idle(self, one: Held) -> bool:
        """Return True if no ADD can have an address of a block: unpublished and without leases for the whole grace."""
        if one.is_published or one.used or one.empty_since is None:
            return False
        return self.now - one.empty_since >= self.local.node.grace_seconds

    # -- growth and shrinking

    def _adjust(self, version: int) -> None:
        """Compare one family's free addresses with the watermark: claim a block, or drain one."""
        inside = [one for one in self.inside if one.cidr.version == version]
        if not self.is_wanted:
            self._drain(inside)
            return
        if any(cidr.version == version for cidr in self.assigned):
            self._drain(one for one in inside if not one.is_assigned)
            return
        if self.pool is None:
            if version == 4 and self.held and not self.assigned and not all(one.is_assigned for one in self.held):
                self.plan.alarms.append(network_alarms.pool_missing(self.name))
            return
        entry = next((entry for entry in self.pool.ranges if entry.cidr.version == version), None)
        if entry is None:
            self._drain(inside)
            return
        fitting = [one for one in inside if self._fits(one)]
        free = sum(self._free(one) for one in fitting)
        size = claims.usual_capacity(self.pool.kind, entry)
        low = max(1, math.ceil(self.local.node.low * size))
        if free < low:
            self._grow(entry)
        elif len(fitting) < len(inside):
            self._drain(one for one in inside if one not in fitting)
        else:
            self._shrink(fitting, free, low + max(1, math.ceil(DRAIN_MARGIN * size)))

    def _fits(self, one: Held) -> bool:
        return not one.is_assigned and self.pool is not None and claims.find_range(self.pool, one.cidr) is not None

    def _free(self, one: Held) -> int:
        entry = claims.find_range(self.pool, one.cidr) if self.pool else None
        if self.pool is None or entry is None:
            return 0
        return max(0, claims.capacity(self.pool.kind, entry, one.cidr) - one.used)

    def _drain(self, leaving: Iterable[Held]) -> None:
        """Move blocks from inside to outside."""
        for one in list(leaving):
            self.inside.remove(one)
            self.outside.append(one)

    def _grow(self, entry: Range) -> None:
        """Use the fullest draining block again. Without one claim another, unless a claim's answer is open.

        A block that is to be confirmed may be used again, too: a machine that was installed again has some.
        """
        version = entry.cidr.version
        if version in self.unknown or any(one.cidr.version == version for one in self.open_attempts):
            return
        again = [one for one in self.outside if one.cidr.version == version and self._can_resume(one)]
        if again:
            one = max(again, key=lambda one: one.used)
            self.outside.remove(one)
            self.inside.append(one)
            return
        cidr = self._choose(entry)
        if cidr is not None:
            self.plan.claims.append(Claim(self.name, cidr))
            return
        self.plan.alarms.append(network_alarms.pool_exhausted(self.name, entry))

    def _can_resume(self, one: Held) -> bool:
        """Return True if a draining block is ours in the engine and has free addresses.

        Its mark must come first: a Release without an answer may still be on its way, and fails by the new revision.
        """
        block = self._block(one)
        if block is None or not one.is_draining or not self._fits(one) or not self._free(one):
            return False
        return not self._must_leave(one, block)

    def _choose(self, entry: Range) -> Cidr | None:
        """Return a free block of the pool's ranges of a family; the first range comes first."""
        assert self.pool is not None  # noqa: S101  (_adjust looked)
        known = [*(cidr for _, cidr in self.local.held), *self.local.vanished]
        # of a peer that has not claimed its block again yet
        known += [cidr for cidr in self.owners if (self.name, cidr) not in self.snapshot.blocks]
        if self.pool.kind is Kind.ROUTED:
            known += find_underlay(self.local.node)
            known += [ip_network(one) for peer in self.snapshot.peers.values() for one in peer.addresses]
        known += self.unreadable
        tried = [one.cidr for one in self.attempts]
        seed = f"{self.local.node.uid} {self.name} {len(tried)} {len(known)} {len(self.snapshot.blocks)}"
        for avoided in ([*known, *tried], known):  # a tried one may be free again
            for one in self.pool.ranges:
                if one.cidr.version == entry.cidr.version:
                    taken = claims.find_taken(self.snapshot, self.name, one)
                    hidden = claims.find_hidden(self.pool.kind, one, self.local.node.links)
                    cidr = claims.choose(self.pool.kind, one, [*avoided, *hidden], seed, taken)
                    if cidr is not None:
                        return cidr
        return None

    def _shrink(self, fitting: list[Held], free: int, enough: int) -> None:
        """Drain the emptiest block if enough stays free without it.

        The next block is claimed only when half a block more is used, so that few pods' coming and going changes
        nothing.
        """
        if len(fitting) < 2 or self.plan.reclaims or self.open_attempts:
            return
        emptiest = min(fitting, key=lambda one: (one.used, one.is_published))
        if free - self._free(emptiest) >= enough:
            self._drain([emptiest])

    # -- results

    def _publish(self) -> None:
        """Publish the ranges inside if they are not the present ones. Lost ranges go at once.

        A network begins when each family of its pool has a range, and pauses if one loses its last: no pod misses one.
        """
        present = {one.cidr for one in self.held if one.is_published}
        lost = {one.cidr for one in [*self.lost, *self.gone]}
        left = present - lost
        if left != present:
            if self._families() - {cidr.version for cidr in left}:
                left = set()
            kept = [one for one in self.held if one.cidr in left]
            self.plan.withdrawal = Publish(self.name, self._arrange(kept, ()))
        new = (*(cidr for cidr in self.assigned if (self.name, cidr) not in self.local.held), *self._claimed())
        wanted = {one.cidr for one in self.inside} | set(new)
        begins = bool(left) or self._families() <= {cidr.version for cidr in wanted}
        if wanted != left and begins:
            lacking = self._families() - {cidr.version for cidr in wanted}
            is_pause = not lacking.isdisjoint(cidr.version for cidr in left)
            self.plan.publication = Publish(self.name, () if is_pause else self._arrange(self.inside, new))

    def _claimed(self) -> tuple[Cidr, ...]:
        return tuple(one.cidr for one in self.plan.claims)

    def _families(self) -> set[int]:
        return {entry.cidr.version for entry in (self.pool.ranges if self.pool and not self.assigned else ())}

    def _arrange(self, held: list[Held], new: tuple[Cidr, ...]) -> tuple[Cidr, ...]:
        """Return new ranges first, then the fullest with free addresses, so that the emptiest can be drained."""
        known = sorted(held, key=lambda one: (one.cidr.version, not self._free(one), -one.used, claims.order(one.cidr)))
        return tuple(sorted((*new, *(one.cidr for one in known)), key=lambda cidr: cidr.version))

    def _mark(self) -> None:
        """Note in the engine which blocks are drained. Its state follows this node's, never the reverse."""
        for one in self.inside:
            block = self._block(one)
            if block is not None and not one.is_assigned and (block.state is State.DRAINING or one.is_draining):
                self.plan.resumed.append(Mark(block, State.OWNED))
        for one in self.outside:
            block = self._block(one)
            if block is not None and not one.is_assigned and (block.state is State.OWNED or not one.is_draining):
                self.plan.drained.append(Mark(block, State.DRAINING))

    def _release(self) -> None:
        """Release drained blocks whose grace is over; forget those that are not ours."""
        self.plan.forgets += [Forget(one.network, one.cidr) for one in self.gone]
        for one in [*self.outside, *self.lost]:
            block = self._block(one)
            if not self._is_idle(one):
                if not one.used:
                    since = self.now if one.empty_since is None else one.empty_since
                    self.plan.waits.append(max(0.0, since + self.local.node.grace_seconds - self.now))
            elif one.is_assigned or one in self.lost:
                self.plan.forgets.append(Forget(one.network, one.cidr))
            elif block is not None and one.is_draining and block.state is State.DRAINING:
                self.plan.releases.append(Release(block))

    def _announce(self) -> None:
        """List the CIDRs that pods here have or can get. One that is about to be released is not among them.

        Nor is an empty block that a peer announces. After a restored backup, its pods are there.
        """
        outside = (one for one in self.outside if one.used or one.is_published or one.cidr not in self.owners)
        left = [one for one in outside if not self._is_idle(one)] + [one for one in self.lost if one.used]
        own = [one.cidr for one in (*self.inside, *left)]
        own += [cidr for cidr in (*self.assigned, *self._claimed()) if cidr not in own]
        self.plan.announced = tuple(sorted(own, key=claims.order))

    def is_routed(self) -> bool:
        """Return True if others route to this network. Without its pool, that is so if it was announced before."""
        pool = self.snapshot.pools.get(self.name)
        if pool is not None:
            return pool.kind is Kind.ROUTED
        if self.assigned or any(one.is_assigned for one in self.held):
            return True
        return self.local.announced is not None and self.name in self.local.announced.cidrs
