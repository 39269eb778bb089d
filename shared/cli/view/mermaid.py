"""Draw the pod network as a Mermaid flowchart for wikis and trackers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from shared.cli.view.topology import Link, Node, Pod, Port, amounts

# Mermaid treats these characters as markup, so they are written as character codes.
CODES = {letter: f"#{ord(letter)};" for letter in '"#&<>`\\'}
# Okabe and Ito's colours, made light: people with any kind of colour vision can tell them apart.
CLASSES = {
    "host": "fill:#ffffff,stroke:#333333,color:#111111",
    "uplink": "fill:#dff3ec,stroke:#009e73,color:#111111",
    "bridge": "fill:#dcebf5,stroke:#0072b2,color:#111111",
    "pod": "fill:#eaf6fd,stroke:#56b4e9,color:#111111",
    "device": "fill:#ffffff,stroke:#767676,color:#111111",
    "unknown": "fill:#f3f3f3,stroke:#767676,color:#111111,stroke-dasharray:4 3",
    "down": "fill:#fbe7dc,stroke:#d55e00,color:#111111",
}


def flowchart(node: Node) -> str:
    """Return the chart's text: host, uplinks, bridges and masters, and the pod behind each port."""
    lines = ["flowchart LR", box("host", "host", [node.host, node.time])]
    for number, uplink in enumerate(node.uplinks):
        lines.append(box(f"uplink{number}", _class(uplink, "uplink"), _facts(uplink, uplink.gateways)))
        lines.append(f"    uplink{number} --- host")
    numbers = count(1)
    for number, bridge in enumerate(node.bridges):
        lines.append(box(f"bridge{number}", _class(bridge, "bridge") if bridge.ports else "bridge", _facts(bridge)))
        lines.append(f"    host --- bridge{number}")
        for port in bridge.ports:
            lines += _port(f"pod{next(numbers)}", f"bridge{number}", port, node)
    for number, master in enumerate(node.masters):
        lines.append(box(f"master{number}", _class(master, "uplink"), _facts(master)))
        lines.append(f"    host --- master{number}")
        for port in master.ports:
            lines += _port(f"pod{next(numbers)}", f"master{number}", port, node)
    for port in node.unbridged:
        lines += _port(f"pod{next(numbers)}", "host", port, node)
    for pod in node.unlinked:
        name = f"pod{next(numbers)}"
        link = [f"{pod.link} in its namespace"] if pod.link else []
        lines.append(box(name, "pod" if pod.is_fine else "down", [*_pod(pod), *link]))
        lines.append(f"    host -.- {name}")
    return finished(lines)


def finished(lines: Sequence[str]) -> str:
    """Return a chart of these lines, with the styles."""
    return "\n".join([*lines, *(f"    classDef {name} {style}" for name, style in CLASSES.items())]) + "\n"


def _port(name: str, at: str, port: Port, node: Node) -> list[str]:
    kind = "device" if port.pod is None else "pod" if port.pod.container_id else "unknown"
    text = _pod(port.pod) if port.pod else [port.peer or port.name, *port.addresses]
    if port.traffic:
        received, sent = amounts(port.traffic, node.seconds)
        text.append(f"in {received}, out {sent}")
    drawn = box(name, _class(port, kind), text)
    return [drawn, f'    {at} ---|"{escaped(port.label)}"| {name}']


def _pod(pod: Pod) -> list[str]:
    gone = ["its namespace is gone"] if pod.gone else []
    which = pod.attachment or pod.netns
    vrf = [f"vrf {pod.vrf}"] if pod.vrf else []
    return [pod.title, *([which] if which else []), *pod.addresses, *vrf, *gone]


def _facts(link: Link, gateways: Sequence[str] = ()) -> list[str]:
    return [link.name, *link.addresses, f"mtu {link.mtu}, {link.state}", *(f"via {gateway}" for gateway in gateways)]


def _class(link: Link, otherwise: str) -> str:
    return otherwise if link.state == "up" else "down"


def box(name: str, kind: str, text: Sequence[str]) -> str:
    """Return a box with lines of text, of a kind of CLASSES."""
    return f'    {name}["{"<br/>".join(map(escaped, text))}"]:::{kind}'


def escaped(text: str) -> str:
    """Return text without Mermaid's markup."""
    return "".join(CODES.get(letter, letter) for letter in text)
