"""Listen to firewalld on the system bus: it forgets the pods' sources when it reloads or starts."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.cni.errors import CniError, InternalError
from shared.dbus import bus
from shared.dbus.bus import DRIVER, Bus

if TYPE_CHECKING:
    from shared.dbus.bus import Value

NAME = "org.fedoraproject.FirewallD1"
RULES = (
    f"type='signal',sender='{NAME}',interface='{NAME}',member='Reloaded'",
    f"type='signal',sender='{DRIVER}',interface='{DRIVER}',member='NameOwnerChanged',arg0='{NAME}'",
)
MEMBERS = ("Reloaded", "NameOwnerChanged")
SIGNAL = 4
CONNECT_SECONDS = 2.0


class _Signals(Bus):
    """A connection that receives signals and never waits long: a thread cannot use the alarm of a call."""

    def _limited(self, step: Callable[[], Value]) -> Value:
        try:
            self._socket.settimeout(CONNECT_SECONDS)
            return step()
        except (OSError, ValueError, LookupError, struct.error) as error:
            self._socket.close()
            raise InternalError("the system bus does not answer", str(error)) from None

    def subscribe(self) -> None:
        """Ask the bus for firewalld's signals. Raise CniError."""
        for rule in RULES:
            self.call(DRIVER, "/org/freedesktop/DBus", DRIVER, "AddMatch", rule)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return int(self._socket.fileno())

    def members(self) -> Iterator[str]:
        """Return the names of the signals that have arrived. Raise OSError, ValueError, LookupError."""
        with suppress(BlockingIOError):  # the rest has not arrived yet
            while True:
                self._receive()
        while self._has_message():
            kind, fields, _ = self._message()
            if kind == SIGNAL:
                yield str(fields.get(bus.MEMBER, ""))

    def _has_message(self) -> bool:
        """Return True if a whole message has arrived."""
        if len(self._received) < bus.HEADER_BYTES:
            return False
        body, _, fields = struct.unpack_from(f"{bus.ORDERS[self._received[:1]]}III", self._received, 4)
        size: int = bus.HEADER_BYTES + fields + -fields % 8 + body
        return len(self._received) >= size

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Reloads:
    """firewalld's reloads and starts. Without a bus there are none until `connect` finds one."""

    def __init__(self) -> None:
        self._signals: _Signals | None = None

    def connect(self) -> None:
        """Connect to the bus unless that is done; do nothing if there is none."""
        if self._signals is None:
            with suppress(CniError):
                signals = _Signals()
                signals.subscribe()
                self._signals = signals

    def fileno(self) -> int:
        """Return the descriptor to wait for, -1 without a bus."""
        return -1 if self._signals is None else self._signals.fileno()

    def read(self) -> bool:
        """Return True if firewalld has reloaded, started or ended."""
        if self._signals is None:
            return False
        try:
            members = set(self._signals.members())
        except (OSError, ValueError, LookupError, struct.error):
            self._signals.close()
            self._signals = None
            return True  # firewalld ends with its bus
        return not members.isdisjoint(MEMBERS)
