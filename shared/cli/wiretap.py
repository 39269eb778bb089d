"""Listens on the suite's netlink sockets: the bytes that are sent, read by pyroute2, and the kernel's refusals."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from errno import errorcode
from types import ModuleType
from typing import Any

from pyroute2.netlink import rtnl
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nftsocket
from pyroute2.netlink.nlsocket import Marshal
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from shared.cli.recorder import Recorder
from shared.cli.state import Step
from shared.net.wire import NETLINK_NETFILTER, NETLINK_ROUTE, NLMSG_ERROR
from shared.sockets import native

Message = dict[str, Any]

SUITE = ("shared", "plugins", "ipam")
SIOCGIFNAME = 0x8910  # linux/sockios.h
NFNL_FRAMES = {16: "NFNL_MSG_BATCH_BEGIN", 17: "NFNL_MSG_BATCH_END"}  # linux/netfilter/nfnetlink.h
PYROUTE2_OWN = ("attrs", "header", "value", "event", "state", "__align")  # beside a message's own fields
INDEXES = ("index", "IFLA_MASTER", "IFLA_LINK", "RTA_OIF", "RTA_IIF", "ifindex")
NFT = NFNL_SUBSYS_NFTABLES << 8
NAMES = {
    NETLINK_ROUTE: {number: name for number, name in rtnl.RTM_VALUES.items() if isinstance(number, int)},
    NETLINK_NETFILTER: NFNL_FRAMES
    | {number | NFT: name for name, number in vars(nftsocket).items() if name.startswith("NFT_MSG_")},
}


def install(recorder: Recorder) -> None:
    """Begins to listen, for the rest of the process's life."""

    class RecordedSocket(native.socket):
        """A socket of which a netlink one's traffic is noted."""

        def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: Any = None) -> None:  # noqa: A002
            super().__init__(family, type, proto, fileno)
            self.talk = Talk(recorder, self.fileno(), proto) if family == native.AF_NETLINK else None

        def _sent(self, data: Any) -> None:
            if self.talk:
                self.talk.sent(bytes(data))

        def send(self, data: Any, *rest: Any) -> int:
            self._sent(data)
            return super().send(data, *rest)

        def sendall(self, data: Any, *rest: Any) -> None:
            self._sent(data)
            super().sendall(data, *rest)

        def sendto(self, data: Any, *rest: Any) -> int:
            self._sent(data)
            return super().sendto(data, *rest)

        def sendmsg(self, buffers: Any, *rest: Any) -> int:
            parts = [bytes(buffer) for buffer in buffers]
            self._sent(b"".join(parts))
            return super().sendmsg(parts, *rest)

        def recv(self, *size: Any) -> bytes:
            data = super().recv(*size)
            if self.talk:
                self.talk.received(data)
            return data

    _replace_native(RecordedSocket)


def _replace_native(recorded_socket: type) -> None:
    """In the suite's modules only: pyroute2 uses the interpreter's own module, too."""
    plain, recorded = native, ModuleType("recorded")
    vars(recorded).update(vars(plain), socket=recorded_socket)
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] in SUITE]:
        for name in [name for name, value in vars(module).items() if value is plain]:
            setattr(module, name, recorded)


class Talk:
    """What goes over one netlink socket, whose place is where it was opened."""

    def __init__(self, recorder: Recorder, descriptor: int, protocol: int) -> None:
        self.recorder = recorder
        self.descriptor = descriptor
        self.protocol = protocol
        self.place = recorder.place()
        self.asked: dict[int, Step] = {}

    def sent(self, data: bytes) -> None:
        """Notes the requests of a datagram, except those that only read and the frames of a transaction."""
        for message, kind, flags, sequence in _messages(data):
            name = NAMES.get(self.protocol, {}).get(kind, f"message type {kind} of netlink protocol {self.protocol}")
            if "_GET" not in name and name not in NFNL_FRAMES.values():
                body = read(self.protocol, message)
                names = self._names(body)
                self.asked[sequence] = self.recorder.tell(self.place, name, flags=flags, message=body, names=names)

    def received(self, data: bytes) -> None:
        """Notes which requests the kernel refused, and why."""
        for message, kind, _flags, sequence in _messages(data):
            number = -struct.unpack_from("=i", message, 16)[0] if kind == NLMSG_ERROR else 0
            if number and sequence in self.asked:
                self.asked[sequence]["refused"] = errorcode.get(number, str(number))

    def _names(self, body: Message) -> dict[str, str]:
        """What the numbers in a message stand for: links of the socket's namespace, and whose namespace."""
        found = {}
        for key in INDEXES:
            if isinstance(body.get(key), int) and body[key] > 0:
                try:
                    answer = fcntl.ioctl(self.descriptor, SIOCGIFNAME, struct.pack("16si20x", b"", body[key]))
                except OSError:
                    continue
                found[key] = answer[:16].rstrip(b"\0").decode(errors="backslashreplace")
        for descriptor in _values(body, "IFLA_NET_NS_FD"):
            found["IFLA_NET_NS_FD"] = self.recorder.places.get(os.fstat(descriptor).st_ino, "elsewhere")
        return found


def read(protocol: int, data: bytes) -> Message:
    """One message: fields by their names, attributes by the kernel's; as bytes where pyroute2 cannot tell."""
    kind = struct.unpack_from("=H", data, 4)[0]
    marshal = _marshal(protocol)
    if kind not in marshal.msg_map:
        return {"data": data[16:].hex(" ")}
    message = marshal.msg_map[kind](data)
    message.decode()
    return _folded(message)


def _marshal(protocol: int) -> Any:
    if protocol == NETLINK_ROUTE:
        return MarshalRtnl()
    marshal = Marshal()
    if protocol == NETLINK_NETFILTER:
        marshal.msg_map = {number | NFT: kind for number, kind in nftsocket.AsyncNFTSocket.policy.items()}
    return marshal


def _messages(data: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Each message of a datagram with its type, flags and sequence number."""
    while len(data) >= 16:
        length, kind, flags, sequence = struct.unpack_from("=IHHI", data)
        if length < 16:
            return
        yield data[:length], kind, flags, sequence
        data = data[(length + 3) & ~3 :]


def _folded(message: Any) -> Message:
    """pyroute2's form in the suite's: attributes beside the fields, repeated ones as a list."""
    out = {name: value for name, value in message.items() if name not in PYROUTE2_OWN}
    for attribute in message.get("attrs", ()):
        name, value = attribute[0], attribute[1]
        one = _folded(value) if isinstance(value, dict) else value
        if name in out:
            out[name] = [*(out[name] if isinstance(out[name], list) else [out[name]]), one]
        else:
            out[name] = one
    return out


def _values(message: Message, name: str) -> Iterator[Any]:
    """The values of an attribute, however deep."""
    for key, value in message.items():
        if key == name:
            yield value
        elif isinstance(value, dict):
            yield from _values(value, name)
