"""Gateway addresses of pods on a bridge, or on the VLAN gateway port of one."""

from __future__ import annotations

import errno

from shared.cni.errors import InternalError
from shared.cni.ip import Prefix
from shared.net import addresses, bridges, forwarding, links, wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.ip import Address
    from shared.cni.result import Result
    from shared.net.bridges import Ports
    from shared.net.netlink import Message, Netlink
    from shared.undo import Undo

    VlanPort = tuple[str, int, bool]  # name of the gateway port, VLAN, if it stays in the bridge's default VLAN


class Gateway:
    """The link of the host that has the pods' gateway addresses: a bridge, or its gateway port in a VLAN.

    `own` are the call's own ports: undo changes nothing that another port may need by then. `vlan_port` is None for the
    bridge itself. If `dad`, the addresses go through duplicate address detection.
    """

    def __init__(self, host: Netlink, bridge: Message, own: Ports, vlan_port: VlanPort | None, *, dad: bool) -> None:
        self.host = host
        self.bridge = bridge
        self.own = own
        self.vlan_port = vlan_port
        self.dad = dad
        self.link = bridge
        self.wanted: list[Prefix] = []
        self.given: list[Address] = []

    def ensure(self, undo: Undo, wanted: list[Prefix], *, force: bool, several: bool) -> None:
        """Give the link the gateway addresses that it lacks, and let the host forward. Create the port if need be.

        Raises InternalError if the link has an overlapping address, or, unless `several`, another IPv4 one. If `force`,
        removes that.
        """
        host, self.wanted = self.host, wanted
        if self.vlan_port and wanted:
            from shared.net import vlans

            name, vlan, keep_default = self.vlan_port
            self.link = vlans.ensure_gateway_port(
                host, undo, self.bridge, name, vlan=vlan, keep_default=keep_default, own=self.own,
                ipv6=any(one.version == 6 for one in wanted), dad=self.dad,
            )  # fmt: skip
        have = addresses.of_link(host, self.link["index"])
        missing = [one for one in wanted if one not in have]
        for one in missing:
            _add(
                host, undo, self.link, one, bridge=self.bridge["index"], own=self.own, force=force, several=several,
                dad=self.dad,
            )  # fmt: skip
        forwarding.ensure(host, wanted)  # last: a call that fails leaves the host's forwarding as it was
        self.given = [one.address for one in missing]

    def await_ready(self, bridge: Message) -> None:
        """Wait until the host can reach pods through the link, with packets that it forwards too.

        `bridge` is the bridge as it is now: its MAC may have changed.
        """
        host = self.host
        if self.link is self.bridge:
            self.link = bridge
        if self.vlan_port:
            for end in (self.link, links.peer_here(host, self.link) or self.link):
                wait.gateway_carrier(host, end["IFLA_IFNAME"])
        if self.dad:
            wait.addresses_settled(host, self.link["index"])
        elif any(one.version == 6 for one in self.wanted):
            wait.link_local_settled(host, self.link["index"])
        wait.addresses_local(host, self.link["index"], self.given)


def _add(
    host: Netlink, undo: Undo, link: Message, prefix: Prefix, *,
    bridge: int, own: Ports, force: bool, several: bool, dad: bool,
) -> None:  # fmt: skip
    """Give the link one gateway address, unless a concurrent call was faster."""
    index, name = link["index"], link["IFLA_IFNAME"]
    existing = addresses.of_link(host, index)
    if prefix in existing:
        return
    if prefix.version == 6:
        bridges.enable_ipv6(host, undo, link, (*own, index))
    conflicts = conflicting(existing, prefix, several=several)
    if conflicts and not force:
        raise InternalError(describe_conflict(name, prefix, conflicts[0]))

    def take_off() -> None:
        if bridges.has_other_ports(host, bridge, *own, index):
            return
        addresses.remove(host, index, prefix)
        host.batch([addresses.add_request(index, other, dad=False, tolerate=(errno.EEXIST,)) for other in conflicts])

    undo.push(f"take {prefix} off {name}", take_off)
    for other in conflicts:
        addresses.remove(host, index, other)
    host.batch([addresses.add_request(index, prefix, dad=dad, tolerate=(errno.EEXIST,))])


def of_result(result: Result, interface: int) -> list[Prefix]:
    """Return the gateways of an interface in a result, each with the length of its network."""
    own = (ip for ip in result.ips if ip.interface == interface)
    return [Prefix(ip.gateway, ip.address.length) for ip in own if ip.gateway]


def problems(host: Netlink, bridge: Message, wanted: list[Prefix], vlan_port: VlanPort | None) -> list[str]:
    """Return all differences from the gateway addresses, the link and the forwarding that `Gateway.ensure` left."""
    if not wanted:
        return []
    link: Message | None = bridge
    name = bridge["IFLA_IFNAME"]
    found = forwarding.problems(wanted)
    if vlan_port:
        from shared.net import vlans

        name, vlan, keep = vlan_port
        link = links.get(host, name)
        found += vlans.gateway_port_problems(host, bridge, name, link, native=vlan, keep=keep)
    have = addresses.of_link(host, link["index"]) if link else []
    return [*found, *(f"gateway address {one.address} is missing on {name}" for one in wanted if one not in have)]


def conflicting(existing: list[Prefix], gateway: Prefix, *, several: bool) -> list[Prefix]:
    """Return those of a link's addresses beside which it cannot have the gateway address.

    Unless `several`, it has one IPv4 address at most, as with the reference.
    """
    if gateway in existing:
        return []
    return [
        other
        for other in existing
        if other.version == gateway.version and ((gateway.version == 4 and not several) or other.overlaps(gateway))
    ]


def describe_conflict(name: str, gateway: Prefix, existing: Prefix) -> str:
    """Return the message about a gateway address that link `name` cannot have beside another one."""
    return (
        f"{name} already has an IP address different from {gateway}: {existing};"
        ' delete that address, or set "forceAddress" to replace it'
    )
