"""Check the node's part in its cluster: the agent's duty, its alarms, the engine, and the kernel's limits."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from shared.agent import settings as agent_settings
from shared.cli.cluster import access, state
from shared.cli.cluster.tables import RESERVED, sizes
from shared.cli.cluster_arguments import SETTINGS
from shared.cli.doctor.findings import Finding, error, note, warning
from shared.cli.doctor.node import Node
from shared.cli.terminal import counted
from shared.cluster import routes, tunnel
from shared.cluster import settings as cluster_settings
from shared.cluster.model import Snapshot
from shared.cluster.tunnel import Tables

# Pods have no network, or two of them one address. Other alarms are warnings: the node works, but somebody must look.
SEVERE = (
    "block-lost", "block-overlaps", "cidr-twice", "cidr-unroutable", "encryption-differs", "encryption-unavailable",
    "id-twice", "name-twice", "neighbour-table", "node-unreadable", "peers-unreached", "range-foreign", "refused",
    "routes-missing", "template-unusable", "tunnel-missing",
)  # fmt: skip
PAGE = "docs/reference/cluster.md"
WAIT_SECONDS = 5.0  # for the engine's content
NEARLY = 0.9  # of a pool's blocks, or of the kernel's neighbours


def duty(_node: Node) -> Iterator[Finding]:
    """Report a cluster duty that cannot begin, or does not run, and its alarms."""
    if not _is_wanted():
        return
    try:
        cluster_settings.read()
    except ValueError as reason:
        yield error(
            SETTINGS, f"cannot be used: {reason}: this node is in no cluster", f"correct it; {PAGE} has the keys"
        )
        return
    try:
        found = state.read()
    except state.NoState as reason:
        yield error("cluster", f"the agent's duty has no report: {reason}", "journalctl -u pycni-agent  # or start it")
        return
    if state.is_stale(found):
        yield error(
            "cluster", f"the agent's duty has not looked for {state.age(found):.0f} s: blocks stay as they are",
            "systemctl restart pycni-agent  # pods and routes stay",
        )  # fmt: skip
        return
    for alarm in found.get("alarms") or ():
        yield _finding(alarm)


def _finding(alarm: Mapping[str, Any]) -> Finding:
    """Return an alarm as a finding. The last sentence of its text is the next step."""
    name, about, text = (str(alarm.get(key, "")) for key in ("name", "about", "text"))
    what, _, todo = text.removesuffix(".").rpartition(". ")
    make = error if name in SEVERE else warning
    return make(f"cluster {about}", f"{name}: {what or text}", todo if what else f"{PAGE} explains {name}")


def needs(name: str, key: str, value: str) -> bool:
    """Return True if a network is this node's in the cluster, and the cluster's settings have this value."""
    if not _is_wanted():
        return False
    try:
        found = cluster_settings.read()
    except ValueError:
        return False  # `duty` reports it
    return name in found.networks and getattr(found, key) == value


def _is_cut_off() -> bool:
    """Return True if the duty has the alarm that the engine does not answer."""
    try:
        return not state.read().get("isCurrent")
    except state.NoState:
        return False


def _is_wanted() -> bool:
    try:
        return state.is_wanted()
    except ValueError:
        return False  # `settings` reports it


def settings(_node: Node) -> Iterator[Finding]:
    """Report settings with which the agent does none of its duties."""
    try:
        agent_settings.read()
    except ValueError as reason:
        yield error(agent_settings.PATH, f"cannot be used: {reason}: the agent has no duties", "correct the key")


def engine(_node: Node) -> Iterator[Finding]:
    """Report an engine without an answer, blocks of machines that are gone, and pools that are nearly used up."""
    options = argparse.Namespace(settings=SETTINGS, kubeconfig="", context="", wait=WAIT_SECONDS)
    if not _is_wanted() or _is_cut_off():
        return
    try:
        with access.reached(options, is_quiet=True) as cluster:
            snapshot = cluster.snapshot
    except access.NoAnswer as reason:
        yield warning("engine", reason.failure, "look at the engine's health, and at this node's way to it")
        return
    except ValueError:
        return  # `duty` reports it
    yield from _left(snapshot)
    yield from _used_up(snapshot)


def _left(snapshot: Snapshot) -> Iterator[Finding]:
    """Report machines with blocks that no node announces."""
    present = {peer.uid for peer in snapshot.peers.values()}
    unreadable = {key.partition("/")[2] for key in snapshot.unreadable if key.startswith("nodes/")}
    owners = Counter((one.node, one.uid) for one in snapshot.blocks.values() if one.uid not in present)
    for (name, uid), number in sorted(owners.items()):
        if name not in unreadable and (name, uid) != (RESERVED, RESERVED):
            yield warning(
                f"cluster node {name}", f"has {counted(number, 'block')} as machine {uid}, which no node announces",
                f"cnitool cluster release {shlex.quote(name)} --uid {shlex.quote(uid)}  # if it is gone for good",
            )  # fmt: skip


def _used_up(snapshot: Snapshot) -> Iterator[Finding]:
    """Report the families of pools with few free blocks in all ranges together."""
    for pool in snapshot.pools.values():
        taken = [cidr for network, cidr in snapshot.blocks if network == pool.network]
        for version in sorted({one.cidr.version for one in pool.ranges}):
            found = [sizes(pool, one, taken) for one in pool.ranges if one.cidr.version == version]
            size, free = (sum(numbers) for numbers in zip(*found, strict=True))
            if free <= size * (1 - NEARLY):
                make = warning if free else error
                yield make(
                    f"pool {pool.network}", f"has {free} of {size} IPv{version} blocks free",
                    "cnitool cluster pool set FILE  # with a further range; `cnitool cluster blocks` lists the owners",
                )  # fmt: skip


def neighbours(_node: Node) -> Iterator[Finding]:
    """Report a neighbour table that is nearly too small for the peers. The duty has an alarm for one that is."""
    if not _is_wanted():
        return
    peers = {one.via for one in routes.read(())}
    tables = Tables()
    try:
        limits = tunnel.neighbour_limits(tables)
    finally:
        tables.close()
    for version, limit in sorted(limits.items()):
        number = sum(one.version == version for one in peers)
        if limit * NEARLY <= number < limit:
            key = f"net.ipv{version}.neigh.default.gc_thresh3"
            what = f"is {limit}, and there are {number} peers: soon new ones are unreachable"
            yield note(key, what, f"sysctl -w {key}={2 * number}")
