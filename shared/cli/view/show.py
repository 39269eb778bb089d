"""cnitool show: the node's pod network, or its cluster, as a tree, JSON, a Mermaid flowchart, or an SVG picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.text import Text
from rich.tree import Tree

from shared.cli.networks import Options, print_json, run_guarded
from shared.cli.view.mermaid import flowchart
from shared.cli.view.picture import svg
from shared.cli.view.survey import read_node
from shared.cli.view.topology import Bridge, Link, Node, Pod, Port, amounts
from shared.runtime.cache import Cache

Cell = tuple[str, str]  # text, style

MANY = 20  # pods; more take long enough to show the progress
WIDE = 100_000  # columns; lines in a pipe are not wrapped
JSON_KEYS = {
    "container_id": "containerID",
    "owner_from": "ownerFrom",
    "addresses_from": "addressesFrom",
    "received": "in",
    "sent": "out",
}


class Refused(ValueError):
    """The kernel or a file system refused an operation that the command needs."""


def run(options: Options) -> int:
    """Look at the network and print it.

    Return 1 if that failed, with the reason on stderr.
    """
    return run_guarded(options, _show)


def _show(options: Options) -> None:
    if options.cluster:
        _show_cluster(options)
        return
    try:
        with _Progress() as advance:
            node = read_node(options.network or "", options.seconds, Cache(options.cache_dir), advance)
    except OSError as error:
        raise Refused(f"cannot look at the network: {error}") from error
    if options.json:
        print_json(as_document(node))
    elif options.mermaid:
        print(flowchart(node), end="")
    elif options.svg:
        _write(options.svg, svg(node))
    else:
        _print_tree(as_tree(node))


def _show_cluster(options: Options) -> None:
    from shared.cli.cluster.access import reached
    from shared.cli.view import cluster, cluster_forms

    with reached(options) as found:
        picture = cluster.describe(found, options.network)
    if options.json:
        print_json(asdict(picture))
    elif options.mermaid:
        print(cluster_forms.flowchart(picture), end="")
    elif options.svg:
        _write(options.svg, cluster_forms.svg(picture))
    else:
        _print_tree(cluster_forms.as_tree(picture))


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"--svg {path}: {error.strerror}") from error


def _print_tree(tree: Tree) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    console.print(tree, soft_wrap=not sys.stdout.isatty())


class _Progress:
    """A progress bar on stderr while the command looks into many pods."""

    def __init__(self) -> None:
        self.bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())

    def __enter__(self) -> Callable[[int, int], None]:
        return self._advance

    def _advance(self, done: int, total: int) -> None:
        if total < MANY:
            return
        if not self.bar.tasks:
            self.bar.start()
            self.bar.add_task("looking into pods", total=total)
        self.bar.update(self.bar.tasks[0].id, completed=done)

    def __exit__(self, *_exception: object) -> None:
        self.bar.stop()


def as_document(node: Node) -> dict[str, Any]:
    """Return the network as JSON, with the keys of the CNI specification where it has them."""

    def keyed(members: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {JSON_KEYS.get(key, key): value for key, value in members}

    return asdict(node, dict_factory=keyed)


def as_tree(node: Node) -> Tree:
    """Return the network as a tree for a terminal."""
    measured = f"traffic over {node.seconds:.3g} s" if node.seconds else "traffic since each link was made"
    whole = Tree(_line([(node.host, "bold"), (node.time, "dim"), (measured, "dim")]), guide_style="dim")
    for line in _aligned(
        [("uplink", "dim"), *_facts(uplink, node), (_via(uplink.gateways), "")] for uplink in node.uplinks
    ):
        whole.add(line)
    if not node.uplinks:
        whole.add(_line([("no default route", "yellow")]))
    _add_shared(whole, "bridge", node.bridges, node)
    _add_shared(whole, "master", node.masters, node)
    for title, ports in (("pods' links on no bridge", node.unbridged),):
        if ports:
            _add_ports(whole.add(Text(title, "dim")), ports, node)
    if node.unlinked:
        branch = whole.add(Text("cached attachments without a link on the host", "dim"))
        for line in _aligned([(pod.link, ""), *_pod(pod), _own(pod)] for pod in node.unlinked):
            branch.add(line)
    if not node.pods:
        whole.add(Text(f"no pods of network {node.network}" if node.network else "no pods", "dim"))
    return whole


def _add_shared(whole: Tree, word: str, links: Sequence[Bridge], node: Node) -> None:
    """Add links of the host, each with its ports."""
    lines = _aligned([(word, "dim"), *_facts(link, node)] for link in links)
    for link, line in zip(links, lines, strict=True):
        _add_ports(whole.add(line), link.ports, node)


def _add_ports(branch: Tree, ports: Sequence[Port], node: Node) -> None:
    for line in _aligned(
        [(port.label, _name(port)[1]), *_behind(port), _state(port), _traffic(port, node)] for port in ports
    ):
        branch.add(line)


def _behind(port: Port) -> list[Cell]:
    if port.pod:
        return _pod(port.pod)
    what = f"other end: {port.peer}" if port.peer else f"{port.kind or 'device'} of the host"
    return [(what, "dim"), ("", ""), (" ".join(port.addresses), "")]


def _pod(pod: Pod) -> list[Cell]:
    known = pod.attachment or f"owner not known{f', in {pod.netns}' if pod.netns else ''}"
    name = pod.title if pod.name else ""
    note = "its namespace is gone" if pod.gone else "(as cached)" if pod.addresses_from == "cache" else ""
    addresses = " ".join(pod.addresses) or "no address"
    addresses += f" vrf {pod.vrf}" if pod.vrf else ""
    return [(known, "cyan" if pod.attachment else "yellow"), (name, "bold"), (f"{addresses} {note}".strip(), "")]


def _own(pod: Pod) -> Cell:
    """Return the state of a pod's own link, if it is not up."""
    return "" if pod.is_fine or pod.gone else pod.state, "red"


def _facts(link: Link, node: Node) -> list[Cell]:
    addresses = " ".join(link.addresses) or "no address"
    return [_name(link), (addresses, ""), (f"mtu {link.mtu}", "dim"), (link.state, _style(link)), _traffic(link, node)]


def _name(link: Link) -> Cell:
    return link.name, "bold green" if isinstance(link, Bridge) else "green"


def _state(link: Link) -> Cell:
    return ("" if link.state == "up" else link.state), _style(link)


def _style(link: Link) -> str:
    return "" if link.state == "up" else "red"


def _via(gateways: Sequence[str]) -> str:
    return f"default via {' '.join(gateways)}" if gateways else "default"


def _traffic(link: Link, node: Node) -> Cell:
    if link.traffic is None:
        return "", ""
    received, sent = amounts(link.traffic, node.seconds)
    return f"in {received:<11} out {sent}", "dim"


def _aligned(rows: Iterable[Sequence[Cell]]) -> list[Text]:
    """Return rows as lines with aligned columns; omit columns without text."""
    found = list(rows)
    widths = [max(len(cell[0]) for cell in column) for column in zip(*found, strict=True)]
    kept = [number for number, width in enumerate(widths) if width]
    return [_line([(f"{row[number][0]:<{widths[number]}}", row[number][1]) for number in kept]) for row in found]


def _line(cells: Iterable[Cell]) -> Text:
    line = Text("  ").join(Text(text, style) for text, style in cells)
    line.rstrip()
    return line
