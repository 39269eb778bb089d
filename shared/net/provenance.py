"""Tell the host's virtual link that a pod has from one that the pod made in its place.

A pod with CAP_NET_ADMIN chooses kind, index, name, MAC and alias of its links. But both ends of a pair that it makes
are in its own namespace, or in one that it has made. The kernel numbers other namespaces for each namespace, and no pod
can give a number to another namespace.
"""

from __future__ import annotations

from shared.net import links, netns, uppers
from shared.net.netlink import Netlink
from shared.net.wire import RTM_GETNSID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message
    from shared.net.netns import Netns

NOWHERE = ("dummy", "ifb")  # kinds of links that lead nowhere


def is_hosts(link: Message, pod_netns: Netns) -> bool:
    """Return True if a pod's link is hardware, leads nowhere, or leads out of the namespaces that the pod makes.

    These have no mount point on the host. A link without another end, such as a tap, counts as the pod's.
    """
    if links.kind(link) in ("", *NOWHERE):
        return True
    number = link.get("IFLA_LINK_NETNSID", -1)
    if number < 0:
        return False
    with pod_netns:
        inside = Netlink()
    if _number(inside, pod_netns.home) == number:
        return True
    for path in uppers.mounted():
        found = netns.open_if_there(path)
        if found is None:
            continue
        try:
            if _number(inside, found.descriptor) == number:
                return True
        finally:
            found.close()
    return False


def _number(inside: Netlink, descriptor: int) -> int:
    """Return the number that an open namespace has in the socket's, negative for none."""
    found = inside.get(RTM_GETNSID, {"NETNSA_FD": descriptor})
    return int(found["NETNSA_NSID"]) if found else -1
