"""Turn on the host's forwarding, and keep the routes that its links have from router advertisements.

When IPv6 forwarding is turned on, the kernel deletes these routes and ignores further advertisements. Links with
accept_ra 2 are exempt (rt6_purge_dflt_routers in net/ipv6/route.c, ipv6_accept_ra in include/net/ipv6.h).
"""

from __future__ import annotations

from shared.cni.ip import Address
from shared.net import addresses, links, sysctl
from shared.net.messages import next_hops
from shared.net.wire import AF_INET6, IFA_F_PERMANENT, RTM_GETADDR, RTM_GETROUTE, RTPROT_RA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.cni.ip import Prefix
    from shared.net.netlink import Message, Netlink

WHILE_HOST, ALWAYS = "1", "2"  # accept_ra: accept advertisements unless the link forwards, or always
OFF = "0"


def ensure(host: Netlink, prefixes: Iterable[Prefix]) -> None:
    """Let the host forward packets of the prefixes' families. Raises InternalError if it cannot be made to."""
    for version in {one.version for one in prefixes}:
        if sysctl.read(sysctl.FORWARDING[version]) != "1":
            turn_on(host, version)


def problems(prefixes: Iterable[Prefix]) -> list[str]:
    """Return a text for each family of the prefixes that the host does not forward."""
    paths = [sysctl.FORWARDING[version] for version in sorted({one.version for one in prefixes})]
    values = {path: sysctl.read(path) for path in paths}
    return [
        f"the host does not forward: sysctl net/{path} is {now}" for path, now in values.items() if now in ("0", None)
    ]


def turn_on(netlink: Netlink, version: int) -> None:
    """Turn on the host's forwarding of an IP version. Raises InternalError if that fails."""
    path = sysctl.FORWARDING[version]
    if sysctl.read(path) not in (OFF, None):
        return
    if version == 6:
        for name in links_at_risk(netlink):
            sysctl.write(accept_ra(name), ALWAYS)
    sysctl.require(path, "1")


def links_at_risk(netlink: Netlink) -> list[str]:
    """Return the names of the links that would lose routes from advertisements if the host forwarded."""
    found = [links.by_index(netlink, index) for index in sorted(learned_links(netlink))]
    names = [link["IFLA_IFNAME"] for link in found if link is not None]
    return [name for name in names if sysctl.read(accept_ra(name)) == WHILE_HOST]


def learned_links(netlink: Netlink) -> set[int]:
    """Return the indexes of the links that have a route or an address from router advertisements.

    Include links with an address from DHCPv6, because advertisements start DHCPv6.
    """
    found = set()
    for route in netlink.dump(RTM_GETROUTE, {"family": AF_INET6, "proto": RTPROT_RA}):
        hops = next_hops(route["RTA_MULTIPATH"]) if "RTA_MULTIPATH" in route else (route,)
        found |= {hop["RTA_OIF"] for hop in hops if "RTA_OIF" in hop and route["proto"] == RTPROT_RA}
    return found | {
        address["index"] for address in netlink.dump(RTM_GETADDR, {"family": AF_INET6}) if _has_lifetime(address)
    }


def _has_lifetime(address: Message) -> bool:
    flags = address.get("IFA_FLAGS") or address["flags"]
    return not flags & IFA_F_PERMANENT and Address.parse(address["IFA_ADDRESS"]) not in addresses.LINK_LOCAL


def accept_ra(link: str) -> str:
    """Return the path of the sysctl that makes a link accept router advertisements."""
    return f"ipv6/conf/{link}/accept_ra"
