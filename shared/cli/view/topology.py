"""A node's pod network as one model, of which there are several pictures: uplinks, bridges, ports, pods."""

from __future__ import annotations

from dataclasses import dataclass

from rich.filesize import decimal

SHORT_ID = 13  # characters of a container id that tell it from others


@dataclass(frozen=True)
class Traffic:
    """What a pod, a bridge or an uplink received and sent: bytes a second, or bytes since it was made."""

    received: float
    sent: float


@dataclass(frozen=True, kw_only=True)
class Pod:
    """An attachment. Whatever could not be found out is empty, all of it for the pod of a link that nobody knows."""

    network: str = ""
    container_id: str = ""
    ifname: str = ""
    namespace: str = ""
    name: str = ""
    netns: str = ""
    addresses: tuple[str, ...] = ()
    owner_from: str = ""  # "alias" or "cache"
    addresses_from: str = ""  # "namespace" or "cache"
    gone: bool = False  # its namespace is no more

    @property
    def title(self) -> str:
        """What a person calls the pod."""
        if self.name:
            return f"{self.namespace}/{self.name}" if self.namespace else self.name
        return shortened(self.container_id) or "owner not known"

    @property
    def attachment(self) -> str:
        """The attachment as the host link's alias writes it, with a short container id."""
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
    """A port of a bridge: a pod's link, or one of the host's own, of which `peer` may be the other end."""

    peer: str = ""
    pod: Pod | None = None


@dataclass(frozen=True, kw_only=True)
class Bridge(Link):
    """A bridge with its ports."""

    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Node:
    """All of it. `seconds` is the time that traffic was measured for, 0 where it is totals."""

    host: str
    time: str
    seconds: float = 0
    network: str = ""
    uplinks: tuple[Uplink, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    unbridged: tuple[Port, ...] = ()  # pods' links that are no bridge's port
    unlinked: tuple[Pod, ...] = ()  # remembered attachments without a link on the host

    @property
    def pods(self) -> list[Pod]:
        """All attachments, those of unknown owners included."""
        ports = [port for bridge in self.bridges for port in bridge.ports] + list(self.unbridged)
        return [port.pod for port in ports if port.pod] + list(self.unlinked)


def shortened(container_id: str) -> str:
    """A container id as people write it: runtimes' own have 64 digits."""
    return container_id if len(container_id) <= SHORT_ID + 7 else container_id[:SHORT_ID]


def amounts(traffic: Traffic, seconds: float) -> tuple[str, str]:
    """What was received and sent, for people."""
    unit = "/s" if seconds else ""
    return decimal(round(traffic.received)) + unit, decimal(round(traffic.sent)) + unit
