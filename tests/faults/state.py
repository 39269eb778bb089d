"""The whole state of a pretend host as lines, so that remains and losses are differences of sets."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.pretend import ADMIN_FLAGS, ROUTE_KEYS, PretendHost

DIRECTORIES = ("var/lib/cni", "run/cni")
BOOKKEEPING = ("/lock", "/boot", "/last_reserved_ip.0", "/last_reserved_ip.1")  # host-local's own, for good
MARK = re.compile(r" netns=[\d:]+")  # the number of a pod's namespace, which is another one for each pod made anew
NOTE = re.compile(r"(?<=/localnet/)\d+(?=-)")  # the number of a bridge, which is another one for each bridge made anew
SEPARATOR = "\1"
# The sysctls are those that plugins set.
LOOK = rf"""
ip -j -d address; printf '{SEPARATOR}'
ip -j -4 route show table all; printf '{SEPARATOR}'
ip -j -6 route show table all; printf '{SEPARATOR}'
ip -j -4 rule; printf '{SEPARATOR}'
ip -j -6 rule; printf '{SEPARATOR}'
tc -j qdisc; printf '{SEPARATOR}'
for link in $(tc qdisc | sed -n 's/^qdisc \(ingress\|clsact\) .* dev \([^ ]*\) .*/\2/p'); do
    echo "$link $(tc filter show dev $link ingress | tr '\n' ' ')"
done; printf '{SEPARATOR}'
nft -j -s list ruleset; printf '{SEPARATOR}'
cd /proc/sys/net && grep -s . ipv4/ip_forward ipv4/conf/*/route_localnet ipv4/conf/*/arp_notify ipv4/conf/*/arp_filter \
    ipv4/conf/*/proxy_arp ipv6/conf/*/forwarding ipv6/conf/*/accept_ra ipv6/conf/*/accept_dad ipv6/conf/*/disable_ipv6 || :
"""


def state(host: PretendHost, netns: Iterable[str] = ()) -> set[str]:
    """Return all of it, of the host and of the namespaces of that name."""
    lines = set(_network(host.run("sh", "-c", LOOK).stdout))
    for name in netns:
        inside = host.run("nsenter", f"--net=/run/netns/{name}", "sh", "-c", LOOK).stdout
        lines |= {f"{name}: {line}" for line in _network(inside)}
    return lines | set(_files(host))


def _network(text: str) -> Iterator[str]:
    links, routes4, routes6, rules4, rules6, qdiscs, filters, ruleset, sysctls = text.split(SEPARATOR)
    yield from _addressing(_parsed(links), _parsed(routes4) + _parsed(routes6), _parsed(rules4) + _parsed(rules6))
    for qdisc in _parsed(qdiscs):
        qdisc["options"].pop("direct_packets_stat", None)  # counts packets
        if qdisc["kind"] not in ("noqueue", "pfifo_fast", "fq_codel", "mq"):
            yield f"qdisc {qdisc['dev']} {qdisc['kind']} {qdisc['handle']} {qdisc['options']}"
    yield from (f"filter {line}" for line in filters.splitlines())
    yield from _rules(json.loads(ruleset)["nftables"])
    yield from (f"sysctl {line}" for line in sysctls.splitlines())


def _addressing(links: list[Any], routes: list[Any], rules: list[Any]) -> Iterator[str]:
    for link in links:
        yield _link(link)
        for address in link["addr_info"]:
            # lo keeps its own when it goes down again
            if (
                "local" in address
                and not address["local"].startswith(("fe80:", "127.0.0.1"))
                and address["local"] != "::1"
            ):
                yield f"address {link['ifname']} {address['local']}/{address['prefixlen']}"
    for route in routes:
        if route.get("table") != "local" and not route["dst"].startswith(("fe80:", "ff00:")):
            yield "route " + " ".join(f"{key} {route[key]}" for key in ROUTE_KEYS if key in route)
    for rule in rules:
        if "l3mdev" not in rule:  # the kernel adds it with the first VRF, and keeps it
            yield f"rule {rule['priority']} from {rule['src']} {rule.get('table')}"


def _parsed(text: str) -> list[dict[str, Any]]:
    return [entry for entry in json.loads(text) if entry] if text.strip() else []


def _link(link: dict[str, Any]) -> str:
    flags = sorted(ADMIN_FLAGS.intersection(link["flags"]))
    kind = link.get("linkinfo", {}).get("info_kind")
    rest = {key: link.get(key) for key in ("master", "mtu", "address", "ifalias", "promiscuity", "txqlen")}
    return f"link {link['ifname']} {kind} {flags} {rest}"


def _rules(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        for kind, thing in entry.items():
            if kind == "metainfo":
                continue
            thing.pop("handle", None)
            elements = thing.pop("elem", [])
            what = f"{thing['family']} {thing.get('table', '')}"
            yield f"{kind} {what} {json.dumps(thing)}"
            yield from (f"element {what} {thing['name']} {json.dumps(element)}" for element in elements)


def _files(host: PretendHost) -> Iterator[str]:
    for directory in DIRECTORIES:
        for folder, directories, names in os.walk(host.root / directory):
            for name in directories + names:
                path = Path(folder, name)
                shown = f"/{path.relative_to(host.root)}"
                mode = path.lstat().st_mode
                if stat.S_ISREG(mode) and not shown.endswith(BOOKKEEPING):
                    yield f"file {NOTE.sub('N', shown)} {path.read_bytes()!r}"
                elif stat.S_ISLNK(mode) and not shown.endswith(BOOKKEEPING):
                    yield f"file {shown} -> {MARK.sub(' netns=', str(path.readlink()))}"
