"""ipam: show host-local's pools and leases, and release leases that are certainly dead."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from shared.cli import networks
from shared.cli.leases import pools as leases
from shared.cli.leases.pools import DOWN, Held, Node, Pool
from shared.cli.terminal import age, print_table, rounded, say
from shared.cni.ip import Address
from shared.runtime import conflist
from shared.runtime.conflist import ConfigError
from shared.runtime.presence import GONE

LONG = 1000  # leases; reading more takes a while, and rich needs 2 ms for a row
NUMBERS = ("SIZE", "USED", "FREE", "AGE")
CUT = {"CONTAINER": 20, "NETNS": 24}  # characters on a terminal; a pipe and --json get the whole text
FOLDED = ("RANGES", "CONFIGURATION", "DEAD")
STYLES = {"alive": "green", "up": "green", DOWN: "yellow", GONE: "red", "unknown": "dim"}
NEARLY_FULL = 0.9


class NothingFound(ConfigError):
    """The network or lease does not exist; the message names those that do."""


def run(options: Namespace) -> int:
    """Run the action of the command line. Return 1 if it failed."""
    return networks.run_guarded(options, {"show": _show, "release": _release, "gc": _gc}[options.action])


def _pools(network: str = "") -> list[Pool]:
    """Return the pools of a network, or of all. Raise NothingFound for an unknown network."""
    try:
        configured = conflist.load(networks.conf_dir(), networks.warn)
    except ConfigError as error:
        networks.warn(str(error))
        configured = []
    found = leases.pools(configured)
    chosen = [pool for pool in found if network in ("", pool.network)]
    if network and not chosen:
        names = ", ".join(dict.fromkeys(pool.network for pool in found)) or "none"
        raise NothingFound(f"host-local has no network {network}; its networks: {names}")
    return chosen


def _read(pools: Iterable[Pool], node: Node) -> None:
    for pool in pools:
        leases.read(pool, node, _progress)


def _progress(names: Sequence[str], network: str) -> Iterable[str]:
    """Show the progress of a long list if stderr is a terminal."""
    if len(names) < LONG or not sys.stderr.isatty():
        return names
    return track(names, f"leases of {network}", console=Console(stderr=True), transient=True)


# -- show


def _show(options: Namespace) -> None:
    pools = _pools(options.network)
    _read(pools, Node(options.cache_dir))
    if options.json:
        networks.print_json({"pools": [_pool_json(pool) for pool in pools]})
        return
    if not pools:
        say("host-local has no pools and no leases on this node")
        return
    _print(
        ("NETWORK", "RANGES", "SIZE", "USED", "FREE", "CONFIGURATION"), [row for pool in pools for row in _row(pool)]
    )
    found = [(pool, held) for pool in pools for held in pool.held]
    if found:
        say("")
        _print_leases(found)


def _print(head: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print a table: coloured and fitted on a terminal, plain and complete elsewhere."""
    if not sys.stdout.isatty() or len(rows) > LONG:
        print_table(head, [[str(cell) for cell in row] for row in rows])
        return
    columns = Table(box=None, pad_edge=False, header_style="dim")
    for name in head:
        justify: Literal["right", "left"] = "right" if name in NUMBERS else "left"
        overflow: Literal["fold", "ellipsis"] = "fold" if name in FOLDED else "ellipsis"
        columns.add_column(
            name, justify=justify, overflow=overflow, no_wrap=name not in FOLDED, max_width=CUT.get(name)
        )
    for row in rows:
        columns.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    Console(highlight=False).print(columns)


def _row(pool: Pool) -> Iterator[list[str | Text]]:
    """Return a row for each range set, or one row if there is none."""
    where = Text(str(pool.configuration or f"none, but leases in {pool.path}"))
    if pool.trouble:
        where.append(f" is invalid: {pool.trouble}", "red")
    usages = pool.usage()
    if not usages:
        yield [pool.network, "–", "–", rounded(len(pool.held)), "–", where]
    for usage in usages:
        share = usage.used / usage.size if usage.size else 1
        style = "red" if share >= 1 else "yellow" if share >= NEARLY_FULL else "green"
        free = Text(rounded(usage.free), style)
        yield [pool.network, usage.ranges, rounded(usage.size), rounded(usage.used), free, where]


