"""Build the expressions of rules; the functions are named after nft's words.

Registers are counted in words of four bytes, 0 to 15: an address of 16 bytes in word 0 occupies words 0 to 3. Match the
family or protocol before an address or port; otherwise the expression reads another header's bytes.

A rule goes on to its next expression only if the packet matches this one. "Match" and the actions below are the
kernel's; the functions return expressions.
"""

from __future__ import annotations

import sys

from shared.net.wire import RTN_LOCAL
from shared.nft import wire
from shared.nft.ruleset import IFNAME, INET_PROTO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.ip import Prefix
    from shared.net.netlink import Message
    from shared.nft.ruleset import Expression, Set


FAMILIES = {4: wire.NFPROTO_IPV4, 6: wire.NFPROTO_IPV6}
OPERATORS = {
    "eq": wire.NFT_CMP_EQ, "neq": wire.NFT_CMP_NEQ, "lt": wire.NFT_CMP_LT, "lte": wire.NFT_CMP_LTE,
    "gt": wire.NFT_CMP_GT, "gte": wire.NFT_CMP_GTE,
}  # fmt: skip
VERDICTS = {
    "accept": wire.NF_ACCEPT, "drop": wire.NF_DROP, "return": wire.NFT_RETURN, "jump": wire.NFT_JUMP,
    "goto": wire.NFT_GOTO,
}  # fmt: skip
META = {
    "protocol": wire.NFT_META_PROTOCOL, "mark": wire.NFT_META_MARK, "iifname": wire.NFT_META_IIFNAME,
    "oifname": wire.NFT_META_OIFNAME, "nfproto": wire.NFT_META_NFPROTO, "l4proto": wire.NFT_META_L4PROTO,
    "pkttype": wire.NFT_META_PKTTYPE, "priority": wire.NFT_META_PRIORITY,
    "iifkind": wire.NFT_META_IIFKIND,
}  # fmt: skip
_LINK, _NETWORK = wire.NFT_PAYLOAD_LL_HEADER, wire.NFT_PAYLOAD_NETWORK_HEADER
_TRANSPORT = wire.NFT_PAYLOAD_TRANSPORT_HEADER
PAYLOAD = {  # header, offset and length in bytes
    "ether daddr": (_LINK, 0, 6), "ether saddr": (_LINK, 6, 6), "ether type": (_LINK, 12, 2),
    "ip protocol": (_NETWORK, 9, 1), "ip saddr": (_NETWORK, 12, 4), "ip daddr": (_NETWORK, 16, 4),
    "ip6 nexthdr": (_NETWORK, 6, 1), "ip6 saddr": (_NETWORK, 8, 16), "ip6 daddr": (_NETWORK, 24, 16),
    "th sport": (_TRANSPORT, 0, 2), "th dport": (_TRANSPORT, 2, 2),
}  # fmt: skip
CT_STATES = {
    "invalid": wire.NF_CT_STATE_INVALID, "established": wire.NF_CT_STATE_ESTABLISHED,
    "related": wire.NF_CT_STATE_RELATED, "new": wire.NF_CT_STATE_NEW,
}  # fmt: skip
CT_STATUSES = {"snat": wire.IPS_SRC_NAT, "dnat": wire.IPS_DST_NAT}
CT = {
    "state": wire.NFT_CT_STATE, "direction": wire.NFT_CT_DIRECTION, "status": wire.NFT_CT_STATUS,
    "label": wire.NFT_CT_LABELS,
}  # fmt: skip
LAST_LABEL = 127  # XT_CONNLABEL_MAXBIT in linux/netfilter/xt_connlabel.h
LABEL_BYTES = (LAST_LABEL + 1) // 8


def mark(number: int) -> bytes:
    """Encode a packet mark, or another 32-bit number that the kernel keeps in host byte order."""
    return number.to_bytes(4, sys.byteorder)


def _expression(name: str, **data: object) -> Expression:
    attributes = {f"NFTA_{name.upper()}_{key.upper()}": value for key, value in data.items()}
    return {"NFTA_EXPR_NAME": name, "NFTA_EXPR_DATA": attributes}


def _register(word: int) -> int:
    return wire.NFT_REG32_00 + word


def _value(data: bytes) -> Message:
    return {"NFTA_DATA_VALUE": data}


def payload(field: str, word: int = 0) -> Expression:
    """Load a header's field (a key of PAYLOAD, such as "ip saddr")."""
    base, offset, length = PAYLOAD[field]
    return _expression("payload", dreg=_register(word), base=base, offset=offset, len=length)


def meta(key: str, word: int = 0) -> Expression:
    """Load a property of the packet (a key of META); names of links and their kinds take 16 bytes."""
    return _expression("meta", dreg=_register(word), key=META[key])


def meta_set(key: str, word: int = 0) -> Expression:
    """Set a property of the packet, such as "mark"."""
    return _expression("meta", key=META[key], sreg=_register(word))


def immediate(data: bytes, word: int = 0) -> Expression:
    """Load a constant."""
    return _expression("immediate", dreg=_register(word), data=_value(data))


def cmp(operator: str, data: bytes, word: int = 0) -> Expression:
    """Match if the loaded value compares so to `data`: eq, neq, lt, lte, gt, gte."""
    return _expression("cmp", sreg=_register(word), op=OPERATORS[operator], data=_value(data))


def within(low: bytes, high: bytes, word: int = 0, *, negate: bool = False) -> Expression:
    """Match values from `low` to `high`, both included; with `negate` all others."""
    operator = wire.NFT_RANGE_NEQ if negate else wire.NFT_RANGE_EQ
    return _expression("range", sreg=_register(word), op=operator, from_data=_value(low), to_data=_value(high))


