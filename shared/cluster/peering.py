"""Decide on peers: the node's own peer object, and the routes to the others' CIDRs. Nothing here has side effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

from shared.cluster import encryption
from shared.cluster.claims import order, overlap
from shared.cluster.model import Alarm, Block, Cidr, Kind, Local, Node, Peer, Route, Snapshot

Owners = Mapping[Cidr, tuple[Peer, ...]]
Parts = Mapping[tuple[str, Cidr], Block]  # the block that an announced CIDR is a part of, by node and CIDR


def find_owners(snapshot: Snapshot, node: Node, parts: Parts) -> dict[Cidr, tuple[Peer, ...]]:
    """Return the other nodes that announce each CIDR of a routed network: the engine's owner first, then by age.

    Leave out `parts` of other machines' blocks.
    """
    found: dict[Cidr, tuple[Peer, ...]] = {}
    twice: dict[Cidr, str] = {}
    segments = {name for name, pool in snapshot.pools.items() if pool.kind is Kind.SEGMENT}
    for peer in snapshot.peers.values():
        if peer.node == node.name or peer.uid == node.uid:
            continue
        for network, cidrs in peer.cidrs.items():
            if network in segments:
                continue
            for cidr in cidrs if not parts else [one for one in cidrs if (peer.node, one) not in parts]:
                alone = (peer,)
                if found.setdefault(cidr, alone) is not alone:  # to hash a CIDR once is a third of this function's time
                    twice[cidr] = network
                    found[cidr] += alone
    for cidr, network in twice.items():
        block = snapshot.blocks.get((network, cidr))
        owner = block.uid if block else ""
        found[cidr] = _order_owners(found[cidr], owner)
    return found


def find_parts(snapshot: Snapshot, node: Node) -> Parts:
    """Return the CIDRs that are parts of another machine's block, by the node that announces them.

    Their routes would be preferred to that of the block. This node's own blocks are looked at elsewhere.
    """
    pools = [pool for pool in snapshot.pools.values() if pool.kind is Kind.ROUTED]
    ranges = [(pool.network, one.cidr.version, one.block_length) for pool in pools for one in pool.ranges]
    found = {}
    for peer in snapshot.peers.values():
        for cidr in (one for cidrs in peer.cidrs.values() for one in cidrs):
            for network, version, length in ranges:
                if length < cidr.prefixlen and version == cidr.version:
                    block = snapshot.blocks.get((network, cidr.supernet(new_prefix=length)))
                    if block is not None and block.uid not in (peer.uid, node.uid):
                        found[peer.node, cidr] = block
    return found


def tell_parts(parts: Parts) -> list[Alarm]:
    """Return an alarm for each announced CIDR that is a part of another machine's block."""
    return [
        Alarm(
            "cidr-unroutable", str(cidr),
            f"node {name} announces CIDR {cidr}, which is a part of block {block.cidr} of node {block.node}: it gets "
            f"no route. Look at the credentials of node {name}, and correct its peer object.",
        )
        for (name, cidr), block in parts.items()
    ]  # fmt: skip


def _order_owners(peers: Sequence[Peer], owner: str) -> tuple[Peer, ...]:
    """Return the peers of one CIDR, that of the owner's id first, then by age.

    Of two objects of one machine the younger one comes first: the machine was renamed, and has left the other one.
    """
    joined: dict[str, float] = {}
    for peer in peers:
        joined[peer.uid] = min(peer.since, joined.get(peer.uid, peer.since))
    return tuple(sorted(peers, key=lambda one: (one.uid != owner, joined[one.uid], one.uid, -one.since, one.node)))


def find_twice(owners: Owners, own: Sequence[Cidr]) -> dict[Cidr, Cidr]:
    """Return the own CIDR that shares addresses with each of the others' CIDRs; one node should own both."""
    prefixes: dict[tuple[int, int], dict[int, Cidr]] = {}  # by family and length: each own CIDR and what contains it
    lengths = {(mine.version, mine.prefixlen) for mine in own}
    for version, length in {(cidr.version, cidr.prefixlen) for cidr in owners} | lengths:
        prefixes[version, length] = {
            int(mine.network_address) >> mine.max_prefixlen - length: mine
            for mine in own
            if mine.version == version and mine.prefixlen >= length
        }
    found = {}
    for cidr in owners:
        version, length, bits = cidr.version, cidr.prefixlen, cidr.max_prefixlen
        number = int(cidr.network_address)
        same = prefixes[version, length].get(number >> bits - length)
        for family, shorter in lengths if same is None else ():
            if family == version and shorter < length:
                same = same or prefixes[version, shorter].get(number >> bits - shorter)
        if same is not None and overlap(same, cidr):
            found[cidr] = same
    return found


