"""Build a plugin's JSON Schema and documentation table from the declarations of its keys (config.Field).

`cnitool schema PLUGIN` prints the schema. `python -m shared.cli.config.schema PAGE…` fills in the tables of Markdown
pages between `<!-- keys: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import importlib
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from shared.cli.terminal import readable, say
from shared.cni import config
from shared.cni.config import Config, Field
from shared.executables import PLUGINS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
EVERY_PLUGIN = "pycni"  # the suite's own key, which every plugin accepts
CLUSTER = "cluster"  # the settings of the agent's duty, which are no plugin's
RUNTIMES = ("args", "runtimeConfig")
NONE = "–"
# Readers' names for kinds that have a less plain schema.
PLAIN = (
    (config.mac, "MAC"), (config.link_name, "link name"), (config.absolute_path, "absolute path"),
    (config.address, "IP address"), (config.prefix, "CIDR"), (config.obj, "object"),
)  # fmt: skip
FORMATS = {"ip": "IP address", "cidr": "CIDR"}


def run(options: Namespace) -> int:
    """Print the schema of a plugin's configuration."""
    keys = keys_of(options.plugin)
    say(readable({"$schema": DIALECT, "title": options.plugin, **(json_schema(keys) if keys else {"type": "object"})}))
    return 0


def keys_of(plugin: str) -> type[Config] | None:
    """Return the declared keys of a plugin, of EVERY_PLUGIN or of CLUSTER, None if it declares none.

    Raise KeyError for an unknown plugin.
    """
    if plugin == CLUSTER:
        from shared.cluster.settings import Settings

        return Settings
    module = "shared.cni.log_config" if plugin == EVERY_PLUGIN else PLUGINS[plugin]
    found: type[Config] | None = getattr(importlib.import_module(module), "Config", None)
    return found


def json_schema(keys: type[Config]) -> dict[str, Any]:
    """Return the JSON Schema of an object with these keys.

    Unknown keys are allowed and null means "not set", as everywhere in CNI. JSON Schema cannot express that case does
    not matter.
    """
    properties = {name: _property(declared) for name, declared in keys.fields.items()}
    required = [name for name, declared in keys.fields.items() if declared.required]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _property(declared: Field) -> dict[str, Any]:
    schema = _resolved(declared.kind.schema)
    out: dict[str, Any] = {"description": declared.help}
    if declared.default not in (None, (), {}) and not isinstance(declared.default, Config):
        out["default"] = declared.default
    return {**out, **(schema if declared.required else {"anyOf": [schema, {"type": "null"}]})}


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "config" in schema:
        return json_schema(schema["config"])
    out = dict(schema)
    if "items" in out:
        out["items"] = _resolved(out["items"])
    if isinstance(out.get("additionalProperties"), dict):
        out["additionalProperties"] = _resolved(out["additionalProperties"])
    if "anyOf" in out:
        out["anyOf"] = [_resolved(one) for one in out["anyOf"]]
    return out


def rows(keys: type[Config]) -> list[tuple[str, ...]]:
    """Return (key, type, default, help) for each key; keys of an inner object follow it with their path."""
    return _rows(keys, "", set())


def _rows(keys: type[Config], path: str, seen: set[type[Config]]) -> list[tuple[str, ...]]:
    out: list[tuple[str, ...]] = []
    # The runtime's keys come last: an operator looks for the keys of a configuration file.
    for name, declared in sorted(keys.fields.items(), key=lambda item: item[0] in RUNTIMES):
        inner, suffix = inside(declared.kind.schema)
        place = f"{path}{name}"
        if inner is None or suffix:
            out.append((place, _type(declared.kind.schema), _default(declared), declared.help))
        if inner is not None and inner not in seen:
            seen.add(inner)  # describe an object once, even if it occurs in two places
            out += _rows(inner, f"{place}{suffix}.", seen)
    return out


def inside(schema: dict[str, Any]) -> tuple[type[Config] | None, str]:
    """Return the declared object that a value is or contains, with "[]" for each list and ".NAME" for each mapping."""
    suffix = ""
    while "items" in schema or "additionalProperties" in schema:
        suffix += "[]" if "items" in schema else ".NAME"
        schema = schema.get("items") or schema["additionalProperties"]
    return schema.get("config"), suffix


def _type(schema: dict[str, Any]) -> str:
    for kind, name in PLAIN:
        if schema is kind.schema:
            return name
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{_quoted(value)}`" for value in schema["enum"])
    if "minimum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    return FORMATS.get(schema.get("format", ""), "object" if "config" in schema else schema["type"])


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _default(declared: Field) -> str:
    if declared.required:
        return "required"
    return NONE if declared.default in (None, (), [], {}, "") else f"`{_quoted(declared.default)}`"


def table(plugin: str) -> str:
    """Return a plugin's keys as a Markdown table, empty if it declares none."""
    keys = keys_of(plugin)
    if keys is None:
        return ""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{key}` | {' | '.join(cells)} |" for key, *cells in rows(keys)]
    return "\n".join(lines) + "\n"


def filled(text: str) -> str:
    """Return a Markdown text with each table filled in between its markers."""
    marked = re.compile(r"(<!-- keys: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda found: found[1] + table(found[2]) + found[3], text)


if __name__ == "__main__":
    for document in map(Path, sys.argv[1:]):
        document.write_text(filled(document.read_text(encoding="utf-8")), encoding="utf-8")
