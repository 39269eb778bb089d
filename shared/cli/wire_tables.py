"""Writes shared/net/wire.py, the netlink tables of the executable tier, from pyroute2's message classes.

pyroute2 is the schema: nobody types an attribute number. Run `python -m shared.cli.wire_tables` in the development
environment after raising pyroute2's version; a test regenerates the tables and compares.
"""

from __future__ import annotations

import socket
import sys
from types import ModuleType
from typing import Any

from pyroute2 import netlink
from pyroute2.netlink import nlmsg_atoms, rtnl
from pyroute2.netlink.rtnl import ifaddrmsg, ifinfmsg, rtmsg

LINE_WIDTH = 118

# The messages that the suite speaks, by the name used in the tables; nested structures follow from them. Each call pays
# for loading the tables, so there is no more in them than that.
MESSAGES: dict[str, tuple[type, tuple[str, ...]]] = {
    "link": (ifinfmsg.ifinfmsg, ("RTM_NEWLINK", "RTM_DELLINK", "RTM_GETLINK", "RTM_SETLINK")),
    "address": (ifaddrmsg.ifaddrmsg, ("RTM_NEWADDR", "RTM_DELADDR", "RTM_GETADDR")),
    "route": (rtmsg.rtmsg, ("RTM_NEWROUTE", "RTM_DELROUTE", "RTM_GETROUTE")),
}
# The attributes that are spoken: a link alone has sixty, and a call that reads five links pays for decoding each.
SPOKEN = frozenset(
    """
    IFLA_ADDRESS IFLA_IFNAME IFLA_MTU IFLA_LINK IFLA_MASTER IFLA_OPERSTATE IFLA_LINKINFO IFLA_NET_NS_FD IFLA_IFALIAS
    IFLA_AF_SPEC IFLA_EXT_MASK IFLA_LINK_NETNSID IFLA_TXQLEN
    IFLA_INFO_KIND IFLA_INFO_DATA IFLA_INFO_SLAVE_KIND IFLA_INFO_SLAVE_DATA VETH_INFO_PEER
    IFLA_BR_VLAN_FILTERING IFLA_BRPORT_STATE IFLA_BRPORT_MODE IFLA_BRPORT_ISOLATED IFLA_BRIDGE_VLAN_INFO
    IFA_ADDRESS IFA_LOCAL IFA_BROADCAST IFA_FLAGS
    RTA_DST RTA_OIF RTA_GATEWAY RTA_MULTIPATH RTA_PRIORITY RTA_METRICS RTA_TABLE RTAX_MTU RTAX_ADVMSS
    """.split()  # noqa: SIM905  (as a list of strings it would be a page)
)
# Link kinds whose IFLA_INFO_DATA is spoken; the others' stays bytes.
LINK_KINDS = ("bridge", "veth")

CONSTANTS: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (socket, ("AF_UNSPEC", "AF_INET", "AF_INET6")),
    (netlink, ("NLM_F_", "NLMSG_", "NLA_F_", "NETLINK_ROUTE", "NETLINK_NETFILTER",
               "NETLINK_EXT_ACK", "NETLINK_GET_STRICT_CHK")),
    (rtnl, ("RTM_", "RTNLGRP_LINK", "RTNLGRP_IPV4_IFADDR", "RTNLGRP_IPV6_IFADDR")),
    (ifinfmsg, ("IFF_",)),
    (ifaddrmsg, ("IFA_F_",)),
    (rtmsg, ("RTNH_F_", "RT_SCOPE_")),
)  # fmt: skip

# pyroute2's atoms by the names that the codec knows; everything else without a structure is bytes.
ATOMS = {
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
    "int8": "s8", "int16": "s16", "int32": "s32", "int64": "s64",
    "be16": "be16", "be32": "be32", "be64": "be64",
    "asciiz": "asciiz", "string": "asciiz", "l2addr": "l2addr", "lladdr": "l2addr",
    "ipaddr": "ip", "ip4addr": "ip", "ip6addr": "ip", "target": "ip", "flag": "flag",
}  # fmt: skip


