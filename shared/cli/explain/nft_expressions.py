"""Write a rule's expressions in nft's language.

The kernel loads values into registers and compares them there. Here a register holds the words for its value; the
expression that compares it writes the match. A match of a family or protocol is held back: nft omits it before a field
of that family or protocol.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from shared.nft import ruleset, wire
from shared.nft.expressions import CT_STATES, CT_STATUSES, LABEL_BYTES, PAYLOAD

Message = dict[str, Any]

FIELDS = {place: name for name, place in PAYLOAD.items()}
BASES = {"NFT_PAYLOAD_LL_HEADER": (wire.NFT_PAYLOAD_LL_HEADER, "@ll"),
         "NFT_PAYLOAD_NETWORK_HEADER": (wire.NFT_PAYLOAD_NETWORK_HEADER, "@nh"),
         "NFT_PAYLOAD_TRANSPORT_HEADER": (wire.NFT_PAYLOAD_TRANSPORT_HEADER, "@th")}  # fmt: skip
ALONE = ("iif", "oif", "iifname", "oifname")  # keys that nft writes without `meta`
LINK_NAMES = ("iifname", "oifname", "meta iifkind", "meta oifkind")
ADDRESSES = {
    f"{header} {side}": kind
    for header, kind in (("ip", ruleset.IPV4_ADDR), ("ip6", ruleset.IPV6_ADDR), ("ether", ruleset.ETHER_ADDR))
    for side in ("saddr", "daddr")
}
OPERATORS = {"EQ": "", "NEQ": "!= ", "LT": "< ", "LTE": "<= ", "GT": "> ", "GTE": ">= "}
PROTOCOLS = {number: name for name, number in ruleset.PROTOCOLS.items()}
ETHER_TYPES = {0x0800: "ip", 0x0806: "arp", 0x8100: "vlan", 0x86DD: "ip6"}  # linux/if_ether.h
NUMBERS: dict[str, dict[int, str]] = {
    "meta nfproto": {wire.NFPROTO_IPV4: "ipv4", wire.NFPROTO_IPV6: "ipv6"},
    "meta pkttype": {0: "host", 1: "broadcast", 2: "multicast", 3: "other"},  # linux/if_packet.h
    "meta l4proto": PROTOCOLS, "ip protocol": PROTOCOLS, "ip6 nexthdr": PROTOCOLS,
    "ct direction": {0: "original", 1: "reply"},  # linux/netfilter/nf_conntrack_tuple_common.h
    "meta protocol": ETHER_TYPES, "ether type": ETHER_TYPES, "th sport": {}, "th dport": {},
}  # fmt: skip
IN_HOST_ORDER: dict[str, dict[int, str]] = {
    "meta mark": {},
    "meta priority": {},
    **{
        f"fib {side} type": dict(enumerate(("unspec", "unicast", "local", "broadcast", "anycast", "multicast")))
        for side in ("saddr", "daddr")
    },  # linux/rtnetlink.h, RTN_*
}
BITS: dict[str, dict[str, int]] = {
    "ct state": CT_STATES, "ct status": CT_STATUSES, "ct label": {str(bit): 1 << bit for bit in range(8 * LABEL_BYTES)},
}  # fmt: skip
FIB_SIDES = {wire.NFTA_FIB_F_SADDR: "saddr", wire.NFTA_FIB_F_DADDR: "daddr"}
FAMILIES = {wire.NFPROTO_IPV4: "ip", wire.NFPROTO_IPV6: "ip6"}
VERDICT_REGISTER = "NFT_REG_VERDICT"


class Loaded:
    """A value in registers: its words or its immediate bytes, and the operations on its bits."""

    def __init__(self, fields: list[str], length: int, *, data: bytes = b"", of: str = "") -> None:
        self.fields = fields  # more than one if several were looked up in a map
        self.length = length
        self.data = data
        self.map = of
        self.mask = self.flip = b""
        self.is_used = False

    @property
    def words(self) -> str:
        """Return the fields, and the map in which they were looked up."""
        return " . ".join(self.fields) + (f" map @{self.map}" if self.map else "")


class Rule:
    """A rule's expressions as words; `types` returns the types of a set's keys and values by the set's name."""

    def __init__(self, expressions: Iterable[Message], types: Callable[[str], tuple[list[Any], list[Any]]]) -> None:
        self.types = types
        self.said: list[str] = []
        self.registers: dict[int, Loaded] = {}  # by 4-byte word
        self.waiting: list[tuple[str, str]] = []
        for expression in expressions:
            self._read(expression)
        self._say("")
        self.said += [
            f"[{one.words or one.data.hex()} is loaded]" for one in self.registers.values() if not one.is_used
        ]

    def __str__(self) -> str:
        return " ".join(self.said)

    def _read(self, expression: Message) -> None:
        """Read one expression.

        If any part of it is unknown, write the whole expression under the kernel's names.
        """
        name, data = str(expression.get("NFTA_EXPR_NAME")), expression.get("NFTA_EXPR_DATA") or {}
        left = {key.removeprefix(f"NFTA_{name.upper()}_"): value for key, value in data.items()}
        waiting = list(self.waiting)
        reader = self._readers.get(name)
        try:
            words = reader(self, left) if reader else None
        except (KeyError, ValueError, AttributeError, TypeError):
            words = None
        if words is None or left:
            self.waiting = waiting
            words = brackets(data, name)
        if words:
            self._say(words)

    def _say(self, words: str) -> None:
        self.said += [f"{key} {value}" for key, value in self.waiting]
        self.waiting = []
        self.said += [words] if words else []

    # -- registers

    def _load(self, left: Message, loaded: Loaded) -> str:
        self.registers[_word(left.pop("DREG"))] = loaded
        return ""

    def _take(self, left: Message, key: str) -> Loaded:
        loaded = self.registers[_word(left.pop(key))]
        loaded.is_used = True
        return loaded

    def _fields(self, register: str, count: int) -> list[Loaded]:
        """Return consecutive values from a register on: `count` of them, or all unused ones if it is 0."""
        word, found = _word(register), []
        while word in self.registers and not (self.registers[word].is_used and not count):
            found.append(self.registers[word])
            found[-1].is_used = True
            word += (found[-1].length + 3) // 4
            if len(found) == count:
                break
        if not found:
            raise KeyError(register)
        return found

    def _field(self, loaded: Loaded) -> str:
        """Return a value's words, with the header's name if the match held back tells it."""
        key, value = self.waiting[-1] if self.waiting else ("", "")
        words = loaded.words
        if key == "meta l4proto" and len(loaded.fields) == 1 and words in ("th sport", "th dport") and not loaded.map:
            self.waiting.pop()
            return f"{value} {words.removeprefix('th ')}"
        header = {"ipv4": "ip ", "ipv6": "ip6 "}.get(value, "")
        if header and any(field.startswith(header) for field in loaded.fields):
            self.waiting.pop()
        return words

    # -- expressions that load

    def _payload(self, left: Message) -> str:
        base, raw = BASES[left.pop("BASE")]
        offset, length = left.pop("OFFSET"), left.pop("LEN")
        name = FIELDS.get((base, offset, length)) or f"{raw},{8 * offset},{8 * length}"
        return self._load(left, Loaded([name], length))

    def _meta(self, left: Message) -> str:
        key = left.pop("KEY").removeprefix("NFT_META_").lower()
        if "SREG" in left:
            return f"meta {key} set {self._set_to(self._take(left, 'SREG'), f'meta {key}')}"
        words = key if key in ALONE else f"meta {key}"
        length = {"meta nfproto": 1, "meta l4proto": 1, "meta pkttype": 1, "meta protocol": 2}.get(words, 4)
        return self._load(left, Loaded([words], 16 if words in LINK_NAMES else length))

    def _set_to(self, loaded: Loaded, words: str) -> str:
        if loaded.data:
            return _value(words, loaded.data)
        mask, flip = (int.from_bytes(bits, sys.byteorder) for bits in (loaded.mask, loaded.flip))
        if loaded.mask and mask == ~flip & 0xFFFFFFFF:
            return f"{loaded.words} | {_value(words, loaded.flip)}"
        return _masked(loaded, words)

    def _ct(self, left: Message) -> str:
        key = left.pop("KEY").removeprefix("NFT_CT_").lower().replace("labels", "label")
        if "SREG" in left:
            return f"ct {key} set {_value(f'ct {key}', self._take(left, 'SREG').data)}"
        return self._load(left, Loaded([f"ct {key}"], {"label": LABEL_BYTES, "direction": 1}.get(key, 4)))

    def _fib(self, left: Message) -> str:
        if left.pop("RESULT") != wire.NFT_FIB_RESULT_ADDRTYPE:
            raise ValueError
        return self._load(left, Loaded([f"fib {FIB_SIDES[left.pop('FLAGS')]} type"], 4))

    def _immediate(self, left: Message) -> str:
        data = left.pop("DATA")
        if left["DREG"] == VERDICT_REGISTER:
            left.pop("DREG")
            return verdict(data["NFTA_DATA_VERDICT"])
        value = data["NFTA_DATA_VALUE"]
        return self._load(left, Loaded([], len(value), data=value))

    def _bitwise(self, left: Message) -> str:
        source = self._take(left, "SREG")
        loaded = Loaded(source.fields, left.pop("LEN"), of=source.map)
        loaded.mask, loaded.flip = (left.pop(key)["NFTA_DATA_VALUE"] for key in ("MASK", "XOR"))
        return self._load(left, loaded)

    # -- expressions that compare or act

    def _cmp(self, left: Message) -> str:
        loaded, operator = self._take(left, "SREG"), left.pop("OP").removeprefix("NFT_CMP_")
        data = left.pop("DATA")["NFTA_DATA_VALUE"]
        key, value = loaded.words, _value(loaded.words, data)
        if operator == "EQ" and key in ("meta nfproto", "meta l4proto") and value in NUMBERS[key].values():
            self.waiting.append((key, value))
            return ""
        if not loaded.mask:
            return f"{self._field(loaded)} {OPERATORS[operator]}{value}"
        if not any(loaded.flip):
            bits = _bits(key, loaded.mask) if operator == "NEQ" and not any(data) else ""
            length = _prefix_length(loaded.mask) if key in ADDRESSES else 0
            if bits or length:
                return f"{self._field(loaded)} {bits or f'{OPERATORS[operator]}{value}/{length}'}"
        return f"{_masked(loaded, self._field(loaded))} {OPERATORS[operator] or '== '}{value}"

    def _range(self, left: Message) -> str:
        loaded, operator = self._take(left, "SREG"), OPERATORS[left.pop("OP").removeprefix("NFT_RANGE_")]
        low, high = (_value(loaded.words, left.pop(f"{one}_DATA")["NFTA_DATA_VALUE"]) for one in ("FROM", "TO"))
        return f"{self._field(loaded)} {operator}{low}-{high}"

    def _lookup(self, left: Message) -> str:
        name = left.pop("SET")
        key, data = self.types(name)
        found = self._fields(left.pop("SREG"), len(key))
        fields = [field for one in found for field in one.fields]
        loaded = Loaded(fields, sum((one.length + 3) & ~3 for one in data) or 4, of=name)
        if any(one.mask or one.data or one.map for one in found):
            raise ValueError
        operator = "!= " if left.pop("FLAGS", ()) == {"NFT_LOOKUP_F_INV"} else ""
        if "DREG" in left and left["DREG"] != VERDICT_REGISTER:
            return self._load(left, loaded)
        loaded.map = ""
        word = "vmap " if left.pop("DREG", "") else ""
        return f"{self._field(loaded)} {operator}{word}@{name}"

    def _nat(self, left: Message) -> str:
        kind, family = left.pop("TYPE").removeprefix("NFT_NAT_").lower(), FAMILIES[left.pop("FAMILY")]
        place = _word(left["REG_ADDR_MIN"])
        address = self._take(left, "REG_ADDR_MIN")
        told = _value(f"{family} daddr", address.data) if address.data else self._field(address)
        if "REG_PROTO_MIN" in left:
            behind = place + (1 if family == "ip" else 4)
            if address.map and _word(left["REG_PROTO_MIN"]) == behind:
                left.pop("REG_PROTO_MIN")
            else:
                port = self._take(left, "REG_PROTO_MIN")
                told = f"[{told}]" if family == "ip6" and address.data else told
                told += f":{_value('th dport', port.data) if port.data else port.words}"
        return f"{kind} {family} to {told}"

    def _masq(self, _left: Message) -> str:
        return "masquerade"

    _readers: ClassVar[dict[str, Callable[[Rule, Message], str]]] = {
        "payload": _payload, "meta": _meta, "ct": _ct, "fib": _fib, "immediate": _immediate, "bitwise": _bitwise,
        "cmp": _cmp, "range": _range, "lookup": _lookup, "nat": _nat, "masq": _masq,
    }  # fmt: skip


