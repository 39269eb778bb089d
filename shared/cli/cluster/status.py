"""cnitool cluster status: this node's part in the cluster, from the duty's own account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from shared.cli.cluster import state as duty
from shared.cli.networks import Options, print_error, print_json
from shared.cli.terminal import age, paint, print_table, printable, rounded, say

HEAD = ("NETWORK", "KIND", "RANGE", "STATE", "USED", "FREE", "CONFLIST")


def run(options: Options) -> int:
    """Print the account. Return 1 if the node is not synchronised, has alarms, or has no account."""
    try:
        state = duty.read()
    except duty.NoState as error:
        print_error(options, error)
        return 1
    is_stale = duty.is_stale(state)
    if options.json:
        print_json({**state, "ageSeconds": round(duty.age(state)), "isStale": is_stale})
    else:
        _print(state, is_stale=is_stale)
    return int(is_stale or not state.get("isCurrent") or bool(state.get("alarms")))


def _print(state: Mapping[str, Any], *, is_stale: bool) -> None:
    since = datetime.fromtimestamp(float(state["since"]), UTC).isoformat(timespec="seconds")
    failure = printable(state.get("failure") or "")
    synchronised = "synchronised" if state.get("isCurrent") else paint("31", "not synchronised")
    say(f"node      {printable(state.get('node'))}, id {printable(state.get('uid'))}")
    say(f"engine    {printable(state.get('engine'))}, {synchronised} since {since}{f': {failure}' if failure else ''}")
    say(f"looked    {age(duty.age(state))} ago{': the agent has ended, or hangs' if is_stale else ''}")
    numbers = (state.get(key) or 0 for key in ("peers", "routes", "missingRoutes"))
    say("others    {} nodes, {} routes, {} of them missing in the kernel".format(*numbers))
    counts = state.get("counts") or {}
    say(
        f"traffic   {counts.get('requests', 0)} requests, {counts.get('sentBytes', 0)} bytes sent,"
        f" {counts.get('receivedBytes', 0)} received, {counts.get('events', 0)} events;"
        f" {counts.get('steps', 0)} steps, {counts.get('failures', 0)} failures"
    )
    rows = list(_rows(state["networks"]))
    if rows:
        say("")
        print_table(HEAD, rows)
    alarms = state.get("alarms") or []
    if alarms:
        say("")
    for alarm in alarms:
        name, about, text = (printable(alarm.get(key)) for key in ("name", "about", "text"))
        say(f"{paint('31', 'alarm')}     {name} {about}: {text}")


def _rows(networks: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Return a row for each range, and one for a network without ranges."""
    for name, network in sorted(networks.items()):
        for one in network["ranges"]:
            conflist = "yes" if one["isPublished"] else "no"
            yield name, network["kind"], one["cidr"], one["state"], one["used"], rounded(one["free"]), conflist
        if not network["ranges"]:
            yield name, network["kind"] or "–", "none yet", "–", "–", "–", "no"
