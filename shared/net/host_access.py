"""Let the host reach macvlan pods, and pods the host: nothing passes between a link and the macvlans on it.

Each master gets one macvlan on the host, of mode bridge, which all pods on it share. It has a route for each address of
a pod, with a metric that derives from the attachment: DEL removes no route of a later pod with the same address.

The link is in the LAN, too, and nobody there may learn its MAC for an address of the host: packets would arrive through
it, and none after its end. So it has no addresses and answers ARP requests of pods alone (arp_filter). It asks for no
pod, since an ARP request tells the host's address: permanent neighbour entries have the pods' MACs. In turn the pods
have entries for the master's IPv6 addresses, since a link answers neighbour solicitations for its own addresses only.
"""

from __future__ import annotations

import errno

from shared.cni.digests import digest
from shared.cni.ip import Address, Prefix
from shared.cni.result import Route
from shared.net import addresses, kinds_wire, links, placements, routes, rules_lock, sysctl, wait
from shared.net.messages import encode_structure
from shared.net.neighbours import Neighbours
from shared.net.netlink import Netlink, Request
from shared.net.placements import HOST_ACCESS
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

    from shared.cni.plugin import Part
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo

    Pod = tuple[Netns, Message]  # its namespace, and its link

KIND = "macvlan"
MODE_BRIDGE = 4  # MACVLAN_MODE_BRIDGE in linux/if_link.h
PREFIX = "hostmv-"  # of the link's name; the master's index follows


def give_noted(host: Netlink, undo: Undo, owner: Owner, pod: Pod, master: Message, own: Sequence[Address]) -> None:
    """Note the link, the pod's addresses and its MAC for `remove`, and `give` access to them. Undo removes it."""
    listed = [str(address) for address in own]
    placements.extend(
        owner, **{HOST_ACCESS: {"link": _name(master), "addresses": listed, "mac": pod[1]["IFLA_ADDRESS"]}}
    )
    undo.push("remove host access", lambda: remove(host, owner))
    give(host, owner, pod, master, own)


def give(host: Netlink, owner: Owner, pod: Pod, master: Message, own: Sequence[Address]) -> None:
    """Create the master's link on the host if it does not exist, its routes to the pod's addresses, and the neighbours.

    Return when packets can pass.
    """
    with rules_lock.hold(placements.DIRECTORY):
        link = _ensure_link(host, master, ipv6=_has_ipv6(own))
        had = addresses.of_link(host, master["index"])
        host.batch(_route_requests(link["index"], owner, own, had))
        Neighbours().write(link["index"], pod[1]["IFLA_ADDRESS"], own)
    wanted = _neighbours(had, own)
    if wanted:
        _inside(pod).write(pod[1]["index"], link["IFLA_ADDRESS"], wanted)
    if master["flags"] & IFF_LOWER_UP:
        wait.carrier(host, link["IFLA_IFNAME"])


def _has_ipv6(own: Sequence[Address]) -> bool:
    return any(address.version == 6 for address in own)


def _inside(pod: Pod) -> Neighbours:
    with pod[0]:
        return Neighbours()


def _neighbours(had: Sequence[Prefix], own: Sequence[Address]) -> list[Address]:
    """Return the global IPv6 addresses of a master, which a pod with such addresses needs the host's MAC for."""
    globals_ = (one.address for one in had if one.version == 6 and one.address not in addresses.LINK_LOCAL)
    return list(globals_) if _has_ipv6(own) else []


def _name(master: Message) -> str:
    return f"{PREFIX}{master['index']:x}"


def _alias(name: str) -> str:
    return f"pycni host access {name}"


def _ensure_link(host: Netlink, master: Message, *, ipv6: bool) -> Message:
    name = _name(master)
    link = links.get(host, name)
    if link is None:
        # the same for a link that is made again: pods have it in their neighbour entries
        mac = f"02{digest(master['IFLA_ADDRESS'].encode())[:10]}"
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
        sysctl.ensure(f"ipv4/conf/{name}/arp_filter", "1")
        sysctl.prefer(f"ipv6/conf/{name}/accept_dad", "0")
        message: Message = {"index": link["index"], "flags": IFF_UP, "change": IFF_UP, "IFLA_IFALIAS": _alias(name)}
        host.request(RTM_NEWLINK, message)
    return link


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
    access = placements.read(owner).get(HOST_ACCESS)
    name = access.get("link") if isinstance(access, dict) else None
    if not isinstance(name, str) or not name.startswith(PREFIX):
        return
    with rules_lock.hold(placements.DIRECTORY, only_removes=True):
        link = links.get(host, name)
        if link is None or links.kind(link) != KIND:
            return
        listed = access["addresses"] if isinstance(access, dict) else []
        own = [Address.parse(one) for one in listed]
        index, gone = link["index"], _routes(owner, own)
        host.batch([_remove_request(index, route.dst, _metric(owner)) for route in gone])
        if _has_routes(host, index):
            Neighbours().remove(index, access["mac"] if isinstance(access, dict) else "", own)
        else:
            links.delete_index(host, index)


def _has_routes(host: Netlink, index: int) -> bool:
    """Return True if another pod's route goes through the link."""

    def take(stream: Iterator[Message]) -> bool:
        return any(one.get("RTA_OIF") == index and one["proto"] == RTPROT_BOOT for one in stream)

    like = {"type": RTN_UNICAST, "RTA_OIF": index}
    return any(host.scan(RTM_GETROUTE, {"family": family, **like}, take) for family in addresses.FAMILIES.values())


def find_parts(host: Netlink, owner: Owner, pod: Pod, own: Sequence[Address]) -> list[Part]:
    """Return the part of CHECK that compares the access with the state that `give` left; none without a master."""
    master = links.by_index(host, pod[1].get("IFLA_LINK", 0))
    if master is None:
        return []
    return [(lambda: _problems(host, owner, pod, master, own), lambda: give(host, owner, pod, master, own))]


def _problems(host: Netlink, owner: Owner, pod: Pod, master: Message, own: Sequence[Address]) -> list[str]:
    """Return a text for each difference from the state that `give` left."""
    name = _name(master)
    link = links.get(host, name)
    if link is None:
        return [f"link {name}, which lets the host reach pods on {master['IFLA_IFNAME']}, is missing"]
    index, mac = link["index"], pod[1]["IFLA_ADDRESS"]
    found = [] if link["flags"] & IFF_UP else [f"link {name} is down"]
    wanted = {(route.dst, None) for route in _routes(owner, own)}
    lost = wanted - routes.found(host, index, wanted)  # type: ignore[arg-type]
    found += [f"route to {network} is missing on {name}" for network in sorted(str(one) for one, _ in lost)]
    known = Neighbours().with_mac(index, mac)
    found += [f"neighbour {one} with MAC {mac} is missing on {name}" for one in own if one not in known]
    ours, mac = pod[1]["IFLA_IFNAME"], link["IFLA_ADDRESS"]
    known = _inside(pod).with_mac(pod[1]["index"], mac)
    of_host = _neighbours(addresses.of_link(host, master["index"]), own)
    return found + [f"neighbour {one} with MAC {mac} is missing on {ours}" for one in of_host if one not in known]
