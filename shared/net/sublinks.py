"""Create links on top of another one (macvlan, ipvlan, vlan) in a pod, find them there and delete them.

The kernel creates such a link in the pod's namespace, so that no temporary name appears on the host. It ignores an
alias in that request, and before Linux 6.15 it refuses a name that a link of the host has. So a link begins with the
name that the attachment's host link would have. One further request gives it its own name and its alias: a link with
its own name always tells its attachment, and a half-made one is found by its first name.
"""

from __future__ import annotations

import errno

from shared.cni.errors import UnsupportedField
from shared.cni.plugin import readable_result, run_all
from shared.net import kinds_wire, links, netns, placements
from shared.net.links import LinkExists
from shared.net.messages import decode_part, encode_structure
from shared.net.netlink import Netlink, NetlinkError
from shared.net.wire import NLM_F_CREATE, NLM_F_EXCL, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from typing import Any

    from shared.cni.call import Call
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo

MODULES = {"vlan": "8021q"}  # with other names than the kinds that they have
MASTERS_MAC = ("ipvlan", "vlan")  # kinds of links that have their master's MAC by default


def make(
    host: Netlink, undo: Undo, owner: Owner, pod_netns: Netns, kind: str, *, master: Message | None = None,
    in_pod: bool = False, mtu: int = 0, mac: str = "", data: Message | None = None, **note: Any,
) -> Message:  # fmt: skip
    """Create the pod's link, which is down, with its alias. Return it; undo deletes it.

    `master` is the link below it, of the host, or of the pod if `in_pod`. `mtu` is in bytes, 0 for the kernel's
    default. `data` is the IFLA_INFO_DATA of the kind, with the names of kinds_wire.py. `note` has the keys that the
    note of the attachment gets (shared/net/placements.py).

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
    note_coming(inside, undo, owner, pod_netns, kind, **note)
    undo.push(f"remove half-made link {owner.host_link}", lambda: _remove_name(pod_netns, owner.host_link))
    origin = inside if in_pod else host
    try:
        _create(origin, message, kind)
    except NetlinkError as error:
        if error.errno != errno.EEXIST or not _remove_name(pod_netns, owner.host_link):
            raise
        _create(origin, message, kind)  # a killed ADD of this attachment had left it
    return _give_name(inside, undo, owner, pod_netns, mac)


def note_coming(inside: Netlink, undo: Undo, owner: Owner, pod_netns: Netns, kind: str, **note: Any) -> None:
    """Write the note of a link that is about to be created. Raise LinkExists if the pod has one of its name."""
    if links.get(inside, owner.ifname) is not None:
        raise LinkExists(f"link {owner.ifname} already exists in {pod_netns.path}")
    undo.push("remove the note of the link", lambda: placements.remove(owner))
    placements.write(owner, kind, pod_netns, **note)


def _create(origin: Netlink, message: Message, kind: str) -> None:
    try:
        origin.request(RTM_NEWLINK, message, NLM_F_CREATE | NLM_F_EXCL)
    except NetlinkError as error:
        if error.errno == errno.EOPNOTSUPP and "device type" in error.msg:
            advice = f"try modprobe {MODULES.get(kind, kind)}; {error}"
            raise UnsupportedField(f"the kernel has no links of kind {kind}", advice) from None
        raise


def _give_name(inside: Netlink, undo: Undo, owner: Owner, pod_netns: Netns, mac: str) -> Message:
    """Give the new link its own name and its alias, and return it."""
    link = links.require(inside, owner.host_link)
    undo.push(f"remove link {owner.ifname}", lambda: _remove_index(pod_netns, link["index"]))
    message: Message = {"index": link["index"], "IFLA_IFNAME": owner.ifname, "IFLA_IFALIAS": owner.alias}
    if mac and link["IFLA_ADDRESS"] != mac:  # a macvlan of mode passthru begins with its master's
        message["IFLA_ADDRESS"] = mac
    inside.request(RTM_NEWLINK, message)
    return links.require(inside, owner.ifname)


def read_data(link: Message) -> Message:
    """Return the IFLA_INFO_DATA of a link of one of these kinds, with the names of kinds_wire.py."""
    data = link.get("IFLA_LINKINFO", {}).get("IFLA_INFO_DATA", b"")
    return decode_part(f"info_data/{links.kind(link)}", data, kinds_wire)


def is_own(link: Message, owner: Owner, kind: str) -> bool:
    """Return True if a pod's link is of the kind, and `make` created it for the attachment."""
    marks = (link["IFLA_IFNAME"] == owner.host_link, link.get("IFLA_IFALIAS") == owner.alias)
    return links.kind(link) == kind and any(marks)


