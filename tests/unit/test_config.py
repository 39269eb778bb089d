"""Declared keys: how they are found, the values that each kind accepts, and the text of errors."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam import host_local
from plugins import bridge
from shared.cni import config
from shared.cni.config import (
    Config,
    Kind,
    boolean,
    choice,
    either,
    field,
    integer,
    list_of,
    mac,
    obj,
    prefix,
    section,
    text,
)
from shared.cni.errors import InvalidConfig
from shared.cni.ip import Address, Prefix
from shared.cni.names import is_link_name, is_name
from shared.pod import attachment


class Inner(Config):
    number: int = field(integer(1, 9), None, "a number", required=True)


class Keys(Config):
    isGateway: bool = field(boolean, False, "a flag")  # noqa: N815 - as in JSON
    mtu: int | str = field(either(integer(0, 65535), choice("auto")), 0, "a size")
    word: str = field(text, "w", "a word")
    mac: str = field(mac, "", "an address")
    subnet: Prefix | None = field(prefix, None, "a network")
    anything: dict[str, Any] = field(obj, {}, "an object")
    inner: Inner | None = field(section(Inner), None, "an object")
    sets: list[list[Inner]] = field(list_of(list_of(section(Inner))), (), "objects")
    path: str = field(config.absolute_path, "/var", "a path")


def read(raw: dict[str, Any]) -> Keys:
    keys: Keys = Keys.read(raw)
    return keys


def message(raw: dict[str, Any]) -> str:
    with pytest.raises(InvalidConfig) as caught:
        read(raw)
    assert caught.value.code == 7
    return caught.value.msg


def test_the_fields_of_all_bases() -> None:
    """The first of several bases wins, and a class's own field wins over those of its bases."""

    class Left(Inner):
        word: str = field(text, "left", "a text")

    class Right(Config):
        word: str = field(text, "right", "a text")
        other: str = field(text, "right", "a text")

    class Both(Left, Right):
        number: int = field(integer(1, 99), 7, "a number")

    keys = Both({"other": "given"})
    assert (keys.word, keys.other, keys.number) == ("left", "given", 7)
    assert list(Both.fields) == ["number", "word", "other"]  # its own come first


def test_defaults() -> None:
    keys = read({})
    assert (keys.isGateway, keys.mtu, keys.word, keys.subnet, keys.inner, keys.path) == (
        False,
        0,
        "w",
        None,
        None,
        "/var",
    )


@pytest.mark.parametrize("key", ["isGateway", "ISGATEWAY", "isgateway", "IsGateway"])
def test_case_does_not_matter(key: str) -> None:
    assert read({key: True}).isGateway is True


@pytest.mark.parametrize("raw", [{"isgateway": False, "isGateway": True, "ISGATEWAY": False},
                                 {"isGateway": True, "isgateway": False}])  # fmt: skip
def test_an_exact_match_wins(raw: dict[str, Any]) -> None:
    assert read(raw).isGateway is True


def test_null_is_not_set() -> None:
    assert read(dict.fromkeys(Keys.fields)).isGateway is False
    assert read({"isGateway": None, "ISGATEWAY": True}).isGateway is True


def test_unknown_keys_pass() -> None:
    assert read({"word": "x", "wordy": 5, "": [], "ipMasq": "no"}).word == "x"


def test_inner_keys_match_alike() -> None:
    keys = read({"INNER": {"NUMBER": 3}, "Sets": [[{"Number": 4}], []]})
    assert keys.inner is not None and keys.inner.number == 3
    assert [[inner.number for inner in entry] for entry in keys.sets] == [[4], []]


@pytest.mark.parametrize(("raw", "words"), [
    ({"isGateway": 1}, '"isGateway": 1 must be true or false'),
    ({"isGateway": "true"}, '"isGateway": "true" must be true or false'),
    ({"mtu": True}, '"mtu": true must be a whole number from 0 to 65535 or one of auto'),
    ({"mtu": 65536}, '"mtu": 65536 must be a whole number from 0 to 65535 or one of auto'),
    ({"mtu": -1}, '"mtu": -1 must'),
    ({"mtu": 1500.0}, '"mtu": 1500.0 must'),
    ({"mtu": "1500"}, '"mtu": "1500" must'),
    ({"mtu": []}, '"mtu": [] must'),
    ({"mtu": {}}, '"mtu": {} must'),
    ({"word": 5}, '"word": 5 must be a string'),
    ({"word": ["x"]}, '"word": [ "x" ] must be a string'),
    ({"mac": "02:00:00:00:00"}, '"mac": "02:00:00:00:00" must be a MAC address of six bytes'),
    ({"mac": "01:00:00:00:00:01"}, '"mac": "01:00:00:00:00:01" must be a unicast MAC address'),
    ({"mac": "00:00:00:00:00:00"}, "must be a unicast MAC address"),
    ({"mac": "0200.0000.0001"}, "must be a MAC address"),
    ({"mac": "02:00:00:00:00:0g"}, "must be a MAC address"),
    ({"mac": "02:00:00:00:00:٠1"}, "must be a MAC address"),
    ({"subnet": "10.1.0.0"}, '"subnet": "10.1.0.0" must be an address in CIDR notation'),
    ({"anything": []}, '"anything": [] must be an object'),
    ({"inner": {}}, '"inner.number" is required'),
    ({"inner": {"number": 0}}, '"inner.number": 0 must be a whole number from 1 to 9'),
    ({"inner": 5}, '"inner": 5 must be an object'),
    ({"sets": {}}, '"sets": {} must be a list'),
    ({"sets": [5]}, '"sets[0]": 5 must be a list'),
    ({"sets": [[{"number": 1}, 5]]}, '"sets[0][1]": 5 must be an object'),
    ({"sets": [[], [{"number": 1}, {"number": True}]]}, '"sets[1][1].number": true must be a whole number'),
    ({"path": "var"}, '"path": "var" must be an absolute path'),
    ({"path": "/var/../etc"}, "must be an absolute path"),
    ({"path": "/var\0"}, "must be an absolute path"),
])  # fmt: skip
def test_the_error_names_key_and_value(raw: dict[str, Any], words: str) -> None:
    assert words in message(raw)


