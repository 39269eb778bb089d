"""cnitool cluster explain: this node's next decision in words, without doing it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from shared.cli.cluster.access import NoAnswer, reached, read_settings
from shared.cli.networks import Options, print_json
from shared.cli.terminal import counted, printable, say
from shared.cluster import claims, files
from shared.cluster.checkpoint import DIRECTORY, UID, Store
from shared.cluster.executor import Executor
from shared.cluster.model import (
    Action,
    Alarm,
    Announce,
    Cidr,
    Claim,
    Confirm,
    Decision,
    Forget,
    Held,
    Local,
    Mark,
    Publish,
    Release,
    Route,
    SetRoutes,
    Snapshot,
    State,
)  # fmt: skip
from shared.cluster.node import NodeHost

SHOWN = 5  # routes by name


class NotANode(ValueError):
    """The machine is no node of a cluster."""


def explain(options: Options) -> None:
    """Print the decision that the agent would take now, also one without the engine's answer."""
    uid = _read_uid()
    settings = read_settings(options)
    host = NodeHost(settings, settings.node_name(), uid)
    try:
        with reached(options) as cluster:
            snapshot = cluster.snapshot
    except NoAnswer as error:
        snapshot = Snapshot(failure=error.failure)
    executor = Executor(_NoEngine(), host, Store())  # type: ignore[arg-type]
    local, decision = executor.plan(snapshot, time.monotonic(), time.time())
    if options.json:
        print_json(_as_document(local, decision))
    else:
        _print(local, decision)


class _NoEngine:
    """The engine of an executor that only plans."""


def _read_uid() -> str:
    """Return this machine's id. Raise NotANode if the agent has made none: this command must not."""
    path = DIRECTORY / "uid"
    uid = (files.read_own(path) or "").strip()
    if not UID.fullmatch(uid):
        raise NotANode(f"this machine is no node yet: {path} has no id, which the agent makes when its duty first runs")
    return uid


def _print(local: Local, decision: Decision) -> None:
    node = local.node
    say(f"node      {node.name}, id {node.uid}, addresses {' '.join(map(str, node.addresses))}")
    for one in sorted(local.held.values(), key=lambda one: (one.network, claims.order(one.cidr))):
        place = "in the conflist" if one.is_published else "not in the conflist"
        say(f"has       {one.cidr} of {one.network}: {counted(one.used, 'lease')}, {place}{_qualities(one)}")
    actions = [one for one in decision.actions if not isinstance(one, Alarm)]
    for action in decision.actions:
        if isinstance(action, Alarm):
            say(f"alarm     {action.name} {printable(action.about)}: {printable(action.text)}")
    for number, action in enumerate(actions, 1):
        say(f"{number:>4}      {describe(action, local)}")
    if not actions:
        say("nothing to do")
    say(f"looks again after {decision.again_seconds:g} s, or when the engine tells a change")


def _qualities(one: Held) -> str:
    return (", assigned by a controller" if one.is_assigned else "") + (", drained" if one.is_draining else "")


def describe(action: Action, local: Local) -> str:
    """Return an action in words."""
    match action:
        case Claim() | Confirm() | Mark() | Release() | Forget():
            return _describe_block(action)
        case Publish(network, cidrs):
            return f"write the conflist of {network} with {_listed(cidrs) or 'no ranges: the network is not ready'}"
        case Announce(peer):
            own = _listed(cidr for found in peer.cidrs.values() for cidr in found)
            return f"announce this node to the others with {own or 'no CIDRs'}"
        case SetRoutes(routes):
            return _describe_routes(routes, local)
        case _:
            return str(action)


def _describe_block(action: Claim | Confirm | Mark | Release | Forget) -> str:
    match action:
        case Claim(network, cidr):
            return f"claim {cidr} of {network} in the engine"
        case Confirm(network, cidr):
            return f"read {cidr} of {network} in the engine: its owner is not certain"
        case Mark(block, State.DRAINING):
            return f"mark {block.cidr} of {block.network} as draining: no pod gets an address of it any more"
        case Mark(block, _):
            return f"mark {block.cidr} of {block.network} as owned: pods get addresses of it again"
        case Release(block):
            return f"give {block.cidr} of {block.network} back to the engine"
        case Forget(network, cidr, is_attempt):
            return f"forget {'the attempt to claim ' if is_attempt else ''}{cidr} of {network}"


def _listed(cidrs: Iterable[Cidr]) -> str:
    return " ".join(map(str, cidrs))


def _describe_routes(routes: frozenset[Route], local: Local) -> str:
    """Return the change of the kernel's routes in numbers, and the first of each kind by name."""
    have = {replace(one, node="") for one in local.routes}  # the kernel does not know the names of nodes
    new = [one for one in routes if replace(one, node="") not in have]
    gone = {one.cidr for one in local.routes} - {one.cidr for one in routes}
    parts = [f"make the kernel have {counted(len(routes), 'route')}"]
    if new:
        shown = ", ".join(map(_describe_route, sorted(new, key=lambda one: claims.order(one.cidr))[:SHOWN]))
        parts.append(f"set {len(new)}: {shown}{', ...' if len(new) > SHOWN else ''}")
    if gone:
        shown_gone = sorted(gone, key=claims.order)[:SHOWN]
        parts.append(f"delete {len(gone)}: {_listed(shown_gone)}{' ...' if len(gone) > SHOWN else ''}")
    return "; ".join(parts)


def _describe_route(route: Route) -> str:
    if route.is_refused:
        return f"{route.cidr} refused, as {route.node} has no encrypted way"
    way = "encrypted to" if route.key else "through the tunnel to" if route.is_tunnelled else "via"
    return f"{route.cidr} {way} {route.via} ({route.node})"


def _as_document(local: Local, decision: Decision) -> dict[str, Any]:
    return {
        "node": local.node.name,
        "uid": local.node.uid,
        "held": [
            {"network": one.network, "cidr": str(one.cidr), "used": one.used, "isPublished": one.is_published,
             "isAssigned": one.is_assigned, "isDraining": one.is_draining}
            for one in sorted(local.held.values(), key=lambda one: (one.network, claims.order(one.cidr)))
        ],
        "alarms": [
            {"name": one.name, "about": one.about, "text": one.text}
            for one in decision.actions if isinstance(one, Alarm)
        ],
        "actions": [
            {"action": type(one).__name__, "text": describe(one, local)}
            for one in decision.actions if not isinstance(one, Alarm)
        ],
        "againSeconds": decision.again_seconds,
    }  # fmt: skip
