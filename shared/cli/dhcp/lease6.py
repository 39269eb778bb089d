"""Read leases of DHCPv6: one address with its times, and the DNS settings beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

from shared.cli.dhcp.packets import boot_id, now, obtained_of
from shared.cli.dhcp.packets6 import Message, Option, Options, Status, Withdrawal, number_of, require_success, split
from shared.cni.ip import Address, Prefix

IA_BYTES, ADDRESS_BYTES = 12, 24  # of the fixed fields in IA_NA and IA Address
RENEWAL, REBINDING = 0.5, 0.8  # parts of the preferred lifetime; RFC 8415, section 21.4
KEPT = (Option.NAME_SERVERS, Option.DOMAIN_SEARCH)
GLOBAL = Prefix(Address(6, 0x2000 << 112), 3)
UNIQUE_LOCAL = Prefix(Address(6, 0xFC00 << 112), 7)


@dataclass
class Lease6:
    """A lease. Times are in seconds; `obtained` is a time since the boot."""

    ip: str
    server: bytes
    renewal: float
    rebinding: float
    valid: float
    obtained: float
    raw: dict[int, bytes] = field(default_factory=dict)

    @property
    def server_id(self) -> str:
        """Return the server's DUID."""
        return self.server.hex(":")

    @property
    def lease_time(self) -> float:
        """Return the seconds for which the lease was given."""
        return self.valid

    @property
    def expired(self) -> bool:
        """Return True if the lease is over."""
        return self.left(self.valid) <= 0

    def left(self, seconds: float) -> float:
        """Return the seconds until a time of the lease, infinite for one that never comes."""
        return self.obtained + seconds - now()

    def to_json(self) -> dict[str, Any]:
        """Return the lease as it is stored."""
        times = [None if value == inf else value for value in (self.renewal, self.rebinding, self.valid)]
        return {
            "address": self.ip, "server": self.server.hex(), "times": times, "obtained": self.obtained,
            "boot": boot_id(), "options": {str(number): value.hex() for number, value in self.raw.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Lease6:
        """Return a stored lease. Raise ValueError, KeyError or TypeError if it is garbled."""
        renewal, rebinding, valid = (inf if value is None else float(value) for value in stored["times"])
        raw = {int(number): bytes.fromhex(value) for number, value in stored["options"].items()}
        address, server = str(Address.parse(stored["address"])), bytes.fromhex(stored["server"])
        return cls(address, server, renewal, rebinding, valid, obtained_of(stored), raw)


def read(message: Message, iaid: bytes, preferred_address: str, obtained: float) -> Lease6:
    """Return the lease that a server's message gives to an identity association.

    Raises Refusal with the server's status code, and ValueError if a pod cannot use the lease. Of several addresses
    take the preferred one, or else the first.
    """
    require_success(message.options)
    found = [value for number, value in message.options if number == Option.IA_NA and value[:4] == iaid]
    if not found or len(found[0]) < IA_BYTES:
        raise ValueError("no IA_NA of this client")
    options = split(found[0][IA_BYTES:])
    require_success(options)
    renewal, rebinding = number_of(found[0][4:8]), number_of(found[0][8:12])
    usable = _addresses(options)
    if not usable and _withdraws(options):
        raise Withdrawal(Status.NO_BINDING, "the address has the lifetime 0")
    if not usable:
        raise ValueError("no address that a pod can use")
    address = preferred_address if preferred_address in usable else next(iter(usable))
    preferred, valid = usable[address]
    if not 0 < renewal <= rebinding <= valid or renewal == valid < inf:
        renewal, rebinding = ((preferred or valid) * part for part in (RENEWAL, REBINDING))
    raw = {int(option): message.get(option) for option in KEPT if message.has(option)}
    return Lease6(address, message.get(Option.SERVER_ID), renewal, rebinding, valid, obtained, raw)


def _addresses(options: Options) -> dict[str, tuple[float, float]]:
    """Return the usable addresses, each with its preferred and its valid lifetime. Raise Refusal."""
    usable = {}
    for number, value in options:
        if number != Option.IA_ADDRESS or len(value) < ADDRESS_BYTES:
            continue
        require_success(split(value[ADDRESS_BYTES:]))
        preferred, valid = number_of(value[16:20]), number_of(value[20:24])
        address = Address(6, int.from_bytes(value[:16], "big"))
        is_unicast = address in GLOBAL or address in UNIQUE_LOCAL
        if 0 < valid >= preferred and is_unicast:
            usable[str(address)] = preferred, valid
    return usable


def _withdraws(options: Options) -> bool:
    """Return True if a server ends an address: its lifetime is zero; RFC 8415, section 18.2.10.1."""
    found = [value for number, value in options if number == Option.IA_ADDRESS and len(value) >= ADDRESS_BYTES]
    return any(not any(value[20:24]) for value in found)


def association(iaid: bytes, address: str = "") -> tuple[int, bytes]:
    """Return IA_NA with an address to ask for, if one is given. The lifetimes are the server's affair."""
    body = iaid + bytes(IA_BYTES - 4)
    if address:
        inner = Address.parse(address).packed + bytes(8)
        body += Option.IA_ADDRESS.to_bytes(2, "big") + len(inner).to_bytes(2, "big") + inner
    return Option.IA_NA, body