def test_a_long_value_is_cut() -> None:
    shown = message({"isGateway": "x" * 10_000})
    assert len(shown) < 200 and "x" * 70 in shown


@pytest.mark.parametrize("key", ["mac", "path"])
def test_an_empty_text_is_not_set(key: str) -> None:
    """Go's types read an empty text so."""
    assert getattr(read({key: ""}), key) == Keys.fields[key].default


@given(
    st.integers(1, 255).map(lambda octet: octet & 0xFE).filter(bool),
    st.binary(min_size=5, max_size=5),
    st.sampled_from(":-"),
)
def test_macs(first: int, others: bytes, separator: str) -> None:
    octets = bytes([first]) + others
    assert read({"mac": octets.hex(separator).upper()}).mac == octets.hex(":")


@given(st.integers(), st.integers(0, 100), st.integers(100, 200))
def test_integers(value: int, lowest: int, highest: int) -> None:
    kind = integer(lowest, highest)
    if lowest <= value <= highest:
        assert kind.parse(value) == value
    else:
        with pytest.raises(ValueError, match=f"from {lowest} to {highest}"):
            kind.parse(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
every_key = sorted({name for keys in (bridge.Config, bridge.Trunk, attachment.CniArgs, host_local.Config, host_local.IpamConfig,
                                      host_local.RangeConfig, host_local.RuntimeConfig, host_local.Args) for name in keys.fields})  # fmt: skip
configurations = st.dictionaries(
    st.sampled_from(every_key) | st.sampled_from(every_key).map(str.upper),
    json_values | st.dictionaries(st.sampled_from(every_key), json_values, max_size=3)
    | st.lists(st.lists(st.dictionaries(st.sampled_from(every_key), json_values, max_size=2), max_size=2), max_size=2),
    max_size=4,
)  # fmt: skip


@pytest.mark.parametrize("keys", [bridge.Config, host_local.Config, Keys])
def test_any_json_is_a_configuration_or_an_error(keys: type[Config]) -> None:
    """Any value at any place gives code 7 or a configuration."""

    @given(configurations)
    def judge(raw: dict[str, Any]) -> None:
        try:
            keys.read(raw)
        except InvalidConfig as error:
            assert error.code == 7 and error.msg.startswith('invalid configuration: "')  # noqa: PT017

    judge()


@given(st.text(max_size=20))
def test_names(value: str) -> None:
    """Names are ASCII and matched as a whole: a trailing newline is not part of a name."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    allowed = set(letters + letters.upper() + "0123456789")
    expected = bool(value) and value[0] in allowed and set(value) <= allowed | set("_.-")
    assert is_name(value) == expected


@pytest.mark.parametrize("value", ["a\n", "\na", "a b", "é", "a/b", "../a", ".a", "-a", "_a", "", "a\0", "²", "ａ"])
@pytest.mark.row("identifiers")
def test_no_names(value: str) -> None:
    assert not is_name(value)


@pytest.mark.parametrize("value", ["eth0", "a" * 15, "v-_.@0", "...", "10"])
def test_link_names(value: str) -> None:
    assert is_link_name(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "é",
        "ethé",
        "a/b",
        "a:b",
        "a b",
        "a\t",
        "a\n",
        "a" * 16,
        "é" * 8,
        "a%d",
        "a\0",
        "a\x7f",
        "a\u00a0b",
        "\ud800",
    ],
)
@pytest.mark.row("identifiers")
def test_no_link_names(value: str) -> None:
    assert not is_link_name(value)


def test_a_field_of_a_subclass() -> None:
    """A configuration inherits the keys of its base class."""

    class More(Inner):
        word: str = field(text, "w", "a word")

    keys: More = More.read({"number": 1})
    assert (keys.number, keys.word) == (1, "w") and set(Inner.fields) == {"number"}


@pytest.mark.parametrize(("kind", "value", "parsed"), [
    (config.address, "10.1.0.1", Address(4, int(ipaddress.ip_address("10.1.0.1")))),
    (config.address, "fd00::1", Address(6, int(ipaddress.ip_address("fd00::1")))),
    (config.link_name, "cni0", "cni0"),
    (choice("a", "b"), "b", "b"),
    (host_local.requested_address, "10.1.0.1/24", Address.parse("10.1.0.1")),
])  # fmt: skip
def test_kinds(kind: Kind, value: str, parsed: Any) -> None:
    assert kind.parse(value) == parsed


@pytest.mark.parametrize("value", [[], {}, 5, True, "10.1.0.1/33", "x"])
@pytest.mark.parametrize(
    "kind", [config.address, host_local.requested_address, config.prefix, choice("a"), config.link_name]
)
def test_kinds_refuse_with_value_error(kind: Kind, value: Any) -> None:
    """Any other exception would be a defect of the plugin (code 999)."""
    if kind is config.link_name and value == "x":
        return
    with pytest.raises(ValueError, match="must be"):
        kind.parse(value)
