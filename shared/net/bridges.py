"""Bridges and their ports."""

from __future__ import annotations

import errno
import posix
import sys

from shared.cni.errors import InternalError, TryAgainLater, UnsupportedField
from shared.net import addresses, links, sysctl
from shared.net.netlink import NetlinkError, Request
from shared.net.wire import (
    BR_BOOLOPT_NO_LL_LEARN,
    IFF_PROMISC,
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
    from typing import Any

    from shared.cni.ip import Prefix
    from shared.net.netlink import Message, Netlink, Read
    from shared.undo import Undo

    Ports = tuple[int, ...]  # indexes of links

ATTACH_TRIES = 10
MOST_PORTS = 1023  # BR_MAX_PORTS in net/bridge/br_private.h, less the number 0, which stands for none
CALLS = (
    ("bridge-nf-call-iptables", "IFLA_BR_NF_CALL_IPTABLES"), ("bridge-nf-call-ip6tables", "IFLA_BR_NF_CALL_IP6TABLES"),
)  # fmt: skip
NO_MAC = "00:00:00:00:00:00"  # of a bridge that has lost its last port
NET_ADDR_SET = "3"  # linux/netdevice.h
# A bridge's group from when an ADD makes it until the ADD has set it up. An alias cannot be given with the request that
# makes the bridge.
HALF_MADE_GROUP = 0x70796369
NEW_ALIAS = "pycni: no pod attached yet"  # a bridge's, from when an ADD makes it until one succeeds


def ensure(
    netlink: Netlink,
    undo: Undo,
    name: str,
    *,
    own: Ports,
    mtu: int,
    vlan_filtering: bool,
    promisc: bool,
    ipv6: bool,
    dad: bool,
    fdb_max_learned: int | None = None,
) -> Message:
    """The bridge of that name, made if need be, up, deaf to router advertisements; `mtu` in bytes, 0 for the default.

    `fdb_max_learned` is for a new one; `limit_learning` sets it on any.
    A bridge that has a route or an address from advertisements goes on taking them.

    A new bridge gets a MAC of its own, which then does not change with its ports, and unless `dad` a link-local address
    that can be used at once. A bridge is new until an ADD has set it up, even if the ADD that made it was killed. What
    is done is taken back unless the bridge has other ports than those in `own` by then; but a bridge that has begun to
    filter VLANs goes on, since a concurrent call may count on it, and a new one that is up is `remove_if_new`'s to
    remove. Raises InternalError if the name is another kind of link's, UnsupportedField if the kernel cannot filter
    VLANs.
    """
    bridge = links.get(netlink, name)
    if bridge is None:
        _begin(netlink, undo, name, mtu, own, vlan_filtering=vlan_filtering, fdb_max_learned=fdb_max_learned)
        bridge = links.require(netlink, name)
    is_new = bridge.get("IFLA_GROUP") == HALF_MADE_GROUP
    if links.kind(bridge) != "bridge":
        raise InternalError(f"link {name} already exists but is not a bridge")
    if vlan_filtering and not filters_vlans(bridge):
        netlink.request(RTM_NEWLINK, _with_vlan_filtering({"index": bridge["index"]}), 0, (errno.EOPNOTSUPP,))
        bridge = links.require(netlink, name)
        if not filters_vlans(bridge):
            raise _no_vlan_filtering(name)
    _refuse_advertisements(netlink, bridge, is_new=is_new)
    if is_new and not dad:
        sysctl.prefer(f"ipv6/conf/{name}/accept_dad", "0")
    if ipv6:
        enable_ipv6(netlink, undo, bridge, own)
    wanted = IFF_UP | (IFF_PROMISC if promisc else 0)
    if is_new or bridge["flags"] & wanted != wanted:  # another call may have brought a new one up already
        change = links.flags_request(bridge["index"], wanted, wanted)
        if is_new:
            change.message |= {"IFLA_IFALIAS": NEW_ALIAS, "IFLA_GROUP": 0}
        netlink.batch([change])
        if not is_new:
            undo.push(f"set {name} as it was", lambda: _set_back_unless_used(netlink, bridge, wanted, own))
    return bridge


def _begin(netlink: Netlink, undo: Undo, name: str, mtu: int, own: Ports, **how: Any) -> None:
    """Create a bridge that is removed if the call fails before it is up. Do nothing if another call was faster."""
    mac = create(netlink, name, mtu, **how)
    if mac:
        undo.push(f"remove bridge {name}", lambda: _remove_if_unfinished(netlink, name, mac, own))


def _refuse_advertisements(netlink: Netlink, bridge: Message, *, is_new: bool) -> None:
    """Make a bridge ignore router advertisements, unless an older one has a route or an address by them."""
    name = bridge["IFLA_IFNAME"]
    if not is_new and sysctl.read(f"ipv6/conf/{name}/accept_ra") not in ("0", None):
        from shared.net import forwarding

        if bridge["index"] in forwarding.learned_links(netlink):
            return
    sysctl.refuse_advertisements(name)


def attach(netlink: Netlink, undo: Undo, name: str, joining: Callable[[Message], list[Request]], **how: Any) -> Message:
    """Make a link a port of the bridge by the requests that `joining` returns; `how` is for `ensure`.

    Raises TryAgainLater if the bridge has all the ports that it can have.

    A concurrent ADD that fails takes back the bridge that it made, which can be the one just found: then another.
    """
    for _ in range(ATTACH_TRIES):
        bridge: Message = {}
        try:
            bridge = ensure(netlink, undo, name, **how)
            add_port(netlink, bridge, joining(bridge))
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
    """Return the message about a bridge that can have no more ports."""
    return (
        f"bridge {name} is full: it has {MOST_PORTS} ports, the most that Linux allows;"
        " delete pods or attach some to another bridge"
    )


def enable_ipv6(netlink: Netlink, undo: Undo, bridge: Message, own: Ports) -> None:
    """Enable IPv6 on a bridge that is new, which has it disabled if the host's sysctls say so for new links.

    Raises InternalError if `refuses_ipv6`.
    """
    index, path = bridge["index"], _disable_ipv6(bridge)
    if sysctl.read(path) != "1":
        return
    if refuses_ipv6(bridge):
        raise InternalError(refuses_ipv6(bridge))

    def take_back() -> None:
        if links.by_index(netlink, index) and not has_other_ports(netlink, index, *own):
            sysctl.write(path, "1")

    undo.push(f"disable IPv6 on {bridge['IFLA_IFNAME']}", take_back)
    sysctl.write(path, "0")


def refuses_ipv6(bridge: Message) -> str:
    """Return why the bridge can have no IPv6 address, empty if it can: IPv6 was disabled on it on purpose.

    The suite enables IPv6 on its own bridges before they are up. A bridge that is down may be one that a killed ADD
    left, and is as good as new.
    """
    is_new = bridge.get("IFLA_IFALIAS") == NEW_ALIAS or not bridge["flags"] & IFF_UP
    if is_new or sysctl.read(_disable_ipv6(bridge)) != "1":
        return ""
    key = f"net.ipv6.conf.{bridge['IFLA_IFNAME']}.disable_ipv6"
    return (
        f"bridge {bridge['IFLA_IFNAME']} is to have an IPv6 gateway address, but {key} is 1; run sysctl -w {key}=0, or"
        " leave the IPv6 ranges out"
    )


def _disable_ipv6(bridge: Message) -> str:
    return f"ipv6/conf/{bridge['IFLA_IFNAME']}/disable_ipv6"


def create(
    netlink: Netlink, name: str, mtu: int, *, vlan_filtering: bool = False, fdb_max_learned: int | None = None
) -> str:
    """Create a bridge, still down, and return its MAC, which is empty if a concurrent call was faster."""
    mac = random_mac()
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
    """A locally administered unicast MAC."""
    mac = bytearray(posix.urandom(6))
    mac[0] = (mac[0] & 0xFC) | 0x02
    return mac.hex(":")


def keep_mac_requests(bridge: Message) -> list[Request]:
    """Requests to be sent before a port joins, so that the bridge keeps its MAC; one that has none gets its own.

    A bridge whose MAC nobody set takes the lowest of its ports'. If the MAC was set, return no request: the kernel
    forgets all neighbours of a link whose MAC is set, even to what it is.
    """
    name, mac = bridge["IFLA_IFNAME"], bridge["IFLA_ADDRESS"]
    # /sys may show another network namespace, with a bridge of the same name
    if _sysfs(name, "address") == mac and _sysfs(name, "addr_assign_type") == NET_ADDR_SET:
        return []
    return [Request(RTM_NEWLINK, {"index": bridge["index"], "IFLA_ADDRESS": random_mac() if mac == NO_MAC else mac})]


def _sysfs(link: str, attribute: str) -> str:
    """Return a link's attribute as sysfs shows it; empty if it does not."""
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


def _with_vlan_filtering(message: Message) -> Message:
    return _with_data(message, {"IFLA_BR_VLAN_FILTERING": 1})


def _with_data(message: Message, data: Message) -> Message:
    info = {"IFLA_INFO_KIND": "bridge", "IFLA_INFO_DATA": data} if data else {"IFLA_INFO_KIND": "bridge"}
    return {**message, "IFLA_LINKINFO": info}


def filters_vlans(bridge: Message) -> bool:
    """Whether a bridge, as the kernel shows it, keeps VLANs apart."""
    return bool(_data(bridge).get("IFLA_BR_VLAN_FILTERING"))


def default_vlan(bridge: Message) -> int:
    """Return the VLAN into which the bridge puts each new port, untagged; 0: none."""
    return int(_data(bridge).get("IFLA_BR_VLAN_DEFAULT_PVID", 0))


def _data(bridge: Message) -> Message:
    data: Message = bridge["IFLA_LINKINFO"].get("IFLA_INFO_DATA", {})
    return data


def scan_ports(netlink: Netlink, index: int, take: Callable[[Iterator[Message]], Read]) -> Read:
    """Have `take` read the links whose master is the bridge with that index, and return its result."""

    def ports(stream: Iterator[Message]) -> Read:
        return take(link for link in stream if link.get("IFLA_MASTER") == index)

    return netlink.scan(RTM_GETLINK, {"IFLA_MASTER": index}, ports)


def has_other_ports(netlink: Netlink, bridge: int, *own: int) -> bool:
    """Return True if the bridge has ports beside a failed call's own, which then need the things that the call made.

    The uplinks are among `own`: they need nothing.
    """

    def is_own(port: Message) -> bool:
        # the other end's index says something here only if it is in this namespace, as a VLAN gateway port's is
        return port["index"] in own or ("IFLA_LINK_NETNSID" not in port and port.get("IFLA_LINK") in own)

    return not scan_ports(netlink, bridge, lambda ports: all(map(is_own, ports)))


def remove_if_new(netlink: Netlink, name: str, uplinks: Ports) -> None:
    """Removes a bridge that the suite made and to which no pod was ever attached, if it has no port but uplinks.

    Each failing ADD asks this when its own port is gone, so that of several that fail at once the last one removes the
    bridge that one of them made.
    """
    bridge = links.get(netlink, name)
    is_new = bridge is not None and bridge.get("IFLA_IFALIAS") == NEW_ALIAS
    if bridge is not None and is_new and not has_other_ports(netlink, bridge["index"], *uplinks):
        netlink.request(RTM_DELLINK, {"index": bridge["index"]}, 0, (errno.ENODEV,))


def note_attached(netlink: Netlink, undo: Undo, bridge: Message, own: Ports) -> None:
    """Note that a pod is attached: from now on the bridge stays. Taken back as in `ensure`."""
    if bridge.get("IFLA_IFALIAS") != NEW_ALIAS:
        return
    index = bridge["index"]

    def take_back() -> None:
        if not has_other_ports(netlink, index, *own):
            netlink.request(RTM_NEWLINK, {"index": index, "IFLA_IFALIAS": NEW_ALIAS}, 0, (errno.ENODEV,))

    netlink.request(RTM_NEWLINK, {"index": index, "IFLA_IFALIAS": ""})
    undo.push(f"note that {bridge['IFLA_IFNAME']} has had no pod", take_back)


def _remove_if_unfinished(netlink: Netlink, name: str, mac: str, own: Ports) -> None:
    """Remove the bridge with this MAC if it has never come up. The name alone may be another one's by now."""
    bridge = links.get(netlink, name)
    is_unfinished = bridge is not None and bridge["IFLA_ADDRESS"] == mac and not bridge["flags"] & IFF_UP
    if bridge is not None and is_unfinished and not has_other_ports(netlink, bridge["index"], *own):
        netlink.request(RTM_DELLINK, {"index": bridge["index"]}, 0, (errno.ENODEV,))


def _set_back_unless_used(netlink: Netlink, before: Message, changed: int, own: Ports) -> None:
    if links.by_index(netlink, before["index"]) and not has_other_ports(netlink, before["index"], *own):
        netlink.batch([links.flags_request(before["index"], before["flags"], changed)])


def limit_learning(netlink: Netlink, undo: Undo, bridge: Message, most: int, own: Ports) -> None:
    """Let the bridge learn at most that many MACs, 0: any number; this is undone as in `ensure`.

    Raises UnsupportedField if the kernel has no such limit.
    """
    index, before = bridge["index"], learning_limit(bridge)
    if before == most:
        return

    def set_back() -> None:
        if links.by_index(netlink, index) and not has_other_ports(netlink, index, *own):
            netlink.request(RTM_NEWLINK, _with_data({"index": index}, {"IFLA_BR_FDB_MAX_LEARNED": before}))

    netlink.request(RTM_NEWLINK, _with_data({"index": index}, {"IFLA_BR_FDB_MAX_LEARNED": most}))
    undo.push(f"set the number of MACs that {bridge['IFLA_IFNAME']} may learn as it was", set_back)


def learning_limit(bridge: Message) -> int:
    """Return the number of MACs that the bridge may learn, 0 for any.

    Raises UnsupportedField if the kernel has no such limit: it passes over the attribute, and does not show it.
    """
    limit = _data(bridge).get("IFLA_BR_FDB_MAX_LEARNED")
    if limit is None:
        raise UnsupportedField(
            f'"fdbMaxLearned" needs Linux 6.8 or later: bridge {bridge["IFLA_IFNAME"]} has no limit of learned MACs;'
            " leave the key out, or boot a newer kernel"
        )
    return int(limit)


def learn_no_link_local_requests(bridge: Message) -> list[Request]:
    """Requests that make the bridge learn no MACs from frames to link-local groups, which no rule could drop before.

    None where it is so, or the kernel knows no other way (before Linux 5.0).
    """
    if learns_link_local(bridge) is not True:
        return []
    bit = 1 << BR_BOOLOPT_NO_LL_LEARN
    return [Request(RTM_NEWLINK, _with_data({"index": bridge["index"]}, {"IFLA_BR_MULTI_BOOLOPT": _options(bit, bit)}))]


def learns_link_local(bridge: Message) -> bool | None:
    """Whether the bridge learns from frames to link-local groups; None where the kernel does not say."""
    options = _data(bridge).get("IFLA_BR_MULTI_BOOLOPT", b"")
    return None if not options else not int.from_bytes(options[:4], sys.byteorder) >> BR_BOOLOPT_NO_LL_LEARN & 1


def _options(bits: int, mask: int) -> bytes:
    return bits.to_bytes(4, sys.byteorder) + mask.to_bytes(4, sys.byteorder)


def require_netfilter() -> None:
    """Raises UnsupportedField where the kernel cannot have a bridge's packets go through iptables."""
    if sysctl.read(f"bridge/{CALLS[0][0]}") is None:
        raise UnsupportedField("this kernel has no br_netfilter, or it is not loaded (modprobe br_netfilter)")


def calls_netfilter(bridge: Message) -> set[bool]:
    """Whether what this bridge passes on goes through iptables, and through ip6tables: two answers where they differ.

    By the bridge's own setting or by its network namespace's.
    """
    data = _data(bridge)
    return {bool(data.get(attribute)) or sysctl.read(f"bridge/{name}") == "1" for name, attribute in CALLS}


def call_netfilter(netlink: Netlink, undo: Undo, bridge: Message, *, on: bool, own: Ports) -> None:
    """Has what the bridge passes on go through iptables and ip6tables, or not, which is taken back as in `ensure`.

    Off, it is so for the whole network namespace: to the kernel either's word for it is enough (br_nf_pre_routing).
    """
    data = _data(bridge)
    before = {attribute: data.get(attribute, 0) for _, attribute in CALLS}
    index = bridge["index"]

    def take_back() -> None:
        if links.by_index(netlink, index) and not has_other_ports(netlink, index, *own):
            netlink.request(RTM_NEWLINK, _with_data({"index": index}, before))

    wanted = dict.fromkeys(before, int(on))
    if before != wanted:
        netlink.request(RTM_NEWLINK, _with_data({"index": index}, wanted))
        undo.push(f"set {bridge['IFLA_IFNAME']}'s calls of iptables as they were", take_back)
    for name, _ in () if on else CALLS:
        sysctl.ensure(f"bridge/{name}", "0")


def ensure_gateway(
    netlink: Netlink, undo: Undo, link: Message, prefix: Prefix, *, bridge: int, own: Ports, force: bool, dad: bool
) -> None:
    """Give a bridge, or the VLAN gateway port `link` of it, the pods' gateway address unless it has it.

    Taken back unless a port that is not in `own` has come to use it. Raises InternalError where the link has
    another IPv4 address or an overlapping IPv6 one, which `force` removes instead.
    """
    index, name = link["index"], link["IFLA_IFNAME"]
    existing = addresses.of_link(netlink, index)
    if prefix in existing:
        return
    if prefix.version == 6:
        enable_ipv6(netlink, undo, link, (*own, index))
    conflicts = conflicting(existing, prefix)
    if conflicts and not force:
        raise InternalError(conflict(name, prefix, conflicts[0]))

    def take_back() -> None:
        if has_other_ports(netlink, bridge, *own, index):
            return
        addresses.remove(netlink, index, prefix)
        netlink.batch([addresses.add_request(index, other, dad=False, tolerate=(errno.EEXIST,)) for other in conflicts])

    undo.push(f"take {prefix} off {name}", take_back)
    for other in conflicts:
        addresses.remove(netlink, index, other)
    netlink.batch([addresses.add_request(index, prefix, dad=dad, tolerate=(errno.EEXIST,))])


def conflicting(existing: list[Prefix], gateway: Prefix) -> list[Prefix]:
    """Return those of a link's addresses beside which it cannot have the gateway address."""
    if gateway in existing:
        return []
    return [
        other
        for other in existing
        if other.version == gateway.version and (gateway.version == 4 or other.overlaps(gateway))
    ]


def conflict(name: str, gateway: Prefix, existing: Prefix) -> str:
    """Return the message about a gateway address that a link cannot have beside another one."""
    return (
        f"{name} already has an IP address different from {gateway}: {existing};"
        ' delete that address, or set "forceAddress" to replace it'
    )


def join_requests(index: int, bridge: int, *, alias: str, hairpin: bool, isolated: bool) -> list[Request]:
    """Requests that make a link a port of the bridge, still down."""
    member: Message = {"index": index, "IFLA_MASTER": bridge}
    if alias:
        member["IFLA_IFALIAS"] = alias
    requests = [Request(RTM_NEWLINK, member)]
    if hairpin or isolated:
        port = {"IFLA_BRPORT_MODE": int(hairpin), "IFLA_BRPORT_ISOLATED": int(isolated)}
        info = {"IFLA_INFO_SLAVE_KIND": "bridge", "IFLA_INFO_SLAVE_DATA": port}
        requests.append(Request(RTM_NEWLINK, {"index": index, "IFLA_LINKINFO": info}))
    return requests
