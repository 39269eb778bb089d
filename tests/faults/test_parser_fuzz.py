"""Row 8, without the kernel: any bytes cause only the CNI's errors, and JSON is read as json reads it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ipam import host_local
from plugins import bridge
from shared.cni import fastjson
from shared.cni.call import Call, folded
from shared.cni.errors import CniError
from shared.cni.result import Result
from tests.faults.hostile_cases import CONFIGS, FULL

VARIABLES = {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
}  # fmt: skip
PATHS = ("_native", "_public")
MANY = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None), max_size=12)
    | st.sampled_from(["10.1.0.0/24", "fd00::/64", "10.1.0.5", "eth0", "1.0.0", "host-local", "02:00:00:00:00:01", "/run/x", "auto", "\ud800"])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, member in members for found in _paths(member, (*path, key)))]


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


def _documents() -> st.SearchStrategy[Any]:
    """Draw working configurations in which one to three values are replaced."""
    result = {"interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "sandbox": "/run/x"}],
              "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0}], "routes": [{"dst": "0.0.0.0/0", "mtu": 1400}],
              "dns": {"nameservers": ["10.1.0.1"]}}  # fmt: skip
    old = {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.1.0.5/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "dns": {},
    }
    ranges = {"cni": {"ips": ["10.8.0.9"]}}
    whole = {
        **FULL,
        "args": ranges,
        "prevResult": result,
        "runtimeConfig": {"ips": ["10.8.0.9/24"], "ipRanges": [[{"subnet": "10.9.0.0/24"}]]},
    }
    bases = st.sampled_from([whole, FULL, CONFIGS["bridge"], {**FULL, "prevResult": old}])

    @st.composite
    def mutated(draw: st.DrawFn) -> Any:
        document: Any = draw(bases)
        for _ in range(draw(st.integers(1, 3))):
            document = _replaced(document, draw(st.sampled_from(_paths(document))), draw(values))
        return document

    return mutated()


@st.composite
def _mangled(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a working configuration, a few of them deleted, repeated or replaced."""
    data = bytearray(json.dumps(draw(st.sampled_from([FULL, CONFIGS["bridge"]]))).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 5))] = draw(
            st.binary(max_size=4) | st.sampled_from([b"NaN", b"{", b"]", b"\\u", b"1e9", b"\xff"])
        )
    return bytes(data)


def _read(data: bytes) -> CniError | None:
    """Read the bytes as a call does before anything is touched. Return the error that it raises.

    Only CniError may be raised.
    """
    call = Call(VARIABLES)
    try:
        call.read_config(data)
    except CniError as error:
        return error
    for read in (bridge.Attachment, host_local.Pool, _previous):
        with suppress(CniError):
            read(call)
    return None


def _previous(call: Call) -> None:
    if "prevResult" in call.config:
        result = Result.from_json(call.config["prevResult"], call.version)
        for version in ("1.1.0", "1.0.0", "0.4.0", "0.2.0"):
            fastjson.dumps(result.to_json(version))


WORKING = json.dumps(CONFIGS["bridge"]).encode()
inserted = st.tuples(st.integers(0, len(WORKING)), st.binary(max_size=6)).map(
    lambda drawn: WORKING[: drawn[0]] + drawn[1] + WORKING[drawn[0] :]
)


