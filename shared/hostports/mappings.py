"""Mappings of host ports, as a configuration has them and as the backends use them."""

from __future__ import annotations

from shared.cni import config
from shared.cni.config import address, field, integer, invalid
from shared.cni.errors import InternalError
from shared.cni.ip import Address, Prefix
from shared.net import routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from shared.cni.errors import InvalidConfig
    from shared.net.netlink import Netlink

VERSIONS = (4, 6)
LOCALHOST = Prefix(Address(4, 127 << 24), 8)
LOCALHOST_6 = Prefix(Address(6, 1), 128)
PROTOCOLS = ("tcp", "udp", "sctp")


def _protocol(value: Any) -> str:
    lowered = value.lower() if isinstance(value, str) else ""
    if lowered not in PROTOCOLS:
        raise ValueError(f"must be one of {', '.join(PROTOCOLS)}")
    return lowered


port = integer(1, 65535)
protocol = config.Kind(_protocol, {"type": "string"}, empty_is_unset=True)


class PortMapping(config.Config):
    """One entry of portMappings."""

    hostPort: int = field(port, 0, "port of the host", required=True)
    containerPort: int = field(port, 0, "port of the pod", required=True)
    protocol: str = field(protocol, "tcp", "tcp, udp or sctp, in any case")
    hostIP: Address | None = field(
        address, None, "address of the host; 0.0.0.0 or :: for all of the family, none for all"
    )

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that the entry maps."""
        return VERSIONS if self.hostIP is None else (self.hostIP.version,)

    @property
    def one_address(self) -> Address | None:
        """The only host address that the entry maps, None if it maps all."""
        return self.hostIP if self.hostIP is not None and self.hostIP.value else None

    @property
    def is_for_localhost(self) -> bool:
        """True if the entry also maps packets to 127.0.0.1."""
        return 4 in self.versions and (self.one_address is None or self.one_address in LOCALHOST)


class HostPort:
    """A mapping of one family: packets to `port` of the address `host` (empty: any address) go to the pod."""

    def __init__(self, host: str, protocol: str, port: int, pod: Address, pod_port: int) -> None:
        self.version = pod.version
        self.host, self.protocol, self.port = host, protocol, port
        self.pod, self.pod_port = pod, pod_port
        self.key = (*([host] if host else []), protocol, str(port))
        self.to = (str(pod), str(pod_port))
        self.flow = (self.version, host, port) if protocol == "udp" else None
        self.is_at = bool(host)


class Taken(InternalError):
    """Another attachment, with the label `holder`, has the host port."""

    def __init__(self, version: int, host: str, protocol: str, port: int | str, holder: str) -> None:
        where = host or f"every IPv{version} address"
        super().__init__(f"host port {port}/{protocol} of {where} is taken by {holder or 'somebody else'}")


def require_consistent(mappings: Sequence[PortMapping]) -> None:
    """Raise InvalidConfig for IPv6 localhost, and for one host port that leads to two ports of the pod."""
    taken: dict[tuple[object, ...], int] = {}
    for place, mapping in enumerate(mappings):
        if mapping.hostIP is not None and mapping.hostIP in LOCALHOST_6:
            reason = "cannot be mapped: the kernel routes no packets from IPv6 localhost to a pod"
            raise _invalid(place, "hostIP", mapping.hostIP, reason)
        for version in mapping.versions:
            key = (version, mapping.one_address, mapping.protocol, mapping.hostPort)
            first = taken.setdefault(key, place)
            elsewhere = mappings[first].containerPort
            if elsewhere != mapping.containerPort:
                reason = (
                    f"with protocol {mapping.protocol} leads to port {mapping.containerPort} of the pod, "
                    f"and in portMappings[{first}] to port {elsewhere}"
                )
                raise _invalid(place, "hostPort", mapping.hostPort, reason)


def lead_to(pods: Mapping[int, Prefix], mappings: Sequence[PortMapping], host: Netlink) -> list[HostPort]:
    """Return the mappings to the pod's addresses, which are given by IP version.

    Entries that lead to the same place become one. Raise InvalidConfig for an address that cannot be mapped.
    """
    found: dict[tuple[object, ...], HostPort] = {}
    for place, mapping in enumerate(mappings):
        one = mapping.one_address
        if one:
            _require_local(host, place, one, pods)
        for version in mapping.versions:
            if version in pods:
                pod = pods[version].address
                port = HostPort(str(one or ""), mapping.protocol, mapping.hostPort, pod, mapping.containerPort)
                found.setdefault((version, *port.key), port)
    return list(found.values())


def _require_local(host: Netlink, place: int, one: Address, pods: Mapping[int, Prefix]) -> None:
    """Raise InvalidConfig unless the address is the host's.

    A mapping of any other address would take packets to another host (CVE-2020-8554).
    """
    if one.version not in pods:
        raise _invalid(place, "hostIP", one, f"cannot be mapped: the pod has no IPv{one.version} address")
    if not routes.is_local(host, one):
        raise _invalid(place, "hostIP", one, "is not an address of this host")


def _invalid(place: int, key: str, value: Address | int, reason: str) -> InvalidConfig:
    shown = value if isinstance(value, int) else str(value)
    return invalid(f"runtimeConfig.portMappings[{place}].{key}", shown, reason)
