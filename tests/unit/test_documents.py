"""The documents agree with the code and with each other: tables of keys, links, paths, headings, length."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.cli.config import schema
from shared.cni import errors
from shared.executables import PLUGINS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
# Paths and chains that the product's own text names: the page of files must have them.
OURS = re.compile(r"/(?:run|var/lib|etc)/cni[\w./-]*|CNI-[A-Z][A-Z-]*")
FILLED = re.compile(r"<!-- keys: ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
PATH = re.compile(r"`((?:shared|tests|plugins|ipam|docs|pycni)/[^`\s:]*)")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def links(page: Path) -> set[Path]:
    return {(page.parent / found).resolve() for found in LINK.findall(page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("plugin", [*PLUGINS, schema.EVERY_PLUGIN, schema.CLUSTER])
def test_each_plugin_has_a_page_with_its_keys(plugin: str) -> None:
    others = {schema.EVERY_PLUGIN: "reference/log.md", schema.CLUSTER: "reference/cluster.md"}
    page = DOCS / others.get(plugin, f"reference/plugins/{plugin}.md")
    found = dict(FILLED.findall(page.read_text(encoding="utf-8")))
    wanted = {plugin: schema.table(plugin)} if schema.table(plugin) else {}
    assert found == wanted, f"run: python -m shared.cli.config.schema {page.relative_to(ROOT)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert not [path for path in links(page) if not path.exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text(encoding="utf-8")):
        text = ((page.parent / target) if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_paths_exist(page: Path) -> None:
    """Names with a part in capitals, such as plugins/NAME.py, stand for many files."""
    named = {path for path in PATH.findall(page.read_text(encoding="utf-8")) if not re.search(r"\b[A-Z]+\b", path)}
    assert not [path for path in named if not any(ROOT.glob(path.rstrip("/")))]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugin_pages_have_one_template(plugin: str) -> None:
    headings = re.findall(
        r"^## (.*)", (DOCS / f"reference/plugins/{plugin}.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    wanted = ["Keys", "Verbs", "Kernel", "Differences from the reference"]
    assert headings == (wanted if schema.table(plugin) else wanted[1:])


def texts_of_the_product() -> Iterator[str]:
    for path in (path for room in ("plugins", "ipam", "shared") for path in (ROOT / room).rglob("*.py")):
        if "cli" not in path.parts:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            yield from (
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            )


def test_the_page_of_files_names_every_place() -> None:
    page = (DOCS / "reference/files.md").read_text(encoding="utf-8")
    named = {text.rstrip("-") for text in texts_of_the_product() if OURS.fullmatch(text)}
    assert len(named) > 8
    assert not {text for text in named if text not in page}


def test_the_page_of_errors_has_every_code() -> None:
    page = (DOCS / "reference/errors.md").read_text(encoding="utf-8")
    codes = {one.code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "code")}
    assert sorted(codes) == [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]


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
