"""Show the cluster as a tree in the terminal, a Mermaid flowchart, or an SVG picture."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text
from rich.tree import Tree

from shared.cli.cluster.tables import DIRECT, ENCRYPTED, NONE, OWN, REFUSED, TUNNEL
from shared.cli.terminal import counted, printable
from shared.cli.view.canvas import Canvas, Card
from shared.cli.view.cluster import TITLES, UNKNOWN, UNROUTED, Member, Picture, Remains, Span
from shared.cli.view.mermaid import box, finished

COLOURS = {
    OWN: "bridge", DIRECT: "pod", TUNNEL: "uplink", ENCRYPTED: "uplink", REFUSED: "trouble", NONE: "trouble",
    UNROUTED: "device", UNKNOWN: "device",
}  # fmt: skip
CLASSES = {way: "down" if colour == "trouble" else colour for way, colour in COLOURS.items()}  # Mermaid's
STYLES = {OWN: "bold green", DIRECT: "cyan", TUNNEL: "green", ENCRYPTED: "green", REFUSED: "red", NONE: "red"}
LEGEND = {
    "bridge": "this node",
    "pod": "reached by host routes",
    "uplink": "reached through the tunnel",
    "device": "without routed CIDRs",
    "unknown": "a machine that is gone",
    "trouble": "no route leads there",
}
SHOWN = 6  # lines of CIDRs on a card


def as_tree(cluster: Picture) -> Tree:
    """Return the cluster as a tree for a terminal."""
    title = [(f"cluster in {cluster.engine}", "bold"), (cluster.time, "dim")]
    whole = Tree(_line(*title, (counted(len(cluster.members), "node"), "dim")), guide_style="dim")
    for text in _stocks(cluster):
        whole.add(_line(("pool", "dim"), (text, "")))
    for alarm in cluster.alarms:
        whole.add(_line(("alarm", "red"), (printable(alarm), "")))
    for way, members in cluster.groups():
        branch = whole.add(_line((TITLES[way], STYLES.get(way, "")), (counted(len(members), "node"), "dim")))
        for member in members:
            place = branch.add(_line((member.node, "bold"), (" ".join(member.addresses), ""), (_inline(member), "")))
            for span in member.spans if way == OWN else ():
                place.add(_line((span.network, "cyan"), (span.cidr, ""), (span.use, "dim")))
    if cluster.remains:
        branch = whole.add(Text("blocks of machines that are gone", "yellow"))
        for one in cluster.remains:
            branch.add(_line((one.node, "bold"), (printable(one.uid), "dim"), (" ".join(one.blocks), "")))
    return whole


def _line(*cells: tuple[str, str]) -> Text:
    return Text("  ").join(Text(text, style) for text, style in cells if text)


def _inline(member: Member) -> str:
    """Return a node's CIDRs in one line; this node's have a line each."""
    if member.way == OWN:
        return ""
    networks: dict[str, list[str]] = {}
    for span in member.spans:
        networks.setdefault(span.network, []).append(span.cidr)
    return "; ".join(f"{name}: {' '.join(cidrs)}" for name, cidrs in networks.items())


def _stocks(cluster: Picture) -> Iterator[str]:
    for one in cluster.pools:
        yield f"{one.network}  {one.kind}  {one.cidr}  {one.free:,} of {one.size:,} blocks of /{one.block_length} free"


def _describe(span: Span) -> str:
    return f"{span.network} {span.cidr}{f', {span.use}' if span.use else ''}"


def flowchart(cluster: Picture) -> str:
    """Return the cluster as a Mermaid flowchart."""
    lines = ["flowchart LR", box("cluster", "host", [f"cluster in {cluster.engine}", cluster.time, *_stocks(cluster)])]
    number = 0
    for place, (way, members) in enumerate(cluster.groups()):
        lines.append(box(f"way{place}", CLASSES[way], [TITLES[way], counted(len(members), "node")]))
        lines.append(f"    cluster --- way{place}")
        for member in members:
            text = [member.node, *member.addresses, *map(_describe, member.spans)]
            lines += [box(f"node{number}", CLASSES[way], text), f"    way{place} --- node{number}"]
            number += 1
    for place, one in enumerate(cluster.remains):
        lines += [box(f"gone{place}", "unknown", [one.node, one.uid, *one.blocks]), f"    cluster -.- gone{place}"]
    return finished(lines)


def svg(cluster: Picture) -> str:
    """Return the cluster as an SVG picture."""
    canvas = Canvas(f"Cluster of {cluster.node}, {cluster.time}")
    text = f"{cluster.time} · engine {cluster.engine} · {counted(len(cluster.members), 'node')}"
    canvas.head(f"Cluster as {cluster.node} sees it", text, LEGEND)
    own = [_card(one) for one in cluster.members if one.way == OWN]
    pools = [Card("device", tuple(_stock_lines(cluster, name)), name) for name in dict.fromkeys(_names(cluster))]
    canvas.frame(f"engine {cluster.engine}", own + pools or [Card("unknown", (("no pools", "text"),), "no pools")])
    for way, members in cluster.groups():
        if way != OWN:
            canvas.bar(COLOURS[way], TITLES[way], "", counted(len(members), "node"))
            canvas.grid([_card(one) for one in members])
    if cluster.remains:
        canvas.bar("unknown", "blocks of machines that are gone", "", counted(len(cluster.remains), "machine"))
        canvas.grid([_remains(one) for one in cluster.remains])
    return canvas.finish()


def _names(cluster: Picture) -> Iterator[str]:
    for one in cluster.pools:
        yield one.network


def _stock_lines(cluster: Picture, network: str) -> Iterator[tuple[str, str]]:
    yield f"pool {network}", "name"
    for one in cluster.pools:
        if one.network == network:
            yield one.cidr, "mono"
            yield f"{one.free:,} of {one.size:,} blocks of /{one.block_length} free", "small"


def _card(member: Member) -> Card:
    lines = [(member.node, "name"), *((address, "mono") for address in member.addresses)]
    shown = member.spans[:SHOWN]
    for span in shown:
        lines += [(f"{span.network} {span.cidr}", "mono"), *([(span.use, "small")] if span.use else [])]
    if len(member.spans) > SHOWN:
        lines.append((f"and {len(member.spans) - SHOWN} more", "small"))
    tip = "\n".join([member.node, member.uid, *member.addresses, *map(_describe, member.spans)])
    return Card(COLOURS[member.way], tuple(lines), tip)


def _remains(one: Remains) -> Card:
    lines = [(one.node, "name"), (one.uid, "small"), *((cidr, "mono") for cidr in one.blocks[:SHOWN])]
    if len(one.blocks) > SHOWN:
        lines.append((f"and {len(one.blocks) - SHOWN} more", "small"))
    return Card("unknown", tuple(lines), "\n".join([one.node, one.uid, *one.blocks]))
