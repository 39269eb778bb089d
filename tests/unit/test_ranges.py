"""Addresses, prefixes and ranges, with netaddr (and ipaddress, for the text) as the oracle."""

from __future__ import annotations

import ipaddress

import netaddr
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ipam.host_local.ranges import Range, RangeSet
from shared.cni.ip import Address, Prefix

v4 = st.integers(0, 2**32 - 1).map(lambda value: Address(4, value))
# the runs of zeros that make the text forms differ are rare among random numbers
v6_values = st.integers(0, 2**128 - 1) | st.lists(
    st.sampled_from([0, 0, 0, 1, 0xFFFF, 0xA0]), min_size=8, max_size=8
).map(lambda groups: sum(group << 16 * place for place, group in enumerate(groups)))
v6 = v6_values.filter(lambda value: value >> 32 != 0xFFFF).map(lambda value: Address(6, value))
addresses = v4 | v6
prefixes = st.builds(Prefix, v4, st.integers(0, 32)) | st.builds(Prefix, v6, st.integers(0, 128))


def oracle(address: Address) -> netaddr.IPAddress:
    return netaddr.IPAddress(address.value, 4 if address.version == 4 else 6)


def network(prefix: Prefix) -> netaddr.IPNetwork:
    return netaddr.IPNetwork(f"{oracle(prefix.address)}/{prefix.length}")


# -- text


@given(addresses)
@example(Address(6, 0))
@example(Address(6, 1))
@example(Address(6, 0xA010203))
@example(Address(6, 0xFFFE_0A01_0203))
def test_text_of_an_address(address: Address) -> None:
    """The text is Go's and RFC 5952's, hexadecimal for ::a.b.c.d too: it names lease files."""
    assert str(address) == str(ipaddress.ip_address(address.packed))
    assert Address.parse(str(address)) == address
    assert address.packed == oracle(address).packed


@given(v6)
def test_any_spelling_of_an_ipv6_address(address: Address) -> None:
    for dialect in (netaddr.ipv6_full, netaddr.ipv6_verbose, netaddr.ipv6_compact):
        text = oracle(address).format(dialect)  # type: ignore[arg-type]  # the stubs name one of them
        assert Address.parse(text) == Address.parse(text.upper()) == address


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("::ffff:10.1.2.3", "10.1.2.3"), ("::ffff:a01:203", "10.1.2.3"), ("::1.2.3.4", "::102:304"), ("::0.0.0.5", "::5"),
        ("::", "::"), ("FD00::00A0", "fd00::a0"), ("fd00:0:0:1:0:0:0:1", "fd00:0:0:1::1"), ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
        ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"), ("1:0:0:2:3:0:0:4", "1::2:3:0:0:4"),
    ],
)  # fmt: skip
def test_gos_spelling(text: str, spelling: str) -> None:
    assert str(Address.parse(text)) == spelling


@pytest.mark.parametrize(
    "text",
    ["", "10.1.2", "10.1.2.3.4", "10.1.2.256", "010.1.2.3", "10.1.2.3/24", " 10.1.2.3", "10.1.2.3 ", "10.1.2.3\n", "1:2",
     ":::", "fe80::1%eth0", "g::", "10,1,2,3", "0x0a010203", "167838211", "١٠.1.2.3", "10.1.2.3\0", "1::2::3"],
)  # fmt: skip
def test_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        Address.parse(text)


@given(st.text(max_size=20) | st.text("0123456789abcdefABCDEF:.%/", max_size=40))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    """ipaddress accepts every text that is accepted here."""
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert ipaddress.ip_address(text).packed.endswith(address.packed)


@given(prefixes)
def test_prefix(prefix: Prefix) -> None:
    held = network(prefix)
    assert Prefix.parse(str(prefix)) == prefix
    assert oracle(prefix.first) == oracle(Address(prefix.version, held.first))
    assert oracle(prefix.last) == oracle(Address(prefix.version, held.last))
    assert str(prefix.network) == f"{Address(prefix.version, held.first)}/{prefix.length}"


@given(prefixes, prefixes, addresses)
def test_networks_that_share_addresses(one: Prefix, other: Prefix, address: Address) -> None:
    assert (address in one) == (oracle(address) in network(one))
    shared = network(one) in network(other) or network(other) in network(one)
    assert one.overlaps(other) == other.overlaps(one) == shared


@given(prefixes, st.data())
def test_a_network_shares_addresses_with_its_part(prefix: Prefix, data: st.DataObject) -> None:
    length = data.draw(st.integers(prefix.length, prefix.address.bits))
    inner = Prefix(prefix.last, length)
    assert prefix.overlaps(inner) and inner.overlaps(prefix) and prefix.last in inner


