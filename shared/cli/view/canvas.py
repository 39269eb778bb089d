"""Draw boxes, cards and lines as an SVG picture for a ticket, with selectable text and no external files.

The reader's fonts are unknown, so widths are estimated generously. Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

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


class Canvas:
    """A picture that grows from the top down; `y` is the position of the next element."""

    def __init__(self, title: str) -> None:
        self.root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
        ET.SubElement(self.root, "title").text = title
        ET.SubElement(self.root, "style").text = STYLE
        self.page = self.rect(0, 0, PAGE, 0, fill="#ffffff")
        self.wires = ET.SubElement(self.root, "g", {"class": "wire"})  # below all boxes
        self.y = 0.0
        self.trunk = 0.0  # the start of the line from the topmost box to those below

    def head(self, title: str, subtitle: str, legend: Mapping[str, str]) -> float:
        """Draw the title, and the meaning of the colours. Return the end of the line."""
        self.text(MARGIN, 50, "title", title)
        self.text(MARGIN, 74, "text", subtitle)
        x = float(MARGIN)
        for kind, meaning in legend.items():
            self.box(x, 90, 22, 14, kind)
            self.text(x + 29, 102, "text", meaning)
            x += 29 + len(meaning) * WIDTHS["text"] + 20
        self.y = 124.0
        return x

    def frame(self, title: str, cards: Sequence[Card]) -> None:
        """Draw the topmost box around its cards."""
        width = max(2, min(COLUMNS, len(cards))) * (CARD + GAP) + GAP
        top, fitting = self.y, fitted(title, width - 2 * GAP, "name")
        frame = self.rect(MARGIN, top, width, 0, fill="#fafafa", stroke="#333333", rx="8")
        self.text(MARGIN + GAP, top + 24, "name", fitting)
        self.y += 36
        for row in rows(cards):
            for place, card in enumerate(row):
                self.card(MARGIN + GAP + place * (CARD + GAP), self.y, card)
            self.y += max(card.height for card in row) + GAP
        frame.set("height", number(self.y - top))
        self.trunk = self.y
        self.y += DROP

    def bar(self, kind: str, title: str, text: str, right: str) -> None:
        """Draw a bar that hangs on the topmost box: a title, text after it, and text at its end."""
        x, middle = float(MARGIN + RAIL), self.y + BAR / 2
        self.wire(MARGIN + RAIL / 2, self.trunk, MARGIN + RAIL / 2, middle, x, middle)
        self.box(x, self.y, PAGE - MARGIN - x, BAR, kind)
        self.text(x + 16, middle + 5, "name", title)
        at = x + 32 + len(title) * WIDTHS["name"]
        end = PAGE - MARGIN - 16
        room = end - len(right) * WIDTHS["small"] - GAP - at
        self.text(at, middle + 4, "mono", fitted(text, room, "mono"))
        self.text(end, middle + 4, "small", right, anchor="end")
        self.y += BAR

    def finish(self) -> str:
        """Set the picture's height and return it as SVG."""
        height = self.y + MARGIN - DROP
        self.page.set("height", number(height))
        self.root.set("viewBox", f"0 0 {PAGE} {number(height)}")
        self.root.set("width", str(PAGE))
        self.root.set("height", number(height))
        ET.indent(self.root)
        return ET.tostring(self.root, encoding="unicode") + "\n"

    def grid(self, cards: Sequence[Card]) -> None:
        """Draw rows of cards below the element that ends at `y`."""
        riser, start, last = float(MARGIN + 1.5 * RAIL), self.y, self.y
        for row in rows(cards):
            bus, top = self.y + DROP / 2, self.y + DROP
            for place, card in enumerate(row):
                middle = column(place) + CARD / 2
                self.wire(riser, bus, middle, bus, middle, top)
                self.card(column(place), top, card)
            last = bus
            self.y = top + max(card.height for card in row)
        if cards:
            self.wire(riser, start, riser, last)
        self.y += DROP + GAP

    def card(self, x: float, y: float, card: Card) -> None:
        """Draw a card with its lines, its tooltip and its share."""
        group = self.box(x, y, CARD, card.height, card.kind)
        ET.SubElement(group, "title").text = card.tip
        self.rect(x, y, 4, card.height, group, fill=COLOURS[card.kind][0], rx="2")
        for place, (text, style) in enumerate(card.lines):
            room = CARD - 2 * PADDING - 4
            small = (
                style == "mono" and len(text) * WIDTHS["mono"] > room
            )  # a shortened address is useless, so use a smaller font
            line = text if small else fitted(text, room, style)
            self.text(x + 4 + PADDING, y + PADDING + 12 + place * LINE, "tiny" if small else style, line, group)
        if card.share:
            width = max(1.0, card.share * (CARD - 12))
            self.rect(x + 6, y + card.height - 5, width, 3, group, fill=COLOURS["bridge"][0])

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> ET.Element:
        """Draw a box in the colours of a kind. Return its group."""
        group = ET.SubElement(self.root, "g")
        stroke, fill = COLOURS[kind]
        outline = {"fill": fill, "stroke": stroke, "stroke-width": "1.5", "rx": "5"}
        if kind == "unknown":
            outline["stroke-dasharray"] = "5 3"
        self.rect(x, y, width, height, group, **outline)
        return group

    def rect(
        self, x: float, y: float, width: float, height: float, parent: ET.Element | None = None, **more: str
    ) -> ET.Element:
        """Draw a rectangle."""
        place = {"x": number(x), "y": number(y), "width": number(width), "height": number(height)}
        return ET.SubElement(self.root if parent is None else parent, "rect", place | more)

    def text(
        self, x: float, y: float, style: str, text: str, parent: ET.Element | None = None, *, anchor: str = "start"
    ) -> None:
        """Write a line of text."""
        place = {"x": number(x), "y": number(y), "class": style}
        if anchor != "start":
            place["text-anchor"] = anchor
        ET.SubElement(self.root if parent is None else parent, "text", place).text = text

    def wire(self, *points: float) -> None:
        """Draw a line through points: x, y, x, y, …."""
        numbers = " ".join(map(number, points))
        ET.SubElement(self.wires, "polyline", {"points": numbers})


def rows(cards: Sequence[Card]) -> list[Sequence[Card]]:
    """Return cards in rows that fit the page."""
    return [cards[start : start + COLUMNS] for start in range(0, len(cards), COLUMNS)]


def column(place: int) -> float:
    """Return the left edge of a card of the grid."""
    return MARGIN + 2 * RAIL + place * (CARD + GAP)


def fitted(text: str, width: float, style: str) -> str:
    """Return the text, shortened in its middle to the width: names of pods differ at their ends."""
    letters = max(3, int(width / WIDTHS.get(style, WIDTHS["name"])))
    if len(text) <= letters:
        return text
    head = (letters - 1) // 2
    return f"{text[:head]}…{text[-(letters - 1 - head) :]}"


def number(value: float) -> str:
    """Return a length as SVG has it."""
    return f"{value:.1f}".removesuffix(".0")
