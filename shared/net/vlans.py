"""VLANs of a bridge's ports. Imported by the calls that have any."""

from __future__ import annotations

import errno

from shared.cni.errors import InternalError
from shared.net import bridges, links, sysctl
from shared.net.netlink import Request
from shared.net.owner import is_pod_link, port_mac, stable_link
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
    from collections.abc import Iterator

    from shared.net.netlink import Message, Netlink
    from shared.undo import Undo

RTEXT_FILTER_BRVLAN = 2  # linux/rtnetlink.h
BRIDGE_VLANS = {"family": AF_BRIDGE, "IFLA_EXT_MASK": RTEXT_FILTER_BRVLAN}


def requests(index: int, *, default: int, native: int, trunk: list[int], keep_default: bool) -> list[Request]:
    """Return requests for a port's VLANs: `native` untagged (0: the `default` one stays), `trunk` tagged.

    The bridge puts each new port into its `default` VLAN, untagged. A port with a `native` VLAN leaves that one, or the
    pod would hear it too; unless `keep_default`. No request sets BRIDGE_VLAN_INFO_MASTER: it would put the bridge's own
    end, the host, into the pod's VLANs and take it out of the default one.
    """
    out = []
    if leaves_default(default, native, keep_default=keep_default):
        member = {"flags": 0, "vid": default}
        out.append(_vlan_request(RTM_DELLINK, index, [member], (errno.ENOENT,)))
    if native:
        flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED
        out.append(_vlan_request(RTM_SETLINK, index, [{"flags": flags, "vid": native}]))
    for first, last in _ranges([vid for vid in trunk if vid != (native or default)]):
        if first == last:
            members = [{"flags": 0, "vid": first}]
        else:
            members = [
                {"flags": BRIDGE_VLAN_INFO_RANGE_BEGIN, "vid": first},
                {"flags": BRIDGE_VLAN_INFO_RANGE_END, "vid": last},
            ]
        out.append(_vlan_request(RTM_SETLINK, index, members))
    return out


def leaves_default(default: int, native: int, *, keep_default: bool) -> bool:
    """Return True if a port with the `native` VLAN (0: none) must not stay in the bridge's `default` one (0: none)."""
    return bool(native and default and not keep_default and native != default)


def problems(
    netlink: Netlink, bridge: Message, port: Message, *, native: int, trunk: list[int], keep: bool
) -> list[str]:
    """Return all differences between a port's VLANs and those that `requests` gave it; `keep` is its `keep_default`."""
    name, default = port["IFLA_IFNAME"], bridges.default_vlan(bridge)
    found = [] if bridges.filters_vlans(bridge) else [f"bridge {bridge['IFLA_IFNAME']} does not filter VLANs"]
    have = of_port(netlink, port["index"])
    untagged = native or default
    wanted = {*trunk, untagged, default if keep else 0} - {0}
    if wanted - set(have):
        found.append(f"link {name} is not in the VLANs {sorted(wanted - set(have))}")
    elif untagged and not have[untagged]:
        found.append(f"VLAN {untagged} is not the native one of link {name}")
    is_left = leaves_default(default, native, keep_default=keep) and _is_own(bridge, port, native)
    if is_left and default in have and default not in trunk:
        found.append(f"link {name} is in VLAN {default}, the default one of bridge {bridge['IFLA_IFNAME']}, too")
    return found


def _is_own(bridge: Message, port: Message, native: int) -> bool:
    """Return True for a port that this suite created. The reference plugins leave theirs in the default VLAN."""
    name = port["IFLA_IFNAME"]
    gateways = stable_link(f"{bridge['IFLA_IFNAME']}.{native}")
    return name == gateways or is_pod_link(name, port.get("IFLA_IFALIAS", ""))


def ensure_gateway_port(
    netlink: Netlink, undo: Undo, bridge: Message, name: str, *,
    vlan: int, keep_default: bool, own: tuple[int, ...], ipv6: bool, dad: bool,
) -> Message:  # fmt: skip
    """Return the host's end of the bridge's gateway port in a VLAN; create and bring it up if need be.

    The gateway port is a veth pair: end `name` gets the gateway addresses, the other one is a port of the bridge in the
    VLAN. A pair that a killed ADD left half-made is completed. Undo deletes a new pair, unless a port that is not in
    `own` is in the VLAN by then. Raises InternalError if another link has the name.
    """
    port_name = stable_link(name)
    is_new = links.get(netlink, name) is None and _make_gateway_port(netlink, bridge, name)
    gateway = links.require(netlink, name)
    port = require_gateway_port(netlink, bridge, gateway)

    def remove() -> None:
        if not _members(netlink, bridge["index"], vlan) - {*own, port["index"]}:
            links.delete_index(netlink, gateway["index"])

    if is_new:
        undo.push(f"remove link {name}", remove)
    if not gateway["flags"] & IFF_UP:  # it comes up last: one that is up is complete
        # best effort: the bridge, not its port, handles the frames that arrive there
        sysctl.prefer(f"ipv6/conf/{port['IFLA_IFNAME']}/accept_ra", "0")
        sysctl.refuse_advertisements(name)
        if not dad:
            sysctl.prefer(f"ipv6/conf/{name}/accept_dad", "0")
        if ipv6:
            sysctl.ensure(f"ipv6/conf/{name}/disable_ipv6", "0")
    keep_default = keep_default or port["IFLA_IFNAME"] != port_name  # the reference leaves its port in the default VLAN
    default = bridges.default_vlan(bridge)
    joining = bridges.join_requests(port["index"], bridge["index"], alias="", hairpin=False, isolated=False)
    # a request that was done already changes nothing
    bridges.add_port(netlink, bridge, [
        *([] if port.get("IFLA_MASTER") else joining),
        *requests(port["index"], default=default, native=vlan, trunk=[], keep_default=keep_default),
        *(links.flags_request(end["index"], IFF_UP, IFF_UP) for end in (port, gateway) if not end["flags"] & IFF_UP),
    ])  # fmt: skip
    return gateway


