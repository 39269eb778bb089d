"""Encode and decode netlink messages, using the tables that wire.py has from pyroute2.

Each message is a dict: the header's fields by their names in lower case, the attributes by the kernel's names. Nested
attributes are dicts, repeated attributes are lists, and addresses and MACs are text.
"""

from __future__ import annotations

import errno

from shared.cni.ip import Address
from shared.net import wire
from shared.net.wire import AF_BRIDGE, NLM_F_ACK_TLVS, NLM_F_CAPPED

try:
    from _struct import calcsize, pack, unpack_from
except ImportError:
    from struct import calcsize, pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

    # type, sequence number, flags, the datagram, start and end of the body
    Answer = tuple[int, int, int, bytes, int, int]
    Message = dict[str, Any]
    Structures = dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]]

HEADER_BYTES = 16  # struct nlmsghdr in linux/netlink.h
ERROR_BYTES = 20  # struct nlmsgerr in linux/netlink.h: a number and the header of the refused message
ATTRIBUTE_BYTES = 4  # struct nlattr in linux/netlink.h
NLMSGERR_ATTR_MSG = 1  # linux/netlink.h
NLA_TYPE_MASK = 0x3FFF

NUMBERS = {"u8": "=B", "u16": "=H", "u32": "=I", "u64": "=Q", "s8": "=b", "s16": "=h", "s32": "=i", "s64": "=q",
           "be16": ">H", "be32": ">I", "be64": ">Q", "sbe32": ">i"}  # fmt: skip
PADDING = (b"", bytes(3), bytes(2), bytes(1))  # to a multiple of 4 bytes, by a length's remainder


def encode(kind: int, flags: int, sequence: int, message: Message, tables: ModuleType = wire) -> bytes:
    """Return the bytes of one message, struct nlmsghdr included."""
    body = encode_structure(tables.MESSAGES[kind], message, tables.STRUCTURES)
    return pack("=IHHII", HEADER_BYTES + len(body), kind, flags, sequence, 0) + body


def encode_structure(name: str, message: Message, structures: Structures) -> bytes:
    """Return the bytes of a structure of the tables: its fields, then its attributes."""
    fields, layout, attributes = structures[name]
    out = pack(layout, *[message.get(field, 0) for field in fields]) if layout else b""
    out += PADDING[len(out) & 3]
    for key, value in message.items():
        if key in fields:
            continue
        number, kind = attributes[key]
        for one in value if isinstance(value, list) else (value,):
            payload = pack(NUMBERS[kind], one) if kind in NUMBERS else _encode_value(kind, one, message, structures)
            out += pack("=HH", 4 + len(payload), number) + payload + PADDING[len(payload) & 3]
    return out


def _encode_value(kind: str, value: Any, owner: Message, structures: Structures) -> bytes:
    if kind == "asciiz":
        return str(value).encode() + b"\0"
    if kind == "ip":
        return Address.parse(value).packed
    if kind == "l2addr":
        return bytes.fromhex(value.replace(":", ""))
    if kind == "flag":
        return b""
    if isinstance(value, bytes):
        return value
    return encode_structure(_resolve(kind, owner), value, structures)


def timeval(seconds: int, *, is_64_bit: bool) -> bytes:
    """Return a struct timeval of whole seconds, with numbers of 64 bits or of the machine's size."""
    return pack("@qq" if is_64_bit else "@ll", seconds, 0)


def split(data: bytes) -> Iterator[Answer]:
    """Yield the messages of a datagram. Stop at a message with a wrong length."""
    offset = 0
    while offset + HEADER_BYTES <= len(data):
        length, kind, flags, sequence, _port = unpack_from("=IHHII", data, offset)
        if not HEADER_BYTES <= length <= len(data) - offset:
            return
        yield kind, sequence, flags, data, offset + HEADER_BYTES, offset + length
        offset += (length + 3) & ~3


def decode_error(data: bytes, start: int, end: int) -> int:
    """Return the errno of an NLMSG_ERROR, 0 for an acknowledgement, EBADMSG for a cut answer."""
    return -int(unpack_from("=i", data, start)[0]) if end - start >= ERROR_BYTES else errno.EBADMSG


def decode_reason(flags: int, data: bytes, start: int, end: int) -> str:
    """Return the kernel's reason for an error, in words; empty if it gives none."""
    if end - start < ERROR_BYTES:
        return "the answer is cut"
    reason = ""
    if flags & NLM_F_ACK_TLVS:
        # struct nlmsgerr: the errno, then the refused message, of which a capped answer has the header alone
        refused = HEADER_BYTES if flags & NLM_F_CAPPED else int(unpack_from("=I", data, start + 4)[0])
        for attribute, value_start, value_end in _attributes(data, start + 4 + ((refused + 3) & ~3), end):
            if attribute == NLMSGERR_ATTR_MSG:
                reason = data[value_start : value_end - 1].decode(errors="replace")
    return reason


