"""Make host links ports of a bridge, so that its pods are in the network segment of these uplinks."""

from __future__ import annotations

from shared.cni.config import invalid
from shared.cni.errors import InternalError
from shared.net import addresses, bridges, links
from shared.net.netlink import NetlinkError, Request
from shared.net.owner import is_pod_link
from shared.net.wire import IFF_LOOPBACK, IFF_UP, RTM_GETLINK, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.net.netlink import Message, Netlink
    from shared.undo import Undo

ARPHRD_ETHER = 1  # linux/if_arp.h
EXCLUSIVE_KINDS = ("macvlan", "macvtap", "ipvlan", "ipvtap")  # they consume all packets of the link below them


def require(netlink: Netlink, bridge: str, names: list[str]) -> list[Message]:
    """Return the uplinks. Raise InvalidConfig if one is missing or cannot be a port of the bridge."""
    found = []
    for place, name in enumerate(names):
        link = links.get(netlink, name)
        reason = "is not a link of this host" if link is None else _objection(netlink, link, bridge)
        if link is None or reason:
            raise invalid(f"uplinks[{place}]", name, reason)
        found.append(link)
    return found


def _objection(netlink: Netlink, link: Message, bridge: str) -> str:
    """Return the reason why the link cannot be an uplink, empty if it can or is one."""
    if links.kind(link) == "bridge":
        return "is a bridge, which cannot be a port of another one"
    if is_pod_link(link["IFLA_IFNAME"], link.get("IFLA_IFALIAS", "")):
        return "belongs to a pod"
    if link["flags"] & IFF_LOOPBACK:
        return "is the loopback link"
    if link["ifi_type"] != ARPHRD_ETHER:
        return "is not an Ethernet link"
    # Compare names: a concurrent first ADD may create the bridge in between.
    master = links.by_index(netlink, link["IFLA_MASTER"]) if "IFLA_MASTER" in link else None
    if master is None:
        return _other_use(netlink, link)
    name = master["IFLA_IFNAME"]
    return "" if name == bridge else f"is a port of {name} already"


def _other_use(netlink: Netlink, link: Message) -> str:
    """Return the use of a link that would end if it became a port, empty if there is none."""
    own = [one for one in addresses.of_link(netlink, link["index"]) if one.address not in addresses.LINK_LOCAL]
    if own:
        return f"has the address {own[0]}, which would become unreachable; move it to the bridge"

    def above(stream: Iterator[Message]) -> str:
        for other in stream:
            is_above = other.get("IFLA_LINK") == link["index"] and "IFLA_LINK_NETNSID" not in other
            if is_above and (kind := links.kind(other)) in EXCLUSIVE_KINDS:
                return f"is the master of {other['IFLA_IFNAME']}, of kind {kind}, and cannot be a port as well"
        return ""

    return netlink.scan(RTM_GETLINK, None, above)


def join(netlink: Netlink, undo: Undo, bridge: Message, uplinks: list[Message], own: tuple[int, ...]) -> None:
    """Make the uplinks ports of the bridge, and bring them up. `own` are the call's ports, the uplinks included.

    The pod's port must have joined the bridge before: a concurrent call that fails sees it, and keeps the uplinks. Undo
    removes only uplinks that this call added.
    """
    for known in uplinks:
        link = links.by_index(netlink, known["index"])
        if link is None:
            raise links.NoLink(f"uplink {known['IFLA_IFNAME']} was removed while it joined {bridge['IFLA_IFNAME']}")
        is_port, is_up = link.get("IFLA_MASTER") == bridge["index"], bool(link["flags"] & IFF_UP)
        if is_port and is_up:
            continue
        name, index = link["IFLA_IFNAME"], link["index"]
        requests = (
            [] if is_port else bridges.join_requests(index, bridge["index"], alias="", hairpin=False, isolated=False)
        )
        requests += [] if is_up else [links.flags_request(index, IFF_UP, IFF_UP)]
        undo.push(
            f"set uplink {name} as it was",
            lambda link=link: _take_out(netlink, bridge["index"], link, own),  # type: ignore[misc]
        )
        try:
            bridges.add_port(netlink, bridge, requests)
        except NetlinkError as error:
            raise InternalError(
                f'"uplinks": link {name} cannot be a port of {bridge["IFLA_IFNAME"]}', str(error)
            ) from None


def _take_out(netlink: Netlink, bridge: int, before: Message, own: tuple[int, ...]) -> None:
    """Set an uplink as it was before this call, unless another pod's port uses the bridge."""
    index, master = before["index"], before.get("IFLA_MASTER", 0)
    link = links.by_index(netlink, index)
    if link is None or link.get("IFLA_MASTER", 0) not in (0, bridge) or bridges.has_other_ports(netlink, bridge, *own):
        return
    requests = (
        [] if link.get("IFLA_MASTER", 0) == master else [Request(RTM_NEWLINK, {"index": index, "IFLA_MASTER": 0})]
    )
    netlink.batch([*requests, links.flags_request(index, before["flags"], IFF_UP)])
    if bridges.has_other_ports(netlink, bridge, *own):
        # The port of another call joined in between, and that call found the uplink in the bridge: put it back.
        joining = bridges.join_requests(index, bridge, alias="", hairpin=False, isolated=False)
        netlink.batch([*joining, links.flags_request(index, IFF_UP, IFF_UP)])


def problems(netlink: Netlink, bridge: Message, names: list[str]) -> list[str]:
    """Return CHECK's problems of the uplinks."""
    found = []
    for name in names:
        link = links.get(netlink, name)
        if link is None:
            found.append(f"uplink {name} is missing from this host")
            continue
        if link.get("IFLA_MASTER") != bridge["index"]:
            found.append(f"uplink {name} is not a port of {bridge['IFLA_IFNAME']}")
        if not link["flags"] & IFF_UP:
            found.append(f"uplink {name} is down")
    return found
