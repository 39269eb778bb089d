"""Ranges of addresses and their order of allocation. No function here has side effects."""

from __future__ import annotations

from shared.cni.ip import Address, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container


class Range:
    """A contiguous part of a subnet, both ends included, and the subnet's gateway."""

    def __init__(
        self, subnet: Prefix, start: Address | None = None, end: Address | None = None, gateway: Address | None = None
    ) -> None:
        """Default to all hosts of the subnet (IPv4: without the broadcast address); the first host is the gateway.

        Raises ValueError with the error in the subnet, the start or the end.
        """
        first, last = subnet.first, subnet.last
        if subnet.address != first:
            raise ValueError(f"has host bits set: the network of {subnet} is {subnet.network}")
        if subnet.length > subnet.address.bits - 2:
            raise ValueError("is too small to allocate from: a prefix must leave two host bits")
        self.subnet = subnet
        self.start = start or first + 1
        self.end = end or (last if subnet.version == 6 else Address(4, last.value - 1))
        self.gateway = gateway or first + 1
        for name, bound in (("rangeStart", self.start), ("rangeEnd", self.end)):
            if bound not in subnet:
                raise ValueError(f"has {name} {bound} outside of it")
        if self.start.value > self.end.value:
            raise ValueError(f"has rangeStart {self.start} after rangeEnd {self.end}")

    @property
    def size(self) -> int:
        """The number of addresses, the gateway's included."""
        return self.end.value - self.start.value + 1

    def __contains__(self, address: Address) -> bool:
        return address.version == self.subnet.version and self.start.value <= address.value <= self.end.value

    def overlaps(self, other: Range) -> bool:
        """Return True if the two ranges share an address."""
        return self.start in other or other.start in self

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"


class RangeSet:
    """Ranges of one family, used one after the other. A pod gets one address of each set."""

    def __init__(self, ranges: list[Range]) -> None:
        """Raise ValueError if there is no range, families are mixed, or ranges overlap."""
        if not ranges:
            raise ValueError("is empty")
        if len({entry.subnet.version for entry in ranges}) > 1:
            raise ValueError("mixes IPv4 and IPv6")
        for place, entry in enumerate(ranges):
            for other in ranges[:place]:
                if entry.overlaps(other):
                    raise ValueError(f"has the overlapping ranges {other} and {entry}")
        self.ranges = ranges
        self.size = sum(entry.size for entry in ranges)
        self.gateways = {place for place in map(self.place, [entry.gateway for entry in ranges]) if place is not None}

    def place(self, address: Address) -> int | None:
        """Return the place of an address in the order of allocation, from 0; None if it is not in the set."""
        before = 0
        for entry in self.ranges:
            if address in entry:
                return before + address.value - entry.start.value
            before += entry.size
        return None

    def at(self, place: int) -> tuple[Address, Range]:
        """Return the address at a place, and its range."""
        for entry in self.ranges:
            if place < entry.size:
                return entry.start + place, entry
            place -= entry.size
        raise IndexError(place)

    def range_of(self, address: Address) -> Range | None:
        """Return the range of an address, or None."""
        return next((entry for entry in self.ranges if address in entry), None)

    def overlaps(self, other: RangeSet) -> bool:
        """Return True if the two sets share an address."""
        return any(mine.overlaps(theirs) for mine in self.ranges for theirs in other.ranges)

    @property
    def capacity(self) -> int:
        """The number of addresses for pods: all except the gateways."""
        return self.size - len(self.gateways)

    def next_free(self, last: Address | None, taken: Container[int], tries: int) -> int | None:
        """Return the first place after `last` that is neither taken nor a gateway; None after `tries` places."""
        start = self.place(last) if last else None
        place = 0 if start is None else (start + 1) % self.size
        for _ in range(min(tries, self.size)):
            if place not in taken and place not in self.gateways:
                return place
            place = (place + 1) % self.size
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.ranges))
