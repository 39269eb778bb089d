"""Put a tap beside an interface of a pod: each sends the frames that the other one receives (tc-mirred(8)).

A virtual machine at the tap is then in the interface's place. It has to use the interface's MAC and addresses.
"""

from __future__ import annotations

from shared.cni.errors import InternalError
from shared.net import links, placements, renamed, shaping, sublinks, sysctl, taps
from shared.net.netlink import Netlink
from shared.net.qdisc import TrafficControl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo


def add(undo: Undo, owner: Owner, pod_netns: Netns, name: str, *, context: str, rights: dict[str, Any]) -> Message:
    """Create a tap with the MAC and the MTU of the attachment's interface, and connect both. Return the tap.

    `context` and `rights` are those of taps.make. Raise InternalError for an interface that is a tap itself or without
    Ethernet, and LinkExists if a link has the name.
    """
    from shared.net.masters import ARPHRD_ETHER

    with pod_netns:
        inside, tc = Netlink(), TrafficControl()
    link = links.require(inside, owner.ifname)
    if links.kind(link) == taps.KIND:
        raise InternalError(f'"redirect": {owner.ifname} is a tap itself: a virtual machine can use it without another')
    if link["ifi_type"] != ARPHRD_ETHER:
        raise InternalError(f'"redirect": {owner.ifname} is no Ethernet interface: it has no frames for a tap')
    attributes = {"IFLA_ADDRESS": link["IFLA_ADDRESS"], "IFLA_MTU": link["IFLA_MTU"]}
    taps.make(undo, owner, pod_netns, name, attributes, context=context, rights=rights)
    with pod_netns:
        sysctl.prefer(f"ipv6/conf/{name}/disable_ipv6", "1")  # the machine gets no frames of the pod's own
    tap = links.require(inside, name)
    links.set_up(inside, tap["index"])
    shaping.redirect(tc, undo, tap, link)
    shaping.redirect(tc, undo, link, tap)  # last: from now on the pod itself receives nothing
    return links.require(inside, name)


def find_differences(owner: Owner, pod_netns: Netns, name: str, rights: dict[str, Any]) -> list[str]:
    """Return a text for each difference from the state that `add` left."""
    with pod_netns:
        inside, tc = Netlink(), TrafficControl()
    link, tap = links.get(inside, owner.ifname), links.get(inside, name)
    if link is None or tap is None or links.kind(tap) != taps.KIND:
        lost = owner.ifname if link is None else f"tap {name}"
        return [f"{lost} is missing in {pod_netns.path}"]
    found = taps.right_problems(tap, rights)
    for one, other in ((link, tap), (tap, link)):
        if other["index"] not in shaping.redirections(tc, one["index"]).values():
            found.append(f"frames that {one['IFLA_IFNAME']} receives do not pass to {other['IFLA_IFNAME']}")
    for text, attribute in (("MTU", "IFLA_MTU"), ("MAC", "IFLA_ADDRESS")):
        if tap[attribute] != link[attribute]:
            found.append(f"tap {name} has {text} {tap[attribute]}, and {owner.ifname} has {link[attribute]}")
    return found


def remove(owner: Owner, pod_netns: Netns | None) -> None:
    """Delete the attachment's tap, under any name, and the redirection to it. Do nothing if there is none.

    The namespace is that of the interface's note if it is unknown (None). An interface without a note needs none: the
    kernel deletes taps with their namespace.
    """
    for place in placements.namespaces(placements.read(owner), pod_netns):
        for one in (owner, *renamed.former_owners(owner, place)):
            sublinks.remove_in(place, one, taps.KIND)
        with place:
            inside, tc = Netlink(), TrafficControl()
        link = links.get(inside, owner.ifname)
        if link is not None:
            shaping.remove_stale_redirections(tc, link["index"])
