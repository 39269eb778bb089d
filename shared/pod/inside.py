"""Configure the pod's end of an attachment: sysctls, addresses, routes."""

from __future__ import annotations

from shared.net import addresses, announce, links, routes, sysctl, wait
from shared.net.netlink import Netlink, NetlinkError, Request
from shared.net.wire import IFF_UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.ip import Address
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns


def configure(
    pod_netns: Netns, ifname: str, result: Result, *, dad: bool, is_up: bool = True, has_carrier: bool = True,
    advertisements: bool | None = False,
    before_routes: Callable[[Netlink, Message], None] | None = None,
) -> tuple[Message, Callable[[], None]]:  # fmt: skip
    """Give the pod's link the result's addresses, bring it up, and add the result's routes.

    If `dad`, wait for IPv6 duplicate address detection; otherwise the addresses skip it. A link that is not to be up
    gets no address. Wait for the carrier if the link `has_carrier`. Routers' `advertisements` are refused (False),
    accepted, or left to the namespace's defaults (None); the result's IPAM plugin may have set them.
    `before_routes(inside, link)` runs in the pod's namespace when the link is up and has its addresses.

    Return the link when it has carrier and answers on its addresses, and the function that announces these.
    """
    with pod_netns:
        inside = Netlink()
        link = links.require(inside, ifname)
        index = link["index"]
        own = [ip.address.address for ip in result.ips]
        if advertisements is not None and not result.keeps_advertisements:
            _set_advertisements(ifname, accepted=advertisements)
        announce_pod = announce.prepare(inside, link, own)
        if not is_up:
            return link, announce_pod
        has_ipv6 = any(address.version == 6 for address in own)
        by_router = bool(advertisements) or result.keeps_advertisements
        _set_ipv6_sysctls(ifname, has_addresses=bool(own), has_ipv6=has_ipv6, dad=dad or by_router)
        requests = [addresses.add_request(index, ip.address, dad=dad) for ip in result.ips]
        requests.append(links.flags_request(index, IFF_UP, IFF_UP))
        if before_routes or (dad and has_ipv6):
            _change(inside, link, requests, has_ipv6=has_ipv6)
            requests = []
        if dad and has_ipv6:
            wait.addresses_settled(inside, index)
        if before_routes:
            before_routes(inside, link)
        requests += _route_requests(index, result)
        _change(inside, link, requests, has_ipv6=has_ipv6)
        _wait_for_answers(inside, link, own, has_carrier=has_carrier)
    return link, announce_pod


def _route_requests(index: int, result: Result) -> list[Request]:
    """Return requests for the routes. A route without a gateway has that of the first address of its family."""
    gateways = {ip.address.version: ip.gateway for ip in reversed(result.ips) if ip.gateway}
    return [routes.add_request(index, route, gateways.get(route.dst.version)) for route in result.routes]


def _wait_for_answers(inside: Netlink, link: Message, own: list[Address], *, has_carrier: bool) -> None:
    """Wait until the link answers on its own addresses."""
    # The kernel may report the carrier up to a second late if both ends of a veth pair have the same index. Until
    # then the link has no IPv6 multicast route, and answers no neighbour solicitation.
    if has_carrier:
        wait.carrier(inside, link["IFLA_IFNAME"])
    wait.addresses_local(inside, link["index"], own)


def _change(inside: Netlink, link: Message, requests: list[Request], *, has_ipv6: bool) -> None:
    """Send the requests. Say why the link can have no IPv6: the kernel only says EINVAL."""
    try:
        inside.batch(requests)
    except NetlinkError:
        if has_ipv6:
            from shared.net import readiness

            readiness.require_ipv6(link["IFLA_MTU"], None)
        raise


def _set_advertisements(ifname: str, *, accepted: bool) -> None:
    if accepted:
        for name in ("lo", ifname):
            sysctl.ensure(f"ipv6/conf/{name}/disable_ipv6", "0")
        sysctl.write(f"ipv6/conf/{ifname}/accept_ra", "1")
    else:
        sysctl.refuse_advertisements(ifname)
    sysctl.prefer(f"ipv6/conf/{ifname}/autoconf", str(int(accepted)))


def _set_ipv6_sysctls(ifname: str, *, has_addresses: bool, has_ipv6: bool, dad: bool) -> None:
    if has_addresses:
        detection = ("enhanced_dad", "1") if dad else ("accept_dad", "0")
        sysctl.prefer(f"ipv6/conf/{ifname}/{detection[0]}", detection[1])
        sysctl.prefer(f"ipv6/conf/{ifname}/keep_addr_on_down", "1")
    for name in ("lo", ifname) if has_ipv6 else ():
        sysctl.ensure(f"ipv6/conf/{name}/disable_ipv6", "0")
