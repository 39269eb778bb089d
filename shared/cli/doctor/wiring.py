"""Check links, addresses and routes, on the host and in the pods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing

from netaddr import IPAddress, IPNetwork
from pyroute2 import IPRoute, NetlinkError

from shared.cli.doctor.findings import Finding, error, note, warning
from shared.cli.doctor.links import Held, Link, Wire, command
from shared.cli.doctor.network import Network
from shared.cli.doctor.node import Node
from shared.net import sysctl
from shared.net.links import smallest_mtu
from shared.net.netlink import Netlink

STRICT = 1  # rp_filter: Documentation/networking/ip-sysctl.rst
RTM_F_FIB_MATCH = 0x2000  # linux/rtnetlink.h


def loopback(node: Node) -> Iterator[Finding]:
    """Report a loopback interface that is down, on the host or in a pod."""
    lo = node.link("lo")
    if lo is None or not lo.is_up:
        yield error("lo", "is down on the host", "ip link set lo up")
    # Namespaces of other programs may have no lo on purpose.
    for pod in dict.fromkeys(node.pod(entry) for entry in node.alive.values()):
        lo = pod.link("lo") if pod else None
        if pod and (lo is None or not lo.is_up):
            yield warning(
                f"lo in {pod.path}", "is down: the pod cannot reach itself", pod.inside("ip", "link", "set", "lo", "up")
            )


def bridges(node: Node) -> Iterator[Finding]:
    """Report bridges of networks with pods that are missing, down, or without a gateway address."""
    for network in _bridged(node):
        name = network.bridge_link
        gateways = sorted({gateway for entry in node.alive.values() for gateway in entry.gateways
                           if entry.mark[0] == network.name}) if network.is_gateway else []  # fmt: skip
        link = node.link(name)
        if link is None:
            make = [command("ip", "link", "add", name, "type", "bridge"), command("ip", "link", "set", name, "up")]
            yield error(name, f"is missing: the pods of network {network.name} have no connection", " && ".join(make))
        elif link.kind != "bridge":
            yield error(
                name,
                f"is of type {link.kind or 'hardware'}, but network {network.name} needs a bridge of this name",
                command("ip", "link", "set", name, "name", f"{name}-old"),
            )
        elif not link.is_up:
            yield error(
                name,
                f"is down: the pods of network {network.name} have no connection",
                command("ip", "link", "set", name, "up"),
            )
        gateway_link = node.link(network.gateway_link)
        have = {held.network for held in gateway_link.addresses} if gateway_link else set()
        for gateway in gateways:
            if gateway not in have:
                nodad = ["nodad"] if gateway.version == 6 else []
                yield error(
                    network.gateway_link, f"lacks the gateway address {gateway}",
                    command("ip", "address", "add", gateway, "dev", network.gateway_link, *nodad),
                )  # fmt: skip


def _bridged(node: Node) -> list[Network]:
    """Return the networks that have a bridge and pods."""
    used = {wire.network for wire in node.wires} | {network for network, _, _ in node.alive}
    return [network for network in node.networks if network.bridge and network.name in used]


def ports(node: Node) -> Iterator[Finding]:
    """Report ends of veth pairs that are down, and host ends that are not ports of the bridge."""
    for network in _bridged(node):
        bridge = node.link(network.bridge_link)
        for wire in node.wires_of(network):
            port = wire.port.name
            if bridge and wire.port.master != bridge.index:
                yield error(
                    port,
                    f"({wire.name}) is not a port of {bridge.name}",
                    command("ip", "link", "set", port, "master", bridge.name),
                )
            if not wire.port.is_up:
                yield error(port, f"({wire.name}) is down", command("ip", "link", "set", port, "up"))
            # Until a runtime knows of the pod, its ADD may still be running.
            is_ready = wire.mark in node.alive and network.bridge and not network.bridge.disableContainerInterface
            if is_ready and not wire.inside.is_up:
                yield error(wire.name, "is down", wire.pod.inside("ip", "link", "set", wire.inside.name, "up"))


def attachments(node: Node) -> Iterator[Finding]:
    """Report links, addresses and routes that the cache lists but a live pod lacks."""
    wired = {(wire.pod.identity, wire.inside.name) for wire in node.wires}
    for entry in node.alive.values():
        pod, ifname = node.pod(entry), entry.mark[2]
        if pod is None:
            continue
        where = f"{ifname} in {pod.path}"
        again = f"restart container {entry.mark[1]}: only a new ADD creates the interface"
        link = pod.link(ifname)
        if link is None:
            yield error(where, f"is missing, but the cache lists {entry.name}", again)
            continue
        if link.kind == "veth" and (pod.identity, ifname) not in wired:
            yield error(where, "has no end on the host", again)
        have = {held.network for held in link.addresses}
        for address in entry.addresses:
            if address not in have:
                todo = pod.inside("ip", "address", "add", address, "dev", ifname)
                yield error(where, f"lacks its address {address}", todo)
        for destination, gateway in entry.routes:
            if destination not in pod.routes:
                via = ["via", gateway] if gateway else []
                todo = pod.inside("ip", "route", "add", destination, *via, "dev", ifname)
                yield error(where, f"lacks its route to {destination}", todo)


def mtu(node: Node) -> Iterator[Finding]:
    """Report MTUs that differ between pod, host end, bridge and configuration."""
    for wire in node.wires:
        network = node.network(wire.network)
        if wire.inside.mtu != wire.port.mtu and not (network and network.plugin("tuning").get("mtu")):
            yield error(
                wire.name, f"has MTU {wire.inside.mtu}, but its other end {wire.port.name} has {wire.port.mtu}:"
                " larger packets are lost",
                wire.pod.inside("ip", "link", "set", wire.inside.name, "mtu", wire.port.mtu),
            )  # fmt: skip
    for network in _bridged(node):
        yield from _bridge_mtu(node, network)
        wanted = _wanted_mtu(network)
        for wire in node.wires_of(network) if wanted else ():
            if wire.port.mtu != wanted:
                set_port = command("ip", "link", "set", wire.port.name, "mtu", wanted)
                set_inside = wire.pod.inside("ip", "link", "set", wire.inside.name, "mtu", wanted)
                yield warning(
                    wire.port.name, f"({wire.name}) has MTU {wire.port.mtu}, but {network.path} says {wanted}",
                    f"{set_port} && {set_inside}",
                )  # fmt: skip


def _bridge_mtu(node: Node, network: Network) -> Iterator[Finding]:
    bridge = node.link(network.bridge_link)
    members = [link.mtu for link in node.links if bridge and link.master == bridge.index]
    if bridge and members and bridge.mtu != min(members):
        yield warning(
            bridge.name, f"has MTU {bridge.mtu}, but the smallest of its ports is {min(members)}",
            command("ip", "link", "set", bridge.name, "mtu", min(members)),
        )  # fmt: skip


def _wanted_mtu(network: Network) -> int:
    """Return the configuration's MTU in bytes, with "auto" resolved; 0 if it sets none."""
    if network.bridge is None:
        return 0
    if isinstance(network.bridge.mtu, int):
        return network.bridge.mtu
    with closing(Netlink()) as netlink:
        return smallest_mtu(netlink, network.bridge_link, network.bridge.uplinks)