def _print_leases(found: Iterable[tuple[Pool, Held]]) -> None:
    now = time.time()
    rows: list[list[str | Text]] = [
        [
            held.address, pool.network, held.lease.container_id if held.lease else "–",
            (held.lease.ifname if held.lease else "") or "–", age(now - held.made),
            _state(held.netns_state, held.netns), _state(held.link_state, held.link), Text(held.dead, "red"),
        ]
        for pool, held in found
    ]  # fmt: skip
    _print(("ADDRESS", "NETWORK", "CONTAINER", "IFNAME", "AGE", "NETNS", "LINK", "DEAD"), rows)


def _state(state: str, name: str) -> Text:
    return Text.assemble((state, STYLES[state]), f" {name}" if name else "")


def _pool_json(pool: Pool) -> dict[str, Any]:
    return {
        "network": pool.network,
        "path": pool.path,
        "configuration": str(pool.configuration) if pool.configuration else None,
        "error": pool.trouble or None,
        "rangeSets": [
            {"ranges": usage.ranges.split(","), "size": usage.size, "used": usage.used, "free": usage.free}
            for usage in pool.usage()
        ],
        "leases": [_lease_json(held) for held in pool.held],
    }


def _lease_json(held: Held) -> dict[str, Any]:
    return {
        "address": held.address,
        "containerID": held.lease.container_id if held.lease else None,
        "ifname": (held.lease.ifname if held.lease else "") or None,
        "made": datetime.fromtimestamp(held.made, UTC).isoformat(timespec="seconds"),
        "ageSeconds": max(round(time.time() - held.made), 0),
        "netns": {"path": held.netns or None, "state": held.netns_state},
        "link": {"name": held.link or None, "state": held.link_state},
        "dead": held.dead or None,
    }


# -- release


def _release(options: Namespace) -> None:
    try:
        what = str(Address.parse(options.what))  # the lease's file has this name
    except ValueError:
        what = options.what
    pools = _pools(options.network)
    _read(pools, Node(options.cache_dir))
    known = {held.address: held for pool in pools for held in pool.held}
    freed = [one for pool in pools for one in leases.release(pool, what)]
    if not freed:
        raise NothingFound(f"network {options.network} has no lease of {options.what}")
    if options.json:
        networks.print_json({"released": [address for address, _ in freed]})
    for address, lease in freed:
        if not options.json:
            say(f"released {address}{f' of {lease.container_id} {lease.ifname}'.rstrip() if lease else ''}")
        if address in known and known[address].is_in_use:
            networks.warn(f"{address} is released, but its pod still exists: {_whereabouts(known[address])}")


def _whereabouts(held: Held) -> str:
    places = (f"its network namespace {held.netns} is {held.netns_state}", f"its link {held.link} is {held.link_state}")
    return ", ".join(place for place, name in zip(places, (held.netns, held.link), strict=True) if name)


# -- gc


def _gc(options: Namespace) -> None:
    pools = _pools()
    _read(pools, Node(options.cache_dir))
    dead = [(pool, [held for held in pool.held if held.dead]) for pool in pools]
    listed = [(pool, held) for pool, some in dead for held in some]
    if not options.json:
        _print_leases(listed) if listed else say("no lease is certainly dead")
    freed: list[Held] = []
    if not options.dry_run:
        for pool, some in dead:
            freed += leases.release_dead(pool, some, options.cache_dir) if some else []
    if options.json:
        plan = [{"network": pool.network, **_lease_json(held)} for pool, held in listed]
        networks.print_json({"dead": plan, "released": [held.address for held in freed]})
    elif listed and not options.dry_run:
        say(f"released {len(freed)} of {len(listed)}")