def verdict(data: Message) -> str:
    """Return a verdict's word, with the chain that it jumps to."""
    word = str(data.get("NFTA_VERDICT_CODE", "")).removeprefix("NFT_").removeprefix("NF_").lower()
    chain = data.get("NFTA_VERDICT_CHAIN")
    return f"{word} {chain}" if chain else word


def brackets(left: Any, name: str = "") -> str:
    """Return values that have no words, under the kernel's names."""
    told = json.dumps(left, default=lambda value: value.hex() if isinstance(value, bytes) else sorted(value))
    return f"[{name} {told}]" if name else f"[{told}]"


def _word(register: str) -> int:
    """Return a register's position in 4-byte words; the older, 16-byte registers are four words each."""
    if register.startswith("NFT_REG32_"):
        return int(register.removeprefix("NFT_REG32_"))
    return 4 * (int(register.removeprefix("NFT_REG_")) - 1)


def _value(key: str, data: bytes) -> str:
    """Return a key's value in nft's notation."""
    if key in LINK_NAMES:
        name = data.rstrip(b"\0").decode(errors="backslashreplace")
        return f'"{name}{"" if data.endswith(bytes(1)) or len(data) == 16 else "*"}"'
    if key in ADDRESSES and len(data) == ADDRESSES[key].length:
        return ADDRESSES[key].show(data)
    if key in NUMBERS:
        number = int.from_bytes(data, "big")
        return NUMBERS[key].get(number) or (f"0x{number:04x}" if NUMBERS[key] is ETHER_TYPES else str(number))
    if key in IN_HOST_ORDER and len(data) == 4:
        number = int.from_bytes(data, sys.byteorder)
        if key == "meta priority":  # in tc's notation of a class
            return f"{number >> 16:x}:{number & 0xFFFF:x}" if number else "none"
        return IN_HOST_ORDER[key].get(number) or f"0x{number:08x}"
    if key in BITS:
        return _bits(key, data) or f"0x{int.from_bytes(data, sys.byteorder):x}"
    return f"0x{data.hex()}"


def _bits(key: str, mask: bytes) -> str:
    """Return the names of bits, empty if one has none."""
    number = int.from_bytes(mask, sys.byteorder)
    names = [name for name, bit in BITS.get(key, {}).items() if number & bit]
    return ",".join(names) if number == sum(BITS.get(key, {}).get(name, 0) for name in names) else ""


def _masked(loaded: Loaded, words: str) -> str:
    flipped = f" ^ {_value(loaded.words, loaded.flip)}" if any(loaded.flip) else ""
    return f"{words} & {_value(loaded.words, loaded.mask)}{flipped}" if loaded.mask else words


def _prefix_length(mask: bytes) -> int:
    """Return the number of leading ones, or 0 if a one follows a zero."""
    bits = f"{int.from_bytes(mask, 'big'):0{8 * len(mask)}b}"
    return len(bits.rstrip("0")) if "01" not in bits else 0
