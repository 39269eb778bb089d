"""Conditions in the words of configurations: their meaning, and refusals."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cni.ip import Prefix
from shared.hostports import conditions
from shared.hostports.iptables_matches import Taker
from shared.nft.expressions import address, cmp, link, meta

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
    ("-d", 4, "ends in the middle of '-d'"), ("! -d", 4, "ends in the middle"), ("ip saddr !=", 4, "ends in the middle"), ("-p tcp", 4, "'-p'"),
    ("tcp dport 80", 4, "'tcp'"), ("ip daddr fd00::/8", 4, "no IPv4"), ("-d 192.0.2.1", 6, "no IPv6"), ("ip daddr 1.2.3.4", 6, "'ip'"),
    ("iifname eth+", 4, "neither a link's name"), ("-i eth*", 4, "neither a link's name"), ("-i e+h+", 4, "neither a link's name"), ("iifname *th*", 4, "neither a link's name"), ("-i a/b", 4, "'a/b'"), ("-d @set", 4, "'@set'"), ("ip protocol 6", 4, "'ip'"),
    ("-d ::ffff:192.0.2.1", 6, "no IPv6"), ("! ip daddr 192.0.2.1", 4, "'ip'"), ('iifname "', 4, "neither a link's name"), ("-d 192.0.2.0/33", 4, "no IPv4"),
    ("ip daddr { 1.2.3.4", 4, "ends in the middle"), ("ip daddr { }", 4, "''"), ("ip daddr { 1.2.3.4,, 5.6.7.8 }", 4, "''"), ("ip daddr 1.2.3.4,5.6.7.8", 4, "1.2.3.4,5"),
    ("! -d 1.2.3.4,5.6.7.8", 4, "takes one"), ("-d 1.2.3.4,", 4, "''"), ("-d 10.0.0.0/255.0.0.255", 4, "no IPv4"), ("-d 10.0.0.0/ffff::", 4, "no IPv4"),
    ("-m mark --mark 1", 4, "'-m'"), ("-i=eth0", 4, "'-i=eth0'"), ("--source=", 4, "''"), ("ip saddr { 1.2.3.4 } drop", 4, "'drop'"),
])  # fmt: skip
def test_what_is_not(text: str, version: int, words: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|ends)") as caught:
        conditions.parse([text], version)
    assert words in str(caught.value)


TWO = [Prefix.parse("10.0.0.0/8"), ONE]


@pytest.mark.parametrize(("texts", "version", "some", "none"), [
    (["-s", "10.0.0.0/8,192.0.2.7"], 4, [("saddr", TWO)], []),
    (["--source=10.0.0.0/255.0.0.0,192.0.2.7/255.255.255.255"], 4, [("saddr", TWO)], []),
    (["ip saddr { 10.0.0.0/8, 192.0.2.7 }"], 4, [("saddr", TWO)], []), (["ip", "saddr", "{10.0.0.0/8,192.0.2.7,}"], 4, [("saddr", TWO)], []),
    (["ip daddr != { 10.1.2.3/8, 192.0.2.7/32, 10.0.0.0/8 }"], 4, [], [("daddr", TWO)]),
    (["ip saddr", "==", "{ 10.0.0.0/8 ,192.0.2.7 }", "-d", "10.0.0.0/8,192.0.2.7"], 4, [("saddr", TWO), ("daddr", TWO)], []),
    (["ip6 daddr { fd00::/8, fd00::/ff00:: }"], 6, [], []),
])  # fmt: skip
def test_several_values(texts: list[str], version: int, some: list[Any], none: list[Any]) -> None:
    """Each value counts once; a single remaining value is no list."""
    parts = conditions.Parts(conditions.parse(texts, version))
    assert parts.some == [[address(side, value) for value in values] for side, values in some]
    assert parts.none == [address(side, value) for side, values in none for value in values]
    assert bool(parts.every) != bool(some or none)


@pytest.mark.parametrize(("texts", "data", "operator"), [
    (["-i", "eth+"], b"eth", "eq"), (["iifname eth*"], b"eth", "eq"), (['iifname != "e*"'], b"e", "neq"), (["! --in-interface=x+"], b"x", "neq"),
])  # fmt: skip
def test_how_names_begin(texts: list[str], data: bytes, operator: str) -> None:
    assert conditions.expressions(conditions.parse(texts, 4)) == [meta("iifname"), cmp(operator, data)]


@pytest.mark.parametrize(("texts", "line"), [
    (["-m", "mark", "--mark", "0x1/0x1"], "-m mark --mark 0x1/0x1"), (["-m conntrack ! --ctstate NEW,RELATED"], "-m conntrack ! --ctstate NEW,RELATED"),
    (["-m", "set", "--match-set", "x", "src"], "-m set --match-set x src"), (["-m", "recent", "--name", "a", "--set"], "-m recent --name a --set"),
    (["-m", "comment", "--comment", 'a "b" \\'], '-m comment --comment "a \\"b\\" \\\\"'), (["--match=tcp", "--syn", "-o", "x"], "--match=tcp --syn -o x"),
    (["-m", "comment", "--comment", "it's; $(x)"], """-m comment --comment "it's; $(x)\""""),
])  # fmt: skip
def test_matches_of_iptables(texts: list[str], line: str) -> None:
    matches = conditions.parse(texts, 4, Taker())
    assert " ".join(str(word) for field, _, words in matches for word in words if field == conditions.OTHER) == line


