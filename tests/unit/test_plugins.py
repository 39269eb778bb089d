"""Each plugin has a sample, a page, cases, tests and mutants. A test names the plugins that lack one."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.cli.config import reading, schema
from shared.executables import PLUGINS
from shared.runtime.conflist import NetworkConfigList
from tests.conformance.cases import GROUPS
from tests.mutants.table import TABLE
from tests.plugins import SAMPLES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_executables_are_the_modules_of_two_packages() -> None:
    assert {"bridge": "plugins.bridge", "host-local": "ipam.host_local"}.items() <= PLUGINS.items()


def test_each_has_a_sample_in_tests_plugins() -> None:
    assert PLUGINS.keys() - SAMPLES.keys() == set()
    assert {name: sample.keys["type"] for name, sample in SAMPLES.items()} == {name: name for name in SAMPLES}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a call leaves sockets to its exit
@pytest.mark.parametrize("plugin", SAMPLES)
def test_each_sample_works(plugin: str) -> None:
    """The plugin reads it without an error, and it has no key that the plugin does not declare."""
    keys = SAMPLES[plugin].keys
    without_runtime = {name: value for name, value in keys.items() if name != "runtimeConfig"}
    reading.judge(plugin, reading.call(NetworkConfigList("net", "1.1.0", (keys,)), without_runtime))
    declared = schema.keys_of(plugin)
    assert set(keys) - {"type", *(declared.fields if declared else ())} == set()


def test_each_with_keys_has_a_reader() -> None:
    assert [plugin for plugin in PLUGINS if schema.keys_of(plugin) and reading.reader(plugin) is None] == []


def test_each_has_a_page_that_readme_links() -> None:
    pages = {plugin: f"docs/reference/plugins/{plugin}.md" for plugin in PLUGINS}
    assert [page for page in pages.values() if not (ROOT / page).is_file()] == []
    assert [plugin for plugin, page in pages.items() if f"| [{plugin}]({page}) | " not in README] == []


def test_each_that_the_reference_has_too_has_conformance_cases(reference_bin: str) -> None:
    assert {plugin for plugin in PLUGINS if Path(reference_bin, plugin).is_file()} - GROUPS.keys() == set()


def test_each_has_tests_of_its_effects() -> None:
    tests = {plugin: f"tests/system/test_{plugin.replace('-', '_')}.py" for plugin in PLUGINS}
    assert [test for test in tests.values() if not (ROOT / test).is_file()] == []


def test_each_has_mutants() -> None:
    mutated = {mutant.path for mutant in TABLE}
    modules = {plugin: module.replace(".", "/") for plugin, module in PLUGINS.items()}
    assert [plugin for plugin, module in modules.items() if not any(file.startswith(module) for file in mutated)] == []
