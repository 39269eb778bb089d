"""The alarms of one network's decisions: object, observed, expected, next step."""

from __future__ import annotations

from shared.cluster.model import Alarm, Block, Held, Range


def assignment_missing(one: Held) -> Alarm:
    """Return the alarm of an assigned CIDR that the controller has taken back without another one."""
    text = (
        f"network {one.network}: CIDR {one.cidr} is not assigned to this node any more, and no other one is. It stays "
        f"in use. Set the node's podCIDRs, or wait for the controller."
    )
    return Alarm("assignment-missing", str(one.cidr), text)


def block_lost(one: Held, owner: str) -> Alarm:
    """Return the alarm of a block that another node owns."""
    pods = f"Its {one.used} pods here may share addresses with others: delete them. " if one.used else ""
    text = (
        f"block {one.cidr} of network {one.network} is claimed by {owner}, expected this node as its owner. {pods}No "
        f"pod gets an address of it."
    )
    return Alarm("block-lost", str(one.cidr), text)


def block_overlaps(one: Held, older: Block) -> Alarm:
    """Return the alarm of a block that shares addresses with an older one of another length."""
    text = (
        f"block {one.cidr} of network {one.network} overlaps the older block {older.cidr} of node {older.node}: this "
        f"node drains it. Change a pool's block length only when no node is joining."
    )
    return Alarm("block-overlaps", str(one.cidr), text)


def network_unnamed(network: str, number: int) -> Alarm:
    """Return the alarm of a network that left the settings, with the number of its blocks on this node."""
    text = (
        f"network {network} is not in this node's settings, but the node has {number} blocks of it: they are given "
        f"back when no pod has an address of them. To keep them, name the network in pycni-cluster.json."
    )
    return Alarm("network-unnamed", network, text)


def pool_exhausted(network: str, entry: Range) -> Alarm:
    """Return the alarm of a pool without a free block for this node."""
    text = (
        f"network {network}: pool {entry.cidr} has no free block of /{entry.block_length}, and this node needs one. "
        f"Add a range to the pool, or release the blocks of nodes that are gone: `cnitool cluster blocks`."
    )
    return Alarm("pool-exhausted", network, text)


def pool_missing(network: str) -> Alarm:
    """Return the alarm of a network with blocks here and without a pool."""
    text = f"network {network} has blocks here but no pool, expected one: its ranges stay. Write the pool."
    return Alarm("pool-missing", network, text)


def range_foreign(one: Held) -> Alarm:
    """Return the alarm of a range from before the cluster."""
    text = (
        f"network {one.network}: the conflist leases from {one.cidr}, which is no block of the pool, expected the "
        f"agent's ranges: other nodes may give the same addresses. The agent leaves the network alone. Drain the node, "
        f"and move the file away."
    )
    return Alarm("range-foreign", str(one.cidr), text)
