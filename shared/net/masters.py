"""Find the link that a pod's link is made on (its master), and the reasons why it cannot be one."""

from __future__ import annotations

from shared.cni.config import invalid
from shared.cni.errors import InternalError
from shared.net import links
from shared.net.addresses import FAMILIES
from shared.net.messages import next_hops
from shared.net.routes import RT_TABLE_MAIN
from shared.net.wire import IFF_LOOPBACK, IFF_LOWER_UP, IFF_UP, RTM_GETLINK, RTM_GETROUTE, RTN_UNICAST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.cni.result import Result
    from shared.net.netlink import Message, Netlink

ARPHRD_ETHER = 1  # linux/if_arp.h
TAKERS = {"macvlan": "macvlan", "macvtap": "macvlan", "ipvlan": "ipvlan", "ipvtap": "ipvlan"}  # kinds, and their driver


def find(netlink: Netlink, wanted: str, previous: Result | None, *, in_pod: bool = False) -> Message:
    """Return the master: the link that the key names, or else one of prevResult, or else that of the default route.

    `netlink` is of the namespace that the master is in, the pod's if `in_pod`. Raises InvalidConfig if there is none.
    """
    name = wanted or _of_result(previous, in_pod=in_pod)
    where = "the pod" if in_pod else "this host"
    if name:
        link = links.get(netlink, name)
        if link is None:
            source = "is not" if wanted else "is in prevResult, but not"
            raise invalid("master", name, f"{source} a link of {where}")
        return link
    index = _of_default_route(netlink)
    link = links.by_index(netlink, index) if index else None
    if link is None:
        raise invalid("master", None, f"is required: {where} has no default route, whose link would be the master")
    return link


def real(netlink: Netlink, master: Message, kind: str) -> Message:
    """Return the link that the kernel makes a link of a kind on: for a macvlan on a macvlan, that below the master.

    The same holds for ipvlan. Return the master if the link below it is in another network namespace.
    """
    driver = TAKERS.get(kind)
    if driver is None or TAKERS.get(links.kind(master)) != driver or "IFLA_LINK_NETNSID" in master:
        return master
    return links.by_index(netlink, master.get("IFLA_LINK", 0)) or master


def _of_result(previous: Result | None, *, in_pod: bool) -> str:
    """Return the first interface of the result that is in the pod, or that is on the host; empty if there is none."""
    named = (one.name for one in previous.interfaces if bool(one.sandbox) == in_pod) if previous else iter(())
    return next(named, "")


def _of_default_route(netlink: Netlink) -> int:
    """Return the index of the link of the default route with the lowest metric, of either family; 0 without one.

    A route with several next hops counts with its first one.
    """

    def best(stream: Iterator[Message]) -> tuple[int, int]:
        found = []
        for route in stream:
            table = route.get("RTA_TABLE", route["table"])
            if route["dst_len"] or route["type"] != RTN_UNICAST or table != RT_TABLE_MAIN:
                continue
            hops = next_hops(route["RTA_MULTIPATH"]) if "RTA_MULTIPATH" in route else iter((route,))
            index = next((hop["RTA_OIF"] for hop in hops if hop.get("RTA_OIF")), 0)
            if index:
                found.append((route.get("RTA_PRIORITY", 0), index))
        return min(found, key=lambda one: one[0], default=(1 << 32, 0))

    bests = [netlink.scan(RTM_GETROUTE, {"family": family, "type": RTN_UNICAST}, best) for family in FAMILIES.values()]
    return min(bests, key=lambda one: one[0])[1]


def require_mtu(master: Message, mtu: int) -> None:
    """Raise InvalidConfig if `mtu`, in bytes, exceeds the master's. The kernel only says EINVAL."""
    if mtu > master["IFLA_MTU"]:
        raise invalid("mtu", mtu, f"exceeds the MTU {master['IFLA_MTU']} of its master {master['IFLA_IFNAME']}")


def require_up(master: Message) -> None:
    """Raise InternalError if the master is down: nothing passes through the links on it."""
    if not master["flags"] & IFF_UP:
        name = master["IFLA_IFNAME"]
        raise InternalError(f'"master": link {name} is down, so that nothing would pass', f"ip link set {name} up")


def problems(netlink: Netlink, wanted: str, link: Message | None, *, in_pod: bool) -> list[str]:
    """Return CHECK's problems of the master of the pod's link, None if that is missing.

    A master that was renamed serves on. `wanted` is its name in the configuration, empty for none. `netlink` is of the
    namespace that the master is in, the pod's if `in_pod`.
    """
    named = links.get(netlink, wanted) if wanted else None
    if link is None:
        return _missing(wanted, named)
    master = links.by_index(netlink, link.get("IFLA_LINK", 0))
    if in_pod and "IFLA_LINK_NETNSID" in link:  # on a link of another namespace, as the master itself is
        if named is not None and _below(named) != _below(link):
            return [f"the pod's link is on a link of another network namespace, not on {wanted}"]
        master = named
    elif named is not None:
        named = real(netlink, named, links.kind(link))
    if master is None:
        return _missing(wanted, named)
    if named is not None and named["index"] != master["index"]:
        return [f"the pod's link is on {master['IFLA_IFNAME']}, not on {wanted}"]
    if not master["flags"] & IFF_UP:
        return [f"master {master['IFLA_IFNAME']} is down"]
    return [] if master["flags"] & IFF_LOWER_UP else [f"master {master['IFLA_IFNAME']} has no carrier"]


def _missing(wanted: str, named: Message | None) -> list[str]:
    return [f"master {wanted} is missing"] if wanted and named is None else []


def _below(link: Message) -> tuple[int, int]:
    """Return the place of the link below a link: its index, and the number of its network namespace."""
    return link.get("IFLA_LINK", 0), link.get("IFLA_LINK_NETNSID", -1)


def objection(netlink: Netlink, master: Message, kind: str) -> str:
    """Return the reason why the kernel refuses links of a kind on the master, as far as it can be seen; else empty.

    macvlan, ipvlan, bridge, bond and Open vSwitch take all frames of the link below them: a link serves one of them.
    """
    name = master["IFLA_IFNAME"]
    if master["flags"] & IFF_LOOPBACK or master["ifi_type"] != ARPHRD_ETHER:
        return f"link {name} is not an Ethernet link"
    if "IFLA_MASTER" in master:
        upper = links.by_index(netlink, master["IFLA_MASTER"])
        of = f"{upper['IFLA_IFNAME']}, of kind {links.kind(upper)}" if upper else "another link"
        return f"link {name} is a port of {of}, which takes all its frames"

    def above(stream: Iterator[Message]) -> str:
        for link in stream:
            is_above = link.get("IFLA_LINK") == master["index"] and "IFLA_LINK_NETNSID" not in link
            taker = TAKERS.get(links.kind(link))
            if is_above and taker not in (None, kind):
                return f"link {name} is the master of {link['IFLA_IFNAME']}, of kind {links.kind(link)}"
        return ""

    return netlink.scan(RTM_GETLINK, None, above)
