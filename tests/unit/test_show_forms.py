"""cnitool show's renderings of one model: each has all of the model, and is valid in its format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from shared.cli.view.canvas import PAGE
from shared.cli.view.mermaid import CLASSES, flowchart
from shared.cli.view.picture import svg
from shared.cli.view.show import as_document, as_tree
from shared.cli.view.topology import Bridge, Master, Node, Pod, Port, Traffic, Uplink, amounts, shortened

SVG = "{http://www.w3.org/2000/svg}"
EVIL = 'a"]-->b`;#&<i>\\é'
LONG = "payments-api-with-a-very-long-name-7c9f6d5b4-q8n2l"
LONG_V6 = "fd00:1111:2222:3333:4444:5555:6666:7777/128"


def pod(number: int, name: str = "", **keys: object) -> Pod:
    known: dict[str, object] = {
        "network": "pods",
        "container_id": f"{number:064x}",
        "ifname": "eth0",
        "namespace": "default" if name else "",
        "name": name,
        "netns": f"/run/netns/{number}",
        "addresses": (f"10.1.{number // 250}.{number % 250 + 2}/16", f"fd00::{number + 2:x}/64"),
        "owner_from": "alias",
        "addresses_from": "namespace",
    }
    return Pod(**(known | keys))  # type: ignore[arg-type]


def port(number: int, behind: Pod | None, **keys: object) -> Port:
    known: dict[str, object] = {
        "name": f"veth{number:011x}",
        "kind": "veth",
        "mtu": 1500,
        "mac": "02:00:00:00:00:01",
        "traffic": Traffic(number * 1000.0, number * 10.0),
    }
    return Port(**(known | keys), pod=behind)  # type: ignore[arg-type]


def node(pods: int) -> Node:
    ports = tuple(port(number, pod(number, f"web-{number}")) for number in range(pods))
    bridge = Bridge(name="cni0", kind="bridge", mtu=1500, addresses=("10.1.0.1/16", "fd00::1/64"), ports=ports)
    uplink = Uplink(name="eth0", mtu=9000, addresses=("192.0.2.1/24",), gateways=("192.0.2.254",))
    return Node(host="node7", time="2026-01-02T03:04:05+00:00", seconds=1.0, uplinks=(uplink,), bridges=(bridge,))


STRANGE = Node(
    host=EVIL,
    time="2026-01-02T03:04:05+00:00",
    uplinks=(Uplink(name="eth0", state="down"),),
    bridges=(
        Bridge(
            name=EVIL,
            kind="bridge",
            ports=(
                port(1, pod(1, EVIL)),
                port(2, pod(2, LONG, addresses=(LONG_V6,), addresses_from="cache"), state="no carrier"),
                port(3, Pod(netns="/run/netns/x")),
                port(4, Pod()),
                Port(name="eth7"),
                port(5, None, peer="cni0.100"),
            ),
        ),
        Bridge(name="docker0", kind="bridge", state="no carrier"),
    ),
    unbridged=(port(6, pod(6)),),
    masters=(
        Master(name="eth9", mtu=1500, ports=(Port(name="net9", kind="macvlan", mtu=1500, pod=pod(9, ifname="net9")),)),
    ),
    unlinked=(pod(7, link="tap", state="down", vrf="blue"), pod(8, gone=True)),
)
NODES = {"none": Node(host="node7", time="now"), "3": node(3), "200": node(200), "strange": STRANGE}


@pytest.fixture(params=NODES)
def shown(request: pytest.FixtureRequest) -> Node:
    return NODES[request.param]


def text_of(shown: Node) -> str:
    out = StringIO()
    Console(file=out, width=1000, highlight=False).print(as_tree(shown))
    return out.getvalue()


def all_ports(shown: Node) -> list[Port]:
    return [one for link in (*shown.bridges, *shown.masters) for one in link.ports] + list(shown.unbridged)


def test_the_tree_has_a_line_for_each(shown: Node) -> None:
    lines = text_of(shown).splitlines()
    for one in all_ports(shown):
        (line,) = [line for line in lines if one.label.split()[0] in line.split()]
        words = (*one.pod.addresses, one.pod.name, one.pod.attachment) if one.pod else (one.peer,)
        assert all(word in line for word in words)
        assert one.state == "up" or one.state in line
    assert all(line == line.rstrip() for line in lines)


def test_columns_begin_at_the_same_place() -> None:
    lines = [line for line in text_of(node(200)).splitlines() if "veth" in line]
    for word in ("pods/", "default/", "10.1.", "in ", "out "):
        assert len({line.index(word) for line in lines}) == 1


def test_words_for_what_is_not_known() -> None:
    text = text_of(STRANGE)
    for words in ("owner not known, in /run/netns/x", "its namespace is gone", f"{LONG_V6} (as cached)",
                  "device of the host", "other end: cni0.100", "traffic since each link was made"):  # fmt: skip
        assert words in text
    assert "no default route" in text_of(NODES["none"]) and "no pods" in text_of(NODES["none"])
    assert "traffic over 1 s" in text_of(node(3))


def test_the_document_keeps_everything() -> None:
    (bridge,) = as_document(node(3))["bridges"]
    assert bridge["ports"][1] == {
        "name": "veth00000000001",
        "kind": "veth",
        "state": "up",
        "mtu": 1500,
        "mac": "02:00:00:00:00:01",
        "addresses": (),
        "traffic": {"in": 1000.0, "out": 10.0},
        "peer": "",
        "vlan": 0,
        "pod": {
            "network": "pods",
            "containerID": f"{1:064x}",
            "ifname": "eth0",
            "namespace": "default",
            "name": "web-1",
            "netns": "/run/netns/1",
            "addresses": ("10.1.0.3/16", "fd00::3/64"),
            "ownerFrom": "alias",
            "addressesFrom": "namespace",
            "vrf": "",
            "link": "",
            "state": "",
            "gone": False,
        },
    }


# One statement of Mermaid a line: a box, a line between boxes with or without a label, a class.
BOX = re.compile(r'    (?P<name>[a-z]+\d*)\["(?P<label>[^"`<>&\\]*(?:<br/>[^"`<>&\\]*)*)"\]:::(?P<kind>[a-z]+)')
EDGE = re.compile(r'    (?P<from>[a-z]+\d*) (?:---|-\.-)(?:\|"[^"|]*"\|)? (?P<to>[a-z]+\d*)')
CLASS = re.compile(r"    classDef (?P<kind>[a-z]+) [a-z-]+:[#0-9a-z ]+(?:,[a-z-]+:[#0-9a-z ]+)*")


def test_the_flowchart_is_mermaid(shown: Node) -> None:
    first, *lines = flowchart(shown).splitlines()
    assert first == "flowchart LR"
    boxes: dict[str, re.Match[str]] = {}
    edges, kinds = [], []
    for line in lines:
        if box := BOX.fullmatch(line):
            assert box["name"] not in boxes
            boxes[box["name"]] = box
        elif edge := EDGE.fullmatch(line):
            edges.append((edge["from"], edge["to"]))
        else:
            kind = CLASS.fullmatch(line)
            assert kind, f"not Mermaid: {line}"
            kinds.append(kind["kind"])
    assert sorted(kinds) == sorted(CLASSES) and {box["kind"] for box in boxes.values()} <= set(kinds)
    assert {end for edge in edges for end in edge} | {"host"} == set(boxes)
    things = len(shown.uplinks) + len(shown.bridges) + len(shown.masters) + len(all_ports(shown)) + len(shown.unlinked)
    assert len(edges) == things and len(boxes) == things + 1
    labels = " ".join(box["label"] for box in boxes.values())
    assert all(address in labels for one in shown.pods for address in one.addresses)


def test_labels_say_what_was_meant() -> None:
    label = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), flowchart(STRANGE).splitlines()[1])
    assert label == f'    host["{EVIL}<br/>{STRANGE.time}"]:::host'


def rectangles(group: ET.Element) -> Iterator[tuple[float, float, float, float]]:
    for box in group.iter(f"{SVG}rect"):
        yield tuple(float(box.attrib[key]) for key in ("x", "y", "width", "height"))  # type: ignore[misc]


def cards(root: ET.Element) -> list[ET.Element]:
    """Return the groups that have a tip."""
    return [group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]


def test_the_picture_is_whole(shown: Node) -> None:
    text = svg(shown)
    root = ET.fromstring(text)  # noqa: S314 - our own
    height = float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {PAGE} {root.attrib['height']}" and root.attrib["width"] == str(PAGE)
    for x, y, width, tall in rectangles(root):
        assert x >= 0 and y >= 0 and x + width <= PAGE and y + tall <= height
    for words in root.iter(f"{SVG}text"):
        assert 0 <= float(words.attrib["x"]) <= PAGE and 0 <= float(words.attrib["y"]) <= height
    for outside in ("href", "url(", "@import", "@font-face", "<image", "<script"):
        assert outside not in text
    written = [words.text or "" for words in root.iter(f"{SVG}text")]
    assert any(shown.host in words for words in written) and any(shown.time in words for words in written)
    for meaning in ("bridge", "pod", "owner not known", "not up, or gone"):
        assert meaning in written
    for one in shown.pods:
        assert set(one.addresses) <= set(written)


def test_a_card_for_each_port(shown: Node) -> None:
    root = ET.fromstring(svg(shown))  # noqa: S314 - our own
    tips = [card.findtext(f"{SVG}title") or "" for card in cards(root)]
    for one in all_ports(shown):
        (tip,) = [tip for tip in tips if f"{one.name} " in tip]
        assert one.pod is None or (one.pod.name in tip and one.pod.container_id in tip)
    assert len(tips) == len(all_ports(shown)) + len(shown.unlinked) + max(1, len(shown.uplinks))


def test_cards_do_not_overlap_and_hold_their_text(shown: Node) -> None:
    boxes = []
    for card in cards(ET.fromstring(svg(shown))):  # noqa: S314 - our own
        x, y, width, height = next(rectangles(card))
        assert all(
            x < x2 + w2 <= x + width and y <= y2 and y2 + h2 <= y + height for x2, y2, w2, h2 in rectangles(card)
        )
        for words in card.iter(f"{SVG}text"):
            # a letter of the widest fonts is no wider than this
            size = {"name": 8.5, "text": 7.0, "mono": 7.3, "small": 6.7, "tiny": 4.9}[words.attrib["class"]]
            assert float(words.attrib["x"]) + len(words.text or "") * size <= x + width
            assert y < float(words.attrib["y"]) < y + height
        boxes.append((x, y, width, height))
    boxes.sort(key=lambda box: (box[1], box[0]))
    for number, (x, y, width, height) in enumerate(boxes):
        for x2, y2, _, _ in boxes[number + 1 : number + 12]:
            assert x2 >= x + width or y2 >= y + height or x2 + width <= x


def test_the_busiest_pod_has_the_longest_bar() -> None:
    bars = {}
    for card in cards(ET.fromstring(svg(node(5)))):  # noqa: S314 - our own
        bar = [box[2] for box in rectangles(card) if box[3] == 3]
        bars[(card.findtext(f"{SVG}title") or "").splitlines()[0]] = bar[0] if bar else 0
    assert bars["default/web-0"] == 0 and bars["default/web-2"] * 2 == pytest.approx(bars["default/web-4"], abs=0.2)


def test_amounts() -> None:
    assert amounts(Traffic(0, 1234), 1.0) == ("0 bytes/s", "1.2 kB/s")
    assert amounts(Traffic(999, 5_000_000), 0) == ("999 bytes", "5.0 MB")


def test_a_container_id_is_shortened_where_it_is_long() -> None:
    assert shortened("cnitool-0123456789ab") == "cnitool-0123456789ab"
    assert shortened("f" * 64) == "f" * 13
