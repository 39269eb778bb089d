"""The system bus, as much of D-Bus as a method call takes: strings go there, a string or a truth value comes back.

After authentication the connection has messages in both directions: a header of 16 bytes and fields, each at a multiple
of 8 bytes with a code, the type of its value and the value; then what they are about, the body.
"""

from __future__ import annotations

import posix
import struct
from errno import ECONNREFUSED, ENOENT
from time import monotonic

from shared import signals
from shared.cni.errors import CniError, InternalError, TryAgainLater
from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Value = str | bool | None

SECONDS = 25.0  # for an answer, as D-Bus libraries wait
QUESTION_SECONDS = 2.0  # for a connection and an answer, if a call can do without
VARIABLE, DEFAULT = b"DBUS_SYSTEM_BUS_ADDRESS", b"/run/dbus/system_bus_socket"
DRIVER = "org.freedesktop.DBus"  # the bus itself, as a destination and as the interface that it has
LINE_LIMIT = 1024  # bytes of an answer in authentication
LIMIT = 1 << 20  # bytes of a message's fields, and of its body
MESSAGES = 100  # that are not the answer; nothing but the news of one's own name is to be expected
METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
NO_AUTO_START = 2  # a flag: whoever does not run is not started for this
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8
LIMITS_EXCEEDED = f"{DRIVER}.Error.LimitsExceeded"  # the bus has as many connections as it takes
NOBODY = (f"{DRIVER}.Error.NameHasNoOwner", f"{DRIVER}.Error.ServiceUnknown")
ORDERS = {b"l": "<", b"B": ">"}


class Absent(TryAgainLater):
    """There is no bus, or nobody on it has the name."""


