"""Create links on top of another one (macvlan, ipvlan, vlan) in a pod, find them there and delete them.

The kernel creates such a link in the pod's namespace, so that no temporary name appears on the host. It ignores an
alias in that request, and before Linux 6.15 it refuses a name that a link of the host has. So a link begins with the
name that the attachment's host link would have. One further request gives it its own name and its alias: a link with
its own name always tells its attachment, and a half-made one is found by its first name.
"""

from __future__ import annotations

import errno

from shared.cni.errors import UnsupportedField
from shared.net import kinds_wire, links
from shared.net.links import LinkExists
from shared.net.messages import decode_part, encode_structure
from shared.net.netlink import Netlink, NetlinkError
from shared.net.wire import NLM_F_CREATE, NLM_F_EXCL, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo


def make(
    host: Netlink, undo: Undo, owner: Owner, pod_netns: Netns, kind: str, *, master: Message | None = None,
    in_pod: bool = False, mtu: int = 0, mac: str = "", data: Message | None = None,
) -> Message:  # fmt: skip
    """Create the pod's link, which is down, with its alias. Return it; undo deletes it.

    `master` is the link below it, of the host, or of the pod if `in_pod`. `mtu` is in bytes, 0 for the kernel's
    default. `data` is the IFLA_INFO_DATA of the kind, with the names of kinds_wire.py.

    Raises LinkExists if the pod has a link of that name, and UnsupportedField if the kernel has no links of that kind.
    Raises NetlinkError if it refuses the link: the errno is for the caller to explain, as EBUSY for a master in use.
    """
    info: Message = {"IFLA_INFO_KIND": kind}
    if data:
        info["IFLA_INFO_DATA"] = encode_structure(f"info_data/{kind}", data, kinds_wire.STRUCTURES)
    message: Message = {"IFLA_IFNAME": owner.host_link, "IFLA_NET_NS_FD": pod_netns.descriptor, "IFLA_LINKINFO": info}
    if master is not None:
        message["IFLA_LINK"] = master["index"]
    if mac:
        message["IFLA_ADDRESS"] = mac
    if mtu:
        message["IFLA_MTU"] = mtu
    with pod_netns:
        inside = Netlink()
    origin = inside if in_pod else host
    try:
        _create(origin, message, kind)
    except NetlinkError as error:
        if error.errno != errno.EEXIST or links.get(inside, owner.host_link) is None:
            raise
        with pod_netns:  # a killed ADD of this attachment left it
            links.delete(inside, owner.host_link)
        _create(origin, message, kind)
    undo.push(f"remove link {owner.ifname} in {pod_netns.path}", lambda: remove(host, owner, pod_netns, kind))
    return _give_name(inside, owner, pod_netns)


def _create(origin: Netlink, message: Message, kind: str) -> None:
    try:
        origin.request(RTM_NEWLINK, message, NLM_F_CREATE | NLM_F_EXCL)
    except NetlinkError as error:
        if error.errno == errno.EOPNOTSUPP and "device type" in error.msg:
            raise UnsupportedField(f"the kernel has no links of kind {kind}", f"try modprobe {kind}; {error}") from None
        raise


def _give_name(inside: Netlink, owner: Owner, pod_netns: Netns) -> Message:
    """Give the new link its own name and its alias, and return it."""
    index = links.require(inside, owner.host_link)["index"]
    try:
        inside.request(RTM_NEWLINK, {"index": index, "IFLA_IFNAME": owner.ifname, "IFLA_IFALIAS": owner.alias})
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        raise LinkExists(f"link {owner.ifname} already exists in {pod_netns.path}") from None
    return links.require(inside, owner.ifname)


def read_data(link: Message) -> Message:
    """Return the IFLA_INFO_DATA of a link of one of these kinds, with the names of kinds_wire.py."""
    data = link.get("IFLA_LINKINFO", {}).get("IFLA_INFO_DATA", b"")
    return decode_part(f"info_data/{links.kind(link)}", data, kinds_wire)


def is_own(link: Message, owner: Owner, kind: str) -> bool:
    """Return True if a pod's link is of the kind, and `make` created it for the attachment."""
    marks = (link["IFLA_IFNAME"] == owner.host_link, link.get("IFLA_IFALIAS") == owner.alias)
    return links.kind(link) == kind and any(marks)


def find(inside: Netlink, owner: Owner, kind: str) -> Message | None:
    """Return the attachment's link, which may be half-made; None if the pod has none. Call it in the pod's namespace.

    A link of the same name that another attachment or another program made does not count.
    """
    for name in (owner.ifname, owner.host_link):
        link = links.get(inside, name)
        if link is not None and is_own(link, owner, kind):
            return link
    return None


def remove(_host: Netlink, owner: Owner, pod_netns: Netns | None, kind: str) -> bool:
    """Delete the attachment's link in the pod. Return True if there was one: the kernel deletes it with the pod."""
    if pod_netns is None:
        return False
    with pod_netns:
        inside = Netlink()
        link = find(inside, owner, kind)
        if link is not None:
            links.delete_index(inside, link["index"])
    return link is not None