def remove(owner: Owner, pod_netns: Netns | None, kind: str) -> bool:
    """Delete the attachment's link, the host's access to it and its note. Return True if there was a link.

    `kind` is that of a link without a note: the network's type may have changed since ADD.
    The link is in the pod's namespace, or in the noted one if that is unknown (None) or does not have it. Without a
    namespace there is no link either: the kernel deletes both. The note stays if one of them cannot be looked at.
    """
    note = placements.read(owner)
    if placements.HOST_ACCESS in note:
        from shared.net import host_access

        host_access.remove(Netlink(), owner)
    noted = note.get("kind", kind)
    is_found = any(remove_in(one, owner, noted) for one in placements.namespaces(note, pod_netns))
    placements.remove(owner)
    return is_found


def remove_in(pod_netns: Netns, owner: Owner, kind: str) -> bool:
    """Delete all links of the attachment in a namespace, under any names: the pod may have renamed one.

    Return True if there was one.
    """
    found: set[int] = set()

    def is_doomed(link: Message) -> bool:
        if is_own(link, owner, kind):
            found.add(link["index"])
        return link["index"] in found

    with pod_netns:
        links.delete_all(Netlink(), is_doomed)
    return bool(found)


def _remove_name(pod_netns: Netns, name: str) -> bool:
    with pod_netns:
        return links.delete(Netlink(), name)


def _remove_index(pod_netns: Netns, index: int) -> None:
    with pod_netns:
        links.delete_index(Netlink(), index)


def remove_foreign(call: Call, owner: Owner, pod_netns: Netns | None, kind: str) -> bool:
    """Delete the link that another suite made for the attachment. Return True if there was one.

    Runtimes call DEL after an ADD that failed because the pod has a link of that name, and the path can lead to another
    pod by now. So the link must have the MAC in the result, or one of its addresses if that MAC is also the master's.
    Without a result, no link is deleted: runtimes keep that of each ADD that succeeded.
    """
    result = readable_result(call)
    if pod_netns is None or result is None:
        return False
    from shared.net import addresses, verify

    mac = verify.own_mac(result, call)
    own = {ip.address for ip in verify.own_ips(result, call)}
    with pod_netns:
        inside = Netlink()
        link = links.get(inside, owner.ifname)
        if (
            link is None
            or links.kind(link) != kind
            or link.get("IFLA_IFALIAS")
            or mac not in ("", link["IFLA_ADDRESS"])
        ):
            return False
        if (not mac or kind in MASTERS_MAC) and not addresses.found(inside, link["index"], own):
            return False
    _remove_index(pod_netns, link["index"])
    return True


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Serve GC: delete the noted links of the network's attachments not in `valid`, (container id, ifname)."""
    left = placements.left_behind(network, "", valid)
    run_all(*(lambda owner=owner: remove(owner, None, "") for owner in left))


def require_kind(kind: str) -> None:
    """Raise UnsupportedField if the kernel has no links of the kind. It looks for the module, and loads it."""
    trial = netns.create_temporary()
    try:
        with trial:
            _create(Netlink(), {"IFLA_LINKINFO": {"IFLA_INFO_KIND": kind}}, kind)
    except NetlinkError:  # there is no master
        pass
    finally:
        trial.close()
