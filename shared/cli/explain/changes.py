"""Observe the state of a host and a pod, and compare two observations.

Programs of other suites cannot be recorded; their steps are the differences. Changes that the kernel makes on its own
are left out: carrier, link-local addresses, the routes of addresses, lifetimes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from shared.net.netns import Netns
from shared.net.wire import AF_INET6, IFF_PROMISC, IFF_UP

Step = dict[str, Any]
State = dict[tuple[str, str, str], Any]  # (place, kind, name): facts

ORDER = ("link", "address", "route", "rule", "neighbour", "qdisc", "filter", "nftables", "sysctl", "file")
RT_TABLE_MAIN, RT_TABLE_LOCAL = 254, 255  # linux/rtnetlink.h
RTPROT_KERNEL = 2
NUD_PERMANENT = 0x80  # linux/neighbour.h
NET_SYSCTLS = "/proc/sys/net"
DERIVED = (
    "mtu",
    "stable_secret",
    "base_reachable_time_ms",
    "route/flush",
    "nf_conntrack_count",
)  # the kernel derives them, or they have no value of their own
USUAL = ("FRA_SUPPRESS_PREFIXLEN", "FRA_PROTOCOL", "FRA_TABLE")  # attributes that the kernel gives to each rule
FILE_LIMIT = 4096  # bytes of a file that are compared


def observe(pod: Netns, directories: Iterable[str]) -> State:
    """Return the state of the thread's host, of the pod, and of the files in the directories."""
    state = _network("host")
    with pod:
        state |= _network("pod")
    return state | {("files", "file", path): text for top in directories for path, text in _files(top)}


def difference(before: State, after: State) -> Iterator[Step]:
    """Return a step for each object that is new, changed or gone."""
    for key in sorted(before.keys() | after.keys(), key=lambda key: (ORDER.index(key[1]), key)):
        old, new = before.get(key), after.get(key)
        if old != new:
            place, what, name = key
            change = "new" if old is None else "gone" if new is None else "changed"
            if what == "sysctl":
                if new is not None and new != _default(after, place, name, old):
                    yield {"where": place, "what": what, "name": name, "value": new, "before": old or ""}
                continue
            yield {
                "where": place,
                "what": what,
                "change": change,
                "name": name,
                "facts": new or {},
                "before": old or {},
            }


def _default(state: State, place: str, name: str, old: Any) -> Any:
    """Return the initial value of a new link's sysctl."""
    parts = name.split("/")
    if old is not None or len(parts) < 5:
        return old
    # A namespace has no neigh/default of its own, but it has lo.
    models = ((place, "sysctl", "/".join([*parts[:3], model, *parts[4:]])) for model in ("default", "lo"))
    return next((state[model] for model in models if model in state), None)


def _network(place: str) -> State:
    with IPRoute() as ip:
        links = {link["index"]: link for link in ip.get_links()}
        names = {index: link.get("ifname") for index, link in links.items()}
        state: State = {(place, "link", link.get("ifname")): _link(link, names) for link in links.values()}
        for address in ip.get_addr():
            text = f"{address.get('local') or address.get('address')}/{address['prefixlen']}"
            if not text.startswith("fe80:"):
                state[place, "address", f"{text} on {names.get(address['index'])}"] = {}
        for route in ip.get_routes():
            if route.get("table") != RT_TABLE_LOCAL and route["proto"] != RTPROT_KERNEL:
                state[place, "route", _route(route, names)] = {}
        for rule in ip.get_rules():
            state[place, "rule", _rule(rule)] = {}
        for neighbour in ip.get_neighbours():
            if neighbour["state"] & NUD_PERMANENT:
                name = f"{neighbour.get('dst')} {neighbour.get('lladdr')} on {names.get(neighbour['ifindex'])}"
                state[place, "neighbour", name] = {}
        for qdisc in ip.get_qdiscs():
            if qdisc.get("kind") != "noqueue":
                state[place, "qdisc", f"{qdisc.get('kind')} on {names.get(qdisc['index'])}"] = _options(qdisc)
    state |= {(place, "nftables", line): {} for line in _nftables()}
    return state | {(place, "sysctl", name): value for name, value in _sysctls()}


