"""Collect the layouts of netlink messages from pyroute2's classes, as shared/build/wire_tables.py writes them."""

from __future__ import annotations

from typing import Any

from pyroute2 import netlink
from pyroute2.netlink import nlmsg_atoms
from pyroute2.netlink.nfnetlink import nftsocket
from pyroute2.netlink.rtnl import ifinfmsg

# pyroute2's class, and attributes that it lacks: number, name, kind
ByHand = dict[type, tuple[tuple[int, str, str], ...]]
# an attribute, the codec's name for its kind, and its layouts
ByKind = dict[str, tuple[str, dict[str, type]]]
EXPRESSION = nftsocket.nft_contains_expr.nft_expr
# pyroute2's atoms by the names that the codec knows; everything else without a structure is bytes.
ATOMS = {
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
    "int8": "s8", "int16": "s16", "int32": "s32", "int64": "s64",
    "be16": "be16", "be32": "be32", "be64": "be64", "sbe32": "sbe32",
    "asciiz": "asciiz", "string": "asciiz", "l2addr": "l2addr", "lladdr": "l2addr",
    "ipaddr": "ip", "ip4addr": "ip", "ip6addr": "ip", "target": "ip", "flag": "flag",
}  # fmt: skip
# The attributes of BY_KIND, and those that are lists, that have the flag NLA_F_NESTED.
NESTED = frozenset(["TCA_ACT_OPTIONS", "WGDEVICE_A_PEERS", "WGPEER_A_ALLOWEDIPS"])
# The lists whose elements have a name of their own; the kernel numbers them 0 (drivers/net/wireguard/netlink.c).
ELEMENTS = {"*wgdevice_peer": "WG_PEER", "*wgpeer_allowedip": "WG_ALLOWED_IP"}
# Structures with fields in both byte orders stay bytes: the codec cannot write them.
UNWRITTEN = frozenset(["TCA_U32_SEL", "RTA_VIA"])
# Values and verdicts: pyroute2 repeats them for sets and for each expression.
DATA = ("nfta_data", "data_attributes")
# pyroute2's atoms again, for classes with one field, by its layout.
FIELDS = {"B": "u8", "H": "u16", "I": "u32", "i": "s32", "Q": "u64", ">I": "be32", ">i": "sbe32"}


class Tables:
    """Collect the structures reachable from the messages, each once, in the order of discovery."""

    def __init__(self, spoken: frozenset[str], by_hand: ByHand, by_kind: ByKind) -> None:
        """Take the attributes to include, further ones of some classes, and those with layouts by kind."""
        self.spoken = spoken
        self.by_hand = by_hand
        self.by_kind = by_kind
        self.structures: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

    def add(self, name: str, message: type) -> str:
        """Add a structure and all nested ones. Return its name."""
        if name in self.structures:
            return name
        names, layout = _header(message)
        attributes: dict[str, tuple[int, str]] = {}
        self.structures[name] = (names, layout, attributes)
        known = _numbered(getattr(message, "nla_map", ()))
        for number, attribute, kind in (*known, *self.by_hand.get(message, ())):
            if attribute not in self.spoken:
                continue
            nested, resolved = self._resolve(name, message, attribute, kind)
            attributes[attribute] = (number | (netlink.NLA_F_NESTED if nested else 0), resolved)
        return name

    def _resolve(self, owner: str, message: type, attribute: str, kind: str) -> tuple[bool, str]:
        known = self._known(attribute) or ATOMS.get(kind)
        if known:
            return attribute in NESTED, known
        held = getattr(message, kind.removeprefix("*"), None)
        if not isinstance(held, type):  # RTA_MULTIPATH is not made of attributes
            return False, "bytes"
        if kind in ELEMENTS:
            element = {ELEMENTS[kind]: (netlink.NLA_F_NESTED, self._held(owner, kind[1:], held))}
            self.structures[f"{owner}/{kind[1:]}s"] = ((), "", element)
            return attribute in NESTED, f"{owner}/{kind[1:]}s"
        if kind.startswith("*"):
            return False, self._list(f"{owner}/list", held)
        if kind in DATA:
            return False, self.add("data", held)
        return bool(getattr(held, "nla_flags", 0) & netlink.NLA_F_NESTED), self._held(owner, kind, held)

    def _known(self, attribute: str) -> str:
        """Return the codec's kind of an attribute with a layout of its own or by context; else ""."""
        if attribute == "VETH_INFO_PEER":
            return self.add("link", ifinfmsg.ifinfmsg)
        if attribute in self.by_kind:
            kind, held = self.by_kind[attribute]
            for name, structure in held.items():
                self.add(f"{kind}/{name}", structure)
            return kind
        if attribute in UNWRITTEN:
            return "bytes"
        if attribute == "NFTA_RULE_EXPRESSIONS":
            # Rules are encoded before, since a chain's name can derive from the bytes of its rules. They are not
            # decoded, since a rule's comment identifies it.
            self._list("expressions", EXPRESSION)
            return "bytes"
        return ""

    def _list(self, name: str, element: type) -> str:
        """Add a list structure: all its attributes are alike (NFTA_LIST_ELEM in linux/netfilter/nf_tables.h)."""
        self.structures[name] = ((), "", {"NFTA_LIST_ELEM": (1, self._held(name, element.__name__, element))})
        return name

    def _held(self, owner: str, kind: str, held: type) -> str:
        for base in held.__mro__[1:]:
            if base.__name__ in ATOMS and getattr(nlmsg_atoms, base.__name__, None) is base:
                return ATOMS[base.__name__]
        fields = list(getattr(held, "fields", ()))
        if [name for name, _ in fields] in (["value"], ["key"]):
            return FIELDS.get(fields[0][1], "bytes")
        if getattr(held, "nla_map", ()) or fields:
            return self.add(f"{owner}/{kind}", held)
        return "bytes"


def _header(message: type) -> tuple[tuple[str, ...], str]:
    """Return the names of the fields before the attributes, and their struct layout in one byte order."""
    fields = [(str(name), str(layout)) for name, layout in getattr(message, "fields", ())]
    names = tuple(name for name, layout in fields if "x" not in layout)
    order = ">" if any(layout[0] in "!>" for _, layout in fields) else "="
    if order == ">" and any(len(layout) == 1 and layout not in "Bbx" for _, layout in fields):
        raise ValueError(f"{message.__name__} has fields in both byte orders")
    return names, order + "".join(layout.lstrip("!>") for _, layout in fields) if fields else ""


def _numbered(nla_map: Any) -> list[tuple[int, str, str]]:
    """Return an attribute map's rows with numbers; pyroute2 gives them explicitly or by position."""
    rows = [row if isinstance(row[0], int) else (number, *row) for number, row in enumerate(nla_map)]
    return [(int(row[0]), str(row[1]), str(row[2])) for row in rows if row[2] != "none"]
