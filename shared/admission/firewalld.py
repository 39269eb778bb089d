"""Admission by firewalld: each address is a source of a zone, as the reference has it, so that either ends the other's.

A source is firewalld's as long as it runs and does not load its configuration again: it is not permanent.
"""

from __future__ import annotations

import posix

from shared.admission import claims
from shared.cni.config import invalid
from shared.cni.errors import InternalError, TryAgainLater
from shared.cni.plugin import each
from shared.dbus.bus import DRIVER, LIMITS_EXCEEDED, Absent, Bus, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from shared.admission.claims import Claim
    from shared.cni.ip import Address

NAME, PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
INTERFACE = f"{NAME}.zone"
NO_SUCH_ZONE, THERE_ALREADY = "INVALID_ZONE", "ZONE_ALREADY_SET"
NOT_THERE = ("UNKNOWN_SOURCE", "ZONE_CONFLICT", NO_SUCH_ZONE)  # in no zone, in another one, in none that there is
# One of them is there wherever firewalld can be: the daemon, what it writes, and the permission to have its name.
FILES = (
    *("/usr/sbin/firewalld", "/usr/bin/firewalld", "/usr/local/sbin/firewalld", "/run/firewalld", "/etc/firewalld"),
    *(f"{top}/dbus-1/system.d/FirewallD.conf" for top in ("/usr/share", "/etc", "/usr/local/share")),
)
NOBODYS = "192.0.2.1/32"  # TEST-NET-1


def is_running() -> bool:
    """Return True if somebody on the system bus is firewalld; False also if the bus does not answer soon.

    Any user can keep the bus busy. A host without any of firewalld's files is not asked.
    """
    if not any(posix.access(path, posix.F_OK) for path in FILES):
        return False
    try:
        return Bus(brief=True).call(DRIVER, "/org/freedesktop/DBus", DRIVER, "NameHasOwner", NAME) is True
    except TryAgainLater:  # Absent is one
        return False
    except Refused as error:
        if error.name == LIMITS_EXCEEDED:
            return False
        raise


class Firewalld:
    """The backend, with the zone that lets pods through."""

    name = claims.FIREWALLD

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self.note = {"backend": self.name, claims.ZONE: zone}
        self._bus: Bus | None = None

    def open(self, _: Claim) -> None:
        """Raise CniError if nobody can be asked, before anything is changed."""
        self._connection()

    def _connection(self) -> Bus:
        self._bus = self._bus or Bus()
        return self._bus

    def has(self, claim: Claim) -> bool:
        """Return True if a claim's addresses were admitted in this zone."""
        return claim.backend == self.name and claim.text(claims.ZONE) == self.zone

    def is_lost(self, admitted: Sequence[Claim]) -> bool:
        """Return True if an address of claims is not in the zone any more."""
        bus = self._connection()
        return not all(self._has(bus, one) for claim in admitted for one in claim.addresses)

    def admit(self, wanted: Sequence[Claim]) -> None:
        """Put the addresses of claims into the zone, each whatever becomes of the others.

        Nothing more is needed for host ports: firewalld accepts each connection whose destination was translated.
        Raises InvalidConfig if there is no such zone.
        """
        bus = self._connection()
        each(*(lambda address=one: self._admit(bus, address) for claim in wanted for one in claim.addresses))

    def _admit(self, bus: Bus, address: Address) -> None:
        try:
            self._ask(bus, "addSource", _source(address))
        except Refused as error:
            if _code(error) != THERE_ALREADY:
                raise InternalError(f"firewalld does not take {_source(address)}", error.text) from None

    def problems(self, claim: Claim) -> list[str]:
        """The addresses that are not in the zone any more, each in words."""
        try:
            bus = self._connection()
            missing = [one for one in claim.addresses if not self._has(bus, one)]
        except Absent as error:
            return [f"firewalld does not run: {error}"]
        return [f"firewalld has no source {_source(one)} in zone {self.zone}" for one in missing]

    def dropped(self, addresses: Iterable[Address], link: Callable[[Address], str]) -> list[str]:
        """Return in words which addresses are in no zone that lets through, nor the links by which they are reached."""
        bus = self._connection()
        found = []
        for address in addresses:
            name = link(address)
            zone = _call(bus, "getZoneOfInterface", name) if name else ""
            zone = zone or bus.call(NAME, PATH, NAME, "getDefaultZone")
            if zone != self.zone and not self._has(bus, address):
                found.append(f"firewalld runs and has no source {_source(address)} in zone {self.zone}")
        return found

    def try_out(self) -> None:
        """Raises CniError where firewalld does not run or has no such zone."""
        self._ask(self._connection(), "querySource", NOBODYS)

    def _has(self, bus: Bus, address: Address) -> bool:
        try:
            return self._ask(bus, "querySource", _source(address)) is True
        except Refused:
            return False

    def _ask(self, bus: Bus, method: str, source: str) -> object:
        try:
            return _call(bus, method, self.zone, source)
        except Refused as error:
            if _code(error) == NO_SUCH_ZONE:
                raise invalid(claims.ZONE, self.zone, "is no zone of firewalld's") from None
            raise


def remove(addresses: Callable[[], AbstractSet[Address]], zone: str) -> None:
    """Take addresses out of a zone."""
    doomed = addresses()
    if not doomed:
        return
    try:
        bus = Bus()
        for address in doomed:
            try:
                _call(bus, "removeSource", zone, _source(address))
            except Refused as error:
                if _code(error) not in NOT_THERE:
                    raise InternalError(f"firewalld keeps {_source(address)}", error.text) from None
    except Absent:  # what it had is gone with it
        return


def _call(bus: Bus, method: str, *words: str) -> object:
    return bus.call(NAME, PATH, INTERFACE, method, *words)


def _source(address: Address) -> str:
    return f"{address}/{address.bits}"


def _code(error: Refused) -> str:
    return error.text.partition(":")[0]