def duplicate_gateways(node: Node) -> Iterator[Finding]:
    """Report gateway addresses that a second link of the host has."""
    own = _gateways(node)
    for link in node.links:
        for held in link.addresses:
            if own.get(held.ip, link.name) != link.name:
                yield error(
                    link.name, f"has {held.ip}, but that is the gateway address of {own[held.ip]}",
                    command("ip", "address", "delete", held.network, "dev", link.name),
                )  # fmt: skip


def _gateways(node: Node) -> dict[IPAddress, str]:
    """Return the gateway addresses and the link of each, including addresses that the link has lost."""
    networks = {network.name: network.gateway_link for network in node.networks if node.link(network.gateway_link)}
    found = [(gateway.ip, networks[entry.mark[0]]) for entry in node.alive.values() if entry.mark[0] in networks
             for gateway in entry.gateways]  # fmt: skip
    found += [(held.ip, link.name) for link in node.links if link.name in networks.values() for held in link.addresses]
    return {ip: name for ip, name in found if not ip.is_link_local()}


def duplicate_addresses(node: Node) -> Iterator[Finding]:
    """Report addresses of pods that another pod or host in reach has, too."""
    own = _gateways(node)
    remembered = {(entry.mark, address.ip) for entry in node.alive.values() for address in entry.addresses}
    holders: dict[tuple[object, IPAddress], list[tuple[Wire, Held]]] = defaultdict(list)
    for wire in node.wires:
        for held in wire.inside.addresses:
            if not held.ip.is_link_local():
                holders[_domain(node, wire), held.ip].append((wire, held))
            if held.is_duplicate:
                look = f"ip neighbour show {held.ip}  # shows the MAC of the other host"
                yield error(wire.name, f"does not use {held.ip}: another host has the address", look)
    for (_, ip), several in holders.items():
        # The pod that has the address in the cache keeps it.
        first, *others = sorted(several, key=lambda holder: (holder[0].mark, ip) not in remembered)
        owner = f"the address of {first[0].name}"
        if ip in own:
            owner, others = f"the gateway address of {own[ip]}", [first, *others]
        for wire, held in others:
            todo = wire.pod.inside("ip", "address", "delete", held.network, "dev", wire.inside.name)
            yield error(wire.name, f"has {ip}, but that is {owner}", todo)


