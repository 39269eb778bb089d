"""IP addresses and prefixes as numbers; importing ipaddress takes 5 ms."""

from __future__ import annotations

from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BITS = {4: 32, 6: 128}


class Address:
    """An IPv4 or IPv6 address; compares and hashes by family and value."""

    __slots__ = ("value", "version")

    def __init__(self, version: int, value: int) -> None:
        self.version = version
        self.value = value

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse an address. An IPv4-mapped IPv6 address becomes its IPv4 address, as in Go.

        Raise ValueError for anything else.
        """
        try:
            if ":" not in text:
                return cls(4, int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big"))
            value = int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
        except (OSError, ValueError, TypeError):
            raise ValueError("not an IP address") from None
        return cls(4, value & 0xFFFFFFFF) if value >> 32 == 0xFFFF else cls(6, value)

    @property
    def bits(self) -> int:
        """32 or 128."""
        return BITS[self.version]

    @property
    def packed(self) -> bytes:
        """Network byte order."""
        return self.value.to_bytes(self.bits // 8, "big")

    def __str__(self) -> str:
        if self.version == 4:
            return socket.inet_ntop(socket.AF_INET, self.packed)
        text = socket.inet_ntop(socket.AF_INET6, self.packed)
        if "." not in text:
            return text
        # the C library prints ::a.b.c.d, Go prints hexadecimal; lease files are named in Go's spelling
        high, low = divmod(self.value & 0xFFFFFFFF, 0x10000)
        return f"::{high:x}:{low:x}" if high else f"::{low:x}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and (self.version, self.value) == (other.version, other.value)

    def __hash__(self) -> int:
        return hash((self.version, self.value))

    def __add__(self, number: int) -> Address:
        return Address(self.version, self.value + number)


class Prefix:
    """An address with a prefix length: an interface's address or, host bits zero, a network."""

    __slots__ = ("address", "length")

    def __init__(self, address: Address, length: int) -> None:
        self.address = address
        self.length = length

    @classmethod
    def parse(cls, text: Any) -> Prefix:
        """Parse CIDR notation, such as 10.1.0.5/24. Raise ValueError for anything else."""
        address_text, slash, length_text = text.partition("/") if isinstance(text, str) else ("", "", "")
        if not slash or not (length_text.isascii() and length_text.isdigit()) or len(length_text) > 3:
            raise ValueError("not an address in CIDR notation")
        address = Address.parse(address_text)
        length = int(length_text)
        if (":" in address_text) != (address.version == 6) or not 0 <= length <= address.bits:
            raise ValueError("not an address in CIDR notation")
        return cls(address, length)

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.address.version

    @property
    def first(self) -> Address:
        """The network's own address: all host bits zero."""
        host_bits = self.address.bits - self.length
        return Address(self.version, self.address.value >> host_bits << host_bits)

    @property
    def last(self) -> Address:
        """All host bits one: the broadcast address of an IPv4 network."""
        return Address(self.version, self.address.value | (1 << (self.address.bits - self.length)) - 1)

    @property
    def network(self) -> Prefix:
        """The prefix without host bits."""
        return Prefix(self.first, self.length)

    def __contains__(self, address: Address) -> bool:
        own = self.address
        return address.version == own.version and (address.value ^ own.value) >> (own.bits - self.length) == 0

    def overlaps(self, other: Prefix) -> bool:
        """Return True if the two networks share an address."""
        return self.first in other or other.first in self

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and (self.address, self.length) == (other.address, other.length)

    def __hash__(self) -> int:
        return hash((self.address, self.length))
