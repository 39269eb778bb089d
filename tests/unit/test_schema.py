"""JSON Schema and documentation rows from the declared keys."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ipam.host_local import Config as HostLocal
from plugins.bridge import Config as Bridge
from shared.cli.config import schema
from shared.cluster.settings import Settings
from shared.cni.config import Config, boolean, choice, either, field, integer, list_of, mac, section, text


class Inner(Config):
    number: int = field(integer(1, 9), None, "one to nine", required=True)
    word: str = field(text, "x", "a word")


class Outer(Config):
    flag: bool = field(boolean, True, "a flag")
    size: int | str = field(either(integer(0, 5), choice("auto")), 0, "a size")
    mac: str = field(mac, "", "an address")
    one: Inner | None = field(section(Inner), None, "see one")
    many: list[list[Inner]] = field(list_of(list_of(section(Inner))), (), "many")


def test_rows() -> None:
    assert schema.rows(Outer) == [
        ("flag", "boolean", "`true`", "a flag"),
        ("size", '0 to 5 or `"auto"`', "`0`", "a size"),
        ("mac", "MAC", "–", "an address"),
        ("one.number", "1 to 9", "required", "one to nine"),
        ("one.word", "string", '`"x"`', "a word"),
        ("many", "list of list of object", "–", "many"),
    ]


def test_the_runtimes_keys_come_last() -> None:
    class Keys(Config):
        runtimeConfig: Inner | None = field(section(Inner), None, "see runtimeConfig")  # noqa: N815
        size: int = field(integer(0, 5), 0, "a size")

    assert [row[0] for row in schema.rows(Keys)] == ["size", "runtimeConfig.number", "runtimeConfig.word"]


def test_json_schema() -> None:
    inner = {
        "type": "object",
        "properties": {
            "number": {"description": "one to nine", "type": "integer", "minimum": 1, "maximum": 9},
            "word": {"description": "a word", "default": "x", "anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["number"],
    }
    made = schema.json_schema(Outer)
    assert made["properties"]["one"] == {"description": "see one", "anyOf": [inner, {"type": "null"}]}
    many = {"type": "array", "items": {"type": "array", "items": inner}}
    assert made["properties"]["many"]["anyOf"][0] == many
    sizes = [{"type": "integer", "minimum": 0, "maximum": 5}, {"enum": ["auto"]}]
    assert made["properties"]["size"] == {
        "description": "a size",
        "default": 0,
        "anyOf": [{"anyOf": sizes}, {"type": "null"}],
    }
    assert "required" not in made


@pytest.mark.parametrize("keys", [Bridge, HostLocal])
def test_the_plugins_schemas_are_json(keys: type[Config]) -> None:
    """They contain no Python objects, and each key is there."""
    made = json.loads(json.dumps(schema.json_schema(keys)))
    assert set(made["properties"]) == set(keys.fields)
    assert '"config"' not in json.dumps(made)


def test_every_executable_has_its_table() -> None:
    assert schema.keys_of("loopback") is None and schema.table("loopback") == ""


def test_every_key_is_explained_in_one_row_each() -> None:
    for plugin in ("bridge", "host-local"):
        keys: Any = schema.keys_of(plugin)
        found = schema.rows(keys)
        assert len({row[0] for row in found}) == len(found)
        assert all(meaning and "|" not in meaning and "\n" not in meaning for *_, meaning in found)
        named = {row[0].split(".")[0].partition("[")[0] for row in found}
        assert named == set(keys.fields)


def test_a_mapping_shows_the_keys_of_its_values() -> None:
    assert schema.keys_of(schema.CLUSTER) is Settings
    found = {row[0]: row[1] for row in schema.rows(Settings)}
    assert found["networks"] == "object" and found["networks.NAME.podCIDRs"] == "boolean"
    assert found["etcd.endpoints"] == "list of string"


def test_tables_are_filled_in_between_their_markers_only() -> None:
    text = "a\n<!-- keys: bridge -->\nold\n<!-- end -->\nb\n<!-- keys: loopback -->\n<!-- end -->\n<!-- end -->\n"
    filled = schema.filled(text)
    assert f"a\n<!-- keys: bridge -->\n{schema.table('bridge')}<!-- end -->\nb\n" in filled and "old" not in filled
    assert filled.endswith("<!-- keys: loopback -->\n<!-- end -->\n<!-- end -->\n")
    assert schema.filled(filled) == filled
