"""Draw the pod network as an SVG picture for a ticket, with selectable text and no external files.

From top to bottom: title, legend, the host with its uplinks, and each bridge with its pods as cards in rows, joined by
lines. The reader's fonts are unknown, so widths are estimated generously. Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from shared.cli.view.topology import Bridge, Link, Node, Pod, Port, amounts

PAGE = 1360  # width
MARGIN = 32
RAIL = 24  # from a vertical line to the boxes at it
GAP = 14  # between cards
DROP = 18  # between rows of cards, for the connecting lines
COLUMNS = 5
CARD = (PAGE - 2 * MARGIN - 2 * RAIL - (COLUMNS - 1) * GAP) / COLUMNS
LINE = 15
PADDING = 9
BAR = 44  # height of a bridge
WIDTHS = {"name": 8.5, "text": 7.0, "mono": 7.3, "small": 6.7, "tiny": 4.9}  # of a letter, by class of text

# Okabe and Ito's colours: people with any kind of colour vision can tell them apart. Outline and fill.
COLOURS = {
    "uplink": ("#009e73", "#eef9f5"),
    "bridge": ("#0072b2", "#dcebf5"),
    "pod": ("#56b4e9", "#f4fafe"),
    "device": ("#767676", "#ffffff"),
    "unknown": ("#767676", "#f3f3f3"),
    "trouble": ("#d55e00", "#fdf0e8"),
}
LEGEND = {
    "uplink": "uplink, with a default route",
    "bridge": "bridge",
    "pod": "pod",
    "device": "port that leads to no pod",
    "unknown": "owner not known",
    "trouble": "not up, or gone",
}
COLOUR_OF = {"bridge": "bridge", "master": "uplink"}
SANS = "system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
STYLE = f"""
text {{ font-family: {SANS}; fill: #1a1a1a }}
.title {{ font-size: 24px; font-weight: bold }}
.text {{ font-size: 13px }}
.name {{ font-size: 12.5px; font-weight: bold }}
.mono {{ font-family: {MONO}; font-size: 12px }}
.tiny {{ font-family: {MONO}; font-size: 8px }}
.small {{ font-family: {MONO}; font-size: 11px; fill: #555555 }}
.wire {{ stroke: #8a8a8a; stroke-width: 1.5; fill: none }}
"""


@dataclass(frozen=True)
class Card:
    """A small box: lines of text with their classes, a tooltip, its share of the busiest pod's traffic."""

    kind: str
    lines: tuple[tuple[str, str], ...]
    tip: str
    share: float = 0.0

    @property
    def height(self) -> float:
        """Return the height that its lines need."""
        return len(self.lines) * LINE + 2 * PADDING


def svg(node: Node) -> str:
    """Return the picture as SVG."""
    picture = Picture(node)
    picture.head()
    picture.host()
    for bridge in node.bridges:
        picture.shared(bridge, "bridge")
    for master in node.masters:
        picture.shared(master, "master")
    picture.others("Pods' links on no bridge", [picture.port(port) for port in node.unbridged])
    picture.others("Cached attachments without a link on the host", [picture.unlinked(pod) for pod in node.unlinked])
    return picture.finish()


class Picture:
    """A picture that grows from the top down; `y` is the position of the next element."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
        ET.SubElement(self.root, "title").text = f"Pod network of {node.host}, {node.time}"
        ET.SubElement(self.root, "style").text = STYLE
        self.page = self._rect(0, 0, PAGE, 0, fill="#ffffff")
        self.wires = ET.SubElement(self.root, "g", {"class": "wire"})  # below all boxes
        self.y = 0.0
        self.trunk = 0.0  # the start of the line from the host to the bridges
        ports = [port for one in (*node.bridges, *node.masters) for port in one.ports] + list(node.unbridged)
        self.busiest = max((_sum(port) for port in ports if port.pod), default=0.0)

    def head(self) -> None:
        """Draw title, measurement and legend."""
        node, pods = self.node, len(self.node.pods)
        network = f", network {node.network}" if node.network else ""
        self._text(MARGIN, 50, "title", f"Pod network of {node.host}{network}")
        traffic = f"traffic measured over {node.seconds:.3g} s" if node.seconds else "traffic since each link was made"
        counts = f"{_counted(pods, 'pod')} · {_counted(len(node.bridges), 'bridge')}"
        self._text(MARGIN, 74, "text", f"{node.time} · {counts} · {traffic} · in: received by a pod, out: sent by it")
        x = float(MARGIN)
        for kind, meaning in LEGEND.items():
            self._box(x, 90, 22, 14, kind)
            self._text(x + 29, 102, "text", meaning)
            x += 29 + len(meaning) * WIDTHS["text"] + 20
        if self.busiest:
            self._rect(x, 95, 22, 4, fill=COLOURS["bridge"][0])
            self._text(x + 29, 102, "text", "share of the busiest pod's traffic")
        self.y = 124.0

    def host(self) -> None:
        """Draw the host as a frame around its uplinks."""
        node = self.node
        cards = [
            Card(
                "uplink" if uplink.state == "up" else "trouble",
                (
                    (f"uplink {uplink.name}", "name"),
                    *((address, "mono") for address in uplink.addresses),
                    *((f"via {gateway}", "mono") for gateway in uplink.gateways),
                    (f"mtu {uplink.mtu}, {uplink.state}", "small"),
                    *self._traffic(uplink),
                ),
                f"uplink {uplink.name} {uplink.mac}",
            )
            for uplink in node.uplinks
        ] or [Card("unknown", (("no default route", "text"),), "no default route")]
        width = max(2, min(COLUMNS, len(cards))) * (CARD + GAP) + GAP
        top, title = self.y, _fitted(f"host {node.host}", width - 2 * GAP, "name")
        frame = self._rect(MARGIN, top, width, 0, fill="#fafafa", stroke="#333333", rx="8")
        self._text(MARGIN + GAP, top + 24, "name", title)
        self.y += 36
        for row in _rows(cards):
            for place, card in enumerate(row):
                self._card(MARGIN + GAP + place * (CARD + GAP), self.y, card)
            self.y += max(card.height for card in row) + GAP
        frame.set("height", _number(self.y - top))
        self.trunk = self.y
        self.y += DROP

    def shared(self, bridge: Bridge, word: str) -> None:
        """Draw a bridge, or the master of pods' links, as a bar above its ports."""
        x, middle = float(MARGIN + RAIL), self.y + BAR / 2
        self._wire(MARGIN + RAIL / 2, self.trunk, MARGIN + RAIL / 2, middle, x, middle)
        self._box(
            x,
            self.y,
            PAGE - MARGIN - x,
            BAR,
            COLOUR_OF[word] if bridge.state == "up" or not bridge.ports else "trouble",
        )
        self._text(x + 16, middle + 5, "name", f"{word} {bridge.name}")
        at = x + 32 + len(f"{word} {bridge.name}") * WIDTHS["name"]
        pods = sum(port.pod is not None for port in bridge.ports)
        facts = [f"mtu {bridge.mtu}", bridge.state, *(text for text, _ in self._traffic(bridge)), _counted(pods, "pod")]
        right = " · ".join(facts)
        end = PAGE - MARGIN - 16
        room = end - len(right) * WIDTHS["small"] - GAP - at
        self._text(at, middle + 4, "mono", _fitted("  ".join(bridge.addresses) or "no address", room, "mono"))
        self._text(end, middle + 4, "small", right, anchor="end")
        self.y += BAR
        self._grid([self.port(port) for port in bridge.ports])

    def others(self, title: str, cards: Sequence[Card]) -> None:
        """Draw cards that are connected to the host itself."""
        if not cards:
            return
        x, middle = float(MARGIN + RAIL), self.y + 10
        self._wire(MARGIN + RAIL / 2, self.trunk, MARGIN + RAIL / 2, middle, x, middle)
        self._text(x + 8, middle + 5, "name", title)
        self.y += 22
        self._grid(cards)

    def port(self, port: Port) -> Card:
        """Return the card of a bridge's port, or of a pod's link without a bridge."""
        pod = port.pod
        state = "" if port.state == "up" else f", {port.state}"
        if pod is None:
            what = f"other end: {port.peer}" if port.peer else f"{port.kind or 'device'} of the host"
            lines = [(what, "small"), (port.name, "name"), *((address, "mono") for address in port.addresses)]
            kind, link = "device", (f"mtu {port.mtu}{state}", "small")
        else:
            lines, kind = self._pod(pod), "pod" if pod.container_id else "unknown"
            link = (f"{port.label} → {pod.ifname or '?'}{state}", "small")
        share = _sum(port) / self.busiest if self.busiest and pod else 0.0
        tip = _tip(pod, f"{port.name} {port.mac} mtu {port.mtu} {port.state}")
        return Card("trouble" if state else kind, (*lines, link, *self._traffic(port)), tip, share)

    def unlinked(self, pod: Pod) -> Card:
        """Return the card of an attachment without a link on the host."""
        kind = pod.link or "link"
        state = "" if pod.is_fine else f", {pod.state}"
        note = "its namespace is gone" if pod.gone else f"{kind} {pod.ifname}{state}"
        return Card("pod" if pod.is_fine else "trouble", (*self._pod(pod), (note, "small")), _tip(pod, note))

    def finish(self) -> str:
        """Set the picture's height and return it as SVG."""
        height = self.y + MARGIN - DROP
        self.page.set("height", _number(height))
        self.root.set("viewBox", f"0 0 {PAGE} {_number(height)}")
        self.root.set("width", str(PAGE))
        self.root.set("height", _number(height))
        ET.indent(self.root)
        return ET.tostring(self.root, encoding="unicode") + "\n"

    @staticmethod
    def _pod(pod: Pod) -> list[tuple[str, str]]:
        above = " · ".join(part for part in (pod.network, pod.namespace if pod.name else "") if part)
        addresses = [(address, "mono") for address in pod.addresses] or [("no address", "small")]
        addresses += [("from the cache", "small")] if pod.addresses_from == "cache" else []
        addresses += [(f"vrf {pod.vrf}", "small")] if pod.vrf else []
        name = pod.name or (pod.title if above else pod.netns or "namespace not known")
        return [(above or "owner not known", "small"), (name, "name"), *addresses]

    def _traffic(self, link: Link) -> list[tuple[str, str]]:
        if link.traffic is None:
            return []
        received, sent = amounts(link.traffic, self.node.seconds)
        return [(f"in {received} · out {sent}" if _sum(link) else "no traffic", "small")]

    def _grid(self, cards: Sequence[Card]) -> None:
        """Draw rows of cards below the element that ends at `y`."""
        riser, start, last = float(MARGIN + 1.5 * RAIL), self.y, self.y
        for row in _rows(cards):
            bus, top = self.y + DROP / 2, self.y + DROP
            for place, card in enumerate(row):
                middle = _column(place) + CARD / 2
                self._wire(riser, bus, middle, bus, middle, top)
                self._card(_column(place), top, card)
            last = bus
            self.y = top + max(card.height for card in row)
        if cards:
            self._wire(riser, start, riser, last)
        self.y += DROP + GAP

    def _card(self, x: float, y: float, card: Card) -> None:
        group = self._box(x, y, CARD, card.height, card.kind)
        ET.SubElement(group, "title").text = card.tip
        self._rect(x, y, 4, card.height, group, fill=COLOURS[card.kind][0], rx="2")
        for number, (text, style) in enumerate(card.lines):
            room = CARD - 2 * PADDING - 4
            small = (
                style == "mono" and len(text) * WIDTHS["mono"] > room
            )  # a shortened address is useless, so use a smaller font
            line = text if small else _fitted(text, room, style)
            self._text(x + 4 + PADDING, y + PADDING + 12 + number * LINE, "tiny" if small else style, line, group)
        if card.share:
            width = max(1.0, card.share * (CARD - 12))
            self._rect(x + 6, y + card.height - 5, width, 3, group, fill=COLOURS["bridge"][0])

    def _box(self, x: float, y: float, width: float, height: float, kind: str) -> ET.Element:
        group = ET.SubElement(self.root, "g")
        stroke, fill = COLOURS[kind]
        outline = {"fill": fill, "stroke": stroke, "stroke-width": "1.5", "rx": "5"}
        if kind == "unknown":
            outline["stroke-dasharray"] = "5 3"
        self._rect(x, y, width, height, group, **outline)
        return group

    def _rect(
        self, x: float, y: float, width: float, height: float, parent: ET.Element | None = None, **more: str
    ) -> ET.Element:
        place = {"x": _number(x), "y": _number(y), "width": _number(width), "height": _number(height)}
        return ET.SubElement(self.root if parent is None else parent, "rect", place | more)

    def _text(
        self, x: float, y: float, style: str, text: str, parent: ET.Element | None = None, *, anchor: str = "start"
    ) -> None:
        place = {"x": _number(x), "y": _number(y), "class": style}
        if anchor != "start":
            place["text-anchor"] = anchor
        ET.SubElement(self.root if parent is None else parent, "text", place).text = text

    def _wire(self, *points: float) -> None:
        numbers = " ".join(map(_number, points))
        ET.SubElement(self.wires, "polyline", {"points": numbers})


def _rows(cards: Sequence[Card]) -> list[Sequence[Card]]:
    return [cards[start : start + COLUMNS] for start in range(0, len(cards), COLUMNS)]


def _column(place: int) -> float:
    return MARGIN + 2 * RAIL + place * (CARD + GAP)


def _sum(link: Link) -> float:
    return link.traffic.received + link.traffic.sent if link.traffic else 0.0


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _tip(pod: Pod | None, link: str) -> str:
    known = [pod.title, pod.network, pod.container_id, pod.ifname, pod.netns, *pod.addresses] if pod else []
    return "\n".join([*(part for part in known if part), link])


def _fitted(text: str, width: float, style: str) -> str:
    """Return the text, shortened in its middle to the width: names of pods differ at their ends."""
    letters = max(3, int(width / WIDTHS.get(style, WIDTHS["name"])))
    if len(text) <= letters:
        return text
    head = (letters - 1) // 2
    return f"{text[:head]}…{text[-(letters - 1 - head) :]}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
