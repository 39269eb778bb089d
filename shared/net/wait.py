"""Waiting for the kernel: by its notifications, with a deadline, never by sleeping."""

from __future__ import annotations

from shared import signals, steps
from shared.cni.errors import InternalError
from shared.net import addresses, links, routes
from shared.net.netlink import KERNEL, SOL_NETLINK
from shared.net.wire import IFF_LOWER_UP, NETLINK_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK
from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.ip import Address
    from shared.net.netlink import Message, Netlink

NETLINK_ADD_MEMBERSHIP = 1  # linux/netlink.h
CARRIER_SECONDS = 2.5
DAD_SECONDS = 10.0
GONE_SECONDS = 2.0
NEWS_BYTES = 16  # of a notification, of which nothing but the sender counts


def carrier(netlink: Netlink, name: str) -> Message:
    """The link when it has carrier (and a bridge's port forwards); raises InternalError after 2.5 seconds."""
    steps.begin("carrier")
    link: Message = {}

    def is_up() -> bool:
        link.update(links.require(netlink, name))
        return bool(link["IFLA_OPERSTATE"] == links.IF_OPER_UP)

    _until(is_up, RTNLGRP_LINK, CARRIER_SECONDS, f"link {name} did not come up")
    return link


def gateway_carrier(netlink: Netlink, name: str) -> Message:
    """Return a bridge, or a VLAN gateway port, when the host can send through it; raises InternalError after 2.5 s.

    Do not wait if no port of the bridge forwards: the spanning tree protocol takes longer than that.
    """
    link: Message = {}

    def is_up() -> bool:
        link.update(links.require(netlink, name))
        # A bridge that was up before it had a port, and never lost its carrier, keeps the state "unknown". A veth's end
        # has that state until the kernel has looked at its carrier.
        is_known = link["IFLA_OPERSTATE"] != links.IF_OPER_UNKNOWN or links.kind(link) == "veth"
        return not link["flags"] & IFF_LOWER_UP or not is_known or link["IFLA_OPERSTATE"] == links.IF_OPER_UP

    _until(is_up, RTNLGRP_LINK, CARRIER_SECONDS, f"link {name} did not come up")
    return link


def link_local_settled(netlink: Netlink, index: int) -> None:
    """Wait until a link that is up can ask for its IPv6 neighbours; raises InternalError after 10 seconds.

    For packets that it forwards, the kernel sends neighbour solicitations from the link-local address alone, and none
    while that is in duplicate address detection. A link that is up has this address, or will never have one.
    """

    def is_settled() -> bool:
        return addresses.is_link_local_settled(netlink, index)

    if not is_settled():
        steps.begin("dad")
        failure = "duplicate address detection of the gateway's link-local address did not end"
        _until(is_settled, RTNLGRP_IPV6_IFADDR, DAD_SECONDS, failure)


def addresses_settled(netlink: Netlink, index: int) -> None:
    """Until duplicate address detection is over on a link; raises InternalError for a duplicate or after 10 seconds."""
    steps.begin("dad")

    def is_settled() -> bool:
        return addresses.is_settled(netlink, index)

    _until(is_settled, RTNLGRP_IPV6_IFADDR, DAD_SECONDS, "duplicate address detection did not end")


def addresses_local(netlink: Netlink, index: int, own: list[Address]) -> None:
    """Wait until a link takes packets to its own IPv6 addresses; raises InternalError after 10 seconds.

    The kernel makes an address a local one some time after it was added, even without duplicate address detection, and
    drops packets that come before.
    """
    waiting = [address for address in own if address.version == 6]

    def is_local() -> bool:
        while waiting and routes.is_local(netlink, waiting[-1], index):
            waiting.pop()
        return not waiting

    _until(is_local, RTNLGRP_IPV6_ROUTE, DAD_SECONDS, "an IPv6 address did not become a local one")


def is_gone(netlink: Netlink, name: str) -> bool:
    """Return True if there is no such link, or its other end is in a deleted namespace."""
    link = links.get(netlink, name)
    return link is None or links.is_doomed(netlink, link)


def gone(netlink: Netlink, name: str) -> bool:
    """Return True as soon as `is_gone` does; False if the link is still there after 2 seconds."""
    return links_change(lambda: is_gone(netlink, name))


def links_change(condition: Callable[[], bool]) -> bool:
    """Return True as soon as a condition about links holds; False if it does not hold within 2 seconds."""
    try:
        _until(condition, RTNLGRP_LINK, GONE_SECONDS, "no link changed")
    except InternalError:
        return False
    return True


def _until(condition: Callable[[], bool], group: int, seconds: float, failure: str) -> None:
    if condition():
        return
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    # A socket without a port is passed over by the kernel's multicasts. To a connected one, no process can send alone.
    listener.connect((KERNEL, 0))
    listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    try:
        with signals.interruptible(seconds):
            # looked at again after listening began, so that no change can fall in between
            while not condition():
                _await_news(listener)
    except signals.DeadlineExpired:
        raise InternalError(f"{failure} within {seconds:.0f} seconds") from None
    finally:
        listener.close()


def _await_news(listener: socket.socket) -> None:
    """Wait until the kernel tells of a change. A process may send to the same group: that is no news."""
    sender = None
    while sender != KERNEL:
        try:
            sender = listener.recvfrom(NEWS_BYTES)[1][0]
        except OSError:  # ENOBUFS: more changes than the buffer holds; one of them may be ours
            return
