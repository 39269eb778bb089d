"""Let the host reach macvlan pods, and pods the host: nothing passes between a link and the macvlans on it.

Each master gets one macvlan on the host, of mode bridge, which all pods on it share. It has a route for each address of
a pod, with a metric that derives from the attachment: DEL removes no route of a later pod with the same address. It has
the master's global IPv6 addresses as well, since a link answers neighbour solicitations for its own addresses only.
"""

from __future__ import annotations

import errno
import posix

from shared.cni.digests import digest
from shared.cni.ip import Address, Prefix
from shared.cni.result import Route
from shared.net import addresses, kinds_wire, links, placements, routes, rules_lock, sysctl, wait
from shared.net.messages import encode_structure
from shared.net.netlink import Netlink, Request
from shared.net.wire import (
    IFF_LOWER_UP,
    IFF_UP,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RT_SCOPE_NOWHERE,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWLINK,
    RTN_UNICAST,
    RTPROT_BOOT,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo

KIND = "macvlan"
KEY = "hostAccess"  # of a note: the link, and the pod's addresses
MODE_BRIDGE = 4  # MACVLAN_MODE_BRIDGE in linux/if_link.h
PREFIX = "hostmv-"  # of the link's name; the master's index follows


def give_noted(
    host: Netlink, undo: Undo, owner: Owner, pod_netns: Netns, master: Message, own: Sequence[Address]
) -> None:
    """Note the link and the pod's addresses for `remove`, and `give` access to them. Undo removes it."""
    access = {"link": _name(master), "addresses": [str(address) for address in own]}
    placements.write(owner, KIND, pod_netns, **{KEY: access})
    undo.push("remove host access", lambda: remove(host, owner))
    give(host, owner, master, own)


def give(host: Netlink, owner: Owner, master: Message, own: Sequence[Address]) -> None:
    """Create the master's link on the host if it does not exist, and its routes to the pod's addresses.

    Return when packets can pass.
    """
    has_ipv6 = any(address.version == 6 for address in own)
    with rules_lock.hold(placements.DIRECTORY):
        link = _ensure_link(host, master, ipv6=has_ipv6)
        index = link["index"]
        had = addresses.of_link(host, master["index"])
        copies = _copies(had) if has_ipv6 else []
        taken = addresses.found(host, index, set(copies))
        requests = [addresses.add_request(index, one, dad=False) for one in copies if one not in taken]
        host.batch([*requests, *_route_requests(index, owner, own, had)])
    if master["flags"] & IFF_LOWER_UP:
        wait.carrier(host, link["IFLA_IFNAME"])
    if has_ipv6:
        wait.link_local_settled(host, index)
        wait.addresses_local(host, index, [one.address for one in copies])


def _name(master: Message) -> str:
    return f"{PREFIX}{master['index']:x}"


def _alias(name: str) -> str:
    return f"pycni host access {name}"


def _ensure_link(host: Netlink, master: Message, *, ipv6: bool) -> Message:
    name = _name(master)
    link = links.get(host, name)
    if link is None:
        mac = f"02{posix.urandom(5).hex()}"
        data = encode_structure("info_data/macvlan", {"IFLA_MACVLAN_MODE": MODE_BRIDGE}, kinds_wire.STRUCTURES)
        host.request(
            RTM_NEWLINK,
            {"IFLA_IFNAME": name, "IFLA_LINK": master["index"], "IFLA_ADDRESS": mac,
             "IFLA_LINKINFO": {"IFLA_INFO_KIND": KIND, "IFLA_INFO_DATA": data}},
            NLM_F_CREATE | NLM_F_EXCL,
        )  # fmt: skip
        link = links.require(host, name)
    if ipv6:
        sysctl.ensure(f"ipv6/conf/{name}/disable_ipv6", "0")
    if not link["flags"] & IFF_UP:
        sysctl.refuse_advertisements(name)
        sysctl.prefer(f"ipv6/conf/{name}/accept_dad", "0")
        message: Message = {"index": link["index"], "flags": IFF_UP, "change": IFF_UP, "IFLA_IFALIAS": _alias(name)}
        host.request(RTM_NEWLINK, message)
    return link


def _copies(had: Sequence[Prefix]) -> list[Prefix]:
    """Return the global IPv6 addresses of a master, each as a network of its own."""
    return [
        Prefix(one.address, one.address.bits)
        for one in had
        if one.version == 6 and one.address not in addresses.LINK_LOCAL
    ]


def _metric(owner: Owner) -> int:
    return int(digest(f"{owner.network}/{owner.container_id}/{owner.ifname}".encode())[:8], 16) or 1


def _routes(owner: Owner, own: Sequence[Address]) -> list[Route]:
    return [Route(Prefix(address, address.bits), None, {"priority": _metric(owner)}) for address in own]


def _route_requests(index: int, owner: Owner, own: Sequence[Address], had: Sequence[Prefix]) -> list[Request]:
    """Return requests for the pod's routes, which replace those of an earlier pod with the address.

    `had` are the master's addresses: one of them is the source of the host's packets.
    """
    requests = []
    for route in _routes(owner, own):
        requests.append(_remove_request(index, route.dst))
        request = routes.add_request(index, route, None)
        source = _source(route.dst.address, had)
        if source is not None:
            request.message["RTA_PREFSRC"] = str(source)
        requests.append(request)
    return requests


def _source(address: Address, had: Sequence[Prefix]) -> Address | None:
    """Return the master's address in the network of `address`, or else its first one of the family; None without."""
    family = [one for one in had if one.version == address.version and one.address not in addresses.LINK_LOCAL]
    near = [one for one in family if address in one]
    return next((one.address for one in (*near, *family)), None)


def _remove_request(index: int, dst: Prefix, metric: int = 0) -> Request:
    body: Message = {
        "family": addresses.FAMILIES[dst.version], "dst_len": dst.length, "table": routes.RT_TABLE_MAIN,
        "scope": RT_SCOPE_NOWHERE, "RTA_DST": str(dst.first), "RTA_OIF": index,
    }  # fmt: skip
    if metric:
        body["RTA_PRIORITY"] = metric
    return Request(RTM_DELROUTE, body, tolerate=(errno.ESRCH,))


def remove(host: Netlink, owner: Owner) -> None:
    """Remove the routes in the attachment's note, and the link with the last ones."""
    access = placements.read(owner).get(KEY)
    name = access.get("link") if isinstance(access, dict) else None
    if not isinstance(name, str) or not name.startswith(PREFIX):
        return
    with rules_lock.hold(placements.DIRECTORY, only_removes=True):
        link = links.get(host, name)
        if link is None or links.kind(link) != KIND:
            return
        listed = access["addresses"] if isinstance(access, dict) else []
        own = _routes(owner, [Address.parse(one) for one in listed])
        host.batch([_remove_request(link["index"], route.dst, _metric(owner)) for route in own])
        if not _has_routes(host, link["index"]):
            links.delete_index(host, link["index"])


def _has_routes(host: Netlink, index: int) -> bool:
    """Return True if another pod's route goes through the link."""

    def take(stream: Iterator[Message]) -> bool:
        return any(one.get("RTA_OIF") == index and one["proto"] == RTPROT_BOOT for one in stream)

    like = {"type": RTN_UNICAST, "RTA_OIF": index}
    return any(host.scan(RTM_GETROUTE, {"family": family, **like}, take) for family in addresses.FAMILIES.values())


def problems(host: Netlink, owner: Owner, master: Message, own: Sequence[Address]) -> list[str]:
    """Return a text for each difference from the state that `give` left."""
    name = _name(master)
    link = links.get(host, name)
    if link is None:
        return [f"link {name}, which lets the host reach pods on {master['IFLA_IFNAME']}, is missing"]
    found = [] if link["flags"] & IFF_UP else [f"link {name} is down"]
    has_ipv6 = any(address.version == 6 for address in own)
    copies = _copies(addresses.of_link(host, master["index"])) if has_ipv6 else []
    have = addresses.found(host, link["index"], set(copies))
    found += [f"address {one.address} is missing on {name}" for one in copies if one not in have]
    wanted = {(route.dst, None) for route in _routes(owner, own)}
    lost = wanted - routes.found(host, link["index"], wanted)  # type: ignore[arg-type]
    return found + [f"route to {network} is missing on {name}" for network in sorted(str(one) for one, _ in lost)]
