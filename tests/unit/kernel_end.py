"""The kernel's end of a netlink socket: it keeps each request, and answers as a test says.

The requests go through a real socket pair, with the framing, batching and sequence numbers of a real socket.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import ifaddrmsg, ifinfmsg, rtmsg

from shared.net.messages import timeval
from shared.net.netlink import SO_RCVTIMEO_NEW, TICK_SECONDS, Netlink
from shared.net.wire import MESSAGES, NLM_F_ACK, NLMSG_DONE, NLMSG_ERROR, RTM_GETLINK

if TYPE_CHECKING:
    from typing import Self

CLASSES: dict[str, type[nlmsg]] = {"link": ifinfmsg.ifinfmsg, "address": ifaddrmsg.ifaddrmsg, "route": rtmsg.rtmsg}

# What pyroute2 keeps beside a message's fields.
PYROUTE2_OWN = ("attrs", "header", "value", "event", "state", "__align")

Message = dict[str, Any]
Answering = Callable[[int, int, bytes], list[bytes]]


def by_pyroute2(kind: int, flags: int, sequence: int, message: Message) -> bytes:
    """Return the bytes that pyroute2 makes of a message in the form of shared.net.netlink."""
    out = CLASSES[MESSAGES[kind]]()
    out.update(_plain(message))
    out["header"].update(type=kind, flags=flags, sequence_number=sequence, pid=0)
    out.encode()
    return bytes(out.data)


def _plain(message: Message) -> Message:
    """Put the header's fields beside a list of attributes, a repeated attribute once for each value."""
    attributes: list[tuple[str, Any]] = []
    for name, value in message.items():
        if name.isupper():
            values = value if isinstance(value, list) else [value]
            attributes += [(name, _plain(one) if isinstance(one, dict) else one) for one in values]
    return {**{name: value for name, value in message.items() if not name.isupper()}, "attrs": attributes}


def read_by_pyroute2(kind: int, data: bytes) -> Message:
    """Return a message as pyroute2 reads its bytes, header included, in the form of shared.net.netlink."""
    message = CLASSES[MESSAGES[kind]](data)
    message.decode()
    return _folded(message)


def _folded(message: Any) -> Message:
    out = {name: value for name, value in message.items() if name not in PYROUTE2_OWN}
    for attribute in message.get("attrs", ()):
        name, value = attribute[0], attribute[1]
        one = _folded(value) if isinstance(value, dict) else value
        if name not in out:
            out[name] = one
        else:
            out[name] = [*(out[name] if isinstance(out[name], list) else [out[name]]), one]
    return out


def error(number: int, sequence: int, request: bytes = bytes(16), *, flags: int = 0, trailer: bytes = b"") -> bytes:
    """Return an NLMSG_ERROR; number 0 is an acknowledgement."""
    body = struct.pack("=i", -number) + request + trailer
    return struct.pack("=IHHII", 16 + len(body), NLMSG_ERROR, flags, sequence, 0) + body


def done(sequence: int, flags: int = 0) -> bytes:
    """Return the end of a dump."""
    return struct.pack("=IHHIIi", 20, NLMSG_DONE, flags, sequence, 0, 0)


def split(data: bytes) -> list[bytes]:
    """Return the messages of one datagram."""
    found = []
    while data:
        length = struct.unpack_from("=I", data)[0]
        found.append(data[:length])
        data = data[(length + 3) & ~3 :]
    return found


class FromKernel:
    """A socket whose other end counts as the kernel; with `port`, as a process."""

    def __init__(self, end: socket.socket, port: int = 0) -> None:
        self.end, self.port = end, port

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, tuple[int, int]]:
        return self.end.recv(size, flags), (self.port, 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.end, name)


class KernelEnd:
    """A context manager with a `netlink` to talk to and the received `requests`, as bytes.

    `answering(kind, sequence, request)` gives the datagrams that answer a request. Without it, requests that ask for an
    acknowledgement get one. RTM_GETLINK by name finds every name, with an index of its own and 1500 as MTU; a name in
    `absent` is missing the first time. `of` is the class of the socket.
    """

    def __init__(
        self, answering: Answering | None = None, absent: Iterable[str] = (), of: type[Netlink] = Netlink
    ) -> None:
        self.requests: list[bytes] = []
        self.of = of
        self.absent = list(absent)
        self.answering = answering or self._found
        self.indexes: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.netlink: Any = self.of.__new__(self.of)
        mine, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # as the real socket has it: a request without an answer fails in the end, and does not hang
        seconds = timeval(TICK_SECONDS, is_64_bit=socket.SO_RCVTIMEO == SO_RCVTIMEO_NEW)
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        end: Any = FromKernel(mine)
        self.netlink.socket = end
        self.netlink.sequence = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.netlink.socket.close()
        self._thread.join(10)
        self._theirs.close()

    def _serve(self) -> None:
        with contextlib.suppress(ConnectionError):  # a refused caller may leave before the rest has come
            while datagram := self._theirs.recv(1 << 20):
                for request in split(datagram):
                    self.requests.append(request)
                    _, kind, flags, sequence, _ = struct.unpack_from("=IHHII", request)
                    answers = self.answering(kind, sequence, request)
                    if not answers and flags & NLM_F_ACK:
                        answers = [error(0, sequence)]
                    for answer in answers:
                        self._theirs.send(answer)

    def _found(self, kind: int, sequence: int, request: bytes) -> list[bytes]:
        if kind != RTM_GETLINK:
            return []
        name = read_by_pyroute2(kind, request)["IFLA_IFNAME"]
        if name in self.absent:
            self.absent.remove(name)
            return [error(errno.ENODEV, sequence)]
        link = {
            "index": self.indexes.setdefault(name, 10 + len(self.indexes)), "IFLA_IFNAME": name, "IFLA_MTU": 1500,
            "IFLA_LINKINFO": {"IFLA_INFO_KIND": "veth"},
        }  # fmt: skip
        return [by_pyroute2(kind - 2, 0, sequence, link)]


class Overrun:
    """A socket that loses the data to be received at the n-th call."""

    def __init__(self, socket: Any, *, at: int) -> None:
        self.socket, self.calls, self.at = socket, 0, at

    def recvfrom(self, size: int, flags: int) -> tuple[bytes, tuple[int, int]]:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return self.recv(size, flags), (0, 0)

    def recv(self, size: int, flags: int) -> bytes:
        if flags and self.is_empty():  # the test's kernel is another thread
            raise BlockingIOError
        return bytes(self.socket.recv(size))

    def is_empty(self) -> bool:
        """Return True if nothing comes within a second."""
        return not select.select([self.socket], [], [], 1)[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)