def find_underlay(node: Node) -> list[Cidr]:
    """Return the networks that nodes reach each other through. A pod's CIDR among them would cut this node off.

    An address without a network, as clouds have it, is one of its own.
    """
    found = [link for link in node.links if any(address in link for address in node.addresses)]
    alone = (address for address in node.addresses if not any(address in link for link in found))
    return [*found, *map(ip_network, alone)]


def tell_twice(owners: Owners, twice: Mapping[Cidr, Cidr], own: Sequence[Cidr]) -> list[Alarm]:
    """Return an alarm for each own CIDR that another node announces, too. That node has the same alarm."""
    alarms = []
    for cidr, mine in twice.items():
        if mine not in own:
            text = (
                f"node {owners[cidr][0].node} announces CIDR {cidr}, which overlaps the nodes' own network {mine}: it "
                f"gets no route. Give the pool other addresses."
            )
            alarms.append(Alarm("cidr-unroutable", str(cidr), text))
            continue
        text = (
            f"CIDR {mine} of this node is announced by node {owners[cidr][0].node} too, as {cidr}, expected one owner: "
            f"the engine's owner keeps the route, without one the older node. Drain the other one, and see "
            f"`cnitool cluster blocks`."
        )
        alarms.append(Alarm("cidr-twice", str(mine), text))
    return alarms


def tell_unreached(owners: Owners, twice: Mapping[Cidr, Cidr], routes: frozenset[Route], node: Node) -> list[Alarm]:
    """Return an alarm if there is no way to peers' CIDRs. For encryption there is another one."""
    routed = {route.cidr for route in routes}
    missing = {peers[0].node: cidr for cidr, peers in owners.items() if cidr not in routed and cidr not in twice}
    if node.encrypts or not missing:
        return []
    shown = ", ".join(f"{name} with {cidr}" for name, cidr in sorted(missing.items())[:3])
    text = (
        f"node {node.name} has no way to the pods of {len(missing)} nodes ({shown}), expected a link "
        f'or a tunnel: they have addresses of another family, or one of both has `"tunnels": "never"`.'
    )
    return [Alarm("peers-unreached", node.name, text)]


def plan_routes(owners: Owners, twice: Mapping[Cidr, Cidr], snapshot: Snapshot, local: Local) -> frozenset[Route]:
    """Return all routes to other nodes: of each CIDR to the oldest claim that has a way to it.

    An own CIDR, or a part of it, never gets a route: its pods are here. Nor does the nodes' own network. A route goes
    only when no live peer claims it: the present one stays if there is no way to any peer of its CIDR, and if its peer
    cannot be read. If the node encrypts, addresses without an encrypted way are refused.
    """
    routes, unreached = set(), set()
    underlay = find_underlay(local.node)
    hidden = {cidr for cidr, mine in twice.items() if cidr.prefixlen >= mine.prefixlen or mine in underlay}
    for cidr, peers in owners.items():
        if cidr not in hidden:
            route = next((found for peer in peers if (found := _route(cidr, peer, local.node))), None)
            if route is None:
                unreached.add(cidr)
            else:
                routes.add(route)
    unreadable = {key.rpartition("/")[2] for key in snapshot.unreadable}
    if unreached or unreadable:
        for route in (*local.kept_routes, *local.routes):
            is_without_way = route.cidr in unreached and not local.node.encrypts
            if is_without_way or (route.node in unreadable and route.cidr not in owners):
                unreached.discard(route.cidr)
                routes.add(route)
    if not local.node.encrypts:
        return frozenset(route for route in routes if not route.is_refused)
    names = {cidr: owners[cidr][0].node for cidr in unreached}
    return encryption.refuse_clear(routes, dict.fromkeys(_list_ranges(snapshot, local.node), "") | names)


def _list_ranges(snapshot: Snapshot, node: Node) -> Iterable[Cidr]:
    """Yield the ranges that nodes' CIDRs are cut from, but for those with addresses of the nodes themselves."""
    ranges = [one.cidr for pool in snapshot.pools.values() if pool.kind is Kind.ROUTED for one in pool.ranges]
    underlay = find_underlay(node)
    return (cidr for cidr in (*ranges, *node.cluster_cidrs) if not any(overlap(cidr, link) for link in underlay))


