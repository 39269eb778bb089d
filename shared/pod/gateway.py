"""Make the host the only neighbour of a pod: its gateways, and the pod's routes through them."""

from __future__ import annotations

import errno

from shared.cni.ip import Prefix
from shared.cni.result import Route
from shared.net import addresses, routes
from shared.net.netlink import Netlink, Request
from shared.net.wire import IFF_UP, NLM_F_REPLACE, RT_SCOPE_HOST, RT_SCOPE_NOWHERE, RTM_DELROUTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.cni.ip import Address
    from shared.cni.result import IP
    from shared.net.netlink import Message
    from shared.net.netns import Netns


def _host_prefix(address: Address) -> Prefix:
    """Return the network of one address."""
    return Prefix(address, address.bits)


def addresses_of(ips: Iterable[IP]) -> list[Prefix]:
    """Return the gateways of the pod's addresses, each once, as networks of one address."""
    return list(dict.fromkeys(_host_prefix(ip.gateway) for ip in ips if ip.gateway))


def end_requests(index: int, ips: Iterable[IP]) -> list[Request]:
    """Return the requests that give the host's end the gateways, and the host a route to each of the pod's addresses.

    The end must come up before them.
    """
    existing = (errno.EEXIST,)  # at a repair
    given = [addresses.add_request(index, one, dad=False, tolerate=existing) for one in addresses_of(ips)]
    for network, _ in sorted(_to_pod(ips), key=str):
        request = routes.add_request(index, Route(network, None, {"scope": RT_SCOPE_HOST}), None)
        request.flags |= NLM_F_REPLACE  # a pod that nobody deleted may have had the address: its route must not win
        given.append(request)
    return given


def end_problems(host: Netlink, port: Message, ips: Iterable[IP]) -> list[str]:
    """Return a text for each difference of the host's end from the state that `end_requests` left."""
    index, name = port["index"], port["IFLA_IFNAME"]
    problems = [] if port["flags"] & IFF_UP else [f"link {name} is down"]
    given = addresses_of(ips)
    have = addresses.found(host, index, set(given))
    problems += [f"gateway address {one.address} is missing on {name}" for one in given if one not in have]
    lost = _to_pod(ips) - routes.found(host, index, _to_pod(ips))
    return problems + [f"route to {network} is missing on {name}" for network in sorted(str(one) for one, _ in lost)]


def _to_pod(ips: Iterable[IP]) -> set[tuple[Prefix, Address | None]]:
    return {(_host_prefix(ip.address.address), None) for ip in ips}


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
        request = routes.add_request(index, Route(network), gateway)
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
            found.setdefault((_host_prefix(ip.gateway), None), ip.address.address)
            if ip.address.length < ip.address.address.bits:
                found.setdefault((ip.address.network, ip.gateway), ip.address.address)
    return found
