"""Find the host's end of a pod's veth pair, and check that it belongs to the attachment.

A pod can rename, renumber and replace its links, and a path can lead to another pod by now. So an index from inside the
pod is only a hint. The link on the host shows reliably the index and the namespace of its other end.
"""

from __future__ import annotations

from shared.cni.errors import CniError, InternalError
from shared.cni.names import is_link_name
from shared.net import addresses, links
from shared.net.netlink import Netlink
from shared.net.owner import is_pod_link, parse_alias
from shared.net.wire import RTM_GETNSID
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from shared.cni.ip import Address
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner

    Found = TypeVar("Found")


ADDRESSES = 64  # of a pod: the leases of so many are looked up


class Strange(InternalError):
    """The pod's interface leads to another attachment's link."""


def attempt(look: Callable[[], Found]) -> Found | None:
    """Return the result of a look into a pod. If it fails, report it and return None: DEL must not depend on a pod."""
    try:
        return look()
    except (CniError, OSError, ValueError) as error:
        complain(str(error))
        return None


def of_pod(host: Netlink, pod_netns: Netns, owner: Owner) -> Message | None:
    """Return the host's end of the pod's interface, None if the interface has none.

    Raises Strange if the link is another attachment's.
    """
    with pod_netns:
        inside = links.get(Netlink(), owner.ifname)
    return of_link(host, pod_netns, owner, inside) if inside else None


def of_link(host: Netlink, pod_netns: Netns, owner: Owner, inside: Message) -> Message | None:
    """Return the host's end of a link in the pod's namespace, None if the link has none. Raises as `of_pod`."""
    index = inside.get("IFLA_LINK", 0)
    end = links.by_index(host, index) if index and links.kind(inside) == "veth" else None
    if end is None or links.kind(end) != "veth" or end.get("IFLA_LINK") != inside["index"]:
        return None
    if end.get("IFLA_LINK_NETNSID") != _number(host, pod_netns):
        return None
    if is_strange(end, owner):
        made_for = "/".join(parse_alias(end.get("IFLA_IFALIAS", "")) or ("another attachment",))
        raise Strange(f"{owner.ifname} in {pod_netns.path} leads to {end['IFLA_IFNAME']}, the link of {made_for}")
    return end


def _number(host: Netlink, pod_netns: Netns) -> int | None:
    """Return the number of the pod's namespace on the host; None if it is the host's own namespace."""
    if pod_netns.is_own:
        return None
    found = host.get(RTM_GETNSID, {"NETNSA_FD": pod_netns.descriptor})
    return found["NETNSA_NSID"] if found else -1


def is_strange(link: Message, owner: Owner) -> bool:
    """Return True if the alias or name of a host link belongs to another attachment.

    Compare the container id and the interface only: the network may have been renamed.
    """
    name, alias = link["IFLA_IFNAME"], link.get("IFLA_IFALIAS", "")
    made_for = parse_alias(alias)
    if made_for:
        return made_for[1:] != (owner.container_id, owner.ifname)
    return name != owner.host_link and is_pod_link(name, alias)


def is_own(link: Message, owner: Owner) -> bool:
    """Return True if the alias or name of a host link belongs to this attachment."""
    made_for = parse_alias(link.get("IFLA_IFALIAS", ""))
    return link["IFLA_IFNAME"] == owner.host_link or (made_for is not None and not is_strange(link, owner))


def names(result: Result | None) -> set[str]:
    """Return the names of the host links in a result."""
    return {one.name for one in result.interfaces if not one.sandbox} if result else set()


def made_elsewhere(
    host: Netlink, owner: Owner, pod_netns: Netns | None, result: Result | None, bridge: object,
    holders: Callable[[list[Address]], set[str]],
) -> Message | None:  # fmt: skip
    """Return the host's end of a pair that another suite created for the attachment, None if it may be another pod's.

    The result names the end. Without a result only the path leads to it, and the path can lead to another pod by now.
    `holders` returns the containers with leases of the pod's addresses. If there is none, the end must be a port of the
    bridge. `bridge` is the unchecked value in the configuration.
    """
    if pod_netns is None or pod_netns.is_own or names(result):
        return of_result(host, owner, result)
    end = attempt(lambda: of_pod(host, pod_netns, owner))
    leased_to = attempt(lambda: holders(_addresses(pod_netns, owner.ifname))) if end else None
    if end is None or leased_to is None:
        return None
    if leased_to:
        return end if leased_to == {owner.container_id} else None
    master = links.get(host, bridge) if isinstance(bridge, str) and is_link_name(bridge) else None
    return end if master and end.get("IFLA_MASTER") == master["index"] else None


def _addresses(pod_netns: Netns, ifname: str) -> list[Address]:
    """Return the first addresses of the pod's interface. A pod may have any number of them."""
    with pod_netns:
        inside = Netlink()
        link = links.get(inside, ifname)
        return addresses.usable(inside, link["index"], ADDRESSES) if link else []


def of_result(host: Netlink, owner: Owner, result: Result | None) -> Message | None:
    """Return the host's end in the attachment's result, of a pair that another suite created.

    Name and MAC must match, since another pod's link may have the name by now. The other end must be in another
    namespace.
    """
    for interface in result.interfaces if result else ():
        link = links.get(host, interface.name) if not interface.sandbox and is_link_name(interface.name) else None
        if link is None or links.kind(link) != "veth" or "IFLA_LINK_NETNSID" not in link or is_strange(link, owner):
            continue
        if interface.mac and link.get("IFLA_ADDRESS") == interface.mac.lower():
            return link
    return None
