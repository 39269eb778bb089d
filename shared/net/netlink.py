"""Netlink sockets: send requests to the kernel and read its answers.

    host.request(RTM_NEWLINK, {"index": 3, "flags": IFF_UP, "change": IFF_UP, "IFLA_MTU": 1400})

shared/net/messages.py describes the form of a message. `Netlink` speaks rtnetlink; subclasses set the protocol and the
tables of another one.
"""

from __future__ import annotations

import errno
import posix
from time import monotonic

from shared import signals
from shared.cni.errors import InternalError
from shared.net import messages, wire
from shared.net.wire import (
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)
from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import TypeVar

    from shared.net.messages import Answer

    Read = TypeVar("Read")
    Message = messages.Message

SO_RCVTIMEO_NEW = 66  # linux/socket.h: the form of SO_RCVTIMEO that takes two numbers of 64 bits on any machine
# SO_SNDBUFFORCE by the machine's SO_SNDBUF (asm/socket.h): Python has no name for it. The second line is for MIPS.
SO_SNDBUFFORCE = {7: (32,), 0x1001: (0x100A, 31)}
SEND_OVERHEAD_BYTES = 32  # of a send buffer, closed to the message: netlink_sendmsg() in net/netlink/af_netlink.c
WMEM_MAX = "net.core.wmem_max"
ANSWER_SECONDS = 30  # for a request as a whole: all parts of its answer, and all tries
TICK_SECONDS = 1  # between two looks of a wait at the time and at signals
KERNEL = 0  # the port that no process can have (netlink_autobind() and netlink_bind() in net/netlink/af_netlink.c)
SOL_NETLINK = 270  # linux/socket.h
NETLINK_ADD_MEMBERSHIP = 1  # linux/netlink.h
RECEIVE_BYTES = 65536  # the first size of the receive buffer; a link with hundreds of alternative names needs more
AT_ONCE = 64  # requests of a batch that are sent together: the socket's buffer holds as many refusals
DUMP_TRIES = 10
ABSENT = (errno.ENODEV, errno.ENOENT)  # answers if the object of a query does not exist
MESSAGE_PREFIXES = ("RTM_", "NFT_MSG_", "NFNL_MSG_", "IPCTNL_MSG_")


class NetlinkError(InternalError):
    """The kernel refused the request of type `kind` with `message`; `errno` is its reason."""

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
    """Answers are lost (ENOBUFS) or cut, or a change interrupted the dump: the caller must ask again."""


class TooLarge(InternalError):
    """Requests that must be sent together exceed the send buffer, and it cannot grow."""

    def __init__(self, size: int, room: int) -> None:
        super().__init__(
            f"the transaction has {size} bytes, the socket's send buffer takes {max(room, 0)}: "
            f"set {WMEM_MAX} to at least {_send_buffer(size)}, or configure less"
        )

    def naming(self, key: str, count: int) -> InternalError:
        """Return the same error with the configuration's key that causes so many requests."""
        return InternalError(f'"{key}" has {count} entries: {self.msg}')


class Request:
    """A message of a batch, yet to be sent.

    The errors in `tolerate` mean that the change is done already, so they count as success.
    """

    def __init__(self, kind: int, message: Message, flags: int = 0, tolerate: tuple[int, ...] = ()) -> None:
        self.kind = kind
        self.message = message
        self.flags = flags
        self.tolerate = tolerate


