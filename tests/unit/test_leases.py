"""cnitool ipam's pure parts: the use of a pool, ages and numbers for people, and an action that may be left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.host_local.lease import Lease
from ipam.host_local.ranges import Range, RangeSet
from shared.cli import terminal
from shared.cli.commands import parser
from shared.cli.leases.pools import Held, Pool, addresses
from shared.cni.ip import Address, Prefix


@st.composite
def ranges(draw: st.DrawFn) -> RangeSet:
    """Draw a few ranges of one /16 that do not overlap, with the gateway inside or outside."""
    bounds = sorted(draw(st.lists(st.integers(1, 0xFFFE), min_size=2, max_size=8, unique=True)))
    base = Prefix.parse("10.1.0.0/16")
    first = [base.first + number for number in bounds]
    pairs = list(zip(first[::2], first[1::2], strict=False))
    gateway = draw(st.sampled_from([None, *first]))
    return RangeSet([Range(base, start, end, gateway) for start, end in pairs])


@given(ranges(), st.lists(st.integers(0, 0x1FFFF), unique=True, max_size=20))
def test_usage(entry: RangeSet, taken: list[int]) -> None:
    """The size counts the addresses that host-local can give out. Leases elsewhere, and of the gateway, use none of it."""
    names = [Address.parse("10.1.0.0") + number for number in taken]
    pool = Pool("net", "/nowhere", sets=[entry], held=[Held(str(one), Lease("a", ""), 0) for one in names])
    (usage,) = pool.usage()
    places = [place for place in map(entry.place, names) if place is not None]
    assert usage.size == entry.capacity
    assert usage.used == len(set(places) - entry.gateways) == usage.size - usage.free


def test_an_ipv6_range_is_counted_and_not_listed() -> None:
    entry = RangeSet([Range(Prefix.parse("fd00::/64"))])
    assert addresses(entry).size == entry.capacity == 2**64 - 2


@pytest.mark.parametrize(("seconds", "shown"), [
    (-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m 0s"), (3600 + 61, "1h 1m"), (86400 * 12 + 3600 * 3 + 59, "12d 3h"),
])  # fmt: skip
def test_ages(seconds: float, shown: str) -> None:
    assert terminal.age(seconds) == shown


@pytest.mark.parametrize(("arguments", "expected"), [
    (["ipam"], ("show", "", False)), (["ipam", "net"], ("show", "net", False)), (["ipam", "--json"], ("show", "", True)),
    (["ipam", "show", "gc"], ("show", "gc", False)), (["ipam", "--json", "net"], ("show", "net", True)),
])  # fmt: skip
def test_show_may_be_left_out(arguments: list[str], expected: tuple[str, str, bool]) -> None:
    options = parser().parse_args(arguments)
    assert (options.action, options.network, options.json) == expected


def test_the_other_actions() -> None:
    options = parser().parse_args(["ipam", "release", "net", "10.1.0.2"])
    assert (options.action, options.network, options.what) == ("release", "net", "10.1.0.2")
    options = parser().parse_args(["ipam", "gc", "--dry-run"])
    assert (options.action, options.dry_run) == ("gc", True)
