"""Admission by firewalld: each address becomes a source of a zone, as with the reference plugin.

Either suite removes the other's sources. Sources are not permanent: firewalld drops them when it stops or reloads.
"""

from __future__ import annotations

import posix

from shared.admission import claims
from shared.cni.config import invalid
from shared.cni.errors import InternalError, TryAgainLater
from shared.cni.plugin import run_all
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
# The source is in no zone, or in another zone, or the zone does not exist.
NOT_THERE = ("UNKNOWN_SOURCE", "ZONE_CONFLICT", NO_SUCH_ZONE)
# A host with firewalld has at least one: the daemon, its directories, or the bus policy that lets it own its name.
FILES = (
    *("/usr/sbin/firewalld", "/usr/bin/firewalld", "/usr/local/sbin/firewalld", "/run/firewalld", "/etc/firewalld"),
    *(f"{top}/dbus-1/system.d/FirewallD.conf" for top in ("/usr/share", "/etc", "/usr/local/share")),
)
TEST_SOURCE = "192.0.2.1/32"  # of TEST-NET-1: no pod has it


def is_running() -> bool:
    """Return True if firewalld is on the system bus; False also if the bus does not answer soon.

    Any user can keep the bus busy. Do not ask on a host without any of firewalld's files.
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
    """The backend for one zone, which must accept the traffic of its sources."""

    name = claims.FIREWALLD

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self.note = {"backend": self.name, claims.ZONE: zone}
        self._bus: Bus | None = None

    def open(self, _: Claim) -> None:
        """Raise CniError, before anything changes, if firewalld's bus cannot be reached."""
        self._connection()

    def _connection(self) -> Bus:
        self._bus = self._bus or Bus()
        return self._bus

    def has(self, claim: Claim) -> bool:
        """Return True if a claim's addresses were admitted in this zone."""
        return claim.backend == self.name and claim.text(claims.ZONE) == self.zone

    def is_lost(self, admitted: Sequence[Claim]) -> bool:
        """Return True if an address of the claims is missing in the zone."""
        bus = self._connection()
        return not all(self._has(bus, one) for claim in admitted for one in claim.addresses)

    def admit(self, wanted: Sequence[Claim]) -> None:
        """Add the addresses of claims to the zone; try each even if another fails.

        Host ports need nothing more: firewalld accepts every connection with a translated
        destination. Raise
        InvalidConfig if the zone does not exist.
        """
        bus = self._connection()
        run_all(*(lambda address=one: self._admit(bus, address) for claim in wanted for one in claim.addresses))

    def _admit(self, bus: Bus, address: Address) -> None:
        try:
            self._ask(bus, "addSource", _source(address))
        except Refused as error:
            if _code(error) != THERE_ALREADY:
                raise InternalError(
                    f"firewalld refuses source {_source(address)} in zone {self.zone}", error.text
                ) from None

    def problems(self, claim: Claim) -> list[str]:
        """Return a description of each address that is missing in the zone."""
        try:
            bus = self._connection()
            missing = [one for one in claim.addresses if not self._has(bus, one)]
        except Absent as error:
            return [f"firewalld does not run: {error}"]
        return [f"firewalld has no source {_source(one)} in zone {self.zone}" for one in missing]

    def dropped(self, addresses: Iterable[Address], link: Callable[[Address], str]) -> list[str]:
        """Return a description of each address whose traffic is not in this zone, by address or by link."""
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
        """Raise CniError if firewalld does not run or does not have the zone."""
        self._ask(self._connection(), "querySource", TEST_SOURCE)

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
                raise invalid(claims.ZONE, self.zone, "is not a zone of firewalld") from None
            raise


def remove(addresses: Callable[[], AbstractSet[Address]], zone: str) -> None:
    """Remove addresses from a zone."""
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
                    raise InternalError(
                        f"firewalld refuses to remove source {_source(address)} from zone {zone}", error.text
                    ) from None
    except Absent:  # firewalld's sources end with firewalld
        return


def _call(bus: Bus, method: str, *words: str) -> object:
    return bus.call(NAME, PATH, INTERFACE, method, *words)


def _source(address: Address) -> str:
    return f"{address}/{address.bits}"


def _code(error: Refused) -> str:
    return error.text.partition(":")[0]
