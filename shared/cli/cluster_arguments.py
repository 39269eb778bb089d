"""The arguments of `cnitool cluster`. This module needs the standard library only."""

from __future__ import annotations

import argparse
from typing import Any

SETTINGS = "/etc/cni/pycni-cluster.json"
LONGEST_SECONDS = 3600
HELPS = {
    "status": "show this node's part: ranges, routes, alarms; needs no answer of the engine; the default",
    "blocks": "list the blocks of addresses with their owners",
    "peers": "list the nodes: addresses, blocks, the way from this node to each",
    "pool": "show the pools and their free blocks, or write one",
    "release": "free the blocks of a machine that is gone for good",
    "explain": "show this node's next decision, without doing it",
    "clean": "delete the cluster's routes and tunnels from this node, after its agent has ended",
}
STATUS_EPILOG = """exit status: 0 the node is synchronised and has no alarms; 1 otherwise, or if no duty runs here"""
BLOCKS_EPILOG = """The column NOTE marks this node's blocks, and those of machines that the other nodes do not see. If
such a machine is gone for good, `cnitool cluster release NODE` frees its blocks."""
PEERS_EPILOG = """The column WAY is read from this node's kernel: direct, tunnel, encrypted, refused (this node
encrypts, and there is no encrypted way), or none if no route leads there."""
SET_EPILOG = """FILE is JSON, - for standard input:

  {"network": "pods", "kind": "routed", "ranges": [
    {"cidr": "10.244.0.0/16", "blockLength": 24}, {"cidr": "fd00:10:244::/48", "blockLength": 64}]}

kind: routed for a pod network between nodes, segment for one layer-2 segment over all nodes. A segment's range may have
a gateway. Nodes claim blocks of blockLength from the first range of each family that has a free one. A pool that shares
addresses with another network or with a node itself is refused. Blocks outside of the new ranges are drained: pods keep
their addresses, and each node gives its blocks back when they are empty."""
RESERVE_EPILOG = """Reserve before you write the pool: nodes claim blocks as soon as there is one. The reserved
addresses are a block with the owner "reserved". It may be shorter or longer than the pool's blocks, and is refused if a
node has a block there. `cnitool cluster release reserved` frees it."""
RELEASE_EPILOG = """Release a machine only if it is switched off for good. If it runs on, cut off from the engine, its
pods keep their addresses, and other nodes give the same ones to other pods.

Without --uid, show the machines that have or had this name, and free nothing. With --uid, free the blocks of that
machine and remove its peer object, so that the others delete their routes to it. The machine must have no sign of life:
in etcd its key below alive/, in Kubernetes its Node. Each block is freed only if nobody has changed it meanwhile."""
EXPLAIN_EPILOG = """Read the engine, this node's files, leases and routes, and print the actions that the agent would do
now, in order. Blocks count as empty since this moment: no grace is over. Nothing is changed."""
CLEAN_EPILOG = """For a node that leaves its cluster. Pods here keep their network, but other nodes' pods are out of
reach. The id and the checkpoint in /var/lib/pycni/agent stay: an agent that begins again has the same blocks. With
--forget they go: the machine is a new node, and `cnitool cluster release` elsewhere frees its former blocks."""


def declare(parser: Any) -> None:
    """Declare the actions of a Parser of shared/cli/commands.py."""
    parser.actions = tuple(HELPS)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    found = {name: actions.add_parser(name, help=text, description=text) for name, text in HELPS.items()}
    found["blocks"].add_argument("network", metavar="NETWORK", nargs="?", default="", help="only this network")
    found["blocks"].add_argument("--node", metavar="NODE", default="", help="only this node's blocks")
    found["release"].add_argument("node", metavar="NODE", help="the node's name")
    found["release"].add_argument("--uid", metavar="UID", default="", help="the machine's id, to confirm the release")
    text = "also delete this machine's id and checkpoint"
    found["clean"].add_argument("--forget", action="store_true", help=text)
    _pool(found["pool"])
    epilogs = {
        "status": STATUS_EPILOG, "blocks": BLOCKS_EPILOG, "peers": PEERS_EPILOG, "release": RELEASE_EPILOG,
        "explain": EXPLAIN_EPILOG, "clean": CLEAN_EPILOG,
    }  # fmt: skip
    for name, action in found.items():
        action.set_defaults(action=name)
        if name in epilogs:
            _epilog(action, epilogs[name])
        if name != "pool":
            _common(action, has_engine=name not in ("status", "clean"))


def _pool(parser: Any) -> None:
    parser.actions = ("show", "set", "reserve")
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    helps = ("show the pools; the default", "write a network's pool", "keep addresses of a pool from all nodes")
    for name, text in zip(parser.actions, helps, strict=True):
        action = actions.add_parser(name, help=text, description=text)
        if name == "set":
            action.add_argument("file", metavar="FILE", help="a JSON file with the pool, - for standard input")
            action.add_argument("--dry-run", action="store_true", help="check the pool without writing it")
            _epilog(action, SET_EPILOG)
        if name == "reserve":
            action.add_argument("network", metavar="NETWORK", help="the pool's network")
            action.add_argument("cidr", metavar="CIDR", help="the addresses, such as 192.168.8.0/28")
            _epilog(action, RESERVE_EPILOG)
        _common(action, has_engine=True)
        action.set_defaults(pool_action=name)


def _epilog(parser: argparse.ArgumentParser, text: str) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = text


def _common(parser: argparse.ArgumentParser, *, has_engine: bool) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    if has_engine:
        declare_engine(parser)


def declare_engine(parser: Any) -> None:
    """Declare the options of a command that asks the engine."""
    text = "how to reach the engine (default: %(default)s)"
    parser.add_argument("--settings", metavar="FILE", default=SETTINGS, help=text)
    text = "an administrator's credentials for Kubernetes, in place of the agent's"
    parser.add_argument("--kubeconfig", metavar="FILE", default="", help=text)
    parser.add_argument("--context", metavar="NAME", default="", help="a context of --kubeconfig")
    text = "how long to wait for the engine's content (default: %(default)s)"
    parser.add_argument("--wait", metavar="SECONDS", type=_seconds, default=10.0, help=text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to {LONGEST_SECONDS}")
    return seconds
