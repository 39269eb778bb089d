"""Listens on the suite's netlink sockets: the bytes that are sent, read by pyroute2, and the kernel's refusals."""

from __future__ import annotations

import fcntl
import functools
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from errno import errorcode
from types import ModuleType
from typing import Any

from pyroute2.netlink import nla, rtnl
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_NFTABLES, nfctsocket, nftsocket
from pyroute2.netlink.nlsocket import Marshal
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from shared.cli.explain.changes import Step
from shared.cli.explain.recorder import Recorder
from shared.net.netlink import KERNEL
from shared.net.wire import NETLINK_NETFILTER, NETLINK_ROUTE, NLMSG_ERROR
from shared.sockets import native

Message = dict[str, Any]

SUITE = ("shared", "plugins", "ipam")
SIOCGIFNAME = 0x8910  # linux/sockios.h
NFNL_FRAMES = {16: "NFNL_MSG_BATCH_BEGIN", 17: "NFNL_MSG_BATCH_END"}  # linux/netfilter/nfnetlink.h
PYROUTE2_OWN = ("attrs", "header", "value", "event", "state", "__align")  # beside a message's own fields
INDEXES = ("index", "IFLA_MASTER", "IFLA_LINK", "RTA_OIF", "RTA_IIF", "ifindex")
SHORTEST_ERROR = 20  # bytes: struct nlmsghdr and the number
NFT, CT = NFNL_SUBSYS_NFTABLES << 8, NFNL_SUBSYS_CTNETLINK << 8
ELEMENTS, LISTED = ("NFT_MSG_NEWSETELEM", "NFT_MSG_DELSETELEM"), "NFTA_SET_ELEM_LIST_ELEMENTS"
WITH_THE_OTHERS = "with its transaction"  # why a request that the kernel did not refuse was not done either
NAMES = {
    NETLINK_ROUTE: {number: name for number, name in rtnl.RTM_VALUES.items() if isinstance(number, int)},
    NETLINK_NETFILTER: NFNL_FRAMES
    | {number | NFT: name for name, number in vars(nftsocket).items() if name.startswith("NFT_MSG_")}
    | {number | CT: name for name, number in vars(nfctsocket).items() if name.startswith("IPCTNL_MSG_CT_")},
}


def _decode_number(attribute: Any) -> None:
    """Leave a number what it is."""
    nla.decode(attribute)
    attribute.value = attribute["value"]


# pyroute2 takes fib's result, a number, for a set of flags, and its flags for a number
for _wrong in ("fib_result", "fib_flags"):
    getattr(nftsocket.nft_contains_expr.nft_expr.nft_fib, _wrong).decode = _decode_number


