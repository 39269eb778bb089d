"""Put a lease's address and routes on a pod's link, and take them off, in the tables that other plugins chose."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shared.cni.errors import CniError
from shared.cni.result import Route
from shared.net import addresses, announce, link_routes, links, routes, tables
from shared.net.wire import AF_INET, RTM_GETROUTE, RTN_UNICAST, RTPROT_KERNEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.cli.dhcp.content import Content
    from shared.net.netlink import Message, Netlink

PRESENT = (errno.EEXIST,)
MAIN = routes.RT_TABLE_MAIN


class Placing:
    """The parts of leases on one link.

    The main plugin puts the first lease there. sbr and vrf move its routes to tables of their own, and the kernel
    deletes all of a link's routes with its last address. So routes are added to the tables where the former ones were
    found, and the routes of an address that comes back are restored.
    """

    def __init__(self) -> None:
        self._tables: set[int] = set()  # where the last lease's routes were found
        self._tables_of_default: set[int] | None = None  # where its default route was found; None without one
        self._lost: tuple[str, list[Message]] = ("", [])  # the last address that was removed, and others' routes then

    def replace(self, inside: Netlink, link: Message, old: Content | None, new: Content | None) -> None:
        """Change the link from one lease's content to another's. Leave alone all parts that stay.

        Raises CniError if the kernel refuses.
        """
        if old:
            self._remove(inside, link["index"], old, new if new and new.address == old.address else None)
        if new:
            self._add(inside, link, new)

    def _remove(self, inside: Netlink, index: int, old: Content, new: Content | None) -> None:
        """Remove the old routes that the new content lacks, and without new content the address, too."""
        before = _routes(inside, index)
        found = [(route, [one for one in before if _is_same(one, route)]) for route in old.routes]
        if before:  # a link that went down has lost all of them
            self._remember(found)
        kept = [route.to_json() for route in new.routes] if new else []
        own = [one for _, ones in found for one in ones]
        doomed = [one for route, ones in found if route.to_json() not in kept for one in ones]
        inside.batch(link_routes.delete_requests(doomed))
        if new is None:
            self._lost = (str(old.address), [one for one in before if one not in own])
            addresses.remove(inside, index, old.address)
            _restore(inside, [one for one in self._lost[1] if one["proto"] != RTPROT_KERNEL])

    def _remember(self, found: list[tuple[Route, list[Message]]]) -> None:
        """Note the tables of the lease's routes. The tables of those that are lost remain."""
        default = [ones for route, ones in found if not route.dst.length]
        other = [ones for route, ones in found if route.dst.length]
        self._tables = _tables(other) or _tables(default) or self._tables
        self._tables_of_default = _tables(default) if default else None

    def _add(self, inside: Netlink, link: Message, new: Content) -> None:
        index = link["index"]
        is_there = new.address in addresses.of_link(inside, index)
        address = [] if is_there else [addresses.add_request(index, new.address, dad=False, tolerate=PRESENT)]
        if address and self._lost[1] and self._lost[0] == str(new.address):
            inside.batch(address)
            self._bring_back(inside, index)
        present = _routes(inside, index)
        requests = [
            routes.add_request(index, Route(one.dst, one.gw, {**one.extra, "table": table}), None)
            for one in new.routes
            for table in self._targets(inside, link, one)
            if not any(_is_same(found, one) and tables.of_route(found) == table for found in present)
        ]
        for request in requests:
            request.tolerate = PRESENT
        inside.batch([*address, *requests])
        if not is_there:
            announce.Announcement(link["IFLA_IFNAME"], link["IFLA_ADDRESS"], [new.address.address]).send()

    def _bring_back(self, inside: Netlink, index: int) -> None:
        """Restore the routes that the link had with the address. Delete the kernel's new ones that it did not have."""
        lost = self._lost[1]
        _restore(inside, lost)
        had = {link_routes.key(one) for one in lost}
        made = [one for one in _routes(inside, index) if one["proto"] == RTPROT_KERNEL]
        inside.batch(link_routes.delete_requests([one for one in made if link_routes.key(one) not in had]))

    def _targets(self, inside: Netlink, link: Message, route: Route) -> set[int]:
        """Return the tables for a route: not `main` for a default route that would compete with another link's."""
        if not route.dst.length and self._tables_of_default is not None:
            return self._tables_of_default
        master = links.by_index(inside, link["IFLA_MASTER"]) if link.get("IFLA_MASTER") else None
        home = tables.of_vrf(master) if master and links.kind(master) == "vrf" else MAIN
        chosen = self._tables or {home}
        is_rival = not route.dst.length and MAIN in chosen and _has_other_default(inside, link["index"])
        return chosen - {MAIN} if is_rival else chosen


def replace_ipv6(inside: Netlink, link: Message, old: Content | None, new: Content | None) -> None:
    """Change the link from one DHCPv6 lease's address to another's. Its routes are the routers'.

    Raises CniError if the kernel refuses.
    """
    index = link["index"]
    if old and (new is None or new.address != old.address):
        addresses.remove(inside, index, old.address)
    if new and new.address not in addresses.of_link(inside, index):
        inside.batch([addresses.add_request(index, new.address, dad=False, tolerate=PRESENT)])
        announce.Announcement(link["IFLA_IFNAME"], link["IFLA_ADDRESS"], [new.address.address]).send()


def _routes(inside: Netlink, index: int) -> list[Message]:
    return [one for one in link_routes.of_link(inside, index) if one["family"] == AF_INET]


def _tables(found: list[list[Message]]) -> set[int]:
    return {tables.of_route(one) for ones in found for one in ones}


def _is_same(found: Message, route: Route) -> bool:
    return link_routes.destination(found) == route.dst.network and link_routes.gateway(found) == route.gw


def _restore(inside: Netlink, messages: list[Message]) -> None:
    for request in link_routes.add_requests(messages):
        with suppress(CniError):  # it may lead to the address that is gone
            inside.batch([request])


def _has_other_default(inside: Netlink, index: int) -> bool:
    def take(stream: Iterator[Message]) -> bool:
        found = [one for one in stream if not one["dst_len"] and tables.of_route(one) == MAIN]
        return any(one.get("RTA_OIF") != index for one in found)

    like: dict[str, Any] = {"family": AF_INET, "type": RTN_UNICAST}
    return bool(inside.scan(RTM_GETROUTE, like, take))
