"""The runtime's reading of a configuration directory, and its search for a plugin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.runtime.conflist import (
    InvalidConfigFile,
    NetworkConfigList,
    NoConfigDirectory,
    NoSuchNetwork,
    NoValidConfig,
    load,
    named,
    parse,
)
from shared.runtime.find import PluginNotFound, find

LIST = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "mtu": 1400}, {"type": "tuning"}]}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def load_quietly(where: Path) -> list[NetworkConfigList]:
    """Load a directory that must cause no warning."""
    warnings: list[str] = []
    networks = load(where, warnings.append)
    assert warnings == []
    return networks


def test_list_file(tmp_path: Path) -> None:
    path = write(tmp_path / "10-net.conflist", LIST)
    (network,) = load_quietly(path)
    assert network == NetworkConfigList(
        "net", "1.0.0", ({"type": "bridge", "mtu": 1400}, {"type": "tuning"}), path=path
    )
    assert load_quietly(tmp_path) == [network]


@pytest.mark.parametrize("suffix", ["conf", "json"])
def test_single_plugin_becomes_a_list_of_one(tmp_path: Path, suffix: str) -> None:
    plugin = {"cniVersion": "0.4.0", "name": "one", "type": "bridge", "unknown": {"kept": 1}}
    (network,) = load_quietly(write(tmp_path / f"net.{suffix}", plugin))
    assert (network.name, network.cni_version, network.plugins) == ("one", "0.4.0", (plugin,))


def test_directory_is_read_in_lexical_order_whatever_the_suffix(tmp_path: Path) -> None:
    for name in ("20-b.conf", "9-last.json", "10-a.conflist", "readme.txt", "30-c.conflist.bak"):
        write(tmp_path / name, {**LIST, "name": name} if name.endswith("conflist") else {"type": "x", "name": name})
    (tmp_path / "00-directory.conf").mkdir()
    assert [network.name for network in load_quietly(tmp_path)] == ["10-a.conflist", "20-b.conf", "9-last.json"]


def test_invalid_file_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    bad = write(tmp_path / "10-bad.conflist", "{")
    write(tmp_path / "20-good.conflist", LIST)
    warnings: list[str] = []
    assert [network.name for network in load(tmp_path, warnings.append)] == ["net"]
    assert len(warnings) == 1
    assert str(bad) in warnings[0]


def test_no_directory_and_no_valid_file_differ(tmp_path: Path) -> None:
    with pytest.raises(NoConfigDirectory):
        load(tmp_path / "absent", pytest.fail)
    with pytest.raises(NoValidConfig):
        load(tmp_path, pytest.fail)
    write(tmp_path / "10-bad.conf", {"name": "net"})
    warnings: list[str] = []
    with pytest.raises(NoValidConfig):
        load(tmp_path, warnings.append)
    assert "type" in warnings[0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "\ufeff" + json.dumps(LIST),
        '{"name": "net", "plugins": [{"type": "a", "mtu": NaN}]}',
        '{"a":' * 100_000,
        {**LIST, "name": ""},
        {**LIST, "name": "net\n"},
        {**LIST, "name": "../net"},
        {**LIST, "name": "n\u00e9t"},
        {**LIST, "name": 1},
        {**LIST, "cniVersion": 1.0},
        {**LIST, "cniVersion": "new"},
        {**LIST, "plugins": []},
        {**LIST, "plugins": {}},
        {**LIST, "plugins": [{"type": "a"}, {}]},
        {**LIST, "plugins": [{"type": 1}]},
        {**LIST, "plugins": ["a"]},
        {**LIST, "disableCheck": "perhaps"},
        {**LIST, "disableCheck": 1},
        {**LIST, "disableGC": "no"},
        {**LIST, "loadOnlyInlinedPlugins": "yes"},
        {"name": "net", "loadOnlyInlinedPlugins": True},
        {"name": "net"},
        {**LIST, "cniVersions": "1.0.0"},
        {**LIST, "cniVersions": ["1.0.0", 1]},
        {"name": "no plugins", "type": "bridge"},
    ],
)
def test_invalid_list(tmp_path: Path, content: object) -> None:
    path = write(tmp_path / "net.conflist", content)
    with pytest.raises(InvalidConfigFile, match=r"net\.conflist: "):
        load(path, pytest.fail)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "net.conflist"
    path.write_bytes(json.dumps(LIST).encode("utf-16"))
    with pytest.raises(InvalidConfigFile):
        load(path, pytest.fail)


def test_list_under_the_name_of_a_single_plugin_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigFile, match=r"must end in \.conflist"):
        load(write(tmp_path / "net.conf", LIST), pytest.fail)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), (False, False), (True, True), ("true", True), ("false", False), ("TRUE", True)],
)
def test_disable_check(value: Any, expected: bool) -> None:
    assert parse({**LIST, "disableCheck": value}).disable_check is expected


@pytest.mark.parametrize(
    ("version", "versions", "highest"),
    [
        ("0.4.0", ["0.3.1", "1.0.0"], "1.0.0"),
        ("1.1.0", ["0.3.1", "1.0.0"], "1.1.0"),
        (None, ["0.3.1", "0.10.0", "0.4.0"], "0.10.0"),
        ("0.4.0", ["99.0.0"], "0.4.0"),  # newer than this library
        ("0.4.0", [], "0.4.0"),
        (None, [], "0.1.0"),
    ],
)
def test_the_highest_of_several_versions(version: str | None, versions: list[str], highest: str) -> None:
    assert parse({**LIST, "cniVersion": version, "cniVersions": versions}).cni_version == highest


def test_plugins_of_the_directory_come_after_the_lists_own(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    for name in ("20-b.conf", "10-a.conf", "30-c.json"):
        write(tmp_path / "net" / name, {"type": name})
    path = write(tmp_path / "net.conflist", LIST)
    types = ["bridge", "tuning"]
    assert [plugin["type"] for plugin in load_quietly(path)[0].plugins] == [*types, "10-a.conf", "20-b.conf"]
    write(path, {key: value for key, value in LIST.items() if key != "plugins"})
    assert [plugin["type"] for plugin in load_quietly(tmp_path)[0].plugins] == ["10-a.conf", "20-b.conf"]
    write(path, {**LIST, "loadOnlyInlinedPlugins": "true"})
    assert [plugin["type"] for plugin in load_quietly(path)[0].plugins] == types
    write(path, LIST)
    write(tmp_path / "net" / "10-a.conf", {"name": "no type"})
    with pytest.raises(InvalidConfigFile, match=r"10-a\.conf: type: required"):
        load(path, pytest.fail)


def test_a_single_plugin_has_no_directory(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    write(tmp_path / "one" / "10-a.conf", {"type": "a"})
    (network,) = load_quietly(write(tmp_path / "one.conf", {"name": "one", "type": "bridge"}))
    assert len(network.plugins) == 1


def test_network_by_its_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(tmp_path / f"{name}.conflist", {**LIST, "name": name})
    assert named(tmp_path, "b", pytest.fail).path == tmp_path / "b.conflist"
    with pytest.raises(NoSuchNetwork, match=r"no network c in .*: there is a, b"):
        named(tmp_path, "c", pytest.fail)


def test_a_list_can_be_written_and_read_again() -> None:
    network = parse({**LIST, "disableGC": True, "disableCheck": "true"})
    assert network.disable_gc and parse(json.loads(json.dumps(network.to_json()))) == network


def test_absent_version_is_the_oldest() -> None:
    network = parse({"name": "net", "plugins": [{"type": "a"}]})
    assert network.cni_version == "0.1.0"
    assert not network.supports("0.4.0")


def test_versions_compare_as_numbers() -> None:
    assert parse({**LIST, "cniVersion": "0.10.0"}).supports("0.4.0")
    assert parse({**LIST, "cniVersion": "0.4.0"}).supports("0.4.0")
    assert not parse({**LIST, "cniVersion": "0.3.1"}).supports("0.4.0")


def executable(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def test_first_executable_file_is_found(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    (first / "bridge").mkdir(parents=True)
    executable(second / "bridge", 0o644)
    wanted = executable(third / "bridge")
    assert find("bridge", [tmp_path / "absent", first, second, third]) == wanted
    assert find("bridge", [str(executable(tmp_path / "d" / "bridge").parent), third]) == tmp_path / "d" / "bridge"


def test_absent_plugin_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(PluginNotFound, match=str(tmp_path)):
        find("bridge", [tmp_path])
    with pytest.raises(PluginNotFound):
        find("bridge", [])


@pytest.mark.parametrize("plugin_type", ["", ".", "..", "../a/bridge", "/bin/sh", "a/bridge", "bridge\0"])
@pytest.mark.row("plugin-path")
def test_type_that_is_no_file_name(tmp_path: Path, plugin_type: str) -> None:
    executable(tmp_path / "a" / "bridge")
    with pytest.raises(ValueError, match="not a file name"):
        find(plugin_type, [tmp_path, tmp_path / "a"])


@pytest.mark.row("plugin-path")
def test_relative_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "bin" / "bridge")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="not an absolute path"):
        find("bridge", ["bin"])