def _link(link: Any, names: dict[int, str]) -> dict[str, Any]:
    info = link.get("linkinfo")
    facts = {
        "kind": info.get("kind") if info else None,
        "mtu": link.get("mtu"),
        "mac": link.get("address"),
        "master": names.get(link.get("master")),
        "alias": link.get("ifalias"),
        "up": bool(link["flags"] & IFF_UP),
        "promisc": bool(link["flags"] & IFF_PROMISC),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _route(route: Any, names: dict[int, str]) -> str:
    words = ["inet6" if route["family"] == AF_INET6 else "inet"]
    words.append(f"{route.get('dst')}/{route['dst_len']}" if route["dst_len"] else "default")
    table = route.get("table") if route.get("table") != RT_TABLE_MAIN else None
    facts = {
        "via": route.get("gateway"),
        "src": route.get("prefsrc"),
        "dev": names.get(route.get("oif")),
        "table": table,
        "metric": route.get("priority"),
    }
    return " ".join([*words, *(f"{word} {value}" for word, value in facts.items() if value)])


def _rule(rule: Any) -> str:
    """Return a rule as `ip rule` writes it, with all other attributes in the kernel's names."""
    attributes = dict(rule["attrs"])
    source, length = attributes.pop("FRA_SRC", "all"), rule["src_len"]
    words = ["inet6" if rule["family"] == AF_INET6 else "inet", f"from {source}" + (f"/{length}" if length else "")]
    words.append("lookup l3mdev" if attributes.pop("FRA_L3MDEV", 0) else f"lookup {attributes.pop('FRA_TABLE', 0)}")
    words.append(f"priority {attributes.pop('FRA_PRIORITY', 0)}")
    return " ".join([*words, *(f"{name} {value}" for name, value in attributes.items() if name not in USUAL)])


def _options(qdisc: Any) -> dict[str, Any]:
    options = qdisc.get("options")
    return dict(options["attrs"]) if isinstance(options, dict) and "attrs" in options else {}


def _nftables() -> Iterator[str]:
    """Return each line of the rule set, prefixed with the blocks around it; none without an nft command."""
    nft = shutil.which("nft")
    if nft is None:
        return
    around: list[str] = []
    for line in subprocess.run(
        [nft, "-s", "list", "ruleset"], capture_output=True, text=True, check=False
    ).stdout.splitlines():
        text = line.strip()
        if text == "}":
            around.pop()
        elif text.endswith("{"):
            around.append(text.removesuffix(" {"))
            yield " ".join(around)
        elif text:
            yield " ".join([*around, text])


def _sysctls() -> Iterator[tuple[str, str]]:
    for folder, _, names in os.walk(NET_SYSCTLS):
        for name in names:
            path = f"{folder}/{name}"
            if not path.endswith(DERIVED):
                with suppress(OSError):
                    yield path.removeprefix("/proc/sys/"), Path(path).read_bytes().decode(errors="replace").strip()


def _files(top: str) -> Iterator[tuple[str, str]]:
    """Return the content of each regular file and the target of each symbolic link.

    Skip file systems that are mounted below.
    """
    for folder, directories, names in os.walk(top):
        directories[:] = [name for name in directories if not os.path.ismount(f"{folder}/{name}")]
        for name in names:
            path = Path(folder, name)
            with suppress(OSError):
                if path.is_symlink():
                    yield str(path), f"→ {path.readlink()}"
                elif path.is_file():
                    with path.open("rb") as file:
                        content = file.read(FILE_LIMIT).rstrip(b"\0")  # a lock's file has nothing but zeros
                        yield str(path), content.decode(errors="backslashreplace")