LONG = ["--jump", "--jump=ACCEPT", "--ju", "--j", "--goto", "--table", "--tab=filter", "--append", "--modprobe=/bin/x", "--mod", "--", "--set", "--set-counters", "--policy",
        "--line-numbers", "--prot", "--sour", "--ipv4", "--wait", "--matc", "--out", "--version", "--list", "--delete-chain", "--flush", "--in", "--=x"]  # fmt: skip
SHORT = ["-j", "-g", "-A", "-I", "-D", "-R", "-t", "-c", "-N", "-F", "-X", "-P", "-Z", "-E", "-L", "-S", "-C", "-w", "-W", "-M", "-4", "-6", "-n", "-jX", "-fj", "-sX", "-m=x", "-", "-p", "-h", "-V", "-x", "-v"]  # fmt: skip


@pytest.mark.parametrize("option", [*LONG, *SHORT])
@pytest.mark.parametrize("before", [[], ["-m", "mark", "--mark", "1"], ["-m", "comment", "--comment"], ["!"]])
def test_options_that_are_no_match(option: str, before: list[str]) -> None:
    for texts in ([*before, option, "ACCEPT"], [*before, f"{option} ACCEPT"], [" ".join([*before, option])]):
        with pytest.raises(ValueError, match=r"^(has|ends)"):
            conditions.parse(texts, 4, Taker())


@pytest.mark.parametrize("texts", [
    ["-m", "mark", "--mark", "1\nCOMMIT"], ["-m", "mark", "--mark", "1", "!"], ["-m", "comment", "--comment", "a\0"], ["-m", "../x"], ["-m", "x.so"], ["--match=/x"],
    ["-m"], ["-m", "-m"], ["-m", ""], ["-m", "comment", "--comment", ""], ["-m", "comment", "--comment", "\ud800"], ["-m", "comment", "--comment", "x" * 1001],
    ["-m", "comment", "--comment", "\u2028"], ["-m", "mark", "--mark", "1\r-j"], ["-m", "mark mark"], ["!", "!", "-m", "mark"], ["-m", "a\tb"],
])  # fmt: skip
def test_words_that_cannot_be_written(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^(has|ends)"):
        conditions.parse(texts, 4, Taker())


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["!", "-m", "mark", "--mark", "--comment", "-o", "comment"])),
)  # fmt: skip
def test_no_word_of_iptables_becomes_another(texts: list[str]) -> None:
    """iptables-restore reads the line as the same words that the configuration has."""
    with contextlib.suppress(ValueError):
        matches = conditions.parse(["-m", "mark", *texts], 4, Taker())
        words = [word for field, _, values in matches if field == conditions.OTHER for word in map(str, values)]
        assert all("\n" not in word and word.isprintable() for word in words)
        read = [re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word for word in words]
        assert not any(
            word.startswith("-") and word not in ("-m", "-o", "-f") and not word.startswith("--") for word in read
        )


@given(
    st.lists(
        st.text()
        | st.sampled_from(["!", "-d", "-s", "-i", "ip", "ip6", "saddr", "daddr", "iifname", "!=", "10.0.0.0/8", "eth0"])
    )
)
def test_anything_else(texts: list[str]) -> None:
    """Any text gives expressions or ValueError."""
    with contextlib.suppress(ValueError):
        assert isinstance(conditions.parse(texts, 4), list)
