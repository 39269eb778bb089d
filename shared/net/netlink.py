"""Netlink, driven by the tables that wire.py has from pyroute2: rtnetlink's here, others' as shared/nft brings them.

A message is a dict: the header's fields by their names in lower case, the attributes by the kernel's names:

    host.request(RTM_NEWLINK, {"index": 3, "flags": IFF_UP, "change": IFF_UP, "IFLA_MTU": 1400})

Nested attributes are dicts again, repeated ones lists; addresses and MACs are text.
"""

from __future__ import annotations

import errno
import posix
from time import monotonic

from shared import signals
from shared.cni.errors import InternalError
from shared.cni.ip import Address
from shared.net import wire
from shared.net.wire import (
    AF_BRIDGE,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)
from shared.sockets import native as socket

try:
    from _struct import calcsize, pack, unpack_from
except ImportError:
    from struct import calcsize, pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import Any, TypeVar

    Read = TypeVar("Read")
    Answer = tuple[int, int, int, bytes, int, int]  # type, sequence number, flags, the datagram, the body's place in it

    Message = dict[str, Any]
    Structures = dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]]

SO_RCVTIMEO_NEW = 66  # linux/socket.h: the form of SO_RCVTIMEO that takes two numbers of 64 bits on any machine
# SO_SNDBUFFORCE by the machine's SO_SNDBUF (asm/socket.h): Python has no name for it. The second is mips'.
SO_SNDBUFFORCE = {7: (32,), 0x1001: (0x100A, 31)}
SEND_OVERHEAD_BYTES = 32  # of a send buffer that a message may not use: netlink_sendmsg() in net/netlink/af_netlink.c
WMEM_MAX = "net.core.wmem_max"
ANSWER_SECONDS = 30  # for a request as a whole: all parts of its answer, and all tries
TICK_SECONDS = 1  # after which a wait looks at the time and at signals
KERNEL = 0  # the port that no process can have (netlink_autobind() and netlink_bind() in net/netlink/af_netlink.c)
SOL_NETLINK = 270  # linux/socket.h
ERROR_BYTES = 20  # struct nlmsgerr in linux/netlink.h: a number and the header of the refused message
NLMSGERR_ATTR_MSG = 1  # linux/netlink.h
RECEIVE_SIZE = 65536  # bytes; a link with hundreds of alternative names has a longer message
AT_ONCE = 64  # requests of a batch that are sent together: the socket's buffer holds as many refusals
DUMP_TRIES = 10
NLA_TYPE_MASK = 0x3FFF
MESSAGE_PREFIXES = ("RTM_", "NFT_MSG_", "NFNL_MSG_", "IPCTNL_MSG_")

NUMBERS = {"u8": "=B", "u16": "=H", "u32": "=I", "u64": "=Q", "s8": "=b", "s16": "=h", "s32": "=i", "s64": "=q",
           "be16": ">H", "be32": ">I", "be64": ">Q", "sbe32": ">i"}  # fmt: skip


class NetlinkError(InternalError):
    """The kernel refused a request, of `kind` with `message`; `errno` is its reason."""

    def __init__(self, number: int, kind: int, message: Message, reason: str, tables: ModuleType = wire) -> None:
        self.errno = number
        self.kind = kind
        self.message = message
        names = (n for n, value in vars(tables).items() if n.startswith(MESSAGE_PREFIXES) and value == kind)
        name = next(names, f"message type {kind}")
        shown = {key: value for key, value in message.items() if value and not isinstance(value, (dict, bytes))}
        subject = ", ".join(f"{key}={value}" for key, value in shown.items())
        text = f"{posix.strerror(number)} ({errno.errorcode.get(number, number)})"
        super().__init__(f"kernel refused {name} {subject}: {text}" + (f": {reason}" if reason else ""))


class Overrun(InternalError):
    """Answers are lost (ENOBUFS), cut, or of a dump that a change interrupted: the question must be asked again."""


class TooLarge(InternalError):
    """Requests that must be sent as one message do not fit into the socket's send buffer, which cannot grow."""

    def __init__(self, size: int, room: int) -> None:
        super().__init__(
            f"the transaction has {size} bytes, the socket's send buffer takes {max(room, 0)}: "
            f"set {WMEM_MAX} to at least {_send_buffer(size)}, or configure less"
        )

    def naming(self, key: str, count: int) -> InternalError:
        """Return the same error with the configuration's key that asks for so much."""
        return InternalError(f'"{key}" has {count} entries: {self.msg}')


