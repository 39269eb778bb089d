"""Refuse a MAC that a configuration demands if another link on the bridge has it."""

from __future__ import annotations

from shared.cni.config import invalid
from shared.net import bridges, links
from shared.net.netlink import NetlinkError
from shared.net.wire import RTM_GETLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message, Netlink
    from shared.net.netns import Netns
    from shared.net.owner import Owner


def require_free(netlink: Netlink, bridge: Message, key: str, mac: str, *, own: str) -> None:
    """Raise InvalidConfig if a MAC is that of the bridge, of a port, or of the link behind a port.

    A switch sends the frames of such a MAC to one of the two. `own` is the port whose other end is to have the MAC. A
    link behind a port can be seen only if it is the other end of a veth pair.

    If the holder is behind a port, wait for it to go. The kernel deletes the pair of a deleted pod some time after the
    pod (closed netlink sockets keep a namespace for an RCU grace period).
    """
    holder, may_go = _find_holder(netlink, bridge, mac, own)
    if may_go:
        from shared.net import wait  # a call that finds no holder does not need it

        wait.links_change(lambda: not _find_holder(netlink, bridge, mac, own)[0])
        holder, _ = _find_holder(netlink, bridge, mac, own)
    if holder:
        raise invalid(key, mac, f"is the MAC of {holder}; choose another one, or leave it out to get a free one")


def require_free_of_pod(host: Netlink, pod_netns: Netns, link: Message, owner: Owner, key: str, mac: str) -> None:
    """Raise InvalidConfig if another link on the bridge of a pod's veth pair has the MAC. `link` is the pod's."""
    from shared.net import peers

    port = peers.of_link(host, pod_netns, owner, link)
    bridge = links.by_index(host, port["IFLA_MASTER"]) if port and port.get("IFLA_MASTER") else None
    if port and bridge and links.kind(bridge) == "bridge":
        require_free(host, bridge, key, mac, own=port["IFLA_IFNAME"])


def _find_holder(netlink: Netlink, bridge: Message, mac: str, own: str) -> tuple[str, bool]:
    """Return the text that names the link with this MAC, empty if there is none, and True if it is in another pod."""
    name = bridge["IFLA_IFNAME"]
    if bridge.get("IFLA_ADDRESS") == mac:
        return f"bridge {name}", False
    for port in bridges.scan_ports(netlink, bridge["index"], list):
        port_name = port["IFLA_IFNAME"]
        alias = f" ({port['IFLA_IFALIAS']})" if port.get("IFLA_IFALIAS") else ""
        if port.get("IFLA_ADDRESS") == mac:
            return f"port {port_name}{alias} of bridge {name}", False
        behind = _other_end(netlink, port) if port_name != own else None
        if behind and behind.get("IFLA_ADDRESS") == mac:
            return f"link {behind['IFLA_IFNAME']} behind port {port_name}{alias} of bridge {name}", True
    return "", False


def _other_end(netlink: Netlink, port: Message) -> Message | None:
    """Return the other end of a veth, in any living namespace. None if it is gone, or for another kind of link."""
    if links.kind(port) != "veth":
        return None
    query = {"index": port.get("IFLA_LINK", 0)}
    number = port.get("IFLA_LINK_NETNSID", -1)
    try:
        return netlink.get(RTM_GETLINK, query if number < 0 else {**query, "IFLA_IF_NETNSID": number})
    except NetlinkError:  # EINVAL: the namespace was deleted, and the kernel has yet to delete the pair
        return None
