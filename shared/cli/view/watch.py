"""Turn netlink messages into events of a pod network: report only changes to the known state.

A link in a pod tells its pod by its alias, or by the host's link at its other end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.cli.view.namespaces import (
    PLACES,
    RT_SCOPE_LINK,
    KernelLink,
    View,
    address_of,
    id_of,
    kernel_link,
    named_paths,
    printable,
    view,
    view_inside,
)
from shared.cli.view.survey import Pods, identity, is_port
from shared.cli.view.topology import ON_MASTERS, Pod
from shared.cni.errors import CniError
from shared.runtime.cache import Cache

HERE = -1  # in place of a namespace's id: the host itself
RT_TABLE_MAIN, RT_TABLE_LOCAL = 254, 255  # linux/rtnetlink.h
RTM_F_CLONED = 0x200  # linux/rtnetlink.h: an entry of a cache, not a route
IFA_F_DADFAILED = 0x8  # linux/if_addr.h
MARKED = (*ON_MASTERS, "tun", "dummy")  # kinds of pods' links that have the alias themselves
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
        self.met = {path: identity(path) for path in named_paths()}
        self.pods = Pods.read(self.ip, self.cache, assigns=True)
        self.views = {HERE: host}
        self.ends: dict[
            int, dict[int, KernelLink]
        ] = {}  # the host's ends of pods' links, by the namespace that they lead to
        for link in host.links.values():
            self._learn(link)
        for netnsid in {*self.ends, *self.pods.paths}:
            self.views[netnsid] = self._view(netnsid)

    def _view(self, netnsid: int) -> View:
        try:
            return view_inside(self.pods.paths[netnsid])
        except (KeyError, CniError, OSError):  # without a name, or deleted in the meantime
            return View({}, {})

    def meet(self) -> Iterator[Event]:
        """Give ids to new namespaces, whose events then arrive, and return the events that they have missed."""
        paths = named_paths()
        self.met = {path: self.met[path] for path in paths if path in self.met}
        for path in paths:
            now = identity(path)
            if self.met.get(path) == now:
                continue
            netnsid = id_of(self.ip, path, assigns=True)
            if netnsid is None:  # not mounted yet
                continue
            self.met[path] = now
            self.pods.paths[netnsid] = path
            if netnsid not in self.views:
                missed, self.views[netnsid] = self._view(netnsid), View({}, {})
                for link in missed.links.values():
                    yield from self._link(link, netnsid, gone=False)
                for index, addresses in missed.addresses.items():
                    self.views[netnsid].addresses[index] = addresses
                    for address in addresses:
                        event = Event(
                            subject="address", change="added", link=self._name(netnsid, index), detail=address
                        )
                        yield from self._placed(event, netnsid, index)

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
        number = len({netnsid for netnsid in self.views if netnsid != HERE and self._has_pod(netnsid)})
        namespaces = f"{number} namespace{'' if number == 1 else 's'} of pods"
        text = f"{namespaces}; bridges: {' '.join(bridges) or 'none'}"
        return Event(subject="monitor", change="started", detail=text)

    def _has_pod(self, netnsid: int) -> bool:
        path, links = self.pods.paths.get(netnsid, ""), self.views[netnsid].links.values()
        return netnsid in self.ends or any(self.pods.owner_inside(link, path) for link in links)

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
                self.met.pop(self.pods.paths.pop(message.get("NETNSA_NSID"), ""), None)
            elif kind in ("RTM_NEWLINK", "RTM_DELLINK"):
                if message["family"] == socket.AF_UNSPEC:  # not a bridge's own message about its port
                    gone = kind == "RTM_DELLINK"
                    link = kernel_link(message)
                    yield from self._link(link if gone else self._marked(link, netnsid), netnsid, gone=gone)
            elif kind in ("RTM_NEWADDR", "RTM_DELADDR"):
                yield from self._address(message, netnsid, gone=kind == "RTM_DELADDR")
            elif kind in ("RTM_NEWROUTE", "RTM_DELROUTE"):
                yield from self._route(message, netnsid, gone=kind == "RTM_DELROUTE")
            elif kind in ("RTM_NEWRULE", "RTM_DELRULE") and netnsid != HERE:
                yield from self._rule(message, netnsid, gone=kind == "RTM_DELRULE")

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
        if netnsid != HERE and before and link.owner and not before.owner:  # its plugin has just marked it
            before = None
        links[link.index] = link
        if netnsid == HERE:
            self._learn(link)
        for event in self._differences(before, link, netnsid, gone=gone):
            yield from self._placed(event, netnsid, link.index)
        if gone:
            if netnsid == HERE and link.netnsid is not None and link.peer is not None:
                self.ends.get(link.netnsid, {}).pop(link.peer, None)  # its messages come after that of the id's end
            links.pop(link.index)
            self.views[netnsid].addresses.pop(link.index, None)

    def _marked(self, link: KernelLink, netnsid: int) -> KernelLink:
        """Return a pod's link as it is now if its plugin has marked it: the kernel sends no message about that."""
        if netnsid == HERE or link.owner or link.kind not in MARKED:
            return link
        now = self._view(netnsid).links.get(link.index)
        return now if now and now.owner else link

    def _differences(self, before: KernelLink | None, link: KernelLink, netnsid: int, *, gone: bool) -> Iterator[Event]:
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
                    yield Event(subject="link", change=change, link=name, detail=self._name(netnsid, master))

    def _address(self, message: Any, netnsid: int, *, gone: bool) -> Iterator[Event]:
        if message["scope"] >= RT_SCOPE_LINK:
            return
        links, addresses = (found := self.views.setdefault(netnsid, View({}, {}))).links, found.addresses
        address, index = address_of(message), message["index"]
        if index in links and (marked := self._marked(links[index], netnsid)) is not links[index]:
            yield from self._link(marked, netnsid, gone=False)
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

    def _rule(self, message: Any, netnsid: int, *, gone: bool) -> Iterator[Event]:
        """Return the event of a rule for packets from an address of a pod's link."""
        source = message.get("src")
        held = self.views[netnsid].addresses if netnsid in self.views else {}
        for index in [index for index, known in held.items() if source in [one.partition("/")[0] for one in known]]:
            change, detail = "removed" if gone else "added", f"from {source} lookup {message.get('table')}"
            event = Event(subject="rule", change=change, link=self._name(netnsid, index), detail=detail)
            yield from self._placed(event, netnsid, index)

    def _placed(self, event: Event, netnsid: int, index: int) -> Iterator[Event]:
        """Return the event with its place and pod. Return none if the link concerns neither a pod nor a bridge."""
        if netnsid == HERE:
            link = self.views[HERE].links.get(index)
            if link and (event.change == "left" or self._is_ours(link)):
                is_of_pod = link.netnsid is not None or link.owner is not None
                yield replace(event, pod=self._pod(lambda: self._at_other_end(link)) if is_of_pod else None)
            return
        pod = self._pod(lambda: self._inside(netnsid, index))
        if pod is not None:
            yield replace(event, netnsid=netnsid, pod=pod)

    def _inside(self, netnsid: int, index: int) -> Pod | None:
        """Return the pod of a link in a namespace. For other links there, return its name alone.

        The pod's only attachment has its lo, too.
        """
        path, ends = self.pods.paths.get(netnsid, ""), self.ends.get(netnsid, {})
        link = self.views[netnsid].links.get(index) if netnsid in self.views else None
        if index not in ends and link and (pod := self.pods.owner_inside(link, path)):
            return replace(pod, netns=printable(path) or pod.netns)
        if index in ends:
            return self._at_other_end(ends[index])
        if not ends:
            return None
        beside = self._at_other_end(next(iter(ends.values())))
        if len(ends) == 1 and link and not link.kind:
            return beside
        return Pod(namespace=beside.namespace, name=beside.name, netns=beside.netns)

    def _is_ours(self, link: KernelLink) -> bool:
        leads_into_a_pod = link.netnsid is not None or link.owner is not None
        return leads_into_a_pod or link.kind == "bridge" or is_port(link, self.views[HERE].links)

    def _pod(self, find: Callable[[], Pod | None]) -> Pod | None:
        pod = find()
        if (pod is None or not pod.name) and self._stamp() != self.stamp:
            self.stamp = self._stamp()  # the runtime caches an attachment after it was created
            self.pods = Pods.read(self.ip, self.cache)
            pod = find()
        return pod

    def _at_other_end(self, link: KernelLink) -> Pod:
        """Return the pod of the host's link that leads to it."""
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