def decode(kind: int, data: bytes, start: int, end: int, tables: ModuleType = wire) -> Message:
    """Return the message with the body data[start:end]. Leave out attributes that the tables do not have."""
    return _decode_structure(tables.MESSAGES[kind], data, start, end, tables.STRUCTURES)


def decode_part(structure: str, data: bytes, tables: ModuleType = wire) -> Message:
    """Return the content of an attribute that `decode` leaves as bytes because few calls need it."""
    return _decode_structure(structure, data, 0, len(data), tables.STRUCTURES)


def next_hops(data: bytes) -> Iterator[Message]:
    """Yield the next hops in RTA_MULTIPATH (struct rtnexthop) with the attributes of a route with one next hop."""
    gateway, kind = wire.STRUCTURES["route"][2]["RTA_GATEWAY"]
    start = 0
    while start + 8 <= len(data):
        length, _flags, _hops, index = unpack_from("=HBBi", data, start)
        if not 8 <= length <= len(data) - start:
            return
        hop: Message = {"RTA_OIF": index}
        for number, value_start, value_end in _attributes(data, start + 8, start + length):
            if number == gateway:
                hop["RTA_GATEWAY"] = _decode_value(kind, data, value_start, value_end, hop, wire.STRUCTURES)
        yield hop
        start += (length + 3) & ~3


_by_number: dict[str, dict[int, tuple[str, str]]] = {}  # by structure; no two tables have structures of one name


def _decode_structure(name: str, data: bytes, start: int, end: int, structures: Structures) -> Message:
    fields, layout, attributes = structures[name]
    message: Message = {}
    if layout:
        if calcsize(layout) > end - start:
            return message
        message.update(zip(fields, unpack_from(layout, data, start)))
        start += (calcsize(layout) + 3) & ~3
    known = _by_number.get(name)
    if known is None:
        known = _by_number[name] = {number & NLA_TYPE_MASK: (key, kind) for key, (number, kind) in attributes.items()}
    while start + ATTRIBUTE_BYTES <= end:  # as in _attributes, whose calls would take as long as all the rest
        length, number = unpack_from("=HH", data, start)
        if not ATTRIBUTE_BYTES <= length <= end - start:
            break
        if (of := known.get(number & NLA_TYPE_MASK)) is not None:
            key, kind = of
            value = _decode_value(kind, data, start + ATTRIBUTE_BYTES, start + length, message, structures)
            if key not in message:
                message[key] = value
            elif isinstance(message[key], list):
                message[key].append(value)
            else:
                message[key] = [message[key], value]
        start += (length + 3) & ~3
    return message


def _attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each attribute in data[start:end], and where its value starts and ends.

    Stop at a length that is too small or runs past the end: the place of the next attribute is unknown.
    """
    while start + ATTRIBUTE_BYTES <= end:
        length, number = unpack_from("=HH", data, start)
        if not ATTRIBUTE_BYTES <= length <= end - start:
            return
        yield number & NLA_TYPE_MASK, start + ATTRIBUTE_BYTES, start + length
        start += (length + 3) & ~3


def _decode_value(kind: str, data: bytes, start: int, end: int, owner: Message, structures: Structures) -> Any:
    if kind in NUMBERS:
        layout = NUMBERS[kind]
        return unpack_from(layout, data, start)[0] if calcsize(layout) <= end - start else data[start:end]
    if kind == "asciiz":
        return data[start:end].rstrip(b"\0").decode(errors="surrogateescape")
    if kind == "l2addr":
        return data[start:end].hex(":")
    if kind == "ip" and end - start in (4, 16):
        return str(Address(4 if end - start == 4 else 6, int.from_bytes(data[start:end], "big")))
    if kind == "flag":
        return True
    structure = _resolve(kind, owner)
    if structure not in structures:
        return data[start:end]
    return _decode_structure(structure, data, start, end, structures)


def _resolve(kind: str, owner: Message) -> str:
    """Return the structure of an attribute. The layout of some depends on another attribute of their owner."""
    if kind == "info_data":
        return f"info_data/{owner.get('IFLA_INFO_KIND', '')}"
    if kind == "info_slave_data":
        return f"info_slave_data/{owner.get('IFLA_INFO_SLAVE_KIND', '')}"
    if kind == "af_spec":
        return "af_spec/bridge" if owner.get("family") == AF_BRIDGE else ""
    if kind == "tc_options":
        return f"tc_options/{owner.get('TCA_KIND', '')}"
    if kind == "act_options":
        return f"act_options/{owner.get('TCA_ACT_KIND', '')}"
    if kind == "expr":
        return f"expr/{owner.get('NFTA_EXPR_NAME', '')}"
    return kind
