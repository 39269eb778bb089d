"""Find the reasons why a bridge cannot take one more pod: for STATUS, and for an ADD of IPv6."""

from __future__ import annotations

import posix

from shared.cni.errors import CniError, InternalError
from shared.cni.plugin import failure
from shared.net import addresses, bridges, gateways, learning, links, netns, sysctl
from shared.net.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.ip import Prefix
    from shared.net.netlink import Message

    Choices = list[list[Prefix]]  # for each address of a pod, its possible gateways: delegate.networks


def problems(
    host: Netlink, name: str, networks: Callable[[], Choices], *, uplinks: list[str], vlan_link: str, mtu: int,
    filters_vlans: bool, limits_learning: bool, is_gateway: bool, force: bool, several: bool,
) -> list[str]:  # fmt: skip
    """Return all reasons why the bridge of that name, which may not exist yet, cannot take one more pod.

    `networks` asks the IPAM plugin (delegate.networks). `vlan_link` is the VLAN gateway port, empty for none. `mtu` is
    in bytes, 0 for the kernel's default. If `force`, the gateway addresses may replace others. If `several`,
    they may be of several networks.
    """
    bridge = links.get(host, name)
    if bridge is not None and links.kind(bridge) != "bridge":
        return [f"link {name} exists but is not a bridge"]
    joining: list[Message] = []
    found = failure(lambda: joining.extend(_uplinks(host, name, uplinks)))
    if filters_vlans and not (bridge and bridges.filters_vlans(bridge)):
        found += failure(lambda: require_vlan_filtering(name))
    if limits_learning:
        found += failure(lambda: require_learning_limit(bridge, name))
    try:
        choices = networks()
    except CniError as error:
        return [*found, str(error)]
    gateway = links.get(host, vlan_link) if vlan_link else bridge
    if bridge is not None:
        needs_port = bool(vlan_link and choices and gateway is None)
        found += _port_problems(host, bridge, joining, gateway, needs_port=needs_port)
    if has_ipv6(choices):
        found += ipv6(mtu)
        found += ipv6_gateway(bridge) if is_gateway and not vlan_link else []
    if is_gateway:
        found += [] if force else gateway_conflicts(host, gateway, choices, several=several)
        found += forwarding(choices)
    return found


def _uplinks(host: Netlink, bridge: str, names: list[str]) -> list[Message]:
    if not names:
        return []
    from shared.net import uplinks

    return uplinks.require(host, bridge, names)


def _port_problems(
    host: Netlink, bridge: Message, uplinks: list[Message], gateway: Message | None, *, needs_port: bool
) -> list[str]:
    """Return why the bridge cannot have the ports of a pod, of the uplinks, and in a VLAN of the gateway."""
    joining = [link for link in uplinks if link.get("IFLA_MASTER") != bridge["index"]]
    found = room(host, bridge, 1 + len(joining) + needs_port)
    if gateway and gateway is not bridge:
        from shared.net import vlans

        found += failure(lambda: vlans.require_gateway_port(host, bridge, gateway))
    return found


def room(netlink: Netlink, bridge: Message, needed: int) -> list[str]:
    """Return a text if the bridge has no room for `needed` more ports."""
    free = bridges.MOST_PORTS - bridges.scan_ports(netlink, bridge["index"], lambda ports: sum(1 for _ in ports))
    return [bridges.full(bridge["IFLA_IFNAME"])] if free < needed else []


def require_vlan_filtering(bridge: str) -> None:
    """Raise UnsupportedField if the kernel's bridges cannot filter VLANs. Try it in a throw-away namespace."""
    with netns.create_temporary():
        bridges.create(Netlink(), bridge, 0, vlan_filtering=True)


def require_learning_limit(bridge: Message | None, name: str) -> None:
    """Raise UnsupportedField if the kernel's bridges have no limit of learned MACs.

    If there is no bridge yet (None), create one in a throw-away namespace and look there.
    """
    if bridge is None:
        with netns.create_temporary():
            netlink = Netlink()
            bridges.create(netlink, name, 0)
            bridge = links.require(netlink, name)
    learning.limit_of(bridge)


def gateway_conflicts(netlink: Netlink, link: Message | None, choices: Choices, *, several: bool) -> list[str]:
    """Return a text for each address of a pod if all its possible gateways conflict with addresses of the link.

    A pod's address can come from any range of its set: an ADD may succeed if the link can have the gateway of one. An
    address with only one possible gateway puts that on the link, where it counts for the addresses after it.
    """
    name = link["IFLA_IFNAME"] if link else "the bridge"
    have = addresses.of_link(netlink, link["index"]) if link else []
    found = []
    for choice in choices:
        conflicts = [gateways.conflicting(have, gateway, several=several) for gateway in choice]
        if choice and all(conflicts):
            found.append(gateways.describe_conflict(name, choice[0], conflicts[0][0]))
        elif len(set(choice)) == 1:
            have.append(choice[0])
    return found


def ipv6(mtu: int) -> list[str]:
    """Return why pods here can have no IPv6 addresses; `mtu` in bytes, 0: the kernel's default."""
    if sysctl.read("ipv6/conf/all/disable_ipv6") is None:
        found = "the network has IPv6 ranges, but IPv6 is disabled in this host's kernel: it has no net.ipv6"
        return [f"{found}; boot without ipv6.disable=1, or leave the IPv6 ranges out"]
    if 0 < mtu < bridges.LEAST_IPV6_MTU:
        found = f"the network has IPv6 ranges, but its MTU is {mtu} bytes and IPv6 needs {bridges.LEAST_IPV6_MTU}"
        return [f'{found}; raise "mtu", or leave the IPv6 ranges out']
    return []


def ipv6_gateway(bridge: Message | None) -> list[str]:
    """Return why the bridge can have no IPv6 address. None is a bridge that does not exist yet, and can."""
    if bridge is None:
        return []
    if bridge["IFLA_MTU"] < bridges.LEAST_IPV6_MTU:
        name, mtu = bridge["IFLA_IFNAME"], bridge["IFLA_MTU"]
        least = bridges.LEAST_IPV6_MTU
        return [f"bridge {name} is to have an IPv6 gateway address, but its MTU is {mtu} and IPv6 needs {least}"]
    return [problem] if (problem := bridges.refuses_ipv6(bridge)) else []


def require_ipv6(mtu: int, bridge: Message | None) -> None:
    """Raise InternalError if pods here, or the bridge (None: not asked), can have no IPv6 addresses."""
    problems = [*ipv6(mtu), *ipv6_gateway(bridge)]
    if problems:
        raise InternalError(problems[0], "; ".join(problems[1:]))


def has_ipv6(choices: Choices) -> bool:
    """Return True if a pod gets an IPv6 address."""
    return any(gateway.version == 6 for choice in choices for gateway in choice)


def forwarding(choices: Choices) -> list[str]:
    """Return a text for each family that this host does not forward and cannot be made to."""
    found = []
    for version in sorted({gateway.version for choice in choices for gateway in choice}):
        path = sysctl.FORWARDING[version]
        now = sysctl.read(path)
        if now is None:
            found.append(f"the pods' gateway must forward, but the sysctl net/{path} cannot be found")
        elif now == "0" and not posix.access(sysctl.ROOT + path, posix.W_OK):
            found.append(f"the pods' gateway must forward, but net/{path} is 0 and cannot be written here")
    return found