class Netlink:
    """A netlink socket in the thread's network namespace at the time of creation.

    The socket is connected to the kernel, so no process can send to it (netlink_getsockbyportid() refuses with
    ECONNREFUSED). A pod with CAP_NET_ADMIN in its namespace can neither forge an answer nor flood the socket. A process
    can send before connect() is done: the sender's port tells these datagrams apart, and they are dropped.
    """

    protocol = NETLINK_ROUTE
    tables: ModuleType = wire
    room = RECEIVE_BYTES
    deadline = 0.0  # of the current request, on the monotonic clock

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self.protocol)
        self.socket.connect((KERNEL, 0))
        self.sequence = int.from_bytes(posix.urandom(4), "big") >> 1  # random, so that no process can guess it
        seconds = messages.timeval(TICK_SECONDS, is_64_bit=socket.SO_RCVTIMEO == SO_RCVTIMEO_NEW)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        for option in (NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            try:
                self.socket.setsockopt(SOL_NETLINK, option, 1)
            except OSError:  # Linux before 4.12 gives no reasons in words; before 4.20 it does not filter dumps
                pass

    def close(self) -> None:
        """Close the socket. An executable leaves that to its exit."""
        self.socket.close()

    def request(self, kind: int, message: Message, flags: int = 0, tolerate: tuple[int, ...] = ()) -> None:
        """Request one change. Raises NetlinkError with the kernel's reason if the kernel refuses."""
        self.batch([Request(kind, message, flags, tolerate)])

    def batch(self, requests: list[Request]) -> None:
        """Send requests, AT_ONCE together, and wait until the kernel has processed the last.

        If a request fails, the kernel still processes the others. Raises NetlinkError for the first failure, and
        InternalError if the answer is lost, so that the outcome is unknown.

        A signal does not interrupt this function: the caller has yet to note how to undo the change. The kernel makes a
        change and answers before send() returns.
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
                has_lost = True  # the kernel has answered all requests by now: do not wait for more answers
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
        """Return the object that the message names, or None if it does not exist.

        Some kinds need `flags`: NLM_F_ECHO to get an answer at all, NLM_F_ACK to get one if no object exists.
        Raises signals.Terminated after SIGTERM, like `dump` and `scan`.
        """
        request = Request(kind, message, flags, ABSENT)
        return self._retry_read(lambda: self._get_one(request))

    def _retry_read(self, read: Callable[[], Read]) -> Read:
        """Return the result of `read`. Repeat it if answers are lost, with one deadline for all tries together."""
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
                    return messages.decode(got, data, start, end, self.tables)
                if failure := self._refusal(request, answer_flags, data, start, end):
                    raise failure
                return None
            self._expect_time()

    def dump(self, kind: int, message: Message | None = None) -> list[Message]:
        """Return all objects of a kind. If others can create many, use `scan`, which does not hold them all.

        `message` narrows the dump. Older kernels ignore it, so callers filter as well.
        """
        return self.scan(kind, message, list)

    def scan(self, kind: int, message: Message | None, take: Callable[[Iterator[Message]], Read]) -> Read:
        """Have `take` read a stream of all objects of a kind, and return its result. Only the result stays in memory.

        The stream raises Overrun at its end if a change interrupted the dump, or the dump overran the socket's buffer.
        `take` is then called again. `take` must not use this socket.
        """
        request = Request(kind, message or {}, NLM_F_DUMP)
        return self._retry_read(lambda: self._scan_once(request, take))

    def _scan_once(self, request: Request, take: Callable[[Iterator[Message]], Read]) -> Read:
        parts = self._dump_parts(request)

        def stream() -> Iterator[Message]:
            for kind, data, start, end in parts:
                message = messages.decode(kind, data, start, end, self.tables)
                signals.safe_point()
                self._expect_time()
                taken = monotonic()
                yield message
                self.deadline += monotonic() - taken  # the deadline is for the kernel, not for `take`

        try:
            return take(stream())
        finally:
            for _ in parts:  # read the rest even after an error: the kernel refuses a second dump until the end (EBUSY)
                pass

    def _dump_parts(self, request: Request) -> Iterator[tuple[int, bytes, int, int]]:
        """Yield the type and the place of each message of a dump. Raise Overrun at the end if messages are missing.

        EBUSY: a signal interrupted the reading of an earlier dump. Read that one to its end and raise Overrun.
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
        """Raise InternalError if the deadline of the request has passed."""
        if monotonic() >= self.deadline:
            raise InternalError(f"the kernel's answer did not come within {ANSWER_SECONDS} seconds")

    def _send(self, requests: list[Request], *, acknowledge: bool = True) -> int:
        parts = []
        for request in requests:
            self.sequence += 1
            flags = NLM_F_REQUEST | request.flags
            if acknowledge and request is requests[-1]:
                flags |= NLM_F_ACK
            parts.append(messages.encode(request.kind, flags, self.sequence, request.message, self.tables))
        data = b"".join(parts)
        try:
            self._transmit(data)
        except OSError as error:
            kind, message = requests[0].kind, requests[0].message
            raise NetlinkError(error.errno or 0, kind, message, "it could not be sent", self.tables) from None
        return self.sequence

    def _transmit(self, data: bytes) -> None:
        """Send a message; enlarge the send buffer if the message exceeds it. Raises TooLarge."""
        try:
            self.socket.send(data)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._grow(len(data))
            self.socket.send(data)

    def _grow(self, size: int) -> None:
        """Enlarge the send buffer for a message: with privilege, or else as far as the sysctl allows."""
        wanted, room = _send_buffer(size), 0
        for option in (*SO_SNDBUFFORCE.get(socket.SO_SNDBUF, ()), socket.SO_SNDBUF):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, option, wanted)
            except OSError:  # EPERM: not root of the machine itself; ENOPROTOOPT: an option of another architecture
                continue
            room = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - SEND_OVERHEAD_BYTES
            if room >= size:
                return
        raise TooLarge(size, room)

    def _drain(self, *, has_lost: bool) -> None:
        """Drop the answers that an overrun left behind: a full buffer has no space for the next ones."""
        while has_lost:
            try:
                self.socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise InternalError("the kernel's answer cannot be read", str(error)) from None
            self._expect_time()

    def _receive(self, *, wait: bool = True, safe: bool = False) -> Iterator[Answer]:
        """Yield the messages of the kernel's next datagram. With `safe`, the wait for it is a safe point.

        Raises Overrun if answers are lost.
        """
        yield from messages.split(self._datagram(wait=wait, safe=safe))

    def _datagram(self, *, wait: bool, safe: bool) -> bytes:
        """Return the kernel's next datagram; raise Overrun if an answer is lost or cut."""
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
                    self.room *= 4  # the datagram may be longer than the buffer
                    raise Overrun("the kernel's answer is cut")
            self._expect_time()
            if safe:
                signals.safe_point()

    def _refusal(self, request: Request, flags: int, data: bytes, start: int, end: int) -> NetlinkError | None:
        """Return the error in an answer, or None if the request was done."""
        number = messages.decode_error(data, start, end)
        if number == 0 or number in request.tolerate:
            return None
        reason = messages.decode_reason(flags, data, start, end)
        return NetlinkError(number, request.kind, request.message, reason, self.tables)


def _send_buffer(size: int) -> int:
    """Return the value of SO_SNDBUF for a message of `size` bytes; the kernel doubles the value."""
    return size // 2 + SEND_OVERHEAD_BYTES
