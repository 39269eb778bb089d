"""A client for method calls on the D-Bus system bus: string arguments, a string or boolean result.

After authentication, messages travel in both directions. A message has a header of 16 bytes, then fields, then a body.
Each field begins at a multiple of 8 bytes and has a code, the type of its value, and the value. The body holds the
arguments or results.
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

SECONDS = 25.0  # to wait for an answer, as D-Bus libraries do
QUESTION_SECONDS = 2.0  # to connect and get an answer, for calls that can continue without one
VARIABLE, DEFAULT = b"DBUS_SYSTEM_BUS_ADDRESS", b"/run/dbus/system_bus_socket"
DRIVER = "org.freedesktop.DBus"  # the bus itself: its name as a destination and of its interface
LINE_LIMIT = 1024  # bytes of the answer to authentication
LIMIT = 1 << 20  # bytes of a message's fields, and of its body
HEADER_BYTES = 16  # of a message, before its fields
MESSAGES = 100  # to skip before the answer; the bus normally sends only NameAcquired
METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
NO_AUTO_START = 2  # a flag: the bus must not start the service if it does not run
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8
LIMITS_EXCEEDED = f"{DRIVER}.Error.LimitsExceeded"  # the bus has reached its limit of connections
NOBODY = (f"{DRIVER}.Error.NameHasNoOwner", f"{DRIVER}.Error.ServiceUnknown")
ORDERS = {b"l": "<", b"B": ">"}


class Absent(TryAgainLater):
    """There is no bus, or no process on it owns the name."""


class Refused(InternalError):
    """The answer is an error: `name` is its D-Bus name, `text` the message of the callee."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"D-Bus answers {name}", text)
        self.name = name
        self.text = text


class Bus:
    """A connection to the system bus. Raise Absent if there is none, TryAgainLater, InternalError.

    All operations of a `brief` connection share one limit of QUESTION_SECONDS.
    """

    def __init__(self, *, brief: bool = False) -> None:
        self._deadline = monotonic() + QUESTION_SECONDS if brief else 0.0
        self._serial = 0
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._limited(self._open)

    def call(self, destination: str, path: str, interface: str, member: str, *arguments: str) -> Value:
        """Call a method and return its result. Raise Absent, Refused, TryAgainLater, InternalError."""
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
            failure = InternalError("the system bus sent an answer that is not D-Bus", str(error))
        self._socket.close()  # the position in the stream of messages is lost
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
                raise ValueError(f"an authentication line longer than {LINE_LIMIT} bytes")
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
        """Return the first value of the answer to the last call; skip other messages before it."""
        for _ in range(MESSAGES):
            kind, fields, value = self._message()
            if kind in (METHOD_RETURN, ERROR) and fields.get(REPLY_SERIAL) == self._serial:
                if kind == METHOD_RETURN:
                    return value
                raise Refused(str(fields[ERROR_NAME]), value if isinstance(value, str) else "")
        raise ValueError(f"no answer among {MESSAGES} messages")

    def _message(self) -> tuple[int, dict[int, str | int], Value]:
        """Return the kind, fields and first value of the next message."""
        head = self._take(HEADER_BYTES)
        order = ORDERS[head[:1]]
        body_size, _, fields_size = struct.unpack_from(f"{order}III", head, 4)
        if max(body_size, fields_size) > LIMIT:
            raise ValueError(f"a message of {body_size + fields_size} bytes")
        fields = _fields(order, self._take(fields_size + -fields_size % 8)[:fields_size])
        return head[1], fields, _first(order, fields.get(SIGNATURE), self._take(body_size))

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
    """Return the values of a header's fields by their codes."""
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
    """Return a body's first value; None if there is none, or it is neither string nor boolean."""
    kind = str(signature or "")[:1]
    if kind not in ("s", "b"):
        return None
    number: int = struct.unpack_from(f"{order}I", body)[0]
    return bool(number) if kind == "b" else _text(body, 4, number)


def _text(data: bytes, start: int, size: int) -> str:
    if start + size >= len(data):
        raise ValueError(f"a string of {size} bytes where there are {len(data) - start}")
    return data[start : start + size].decode(errors="replace")
