"""Variables, configuration and CNI_ARGS of a call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cni.call import NEEDS, Call, folded
from shared.cni.config import Config, field, text
from shared.cni.errors import CniError, DecodingFailure, IncompatibleVersion, InvalidConfig, InvalidEnvironment
from shared.cni.plugin import valid_attachments
from shared.cni.versions import SUPPORTED
from shared.pod.attachment import EnvironmentArgs

WHOLE = {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/pod", "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni", "CNI_ARGS": "",
}  # fmt: skip


def call(command: str = "ADD", **variables: str | None) -> Call:
    environment = {**WHOLE, "CNI_COMMAND": command, **variables}
    return Call({name: value for name, value in environment.items() if value is not None})


def configured(config: Any, command: str = "ADD") -> Call:
    made = call(command)
    made.read_config(config if isinstance(config, bytes) else json.dumps(config).encode())
    return made


def test_a_whole_call() -> None:
    made = call()
    assert (made.command, made.container_id, made.netns, made.ifname) == ("ADD", "c1", "/run/netns/pod", "eth0")
    assert made.path == ["/opt/cni/bin", "/usr/lib/cni"]


@pytest.mark.parametrize("command", NEEDS)
@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_each_command_needs(command: str, variable: str, value: str | None) -> None:
    """The specification's table; DEL may come without a namespace, GC and STATUS without a container."""
    needed = {
        "ADD": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
        "CHECK": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
        "DEL": ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
        "GC": ["CNI_PATH"], "STATUS": ["CNI_PATH"], "VERSION": [],
    }  # fmt: skip
    if variable in needed[command]:
        with pytest.raises(InvalidEnvironment, match=variable) as caught:
            call(command, **{variable: value})
        assert caught.value.code == 4
    else:
        call(command, **{variable: value})


def test_all_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidEnvironment, match="CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH"):
        Call({"CNI_COMMAND": "ADD"})


@pytest.mark.parametrize("command", ["", "add", "ADD ", "FROB", "ADD\n"])
def test_no_command(command: str) -> None:
    with pytest.raises(InvalidEnvironment, match="CNI_COMMAND"):
        call(command)


@pytest.mark.parametrize("value", ["../x", "a/b", "a\n", ".a", "é", "a b", "-a", "\udcff"])
@pytest.mark.row("identifiers")
def test_no_container_id(value: str) -> None:
    with pytest.raises(InvalidEnvironment, match="CNI_CONTAINERID"):
        call(CNI_CONTAINERID=value)


@pytest.mark.parametrize("value", ["a/b", ".", "..", "a b", "a:b", "a" * 16, "a\n", "eth%d"])
@pytest.mark.row("identifiers")
def test_no_ifname(value: str) -> None:
    with pytest.raises(InvalidEnvironment, match="CNI_IFNAME"):
        call(CNI_IFNAME=value)


@pytest.mark.row("plugin-path")
def test_path_entries_that_are_not_absolute_are_passed_over() -> None:
    assert call(CNI_PATH="bin:./bin:../x::/opt/cni/bin:~/bin").path == ["/opt/cni/bin"]


@pytest.mark.parametrize("version", SUPPORTED)
def test_versions(version: str) -> None:
    made = configured({"cniVersion": version, "name": "net"})
    assert (made.version, made.network) == (version, "net")


@pytest.mark.parametrize(
    "config", [{"name": "net"}, {"name": "net", "cniVersion": ""}, {"name": "net", "cniVersion": None}]
)
def test_no_version_is_the_first(config: dict[str, Any]) -> None:
    assert configured(config).version == "0.1.0"


def test_capitalised_keys() -> None:
    made = configured({"CniVersion": "1.0.0", "NAME": "net", "name": None})
    assert (made.version, made.network) == ("1.0.0", "net")


@pytest.mark.parametrize("data", [
    b"", b" ", b"{", b"[]", b"5", b"null", b'"x"', b"{}{}", b"{} x", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}',
    b"\xef\xbb\xbf{}", b"\xff\xfe{}", b'{"a":"\xff"}', b"{'a':1}", b'{"a":1,}', b'{"a":01}', b'{"a":"\n"}', b"[" * 100_000,
    b'{"a":' * 100_000, b'{"cniVersion":5,"name":"net"}', b'{"cniVersion":["1.0.0"],"name":"net"}', "{}".encode("utf-16"),
])  # fmt: skip
def test_no_configuration(data: bytes) -> None:
    with pytest.raises(DecodingFailure) as caught:
        call().read_config(data)
    assert caught.value.code == 6


def test_white_space_around_the_document() -> None:
    """Only JSON's four white-space characters are stripped; the plugin passes on the document as it has read it."""
    document = b'{"cniVersion":"1.0.0","name":"net"}'
    around = b" \t\r\n" + document + b"\n\r\t "
    made = configured(around)
    assert (made.version, made.network, made.stdin) == ("1.0.0", "net", around)
    assert made.config == {"cniVersion": "1.0.0", "name": "net"}
    for space in (b"\x0b", b"\x0c", b"\x1c", b"\xc2\xa0", b"\xe2\x80\x83"):
        for wrong in (space + document, document + space):
            with pytest.raises(DecodingFailure):
                configured(wrong)