def _make_gateway_port(netlink: Netlink, bridge: Message, name: str) -> bool:
    """Create the veth pair, both ends down. Return False if a concurrent first ADD was faster."""
    port_name = stable_link(name)
    try:
        links.add_veth(
            netlink, name=port_name, mac=port_mac(bridges.random_mac()), peer=name, peer_mac=bridges.random_mac(),
            mtu=bridge["IFLA_MTU"], peer_netns=None,
        )  # fmt: skip
    except links.LinkExists:
        if links.get(netlink, name) is None:
            raise InternalError(f"link {port_name} exists, and its other end is not called {name}; delete it") from None
        return False
    return True


def require_gateway_port(netlink: Netlink, bridge: Message, gateway: Message) -> Message:
    """Return the bridge's port behind a VLAN's gateway link. Raise InternalError if the link is another one.

    The port's name shows that the pair is this suite's, even before the port has joined. A port of the reference
    plugins has another name: it must be a port of the bridge.
    """
    name = gateway["IFLA_IFNAME"]
    is_pair = links.kind(gateway) == "veth" and "IFLA_LINK_NETNSID" not in gateway
    port = links.by_index(netlink, gateway.get("IFLA_LINK", 0)) if is_pair else None
    master = port.get("IFLA_MASTER") if port else None
    is_own = port is not None and port["IFLA_IFNAME"] == stable_link(name) and not master
    if port is None or not (is_own or master == bridge["index"]):
        raise InternalError(
            f"link {name} exists, and does not lead to a port of bridge {bridge['IFLA_IFNAME']}, so that it cannot be"
            " the VLAN's gateway; delete or rename it, or choose another bridge"
        )
    return port


def gateway_port_problems(
    netlink: Netlink, bridge: Message, name: str, link: Message | None, *, native: int, keep: bool
) -> list[str]:
    """Return all differences between gateway link `name` (None: missing) and the one of `ensure_gateway_port`."""
    if link is None:
        return [f"link {name} is missing"]
    found = [] if link["flags"] & IFF_UP else [f"link {name} is down"]
    port = links.peer_here(netlink, link)
    if port is not None:
        found += bridges.port_problems(bridge, port)
        found += problems(netlink, bridge, port, native=native, trunk=[], keep=keep)
    return found


def _vlan_request(kind: int, index: int, members: list[dict[str, int]], tolerate: tuple[int, ...] = ()) -> Request:
    info = {"IFLA_BRIDGE_VLAN_INFO": members}
    return Request(kind, {"family": AF_BRIDGE, "index": index, "IFLA_AF_SPEC": info}, 0, tolerate)


def _ranges(vids: list[int]) -> list[tuple[int, int]]:
    """Return sorted, inclusive ranges, so that a trunk of thousands is a few attributes."""
    found: list[tuple[int, int]] = []
    for vid in sorted(set(vids)):
        if found and found[-1][1] == vid - 1:
            found[-1] = (found[-1][0], vid)
        else:
            found.append((vid, vid))
    return found


def of_port(netlink: Netlink, index: int) -> dict[int, bool]:
    """Return a port's VLANs, with True for the native one (PVID, untagged)."""

    def of_one(stream: Iterator[Message]) -> dict[int, bool]:
        return next((_vlans(link) for link in stream if link["index"] == index), {})

    return netlink.scan(RTM_GETLINK, BRIDGE_VLANS, of_one)


def _members(netlink: Netlink, bridge: int, vlan: int) -> set[int]:
    """Return the indexes of the bridge's ports that are in a VLAN."""

    def members(stream: Iterator[Message]) -> set[int]:
        ports = (link for link in stream if link.get("IFLA_MASTER") == bridge and link["index"] != bridge)
        return {port["index"] for port in ports if vlan in _vlans(port)}

    return netlink.scan(RTM_GETLINK, BRIDGE_VLANS, members)


def _vlans(link: Message) -> dict[int, bool]:
    members = link.get("IFLA_AF_SPEC", {}).get("IFLA_BRIDGE_VLAN_INFO", [])
    found = members if isinstance(members, list) else [members]
    return {member["vid"]: bool(member["flags"] & BRIDGE_VLAN_INFO_PVID) for member in found}
