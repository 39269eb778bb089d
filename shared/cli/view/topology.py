"""Model a node's pod network for all outputs: uplinks, bridges, ports, pods."""

from __future__ import annotations

from dataclasses import dataclass

from rich.filesize import decimal

ON_MASTERS = ("macvlan", "ipvlan", "vlan")  # kinds of pods' links that are made on a link of the host
SHORT_ID = 13  # characters of a container id that identify it


@dataclass(frozen=True)
class Traffic:
    """Bytes received and sent, per second or since the link was created."""

    received: float
    sent: float


@dataclass(frozen=True, kw_only=True)
class Pod:
    """An attachment. Unknown values are empty; all are empty if the owner of a pod's link is unknown."""

    network: str = ""
    container_id: str = ""
    ifname: str = ""
    namespace: str = ""
    name: str = ""
    netns: str = ""
    addresses: tuple[str, ...] = ()
    owner_from: str = ""  # "alias" or "cache"
    addresses_from: str = ""  # "namespace" or "cache"
    vrf: str = ""  # that its link is in
    link: str = ""  # kind of the pod's own link, if none on the host leads to it
    state: str = ""  # of that link: up, no carrier, down or missing
    gone: bool = False  # its namespace no longer exists

    @property
    def is_fine(self) -> bool:
        """Return True if the namespace exists, and its own link, if known, is up. A tap may lack a reader."""
        is_up = self.state in ("", "up") or (self.link == "tap" and self.state == "no carrier")
        return is_up and not self.gone

    @property
    def title(self) -> str:
        """Return the pod's name for people."""
        if self.name:
            return f"{self.namespace}/{self.name}" if self.namespace else self.name
        return shortened(self.container_id) or "owner not known"

    @property
    def attachment(self) -> str:
        """Return the attachment in the form of the host link's alias, with a short container id."""
        return f"{self.network}/{shortened(self.container_id)}/{self.ifname}" if self.container_id else ""


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link of the host; `state` is up, no carrier or down."""

    name: str
    kind: str = ""
    state: str = "up"
    mtu: int = 0
    mac: str = ""
    addresses: tuple[str, ...] = ()
    traffic: Traffic | None = None


@dataclass(frozen=True, kw_only=True)
class Uplink(Link):
    """A link with a default route."""

    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Port(Link):
    """A port of a bridge: a pod's link, or a link of the host with `peer` as its other end."""

    peer: str = ""
    vlan: int = 0  # of a pod's VLAN link
    pod: Pod | None = None

    @property
    def label(self) -> str:
        """Return the link's name for people: its kind if it is in the pod, where the attachment has its name."""
        kind = f"vlan {self.vlan}" if self.vlan else self.kind
        return kind if self.kind in ON_MASTERS else self.name


@dataclass(frozen=True, kw_only=True)
class Bridge(Link):
    """A bridge with its ports."""

    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Master(Bridge):
    """A link with pods' links on it (macvlan, ipvlan, vlan). The names of these ports are those in the pods."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """The whole network. `seconds` is the time of the traffic measurement, 0 for totals."""

    host: str
    time: str
    seconds: float = 0
    network: str = ""
    uplinks: tuple[Uplink, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    masters: tuple[Master, ...] = ()
    unbridged: tuple[Port, ...] = ()  # pods' links that are not ports of a bridge
    unlinked: tuple[Pod, ...] = ()  # cached attachments without a link on the host

    @property
    def pods(self) -> list[Pod]:
        """Return all attachments, including those of unknown owners."""
        ports = [port for one in (*self.bridges, *self.masters) for port in one.ports] + list(self.unbridged)
        return [port.pod for port in ports if port.pod] + list(self.unlinked)


def shortened(container_id: str) -> str:
    """Return a container id as people write it: runtimes' ids have 64 digits."""
    return container_id if len(container_id) <= SHORT_ID + 7 else container_id[:SHORT_ID]


def amounts(traffic: Traffic, seconds: float) -> tuple[str, str]:
    """Return the traffic received and sent as text."""
    unit = "/s" if seconds else ""
    return decimal(round(traffic.received)) + unit, decimal(round(traffic.sent)) + unit
