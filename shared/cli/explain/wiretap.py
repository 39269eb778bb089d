"""Record the suite's netlink sockets: the messages sent, read by pyroute2, and the kernel's refusals."""

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
# Keys of a pyroute2 message that are not fields of the message.
PYROUTE2_OWN = ("attrs", "header", "value", "event", "state", "__align")
INDEXES = ("index", "IFLA_MASTER", "IFLA_LINK", "RTA_OIF", "RTA_IIF", "ifindex")
SHORTEST_ERROR = 20  # bytes: struct nlmsghdr and the error number
NFT, CT = NFNL_SUBSYS_NFTABLES << 8, NFNL_SUBSYS_CTNETLINK << 8
ELEMENTS, LISTED = ("NFT_MSG_NEWSETELEM", "NFT_MSG_DELSETELEM"), "NFTA_SET_ELEM_LIST_ELEMENTS"
WITH_THE_OTHERS = "with its transaction"  # the refusal of a request that another request of its transaction undid
NAMES = {
    NETLINK_ROUTE: {number: name for number, name in rtnl.RTM_VALUES.items() if isinstance(number, int)},
    NETLINK_NETFILTER: NFNL_FRAMES
    | {number | NFT: name for name, number in vars(nftsocket).items() if name.startswith("NFT_MSG_")}
    | {number | CT: name for name, number in vars(nfctsocket).items() if name.startswith("IPCTNL_MSG_CT_")},
}


def _decode_number(attribute: Any) -> None:
    """Return a number unchanged."""
    nla.decode(attribute)
    attribute.value = attribute["value"]


# pyroute2 reads fib's result, a number, as flags, and fib's flags as a number.
for _wrong in ("fib_result", "fib_flags"):
    getattr(nftsocket.nft_contains_expr.nft_expr.nft_fib, _wrong).decode = _decode_number


def install(recorder: Recorder) -> None:
    """Record until the process ends."""

    class RecordedSocket(native.socket):
        """A socket that records its traffic if it is a netlink socket."""

        def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: Any = None) -> None:  # noqa: A002
            super().__init__(family, type, proto, fileno)
            self.talk = Talk(recorder, self.fileno(), proto) if family == native.AF_NETLINK else None

        def _sending(self, data: Any) -> AbstractContextManager[None]:
            return self.talk.record_sending(bytes(data)) if self.talk else nullcontext()

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
                self.talk.record_refusals(data)
            return data, sender

    _replace_native(RecordedSocket)


def _replace_native(recorded_socket: type) -> None:
    """Replace the socket module in the suite's modules only: pyroute2 uses the interpreter's module too."""
    plain, recorded = native, ModuleType("recorded")
    vars(recorded).update(vars(plain), socket=recorded_socket)
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] in SUITE]:
        for name in [name for name, value in vars(module).items() if value is plain]:
            setattr(module, name, recorded)


class Talk:
    """The traffic of one netlink socket. Its place is the namespace where it was opened."""

    def __init__(self, recorder: Recorder, descriptor: int, protocol: int) -> None:
        self.recorder = recorder
        self.descriptor = descriptor
        self.protocol = protocol
        self.place = recorder.place()
        # By sequence number: the step, and the other steps of its transaction.
        self.asked: dict[int, tuple[Step, list[Step]]] = {}

    @contextmanager
    def record_sending(self, data: bytes) -> Iterator[None]:
        """Record a datagram before it is sent: afterwards a deleted link has no name.

        Drop the steps if sending fails.
        """
        noted = len(self.recorder.steps)
        self.record_requests(data)
        try:
            yield
        except OSError:
            del self.recorder.steps[noted:]
            raise

    def record_requests(self, data: bytes) -> None:
        """Record the requests of a datagram, except those that only read and the frames of a transaction.

        All elements that a transaction adds to a set, or deletes from it, are one step.
        """
        lists: dict[tuple[Any, ...], Step] = {}
        steps: list[Step] = []
        is_transaction = False
        for message, kind, flags, sequence in _messages(data):
            name = NAMES.get(self.protocol, {}).get(kind, f"message type {kind} of netlink protocol {self.protocol}")
            if name in NFNL_FRAMES.values():
                is_transaction = True
                # The kernel refuses a whole transaction by the number of its first frame.
                self.asked[sequence] = ({}, steps)
                continue
            if "_GET" in name:
                continue
            body = read_message(self.protocol, message)
            is_list = is_transaction and name in ELEMENTS
            key = (name, *(value for attribute, value in body.items() if attribute != LISTED)) if is_list else ()
            step = lists.get(key)
            if step:
                step["message"][LISTED] += body.get(LISTED, [])
            else:
                step = self.recorder.record(self.place, name, flags=flags, message=body, names=self._names(body))
                steps.append(step)
            if is_list:
                lists[key] = step
            self.asked[sequence] = (step, steps if is_transaction else [])

    def record_refusals(self, data: bytes) -> None:
        """Record the kernel's refusals. If one request of a transaction is refused, all are undone."""
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
        """Return the names for numbers in a message: links of the socket's namespace, and namespaces."""
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


def read_message(protocol: int, data: bytes) -> Message:
    """Return one message: fields by name, attributes by the kernel's names, bytes if pyroute2 cannot read it."""
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
    """Return each message of a datagram with its type, flags and sequence number."""
    start = 0
    while start + 16 <= len(data):
        length, kind, flags, sequence = struct.unpack_from("=IHHI", data, start)
        if length < 16:
            return
        yield data[start : start + length], kind, flags, sequence
        start += (length + 3) & ~3


def _folded(message: Any) -> Message:
    """Return pyroute2's message in the suite's form: attributes beside the fields, repeated ones as a list."""
    out = {name: value for name, value in message.items() if name not in PYROUTE2_OWN}
    for attribute in message.get("attrs", ()):
        name, value = attribute[0], attribute[1]
        if name == "UNKNOWN":  # pyroute2 does not know the attribute, but keeps its bytes
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
    """Return the values of an attribute at any depth."""
    for key, value in message.items():
        if key == name:
            yield value
        elif isinstance(value, dict):
            yield from _values(value, name)