class Request:
    """One message of a batch; the errors in `tolerate` mean that what was asked for is so already."""

    def __init__(self, kind: int, message: Message, flags: int = 0, tolerate: tuple[int, ...] = ()) -> None:
        self.kind = kind
        self.message = message
        self.flags = flags
        self.tolerate = tolerate


class Netlink:
    """A netlink socket of the network namespace that the thread is in when this is made.

    The socket is connected to the kernel, so a process cannot send to it (netlink_getsockbyportid() refuses by
    ECONNREFUSED): a pod with CAP_NET_ADMIN in its namespace can neither forge an answer nor flood the socket. Until
    connect() is done a datagram can slip in. Datagrams of processes are dropped by their sender.
    """

    protocol = NETLINK_ROUTE
    tables: ModuleType = wire
    room = RECEIVE_SIZE
    deadline = 0.0  # on the monotonic clock, of the request that is under way

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self.protocol)
        self.socket.connect((KERNEL, 0))
        self.sequence = int.from_bytes(posix.urandom(4), "big") >> 1  # a random one cannot be guessed
        seconds = pack("@qq" if socket.SO_RCVTIMEO == SO_RCVTIMEO_NEW else "@ll", TICK_SECONDS, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        for option in (NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            try:
                self.socket.setsockopt(SOL_NETLINK, option, 1)
            except OSError:  # kernels before 4.12 and 4.20: no reasons in words, and dumps are not filtered
                pass

    def close(self) -> None:
        """Frees the socket; an executable leaves that to its exit."""
        self.socket.close()

    def request(self, kind: int, message: Message, flags: int = 0, tolerate: tuple[int, ...] = ()) -> None:
        """Asks for one change; raises NetlinkError with what the kernel says against it."""
        self.batch([Request(kind, message, flags, tolerate)])

    def batch(self, requests: list[Request]) -> None:
        """Send requests, AT_ONCE together, and wait for the last to be done.

        The kernel goes on with the others after one that fails; the first failure is raised as NetlinkError. Raises
        InternalError where the answer got lost, and nobody knows what was done.

        A signal does not end this: the caller has yet to note how to undo the change. The kernel makes a change, and
        answers, before it returns from sending.
        """
        pieces = [requests[place : place + AT_ONCE] for place in range(0, len(requests), AT_ONCE)]
        failures = [self._batch_piece(piece) for piece in pieces]
        failure = next(filter(None, failures), None)
        if failure:
            raise failure

    def _batch_piece(self, requests: list[Request]) -> NetlinkError | None:
        """Send requests together and return the first failure."""
        first = self.sequence + 1
        self._begin()
        last = self._send(requests)
        failure: NetlinkError | None = None
        has_lost = False
        while True:
            try:
                answers = list(self._receive(wait=not has_lost))
            except Overrun:
                has_lost = True  # but the kernel is done: what is not in the buffer never will be
                continue
            for kind, sequence, _flags, data, start, end in answers:
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue  # an answer that an earlier, failed call did not wait for
                failure = failure or self._refusal(requests[sequence - first], _flags, data, start, end)
                if sequence == last or (failure and has_lost):
                    self._drain(has_lost=has_lost)
                    return failure
            self._expect_time()

    def get(self, kind: int, message: Message, flags: int = 0) -> Message | None:
        """The one object asked for, or None where the kernel says that there is none.

        Some kinds need `flags`: NLM_F_ECHO to be told at all, NLM_F_ACK to learn that there is nothing to tell.
        Raises signals.Terminated after SIGTERM, as the other questions do.
        """
        request = Request(kind, message, flags)
        return self._retry_read(lambda: self._get_one(request))

    def _retry_read(self, read: Callable[[], Read]) -> Read:
        """Return the result of a reading. Begin it anew if answers are lost; all tries together have one deadline."""
        self._begin()
        for _ in range(DUMP_TRIES):
            try:
                return read()
            except Overrun:
                self._expect_time()
                signals.safe_point()
        raise InternalError(
            f"the kernel's answers were lost, or its tables changed during each of {DUMP_TRIES} readings"
        )

    def _get_one(self, request: Request) -> Message | None:
        sequence = self._send([request], acknowledge=False)
        while True:
            for got, number, answer_flags, data, start, end in self._receive(safe=True):
                if number != sequence:
                    continue
                if got != NLMSG_ERROR:
                    return decode(got, data, start, end, self.tables)
                failure = self._refusal(request, answer_flags, data, start, end)
                if failure is None or failure.errno in (errno.ENODEV, errno.ENOENT):
                    return None
                raise failure
            self._expect_time()

    def dump(self, kind: int, message: Message | None = None) -> list[Message]:
        """Return all objects of a kind. If others can make them many, use `scan`, which does not hold them all.

        `message` narrows the dump where the kernel can, so callers filter as well.
        """
        return self.scan(kind, message, list)

    def scan(self, kind: int, message: Message | None, take: Callable[[Iterator[Message]], Read]) -> Read:
        """Have `take` read a stream of all objects of a kind, and return its result, which alone stays in memory.

        `take` is called anew if a change interrupted the dump, or it overran the socket's buffer: the stream raises
        Overrun at its end. `take` must not use this socket.
        """
        request = Request(kind, message or {}, NLM_F_DUMP)
        return self._retry_read(lambda: self._scan_once(request, take))

    def _scan_once(self, request: Request, take: Callable[[Iterator[Message]], Read]) -> Read:
        parts = self._dump_parts(request)

        def stream() -> Iterator[Message]:
            for kind, data, start, end in parts:
                message = decode(kind, data, start, end, self.tables)
                signals.safe_point()
                self._expect_time()
                taken = monotonic()
                yield message
                self.deadline += monotonic() - taken  # that time was not the kernel's

        try:
            return take(stream())
        finally:
            for _ in parts:  # to be read out, however this ends: a socket has one dump at a time, others get EBUSY
                pass

    def _dump_parts(self, request: Request) -> Iterator[tuple[int, bytes, int, int]]:
        """Yield the type and the place of each message of a dump; raise Overrun at the end if they are not all.

        EBUSY: a signal cut an earlier dump short. The socket takes the next one after the end of that one.
        """
        interrupted = is_busy = False
        sequence = self._send([request], acknowledge=False)
        while True:
            try:
                answers = list(self._receive())
            except Overrun:
                interrupted = True
                continue
            for kind, number, flags, data, start, end in answers:
                if kind == NLMSG_DONE and is_busy:
                    raise Overrun("the socket had another dump")
                if number != sequence:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_DONE:
                    if interrupted:
                        raise Overrun("the kernel's tables changed while they were read")
                    return
                if kind != NLMSG_ERROR:
                    yield kind, data, start, end
                    continue
                failure = self._refusal(request, flags, data, start, end)
                is_busy = failure is not None and failure.errno == errno.EBUSY
                if failure and not is_busy:
                    raise failure

    def _begin(self) -> None:
        """Set the deadline of a request as a whole."""
        self.deadline = monotonic() + ANSWER_SECONDS

    def _expect_time(self) -> None:
        """Raise InternalError if the deadline of the request is over."""
        if monotonic() >= self.deadline:
            raise InternalError(f"the kernel's answer did not come within {ANSWER_SECONDS} seconds")

    def _send(self, requests: list[Request], *, acknowledge: bool = True) -> int:
        parts = []
        for request in requests:
            self.sequence += 1
            flags = NLM_F_REQUEST | request.flags
            if acknowledge and request is requests[-1]:
                flags |= NLM_F_ACK
            parts.append(encode(request.kind, flags, self.sequence, request.message, self.tables))
        data = b"".join(parts)
        try:
            self._transmit(data)
        except OSError as error:
            kind, message = requests[0].kind, requests[0].message
            raise NetlinkError(error.errno or 0, kind, message, "it could not be sent", self.tables) from None
        return self.sequence

    def _transmit(self, data: bytes) -> None:
        """Send a message; one that is larger than the send buffer makes the buffer grow. Raises TooLarge."""
        try:
            self.socket.send(data)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._grow(len(data))
            self.socket.send(data)

    def _grow(self, size: int) -> None:
        """Make the send buffer large enough for a message: by privilege, or else as far as the sysctl allows."""
        wanted, room = _send_buffer(size), 0
        for option in (*SO_SNDBUFFORCE.get(socket.SO_SNDBUF, ()), socket.SO_SNDBUF):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, option, wanted)
            except OSError:  # EPERM: not root of the machine itself; ENOPROTOOPT: another machine's number
                continue
            room = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - SEND_OVERHEAD_BYTES
            if room >= size:
                return
        raise TooLarge(size, room)

    def _drain(self, *, has_lost: bool) -> None:
        """Drop the answers that an overrun left behind: in a full buffer they would crowd out the next ones."""
        while has_lost:
            try:
                self.socket.recv(RECEIVE_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise InternalError("the kernel's answer cannot be read", str(error)) from None
            self._expect_time()

    def _receive(self, *, wait: bool = True, safe: bool = False) -> Iterator[Answer]:
        """Yield the messages of the kernel's next datagram; with `safe`, a wait for it is a safe point.

        Raises Overrun if answers are lost.
        """
        data = self._datagram(wait=wait, safe=safe)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _port = unpack_from("=IHHII", data, offset)
            if not 16 <= length <= len(data) - offset:
                return
            yield kind, sequence, flags, data, offset + 16, offset + length
            offset += (length + 3) & ~3

    def _datagram(self, *, wait: bool, safe: bool) -> bytes:
        while True:
            try:
                data, sender = self.socket.recvfrom(self.room, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not wait:
                    raise InternalError("the kernel's answer is lost") from None
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Overrun("the kernel's answers are lost", str(error)) from None
                raise InternalError("the kernel's answer cannot be read", str(error)) from None
            else:
                if sender[0] == KERNEL and len(data) < self.room:
                    return data
                if sender[0] == KERNEL:
                    self.room *= 4  # the datagram may go on
                    raise Overrun("the kernel's answer is cut")
            self._expect_time()
            if safe:
                signals.safe_point()

    def _refusal(self, request: Request, flags: int, data: bytes, start: int, end: int) -> NetlinkError | None:
        if end - start < ERROR_BYTES:
            return NetlinkError(errno.EBADMSG, request.kind, request.message, "the answer is cut", self.tables)
        number = -int(unpack_from("=i", data, start)[0])
        if number == 0 or number in request.tolerate:
            return None
        reason = ""
        if flags & NLM_F_ACK_TLVS:
            # struct nlmsgerr: the errno, then the refused message's header alone (capped) or the message whole
            refused = 16 if flags & NLM_F_CAPPED else int(unpack_from("=I", data, start + 4)[0])
            for attribute, value_start, value_end in _attributes(data, start + 4 + ((refused + 3) & ~3), end):
                if attribute == NLMSGERR_ATTR_MSG:
                    reason = data[value_start : value_end - 1].decode(errors="replace")
        return NetlinkError(number, request.kind, request.message, reason, self.tables)


def _send_buffer(size: int) -> int:
    """The value of SO_SNDBUF, which the kernel doubles, that leaves room for a message of `size` bytes."""
    return size // 2 + SEND_OVERHEAD_BYTES


def encode(kind: int, flags: int, sequence: int, message: Message, tables: ModuleType = wire) -> bytes:
    """The bytes of one message, struct nlmsghdr included."""
    body = encode_structure(tables.MESSAGES[kind], message, tables.STRUCTURES)
    return pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def encode_structure(name: str, message: Message, structures: Structures) -> bytes:
    """The bytes of a structure of the tables: its fields, then its attributes."""
    fields, layout, attributes = structures[name]
    out = pack(layout, *[message.get(field, 0) for field in fields]) if layout else b""
    out += bytes(-len(out) % 4)
    for key, value in message.items():
        if key in fields:
            continue
        number, kind = attributes[key]
        for one in value if isinstance(value, list) else (value,):
            payload = _encode_value(kind, one, message, structures)
            out += pack("=HH", 4 + len(payload), number) + payload + bytes(-len(payload) % 4)
    return out


def _encode_value(kind: str, value: Any, owner: Message, structures: Structures) -> bytes:
    if kind in NUMBERS:
        return pack(NUMBERS[kind], value)
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


def decode(kind: int, data: bytes, start: int, end: int, tables: ModuleType = wire) -> Message:
    """The message whose body is data[start:end]; attributes that the tables do not know are left out."""
    return _decode_structure(tables.MESSAGES[kind], data, start, end, tables.STRUCTURES)


def decode_part(structure: str, data: bytes) -> Message:
    """Return an attribute that `decode` leaves as bytes, since few calls need what it has."""
    return _decode_structure(structure, data, 0, len(data), wire.STRUCTURES)


def next_hops(data: bytes) -> Iterator[Message]:
    """The next hops that RTA_MULTIPATH lists (struct rtnexthop), each as a route with one of its own has it."""
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


_by_number: dict[str, dict[int, tuple[str, str]]] = {}  # by structure; no two tables have one of the same name


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
    for number, value_start, value_end in _attributes(data, start, end):
        if number in known:
            key, kind = known[number]
            value = _decode_value(kind, data, value_start, value_end, message, structures)
            if key not in message:
                message[key] = value
            elif isinstance(message[key], list):
                message[key].append(value)
            else:
                message[key] = [message[key], value]
    return message


def _attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    while start + 4 <= end:
        length, number = unpack_from("=HH", data, start)
        if not 4 <= length <= end - start:  # what follows cannot be told
            return
        yield number & NLA_TYPE_MASK, start + 4, start + length
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
    """The structure of an attribute whose layout depends on what stands before it."""
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
