"""Wait for the kernel: listen to its notifications until a deadline, never sleep."""

from __future__ import annotations

from shared import signals, steps
from shared.cni.errors import InternalError
from shared.net import addresses, links, routes
from shared.net.netlink import KERNEL, NETLINK_ADD_MEMBERSHIP, SOL_NETLINK
from shared.net.wire import IFF_LOWER_UP, NETLINK_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK
from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.ip import Address
    from shared.net.netlink import Message, Netlink

CARRIER_SECONDS = 2.5
DAD_SECONDS = 10.0
GONE_SECONDS = 2.0
NEWS_BYTES = 16  # of a notification: nothing but its sender counts


def carrier(netlink: Netlink, name: str) -> Message:
    """Wait until a link has carrier, and a bridge's port forwards. Return it; raise InternalError after 2.5 seconds."""
    steps.begin("carrier")
    link: Message = {}

    def is_up() -> bool:
        link.update(links.require(netlink, name))
        return bool(link["IFLA_OPERSTATE"] == links.IF_OPER_UP)

    _until(is_up, RTNLGRP_LINK, CARRIER_SECONDS, f"link {name} did not come up")
    return link


def gateway_carrier(netlink: Netlink, name: str) -> Message:
    """Wait until the host can send through a bridge or a VLAN gateway port. Return it.

    Do not wait if no port of the bridge forwards: the spanning tree protocol takes longer. Raises InternalError after
    2.5 seconds.
    """
    link: Message = {}

    def is_up() -> bool:
        link.update(links.require(netlink, name))
        # A bridge that was up before it had a port, and never lost its carrier, keeps the state "unknown". An end of a
        # veth pair has that state until the kernel has looked at its carrier.
        is_known = link["IFLA_OPERSTATE"] != links.IF_OPER_UNKNOWN or links.kind(link) == "veth"
        return not link["flags"] & IFF_LOWER_UP or not is_known or link["IFLA_OPERSTATE"] == links.IF_OPER_UP

    _until(is_up, RTNLGRP_LINK, CARRIER_SECONDS, f"link {name} did not come up")
    return link


def link_local_settled(netlink: Netlink, index: int) -> None:
    """Wait until a link that is up can ask for its IPv6 neighbours. Raises InternalError after 10 seconds.

    For packets that it forwards, the kernel sends neighbour solicitations from the link-local address only, and none
    while that is in duplicate address detection. A link that is up has this address already, or will never have one.
    """

    def is_settled() -> bool:
        return addresses.is_link_local_settled(netlink, index)

    if not is_settled():
        steps.begin("dad")
        failure = "duplicate address detection of the gateway's link-local address did not end"
        _until(is_settled, RTNLGRP_IPV6_IFADDR, DAD_SECONDS, failure)


def addresses_settled(netlink: Netlink, index: int) -> None:
    """Wait until duplicate address detection is over on a link.

    Raises InternalError for a duplicate, or after 10 seconds.
    """
    steps.begin("dad")

    def is_settled() -> bool:
        return addresses.is_settled(netlink, index)

    _until(is_settled, RTNLGRP_IPV6_IFADDR, DAD_SECONDS, "duplicate address detection did not end")


def addresses_local(netlink: Netlink, index: int, own: list[Address]) -> None:
    """Wait until a link accepts packets to its own IPv6 addresses. Raises InternalError after 10 seconds.

    The kernel makes an address local some time after it was added, even without duplicate address detection, and drops
    packets that arrive before.
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
    """Wait until `is_gone`. Return False if the link is still there after 2 seconds."""
    return links_change(lambda: is_gone(netlink, name))


def links_change(condition: Callable[[], bool], seconds: float = GONE_SECONDS) -> bool:
    """Wait until a condition about links holds. Return False if it does not in time."""
    try:
        _until(condition, RTNLGRP_LINK, seconds, "no link changed")
    except InternalError:
        return False
    return True


def addresses_change(condition: Callable[[], bool], seconds: float, failure: str) -> None:
    """Wait until a condition about IPv6 addresses holds. Raise InternalError with `failure` if it does not in time."""
    steps.begin("dad")
    _until(condition, RTNLGRP_IPV6_IFADDR, seconds, failure)


def _until(condition: Callable[[], bool], group: int, seconds: float, failure: str) -> None:
    if condition():
        return
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    # connect gives the socket a port: the kernel's multicasts pass over a socket without one. A connected socket also
    # gets no unicast message of another process.
    listener.connect((KERNEL, 0))
    listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    try:
        with signals.interruptible(seconds):
            # look again now that the socket listens: the change may have come in between
            while not condition():
                _await_news(listener)
    except signals.DeadlineExpired:
        raise InternalError(f"{failure} within {seconds:.0f} seconds") from None
    finally:
        listener.close()


def _await_news(listener: socket.socket) -> None:
    """Wait until the kernel reports a change. Ignore messages that processes send to the same group."""
    sender = None
    while sender != KERNEL:
        try:
            sender = listener.recvfrom(NEWS_BYTES)[1][0]
        except OSError:  # ENOBUFS: more changes than the buffer holds; one of them may be ours
            return