class Refused(InternalError):
    """The answer is an error: `name` is D-Bus's, `text` what the other end says."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"D-Bus answers {name}", text)
        self.name = name
        self.text = text


class Bus:
    """A connection. Raises Absent where there is no bus, TryAgainLater, InternalError.

    All that is done with a `brief` one takes QUESTION_SECONDS together.
    """

    def __init__(self, *, brief: bool = False) -> None:
        self._deadline = monotonic() + QUESTION_SECONDS if brief else 0.0
        self._serial = 0
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._limited(self._open)

    def call(self, destination: str, path: str, interface: str, member: str, *arguments: str) -> Value:
        """What a method returns. Raises Absent, Refused, TryAgainLater, InternalError."""
        message = self._method_call(destination, path, interface, member, arguments)
        try:
            return self._limited(lambda: self._ask(message))
        except Refused as error:
            if error.name in NOBODY:
                raise Absent(f"{destination} is not on the system bus") from None
            raise

    def _limited(self, step: Callable[[], Value]) -> Value:
        seconds = QUESTION_SECONDS if self._deadline else SECONDS
        try:
            with signals.interruptible(self._deadline - monotonic() if self._deadline else seconds):
                return step()
        except signals.DeadlineExpired:
            failure: CniError = TryAgainLater(
                f"no answer from the system bus within {seconds:.0f} seconds", "it may have too many connections"
            )
        except OSError as error:
            failure = InternalError("the connection to the system bus failed", str(error))
        except (ValueError, LookupError, struct.error) as error:
            failure = InternalError("what the system bus answers is not D-Bus", str(error))
        self._socket.close()  # what comes next on it nobody knows
        raise failure

    def _open(self) -> Value:
        path = _address()
        try:
            self._socket.connect(path)
        except OSError as error:
            if error.errno in (ENOENT, ECONNREFUSED):
                raise Absent(f"there is no system bus at {path.decode(errors='replace')}") from None
            raise
        user = str(posix.geteuid()).encode().hex().encode()
        hello = self._method_call(DRIVER, "/org/freedesktop/DBus", DRIVER, "Hello", ())
        self._socket.sendall(b"\0AUTH EXTERNAL " + user + b"\r\nBEGIN\r\n" + hello)
        while b"\r\n" not in self._received:
            if len(self._received) > LINE_LIMIT:
                raise ValueError("an endless line")
            self._receive()
        line, _, self._received = self._received.partition(b"\r\n")
        if not line.startswith(b"OK "):
            raise ValueError(line[:80].decode(errors="replace"))
        return self._answer()

    def _method_call(self, destination: str, path: str, interface: str, member: str, words: tuple[str, ...]) -> bytes:
        self._serial += 1
        header = b""
        for code, kind, value in (
            (PATH, b"o", path),
            (INTERFACE, b"s", interface),
            (MEMBER, b"s", member),
            (DESTINATION, b"s", destination),
        ):
            header = _padded(header, 8) + bytes([code]) + b"\1" + kind + b"\0" + _string(value)
        if words:
            types = b"s" * len(words)
            header = _padded(header, 8) + bytes([SIGNATURE]) + b"\1g\0" + bytes([len(types)]) + types + b"\0"
        body = b""
        for word in words:
            body = _padded(body, 4) + _string(word)
        head = struct.pack("<cBBBIII", b"l", METHOD_CALL, NO_AUTO_START, 1, len(body), self._serial, len(header))
        return head + _padded(header, 8) + body

    def _ask(self, message: bytes) -> Value:
        self._socket.sendall(message)
        return self._answer()

    def _answer(self) -> Value:
        """What the answer to the last call has first; other messages before it are passed over."""
        for _ in range(MESSAGES):
            head = self._take(16)
            order = ORDERS[head[:1]]
            body_size, _, fields_size = struct.unpack_from(f"{order}III", head, 4)
            if max(body_size, fields_size) > LIMIT:
                raise ValueError(f"a message of {body_size + fields_size} bytes")
            fields = _fields(order, self._take(fields_size + -fields_size % 8)[:fields_size])
            value = _first(order, fields.get(SIGNATURE), self._take(body_size))
            if head[1] in (METHOD_RETURN, ERROR) and fields.get(REPLY_SERIAL) == self._serial:
                if head[1] == METHOD_RETURN:
                    return value
                raise Refused(str(fields[ERROR_NAME]), value if isinstance(value, str) else "")
        raise ValueError("endless other messages")

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            self._receive()
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise OSError("closed by the bus")
        self._received += data


def _address() -> bytes:
    kind, _, rest = posix.environ.get(VARIABLE, b"").partition(b"=")
    return rest.partition(b";")[0].partition(b",")[0] if kind == b"unix:path" else DEFAULT


def _padded(data: bytes, multiple: int) -> bytes:
    return data + bytes(-len(data) % multiple)


def _string(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _fields(order: str, data: bytes) -> dict[int, str | int]:
    """The values of a header's fields by their codes."""
    found: dict[int, str | int] = {}
    place = 0
    while place < len(data):
        code, kind = data[place], data[place + 1 : place + 4]
        place += 4
        if kind == b"\1u\0":
            found[code] = struct.unpack_from(f"{order}I", data, place)[0]
            place += 4
        elif kind in (b"\1s\0", b"\1o\0", b"\1g\0"):
            wide = kind != b"\1g\0"
            size = struct.unpack_from(f"{order}I" if wide else "B", data, place)[0]
            place += 4 if wide else 1
            found[code] = _text(data, place, size)
            place += size + 1
        else:
            raise ValueError(f"a field with a value of type {kind!r}")
        place += -place % 8
    return found


def _first(order: str, signature: str | int | None, body: bytes) -> Value:
    """The first of a body's values; None where it is neither a string nor a truth value, or there is none."""
    kind = str(signature or "")[:1]
    if kind not in ("s", "b"):
        return None
    number: int = struct.unpack_from(f"{order}I", body)[0]
    return bool(number) if kind == "b" else _text(body, 4, number)


def _text(data: bytes, start: int, size: int) -> str:
    if start + size >= len(data):
        raise ValueError(f"a string of {size} bytes where there are {len(data) - start}")
    return data[start : start + size].decode(errors="replace")