def install(recorder: Recorder) -> None:
    """Begins to listen, for the rest of the process's life."""

    class RecordedSocket(native.socket):
        """A socket of which a netlink one's traffic is noted."""

        def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: Any = None) -> None:  # noqa: A002
            super().__init__(family, type, proto, fileno)
            self.talk = Talk(recorder, self.fileno(), proto) if family == native.AF_NETLINK else None

        def _sending(self, data: Any) -> AbstractContextManager[None]:
            return self.talk.sending(bytes(data)) if self.talk else nullcontext()

        def send(self, data: Any, *rest: Any) -> int:
            with self._sending(data):
                return super().send(data, *rest)

        def sendall(self, data: Any, *rest: Any) -> None:
            with self._sending(data):
                super().sendall(data, *rest)

        def sendto(self, data: Any, *rest: Any) -> int:
            with self._sending(data):
                return super().sendto(data, *rest)

        def sendmsg(self, buffers: Any, *rest: Any) -> int:
            parts = [bytes(buffer) for buffer in buffers]
            with self._sending(b"".join(parts)):
                return super().sendmsg(parts, *rest)

        def recvfrom(self, *size: Any) -> tuple[bytes, Any]:
            data, sender = super().recvfrom(*size)
            if self.talk and sender[0] == KERNEL:
                self.talk.received(data)
            return data, sender

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
        self.asked: dict[int, tuple[Step, list[Step]]] = {}  # by sequence number; the rest of its transaction

    @contextmanager
    def sending(self, data: bytes) -> Iterator[None]:
        """Note what is sent while the links that it may delete have names; not what cannot be sent."""
        noted = len(self.recorder.steps)
        self.sent(data)
        try:
            yield
        except OSError:
            del self.recorder.steps[noted:]
            raise

    def sent(self, data: bytes) -> None:
        """Notes the requests of a datagram, except those that only read and the frames of a transaction.

        All elements that a transaction puts into a set, or takes out of it, are one step.
        """
        lists: dict[tuple[Any, ...], Step] = {}
        steps: list[Step] = []
        is_transaction = False
        for message, kind, flags, sequence in _messages(data):
            name = NAMES.get(self.protocol, {}).get(kind, f"message type {kind} of netlink protocol {self.protocol}")
            if name in NFNL_FRAMES.values():
                is_transaction = True
                self.asked[sequence] = ({}, steps)  # the kernel refuses a transaction as a whole by its beginning
                continue
            if "_GET" in name:
                continue
            body = read(self.protocol, message)
            is_list = is_transaction and name in ELEMENTS
            key = (name, *(value for attribute, value in body.items() if attribute != LISTED)) if is_list else ()
            step = lists.get(key)
            if step:
                step["message"][LISTED] += body.get(LISTED, [])
            else:
                step = self.recorder.tell(self.place, name, flags=flags, message=body, names=self._names(body))
                steps.append(step)
            if is_list:
                lists[key] = step
            self.asked[sequence] = (step, steps if is_transaction else [])

    def received(self, data: bytes) -> None:
        """Notes which requests the kernel refused, and why; of a transaction, all are undone with the first."""
        for message, kind, _flags, sequence in _messages(data):
            is_refusal = kind == NLMSG_ERROR and len(message) >= SHORTEST_ERROR
            number = -struct.unpack_from("=i", message, 16)[0] if is_refusal else 0
            if number and sequence in self.asked:
                step, others = self.asked[sequence]
                if step.get("refused", WITH_THE_OTHERS) == WITH_THE_OTHERS:
                    step["refused"] = errorcode.get(number, str(number))
                for other in others:
                    other.setdefault("refused", WITH_THE_OTHERS)

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


@functools.cache
def _marshal(protocol: int) -> Any:
    if protocol == NETLINK_ROUTE:
        return MarshalRtnl()
    marshal = Marshal()
    if protocol == NETLINK_NETFILTER:
        marshal.msg_map = {number | NFT: kind for number, kind in nftsocket.AsyncNFTSocket.policy.items()}
        deletion = nfctsocket.IPCTNL_MSG_CT_DELETE | CT
        marshal.msg_map[deletion] = nfctsocket.nfct_msg
    return marshal


def _messages(data: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Each message of a datagram with its type, flags and sequence number."""
    start = 0
    while start + 16 <= len(data):
        length, kind, flags, sequence = struct.unpack_from("=IHHI", data, start)
        if length < 16:
            return
        yield data[start : start + length], kind, flags, sequence
        start += (length + 3) & ~3


def _folded(message: Any) -> Message:
    """pyroute2's form in the suite's: attributes beside the fields, repeated ones as a list."""
    out = {name: value for name, value in message.items() if name not in PYROUTE2_OWN}
    for attribute in message.get("attrs", ()):
        name, value = attribute[0], attribute[1]
        if name == "UNKNOWN":  # to pyroute2, which has its bytes all the same
            name, value = f"attribute {value['header']['type']}", _payload(value)
        one = _folded_value(value)
        if name in out:
            out[name] = [*(out[name] if isinstance(out[name], list) else [out[name]]), one]
        else:
            out[name] = one
    return out


def _payload(attribute: Any) -> bytes:
    return bytes(attribute.data[attribute.offset + 4 : attribute.offset + attribute.length])


def _folded_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_folded_value(one) for one in value]
    return _folded(value) if isinstance(value, dict) else value


def _values(message: Message, name: str) -> Iterator[Any]:
    """The values of an attribute, however deep."""
    for key, value in message.items():
        if key == name:
            yield value
        elif isinstance(value, dict):
            yield from _values(value, name)
