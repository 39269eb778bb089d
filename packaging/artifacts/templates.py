"""Helm templates from the objects of manifests: patches become conditions, and strings become values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from artifacts.context import BuildError

KEYS = ("mountPath", "name")  # by these, items of a list are the same one
PLAIN = re.compile(r"[A-Za-z/][\w./-]*")
WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}  # plain ones are no strings


@dataclass(frozen=True)
class Template:
    """A value that Helm fills in: a string, or with `is_block` the lines that an expression gives."""

    text: str
    is_block: bool = False


@dataclass(frozen=True)
class Conditional:
    """A value that is there if the chart's values meet a condition."""

    condition: str
    value: Any


def merged(base: dict[str, Any], patch: Mapping[str, Any], condition: str) -> None:
    """Add a strategic merge patch to an object, in place: its additions are there under the condition.

    Raise BuildError if the patch changes a value.
    """
    for key, value in patch.items():
        found = base.setdefault(key, Conditional(condition, value))
        if isinstance(found, Conditional):
            if found.condition != condition:
                raise BuildError(f"two patches add {key}")
        elif isinstance(value, dict):
            merged(found, value, condition)
        elif isinstance(value, list):
            _merge_lists(found, value, condition)
        elif found != value:
            raise BuildError(f"a patch sets {key} to {value!r}, where the base has {found!r}: a patch only adds")


def _merge_lists(base: list[Any], patch: list[Any], condition: str) -> None:
    for value in patch:
        same = [one for one in base if isinstance(one, dict) and _key(one) == _key(value)]
        if same:
            merged(same[0], value, condition)
        else:
            base.append(Conditional(condition, value))


def _key(item: Mapping[str, Any]) -> Any:
    return next((item[key] for key in KEYS if key in item), None)


def written(value: Any, strings: Mapping[str, Template], unused: set[str]) -> str:
    """Return a mapping as YAML with these strings replaced. Used ones are taken out of `unused`."""

    def replaced(one: Any) -> Any:
        if isinstance(one, str) and one in strings:
            unused.discard(one)
            return strings[one]
        if isinstance(one, Conditional):
            return Conditional(one.condition, replaced(one.value))
        if isinstance(one, dict):
            return {name: replaced(inner) for name, inner in one.items()}
        return [replaced(inner) for inner in one] if isinstance(one, list) else one

    return "".join(f"{line}\n" for line in _lines(replaced(value), ""))


def _lines(value: Any, indent: str) -> Iterator[str]:
    """Yield the lines of a mapping or a list that has entries."""
    if isinstance(value, dict):
        entries = [(f"{indent}{_scalar(name)}:", inner) for name, inner in value.items()]
    else:
        entries = [(f"{indent}-", inner) for inner in value]
    for head, inner in entries:
        if isinstance(inner, Conditional):
            yield f"{{{{- if {inner.condition} }}}}"
            yield from _entry(head, inner.value, indent)
            yield "{{- end }}"
        else:
            yield from _entry(head, inner, indent)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    deeper = f"{indent}  "
    if isinstance(value, Template) and value.is_block:
        yield f"{head}\n{deeper}{{{{- {value.text} | nindent {len(deeper)} }}}}"
    elif not isinstance(value, (dict, list)) or not value:
        yield f"{head} {_scalar(value)}"
    elif head.endswith("-"):
        # The item's first line stands behind the dash.
        first, *rest = _lines(value, deeper)
        yield from (f"{head} {first.lstrip()}", *rest)
    else:
        yield head
        yield from _lines(value, deeper)


def _scalar(value: Any) -> str:
    if isinstance(value, Template):
        return f"'{value.text}'"
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value)
