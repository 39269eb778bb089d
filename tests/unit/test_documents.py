"""The documents agree with the code and with each other: tables of keys, links, lists of plugins, length."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.cli.config import schema
from shared.executables import PLUGINS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
FILLED = re.compile(r"<!-- keys: ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def links(page: Path) -> set[Path]:
    return {(page.parent / found).resolve() for found in LINK.findall(page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("plugin", [*PLUGINS, schema.EVERY_PLUGIN])
def test_each_plugin_has_a_page_with_its_keys(plugin: str) -> None:
    page = DOCS / ("reference/log.md" if plugin == schema.EVERY_PLUGIN else f"reference/plugins/{plugin}.md")
    found = dict(FILLED.findall(page.read_text(encoding="utf-8")))
    wanted = {plugin: schema.table(plugin)} if schema.table(plugin) else {}
    assert found == wanted, f"run: python -m shared.cli.config.schema {page.relative_to(ROOT)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert not [path for path in links(page) if not path.exists()]


def test_readme_leads_to_every_page() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            waiting += [path for path in links(page) if path.suffix == ".md"]
    assert set(PAGES) <= seen


def test_lengths() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 60
