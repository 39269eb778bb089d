"""Conditions in configurations' words: which are understood, as what, and which are not."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cni.ip import Prefix
from shared.nft import conditions
from shared.nft.expressions import address, link

NET, NET_6 = Prefix.parse("192.0.2.0/24"), Prefix.parse("fd00::/8")
ONE = Prefix.parse("192.0.2.7/32")


@pytest.mark.parametrize(("texts", "version", "expected"), [
    (["-d", "192.0.2.0/24"], 4, address("daddr", NET)), (["!", "-d", "192.0.2.0/24"], 4, address("daddr", NET, "neq")),
    (["! --source 192.0.2.7"], 4, address("saddr", ONE, "neq")), (["--dst", "192.0.2.9/24"], 4, address("daddr", NET)),
    (["ip daddr != 192.0.2.0/24"], 4, address("daddr", NET, "neq")), (["ip", "saddr", "192.0.2.7"], 4, address("saddr", ONE)),
    (["ip6 saddr == fd00::/8"], 6, address("saddr", NET_6)), (["!", "-s", "fd00::/8"], 6, address("saddr", NET_6, "neq")),
    (["-i", "eth0"], 6, link("iifname", "eth0")), (['iifname != "eth0"'], 4, link("iifname", "eth0", "neq")),
    (["!", "-i", "eth0", "ip saddr 192.0.2.7"], 4, [*link("iifname", "eth0", "neq"), *address("saddr", ONE)]), ([], 4, []), ([" "], 6, []),
])  # fmt: skip
def test_what_is_understood(texts: list[str], version: int, expected: list[object]) -> None:
    assert conditions.expressions(conditions.parse(texts, version)) == expected


@pytest.mark.parametrize(("text", "version", "words"), [
    ("-d", 4, "ends in the midst of '-d'"), ("! -d", 4, "ends in the midst"), ("ip saddr !=", 4, "ends in the midst"), ("-p tcp", 4, "'-p'"),
    ("tcp dport 80", 4, "'tcp'"), ("ip daddr fd00::/8", 4, "no IPv4"), ("-d 192.0.2.1", 6, "no IPv6"), ("ip daddr 1.2.3.4", 6, "'ip'"),
    ("iifname eth*", 4, "whole name"), ("-i eth+", 4, "whole name"), ("-i a/b", 4, "'a/b'"), ("-d @set", 4, "'@set'"), ("ip protocol 6", 4, "'ip'"),
    ("-d ::ffff:192.0.2.1", 6, "no IPv6"), ("! ip daddr 192.0.2.1", 4, "'ip'"), ('iifname "', 4, "whole name"), ("-d 192.0.2.0/33", 4, "no IPv4"),
])  # fmt: skip
def test_what_is_not(text: str, version: int, words: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|ends)") as caught:
        conditions.parse([text], version)
    assert words in str(caught.value)


@given(
    st.lists(
        st.text()
        | st.sampled_from(["!", "-d", "-s", "-i", "ip", "ip6", "saddr", "daddr", "iifname", "!=", "10.0.0.0/8", "eth0"])
    )
)
def test_anything_else(texts: list[str]) -> None:
    """Expressions or ValueError, whatever is written there."""
    with contextlib.suppress(ValueError):
        assert isinstance(conditions.parse(texts, 4), list)
