"""Read, add and remove the addresses of links."""

from __future__ import annotations

import errno

from shared.cni.errors import InternalError
from shared.cni.ip import Address, Prefix
from shared.net.netlink import Request
from shared.net.wire import (
    AF_INET,
    AF_INET6,
    IFA_F_DADFAILED,
    IFA_F_NODAD,
    IFA_F_TENTATIVE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shared.net.netlink import Message, Netlink, Read

FAMILIES = {4: AF_INET, 6: AF_INET6}
LINK_LOCAL = Prefix(Address(6, 0xFE80 << 112), 10)


def scan(netlink: Netlink, index: int, take: Callable[[Iterator[tuple[Prefix, int]]], Read]) -> Read:
    """Have `take` read a link's addresses and their flags (IFA_F_*), and return its result.

    A pod may have many addresses: only the result stays in memory.
    """

    def states(stream: Iterator[Message]) -> Read:
        own = (message for message in stream if message["index"] == index)
        return take((prefix_of(message), int(message.get("IFA_FLAGS") or message["flags"])) for message in own)

    return netlink.scan(RTM_GETADDR, {"index": index}, states)


def prefix_of(message: Message) -> Prefix:
    """Return the address, with its prefix length, in a message."""
    return Prefix(Address.parse(message.get("IFA_LOCAL") or message["IFA_ADDRESS"]), message["prefixlen"])


def of_link(netlink: Netlink, index: int) -> list[Prefix]:
    """Return all addresses of a link, both families, in the kernel's order."""
    return scan(netlink, index, lambda states: [prefix for prefix, _ in states])


def found(netlink: Netlink, index: int, wanted: set[Prefix]) -> set[Prefix]:
    """Return the wanted addresses that a link has."""
    return scan(netlink, index, lambda states: {prefix for prefix, _ in states if prefix in wanted})


def add_request(index: int, prefix: Prefix, *, dad: bool, tolerate: tuple[int, ...] = ()) -> Request:
    """Return a request that adds an address to a link. Unless `dad`, an IPv6 address is usable at once."""
    return Request(RTM_NEWADDR, _body(index, prefix, dad=dad), NLM_F_CREATE | NLM_F_EXCL, tolerate)


def _body(index: int, prefix: Prefix, *, dad: bool = False) -> Message:
    body: Message = {"family": FAMILIES[prefix.version], "prefixlen": prefix.length, "index": index}
    body["IFA_LOCAL"] = body["IFA_ADDRESS"] = str(prefix.address)
    if prefix.version == 4 and prefix.length < 31:
        body["IFA_BROADCAST"] = str(prefix.last)
    if prefix.version == 6 and not dad:
        body["flags"] = IFA_F_NODAD
    return body


def remove(netlink: Netlink, index: int, prefix: Prefix) -> None:
    """Remove an address from a link if the link has it."""
    body = {key: value for key, value in _body(index, prefix).items() if key not in ("flags", "IFA_BROADCAST")}
    netlink.request(RTM_DELADDR, body, 0, (errno.EADDRNOTAVAIL, errno.ENODEV))


def usable(netlink: Netlink, index: int, most: int) -> list[Address]:
    """Return up to `most` addresses of a link that neither are in duplicate address detection nor failed it."""
    unusable = IFA_F_TENTATIVE | IFA_F_DADFAILED

    def take(states: Iterator[tuple[Prefix, int]]) -> list[Address]:
        found = (prefix.address for prefix, flags in states if not flags & unusable)
        return [address for _, address in zip(range(most), found)]

    return scan(netlink, index, take)


def is_settled(netlink: Netlink, index: int) -> bool:
    """Return True if duplicate address detection has ended for all IPv6 addresses of a link.

    Raises InternalError if another host has one of the addresses.
    """

    def settled(states: Iterator[tuple[Prefix, int]]) -> bool:
        waiting = False
        for prefix, flags in states:
            if flags & IFA_F_DADFAILED:
                raise InternalError(f"address {prefix} is in use by another host (duplicate address detection)")
            waiting = waiting or bool(flags & IFA_F_TENTATIVE)
        return not waiting

    return scan(netlink, index, settled)


def is_link_local_settled(netlink: Netlink, index: int) -> bool:
    """Return True if no IPv6 link-local address of a link is in duplicate address detection. Ignore failed ones."""
    return scan(
        netlink, index,
        lambda states: not any(
            flags & IFA_F_TENTATIVE and not flags & IFA_F_DADFAILED and prefix.address in LINK_LOCAL
            for prefix, flags in states
        ),
    )  # fmt: skip
