"""Decide all that a node does in its cluster. No function here reads a clock, a file or the engine.

Local truth is what pods use: the leases, the conflist and the checkpoint. The engine's content corrects it only while
it is current. A watch may lag behind this node's own writes, so that each decision is safe with an older snapshot:
a block is adopted only after a read by name, a claim of an own block is a success, and other writes compare revisions.
"""

from __future__ import annotations

from shared.cluster import encryption
from shared.cluster.claims import overlap
from shared.cluster.model import (
    Action,
    Alarm,
    Announce,
    Block,
    Confirm,
    Decision,
    Kind,
    Local,
    Peer,
    Publish,
    SetRoutes,
    Snapshot,
)  # fmt: skip
from shared.cluster.network import Network, Plan
from shared.cluster.peering import (
    differ,
    find_owners,
    find_parts,
    find_twice,
    find_underlay,
    keep_routes,
    plan_peer,
    plan_routes,
    tell_altered,
    tell_parts,
    tell_twice,
    tell_unreached,
)

AGAIN_SECONDS = 1.0  # after actions: their effect is compared with the engine
STEADY_SECONDS = 60.0  # without anything to do


def decide(snapshot: Snapshot, local: Local, now: float) -> Decision:
    """Return the actions that bring this node and the engine together. `now` is monotonic seconds.

    Alarms come first, then lost ranges leave the conflists, then the routes: these need no engine. `_sequence` has the
    order of the others, and why a crash between any two is harmless.
    """
    if not snapshot.is_current:
        return _wait(local, snapshot.failure)
    parts = find_parts(snapshot, local.node)
    owners = find_owners(snapshot, local.node, parts)
    unknown, alarms = _find_unknown(snapshot, local)
    names = {*snapshot.pools, *snapshot.assigned, *(key[0] for key in local.held), *(a.network for a in local.attempts)}
    tried = {one.network for one in local.attempts}  # their requests may fail again: other networks come before them
    networks = [Network(name, snapshot, local, now, owners) for name in sorted(names, key=lambda n: (n in tried, n))]
    for network in networks:
        network.unknown = {one.cidr.version for one in unknown if one.network == network.name}
    plans = [network.decide() for network in networks]
    announced = {network.name: network.plan.announced for network in networks if network.is_routed()}
    own = [cidr for cidrs in announced.values() for cidr in cidrs]
    twice = find_twice(owners, (*own, *find_underlay(local.node)))
    routes = plan_routes(owners, twice, snapshot, local)
    alarms += [Alarm("unreadable", key, f"object {key}: {error}") for key, error in sorted(snapshot.unreadable.items())]
    alarms += [alarm for plan in plans for alarm in plan.alarms] + tell_twice(owners, twice, own)
    alarms += tell_parts(parts)
    alarms += tell_unreached(owners, twice, routes, local.node)
    alarms += encryption.tell((peer for peers in owners.values() for peer in peers), local.node)
    alarms += _find_overlaps(snapshot) + tell_altered(snapshot, local)
    actions: list[Action] = [*alarms, *(plan.withdrawal for plan in plans if plan.withdrawal)]
    if differ(routes, local.routes) or routes != local.kept_routes:
        actions.append(SetRoutes(routes))
    new = {cidr for plan in plans for cidr in plan.list_new()}
    present = {name: tuple(cidr for cidr in cidrs if cidr not in new) for name, cidrs in announced.items()}
    before, after = (plan_peer(snapshot, local, cidrs) for cidrs in (present, announced))
    if isinstance(before, Alarm) or isinstance(after, Alarm):
        actions[:0] = [one for one in (after,) if isinstance(one, Alarm)]
        before = after = None
    actions += _sequence(plans, unknown, before, after, is_new=local.announced is None)
    return Decision(tuple(actions), _again(actions, plans))


def _sequence(
    plans: list[Plan], unknown: list[Confirm], before: Peer | None, after: Peer | None, *, is_new: bool
) -> list[Action]:
    """Return the actions that need the engine, and those that wait for them.

    Networks without a request are finished first: a claim that fails again and again delays no other network. Then, and
    for each network in this order:

    1. Confirm, and claim missing blocks by name. Later actions may rely on them, and stop if they fail.
    2. Mark blocks that are used again, then claim new ones. After a crash the engine has a block of ours that is not
       published: the checkpoint or the snapshot has it, and it is published or drained then.
    3. Announce. After a crash other nodes have a route to a block without pods.
    4. Publish. After a crash a block is drained without its mark, and counts as unpublished.
    5. Mark drained blocks, release idle ones, forget. A released block was announced by nobody since step 3, so that
       its next owner has the only route. After a crash the engine has a drained block, which is released again.
    """
    ready = [plan for plan in plans if not plan.has_requests()]
    waiting = [plan for plan in plans if plan.has_requests()]
    actions: list[Action] = []
    if before is not None and (not is_new or any(plan.publication or plan.releases for plan in ready)):
        actions.append(Announce(before))
    else:
        before = None
    actions += _finish(ready)
    actions += [*unknown, *_merge(waiting, "confirms", "reclaims", "resumed", "claims")]
    if after is not None and after != before:
        actions.append(Announce(after))
    return actions + _finish(waiting)


