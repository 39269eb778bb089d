"""Find, create and delete VRFs: links that give a routing table of their own to the links in them."""

from __future__ import annotations

import errno

from shared.cni.errors import InternalError, UnsupportedField
from shared.net import kinds_wire, links
from shared.net.messages import decode_part, encode_structure
from shared.net.netlink import NetlinkError, Request
from shared.net.wire import IFF_UP, NLM_F_CREATE, NLM_F_EXCL, RTM_GETLINK, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message, Netlink

KIND = "vrf"


def table(vrf: Message) -> int:
    """Return a VRF's routing table."""
    data = vrf["IFLA_LINKINFO"].get("IFLA_INFO_DATA", b"")
    return int(decode_part(f"info_data/{KIND}", data, kinds_wire).get("IFLA_VRF_TABLE", 0))


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