@pytest.mark.parametrize(
    "text", ["10.1.0.0", "10.1.0.0/", "10.1.0.0/33", "10.1.0.0/-1", "10.1.0.0/ 8", "10.1.0.0/8/8", "fd00::/129", "/8",
             "10.1.0.0/²", "10.1.0.0/0x8", "::ffff:10.1.0.0/120", "10.1.0.0/0024"],
)  # fmt: skip
def test_no_prefix(text: str) -> None:
    with pytest.raises(ValueError, match="not an"):
        Prefix.parse(text)


# -- ranges


@st.composite
def subnets(draw: st.DrawFn, host_bits: int = 12) -> Prefix:
    prefix = draw(
        st.builds(Prefix, v4, st.integers(32 - host_bits, 30))
        | st.builds(Prefix, v6, st.integers(128 - host_bits, 126))
    )
    return prefix.network


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    subnet = draw(subnets())
    inside = st.integers(subnet.first.value, subnet.last.value).map(lambda value: Address(subnet.version, value))
    start, end, gateway = draw(st.none() | inside), draw(st.none() | inside), draw(st.none() | inside)
    try:
        return Range(subnet, start, end, gateway)
    except ValueError:
        assume(False)
        raise


@given(subnets())
def test_the_whole_subnet(subnet: Prefix) -> None:
    """The range goes from the first host to the last: netaddr knows IPv4's broadcast; IPv6 has none."""
    held, whole = network(subnet), Range(subnet)
    hosts = list(held.iter_hosts())
    if subnet.version == 6:
        assert oracle(whole.start) == netaddr.IPAddress(held.first + 1, 6)
        assert oracle(whole.end) == netaddr.IPAddress(held.last, 6)
    else:
        assert (oracle(whole.start), oracle(whole.end)) == (hosts[0], hosts[-1])
        assert held.broadcast is not None and held.broadcast not in netaddr.IPRange(
            oracle(whole.start), oracle(whole.end)
        )
    assert whole.gateway == whole.start
    assert whole.size == len(netaddr.IPRange(oracle(whole.start), oracle(whole.end)))
    everything = RangeSet([whole])
    assert everything.capacity == whole.size - 1
    assert not everything.range_of(subnet.first)


@given(ranges(), addresses)
def test_range(entry: Range, address: Address) -> None:
    held = netaddr.IPRange(oracle(entry.start), oracle(entry.end))
    assert entry.size == held.size
    assert (address in entry) == (oracle(address) in held)
    assert entry.start in entry and entry.end in entry
    assert (entry.end + 1) not in entry


@settings(max_examples=50)
@given(ranges(), ranges())
def test_overlap(one: Range, other: Range) -> None:
    same_family = one.subnet.version == other.subnet.version
    mine = netaddr.IPSet(netaddr.IPRange(oracle(one.start), oracle(one.end)))
    theirs = netaddr.IPSet(netaddr.IPRange(oracle(other.start), oracle(other.end)))
    shared = same_family and not mine.isdisjoint(theirs)
    assert one.overlaps(other) == other.overlaps(one) == shared
    assert RangeSet([one]).overlaps(RangeSet([other])) == shared
    if shared:
        with pytest.raises(ValueError, match="overlapping"):
            RangeSet([one, other])
    elif not same_family:
        with pytest.raises(ValueError, match="mixes"):
            RangeSet([one, other])
    else:
        assert RangeSet([one, other]).size == mine.size + theirs.size


@given(subnets(6), st.data())
def test_parts_of_one_subnet_that_overlap(subnet: Prefix, data: st.DataObject) -> None:
    """Random ranges hardly ever overlap, so these parts do."""
    inside = st.integers(subnet.first.value, subnet.last.value)
    pairs = [sorted(data.draw(st.tuples(inside, inside))) for _ in range(2)]
    one, other = (Range(subnet, *(Address(subnet.version, value) for value in pair)) for pair in pairs)
    mine, theirs = (netaddr.IPSet(netaddr.IPRange(oracle(entry.start), oracle(entry.end))) for entry in (one, other))
    assert one.overlaps(other) == (not mine.isdisjoint(theirs))


