"""Rule sets as data: tables, sets, maps, chains, rules, and the netlink requests for them.

    PYCNI = Table(NFPROTO_INET, "pycni")
    PODS = Set(PYCNI, "pods4", (IPV4_ADDR,), (VERDICT,))
    POSTROUTING = Chain(PYCNI, "postrouting", hook=("nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC), rules=(
        Rule("pods", family(4), payload("ip saddr"), lookup(PODS)),
    ))

Expressions come from expressions.py. The methods here build requests; Nfnetlink.commit (transaction.py) sends them.
"""

from __future__ import annotations

import errno
import sys

from shared.cni.digests import digest
from shared.cni.ip import Address
from shared.cni.names import is_link_name
from shared.net.messages import encode_structure
from shared.net.netlink import Request
from shared.net.wire import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL
from shared.nft import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shared.net.netlink import Message

    Expression = Message

    Hook = tuple[str, int, int]

TYPE_BITS = 6  # of each type's number in the number of a concatenation: include/datatype.h of nftables
DIGITS = 12  # of a digest in the name of a chain
# The kernel allows longer comments, but nft cannot read its own listing of them (NFTNL_UDATA_COMMENT_MAXLEN).
COMMENT_BYTES = 128
CREATE = NLM_F_CREATE | NLM_F_EXCL
ABSENT = (errno.ENOENT, errno.EINVAL)  # answers if the object of a query does not exist, and without nf_tables
# BYTEORDER_HOST_ENDIAN (include/datatype.h of nftables) for a set's keys: without it nft does not show link names
HOST_ORDER = bytes((wire.NFTNL_UDATA_SET_KEYBYTEORDER, 4)) + (1).to_bytes(4, sys.byteorder)
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}


# -- types of keys and values


class Type:
    """One of nft's datatypes: its name (`nft describe`), number, length in bytes, parser and formatter."""

    __slots__ = ("length", "name", "number", "parse", "show")

    def __init__(
        self, name: str, number: int, length: int, parse: Callable[[str], bytes], show: Callable[[bytes], str]
    ) -> None:
        self.name = name
        self.number = number
        self.length = length
        self.parse = parse
        self.show = show

    def pack(self, text: str) -> bytes:
        """Return the bytes of a value. Raise ValueError for a text that is not of this type."""
        try:
            data = self.parse(text)
        except (ValueError, OverflowError):
            data = b""
        if len(data) != self.length:
            raise ValueError(f"{text!r} is not of type {self.name}")
        return data


def _address(text: str) -> bytes:
    return Address.parse(text).packed


def _show_address(data: bytes) -> str:
    return str(Address(4 if len(data) == 4 else 6, int.from_bytes(data, "big")))


def _protocol(text: str) -> bytes:
    return PROTOCOLS.get(text, -1).to_bytes(1, "big")


def _show_protocol(data: bytes) -> str:
    return next(name for name, number in PROTOCOLS.items() if number == data[0])


def _number(text: str) -> bytes:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text).to_bytes(2, "big")


def _link(text: str) -> bytes:
    # a quote would end the name in the output of `nft list`
    return text.encode().ljust(16, b"\0") if is_link_name(text) and '"' not in text else b""


