"""Turn netlink messages into events of a pod network: report only changes to the known state.

The host's link that leads to a namespace tells the namespace's pod.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.cli.view.namespaces import (
    PLACES,
    RT_SCOPE_LINK,
    KernelLink,
    View,
    address_of,
    kernel_link,
    printable,
    view,
    view_inside,
)
from shared.cli.view.survey import Pods, is_port
from shared.cli.view.topology import Pod
from shared.cni.errors import CniError
from shared.runtime.cache import Cache

HERE = -1  # in place of a namespace's id: the host itself
RT_TABLE_MAIN, RT_TABLE_LOCAL = 254, 255  # linux/rtnetlink.h
RTM_F_CLONED = 0x200  # linux/rtnetlink.h: an entry of a cache, not a route
IFA_F_DADFAILED = 0x8  # linux/if_addr.h
LINK_LOCAL = ("fe80:", "ff00:")  # their routes come and go with each link


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change of the `subject` link, address, route or monitor, on the host or in a pod."""

    subject: str
    change: str
    link: str = ""
    detail: str = ""
    netnsid: int = HERE
    pod: Pod | None = None


class Watch:
    """The known links and addresses, by namespace id and index, to find the change in a message."""

    def __init__(self, ip: Any, cache: Cache) -> None:
        self.ip, self.cache = ip, cache
        self.own_networks: dict[str, set[str]] = {}  # the networks of a bridge's pods since the start
        self._read()

    def _read(self) -> None:
        host = view(self.ip)
        self.stamp = self._stamp()
        self.pods = Pods.read(self.ip, self.cache)
        self.views = {HERE: host}
        self.ends: dict[
            int, dict[int, KernelLink]
        ] = {}  # the host's ends of pods' links, by the namespace that they lead to
        for link in host.links.values():
            self._learn(link)
        for netnsid in self.ends:
            try:
                self.views[netnsid] = view_inside(self.pods.paths[netnsid])
            except (KeyError, CniError, OSError):  # without a name, or deleted in the meantime
                self.views[netnsid] = View({}, {})

    def _stamp(self) -> tuple[int, ...]:
        """Return a value that changes when a namespace or a cached result is added or removed."""
        return tuple(_changed(place) for place in (self.cache.results, *PLACES))

    def _learn(self, link: KernelLink) -> None:
        """Record the namespace that a link leads to, and the networks that a bridge serves."""
        if link.netnsid is not None and link.peer is not None:
            self.ends.setdefault(link.netnsid, {})[link.peer] = link
        links = self.views[HERE].links
        if link.owner and is_port(link, links) and link.master is not None:
            self.own_networks.setdefault(links[link.master].name, set()).add(link.owner[0])

    def start_event(self) -> Event:
        """Return the first event: from now on no event is missed."""
        bridges = [link.name for link in self.views[HERE].links.values() if link.kind == "bridge"]
        text = f"{len(self.ends)} namespaces of pods; bridges: {' '.join(bridges) or 'none'}"
        return Event(subject="monitor", change="started", detail=text)

    def read_again(self) -> list[Event]:
        """Read everything again after the kernel dropped messages."""
        self._read()
        text = "the kernel dropped events that came too fast; the current state was read again"
        return [Event(subject="monitor", change="missed", detail=text)]

    def events_in(self, messages: Iterator[Any], netnsid: int) -> Iterator[Event]:
        """Return the events in messages from a namespace."""
        for message in messages:
            kind = message["event"]
            if message["header"].get("error") is not None:
                continue
            if kind == "RTM_DELNSID" and netnsid == HERE:  # The kernel will assign the id to another namespace.
                self.ends.pop(message.get("NETNSA_NSID"), None)
                self.views.pop(message.get("NETNSA_NSID"), None)
            elif kind in ("RTM_NEWLINK", "RTM_DELLINK"):
                if message["family"] == socket.AF_UNSPEC:  # not a bridge's own message about its port
                    yield from self._link(kernel_link(message), netnsid, gone=kind == "RTM_DELLINK")
            elif kind in ("RTM_NEWADDR", "RTM_DELADDR"):
                yield from self._address(message, netnsid, gone=kind == "RTM_DELADDR")
            elif kind in ("RTM_NEWROUTE", "RTM_DELROUTE"):
                yield from self._route(message, netnsid, gone=kind == "RTM_DELROUTE")

    def concerns(self, event: Event, network: str) -> bool:
        """Return True if an event concerns the network: one of its pods, or a bridge that has had one."""
        if not network or event.subject == "monitor" or (event.pod and event.pod.network == network):
            return True
        return event.netnsid == HERE and network in self.own_networks.get(event.link, ())

    def _link(self, link: KernelLink, netnsid: int, *, gone: bool) -> Iterator[Event]:
        links = self.views.setdefault(netnsid, View({}, {})).links
        before = links.get(link.index)
        # The message of a link with a deleted other end does not name that end.
        if before and link.netnsid is None:
            link = replace(link, netnsid=before.netnsid, peer=before.peer)
        elif before and before.netnsid is None:  # it has just become a pod's link
            before = None
        links[link.index] = link
        if netnsid == HERE:
            self._learn(link)
        for event in self._differences(before, link, gone=gone):
            yield from self._placed(event, netnsid, link.index)
        if gone:
            links.pop(link.index)
            self.views[netnsid].addresses.pop(link.index, None)

    def _differences(self, before: KernelLink | None, link: KernelLink, *, gone: bool) -> Iterator[Event]:
        name = link.name
        if gone:
            yield Event(subject="link", change="disappeared", link=name)
            return
        if before is None:
            yield Event(subject="link", change="appeared", link=name, detail=f"{link.kind or 'device'}, {link.state}")
        else:
            if before.name != name:
                yield Event(subject="link", change="renamed", link=name, detail=f"from {before.name}")
            if before.state != link.state:
                yield Event(subject="link", change=link.state, link=name)
            if before.mtu != link.mtu:
                yield Event(subject="link", change="mtu", link=name, detail=f"{before.mtu} → {link.mtu}")
        masters = (before.master if before else None, link.master)
        if masters[0] != masters[1]:
            for change, master in zip(("left", "joined"), masters, strict=True):
                if master is not None:
                    yield Event(subject="link", change=change, link=name, detail=self._name(HERE, master))

    def _address(self, message: Any, netnsid: int, *, gone: bool) -> Iterator[Event]:
        if message["scope"] >= RT_SCOPE_LINK:
            return
        addresses = self.views.setdefault(netnsid, View({}, {})).addresses
        address, index = address_of(message), message["index"]
        known = addresses.get(index, ())
        rest = tuple(one for one in known if one != address)
        addresses[index] = rest if gone else (*rest, address)
        if not gone and message["flags"] & IFA_F_DADFAILED:
            change = "duplicate"
        elif gone or address not in known:
            change = "removed" if gone else "added"
        else:  # a change of its lifetime, or the end of duplicate detection
            return
        name = self._name(netnsid, index) or printable(message.get("label"))
        event = Event(subject="address", change=change, link=name, detail=address)
        yield from self._placed(event, netnsid, index)

    def _route(self, message: Any, netnsid: int, *, gone: bool) -> Iterator[Event]:
        table = message.get("table") or RT_TABLE_MAIN
        where = message.get("dst") or "default"
        if table == RT_TABLE_LOCAL or message["flags"] & RTM_F_CLONED or where.startswith(LINK_LOCAL):
            return
        hops = message.get("multipath") or [message]
        index = hops[0].get("oif")
        if index is None:
            return
        parts = [where if where == "default" else f"{where}/{message['dst_len']}"]
        parts += [f"via {hop.get('gateway')}" for hop in hops if hop.get("gateway")]
        parts += [f"metric {message.get('priority')}"] if message.get("priority") else []
        parts += [f"table {table}"] if table != RT_TABLE_MAIN else []
        change = "removed" if gone else "added"
        event = Event(subject="route", change=change, link=self._name(netnsid, index), detail=" ".join(parts))
        yield from self._placed(event, netnsid, index)

    def _placed(self, event: Event, netnsid: int, index: int) -> Iterator[Event]:
        """Return the event with its place and pod. Return none if the link concerns neither a pod nor a bridge."""
        link = self.views[HERE].links.get(index) if netnsid == HERE else self._end(netnsid, index)
        if link and (netnsid != HERE or event.change == "left" or self._is_ours(link)):
            yield replace(event, netnsid=netnsid, pod=self._pod(link))

    def _end(self, netnsid: int, index: int) -> KernelLink | None:
        """Return the host's end of a pod's link. For the pod's other links, such as lo, return any link to the pod."""
        ends = self.ends.get(netnsid, {})
        return ends.get(index) or next(iter(ends.values()), None)

    def _is_ours(self, link: KernelLink) -> bool:
        leads_into_a_pod = link.netnsid is not None or link.owner is not None
        return leads_into_a_pod or link.kind == "bridge" or is_port(link, self.views[HERE].links)

    def _pod(self, link: KernelLink) -> Pod | None:
        if link.netnsid is None and link.owner is None:
            return None
        pod = self._known(link)
        if not pod.name and self._stamp() != self.stamp:  # The runtime caches an attachment after it was created.
            self.stamp = self._stamp()
            self.pods = Pods.read(self.ip, self.cache)
            pod = self._known(link)
        return pod

    def _known(self, link: KernelLink) -> Pod:
        netnsid, peer = link.netnsid, link.peer
        path = self.pods.paths.get(netnsid, "") if netnsid is not None else ""
        name = self._name(netnsid, peer) if netnsid is not None and peer is not None else ""
        pod = self.pods.owner(link, path, name)
        return replace(pod, netns=printable(path) or pod.netns)

    def _name(self, netnsid: int, index: int) -> str:
        link = self.views[netnsid].links.get(index) if netnsid in self.views else None
        if link:
            return link.name
        end = self.ends.get(netnsid, {}).get(index)
        return end.owner[2] if end and end.owner else ""


def _changed(directory: Path) -> int:
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return 0