def _finish(plans: list[Plan]) -> list[Action]:
    published = [plan.publication for plan in plans if plan.publication]
    return [*published, *_merge(plans, "drained", "releases", "forgets")]


def _merge(plans: list[Plan], *kinds: str) -> list[Action]:
    """Return the actions of each kind of all networks, one kind after the other."""
    return [action for kind in kinds for plan in plans for action in getattr(plan, kind)]


def _wait(local: Local, failure: str) -> Decision:
    """Keep everything as it is. Restore a conflist that somebody deleted, and routes that a boot removed.

    Claims and releases wait for the engine. Open attempts stay noted: they are confirmed by name when it answers again.
    """
    text = (
        f"node {local.node.name} is not synchronised with the cluster: {failure or 'the engine is silent'}. Pods start "
        f"until its blocks are full, and routes stay. Look at the engine's health and this node's way to it."
    )
    actions: list[Action] = [Alarm("not-synchronised", local.node.name, text), *encryption.tell((), local.node)]
    published = {one.network for one in local.held.values() if one.is_published}
    actions += [Publish(*kept) for kept in sorted(local.kept_ranges.items()) if kept[0] not in published and kept[1]]
    routes = keep_routes(local)
    if differ(routes, local.routes):
        actions.append(SetRoutes(routes))
    return Decision(tuple(actions), STEADY_SECONDS)


def _find_unknown(snapshot: Snapshot, local: Local) -> tuple[list[Confirm], list[Alarm]]:
    """Return reads of this node's blocks that it does not know, and alarms of blocks that look like its own.

    A crash between a claim and its note leaves an unknown block. The read prevents adopting a block that this node has
    released already, which an old snapshot still shows.
    """
    node = local.node
    attempted = {(one.network, one.cidr) for one in local.attempts if one.is_open}
    confirms, alarms = [], []
    former: dict[str, list[Block]] = {}
    for block in {id(one): one for owner in (node.uid, node.name) for one in snapshot.by_owner.get(owner, ())}.values():
        key = block.network, block.cidr
        if block.uid == node.uid:
            if key in local.held or key in attempted:
                continue
            other = snapshot.peers.get(block.node)
            if block.node != node.name and other is not None and other.uid == node.uid:
                alarms.append(_alarm_of_copy(block, node.name))
            else:
                confirms.append(Confirm(*key))
        elif block.node == node.name:
            former.setdefault(block.uid, []).append(block)
    alarms += [_alarm_of_former(uid, blocks) for uid, blocks in sorted(former.items())]
    return confirms, alarms


def _find_overlaps(snapshot: Snapshot) -> list[Alarm]:
    """Return an alarm for each two pools with common addresses. Two segments may have them: they are apart."""
    pools = sorted(snapshot.pools.values(), key=lambda pool: pool.network)
    found = []
    for number, one in enumerate(pools):
        for other in pools[number + 1 :]:
            both = ((mine.cidr, its.cidr) for mine in one.ranges for its in other.ranges)
            common = next((pair for pair in both if overlap(*pair)), None)
            if common is not None and Kind.ROUTED in (one.kind, other.kind):
                text = (
                    f"pool {one.network} has {common[0]} and pool {other.network} has {common[1]}, expected no common "
                    f"addresses: nodes may claim the same ones. Give one of the pools other ranges."
                )
                found.append(Alarm("pools-overlap", one.network, text))
    return found


def _alarm_of_copy(block: Block, name: str) -> Alarm:
    text = (
        f"block {block.cidr} of node {block.node} has the machine id of this node {name}, expected one id for each "
        f"machine: it is not used here. If the machine was renamed, `cnitool cluster release {block.node}`; if its "
        f"disk was copied, delete /var/lib/pycni/agent on the copy."
    )
    return Alarm("id-twice", str(block.cidr), text)


def _alarm_of_former(uid: str, blocks: list[Block]) -> Alarm:
    shown = ", ".join(str(block.cidr) for block in blocks[:3]) + (", ..." if len(blocks) > 3 else "")
    text = (
        f"node {blocks[0].node} had {len(blocks)} blocks ({shown}) as another machine (id {uid}), expected none: this "
        f"machine does not use them. If that machine is gone, `cnitool cluster release {blocks[0].node}`."
    )
    return Alarm("former-blocks", blocks[0].node, text)


def _again(actions: list[Action], plans: list[Plan]) -> float:
    """Return the seconds until the next decision: soon after actions, else when a grace ends."""
    if any(not isinstance(action, Alarm) for action in actions):
        return AGAIN_SECONDS
    return max(AGAIN_SECONDS, min([STEADY_SECONDS, *(wait for plan in plans for wait in plan.waits)]))
