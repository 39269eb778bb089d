"""Find, create and delete VRFs: links that give a routing table of their own to the links in them."""

from __future__ import annotations

import errno

from shared.cni.errors import InternalError, UnsupportedField
from shared.cni.ip import Prefix
from shared.net import addresses, kinds_wire, link_routes, links, routes, sysctl, tables, wait
from shared.net.messages import encode_structure
from shared.net.netlink import NetlinkError, Request
from shared.net.wire import IFF_UP, NLM_F_CREATE, NLM_F_EXCL, RTM_GETLINK, RTM_NEWLINK, RTPROT_KERNEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message, Netlink

KIND = "vrf"
PRESENT = (errno.EEXIST,)


def find(netlink: Netlink, name: str) -> Message | None:
    """Return the VRF of that name, or None. Raise InternalError if another kind of link has the name."""
    link = links.get(netlink, name)
    if link is not None and links.kind(link) != KIND:
        raise InternalError(f"link {name} is not a VRF, but {links.kind(link) or 'hardware'}: choose another vrfname")
    return link


def create(netlink: Netlink, name: str, of: int) -> Message:
    """Create a VRF for a table, up. Raises UnsupportedField if the kernel has no VRFs."""
    data = encode_structure(f"info_data/{KIND}", {"IFLA_VRF_TABLE": of}, kinds_wire.STRUCTURES)
    body: Message = {
        "flags": IFF_UP, "change": IFF_UP, "IFLA_IFNAME": name,
        "IFLA_LINKINFO": {"IFLA_INFO_KIND": KIND, "IFLA_INFO_DATA": data},
    }  # fmt: skip
    try:
        netlink.request(RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)
    except NetlinkError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise UnsupportedField("the kernel has no VRFs (CONFIG_NET_VRF)", f"try modprobe vrf; {error}") from None
        raise
    return links.require(netlink, name)


def join(inside: Netlink, link: Message, vrf: Message, kept: Message) -> None:
    """Put a link into a VRF, with its `belongings`. Wait until the addresses can be used."""
    _change_master(inside, link, vrf["index"])
    restore(inside, link, kept, tables.of_vrf(vrf), is_joining=True)


def leave(inside: Netlink, link: Message, kept: Message) -> None:
    """Take a link out of its VRF, with its `belongings`."""
    _change_master(inside, link, 0)
    restore(inside, link, kept)


def belongings(inside: Netlink, link: Message, source: int) -> Message:
    """Return a link's addresses and routes, to be moved from the table `source`; in the form of a record."""
    index = link["index"]
    own = [route for route in link_routes.of_link(inside, index) if route["proto"] != RTPROT_KERNEL]
    return {
        "index": index, "source": source, "isUp": link["IFLA_OPERSTATE"] == links.IF_OPER_UP,
        "addresses": [str(one) for one in addresses.of_link(inside, index) if one.address not in addresses.LINK_LOCAL],
        "routes": link_routes.without_rest(own),
    }  # fmt: skip


def restore(
    inside: Netlink, link: Message, kept: Message, target: int = routes.RT_TABLE_MAIN, *, is_joining: bool = False
) -> None:
    """Give a link its belongings back after a change of its VRF. Tolerate those that it has.

    The kernel takes the link down and up, and removes routes that it did not make itself: those of the table `source`
    are added to `target`, the others to their own tables. An IPv6 route with further next hops would stay in `source`.
    The two tables may be the same one.
    """
    index, own = link["index"], kept["routes"]
    before = [Prefix.parse(one) for one in kept["addresses"]]
    left = set(before) - set(addresses.of_link(inside, index))
    inside.batch([addresses.add_request(index, one, dad=False, tolerate=PRESENT) for one in before if one in left])
    if kept["isUp"]:
        wait.carrier(inside, link["IFLA_IFNAME"])  # before that, IPv6 has no routes to the link's networks
    if is_joining:
        if any(one.version == 6 for one in before):
            wait.addresses_settled(inside, index)
        wait.addresses_local(inside, index, [one.address for one in before])
    moved = [route for route in own if tables.of_route(route) == kept["source"]]
    inside.batch(link_routes.add_requests([route for route in own if route not in moved]))
    inside.batch(link_routes.add_requests(moved, target))
    if target != kept["source"]:
        inside.batch(link_routes.delete_requests(moved))


def _change_master(inside: Netlink, link: Message, vrf: int) -> None:
    name = link["IFLA_IFNAME"]
    sysctl.prefer(f"ipv6/conf/{name}/keep_addr_on_down", "1")
    set_master(inside, link["index"], vrf)


def set_master(netlink: Netlink, link: int, vrf: int) -> None:
    """Put a link into a VRF, or take it out (0). The kernel takes the link down and up for that."""
    netlink.batch([Request(RTM_NEWLINK, {"index": link, "IFLA_MASTER": vrf}, 0, () if vrf else (errno.ENODEV,))])


def delete_if_empty(netlink: Netlink, name: str) -> None:
    """Delete the VRF of that name if it exists and no link is in it."""
    vrf = links.get(netlink, name)
    if vrf is None or links.kind(vrf) != KIND:
        return
    index = vrf["index"]
    if not netlink.scan(RTM_GETLINK, None, lambda stream: any(link.get("IFLA_MASTER") == index for link in stream)):
        links.delete_index(netlink, index)
