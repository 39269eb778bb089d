"""Make the host the gateway of a pod: forwarding on the host, routes in the pod that know no neighbour but the host."""

from __future__ import annotations

import errno

from shared.cni.ip import Prefix
from shared.cni.result import Route
from shared.net import addresses, routes, sysctl
from shared.net.netlink import Netlink, Request
from shared.net.wire import RT_SCOPE_NOWHERE, RTM_DELROUTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.cni.ip import Address
    from shared.cni.result import IP
    from shared.net.netlink import Message
    from shared.net.netns import Netns

OFF = ("0", None)


def host_prefix(address: Address) -> Prefix:
    """Return the network of one address."""
    return Prefix(address, address.bits)


def addresses_of(ips: Iterable[IP]) -> list[Prefix]:
    """Return the gateways of the pod's addresses, each once, as networks of one address."""
    return list(dict.fromkeys(host_prefix(ip.gateway) for ip in ips if ip.gateway))


def forward(host: Netlink, ips: Iterable[IP]) -> None:
    """Let the host forward packets of the addresses' families. Raise InternalError if it cannot be made to."""
    for version in {ip.address.version for ip in ips}:
        if sysctl.read(sysctl.FORWARDING[version]) != "1":
            from shared.net import forwarding

            forwarding.turn_on(host, version)


def forwarding_problems(ips: Iterable[IP]) -> list[str]:
    """Return a text for each family of the addresses that the host does not forward."""
    now = {path: sysctl.read(path) for path in sorted(sysctl.FORWARDING[ip.address.version] for ip in ips)}
    return [f"the host does not forward: sysctl net/{path} is {value}" for path, value in now.items() if value in OFF]


def replace_routes(inside: Netlink, link: Message, ips: Iterable[IP]) -> None:
    """Replace the kernel's routes to the networks of the pod's addresses with routes through the gateways.

    To be called in the pod's namespace, when the link is up and has the addresses.
    """
    index, requests = link["index"], []
    for (network, gateway), source in _wanted(ips).items():
        if gateway:
            body = {
                "family": addresses.FAMILIES[network.version], "dst_len": network.length,
                "table": routes.RT_TABLE_MAIN, "scope": RT_SCOPE_NOWHERE,  # any scope
                "RTA_DST": str(network.first), "RTA_OIF": index,
            }  # fmt: skip
            requests.append(Request(RTM_DELROUTE, body, tolerate=(errno.ESRCH,)))
        request = routes.add(index, Route(network), gateway)
        request.message["RTA_PREFSRC"] = str(source)
        requests.append(request)
    inside.batch(requests)


def route_problems(pod_netns: Netns, link: Message, ips: Iterable[IP]) -> list[str]:
    """Return a text for each route of `replace_routes` that the pod lacks."""
    wanted = set(_wanted(ips))
    with pod_netns:
        lost = wanted - routes.found(Netlink(), link["index"], wanted)
    texts = (f"{network} via {gateway}" if gateway else str(network) for network, gateway in lost)
    return [f"route to {text} is missing on {link['IFLA_IFNAME']} in {pod_netns.path}" for text in sorted(texts)]


def _wanted(ips: Iterable[IP]) -> dict[tuple[Prefix, Address | None], Address]:
    """Return the pod's routes, each with the source address of its packets: to each gateway, then to its network."""
    found: dict[tuple[Prefix, Address | None], Address] = {}
    for ip in ips:
        if ip.gateway:
            found.setdefault((host_prefix(ip.gateway), None), ip.address.address)
            if ip.address.length < ip.address.address.bits:
                found.setdefault((ip.address.network, ip.gateway), ip.address.address)
    return found