def _route(cidr: Cidr, peer: Peer, node: Node) -> Route | None:
    """Return the route to a peer's CIDR, None if there is no way yet.

    A tunnel may go over the other family. Without the MAC of the peer's device it leads nowhere.
    """
    if node.encrypts:
        return encryption.find_route(cidr, peer, node)
    for via in peer.addresses:
        if via.version == cidr.version and via not in node.addresses:
            is_far = node.tunnels if node.tunnels is not None else not any(via in link for link in node.links)
            if not is_far:
                return Route(cidr, peer.node, via, is_tunnelled=False)
            if peer.vtep_mac:
                return Route(cidr, peer.node, via, is_tunnelled=True, mac=peer.vtep_mac)
    if peer.vtep_mac and node.tunnels is not False:
        for via in peer.addresses:
            if via.version != cidr.version and via not in node.addresses:
                return Route(cidr, peer.node, via, is_tunnelled=True, mac=peer.vtep_mac)
    return None


def differ(wanted: frozenset[Route], present: frozenset[Route]) -> bool:
    """Return True if the kernel must be changed. It does not know the names of nodes."""
    if wanted == present:
        return False
    one, other = (
        {(r.cidr, r.via, r.is_tunnelled, r.mac, r.key, r.is_refused) for r in routes} for routes in (wanted, present)
    )
    return one != other


def keep_routes(local: Local) -> frozenset[Route]:
    """Return the routes to have while the engine does not answer: those of the checkpoint, then the kernel's others."""
    kept = {one.cidr for one in local.kept_routes}
    routes = local.kept_routes | {one for one in local.routes if one.cidr not in kept}
    return encryption.refuse_clear(routes, {}) if local.node.encrypts else routes


def plan_peer(snapshot: Snapshot, local: Local, cidrs: Mapping[str, tuple[Cidr, ...]]) -> Peer | Alarm | None:
    """Return the own peer object to announce, None if the engine has it, or the alarm that another node has the name.

    A machine that is new under its name takes the object over. Its `since` is later than the former one's, even if
    its clock is not. If both live, the machine whose object was taken over yields, so that they do not write in turns.
    An engine that keeps something else than it was told is not told again: `tell_altered` says so.
    """
    node, present, before = local.node, snapshot.peers.get(local.node.name), local.announced
    since = local.wall_seconds
    if before is not None and before.uid == node.uid and before.node == node.name:
        since = before.since
        if present is not None and present.uid != node.uid and (present.since, present.uid) > (since, node.uid):
            return _alarm_of_name(present)
    elif present is not None:
        since = present.since if present.uid == node.uid else max(since, present.since + 1)
    wanted = Peer(
        node.name, node.uid, node.addresses, {network: all_of for network, all_of in cidrs.items() if all_of},
        since, node.vtep_mac, node.public_key,
    )  # fmt: skip
    stale = before is not None and not is_same(before, wanted)  # though an old snapshot may look right
    is_there = present is not None and (is_same(present, wanted) or _is_own_writing(present, before))
    return None if is_there and not stale else wanted


def _is_own_writing(present: Peer, before: Peer | None) -> bool:
    """Return True if the engine's object is that of this node's last announcement."""
    return before is not None and bool(before.revision) and present.revision == before.revision


def tell_altered(snapshot: Snapshot, local: Local) -> list[Alarm]:
    """Return an alarm if the engine keeps another object than this node has announced."""
    present, before = snapshot.peers.get(local.node.name), local.announced
    if present is None or before is None or not _is_own_writing(present, before) or is_same(present, before):
        return []
    names = ("addresses", "cidrs", "since", "vtep_mac", "public_key")
    lost = [name for name in names if getattr(_normal(present), name) != getattr(_normal(before), name)]
    text = (
        f"the engine keeps the object of node {local.node.name} without its {' and '.join(lost)}, expected as it was "
        f"written: the cluster's kinds are older than this agent. Apply the manifest resources.yaml of this release."
    )
    return [Alarm("peer-altered", local.node.name, text)]


def _alarm_of_name(other: Peer) -> Alarm:
    text = (
        f"node name {other.node} is in use by another machine (id {other.uid}) that joined later, expected one machine "
        f"of each name: give one of them another name. This node's CIDRs are not announced until then."
    )
    return Alarm("name-twice", other.node, text)


def is_same(one: Peer, other: Peer) -> bool:
    """Return True if two peer objects say the same, in any order and of any revision."""
    return _normal(one) == _normal(other)


def _normal(peer: Peer) -> Peer:
    cidrs = {network: tuple(sorted(all_of, key=order)) for network, all_of in peer.cidrs.items() if all_of}
    return replace(peer, cidrs=cidrs, addresses=tuple(sorted(peer.addresses, key=str)), revision="")
