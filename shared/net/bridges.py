"""Create bridges, and make links their ports."""

from __future__ import annotations

import errno
import posix

from shared.cni.errors import InternalError, TryAgainLater, UnsupportedField
from shared.net import links, sysctl
from shared.net.netlink import NetlinkError, Request
from shared.net.wire import (
    IFF_PROMISC,
    IFF_UP,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_GETLINK,
    RTM_NEWLINK,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from shared.net.netlink import Message, Netlink, Read
    from shared.undo import Undo

    Ports = tuple[int, ...]  # indexes of links

ATTACH_TRIES = 10
LEAST_IPV6_MTU = 1280  # bytes; IPV6_MIN_MTU in linux/ipv6.h
MOST_PORTS = 1023  # BR_MAX_PORTS in net/bridge/br_private.h, less the number 0, which means no port
NO_MAC = "00:00:00:00:00:00"  # of a bridge that has lost its last port
NET_ADDR_SET = "3"  # linux/netdevice.h
# The group of a bridge between its creation by an ADD and its setting up. The request that creates a bridge cannot give
# it an alias.
HALF_MADE_GROUP = 0x70796369
NEW_ALIAS = "pycni: no pod attached yet"  # of a bridge between its creation by an ADD and the first ADD that succeeds


def ensure(
    netlink: Netlink, undo: Undo, name: str, *, own: Ports, mtu: int, vlan_filtering: bool, promisc: bool, ipv6: bool,
    dad: bool, fdb_max_learned: int | None = None, mac: str = "",
) -> Message:  # fmt: skip
    """Return the bridge of that name; create it if need be, and bring it up.

    `mtu` in bytes (0: the kernel's default), `fdb_max_learned` and `mac` (empty: a random one) are for a new bridge.
    The MAC of a new bridge does not change with its ports, and unless `dad` it gets a link-local address that can be
    used at once. A bridge is new until an ADD has set it up, even if the ADD that created it was killed. The bridge
    ignores router advertisements, unless it is an old one with a route or an address from them.

    Undo does nothing if the bridge has ports by then that are not in `own`. A bridge that has begun to filter VLANs
    goes on: a concurrent call may need it. `remove_if_new` removes a new bridge that is up.

    Raises InternalError if the name is that of another kind of link, UnsupportedField if the kernel cannot filter
    VLANs.
    """
    bridge = links.get(netlink, name)
    if bridge is None:
        _begin(netlink, undo, name, mtu, own, vlan_filtering=vlan_filtering, fdb_max_learned=fdb_max_learned, mac=mac)
        bridge = links.require(netlink, name)
    is_new = bridge.get("IFLA_GROUP") == HALF_MADE_GROUP
    if links.kind(bridge) != "bridge":
        raise InternalError(f"link {name} already exists but is not a bridge")
    if vlan_filtering and not filters_vlans(bridge):
        bridge = _filter_vlans(netlink, bridge)
    _refuse_advertisements(netlink, bridge, is_new=is_new)
    if is_new and not dad:
        sysctl.prefer(f"ipv6/conf/{name}/accept_dad", "0")
    if ipv6:
        enable_ipv6(netlink, undo, bridge, own)
    _bring_up(netlink, undo, bridge, IFF_UP | (IFF_PROMISC if promisc else 0), own, is_new=is_new)
    return bridge


def _filter_vlans(netlink: Netlink, bridge: Message) -> Message:
    """Make a bridge filter VLANs, and return it as it is then. Raise UnsupportedField if the kernel cannot."""
    filtering = _with_data({"index": bridge["index"]}, {"IFLA_BR_VLAN_FILTERING": 1})
    netlink.request(RTM_NEWLINK, filtering, 0, (errno.EOPNOTSUPP,))
    changed = links.require(netlink, bridge["IFLA_IFNAME"])
    if not filters_vlans(changed):
        raise _no_vlan_filtering(bridge["IFLA_IFNAME"])
    return changed


def _bring_up(netlink: Netlink, undo: Undo, bridge: Message, flags: int, own: Ports, *, is_new: bool) -> None:
    """Set flags of a bridge that lacks them. The same request marks a new one as set up."""
    if not is_new and bridge["flags"] & flags == flags:  # a concurrent call may have brought a new one up already
        return
    change = links.flags_request(bridge["index"], flags, flags)
    if is_new:
        change.message |= {"IFLA_IFALIAS": NEW_ALIAS, "IFLA_GROUP": 0}
    netlink.batch([change])
    if not is_new:
        name = bridge["IFLA_IFNAME"]
        undo.push(f"set {name} as it was", lambda: _set_back_unless_used(netlink, bridge, flags, own))


def _begin(netlink: Netlink, undo: Undo, name: str, mtu: int, own: Ports, **how: Any) -> None:
    """Create a bridge, which undo removes if it is still down. Do nothing if another call was faster."""
    mac = create(netlink, name, mtu, **how)
    if mac:
        undo.push(f"remove bridge {name}", lambda: _remove_if_unfinished(netlink, name, mac, own))


def _refuse_advertisements(netlink: Netlink, bridge: Message, *, is_new: bool) -> None:
    """Make a bridge ignore router advertisements, unless an old one has a route or an address from them."""
    name = bridge["IFLA_IFNAME"]
    if not is_new:
        if sysctl.read(f"ipv6/conf/{name}/accept_ra") in ("0", None):
            return
        from shared.net import forwarding

        if bridge["index"] in forwarding.learned_links(netlink):
            return
    sysctl.refuse_advertisements(name)


def attach(
    netlink: Netlink, undo: Undo, name: str, join_requests: Callable[[Message], list[Request]], **how: Any
) -> Message:
    """Make a link a port of the bridge with the requests that `join_requests(bridge)` returns. Return the bridge.

    `how` is for `ensure`. If a concurrent ADD fails and removes the bridge just found, create it again and retry.
    Raises TryAgainLater if the bridge has all the ports that it can have.
    """
    for _ in range(ATTACH_TRIES):
        bridge: Message = {}
        try:
            bridge = ensure(netlink, undo, name, **how)
            add_port(netlink, bridge, join_requests(bridge))
        except links.NoLink:
            continue
        except NetlinkError as error:
            is_gone = links.by_index(netlink, bridge["index"]) is None if bridge else error.errno == errno.ENODEV
            if not is_gone:
                raise
        else:
            return bridge
    raise InternalError(f"bridge {name} was removed {ATTACH_TRIES} times while a port joined it")


def add_port(netlink: Netlink, bridge: Message, requests: list[Request]) -> None:
    """Send the requests that make a link a port of the bridge; raise TryAgainLater if the bridge is full."""
    try:
        netlink.batch(requests)
    except NetlinkError as error:
        if error.errno != errno.EXFULL:
            raise
        raise TryAgainLater(full(bridge["IFLA_IFNAME"])) from None


def full(name: str) -> str:
    """Return the message about a bridge that cannot have another port."""
    return (
        f"bridge {name} is full: it has {MOST_PORTS} ports, the most that Linux allows;"
        " delete pods or attach some to another bridge"
    )


def enable_ipv6(netlink: Netlink, undo: Undo, bridge: Message, own: Ports) -> None:
    """Enable IPv6 on a new bridge if it is disabled there: the host's sysctls may disable it on new links.

    Raises InternalError if `refuses_ipv6` returns a reason.
    """
    index, path = bridge["index"], _disable_ipv6(bridge)
    if sysctl.read(path) != "1":
        return
    if refuses_ipv6(bridge):
        raise InternalError(refuses_ipv6(bridge))

    def disable() -> None:
        if links.by_index(netlink, index) and not has_other_ports(netlink, index, *own):
            sysctl.write(path, "1")

    undo.push(f"disable IPv6 on {bridge['IFLA_IFNAME']}", disable)
    sysctl.write(path, "0")


def refuses_ipv6(bridge: Message) -> str:
    """Return why the bridge can have no IPv6 address: an administrator disabled IPv6 on it. Empty if it can.

    The suite enables IPv6 on its own bridges before they are up. A bridge that is down counts as new: a killed ADD may
    have left it.
    """
    is_new = bridge.get("IFLA_IFALIAS") == NEW_ALIAS or not bridge["flags"] & IFF_UP
    if is_new or sysctl.read(_disable_ipv6(bridge)) != "1":
        return ""
    key = f"net.ipv6.conf.{bridge['IFLA_IFNAME']}.disable_ipv6"
    return (
        f"bridge {bridge['IFLA_IFNAME']} is to have an IPv6 gateway address, but {key} is 1; run sysctl -w {key}=0, or"
        " leave the IPv6 ranges out"
    )


def is_ipv6_off(name: str) -> bool:
    """Return True if IPv6 is disabled on the bridge, or will be when it is created, or the kernel lacks IPv6."""
    disabled = sysctl.read(f"ipv6/conf/{name}/disable_ipv6")
    if disabled is None and sysctl.read(f"ipv4/conf/{name}/forwarding") is None:
        disabled = sysctl.read("ipv6/conf/default/disable_ipv6")  # there is no such bridge yet
    return disabled != "0"


def _disable_ipv6(bridge: Message) -> str:
    return f"ipv6/conf/{bridge['IFLA_IFNAME']}/disable_ipv6"


def create(
    netlink: Netlink, name: str, mtu: int, *, vlan_filtering: bool = False, fdb_max_learned: int | None = None,
    mac: str = "",
) -> str:  # fmt: skip
    """Create a bridge, still down. Return its MAC, empty if a concurrent call was faster."""
    mac = mac or random_mac()
    data: Message = {"IFLA_BR_VLAN_FILTERING": 1} if vlan_filtering else {}
    if fdb_max_learned is not None:
        data["IFLA_BR_FDB_MAX_LEARNED"] = fdb_max_learned
    message = _with_data({"IFLA_IFNAME": name, "IFLA_ADDRESS": mac, "IFLA_GROUP": HALF_MADE_GROUP}, data)
    if mtu:
        message["IFLA_MTU"] = mtu
    try:
        netlink.request(RTM_NEWLINK, message, NLM_F_CREATE | NLM_F_EXCL)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            return ""
        if vlan_filtering and error.errno == errno.EOPNOTSUPP:
            raise _no_vlan_filtering(name) from None
        raise
    return mac


def _no_vlan_filtering(name: str) -> UnsupportedField:
    return UnsupportedField(f'"vlan" and "vlanTrunk" need a kernel whose bridges filter VLANs; that of {name} cannot')


def random_mac() -> str:
    """Return a random MAC, locally administered and unicast."""
    mac = bytearray(posix.urandom(6))
    mac[0] = (mac[0] & 0xFC) | 0x02
    return mac.hex(":")


def keep_mac_requests(bridge: Message) -> list[Request]:
    """Return requests that make the bridge keep its MAC when a port joins; one without a MAC gets a random one.

    A bridge whose MAC nobody set takes the lowest of its ports'. If the MAC was set, return no request: the kernel
    flushes the neighbours of a link whose MAC is set, even to the same.
    """
    name, mac = bridge["IFLA_IFNAME"], bridge["IFLA_ADDRESS"]
    # compare the MAC too: /sys may show another network namespace, with a bridge of the same name
    if _sysfs(name, "address") == mac and _sysfs(name, "addr_assign_type") == NET_ADDR_SET:
        return []
    return [Request(RTM_NEWLINK, {"index": bridge["index"], "IFLA_ADDRESS": random_mac() if mac == NO_MAC else mac})]


def _sysfs(link: str, attribute: str) -> str:
    """Return a link's attribute from sysfs, empty if it cannot be read."""
    try:
        descriptor = posix.open(f"/sys/class/net/{link}/{attribute}", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return posix.read(descriptor, 4096).decode().strip()
    except OSError:  # EINVAL: the link was deleted in the meantime
        return ""
    finally:
        posix.close(descriptor)


def change_request(index: int, data: Message) -> Request:
    """Return the request that sets attributes of a bridge (IFLA_BR_*)."""
    return Request(RTM_NEWLINK, _with_data({"index": index}, data))


def _with_data(message: Message, data: Message) -> Message:
    info = {"IFLA_INFO_KIND": "bridge", "IFLA_INFO_DATA": data} if data else {"IFLA_INFO_KIND": "bridge"}
    return {**message, "IFLA_LINKINFO": info}


def filters_vlans(bridge: Message) -> bool:
    """Return True if a bridge keeps VLANs apart."""
    return bool(data_of(bridge).get("IFLA_BR_VLAN_FILTERING"))


def default_vlan(bridge: Message) -> int:
    """Return the VLAN that each new port of the bridge joins untagged, 0: none."""
    return int(data_of(bridge).get("IFLA_BR_VLAN_DEFAULT_PVID", 0))


def data_of(bridge: Message) -> Message:
    """Return the attributes of a bridge (IFLA_BR_*)."""
    data: Message = bridge["IFLA_LINKINFO"].get("IFLA_INFO_DATA", {})
    return data


def scan_ports(netlink: Netlink, index: int, take: Callable[[Iterator[Message]], Read]) -> Read:
    """Have `take` read the links whose master is the bridge with that index, and return its result."""

    def ports(stream: Iterator[Message]) -> Read:
        return take(link for link in stream if link.get("IFLA_MASTER") == index)

    return netlink.scan(RTM_GETLINK, {"IFLA_MASTER": index}, ports)


def has_other_ports(netlink: Netlink, bridge: int, *own: int) -> bool:
    """Return True if the bridge has ports beside a failed call's own: they need the things that the call made.

    `own` are the indexes of the call's port, its other end, and the uplinks, which need nothing.
    """

    def is_own(port: Message) -> bool:
        # compare the index of the other end only if that is in this namespace, as of a VLAN gateway port
        return port["index"] in own or ("IFLA_LINK_NETNSID" not in port and port.get("IFLA_LINK") in own)

    return not scan_ports(netlink, bridge, lambda ports: all(map(is_own, ports)))


def remove_if_new(netlink: Netlink, name: str, uplinks: Ports) -> None:
    """Remove a bridge that the suite created, if no pod was ever attached to it and it has no port but uplinks.

    Each failing ADD calls this when its own port is gone. So if several fail at once, the last one removes the bridge
    that one of them created.
    """
    bridge = links.get(netlink, name)
    is_new = bridge is not None and bridge.get("IFLA_IFALIAS") == NEW_ALIAS
    if bridge is not None and is_new and not has_other_ports(netlink, bridge["index"], *uplinks):
        links.delete_index(netlink, bridge["index"])


def note_attached(netlink: Netlink, undo: Undo, bridge: Message, own: Ports) -> None:
    """Note that a pod is attached: from now on the bridge stays. Undo notes the opposite, as in `ensure`."""
    if bridge.get("IFLA_IFALIAS") != NEW_ALIAS:
        return
    index = bridge["index"]

    def set_back() -> None:
        if not has_other_ports(netlink, index, *own):
            netlink.request(RTM_NEWLINK, {"index": index, "IFLA_IFALIAS": NEW_ALIAS}, 0, (errno.ENODEV,))

    netlink.request(RTM_NEWLINK, {"index": index, "IFLA_IFALIAS": ""})
    undo.push(f"note that {bridge['IFLA_IFNAME']} has had no pod", set_back)


def _remove_if_unfinished(netlink: Netlink, name: str, mac: str, own: Ports) -> None:
    """Remove the bridge if it has never come up and still has this MAC: another call may have created it anew."""
    bridge = links.get(netlink, name)
    is_unfinished = bridge is not None and bridge["IFLA_ADDRESS"] == mac and not bridge["flags"] & IFF_UP
    if bridge is not None and is_unfinished and not has_other_ports(netlink, bridge["index"], *own):
        links.delete_index(netlink, bridge["index"])


def _set_back_unless_used(netlink: Netlink, before: Message, changed: int, own: Ports) -> None:
    if links.by_index(netlink, before["index"]) and not has_other_ports(netlink, before["index"], *own):
        netlink.batch([links.flags_request(before["index"], before["flags"], changed)])


def join_requests(index: int, bridge: int, *, alias: str, hairpin: bool, isolated: bool) -> list[Request]:
    """Return requests that make a link, which stays down, a port of the bridge."""
    member: Message = {"index": index, "IFLA_MASTER": bridge}
    if alias:
        member["IFLA_IFALIAS"] = alias
    requests = [Request(RTM_NEWLINK, member)]
    if hairpin or isolated:
        port = {"IFLA_BRPORT_MODE": int(hairpin), "IFLA_BRPORT_ISOLATED": int(isolated)}
        info = {"IFLA_INFO_SLAVE_KIND": "bridge", "IFLA_INFO_SLAVE_DATA": port}
        requests.append(Request(RTM_NEWLINK, {"index": index, "IFLA_LINKINFO": info}))
    return requests


def port_problems(bridge: Message, port: Message, *, hairpin: bool = False, isolated: bool = False) -> list[str]:
    """Return a text if a link is not a port of the bridge, is down, or lacks a wanted flag of ports."""
    name = port["IFLA_IFNAME"]
    is_member = port.get("IFLA_MASTER") == bridge["index"]
    found = [] if is_member else [f"link {name} is not a port of {bridge['IFLA_IFNAME']}"]
    flags = port.get("IFLA_LINKINFO", {}).get("IFLA_INFO_SLAVE_DATA", {}) if is_member else {}
    wanted = (("IFLA_BRPORT_MODE", hairpin, "hairpin mode"), ("IFLA_BRPORT_ISOLATED", isolated, "isolation"))
    found += [f"port {name} is without {what}" for key, is_on, what in wanted if is_on and flags.get(key) == 0]
    return found if port["flags"] & IFF_UP else [*found, f"link {name} is down"]
