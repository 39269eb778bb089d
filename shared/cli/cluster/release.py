"""cnitool cluster release: free the blocks of a machine that is gone for good, and remove its peer object."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shared.cli.cluster.access import Cluster, reached
from shared.cli.networks import Options, print_json, run_guarded
from shared.cli.terminal import counted, print_table, printable, say
from shared.cluster import claims, files
from shared.cluster.checkpoint import DIRECTORY
from shared.cluster.engine import Taken
from shared.cluster.model import Block, Peer, Snapshot

SHOWN = 10  # names in a message


class Refused(ValueError):
    """The release would be wrong, or stopped half-way; the message says why."""


@dataclass(frozen=True)
class Machine:
    """A machine that has, or had, a node's name."""

    node: str
    uid: str
    blocks: tuple[Block, ...]  # that it claimed under this name
    peer: Peer | None = None  # its object under this name
    successor: str = ""  # the uid of the machine that has the name now
    renamed: str = ""  # the name that it has now

    @property
    def freed(self) -> tuple[Block, ...]:
        """Return the blocks that a release frees. A machine with another name uses its blocks on."""
        return () if self.renamed else self.blocks


def run(options: Options) -> int:
    """Release a machine, or show those with the node's name. Return 1 if nothing was released, or not everything."""
    done: list[bool] = []
    return run_guarded(options, lambda chosen: done.append(_release(chosen))) or int(not done[0])


def _release(options: Options) -> bool:
    with reached(options) as cluster:
        machines = find(cluster.snapshot, options.node)
        if not machines:
            raise Refused(_unknown(options.node, cluster.snapshot))
        machine = next((one for one in machines if one.uid == options.uid), None)
        if machine is None and options.uid:
            uids = ", ".join(printable(one.uid) for one in machines)
            raise Refused(
                f"--uid {options.uid} is no machine of node {options.node}, which has {uids}: nothing is released"
            )
        if machine is None:
            _show(machines, cluster, is_json=options.json)
            return False
        _demand_gone(machine, cluster)
        _free(machine, cluster, is_json=options.json)
    return True


def find(snapshot: Snapshot, node: str) -> list[Machine]:
    """Return the machines that have blocks or the peer object under a node's name."""
    peer = snapshot.peers.get(node)
    blocks: dict[str, list[Block]] = {peer.uid: []} if peer else {}
    for block in snapshot.blocks.values():
        if block.node == node:
            blocks.setdefault(block.uid, []).append(block)
    names = {one.uid: one.node for one in snapshot.peers.values() if one.node != node}
    return [
        Machine(
            node, uid, tuple(sorted(found, key=lambda one: (one.network, claims.order(one.cidr)))),
            peer if peer and peer.uid == uid else None, peer.uid if peer and peer.uid != uid else "",
            names.get(uid, ""),
        )
        for uid, found in sorted(blocks.items())
    ]  # fmt: skip


def _unknown(node: str, snapshot: Snapshot) -> str:
    known = sorted({*snapshot.peers, *(one.node for one in snapshot.blocks.values())}, key=_by_number)
    shown = ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "")
    key = f"nodes/{node}"
    if key in snapshot.unreadable:
        return f"node {node} has no blocks, and its peer object {key} is unreadable: delete it by the engine's own tool"
    return (
        f"node {node} has neither blocks nor a peer object: nothing is to be released; the nodes are {shown or 'none'}"
    )


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts node2 before node10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]


def _show(machines: Iterable[Machine], cluster: Cluster, *, is_json: bool) -> None:
    """Print the machines with a node's name, and the command that releases each."""
    lives = {one.uid: _life(one, cluster) for one in machines}
    if is_json:
        print_json({"released": [], "machines": [_machine_json(one, lives[one.uid]) for one in machines]})
        return
    rows = [
        (printable(one.uid), len(one.blocks), "yes" if one.peer else "no", lives[one.uid] or "none") for one in machines
    ]
    print_table(("UID", "BLOCKS", "PEER", "SIGN OF LIFE"), rows)
    say("nothing is released; if a machine is gone for good:")
    for one in machines:
        say(f"  cnitool cluster release {one.node} --uid {printable(one.uid)}")


def _machine_json(one: Machine, life: str) -> dict[str, Any]:
    return {"node": one.node, "uid": one.uid, "blocks": _blocks_json(one.blocks), "hasPeer": one.peer is not None,
            "renamed": one.renamed or None, "successor": one.successor or None, "signOfLife": life or None}  # fmt: skip


def _blocks_json(blocks: Iterable[Block]) -> list[dict[str, str]]:
    return [{"network": one.network, "cidr": str(one.cidr)} for one in blocks]


def _life(machine: Machine, cluster: Cluster) -> str:
    """Return a machine's sign of life in words; empty without one."""
    own = files.read_own(DIRECTORY / "uid")
    if own is not None and own.strip() == machine.uid and not machine.renamed:
        return f"it is this machine, as {DIRECTORY / 'uid'} says"
    return cluster.engine.find_life(machine.node, machine.uid)


def _demand_gone(machine: Machine, cluster: Cluster) -> None:
    """Raise Refused if a machine has a sign of life."""
    life = _life(machine, cluster)
    if life:
        raise Refused(
            f"node {machine.node} is not gone: {life}. Nothing is released. Drain the node and switch it off; in"
            " Kubernetes delete its Node. Then try again, after a minute with etcd"
        )


def _free(machine: Machine, cluster: Cluster, *, is_json: bool) -> None:
    """Remove the peer object, then the blocks: the next owner's route is the only one then.

    Stop at the first object that somebody has changed: the machine lives. What is left is released by the same command.
    """
    released: list[Block] = []
    try:
        if machine.peer is not None:
            cluster.engine.withdraw(machine.peer)
            if not is_json:
                say(f"removed   the peer object of {machine.node}: other nodes delete their routes to it")
        for block in machine.freed:
            cluster.engine.release(block)
            released.append(block)
            if not is_json:
                say(f"released  {block.cidr} of {block.network}")
    except Taken as error:
        raise Refused(
            f"node {machine.node}: somebody has changed an object meanwhile, so that the machine may live: {error}."
            f" {counted(len(released), 'block')} released; look at the machine, then try again"
        ) from error
    if is_json:
        print_json({"node": machine.node, "uid": machine.uid, "isWithdrawn": machine.peer is not None,
                    "released": _blocks_json(released)})  # fmt: skip
        return
    say(f"{counted(len(released), 'block')} released")
    if machine.renamed:
        left = counted(len(machine.blocks), "block")
        say(f"the machine is node {machine.renamed} now, whose agent keeps or gives back its {left}")
