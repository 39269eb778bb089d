"""Attributes of a link under the names of configuration keys: MAC, MTU, queue length and flags."""

from __future__ import annotations

import errno

from shared.net import links
from shared.net.netlink import Netlink, NetlinkError, Request
from shared.net.wire import IFF_ALLMULTI, IFF_PROMISC, IFF_UP, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.net.netlink import Message

MOST_ANNOUNCED = 1024  # addresses; a pod may have any number
FLAGS = {"promisc": IFF_PROMISC, "allmulti": IFF_ALLMULTI}
NUMBERS = {"mtu": "IFLA_MTU", "txQLen": "IFLA_TXQLEN"}


def read(link: Message) -> dict[str, Any]:
    """Return a link's attributes by the names of the configuration's keys."""
    flags = {name: bool(link["flags"] & bit) for name, bit in FLAGS.items()}
    numbers = {name: link.get(attribute, 0) for name, attribute in NUMBERS.items()}
    return {"mac": link.get("IFLA_ADDRESS", ""), **numbers, **flags}


def write(pod: Netlink, link: Message, attributes: dict[str, Any]) -> None:
    """Set attributes of a link. Take it down for a new MAC if its driver answers EBUSY."""
    index = link["index"]
    requests = [
        Request(RTM_NEWLINK, {"index": index, NUMBERS[name]: attributes[name]})
        for name in NUMBERS
        if name in attributes
    ]
    mask = sum(bit for name, bit in FLAGS.items() if name in attributes)
    if mask:
        flags = sum(bit for name, bit in FLAGS.items() if attributes.get(name))
        requests.append(links.flags_request(index, flags, mask))
    if "mac" in attributes:
        change = {"index": index, "IFLA_ADDRESS": attributes["mac"]}
        try:
            pod.request(RTM_NEWLINK, change)
        except NetlinkError as error:
            if error.errno != errno.EBUSY or not link["flags"] & IFF_UP:
                raise
            links.set_down(pod, index)
            try:
                pod.request(RTM_NEWLINK, change)
            finally:
                links.set_up(pod, index)
    pod.batch(requests)


def announce(pod: Netlink, link: Message, mac: str) -> None:
    """Announce the new MAC of a link to its neighbours."""
    from shared.net import addresses, announce, wait

    name = link["IFLA_IFNAME"]
    if link["IFLA_OPERSTATE"] == links.IF_OPER_UP:  # a driver may have needed the link down
        wait.carrier(pod, name)
    announce.Announcement(name, mac, addresses.usable(pod, link["index"], MOST_ANNOUNCED)).send()