@pytest.mark.parametrize(
    ("subnet", "start", "end", "words"),
    [
        ("10.1.0.5/24", None, None, "host bits set.*10.1.0.0/24"),
        ("fd00::1/64", None, None, "host bits set"),
        ("10.1.0.0/31", None, None, "too small"),
        ("10.1.0.0/32", None, None, "too small"),
        ("fd00::/127", None, None, "too small"),
        ("10.1.0.0/24", "10.1.1.0", None, "rangeStart 10.1.1.0 outside"),
        ("10.1.0.0/24", None, "10.0.255.255", "rangeEnd 10.0.255.255 outside"),
        ("10.1.0.0/24", "fd00::1", None, "outside"),
        ("10.1.0.0/24", "10.1.0.9", "10.1.0.8", "after"),
    ],
)
def test_no_range(subnet: str, start: str | None, end: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Range(Prefix.parse(subnet), Address.parse(start) if start else None, Address.parse(end) if end else None)


def test_no_set() -> None:
    with pytest.raises(ValueError, match="empty"):
        RangeSet([])


@st.composite
def range_sets(draw: st.DrawFn) -> RangeSet:
    """Draw one to three small ranges of one family."""
    version = draw(st.sampled_from([4, 6]))
    entries = []
    for place in draw(st.permutations(range(5)))[: draw(st.integers(1, 3))]:
        network_address = Address(version, (10 << 24) + (place << 8))
        subnet = Prefix(network_address, network_address.bits - draw(st.integers(2, 5)))
        inside = st.integers(subnet.first.value, subnet.last.value).map(lambda value: Address(version, value))
        bounds = sorted(draw(st.tuples(inside, inside)), key=lambda address: address.value)
        gateway = draw(st.none() | inside | st.just(network_address + 9999))
        entries.append(
            draw(st.sampled_from([Range(subnet, None, None, gateway), Range(subnet, bounds[0], bounds[1], gateway)]))
        )
    return RangeSet(entries)


def order(entry: RangeSet) -> list[Address]:
    """Return the addresses to give out, in order, from netaddr."""
    found = []
    gateways = {oracle(one.gateway) for one in entry.ranges}
    for one in entry.ranges:
        found += [Address(one.subnet.version, int(address)) for address in netaddr.IPRange(oracle(one.start), oracle(one.end))
                  if address not in gateways]  # fmt: skip
    return found


@given(range_sets())
def test_places(entry: RangeSet) -> None:
    """Each address has one place, in the ranges' own order, not the numbers'."""
    held = [entry.at(place) for place in range(entry.size)]
    assert [entry.place(address) for address, _ in held] == list(range(entry.size))
    assert all(address in one and entry.range_of(address) is one for address, one in held)
    assert entry.capacity == len(order(entry))
    with pytest.raises(IndexError):
        entry.at(entry.size)


@given(range_sets())
def test_round_robin_gives_each_address_once_and_wraps_around(entry: RangeSet) -> None:
    given_out: list[Address] = []
    taken: set[int] = set()
    last: Address | None = None
    while (place := entry.next_free(last, taken, entry.size)) is not None:
        taken.add(place)
        last = entry.at(place)[0]
        given_out.append(last)
    assert given_out == order(entry)


@given(range_sets(), st.data())
def test_next_free(entry: RangeSet, data: st.DataObject) -> None:
    """The next address is the first free one after the last given out, around the end.

    If `last` is in no range, the search begins at the start.
    """
    wanted = order(entry)
    taken = data.draw(st.sets(st.sampled_from(wanted))) if wanted else set()
    last = data.draw(st.none() | st.sampled_from([entry.at(place)[0] for place in range(entry.size)]))
    everything = [entry.at(place)[0] for place in range(entry.size)]
    start = everything.index(last) + 1 if last else 0
    expected = next((a for a in everything[start:] + everything[:start] if a in wanted and a not in taken), None)
    place = entry.next_free(last, {everything.index(address) for address in taken}, entry.size)
    assert (None if place is None else everything[place]) == expected
    stranger = Address(entry.ranges[0].subnet.version, 1)
    assert entry.next_free(stranger, set(), entry.size) == entry.next_free(None, set(), entry.size)


def test_the_number_of_tries_is_kept() -> None:
    entry = RangeSet([Range(Prefix.parse("10.0.0.0/8"))])
    taken = set(range(100))
    assert entry.next_free(None, taken, 100) is None
    assert entry.next_free(None, taken, 101) == 100


def test_a_set_as_text() -> None:
    entry = RangeSet([Range(Prefix.parse("10.1.0.0/24")), Range(Prefix.parse("10.2.0.0/24"))])
    assert str(entry) == "10.1.0.1-10.1.0.254,10.2.0.1-10.2.0.254"
