"""Draw the pod network as an SVG picture for a ticket.

From top to bottom: title, legend, the host with its uplinks, and each bridge with its pods as cards in rows, joined by
lines.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.cli.terminal import counted
from shared.cli.view.canvas import COLOURS, MARGIN, RAIL, Canvas, Card
from shared.cli.view.topology import Bridge, Link, Node, Pod, Port, amounts

LEGEND = {
    "uplink": "uplink, or master of pods' links",
    "bridge": "bridge",
    "pod": "pod",
    "device": "port that leads to no pod",
    "unknown": "owner not known",
    "trouble": "not up, or gone",
}
COLOUR_OF = {"bridge": "bridge", "master": "uplink"}


def svg(node: Node) -> str:
    """Return the picture as SVG."""
    picture = Picture(node)
    picture.headline()
    picture.host()
    for bridge in node.bridges:
        picture.shared(bridge, "bridge")
    for master in node.masters:
        picture.shared(master, "master")
    picture.others("Pods' links on no bridge", [picture.port(port) for port in node.unbridged])
    picture.others("Cached attachments without a link on the host", [picture.unlinked(pod) for pod in node.unlinked])
    return picture.finish()


class Picture(Canvas):
    """The picture of a node's pod network."""

    def __init__(self, node: Node) -> None:
        super().__init__(f"Pod network of {node.host}, {node.time}")
        self.node = node
        ports = [port for one in (*node.bridges, *node.masters) for port in one.ports] + list(node.unbridged)
        self.busiest = max((_sum(port) for port in ports if port.pod), default=0.0)

    def headline(self) -> None:
        """Draw title, measurement and legend."""
        node, pods = self.node, len(self.node.pods)
        network = f", network {node.network}" if node.network else ""
        traffic = f"traffic measured over {node.seconds:.3g} s" if node.seconds else "traffic since each link was made"
        counts = f"{counted(pods, 'pod')} · {counted(len(node.bridges), 'bridge')}"
        text = f"{node.time} · {counts} · {traffic} · in: received by a pod, out: sent by it"
        x = self.head(f"Pod network of {node.host}{network}", text, LEGEND)
        if self.busiest:
            self.rect(x, 95, 22, 4, fill=COLOURS["bridge"][0])
            self.text(x + 29, 102, "text", "share of the busiest pod's traffic")

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
        self.frame(f"host {node.host}", cards)

    def shared(self, bridge: Bridge, word: str) -> None:
        """Draw a bridge, or the master of pods' links, as a bar above its ports."""
        pods = sum(port.pod is not None for port in bridge.ports)
        facts = [f"mtu {bridge.mtu}", bridge.state, *(text for text, _ in self._traffic(bridge)), counted(pods, "pod")]
        kind = COLOUR_OF[word] if bridge.state == "up" or not bridge.ports else "trouble"
        addresses = "  ".join(bridge.addresses) or "no address"
        self.bar(kind, f"{word} {bridge.name}", addresses, " · ".join(facts))
        self.grid([self.port(port) for port in bridge.ports])

    def others(self, title: str, cards: Sequence[Card]) -> None:
        """Draw cards that are connected to the host itself."""
        if not cards:
            return
        x, middle = float(MARGIN + RAIL), self.y + 10
        self.wire(MARGIN + RAIL / 2, self.trunk, MARGIN + RAIL / 2, middle, x, middle)
        self.text(x + 8, middle + 5, "name", title)
        self.y += 22
        self.grid(cards)

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


def _sum(link: Link) -> float:
    return link.traffic.received + link.traffic.sent if link.traffic else 0.0


def _tip(pod: Pod | None, link: str) -> str:
    known = [pod.title, pod.network, pod.container_id, pod.ifname, pod.netns, *pod.addresses] if pod else []
    return "\n".join([*(part for part in known if part), link])
