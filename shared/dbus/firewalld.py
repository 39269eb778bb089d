"""Admission by firewalld: each address is a source of a zone, as the reference has it, so that either ends the other's.

A source is firewalld's as long as it runs and does not load its configuration again: it is not permanent.
"""

from __future__ import annotations

from shared.cni.config import invalid
from shared.cni.errors import InternalError
from shared.dbus.bus import DRIVER, Absent, Bus, Refused
from shared.net import claims
from shared.net.turns import turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from shared.cni.ip import Address
    from shared.net.owner import Owner
    from shared.undo import Undo

NAME, PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
INTERFACE = f"{NAME}.zone"
NO_SUCH_ZONE, THERE_ALREADY = "INVALID_ZONE", "ZONE_ALREADY_SET"
NOT_THERE = ("UNKNOWN_SOURCE", "ZONE_CONFLICT", NO_SUCH_ZONE)  # in no zone, in another one, in none that there is
NOBODYS = "192.0.2.1/32"  # TEST-NET-1


def is_running() -> bool:
    """Whether somebody on the system bus is firewalld."""
    try:
        return Bus().call(DRIVER, "/org/freedesktop/DBus", DRIVER, "NameHasOwner", NAME) is True
    except Absent:
        return False


class Firewalld:
    """The backend, with the zone that lets pods through; none where only what is noted is to be removed."""

    name = "firewalld"

    def __init__(self, zone: str) -> None:
        self.zone = zone

    def add(self, undo: Undo, owner: Owner, addresses: Sequence[Address]) -> None:
        """Puts the addresses into the zone. Raises InvalidConfig where there is no such zone."""
        bus = Bus()
        with turn(claims.RECORDS):
            claims.write(owner, addresses, self.zone)
            undo.push("end admission by firewalld", lambda: claims.end(owner, (), self.remove))
            for address in addresses:
                try:
                    self._ask(bus, "addSource", _source(address))
                except Refused as error:
                    if _code(error) != THERE_ALREADY:
                        raise InternalError(f"firewalld does not take {_source(address)}", error.text) from None

    def problems(self, addresses: Sequence[Address]) -> list[str]:
        """The addresses that are not in the zone any more, each in words."""
        try:
            bus = Bus()
            missing = [one for one in map(_source, addresses) if self._ask(bus, "querySource", one) is not True]
        except Absent as error:
            return [f"firewalld does not run: {error}"]
        return [f"firewalld has no source {one} in zone {self.zone}" for one in missing]

    def remove(self, addresses: AbstractSet[Address], note: claims.Note) -> None:
        """Takes the addresses out of the zone that the file names, or this one where there is no file."""
        zone = claims.zone(note) if note else self.zone
        if not zone:
            return
        try:
            bus = Bus()
            for address in addresses:
                try:
                    _call(bus, "removeSource", zone, _source(address))
                except Refused as error:
                    if _code(error) not in NOT_THERE:
                        raise InternalError(f"firewalld keeps {_source(address)}", error.text) from None
        except Absent:  # what it had is gone with it
            return

    def try_out(self) -> None:
        """Raises CniError where firewalld does not run or has no such zone."""
        self._ask(Bus(), "querySource", NOBODYS)

    def _ask(self, bus: Bus, method: str, source: str) -> object:
        try:
            return _call(bus, method, self.zone, source)
        except Refused as error:
            if _code(error) == NO_SUCH_ZONE:
                raise invalid(claims.ZONE, self.zone, "is no zone of firewalld's") from None
            raise


def _call(bus: Bus, method: str, zone: str, source: str) -> object:
    return bus.call(NAME, PATH, INTERFACE, method, zone, source)


def _source(address: Address) -> str:
    return f"{address}/{address.bits}"


def _code(error: Refused) -> str:
    return error.text.partition(":")[0]
