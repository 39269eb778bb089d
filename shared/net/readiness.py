"""STATUS's questions about the node: why a bridge cannot take one more pod."""

from __future__ import annotations

import posix

from shared.net import addresses, bridges, links, netns, sysctl
from shared.net.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.ip import Prefix
    from shared.net.netlink import Message

    Choices = list[list[Prefix]]  # for each address of a pod, the gateways that it may get

LEAST_IPV6_MTU = 1280  # bytes; IPV6_MIN_MTU in linux/ipv6.h


def room(netlink: Netlink, bridge: Message, needed: int) -> list[str]:
    """Return a problem if the bridge cannot have `needed` ports more."""
    free = bridges.MOST_PORTS - bridges.scan_ports(netlink, bridge["index"], lambda ports: sum(1 for _ in ports))
    return [bridges.full(bridge["IFLA_IFNAME"])] if free < needed else []


def require_vlan_filtering(bridge: str) -> None:
    """Raise UnsupportedField if the kernel's bridges cannot filter VLANs, as tried out in a throw-away namespace."""
    with netns.create_temporary():
        bridges.create(Netlink(), bridge, 0, vlan_filtering=True)


def require_learning_limit(bridge: Message | None, name: str) -> None:
    """Raise UnsupportedField if the kernel's bridges have no limit of learned MACs; with None, make one and look."""
    if bridge is None:
        with netns.create_temporary():
            netlink = Netlink()
            bridges.create(netlink, name, 0)
            bridge = links.require(netlink, name)
    bridges.learning_limit(bridge)


def gateways(netlink: Netlink, link: Message | None, choices: Choices) -> list[str]:
    """Return a problem for each address whose every gateway conflicts with an address of the link.

    A pod's address can come from any range of its set. If one of them has a gateway that the link can have, then an ADD
    may succeed. An address with one gateway only takes a place on the link, which counts for the addresses after it.
    """
    name = link["IFLA_IFNAME"] if link else "the bridge"
    have = addresses.of_link(netlink, link["index"]) if link else []
    found = []
    for choice in choices:
        conflicts = [bridges.conflicting(have, gateway) for gateway in choice]
        if choice and all(conflicts):
            found.append(bridges.conflict(name, choice[0], conflicts[0][0]))
        elif len(set(choice)) == 1:
            have.append(choice[0])
    return found


def ipv6(mtu: int) -> list[str]:
    """Return why pods here can have no IPv6 addresses, with that MTU in bytes, 0: the kernel's default."""
    if sysctl.read("ipv6/conf/all/disable_ipv6") is None:
        found = "the network has IPv6 ranges, but IPv6 is disabled in this host's kernel: it has no net.ipv6"
        return [f"{found}; boot without ipv6.disable=1, or leave the IPv6 ranges out"]
    if 0 < mtu < LEAST_IPV6_MTU:
        found = f"the network has IPv6 ranges, but its MTU is {mtu} bytes and IPv6 needs {LEAST_IPV6_MTU}"
        return [f'{found}; raise "mtu", or leave the IPv6 ranges out']
    return []


def ipv6_gateway(bridge: Message | None) -> list[str]:
    """Return why the bridge, None if it is still to be made, can have no IPv6 address."""
    if bridge is None:
        return []
    if bridge["IFLA_MTU"] < LEAST_IPV6_MTU:
        name, mtu = bridge["IFLA_IFNAME"], bridge["IFLA_MTU"]
        return [
            f"bridge {name} is to have an IPv6 gateway address, but its MTU is {mtu} and IPv6 needs {LEAST_IPV6_MTU}"
        ]
    return [problem] if (problem := bridges.refuses_ipv6(bridge)) else []


def has_ipv6(choices: Choices) -> bool:
    """Return True if a pod gets an IPv6 address."""
    return any(gateway.version == 6 for choice in choices for gateway in choice)


def forwarding(choices: Choices) -> list[str]:
    """Return a problem for each IP version for which this host does not forward and cannot be made to."""
    found = []
    for version in sorted({gateway.version for choice in choices for gateway in choice}):
        path = sysctl.FORWARDING[version]
        now = sysctl.read(path)
        if now is None:
            found.append(f"the pods' gateway must forward, but the sysctl net/{path} cannot be found")
        elif now == "0" and not posix.access(sysctl.ROOT + path, posix.W_OK):
            found.append(f"the pods' gateway must forward, but net/{path} is 0 and cannot be written here")
    return found
