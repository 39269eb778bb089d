"""Decide all that a node does in its cluster. No function here reads a clock, a file or the engine.

Local truth is what pods use: the leases, the conflist and the checkpoint. The engine's content corrects it only while
it is current. A watch may lag behind this node's own writes, so that each decision is safe with an older snapshot:
a block is adopted only after a read by name, a claim of an own block is a success, and other writes compare revisions.
"""

from __future__ import annotations

from collections.abc import Iterable

from shared.cluster.model import (
    Action,
    Alarm,
    Announce,
    Block,
    Confirm,
    Decision,
    Local,
    Publish,
    SetRoutes,
    Snapshot,
)  # fmt: skip
from shared.cluster.network import Network, Plan
from shared.cluster.peering import (
    differ,
    find_owners,
    find_twice,
    find_underlay,
    keep_routes,
    plan_peer,
    plan_routes,
    tell_twice,
)

AGAIN_SECONDS = 1.0  # after actions: their effect is compared with the engine
STEADY_SECONDS = 60.0  # without anything to do


def decide(snapshot: Snapshot, local: Local, now: float) -> Decision:
    """Return the actions that bring this node and the engine together. `now` is monotonic seconds.

    The order makes a crash between any two actions harmless:

    1. Alarms, and ranges of lost blocks out of the conflist. Nothing may keep these waiting.
    2. Routes. They need no engine.
    3. Confirm, and claim missing blocks by name. Later actions may rely on them, and stop if they fail.
    4. Mark blocks that are used again, then claim new ones. After a crash the engine has a block of ours that is not
       published: the checkpoint or the snapshot has it, and it is published or drained then.
    5. Announce. After a crash other nodes have a route to a block without pods.
    6. Publish. After a crash a block is drained without its mark, and counts as unpublished.
    7. Mark drained blocks, release idle ones, forget. A released block was announced by nobody since step 5, so that
       its next owner has the only route. After a crash the engine has a drained block, which is released again.
    """
    if not snapshot.is_current:
        return _wait(local, snapshot.failure)
    owners = find_owners(snapshot, local.node)
    unknown, alarms = _find_unknown(snapshot, local)
    names = {*snapshot.pools, *snapshot.assigned, *(key[0] for key in local.held), *(a.network for a in local.attempts)}
    networks = {name: Network(name, snapshot, local, now, owners) for name in sorted(names)}
    plans = {name: network.decide() for name, network in networks.items()}
    announced = {name: plans[name].announced for name, network in networks.items() if network.is_routed()}
    own = [cidr for cidrs in announced.values() for cidr in cidrs]
    peer = plan_peer(snapshot, local, announced)
    twice = find_twice(owners, (*own, *find_underlay(local.node)))
    routes = plan_routes(owners, twice, snapshot, local)
    alarms += [Alarm("unreadable", key, f"object {key}: {error}") for key, error in sorted(snapshot.unreadable.items())]
    alarms += [alarm for plan in plans.values() for alarm in plan.alarms] + tell_twice(owners, twice, own)
    actions: list[Action] = [*alarms, *([peer] if isinstance(peer, Alarm) else [])]
    actions += [plan.withdrawal for plan in plans.values() if plan.withdrawal]
    if differ(routes, local.routes) or routes != local.kept_routes:
        actions.append(SetRoutes(routes))
    actions += [*unknown, *_merge(plans.values(), "confirms", "reclaims", "resumed", "claims")]
    if peer is not None and not isinstance(peer, Alarm):
        actions.append(Announce(peer))
    actions += [plan.publication for plan in plans.values() if plan.publication]
    actions += _merge(plans.values(), "drained", "releases", "forgets")
    return Decision(tuple(actions), _again(actions, plans.values()))


def _merge(plans: Iterable[Plan], *kinds: str) -> list[Action]:
    """Return the actions of each kind of all networks, one kind after the other."""
    plans = list(plans)
    return [action for kind in kinds for plan in plans for action in getattr(plan, kind)]


def _wait(local: Local, failure: str) -> Decision:
    """Keep everything as it is. Restore a conflist that somebody deleted, and routes that a boot removed.

    Claims and releases wait for the engine.
    Open attempts stay noted: they are confirmed by name when the engine answers again.
    """
    text = (
        f"node {local.node.name} is not synchronised with the cluster: {failure or 'the engine is silent'}. Pods start "
        f"until its blocks are full, and routes stay. Look at the engine's health and this node's way to it."
    )
    actions: list[Action] = [Alarm("not-synchronised", local.node.name, text)]
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
    for key, block in snapshot.blocks.items():
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


def _again(actions: list[Action], plans: Iterable[Plan]) -> float:
    """Return the seconds until the next decision: soon after actions, else when a grace ends."""
    if any(not isinstance(action, Alarm) for action in actions):
        return AGAIN_SECONDS
    return max(AGAIN_SECONDS, min([STEADY_SECONDS, *(wait for plan in plans for wait in plan.waits)]))
