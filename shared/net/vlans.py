"""VLANs of a bridge's ports; imported by the calls that have any."""

from __future__ import annotations

import errno

from shared.net import links, sysctl
from shared.net.bridges import join, random_mac
from shared.net.netlink import Request
from shared.net.owner import stable_link
from shared.net.wire import (
    AF_BRIDGE,
    BRIDGE_VLAN_INFO_PVID,
    BRIDGE_VLAN_INFO_RANGE_BEGIN,
    BRIDGE_VLAN_INFO_RANGE_END,
    BRIDGE_VLAN_INFO_UNTAGGED,
    IFF_UP,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_SETLINK,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message, Netlink
    from shared.undo import Undo

RTEXT_FILTER_BRVLAN = 2  # linux/rtnetlink.h
DEFAULT_VLAN = 1


def requests(index: int, *, native: int, trunk: list[int], keep_default: bool) -> list[Request]:
    """Requests for a port's VLANs: `native` in and out untagged (0: none), `trunk` tagged.

    The bridge gives each new port its default VLAN 1, untagged; unless `keep_default`, that is taken away, or the pod
    would hear VLAN 1 although it was put into others. BRIDGE_VLAN_INFO_MASTER is nowhere set: it would put the bridge's
    own end, the host, into the pod's VLANs and take it out of VLAN 1.
    """
    out = []
    if not keep_default and native != DEFAULT_VLAN:
        default = {"flags": 0, "vid": DEFAULT_VLAN}
        out.append(_vlan_request(RTM_DELLINK, index, [default], (errno.ENOENT,)))
    if native:
        flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED
        out.append(_vlan_request(RTM_SETLINK, index, [{"flags": flags, "vid": native}]))
    for first, last in _ranges([vid for vid in trunk if vid != native]):
        if first == last:
            members = [{"flags": 0, "vid": first}]
        else:
            members = [
                {"flags": BRIDGE_VLAN_INFO_RANGE_BEGIN, "vid": first},
                {"flags": BRIDGE_VLAN_INFO_RANGE_END, "vid": last},
            ]
        out.append(_vlan_request(RTM_SETLINK, index, members))
    return out


def ensure_gateway_port(
    netlink: Netlink, undo: Undo, bridge: Message, name: str, *, vlan: int, keep_default: bool, pod_port: int
) -> Message:
    """The host's own place in a VLAN of the bridge: end `name` of a veth pair whose other end is a port in the VLAN.

    Taken back unless another port than `pod_port` is in the VLAN by then.
    """
    existing = links.get(netlink, name)
    if existing is not None:
        return existing
    port_name = stable_link(name)
    try:
        links.add_veth(
            netlink, name=port_name, mac=random_mac(), peer=name, peer_mac=random_mac(), mtu=bridge["IFLA_MTU"],
            peer_netns=None,
        )  # fmt: skip
    except links.LinkExists:  # a concurrent first ADD was faster
        return links.require(netlink, name)
    port, own = links.require(netlink, port_name), links.require(netlink, name)

    def take_back() -> None:
        if not _members(netlink, bridge["index"], vlan) - {pod_port, port["index"]}:
            links.delete(netlink, name)

    undo.push(f"remove link {name}", take_back)
    for link in (port_name, name):
        sysctl.write(f"ipv6/conf/{link}/accept_ra", "0")
    netlink.batch([
        *join(port["index"], bridge["index"], alias="", hairpin=False, isolated=False),
        *requests(port["index"], native=vlan, trunk=[], keep_default=keep_default),
        links.change_flags(port["index"], IFF_UP, IFF_UP),
        links.change_flags(own["index"], IFF_UP, IFF_UP),
    ])  # fmt: skip
    return own


def _vlan_request(kind: int, index: int, members: list[dict[str, int]], tolerate: tuple[int, ...] = ()) -> Request:
    info = {"IFLA_BRIDGE_VLAN_INFO": members}
    return Request(kind, {"family": AF_BRIDGE, "index": index, "IFLA_AF_SPEC": info}, 0, tolerate)


def _ranges(vids: list[int]) -> list[tuple[int, int]]:
    """Sorted numbers as inclusive ranges, so that a trunk of thousands is a few attributes."""
    found: list[tuple[int, int]] = []
    for vid in sorted(set(vids)):
        if found and found[-1][1] == vid - 1:
            found[-1] = (found[-1][0], vid)
        else:
            found.append((vid, vid))
    return found


def of_port(netlink: Netlink, index: int) -> dict[int, bool]:
    """A port's VLANs, and whether each is its native one (PVID, untagged)."""
    for link in netlink.dump(RTM_GETLINK, {"family": AF_BRIDGE, "IFLA_EXT_MASK": RTEXT_FILTER_BRVLAN}):
        if link["index"] == index:
            return _vlans(link)
    return {}


def _members(netlink: Netlink, bridge: int, vlan: int) -> set[int]:
    """The indexes of the bridge's ports that are in a VLAN."""
    every = netlink.dump(RTM_GETLINK, {"family": AF_BRIDGE, "IFLA_EXT_MASK": RTEXT_FILTER_BRVLAN})
    return {
        link["index"]
        for link in every
        if link.get("IFLA_MASTER") == bridge and link["index"] != bridge and vlan in _vlans(link)
    }


def _vlans(link: Message) -> dict[int, bool]:
    members = link.get("IFLA_AF_SPEC", {}).get("IFLA_BRIDGE_VLAN_INFO", [])
    found = members if isinstance(members, list) else [members]
    return {member["vid"]: bool(member["flags"] & BRIDGE_VLAN_INFO_PVID) for member in found}