def _domain(node: Node, wire: Wire) -> object:
    """Return a key for the scope in which an address must be unique.

    If the host is the gateway, that is everything that the host routes to; else a VLAN of a bridge.
    """
    network = node.network(wire.network)
    if network and network.is_gateway:
        return "routed"
    return (wire.port.master or wire.port.name, network.bridge.vlan if network and network.bridge else 0)


def rp_filter(node: Node) -> Iterator[Finding]:
    """Report strict rp_filter: the host accepts a pod's packets only on the link of its route to the pod."""
    for network in node.networks:
        link = node.link(network.gateway_link)
        if link and _is_strict(link):
            yield note(
                f"net/ipv4/conf/{link.name}/rp_filter", "is strict: packets from a pod on any other link are dropped",
                f"nothing, as long as all pods are behind {link.name}",
            )  # fmt: skip


def _is_strict(link: Link) -> bool:
    # The kernel uses the larger of the two values.
    return max(int(sysctl.read(f"ipv4/conf/{name}/rp_filter") or 0) for name in ("all", link.name)) == STRICT


def routes(node: Node) -> Iterator[Finding]:
    """Report routes to pods that use another link than the gateway's."""
    with IPRoute() as netlink:
        for network in node.networks:
            link = node.link(network.gateway_link)
            if link is None or not link.is_up:
                continue
            dropped = ", and rp_filter drops the pod's packets" if _is_strict(link) else ""
            for wire in node.wires_of(network):
                for held in wire.inside.addresses:
                    detour = _detour(netlink, node, link, held)
                    if detour:
                        other, prefix = detour
                        more = dropped if prefix.version == 4 else ""
                        yield error(
                            f"route to {held.ip}", f"uses {other}, but {wire.name} is behind {link.name}{more}",
                            command("ip", "route", "delete", prefix, "dev", other),
                        )  # fmt: skip


def _detour(netlink: IPRoute, node: Node, link: Link, held: Held) -> tuple[str, IPNetwork] | None:
    """Return the other link that the host's route to a pod's address uses, and that route's destination."""
    gateway = next((own.network for own in link.addresses if held.ip in own.network), None)
    if gateway is None or held.ip.is_link_local():
        return None
    try:
        (found,) = netlink.route("get", dst=str(held.ip), flags=RTM_F_FIB_MATCH)
    except NetlinkError:  # unreachable
        return None
    other = node.link_at(found.get_attr("RTA_OIF"))
    # A shorter prefix, such as the default route, is not the cause.
    if other is None or other in (link, node.link("lo")) or found["dst_len"] < gateway.prefixlen:
        return None
    return other.name, IPNetwork(f"{found.get_attr('RTA_DST')}/{found['dst_len']}")
