"""cnitool show --cluster: each form has all of the model, and is valid in its format, for any texts and many nodes."""

from __future__ import annotations

from io import StringIO
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from shared.cli.view.canvas import PAGE
from shared.cli.view.cluster import TITLES, Member, Picture, Remains, Span, Stock
from shared.cli.view.cluster_forms import SHOWN, as_tree, flowchart, svg

EVIL = 'u"]-->`;#&<i>\\'
TIME = "2026-01-02T03:04:05+00:00"


def member(number: int, way: str, spans: int = 2) -> Member:
    found = tuple(Span("pods", f"10.{number >> 8}.{number & 255}.{16 * at}/28") for at in range(spans))
    return Member(f"node-{number}", EVIL, (f"192.0.2.{number % 250}", f"2001:db8::{number:x}"), found, way)


def cluster(nodes: int) -> Picture:
    ways = list(TITLES)
    members = tuple(member(number, ways[number % len(ways)]) for number in range(nodes))
    stock = Stock("pods", "routed", "10.0.0.0/8", 28, 1 << 20, 7)
    return Picture(
        "node-0", "etcd", TIME, (stock,), members, (Remains("gone", EVIL, ("10.9.9.0/28",)),), (f"x {EVIL}",)
    )


def tree(picture: Picture) -> str:
    output = StringIO()
    Console(file=output, width=1000, highlight=False).print(as_tree(picture))
    return output.getvalue()


def parsed(image: str) -> ET.Element:
    return ET.fromstring(image)  # noqa: S314 - our own


@pytest.mark.parametrize("nodes", [1, 7, 300])
def test_each_form_has_all_nodes(nodes: int) -> None:
    picture = cluster(nodes)
    image = svg(picture)
    assert parsed(image).tag.endswith("svg")
    chart = flowchart(picture)
    for text in (image, chart, tree(picture)):
        for one in picture.members:
            assert one.node in text and all(span.cidr in text for span in one.spans)
        assert "10.9.9.0/28" in text and "10.0.0.0/8" in text
    assert EVIL not in chart and all(line.count('"') in (0, 2) for line in chart.splitlines())


def test_an_empty_cluster() -> None:
    picture = Picture("node-0", "kubernetes", TIME)
    assert "no pools" in svg(picture) and "0 nodes" in tree(picture) and flowchart(picture).startswith("flowchart LR\n")


def test_a_node_with_many_blocks_stays_a_card() -> None:
    """The picture says how many more there are, and the tooltip has all."""
    picture = Picture("node-0", "etcd", TIME, (), (member(1, "direct", 12),))
    root = parsed(svg(picture))
    shown = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text") if "/28" in (one.text or "")]
    assert len(shown) == SHOWN and f"and {12 - SHOWN} more" in svg(picture)
    tips = [one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert max(tip.count("/28") for tip in tips) == 12


def test_nothing_leaves_the_page() -> None:
    root = parsed(svg(cluster(40)))
    for one in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(one.attrib["x"]) >= 0 and float(one.attrib["x"]) + float(one.attrib["width"]) <= PAGE