def bitwise(mask: bytes, xor: bytes, word: int = 0) -> Expression:
    """Replace the loaded value by (value & mask) ^ xor."""
    register = _register(word)
    return _expression("bitwise", sreg=register, dreg=register, len=len(mask), mask=_value(mask), xor=_value(xor))


def lookup(of: Set, word: int = 0, into: int = 0, *, negate: bool = False) -> Expression:
    """Match if the set contains the value loaded from `word` on; with `negate` if it does not.

    Each field of a concatenation is loaded to words of its own. A map loads its value to `into`; a verdict map executes
    the verdict.
    """
    data: dict[str, object] = {"set": of.name, "sreg": _register(word)}
    if of.data:
        data["dreg"] = wire.NFT_REG_VERDICT if of.is_verdict_map else _register(into)
    if negate:
        data["flags"] = wire.NFT_LOOKUP_F_INV
    return _expression("lookup", **data)


def fib(side: str, word: int = 0) -> Expression:
    """Load the type (RTN_*) that the host's routes give "saddr" or "daddr": 4 bytes as `mark` packs them."""
    flag = wire.NFTA_FIB_F_DADDR if side == "daddr" else wire.NFTA_FIB_F_SADDR
    return _expression("fib", dreg=_register(word), result=wire.NFT_FIB_RESULT_ADDRTYPE, flags=flag)


def ct(key: str, word: int = 0) -> Expression:
    """Load a connection's property: "state" and "status" (bits as in `mark`), "direction" (1 byte), "label"."""
    return _expression("ct", dreg=_register(word), key=CT[key])


def ct_label_set(bit: int, word: int = 0) -> list[Expression]:
    """Add a label, 0 to 127, to the connection's labels."""
    return [immediate(_label(bit), word), _expression("ct", key=CT["label"], sreg=_register(word))]


def _label(bit: int) -> bytes:
    return (1 << bit).to_bytes(LABEL_BYTES, sys.byteorder)


def masquerade() -> Expression:
    """Replace the source by the address of the outgoing link; only in base chains of type nat."""
    return _expression("masq")


def dnat(version: int, address: int = 0, port: int | None = None) -> Expression:
    """Redirect an IPv4 or IPv6 packet to the address, and port, that are loaded in these words."""
    data = {"type": wire.NFT_NAT_DNAT, "family": FAMILIES[version], "reg_addr_min": _register(address)}
    if port is not None:
        data["reg_proto_min"] = _register(port)
    return _expression("nat", **data)


def verdict(word: str, chain: str = "") -> Message:
    """Return a verdict map's value: accept, drop, return, jump or goto."""
    code = {"NFTA_VERDICT_CODE": VERDICTS[word]}
    return {"NFTA_DATA_VERDICT": {**code, "NFTA_VERDICT_CHAIN": chain} if chain else code}


def accept() -> Expression:
    """Accept the packet in this base chain; chains of later priority still see it."""
    return _verdict("accept")


def drop() -> Expression:
    """Drop the packet, finally."""
    return _verdict("drop")


def return_() -> Expression:
    """Return to the calling chain; after goto, to the end of the base chain."""
    return _verdict("return")


def jump(chain: str) -> Expression:
    """Jump to another chain, and continue here after it returns."""
    return _verdict("jump", chain)


def goto(chain: str) -> Expression:
    """Go to another chain and do not return here."""
    return _verdict("goto", chain)


def _verdict(word: str, chain: str = "") -> Expression:
    return _expression("immediate", dreg=wire.NFT_REG_VERDICT, data=verdict(word, chain))


# -- matches of several expressions; each uses word 0


def family(version: int) -> list[Expression]:
    """Match IPv4 or IPv6 packets."""
    return [meta("nfproto"), cmp("eq", bytes((FAMILIES[version],)))]


def protocol(name: str) -> list[Expression]:
    """Match packets of a protocol (a key of PROTOCOLS)."""
    return [meta("l4proto"), cmp("eq", INET_PROTO.pack(name))]


def address(side: str, prefix: Prefix, operator: str = "eq") -> list[Expression]:
    """Match packets whose "saddr" or "daddr" is in a prefix; with "neq" those of its family outside it."""
    version = prefix.version
    bits, length = prefix.first.bits, prefix.length
    loaded = payload(f"{'ip' if version == 4 else 'ip6'} {side}")
    masked = []
    if length < bits:
        mask = ((1 << bits) - (1 << (bits - length))).to_bytes(bits // 8, "big")
        masked = [bitwise(mask, bytes(bits // 8))]
    return [*family(version), loaded, *masked, cmp(operator, prefix.first.packed)]


def link(key: str, name: str, operator: str = "eq") -> list[Expression]:
    """Match packets by the name ("iifname", "oifname") or kind ("iifkind") of their link."""
    return [meta(key), cmp(operator, IFNAME.pack(name))]


def is_local(side: str = "daddr") -> list[Expression]:
    """Match packets from or to an address of this host."""
    return [fib(side), cmp("eq", mark(RTN_LOCAL))]


def ct_state(*states: str) -> list[Expression]:
    """Match packets of connections in one of these states (keys of CT_STATES)."""
    return _any_bit("state", sum(CT_STATES[state] for state in states))


def ct_status(*statuses: str) -> list[Expression]:
    """Match packets of connections with one of these status bits (keys of CT_STATUSES)."""
    return _any_bit("status", sum(CT_STATUSES[status] for status in statuses))


def ct_label(bit: int) -> list[Expression]:
    """Match packets of connections with a label, 0 to 127."""
    return [ct("label"), bitwise(_label(bit), bytes(LABEL_BYTES)), cmp("neq", bytes(LABEL_BYTES))]


def _any_bit(key: str, bits: int) -> list[Expression]:
    return [ct(key), bitwise(mark(bits), bytes(4)), cmp("neq", bytes(4))]