class Tables:
    """Collects the structures reachable from the messages, each once, in the order of discovery."""

    def __init__(self) -> None:
        self.structures: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

    def add(self, name: str, message: type) -> str:
        """Adds a structure with all that it nests; returns its name."""
        if name in self.structures:
            return name
        names, layout = _header(message)
        attributes: dict[str, tuple[int, str]] = {}
        self.structures[name] = (names, layout, attributes)
        for number, attribute, kind in _numbered(getattr(message, "nla_map", ())):
            if attribute not in SPOKEN:
                continue
            nested, resolved = self._resolve(name, message, attribute, kind)
            attributes[attribute] = (number | (netlink.NLA_F_NESTED if nested else 0), resolved)
        return name

    def _resolve(self, owner: str, message: type, attribute: str, kind: str) -> tuple[bool, str]:
        if attribute == "VETH_INFO_PEER":
            return False, self.add("link", ifinfmsg.ifinfmsg)
        if attribute == "IFLA_INFO_DATA":
            for link_kind in LINK_KINDS:
                self.add(f"info_data/{link_kind}", ifinfmsg.ifinfmsg.ifinfo.data_map[link_kind])
            return False, "info_data"
        if attribute == "IFLA_INFO_SLAVE_DATA":
            self.add("info_slave_data/bridge", ifinfmsg.ifinfmsg.ifinfo.bridge_slave_data)
            return False, "info_slave_data"
        if attribute == "IFLA_AF_SPEC":
            self.add("af_spec/bridge", ifinfmsg.ifinfmsg.af_spec_bridge)
            return False, "af_spec"
        if kind in ATOMS:
            return False, ATOMS[kind]
        held = getattr(message, kind.removeprefix("*"), None)
        if not isinstance(held, type):
            return False, "bytes"
        return bool(getattr(held, "nla_flags", 0) & netlink.NLA_F_NESTED), self._held(owner, kind, held)

    def _held(self, owner: str, kind: str, held: type) -> str:
        for base in held.__mro__[1:]:
            if base.__name__ in ATOMS and getattr(nlmsg_atoms, base.__name__, None) is base:
                return ATOMS[base.__name__]
        fields = list(getattr(held, "fields", ()))
        if [name for name, _ in fields] == ["value"]:
            return {"B": "u8", "H": "u16", "I": "u32", "i": "s32", "Q": "u64"}.get(fields[0][1], "bytes")
        if getattr(held, "nla_map", ()) or 0 < len(fields) <= 4:  # longer ones are statistics, which nobody reads
            return self.add(f"{owner}/{kind}", held)
        return "bytes"


def _header(message: type) -> tuple[tuple[str, ...], str]:
    fields = [(str(name), str(layout)) for name, layout in getattr(message, "fields", ())]
    return tuple(name for name, layout in fields if "x" not in layout), "".join(layout for _, layout in fields)


def _numbered(nla_map: Any) -> list[tuple[int, str, str]]:
    """pyroute2 writes attribute maps either with explicit numbers or by position."""
    rows = [row if isinstance(row[0], int) else (number, *row) for number, row in enumerate(nla_map)]
    return [(int(row[0]), str(row[1]), str(row[2])) for row in rows if row[2] != "none"]


def _constants() -> dict[str, int]:
    found: dict[str, int] = {}
    for module, prefixes in CONSTANTS:
        for name, value in vars(module).items():
            if name.startswith(prefixes) and isinstance(value, int):
                found.setdefault(name, int(value))
    for prefix, names in (("RTN_", rtnl.rt_type), ("RTPROT_", rtnl.rt_proto)):
        found.update({f"{prefix}{name.upper()}": int(value) for name, value in names.items() if isinstance(name, str)})
    found["AF_BRIDGE"] = 7  # absent from Python's socket module on some platforms
    for flag in ("MASTER", "PVID", "UNTAGGED", "RANGE_BEGIN", "RANGE_END"):
        found[f"BRIDGE_VLAN_INFO_{flag}"] = ifinfmsg.BRIDGE_VLAN_NAMES[f"BRIDGE_VLAN_INFO_{flag}"]
    return found


def _dict(name: str, annotation: str, rows: list[str]) -> str:
    lines, line = [], "   "
    for row in rows:
        if len(line) + len(row) + 2 > LINE_WIDTH:
            lines.append(line)
            line = "   "
        line += f" {row},"
    return "\n".join([f"{name}: {annotation} = {{", *lines, line, "}"])


def generate() -> str:
    """The text of shared/net/wire.py."""
    tables = Tables()
    for name, (message, _) in MESSAGES.items():
        tables.add(name, message)
    constants = _constants()
    parts = [
        '"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.cli.wire_tables`."""',
        "# ruff: noqa\n# fmt: off\nfrom __future__ import annotations",
        "\n".join(f"{name} = {value}" for name, value in constants.items()),
        "# message type: structure",
        _dict("MESSAGES", "dict[int, str]",
              [f'{getattr(rtnl, kind)}: "{name}"' for name, (_, kinds) in MESSAGES.items() for kind in kinds]),
        "# structure: names of the header's fields, its layout for struct, attributes (number, kind)",
        "STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}",
    ]  # fmt: skip
    for name, (names, layout, attributes) in tables.structures.items():
        rows = [f'"{attribute}": ({number}, "{kind}")' for attribute, (number, kind) in attributes.items()]
        variable = f"_{name.replace('/', '_')}"
        kind = "dict[str, tuple[int, str]]"
        parts.append(_dict(variable, kind, rows) if rows else f"{variable}: {kind} = {{}}")
        parts.append(f'STRUCTURES["{name}"] = ({names!r}, "{layout}", {variable})'.replace("'", '"'))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(generate())
