"""The lean JSON against the json module, by way of the private accelerator and without it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cni import fastjson
from shared.cni.fastjson import dumps, loads
from tests.pythons import found
from tests.unit.python import ROOT, run

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@given(json_values, st.sampled_from([None, 2]), st.booleans())
def test_reads_what_json_writes(value: Any, indent: int | None, ascii_only: bool) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    try:
        encoded = data.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return
    assert loads(encoded) == json.loads(data)


@given(json_values)
def test_writes_as_json_does(value: Any) -> None:
    assert json.loads(dumps(value)) == value
    if not isinstance(value, (dict, list)) or value:
        assert dumps(value) == json.dumps(value, indent=4)


@given(json_values)
def test_writes_one_line_as_json_does(value: Any) -> None:
    assert dumps(value, "") == json.dumps(value)


NO_JSON = [
    b"", b" ", b"{", b"[", b"[1", b'"', b"nul", b"{} {}", b"1 2", b"NaN", b"Infinity", b"-Infinity", b"[NaN]", b"\xef\xbb\xbf{}",
    b"\xff", b'"\xff"', b'"\n"', b'"\x00"', b"{1:2}", b'{"a" 1}', b"[1,]", b'{"a":1,}', b"01", b"+1", b".5", b"1.", b"'a'", b"\x0b1",
    b"[" * 200_000, b'{"a":' * 200_000, b"\xc2\xa0{}", b"9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("data", NO_JSON)
def test_what_is_not_json(data: bytes) -> None:
    """Each raises ValueError, never StopIteration or RecursionError."""
    with pytest.raises(ValueError):  # noqa: PT011 - the reason is the decoder's
        loads(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_json_reads_them(data: bytes) -> None:
    """Stricter than json: UTF-8 without byte order mark, no NaN."""
    try:
        value = loads(data)
    except ValueError:
        return
    assert json.loads(data.decode()) == value


def test_the_last_of_two_equal_keys_counts() -> None:
    """As in Go."""
    assert loads(b'{"a":1,"a":2}') == {"a": 2}


def test_the_private_scanner_is_used_where_it_is() -> None:
    assert type(fastjson._scan).__module__ == "_json"  # noqa: SLF001 - that is the question


BOTH_WAYS = """
from shared.cni.fastjson import dumps, loads
print(loads(b' {"a": [1, 2.5, null, true, "\\\\u00e9"]}\\n'))
print(dumps({"a": [1, "\\u00e9\\n"], "b": {}}, " "))
print("json" in sys.modules)
for data in NO_JSON:
    try:
        print("read", data[:20], str(loads(data))[:20])
    except ValueError:
        pass
"""


def test_without_the_private_module() -> None:
    """json replaces it, with the same answers."""
    script = BOTH_WAYS.replace("NO_JSON", repr([data for data in NO_JSON if len(data) < 100]))
    private, public = run(script), run(script, without=("_json",))
    assert "read" not in private
    assert private.splitlines()[-1] == "False"  # the reason for all this: json costs 8 ms
    assert public.splitlines() == [*private.splitlines()[:-1], "True"]


def test_a_private_module_of_another_interface() -> None:
    """A future Python may change it: the public module takes over."""
    assert (
        run("""
        import types
        sys.modules["_json"] = types.ModuleType("_json")
        from shared.cni.fastjson import dumps, loads
        print(loads(b'{"a": 1}'), dumps("x"))
    """)
        == "{'a': 1} \"x\"\n"
    )


DEPTHS = """
import sys
sys.path.insert(0, sys.argv[1])
from shared.cni.config import described
from shared.cni.fastjson import loads
described(loads(b"[" * 200 + b"]" * 200), "can be read and shown")
for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
    for depth in (202, 1000, 2000, 20000):
        try:
            loads(opening * depth + b"1" + closing * depth)
        except ValueError as error:
            print(error)
"""


@pytest.mark.parametrize("version", found())
@pytest.mark.row("size")
def test_deep_nesting_is_refused_alike_by_every_python(version: str) -> None:
    command = [found()[version], "-I", "-S", "-B", "-c", DEPTHS, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["nested more than 200 levels deep"] * 8
