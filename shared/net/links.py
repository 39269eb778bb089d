"""Look up links, create veth pairs, set flags, delete links."""

from __future__ import annotations

import errno
import posix

from shared.cni.errors import InternalError
from shared.net.netlink import Netlink, NetlinkError, Request
from shared.net.wire import (
    IFF_LOOPBACK,
    IFF_POINTOPOINT,
    IFF_UP,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shared.net.netlink import Message
    from shared.net.netns import Netns

IF_OPER_UNKNOWN, IF_OPER_UP = 0, 6  # linux/if.h


class NoLink(InternalError):
    """No link has the name."""


class LinkExists(InternalError):
    """A link to be created has a name that another link has."""


def get(netlink: Netlink, name: str) -> Message | None:
    """Return the link of that name, or None."""
    return netlink.get(RTM_GETLINK, {"IFLA_IFNAME": name})


def own_name(name: str, netlink: Netlink | None = None) -> str:
    """Return the primary name of the host link that has this name or alternative name (IFLA_ALT_IFNAME).

    Return the name itself if no link has it. The sysctls of a link are under its primary name. The existence of that
    directory spares most callers a netlink request.
    """
    if posix.access(f"/proc/sys/net/ipv4/conf/{name}", posix.F_OK):
        return name
    link = get(netlink or Netlink(), name)
    return name if link is None else str(link["IFLA_IFNAME"])


def by_index(netlink: Netlink, index: int) -> Message | None:
    """Return the link of that index, or None."""
    return netlink.get(RTM_GETLINK, {"index": index})


def peer_here(netlink: Netlink, link: Message) -> Message | None:
    """Return the other end of a veth pair in the same namespace; None if it is elsewhere or the link is no veth.

    In this namespace, the index of an end elsewhere may belong to an unrelated link.
    """
    if kind(link) != "veth" or "IFLA_LINK_NETNSID" in link or not link.get("IFLA_LINK"):
        return None
    return by_index(netlink, link["IFLA_LINK"])


def leads_to_pod(host: Netlink, link: Message) -> bool:
    """Return True if a host link's other end is in another namespace, and that namespace still exists."""
    number = link.get("IFLA_LINK_NETNSID", -1)
    if number < 0:
        return False
    try:
        host.get(RTM_GETLINK, {"index": link.get("IFLA_LINK", 0), "IFLA_IF_NETNSID": number})
    except NetlinkError as error:
        return error.errno != errno.EINVAL  # EINVAL: the number belongs to no living namespace
    return True


def is_doomed(host: Netlink, link: Message) -> bool:
    """Return True if a host link's other end is in a deleted namespace.

    The kernel deletes both some time later. Until then the link shows the namespace's old number.
    """
    return link.get("IFLA_LINK_NETNSID", -1) >= 0 and not leads_to_pod(host, link)


def require(netlink: Netlink, name: str) -> Message:
    """Return the link of that name; raise NoLink if there is none."""
    link = get(netlink, name)
    if link is None:
        raise NoLink(f"there is no link {name}")
    return link


def kind(link: Message) -> str:
    """Return the kernel's name for the kind of a virtual link (veth, bridge…), empty for hardware."""
    return str(link.get("IFLA_LINKINFO", {}).get("IFLA_INFO_KIND", ""))


def flags_request(index: int, flags: int, mask: int) -> Request:
    """Return a request that sets a link's flags in `mask` to their values in `flags` (IFF_*)."""
    return Request(RTM_NEWLINK, {"index": index, "flags": flags, "change": mask})


def set_up(netlink: Netlink, index: int) -> None:
    """Bring a link up."""
    netlink.batch([flags_request(index, IFF_UP, IFF_UP)])


def set_down(netlink: Netlink, index: int) -> None:
    """Take a link down."""
    netlink.batch([flags_request(index, 0, IFF_UP)])


def set_down_if_exists(netlink: Netlink, name: str) -> None:
    """Take a link down if it exists, so that nothing arrives through it. The other end of a veth cannot prevent it."""
    netlink.request(RTM_NEWLINK, {"IFLA_IFNAME": name, "flags": 0, "change": IFF_UP}, 0, (errno.ENODEV,))


def delete(netlink: Netlink, name: str) -> bool:
    """Delete a link, and a veth's other end with it; return False if there was none."""
    link = get(netlink, name)
    if link is not None:
        delete_index(netlink, link["index"])
    return link is not None


def delete_index(netlink: Netlink, index: int) -> None:
    """Delete the link of that index if it exists."""
    from shared.net import deletion

    request = _delete_request(index)
    if not deletion.is_reported(request, (index,)):
        netlink.batch([request])


def _delete_request(index: int) -> Request:
    """Return the request that deletes a link if it exists. The kernel answers after 10 to 25 ms: it waits for RCU."""
    return Request(RTM_DELLINK, {"index": index}, 0, (errno.ENODEV,))


def delete_all(netlink: Netlink, is_doomed: Callable[[Message], bool]) -> None:
    """Delete the links for which `is_doomed` returns True, all at once.

    The kernel deletes a group of links as fast as one. Another call may delete some of the links in the meantime.
    Raises NetlinkError if a link stays, after trying the others.
    """
    taken: set[int] = set()

    def doomed_of(stream: Iterator[Message]) -> list[int]:
        found = []
        for link in stream:
            taken.add(link.get("IFLA_GROUP", 0))
            if is_doomed(link):
                found.append(link["index"])
        return found

    def left() -> list[int]:
        return sorted(set(doomed).intersection(netlink.scan(RTM_GETLINK, None, doomed_of)))

    doomed = netlink.scan(RTM_GETLINK, None, doomed_of)
    if not doomed:
        return
    from shared.net import deletion

    try:
        request = _joint_request(netlink, doomed, taken)
        if deletion.is_reported(request, doomed):
            return
        doomed = left()
        if len(doomed) > 1:
            netlink.batch([request])
    except NetlinkError:
        pass  # older kernels cannot delete a group
    # Another call may have moved some links to its own group.
    doomed = left()
    netlink.batch([_delete_request(index) for index in doomed])


def _joint_request(netlink: Netlink, members: list[int], taken: set[int]) -> Request:
    """Return the request that deletes these links. Put several into a group that no other link is in."""
    if len(members) == 1:
        return _delete_request(members[0])
    group = 0
    while group == 0 or group in taken:
        group = int.from_bytes(posix.urandom(4), "big")
    netlink.batch([
        Request(RTM_NEWLINK, {"index": index, "IFLA_GROUP": group}, 0, (errno.ENODEV,)) for index in members
    ])  # fmt: skip
    return Request(RTM_DELLINK, {"IFLA_GROUP": group})


def smallest_mtu(netlink: Netlink, bridge: str, uplinks: list[str]) -> int:
    """Return the smallest MTU in bytes of the up links that are neither loopback nor point-to-point: kubenet's choice.

    Ignore the bridge and its ports: otherwise a small MTU would stay after its cause was removed. Always count the
    uplinks, because the pods' frames leave through them. Return 0, the kernel's default, if no link counts.
    """
    present = get(netlink, bridge)
    own = present and present["index"]

    def counts(link: Message) -> bool:
        return link["IFLA_IFNAME"] in uplinks or (
            link["flags"] & IFF_UP
            and not link["flags"] & (IFF_LOOPBACK | IFF_POINTOPOINT)
            and (own is None or own not in (link["index"], link.get("IFLA_MASTER")))
        )

    return netlink.scan(
        RTM_GETLINK, None, lambda stream: min((link["IFLA_MTU"] for link in stream if counts(link)), default=0)
    )


def add_veth(
    netlink: Netlink, *, name: str, mac: str, peer: str, peer_mac: str, mtu: int, peer_netns: Netns | None
) -> None:
    """Create a veth pair with `peer` in `peer_netns` (None: here too); `mtu` in bytes, 0 for the default.

    Both ends have one transmit queue. By default the kernel gives them one for each processor and switches all but one
    off, for which it waits twice for RCU.

    Raises LinkExists if either name is taken.
    """
    host_end: Message = {"IFLA_IFNAME": name, "IFLA_ADDRESS": mac, "IFLA_NUM_TX_QUEUES": 1}
    peer_end: Message = {"IFLA_IFNAME": peer, "IFLA_ADDRESS": peer_mac, "IFLA_NUM_TX_QUEUES": 1}
    if mtu:
        host_end["IFLA_MTU"] = peer_end["IFLA_MTU"] = mtu
    if peer_netns is not None:
        peer_end["IFLA_NET_NS_FD"] = peer_netns.descriptor
    host_end["IFLA_LINKINFO"] = {"IFLA_INFO_KIND": "veth", "IFLA_INFO_DATA": {"VETH_INFO_PEER": peer_end}}
    try:
        netlink.request(RTM_NEWLINK, host_end, NLM_F_CREATE | NLM_F_EXCL)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        where = peer_netns.path if peer_netns else "the host"
        if peer_netns and get(netlink, name):
            raise LinkExists(f"{peer} in {where} is attached already: its other end {name} exists") from None
        raise LinkExists(f"link {peer} already exists in {where}") from None
