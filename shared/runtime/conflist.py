"""Read network configuration lists from a runtime's configuration directory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from shared.cni.versions import SUPPORTED

SUFFIXES = (".conflist", ".conf", ".json")
# An absent cniVersion means the oldest specification, in which the key was optional.
OLDEST_VERSION = "0.1.0"
NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", re.ASCII)
VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}", re.ASCII)

Warn = Callable[[str], None]


class ConfigError(Exception):
    """There is no usable configuration."""


class NoConfigDirectory(ConfigError):
    """The configuration directory does not exist or is not a directory."""


class NoValidConfig(ConfigError):
    """The directory exists, but contains no valid configuration."""


class NoSuchNetwork(ConfigError):
    """There are valid configurations, but none with the requested name."""


class InvalidConfigFile(ConfigError):
    """A file cannot be read as a configuration; the message names the file and the reason."""


@dataclass(frozen=True)
class NetworkConfigList:
    """A network: its plugins in the order of ADD, each as in the file, with unknown keys."""

    name: str
    cni_version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False
    path: Path | None = None

    def supports(self, version: str) -> bool:
        """Return True if this network's cniVersion is `version` or newer."""
        return _numbers(self.cni_version) >= _numbers(version)

    def to_json(self) -> dict[str, Any]:
        """Return the list as in a .conflist file, with the plugins of its directory inlined."""
        raw = {"cniVersion": self.cni_version, "name": self.name, "plugins": list(self.plugins)}
        flags = {"disableCheck": self.disable_check, "disableGC": self.disable_gc}
        return raw | {key: value for key, value in flags.items() if value}


def load(where: Path | str, warn: Warn) -> list[NetworkConfigList]:
    """Read one file, or every .conflist, .conf and .json file of a directory in lexical order.

    An invalid file in a directory is skipped and reported to `warn`; a file given by name must be valid. Raise
    NoConfigDirectory, NoValidConfig, InvalidConfigFile. Never return an empty list.
    """
    where = Path(where)
    if where.is_file():
        return [_read(where)]
    if not where.is_dir():
        raise NoConfigDirectory(f"no configuration directory {where}")
    networks = []
    for path in sorted(where.iterdir()):
        if path.suffix in SUFFIXES and path.is_file():
            try:
                networks.append(_read(path))
            except InvalidConfigFile as error:
                warn(str(error))
    if not networks:
        raise NoValidConfig(f"no valid network configuration in {where}")
    return networks


def named(where: Path | str, name: str, warn: Warn) -> NetworkConfigList:
    """Return the first network of that name in a file or directory.

    Raise the errors of `load`, and NoSuchNetwork.
    """
    networks = load(where, warn)
    for network in networks:
        if network.name == name:
            return network
    raise NoSuchNetwork(f"no network {name} in {where}: there is {', '.join(network.name for network in networks)}")


def parse(raw: Mapping[str, Any], path: Path | None = None) -> NetworkConfigList:
    """Check a list that is already decoded from JSON. Raise InvalidConfigFile.

    With a `path`, append the plugins in the directory beside it with the network's name, unless loadOnlyInlinedPlugins
    is true.
    """
    name = raw.get("name")
    if not isinstance(name, str) or not NETWORK_NAME.fullmatch(name):
        _invalid(path, f"name: a network name is required, not {name!r}")
    plugins = raw.get("plugins")
    inlined_only = _flag(raw, "loadOnlyInlinedPlugins", path)
    if plugins is None and inlined_only:
        _invalid(path, "plugins: required, because loadOnlyInlinedPlugins is true")
    if not isinstance(plugins, list | None):
        _invalid(path, "plugins: a list is required")
    plugins = [*(plugins or ())]
    for position, plugin in enumerate(plugins):
        if not _has_type(plugin):
            _invalid(path, f"plugins[{position}]: an object with a type is required")
    if path is not None and not inlined_only:
        plugins += _plugins_in(path.parent / name)
    if not plugins:
        _invalid(path, "plugins: a list of at least one plugin is required")
    return NetworkConfigList(
        name=name,
        cni_version=_version(raw, path),
        plugins=tuple(plugins),
        disable_check=_flag(raw, "disableCheck", path),
        disable_gc=_flag(raw, "disableGC", path),
        path=path,
    )


def _version(raw: Mapping[str, Any], path: Path | None) -> str:
    """Return cniVersion, or the highest of it and of those in cniVersions that the library supports."""
    found = [raw.get("cniVersion") or None]
    several = raw.get("cniVersions")
    if several is not None:
        if not isinstance(several, list):
            _invalid(path, f"cniVersions: a list of versions is required, not {several!r}")
        found += several
    versions = []
    for position, version in enumerate(found):
        if position == 0 and version is None:
            continue
        if not isinstance(version, str) or not VERSION.fullmatch(version):
            key = f"cniVersions[{position - 1}]" if position else "cniVersion"
            _invalid(path, f"{key}: a version such as 1.0.0 is required, not {version!r}")
        if position == 0 or _numbers(version) <= _numbers(SUPPORTED[-1]):
            versions.append(version)
    return max(versions, key=_numbers, default=OLDEST_VERSION)


def _plugins_in(directory: Path) -> list[Mapping[str, Any]]:
    """Return the plugins in a list's directory, in lexical order. Raise InvalidConfigFile."""
    if not directory.is_dir():
        return []
    plugins: list[Mapping[str, Any]] = []
    for path in sorted(directory.glob("*.conf")):
        plugin = _decoded(path)
        if not _has_type(plugin):
            _invalid(path, "type: required")
        plugins.append(plugin)
    return plugins


def _has_type(plugin: object) -> bool:
    return isinstance(plugin, dict) and isinstance(plugin.get("type"), str) and bool(plugin["type"])


def _decoded(path: Path) -> dict[str, Any]:
    try:
        # given bytes, json would accept UTF-16 and a byte order mark; no other runtime accepts either
        raw = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_no_constant)
    except OSError as error:
        _invalid(path, error.strerror or str(error))
    except (ValueError, RecursionError) as error:
        _invalid(path, f"not JSON: {error}")
    if not isinstance(raw, dict):
        _invalid(path, "a JSON object is required")
    return raw


def _read(path: Path) -> NetworkConfigList:
    raw = _decoded(path)
    if path.suffix == ".conflist":
        return parse(raw, path)
    if not raw.get("type"):
        _invalid(path, "type: required" + (" (a file with plugins must end in .conflist)" if "plugins" in raw else ""))
    single = {key: raw.get(key) for key in ("name", "cniVersion", "cniVersions")}
    return parse({**single, "plugins": [raw], "loadOnlyInlinedPlugins": True}, path)


def _flag(raw: Mapping[str, Any], key: str, path: Path | None) -> bool:
    """Return a boolean that may also be the text "true" or "false"."""
    value = raw.get(key)
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if value is not None and not isinstance(value, bool):
        _invalid(path, f"{key}: true or false is required, not {value!r}")
    return bool(value)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _invalid(path: Path | None, reason: str) -> NoReturn:
    raise InvalidConfigFile(f"{path}: {reason}" if path else reason)