@pytest.mark.parametrize("version", ["9.9.9", "1.0", "v1.0.0", "1.0.0\n", "0.0.1", "1.2.0"])
def test_unknown_versions(version: str) -> None:
    with pytest.raises(IncompatibleVersion) as caught:
        configured({"cniVersion": version, "name": "net"})
    assert caught.value.code == 1 and "1.1.0" in caught.value.details


@pytest.mark.parametrize(
    ("command", "since"), [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0"), ("ADD", "0.1.0"), ("DEL", "0.1.0")]
)
def test_commands_that_came_later(command: str, since: str) -> None:
    for version in SUPPORTED:
        if SUPPORTED.index(version) >= SUPPORTED.index(since):
            configured({"cniVersion": version, "name": "net"}, command)
        else:
            with pytest.raises(IncompatibleVersion, match=command):
                configured({"cniVersion": version, "name": "net"}, command)


@pytest.mark.parametrize("name", [None, "", 5, [], "a/b", "../x", "net\n", "-net", "né", {"a": 1}])
@pytest.mark.row("identifiers")
def test_no_network_name(name: Any) -> None:
    with pytest.raises(InvalidConfig, match='"name"') as caught:
        configured({"cniVersion": "1.0.0", "name": name})
    assert caught.value.code == 7


def test_the_first_thing_wrong_is_told_first() -> None:
    """The order is JSON, version, name."""
    with pytest.raises(IncompatibleVersion):
        configured({"cniVersion": "9.9.9", "name": "/"})
    with pytest.raises(DecodingFailure):
        configured(b'{"cniVersion": "9.9.9"')


# -- CNI_ARGS


class Accepted(Config):
    IP: str = field(text, "", "an address")
    GATEWAY: str = field(text, "", "another")


def args(value: str) -> Accepted:
    found: Accepted = call(CNI_ARGS=value).args(Accepted)
    return found


@pytest.mark.parametrize(("value", "ip"), [
    ("", ""), ("IP=10.1.0.1", "10.1.0.1"), ("GATEWAY=x;IP=10.1.0.1", "10.1.0.1"),
    ("IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.1.0.1", "10.1.0.1"), ("K8S_POD_NAME=web;IP=10.1.0.1;IgnoreUnknown=true", "10.1.0.1"),
    ("IgnoreUnknown=1;ip=10.1.0.1", ""), ("IP=", ""), ("IP=a=b", "a=b"), ("IgnoreUnknown=0;IP=x", "x"),
    ("IgnoreUnknown=1;K8S_POD_UID=", ""),
])  # fmt: skip
def test_args(value: str, ip: str) -> None:
    assert ip == args(value).IP


@pytest.mark.parametrize("value", ["K8S_POD_NAME=web", "ip=10.1.0.1", "IgnoreUnknown=0;X=1", "IgnoreUnknown=false;X=1",
                                   "IgnoreUnknown=maybe", "IgnoreUnknown=", "ignoreunknown=1;X=1", "IP", "=x", "IP=1;;=", "fields=x",
                                   "read=x"])  # fmt: skip
def test_args_that_are_refused(value: str) -> None:
    """Names are case-sensitive; unknown ones need IgnoreUnknown."""
    with pytest.raises(InvalidEnvironment, match="CNI_ARGS") as caught:
        args(value)
    assert caught.value.code == 4


def test_an_argument_of_the_wrong_kind() -> None:
    with pytest.raises(InvalidEnvironment, match=r'CNI_ARGS.*"MAC": "x" must be a MAC'):
        call(CNI_ARGS="MAC=x").args(EnvironmentArgs)


@given(st.text(max_size=30))
def test_any_text_is_arguments_or_an_error(value: str) -> None:
    try:
        args(value)
    except CniError as error:
        assert error.code == 4  # noqa: PT017


@given(st.dictionaries(st.text("aA", min_size=1, max_size=2), st.none() | st.integers()))
def test_folded(raw: dict[str, Any]) -> None:
    """Exact first, then any case; null is absent."""
    expected = raw.get("aa")
    others = [value for key, value in raw.items() if key.lower() == "aa" and value is not None]
    found = folded(raw, "aa")
    assert found == expected if expected is not None else found == (others[0] if others else None)


# -- GC's list


def listed(attachments: Any, key: str = "cni.dev/valid-attachments") -> set[tuple[str, str]]:
    return valid_attachments(configured({"cniVersion": "1.1.0", "name": "net", key: attachments}, "GC"))


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_the_list_of_the_valid(key: str) -> None:
    """The specification's key and the one that libcni sends beside it."""
    assert listed([], key) == set()
    assert listed([{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifName": "x", "more": 1}], key) == {
        ("a", "eth0"), ("b", "x"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "attachments", [None, {}, "x", 5, [5], [{}], [{"containerID": "a"}], [{"containerID": "a", "ifname": 5}], [None]]
)
def test_no_list_is_not_an_empty_list(attachments: Any) -> None:
    """Taken for "none is valid", it would free the addresses of every running pod."""
    with pytest.raises(InvalidConfig, match="valid-attachments"):
        listed(attachments)