@MANY
@given(st.binary(max_size=200) | inserted | values.map(lambda value: json.dumps(value).encode()))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(WORKING)
@example(WORKING + b"\x0b")
@example(b"NaN" + WORKING)
@pytest.mark.row(8)
def test_bytes(data: bytes) -> None:
    """Bytes that the json module does not read as an object are code 6, and so is a cniVersion that is no text."""
    error = _read(data)
    try:
        document = _by_json(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        assert error is not None and error.code == 6, error
    elif isinstance(folded(document, "cniVersion") or "", str):
        assert error is None or error.code != 6, error
    if data == WORKING:
        assert error is None


@MANY
@given(_mangled())
@pytest.mark.row(8)
def test_mangled_configurations(data: bytes) -> None:
    _read(data)


@settings(max_examples=1200)
@given(_documents())
@example({**FULL, "ipam": {"type": "host-local", "subnet": "10.8.0.0/24", "routes": [{"dst": 1}]}})
@example({**CONFIGS["bridge"], "prevResult": {"cniVersion": "0.2.0", "ip4": {"ip": "10.8.0.5/24", "routes": 1}}})
@pytest.mark.row(8)
def test_configurations_with_other_values(document: Any) -> None:
    _read(json.dumps(document).encode())


hostile_words = st.text(max_size=20) | st.sampled_from(
    ["", ".", "..", "../x", "a/b", "a\n", "eth0\n", "-a", "é", "a b", "x" * 16, "x:y", "%d", "\u0661", "bin:/opt/cni/bin", "/a:b:/c", "./x"]
)  # fmt: skip


def _called(variables: dict[str, str]) -> Call | CniError:
    try:
        return Call(variables)
    except CniError as error:
        return error


@MANY
@given(st.dictionaries(st.sampled_from(list(VARIABLES)), hostile_words), st.text(max_size=30))
@example({"CNI_CONTAINERID": "../x"}, "")
@example({"CNI_IFNAME": ".."}, "")
@example({"CNI_PATH": "bin:/opt/cni/bin"}, "")
@example({}, "IgnoreUnknown=1;IP=10.1.0.5;X=")
@pytest.mark.row(8)
def test_variables(changes: dict[str, str], args: str) -> None:
    """Accepted names lead no path and no link elsewhere; an error has code 4 and names the variable."""
    call = _called({**VARIABLES, "CNI_ARGS": args, **changes})
    if isinstance(call, CniError):
        assert call.code == 4 and any(name in call.msg for name in changes), call
        return
    if call.command in ("ADD", "CHECK", "DEL"):
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", call.container_id)
        assert re.fullmatch(r"[!-~]{1,15}", call.ifname) and not {*call.ifname} & {*"/:%"}
        assert call.ifname not in (".", "..")
    assert all(entry.startswith("/") for entry in call.path)
    with suppress(CniError):
        call.read_config(WORKING)
        bridge.Attachment(call)
        host_local.Pool(call)


def _refuse(name: str) -> None:
    raise ValueError(name)


def _by_json(data: bytes) -> Any:
    """Return the json module's answer, strict as a configuration has to be. Raise ValueError for invalid JSON."""
    return json.loads(data.decode("utf-8"), parse_constant=_refuse)


def _agree(data: bytes) -> None:
    try:
        expected = _by_json(data)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - for any reason
            fastjson.loads(data)
        return
    assert repr(fastjson.loads(data)) == repr(expected)  # repr tells 1 from 1.0 and from True


@pytest.fixture(params=PATHS)
def _scanner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, quote = vars(fastjson)[request.param]()
    monkeypatch.setattr(fastjson, "_scan", scan)
    monkeypatch.setattr(fastjson, "_quote", quote)


@pytest.mark.usefixtures("_scanner")
@pytest.mark.row(8)
class TestJson:
    @MANY
    @given(values, st.sampled_from([None, 2]), st.booleans())
    def test_reads_what_json_writes(self, value: Any, indent: int | None, ascii_only: bool) -> None:
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        _agree(text.encode("utf-8", "replace"))

    @MANY
    @given(values)
    def test_writes_what_json_reads(self, value: Any) -> None:
        assert repr(json.loads(fastjson.dumps(value))) == repr(json.loads(json.dumps(value)))

    @MANY
    @given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
    def test_refuses_what_json_refuses(self, data: bytes) -> None:
        _agree(data)

    @MANY
    @given(_mangled())
    def test_agrees_on_mangled_configurations(self, data: bytes) -> None:
        _agree(data)

    @pytest.mark.parametrize(
        "text",
        [
            "NaN", "[NaN]", "Infinity", "-Infinity", '{"a": NaN}', "\ufeff{}", "{}{}", "{} x", "", " ", "\x00", "nul", "tru", "-", "1.", ".5", "01",
            "+1", "1e", "0x1", "'a'", '"\n"', '"\t"', '"\\x"', '"\\u12"', '"\\ud800"', '"\\ud83d\\ude00"', '{"a":1,"a":2}', '{"a":1,}', "[1,]", "{1:2}",
            "[1 2]", '{"a" 1}', "\u00a0{}", "\x0b{}", "{}\x0c", "1e400", "-1e400", "-0", "-0.0", "1E5", "9" * 4300, "9" * 4301, '{"a":', '["', '"\\',
        ],
    )  # fmt: skip
    def test_corners(self, text: str) -> None:
        _agree(text.encode())

    def test_deep_nesting_is_refused(self) -> None:
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            with pytest.raises(ValueError, match="deep"):
                fastjson.loads(opening * 100_000 + b"1" + closing * 100_000)
