"""Create, find and delete a pod's veth pair, by names on the host that derive from the attachment."""

from __future__ import annotations

from shared.cni import delegate
from shared.cni.plugin import readable_result
from shared.net import links, sysctl
from shared.net.netlink import Netlink, Request
from shared.net.owner import is_host_link
from shared.net.wire import IFF_UP, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from shared.cni.call import Call
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo


def make(host: Netlink, undo: Undo, owner: Owner, pod_netns: Netns, *, mac: str, mtu: int) -> Message:
    """Create the pair with one end in the pod, both ends down. Return the host's end; undo deletes the pair.

    `mac` is that of the pod's end, `mtu` is in bytes, 0 for the kernel's default. The host's end has no alias yet: give
    it one with the request that brings it up or makes it a port, since GC takes a link without alias for half-made. Its
    accept_ra is set to 0 if possible. That suffices for a bridge's port; for another link call
    sysctl.refuse_advertisements.

    Raises LinkExists if the pod has a link of that name, or its end on the host belongs to a living pod.
    """

    def create() -> None:
        links.add_veth(
            host, name=owner.host_link, mac=owner.host_mac, peer=owner.ifname, peer_mac=mac, mtu=mtu,
            peer_netns=pod_netns,
        )  # fmt: skip

    try:
        create()
    except links.LinkExists:
        from shared.net import wait

        if _has_link(pod_netns, owner.ifname) or not wait.gone(host, owner.host_link):
            raise
        # the attachment's namespace was deleted, and the kernel has not come to the link yet
        links.delete(host, owner.host_link)
        create()
    undo.push(f"remove link {owner.host_link}", lambda: links.delete(host, owner.host_link))
    port = links.require(host, owner.host_link)
    sysctl.prefer(f"ipv6/conf/{owner.host_link}/accept_ra", "0")
    return port


def _has_link(pod_netns: Netns, name: str) -> bool:
    with pod_netns:
        return links.get(Netlink(), name) is not None


def up_request(index: int, owner: Owner) -> Request:
    """Return the request that gives the host's end its alias and brings it up."""
    message: Message = {"index": index, "flags": IFF_UP, "change": IFF_UP}
    if owner.alias:
        message["IFLA_IFALIAS"] = owner.alias
    return Request(RTM_NEWLINK, message)


def find(host: Netlink, owner: Owner, pod_netns: Netns, inside: Message | None) -> Message | None:
    """Return the host's end of the pair whose end in the pod is `inside`, None if there is none.

    The reference plugins give host ends random names, so that only the pod's end leads to them.
    Raises peers.Strange if that leads to another attachment's link.
    """
    port = links.get(host, owner.host_link)
    if port is None and inside is not None:
        from shared.net import peers

        port = peers.of_link(host, pod_netns, owner, inside)
    return port


def remove(host: Netlink, owner: Owner, _pod_netns: Netns | None = None) -> bool:
    """Delete the pair that `make` created, even if the pod's namespace is gone. Return True if there was one."""
    return links.delete(host, owner.host_link)


def remove_foreign(host: Netlink, call: Call, owner: Owner, pod_netns: Netns | None, bridge: object = None) -> bool:
    """Delete the pair that another suite created for the attachment. Return True if there was one.

    `bridge` is the configuration's bridge, of which the host's end may be a port; see peers.made_elsewhere.
    """
    from shared.net import peers

    end = peers.made_elsewhere(
        host, owner, pod_netns, readable_result(call), bridge, lambda found: delegate.holders(call, found)
    )
    if end is not None:
        links.delete_index(host, end["index"])
    return end is not None


def is_left_behind(link: Message, network: str, valid: AbstractSet[str]) -> bool:
    """Return True if a link is the host's end of a pair of the network, and none of the `valid` names.

    False if an ADD may be at work on it.
    """
    name = link["IFLA_IFNAME"]
    if links.kind(link) != "veth" or not is_host_link(name, network) or name in valid:
        return False
    from shared.net import left_behind

    return left_behind.is_left_behind(link, network)
