"""README's tables are what `python -m shared.cni.schema` prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.cni import schema

README = Path(__file__).resolve().parents[2] / "README.md"
FILLED = re.compile(r"<!-- keys: ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)


@pytest.mark.parametrize("plugin", [plugin for plugin in schema.PLUGINS if schema.table(plugin)])
def test_the_table_of_keys(plugin: str) -> None:
    found = dict(FILLED.findall(README.read_text(encoding="utf-8")))
    assert plugin in found, f"README.md has no part between '<!-- keys: {plugin} -->' and '<!-- end -->'"
    assert found[plugin].strip() == schema.table(plugin).strip(), "fill it from: python -m shared.cni.schema"


def test_no_table_of_a_plugin_that_there_is_not() -> None:
    markers = re.findall(r"<!-- keys: (.*?) -->", README.read_text(encoding="utf-8"))
    assert set(markers) <= set(schema.PLUGINS) and len(set(markers)) == len(markers)
