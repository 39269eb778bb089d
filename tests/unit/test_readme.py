"""README's tables are what `python -m shared.cli.schema README.md` writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.cli import schema
from shared.launch import PLUGINS

README = Path(__file__).resolve().parents[2] / "README.md"
FILLED = re.compile(r"<!-- keys: ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)


@pytest.mark.parametrize("plugin", [plugin for plugin in (*PLUGINS, schema.EVERY_PLUGIN) if schema.table(plugin)])
def test_the_table_of_keys(plugin: str) -> None:
    found = dict(FILLED.findall(README.read_text(encoding="utf-8")))
    assert plugin in found, f"README.md has no part between '<!-- keys: {plugin} -->' and '<!-- end -->'"
    assert found[plugin].strip() == schema.table(plugin).strip(), "run: python -m shared.cli.schema README.md"


def test_no_table_of_a_plugin_that_there_is_not() -> None:
    markers = re.findall(r"<!-- keys: (.*?) -->", README.read_text(encoding="utf-8"))
    assert set(markers) <= {*PLUGINS, schema.EVERY_PLUGIN} and len(set(markers)) == len(markers)