def _ether(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


IPV4_ADDR = Type("ipv4_addr", wire.DATA_TYPE_IPADDR, 4, _address, _show_address)
IPV6_ADDR = Type("ipv6_addr", wire.DATA_TYPE_IP6ADDR, 16, _address, _show_address)
ETHER_ADDR = Type("ether_addr", wire.DATA_TYPE_ETHERADDR, 6, _ether, lambda data: data.hex(":"))
INET_PROTO = Type("inet_proto", wire.DATA_TYPE_INET_PROTOCOL, 1, _protocol, _show_protocol)
INET_SERVICE = Type(
    "inet_service", wire.DATA_TYPE_INET_SERVICE, 2, _number, lambda data: str(int.from_bytes(data, "big"))
)
IFNAME = Type("ifname", wire.DATA_TYPE_IFNAME, 16, _link, lambda data: data.rstrip(b"\0").decode())
VERDICT = Type("verdict", wire.NFT_DATA_VERDICT, 0, lambda _: b"", lambda _: "")
ADDRESSES = {4: IPV4_ADDR, 6: IPV6_ADDR}


# -- tables, sets, chains, rules


def comment(text: str) -> bytes:
    """Encode a comment as NFTA_*_USERDATA for `nft list`. Raise ValueError beyond 128 bytes."""
    data = text.encode() + b"\0"
    if len(data) > COMMENT_BYTES + 1:
        raise ValueError(f"a comment of {len(data)} bytes is too long: {text!r}")
    return bytes((wire.NFTNL_UDATA_SET_ELEM_COMMENT, len(data))) + data


def comment_of(userdata: bytes) -> str:
    """Return the comment in a NFTA_*_USERDATA, empty if there is none."""
    while len(userdata) > 2:
        kind, length = userdata[:2]
        if kind == wire.NFTNL_UDATA_SET_ELEM_COMMENT:
            return userdata[2 : 2 + length].rstrip(b"\0").decode(errors="replace")
        userdata = userdata[2 + length :]
    return ""


class Table:
    """A table of a family (NFPROTO_*)."""

    def __init__(self, family: int, name: str) -> None:
        self.family = family
        self.name = name

    def __str__(self) -> str:
        return f"{'bridge' if self.family == wire.NFPROTO_BRIDGE else 'inet'} {self.name}"

    def create_request(self) -> Request:
        """Return the request that creates the table; the kernel answers EEXIST if it exists."""
        return Request(wire.NFT_MSG_NEWTABLE, self._names(), CREATE)

    def query_request(self) -> Request:
        """Return the request that asks for the table."""
        return Request(wire.NFT_MSG_GETTABLE, self._names(), 0, ABSENT)

    def _names(self) -> Message:
        return {"nfgen_family": self.family, "NFTA_TABLE_NAME": self.name}


class Set:
    """A set whose elements have the types in `key`; with `data` a map to values or verdicts."""

    def __init__(self, table: Table, name: str, key: tuple[Type, ...], data: tuple[Type, ...] = ()) -> None:
        self.table = table
        self.name = name
        self.key = key
        self.data = data

    def __str__(self) -> str:
        return f"{'map' if self.data else 'set'} {self.name} of table {self.table}"

    @property
    def is_verdict_map(self) -> bool:
        """Return True if its elements map to verdicts."""
        return self.data == (VERDICT,)

    def create_request(self, number: int) -> Request:
        """Return the request that creates the set; the kernel answers EEXIST if it exists.

        `number` identifies the set within the transaction.
        """
        message = {**self._names(), "NFTA_SET_KEY_TYPE": _joined_type(self.key), "NFTA_SET_KEY_LEN": _length(self.key)}
        if self.data:
            message["NFTA_SET_FLAGS"] = wire.NFT_SET_MAP
            message["NFTA_SET_DATA_TYPE"] = _joined_type(self.data)
            message["NFTA_SET_DATA_LEN"] = _length(self.data)
        if self.key == (IFNAME,):
            message["NFTA_SET_USERDATA"] = HOST_ORDER
        return Request(wire.NFT_MSG_NEWSET, {**message, "NFTA_SET_ID": number}, CREATE)

    def query_request(self) -> Request:
        """Return the request that asks for the set."""
        return Request(wire.NFT_MSG_GETSET, self._names(), 0, ABSENT)

    def element(self, *key: str, to: Sequence[str] | Message = ()) -> Element:
        """Return the element with this key, and in a map with its value: fields as text, or a `verdict`.

        Raise ValueError for a text that is not of the set's types.
        """
        data = to if isinstance(to, dict) else {"NFTA_DATA_VALUE": _packed(self.data, to)} if self.data else None
        return Element(self, self.pack(key), data)

    def pack(self, key: Sequence[str]) -> bytes:
        """Return the bytes of an element's key."""
        return _packed(self.key, key)

    def show(self, key: bytes) -> str:
        """Return an element's key as text, fields separated by spaces."""
        fields, start = [], 0
        for kind in self.key:
            fields.append(kind.show(key[start : start + kind.length]))
            start += (kind.length + 3) & ~3
        return " ".join(fields)

    def _names(self) -> Message:
        return {"nfgen_family": self.table.family, "NFTA_SET_TABLE": self.table.name, "NFTA_SET_NAME": self.name}


def _joined_type(types: Sequence[Type]) -> int:
    if len(types) == 1:
        return types[0].number
    number = 0
    for kind in types:
        number = number << TYPE_BITS | kind.number
    return number


def _length(types: Sequence[Type]) -> int:
    return types[0].length if len(types) == 1 else sum((kind.length + 3) & ~3 for kind in types)


def _packed(types: Sequence[Type], values: Sequence[str]) -> bytes:
    """Return the bytes of a key or value. Each field of a concatenation is padded to 4 bytes."""
    fields = [kind.pack(value) for kind, value in zip(types, values)]
    return fields[0] if len(fields) == 1 else b"".join(field + bytes(-len(field) % 4) for field in fields)


class Element:
    """An element of a set: the bytes of its key and, in a map, NFTA_SET_ELEM_DATA."""

    def __init__(self, of: Set, key: bytes, data: Message | None = None) -> None:
        self.of = of
        self.key = key
        self.data = data

    def __str__(self) -> str:
        return f"{self.of.name} {self.of.show(self.key)}"

    def add_request(self, owner: str) -> Request:
        """Return the request that adds the element, with its owner as comment.

        The kernel answers EEXIST if the key exists, EBUSY if it maps to something else.
        """
        element = self._key()
        if self.data is not None:
            element["NFTA_SET_ELEM_DATA"] = self.data
        element["NFTA_SET_ELEM_USERDATA"] = comment(owner)
        return Request(wire.NFT_MSG_NEWSETELEM, self._message(element), CREATE)

    def remove_request(self) -> Request:
        """Return the request that removes the element; the kernel answers ENOENT if it does not exist."""
        return Request(wire.NFT_MSG_DELSETELEM, self._message(self._key()))

    def query_request(self) -> Request:
        """Return the request that asks for the element with this key."""
        return Request(wire.NFT_MSG_GETSETELEM, self._message(self._key()), 0, ABSENT)

    def _key(self) -> Message:
        return {"NFTA_SET_ELEM_KEY": {"NFTA_DATA_VALUE": self.key}}

    def _message(self, element: Message) -> Message:
        return {**elements_of(self.of), "NFTA_SET_ELEM_LIST_ELEMENTS": {"NFTA_LIST_ELEM": element}}


def elements_of(of: Set) -> Message:
    """Return the part of a message that names an element's set."""
    return {"nfgen_family": of.table.family, "NFTA_SET_ELEM_LIST_TABLE": of.table.name,
            "NFTA_SET_ELEM_LIST_SET": of.name}  # fmt: skip


class Rule:
    """A rule: its purpose, and its expressions in order, given one by one or in iterables.

    Its comment is the purpose and a digest of the expressions, by which calls recognize the rule.
    """

    def __init__(self, purpose: str, *parts: Expression | Iterable[Expression]) -> None:
        flat: list[Expression] = []
        for part in parts:
            flat += [part] if isinstance(part, dict) else part
        self.expressions = encode_structure("expressions", {"NFTA_LIST_ELEM": flat}, wire.STRUCTURES)
        self.comment = f"{purpose} {digest(self.expressions)[:8]}"

    def append_request(self, chain: Chain) -> Request:
        """Return the request that appends the rule to a chain."""
        message = {
            **chain.rules_of(),
            "NFTA_RULE_EXPRESSIONS": self.expressions,
            "NFTA_RULE_USERDATA": comment(self.comment),
        }
        return Request(wire.NFT_MSG_NEWRULE, message, NLM_F_CREATE | NLM_F_APPEND)


class Chain:
    """A chain with all its rules; `hook` makes it a base chain: type, NF_INET_*, priority.

    Its name must not be a keyword of nft's language, such as masquerade: nft could not read its own output.
    """

    def __init__(self, table: Table, name: str, rules: Sequence[Rule], hook: Hook | None = None) -> None:
        self.table = table
        self.name = name
        self.rules = rules
        self.hook = hook

    def __str__(self) -> str:
        return f"chain {self.name} of table {self.table}"

    def create_requests(self) -> list[Request]:
        """Return requests that create the chain with its rules; the kernel answers EEXIST if it exists."""
        message = self._names()
        if self.hook:
            kind, number, priority = self.hook
            message["NFTA_CHAIN_HOOK"] = {"NFTA_HOOK_HOOKNUM": number, "NFTA_HOOK_PRIORITY": priority}
            message["NFTA_CHAIN_TYPE"] = kind
        return [Request(wire.NFT_MSG_NEWCHAIN, message, CREATE), *(rule.append_request(self) for rule in self.rules)]

    def refill_requests(self) -> list[Request]:
        """Return requests that replace the rules of an existing chain."""
        return [self._flush(), *(rule.append_request(self) for rule in self.rules)]

    def remove_requests(self) -> list[Request]:
        """Return requests that delete the chain; the kernel answers EBUSY if something leads to it."""
        return [self._flush(), Request(wire.NFT_MSG_DELCHAIN, self._names())]

    def make_and_remove_requests(self) -> list[Request]:
        """Return requests that delete the chain even if it does not exist; EBUSY as for `remove`."""
        return [Request(wire.NFT_MSG_NEWCHAIN, self._names(), NLM_F_CREATE), *self.remove_requests()]

    def remove_rule_request(self, handle: int) -> Request:
        """Return the request that deletes one rule; the kernel answers ENOENT if it does not exist."""
        return Request(wire.NFT_MSG_DELRULE, {**self.rules_of(), "NFTA_RULE_HANDLE": handle})

    def query_request(self) -> Request:
        """Return the request that asks for the chain."""
        return Request(wire.NFT_MSG_GETCHAIN, self._names(), 0, ABSENT)

    def rules_of(self) -> Message:
        """Return the part of a message that names a rule's chain."""
        return {"nfgen_family": self.table.family, "NFTA_RULE_TABLE": self.table.name, "NFTA_RULE_CHAIN": self.name}

    def _flush(self) -> Request:
        return Request(wire.NFT_MSG_DELRULE, self.rules_of())

    def _names(self) -> Message:
        return {"nfgen_family": self.table.family, "NFTA_CHAIN_TABLE": self.table.name, "NFTA_CHAIN_NAME": self.name}


def addressed(table: Table, prefix: str, rules: Sequence[Rule]) -> Chain:
    """Return a chain named `<prefix>-<digest of its rules>`: it never changes, so that calls can share it."""
    return Chain(table, f"{prefix}-{digest(b''.join(rule.expressions for rule in rules))[:DIGITS]}", rules)
