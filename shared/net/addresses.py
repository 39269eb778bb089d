"""Addresses of links."""

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
    from shared.net.netlink import Message, Netlink

FAMILIES = {4: AF_INET, 6: AF_INET6}
LINK_LOCAL = Prefix(Address(6, 0xFE80 << 112), 10)


def _messages(netlink: Netlink, index: int) -> list[Message]:
    return [message for message in netlink.dump(RTM_GETADDR, {"index": index}) if message["index"] == index]


def _prefix(message: Message) -> Prefix:
    return Prefix(Address.parse(message.get("IFA_LOCAL") or message["IFA_ADDRESS"]), message["prefixlen"])


def of_link(netlink: Netlink, index: int) -> list[Prefix]:
    """All addresses of a link, both families, in the kernel's order."""
    return [_prefix(message) for message in _messages(netlink, index)]


def add(index: int, prefix: Prefix, *, dad: bool, tolerate: tuple[int, ...] = ()) -> Request:
    """A request that gives a link an address; an IPv6 one can be used at once unless `dad` has it checked first."""
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
    """Takes an address off a link; one that is not there is no error."""
    body = {key: value for key, value in _body(index, prefix).items() if key not in ("flags", "IFA_BROADCAST")}
    netlink.request(RTM_DELADDR, body, 0, (errno.EADDRNOTAVAIL, errno.ENODEV))


def usable(netlink: Netlink, index: int) -> list[Address]:
    """Return a link's addresses that are not in duplicate address detection, and have not failed it."""
    unusable = IFA_F_TENTATIVE | IFA_F_DADFAILED
    return [prefix.address for prefix, flags in _states(netlink, index) if not flags & unusable]


def unsettled(netlink: Netlink, index: int) -> list[Prefix]:
    """The IPv6 addresses of a link whose duplicate address detection is not over.

    Raises InternalError for one that somebody else has.
    """
    states = _states(netlink, index)
    for prefix, flags in states:
        if flags & IFA_F_DADFAILED:
            raise InternalError(f"address {prefix} is in use by another host (duplicate address detection)")
    return [prefix for prefix, flags in states if flags & IFA_F_TENTATIVE]


def unsettled_link_local(netlink: Netlink, index: int) -> list[Prefix]:
    """Return a link's IPv6 link-local addresses in duplicate address detection; one that failed has settled."""
    return [
        prefix
        for prefix, flags in _states(netlink, index)
        if flags & IFA_F_TENTATIVE and not flags & IFA_F_DADFAILED and prefix.address in LINK_LOCAL
    ]


def _states(netlink: Netlink, index: int) -> list[tuple[Prefix, int]]:
    """Return each address of a link with its flags (IFA_F_*)."""
    messages = _messages(netlink, index)
    return [(_prefix(message), int(message.get("IFA_FLAGS") or message["flags"])) for message in messages]
