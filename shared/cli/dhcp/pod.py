"""A pod's link as the daemon sees it: whether it is there, the addresses that a lease gives it, the way out of it."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from shared.cli.dhcp.placing import Placing, replace_ipv6
from shared.cni.errors import InternalError, InvalidNetns, UnknownContainer
from shared.net import links, netns, sysctl, vlans
from shared.net.bridges import LEAST_IPV6_MTU, filters_vlans
from shared.net.netlink import Netlink, Request
from shared.net.netns import Netns
from shared.net.wire import RTM_NEWLINK

if TYPE_CHECKING:
    from shared.cli.dhcp.content import Content
    from shared.net.netlink import Message


class PodNetns(Netns):
    """A pod's open namespace. All of them share one descriptor of the daemon's own: a daemon has many pods."""

    def __init__(self, path: str, descriptor: int) -> None:
        super().__init__(path, descriptor, _home())

    def close(self) -> None:
        """Close the namespace: an open one cannot be deleted."""
        os.close(self.descriptor)


@cache
def _home() -> int:
    return os.open(netns.OWN, os.O_RDONLY | os.O_CLOEXEC)


def find(stored: dict[str, Any], host_prefix: str) -> Pod:
    """Return the pod of a stored lease. Raise UnknownContainer only if its namespace or its link is certainly gone.

    Any other CniError, or an OSError, says that the pod cannot be reached now. The daemon may not see a path that the
    plugin sees, so only a path that it saw at ADD proves that a pod is gone. The link's MAC proves nothing: tuning, or
    the pod itself, may have changed it.
    """
    gone = UnknownContainer(f"the pod of {stored['network']} {stored['containerID']} is gone")
    path, identity = str(stored["netns"]), str(stored["identity"])
    try:
        seen = os.stat(host_prefix + path)
    except (FileNotFoundError, NotADirectoryError):
        seen = None
    if seen is None or not identity.startswith(f"{seen.st_dev}:{seen.st_ino}:"):
        raise gone if stored.get("wasVisible", True) else InvalidNetns(f"{path} is not visible here")
    opened = netns.open_netns(host_prefix + path)
    try:
        pod = Pod(PodNetns(path, os.dup(opened.descriptor)), str(stored["ifname"]), host_prefix)
    finally:
        opened.close()
    try:
        is_there = pod.identity == identity and pod.link() is not None
    except BaseException:
        pod.close()
        raise
    if not is_there:
        pod.close()
        raise gone
    return pod


class Pod:
    """The link `ifname` in an open network namespace."""

    def __init__(self, inside: Netns, ifname: str, host_prefix: str) -> None:
        self.inside = inside
        self.ifname = ifname
        self.path = host_prefix + inside.path
        self.identity = inside.identity()
        self._placing = Placing()

    def close(self) -> None:
        """Close the namespace: while it is open, it and its links stay."""
        self.inside.close()

    def is_visible(self) -> bool:
        """Return True if the namespace is at its path, also as this process sees it."""
        with suppress(OSError):
            seen, own = os.stat(self.path), os.fstat(self.inside.descriptor)
            return (seen.st_dev, seen.st_ino) == (own.st_dev, own.st_ino)
        return False

    def link(self) -> dict[str, Any] | None:
        """Return the link, None without it."""
        with self.inside:
            return links.get(Netlink(), self.ifname)

    def require_link(self) -> None:
        """Raise InvalidNetns without the link."""
        if self.link() is None:
            raise InvalidNetns(f"there is no link {self.ifname} in {self.inside.path}")

    def way_out(self) -> str:
        """Return the host's link to the network beyond the pod's: a veth's bridge, or a macvlan's master.

        Return an empty text if there is none: the host is in another VLAN of the bridge than the pod, for example. A
        RELEASE can leave through it when the pod's link is gone.
        """
        link = self.link()
        if not link or "IFLA_LINK_NETNSID" not in link:
            return ""
        host = Netlink()
        outer = links.by_index(host, link.get("IFLA_LINK", 0))
        if outer and links.kind(link) == "veth":
            is_pair = links.kind(outer) == "veth" and outer.get("IFLA_LINK") == link["index"]
            bridge = links.by_index(host, outer["IFLA_MASTER"]) if is_pair and outer.get("IFLA_MASTER") else None
            outer = bridge if bridge and _is_in_same_vlan(host, bridge, outer) else None
        return str(outer["IFLA_IFNAME"]) if outer else ""

    def set_mtu(self, mtu: int) -> None:
        """Lower the link's MTU to a server's. The master's MTU, which it began with, is the most that it can have.

        Raises CniError if the link cannot have it. Below 1280 bytes the kernel would delete the IPv6 addresses.
        """
        with self.inside:
            if mtu < LEAST_IPV6_MTU and sysctl.read(f"ipv6/conf/{self.ifname}/disable_ipv6") == "0":
                raise InternalError(f"IPv6, which link {self.ifname} has, needs {LEAST_IPV6_MTU} bytes")
            inside = Netlink()
            link = links.get(inside, self.ifname)
            if link and mtu < link["IFLA_MTU"]:
                inside.batch([Request(RTM_NEWLINK, {"index": link["index"], "IFLA_MTU": mtu})])

    def replace(self, old: Content | None, new: Content | None) -> None:
        """Change the link from the old content to the new one. Raise CniError if the kernel refuses."""
        with self.inside:
            inside = Netlink()
            link = links.get(inside, self.ifname)
            if link is None:
                return
            content = old or new
            replace = replace_ipv6 if content and content.address.version == 6 else self._placing.replace
            replace(inside, link, old, new)


def _is_in_same_vlan(host: Netlink, bridge: Message, port: Message) -> bool:
    """Return True if frames that the host sends through the bridge are in the port's native VLAN."""
    if links.kind(bridge) != "bridge" or not filters_vlans(bridge):
        return True
    own, its = (
        {vid for vid, is_native in vlans.of_port(host, one["index"]).items() if is_native} for one in (bridge, port)
    )
    return own == its
