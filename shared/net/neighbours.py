"""Add, delete and look up permanent neighbour entries: the MAC of an address, which nobody is asked for."""

from __future__ import annotations

import errno

from shared.cni.ip import Address
from shared.net import neighbour_wire
from shared.net.addresses import FAMILIES
from shared.net.neighbour_wire import NUD_PERMANENT, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH
from shared.net.netlink import Netlink, Request
from shared.net.wire import NLM_F_CREATE, NLM_F_REPLACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shared.net.netlink import Message


class Neighbours(Netlink):
    """A netlink socket for the neighbour entries of the thread's network namespace."""

    tables = neighbour_wire

    def write(self, index: int, mac: str, of: Iterable[Address]) -> None:
        """Give addresses a permanent entry with the MAC on the link of that index. Replace the entries they have."""
        flags = NLM_F_CREATE | NLM_F_REPLACE
        entry = {"state": NUD_PERMANENT, "NDA_LLADDR": mac}
        self.batch([Request(RTM_NEWNEIGH, {**_name(index, one), **entry}, flags) for one in of])

    def remove(self, index: int, mac: str, of: Iterable[Address]) -> None:
        """Delete the permanent entries of addresses on a link that have this MAC."""
        gone = (errno.ENOENT, errno.ENXIO, errno.ENODEV)
        has = self.with_mac(index, mac)
        self.batch([Request(RTM_DELNEIGH, _name(index, one), tolerate=gone) for one in of if one in has])

    def with_mac(self, index: int, mac: str) -> set[Address]:
        """Return the addresses that have a permanent entry with this MAC on a link."""

        def take(stream: Iterator[Message]) -> set[Address]:
            return {
                Address.parse(one["NDA_DST"])
                for one in stream
                if one["ifindex"] == index and one["state"] & NUD_PERMANENT and one.get("NDA_LLADDR") == mac
            }

        return {one for family in FAMILIES.values() for one in self.scan(RTM_GETNEIGH, {"family": family}, take)}


def _name(index: int, address: Address) -> Message:
    return {"family": FAMILIES[address.version], "ifindex": index, "NDA_DST": str(address)}
