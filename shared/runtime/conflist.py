"""Network configuration lists, as a runtime reads them from its configuration directory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

SUFFIXES = (".conflist", ".conf", ".json")
# An absent cniVersion means the oldest specification, in which the key did not have to be there.
OLDEST_VERSION = "0.1.0"
NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", re.ASCII)
VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}", re.ASCII)

Warn = Callable[[str], None]


class ConfigError(Exception):
    """Any reason why there is no configuration to work with."""


class NoConfigDirectory(ConfigError):
    """The configuration directory does not exist or is not a directory."""


class NoValidConfig(ConfigError):
    """The directory is there, and not one file in it is a valid configuration."""


class InvalidConfigFile(ConfigError):
    """A file cannot be read as a configuration; the message names the file and the reason."""


@dataclass(frozen=True)
class NetworkConfigList:
    """One network: its plugins in the order of ADD, each as the file has it, unknown keys included."""

    name: str
    cni_version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    path: Path | None = None

    def supports(self, version: str) -> bool:
        """Whether this network's cniVersion is `version` or newer."""
        return _numbers(self.cni_version) >= _numbers(version)


def load(where: Path | str, warn: Warn) -> list[NetworkConfigList]:
    """Read one file, or every .conflist, .conf and .json of a directory in lexical order.

    In a directory an invalid file is passed over and reported to `warn`; a file given by name has to be valid.
    Raises NoConfigDirectory, NoValidConfig, InvalidConfigFile; never returns an empty list.
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


def parse(raw: Mapping[str, Any], path: Path | None = None) -> NetworkConfigList:
    """Check a list that is already decoded from JSON. Raises InvalidConfigFile."""
    name = raw.get("name")
    if not isinstance(name, str) or not NETWORK_NAME.fullmatch(name):
        _invalid(path, f"name: a network name is required, not {name!r}")
    version = raw.get("cniVersion") or OLDEST_VERSION
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        _invalid(path, f"cniVersion: a version such as 1.0.0 is required, not {version!r}")
    plugins = raw.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        _invalid(path, "plugins: a list of at least one plugin is required")
    for position, plugin in enumerate(plugins):
        if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str) or not plugin["type"]:
            _invalid(path, f"plugins[{position}]: an object with a type is required")
    return NetworkConfigList(
        name=name,
        cni_version=version,
        plugins=tuple(plugins),
        disable_check=_flag(raw, "disableCheck", path),
        path=path,
    )


def _read(path: Path) -> NetworkConfigList:
    try:
        # bytes would let json guess UTF-16 and skip a byte order mark; no other runtime accepts either
        raw = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_no_constant)
    except OSError as error:
        _invalid(path, error.strerror or str(error))
    except (ValueError, RecursionError) as error:
        _invalid(path, f"not JSON: {error}")
    if not isinstance(raw, dict):
        _invalid(path, "a JSON object is required")
    if path.suffix == ".conflist":
        return parse(raw, path)
    if not raw.get("type"):
        _invalid(path, "type: required" + (" (a file with plugins must end in .conflist)" if "plugins" in raw else ""))
    return parse({"name": raw.get("name"), "cniVersion": raw.get("cniVersion"), "plugins": [raw]}, path)


def _flag(raw: Mapping[str, Any], key: str, path: Path | None) -> bool:
    """A boolean that may also be written as the text "true" or "false"."""
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
