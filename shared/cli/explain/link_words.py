"""Describe messages about links: creations, changes, VLANs of a bridge's ports."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from shared.cli.explain.changes import Step
from shared.cli.explain.message import Rest
from shared.net.wire import (
    AF_BRIDGE,
    BRIDGE_VLAN_INFO_PVID,
    BRIDGE_VLAN_INFO_RANGE_BEGIN,
    BRIDGE_VLAN_INFO_RANGE_END,
    BRIDGE_VLAN_INFO_UNTAGGED,
    IFF_PROMISC,
    IFF_UP,
    NLM_F_CREATE,
)

PLACES = {"host": "on the host", "pod": "in the pod", "elsewhere": "elsewhere"}
# By the attribute of a kind of links: its word, and the words for its values.
KINDS: dict[str, tuple[str, dict[Any, str]]] = {
    "IFLA_MACVLAN_MODE": ("mode", {}),
    "IFLA_IPVLAN_MODE": ("mode", {0: "l2", 1: "l3", 2: "l3s"}),  # linux/if_link.h
    "IFLA_IPVLAN_FLAGS": ("isolation", {0: "bridge", 1: "private", 2: "vepa"}),  # linux/if_link.h
    "IFLA_VLAN_ID": ("VLAN", {}),
    "IFLA_VRF_TABLE": ("table", {}),
}
LOOSE_BINDING = {"flags": 4, "mask": 4}  # linux/if_vlan.h
LINK_WORDS = {
    "IFLA_ADDRESS": "MAC", "IFLA_MTU": "MTU", "IFLA_TXQLEN": "queue length", "IFLA_NUM_TX_QUEUES": "transmit queues",
    "IFLA_GROUP": "group",
}  # fmt: skip


def _new_link(rest: Rest, step: Step) -> list[str]:
    info = rest.inner("IFLA_LINKINFO")
    name, data = rest.take("IFLA_IFNAME", ""), info.inner("IFLA_INFO_DATA")
    is_made = bool(step["flags"] & NLM_F_CREATE)
    kind = info.take("IFLA_INFO_KIND", "link") if is_made else ""
    peer = data.inner("VETH_INFO_PEER")
    has_peer = bool(peer.left)
    told = [_other_end(peer, rest, step)] if has_peer else []
    if "IFLA_MASTER" in rest.left:
        told.append(f"join {'bridge ' if step['where'] == 'host' else ''}{rest.link('IFLA_MASTER')}")
    place = _place(rest) if "IFLA_NET_NS_FD" in rest.left else ""
    told += _of_kind(kind, data)
    told += _link_attributes(rest)
    told += _port(info)
    if data.left.get("IFLA_BR_VLAN_FILTERING"):
        data.take("IFLA_BR_VLAN_FILTERING")
        told.append("filter VLANs")
    told += [*data.words(), *info.words()]
    if is_made:
        where = f" {place or PLACES[step['where']]}" if has_peer or place else ""
        below = f" on {rest.link('IFLA_LINK')}" if "IFLA_LINK" in rest.left else ""
        return [f"create {kind} {name}{where}{below}", *told]
    link, place = rest.link(), {"in the pod": "to the pod", "on the host": "to the host"}.get(place, place)
    told = [*([f"move {place}"] if place else []), *([f"rename to {name}"] if link and name else []), *told]
    return [f"{link or name}: {', '.join([*told, *rest.take_words()])}"]


def _other_end(peer: Rest, rest: Rest, step: Step) -> str:
    """Return the words for the other end of a veth pair, without the attributes that both ends share."""
    place = PLACES.get(rest.names.get("IFLA_NET_NS_FD", step["where"]), "elsewhere")
    peer.take("IFLA_NET_NS_FD")
    other_end = f"{peer.take('IFLA_IFNAME', 'its other end')} {place}"
    for same in ("IFLA_MTU", "IFLA_NUM_TX_QUEUES"):
        if peer.left.get(same) == rest.left.get(same):
            peer.take(same)
    about = ", ".join([*_link_attributes(peer), *peer.words()])
    return f"{other_end} ({about})" if about else other_end


def _place(rest: Rest) -> str:
    """Return the words for the namespace that a link is created in or moves to."""
    rest.take("IFLA_NET_NS_FD")
    return PLACES.get(rest.names.get("IFLA_NET_NS_FD", ""), "elsewhere")


def _of_kind(kind: str, data: Rest) -> list[str]:
    """Return the words for the attributes that macvlan, ipvlan, vlan and VRF links have."""
    told = []
    if kind == "ipvlan" and isinstance(flags := data.take("attribute 2"), bytes):  # pyroute2 does not know it
        data.left["IFLA_IPVLAN_FLAGS"] = int.from_bytes(flags, sys.byteorder)
    for name, (word, values) in KINDS.items():
        if name in data.left:
            value = data.take(name)
            told.append(f"{word} {values.get(value, value)}")
    if data.left.get("IFLA_VLAN_FLAGS") == LOOSE_BINDING:
        data.take("IFLA_VLAN_FLAGS")
        told.append("up independently of its master")
    return told


def _port(info: Rest) -> list[str]:
    info.take("IFLA_INFO_SLAVE_KIND")
    port = info.inner("IFLA_INFO_SLAVE_DATA")
    told = [
        f"{word} {'on' if port.take(attribute) else 'off'}"
        for attribute, word in (("IFLA_BRPORT_MODE", "hairpin"), ("IFLA_BRPORT_ISOLATED", "isolation"))
        if attribute in port.left
    ]
    return [*told, *port.words()]


def _link_attributes(rest: Rest) -> list[str]:
    told = [f"{word} {rest.take(name)}" for name, word in LINK_WORDS.items() if name in rest.left]
    if "IFLA_IFALIAS" in rest.left:
        told.append(f"alias {json.dumps(rest.take('IFLA_IFALIAS'))}")
    for bit, yes, no in ((IFF_UP, "up", "down"), (IFF_PROMISC, "promiscuous", "not promiscuous")):
        flag = rest.flag(bit)
        told += [] if flag is None else [yes if flag else no]
    return told


def _delete_link(rest: Rest, step: Step) -> list[str]:
    if rest.left.get("family") == AF_BRIDGE:
        return _port_vlans(rest, step)
    return [f"delete link {rest.link() or rest.take('IFLA_IFNAME')}"]


def _port_vlans(rest: Rest, step: Step) -> list[str]:
    rest.take("family")
    verb = "out of" if step["what"] == "RTM_DELLINK" else "into"
    entries = rest.inner("IFLA_AF_SPEC").take("IFLA_BRIDGE_VLAN_INFO", [])
    told = rest.link()
    for entry in entries if isinstance(entries, list) else [entries]:
        flags = entry["flags"]
        words = [
            word
            for bit, word in ((BRIDGE_VLAN_INFO_PVID, "native"), (BRIDGE_VLAN_INFO_UNTAGGED, "untagged"))
            if flags & bit
        ]
        if flags & BRIDGE_VLAN_INFO_RANGE_END:
            told += f" to {entry['vid']}"
        else:
            plural = "s" if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN else ""
            told += f" {verb} VLAN{plural} {entry['vid']}" + (f" ({', '.join(words)})" if words else "")
    return [told]


def _changed_link(rest: Rest, step: Step) -> list[str]:
    return (_port_vlans if rest.left.get("family") == AF_BRIDGE else _new_link)(rest, step)


MESSAGES: dict[str, Callable[[Rest, Step], list[str]]] = {
    "RTM_NEWLINK": _new_link,
    "RTM_DELLINK": _delete_link,
    "RTM_SETLINK": _changed_link,
}
