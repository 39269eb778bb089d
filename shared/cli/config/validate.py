"""validate: check configurations against the plugins' declarations, each other, and the installed plugins.

Execute and change nothing. A plugin's keys are declared in the plugin, and it rejects contradictions itself. This
module holds the specification's own keys and checks of several plugins or files.
"""

from __future__ import annotations

import difflib
import json
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.cli import networks
from shared.cli.commands import UsageError
from shared.cli.config import reading, schema
from shared.cli.terminal import paint, readable, say
from shared.cni import suite
from shared.cni.call import folded
from shared.cni.config import Config, Field, Invalid, described
from shared.cni.errors import CniError, InvalidConfig
from shared.cni.log_config import Config as EveryPlugin
from shared.cni.result import DNS_KEYS
from shared.cni.versions import ROUTE_KEYS_1_1, SUPPORTED
from shared.executables import PLUGINS
from shared.runtime.conflist import OLDEST_VERSION, SUFFIXES, ConfigError, NetworkConfigList, load
from shared.runtime.find import PluginNotFound, find

NOTE, WARNING, ERROR = "note", "warning", "error"
EXIT_STATUS = {NOTE: 0, WARNING: 1, ERROR: 2}
STYLES = {NOTE: "2", WARNING: "33", ERROR: "31"}

# The specification's keys: those of a list, and those of a plugin by the path to their object. nerdctl marks its lists.
LIST_KEYS = (
    "cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins", "args",
    "nerdctlID", "nerdctlLabels",
)  # fmt: skip
PLUGIN_KEYS = {
    "": (
        "type", "name", "cniVersion", "cniVersions", "capabilities", "args", "runtimeConfig", "prevResult", "ipam",
        "dns", "cni.dev/valid-attachments", "cni.dev/attachments",
    ),
    "ipam": ("type",),
    "ipam.routes": ("dst", "gw", *ROUTE_KEYS_1_1),
    "dns": DNS_KEYS,
}  # fmt: skip
# Plugins that do nothing without a capability or one of these keys (the specification's conventions).
ONLY_BY_CAPABILITY = {"portmap": ("portMappings", ()), "bandwidth": ("bandwidth", ("ingressRate", "egressRate"))}
# Plugins that refuse an ADD without the result of a plugin before them.
AFTER_OTHERS = ("bandwidth", "firewall", "portmap", "sbr", "tuning", "vrf")


@dataclass(frozen=True)
class Remark:
    """A statement about a configuration; `path` leads to the key, empty for the whole file."""

    severity: str
    path: str
    message: str


@dataclass(frozen=True)
class Finding:
    """A remark and its file."""

    file: str
    path: str
    severity: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.path}" if self.path else self.file
        return f"{place}: {paint(STYLES[self.severity], self.severity)}: {self.message}"


def run(options: Namespace) -> int:
    """Print the findings about a file or directory.

    Return 0 for none or notes, 1 for warnings, 2 for errors.
    """
    try:
        bin_dirs = [Path(directory).absolute() for directory in options.bin_dir or networks.bin_dirs()]
    except UsageError as error:
        networks.print_error(options, error)
        return EXIT_STATUS[ERROR]
    found = findings(Path(options.where or networks.conf_dir()), bin_dirs)
    if options.json:
        say(readable([asdict(finding) for finding in found]))
    else:
        for finding in found:
            say(str(finding))
    return max((EXIT_STATUS[finding.severity] for finding in found), default=0)


def findings(where: Path, bin_dirs: Sequence[Path]) -> list[Finding]:
    """Return the findings about the networks of a file or directory.

    A file is also compared with the other files of its directory.
    """
    own, found = _read(where)
    others = _read(where.parent)[0] if where.is_file() else {}
    others.pop(where, None)
    for path, network in own.items():
        remarks = [*_file(path), *_network(network, bin_dirs), *_against(network, others)]
        found += [
            Finding(str(path), remark.path, remark.severity, remark.message)
            for remark in dict.fromkeys(remarks)  # two plugins may declare the same key
        ]
        others[path] = network
    return sorted(found, key=lambda finding: finding.file)


def _read(where: Path) -> tuple[dict[Path, NetworkConfigList], list[Finding]]:
    """Return the network of each file that can be loaded, and the reason for each other file."""
    loaded = {}
    found: list[Finding] = []
    paths = [where]
    if where.is_dir():
        paths = sorted(path for path in where.iterdir() if path.suffix in SUFFIXES and path.is_file())
    for path in paths:
        warnings: list[str] = []
        try:
            (loaded[path],) = load(path, warnings.append)
        except ConfigError as error:
            found.append(Finding(str(path), "", ERROR, str(error).removeprefix(f"{path}: ")))
        found += [Finding(str(path), "", WARNING, text) for text in warnings]
    if where.is_dir() and not loaded:
        found.append(Finding(str(where), "", ERROR, "has no valid network configuration"))
    return loaded, found


# -- one network


def _file(path: Path) -> Iterator[Remark]:
    """Report problems that are visible in the file only, not in the parsed network."""
    twice: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    raw = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=members)
    for key in twice:
        yield Remark(WARNING, key, "occurs twice in one object; the last value is used")
    if path.suffix == ".conflist":
        yield from _unknown(raw, LIST_KEYS, "")
    if not raw.get("cniVersion") and not raw.get("cniVersions"):
        yield Remark(WARNING, "cniVersion", f"is missing, so {OLDEST_VERSION} is used")


def _network(network: NetworkConfigList, bin_dirs: Sequence[Path]) -> Iterator[Remark]:
    if network.cni_version not in SUPPORTED:
        reason = f"is not a version that this suite's plugins support: {', '.join(SUPPORTED)}"
        yield Remark(ERROR, "cniVersion", described(network.cni_version, reason))
    for number, (prefix, plugin) in enumerate(_plugins(network)):
        judged = _Plugin(network, plugin, bin_dirs)
        for remark in judged.remarks():
            yield Remark(remark.severity, _joined(prefix, remark.path), remark.message)
        if not number and judged.kind in AFTER_OTHERS and "prevResult" not in plugin:
            reason = "comes first, but works on the interface of a plugin before it: put that plugin in front"
            yield Remark(ERROR, _joined(prefix, "type"), f"{judged.kind} {reason}")


def _plugins(network: NetworkConfigList) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return the plugins, each with its path in the file."""
    for position, plugin in enumerate(network.plugins):
        yield f"plugins[{position}]" if network.path and network.path.suffix == ".conflist" else "", plugin


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}".strip(".")


class _Plugin:
    """One plugin of a network and its IPAM plugin; `own` lists those of the two that belong to this suite."""

    def __init__(self, network: NetworkConfigList, plugin: Mapping[str, Any], bin_dirs: Sequence[Path]) -> None:
        self.network, self.raw, self.bin_dirs = network, dict(plugin), bin_dirs
        self.kind: str = self.raw["type"]
        ipam = folded(self.raw, "ipam")
        kind = folded(ipam, "type") if isinstance(ipam, dict) else None
        self.ipam = kind if isinstance(kind, str) else ""
        capabilities = folded(self.raw, "capabilities")
        self.capabilities: dict[str, Any] = capabilities if isinstance(capabilities, dict) else {}
        self.own: list[str] = []

    @property
    def declared(self) -> list[type[Config]]:
        """Return the declared keys of the plugins that belong to this suite."""
        return [keys for keys in map(schema.keys_of, self.own) if keys is not None]

    def remarks(self) -> Iterator[Remark]:
        """Check that the plugin is installed, its keys are known, and their values are valid and consistent."""
        yield from self._installed()
        ipam = folded(self.raw, "ipam")
        if ipam and isinstance(ipam, dict) and not folded(ipam, "type"):
            yield Remark(WARNING, "ipam.type", "is missing, so no plugin assigns addresses")
        keys = list(self._keys(self.raw, [*self.declared, EveryPlugin], ""))
        yield from keys
        yield from self._capabilities()
        if self.network.cni_version in SUPPORTED and all(remark.severity != ERROR for remark in keys):
            yield from self._contradictions()

    def _installed(self) -> Iterator[Remark]:
        """Find both executables.

        An executable that has another name by a link or copy counts as the plugin that it starts.
        """
        self.kind = yield from self._found("type", self.kind)
        if self.ipam:
            plugin = yield from self._found("ipam.type", self.ipam)
            if plugin != self.ipam and not PLUGINS.get(plugin, "ipam.").startswith("ipam."):
                yield Remark(ERROR, "ipam.type", described(self.ipam, "is not an IPAM plugin"))
            self.ipam = plugin

    def _found(self, path: str, kind: str) -> Generator[Remark, None, str]:
        """Find an executable and return the plugin that it starts."""
        plugin, where = kind, kind
        try:
            executable = find(kind, self.bin_dirs)
        except (PluginNotFound, ValueError) as error:
            yield Remark(ERROR, path, str(error))
            is_own = True
        else:
            launched = suite.launched(str(executable))
            is_own, where = launched is not None, str(executable)
            plugin = launched[1] or kind if launched else kind
        if plugin in PLUGINS and is_own:
            self.own.append(plugin)
        else:
            yield Remark(NOTE, path, f"{where} is not a plugin of this suite: only the general checks were made")
        return plugin

    def _keys(self, raw: dict[str, Any], declared: Sequence[type[Config]], path: str) -> Iterator[Remark]:
        """Report unknown keys and invalid values of an object and of the declared objects inside it."""
        fields: dict[str, list[Field]] = {}
        for keys in declared:
            for name, one in keys.fields.items():
                fields.setdefault(name, []).append(one)
        place = re.sub(r"\[\d+\]", "", path)
        if self._is_known_whole(place):
            yield from _unknown(raw, {*fields, *PLUGIN_KEYS.get(place, ())}, path)
        standard = [key.rpartition(".")[2] for key in PLUGIN_KEYS if key and key.rpartition(".")[0] == place]
        for name in dict.fromkeys([*fields, *standard]):
            held = [schema.inside(one.kind.schema) for one in fields.get(name, ())]
            inner = [keys for keys, _ in held if keys is not None]
            if inner or name in standard:
                depth = len(held[0][1]) // len("[]") if held else 0
                for where, member in _members(folded(raw, name), _joined(path, name), depth):
                    yield from self._keys(member, inner, where)
            for one in fields.get(name, ()):
                yield from _value(one, name, raw, path)
        for keys in declared:
            yield from _without_effect(keys, raw, path)

    def _is_known_whole(self, place: str) -> bool:
        """Return True if every plugin that reads the object at a path declares its keys."""
        root = place.partition(".")[0]
        if root in ("", "ipam"):
            return (self.ipam if root else self.kind) in self.own
        both = all(kind in self.own for kind in (self.kind, self.ipam) if kind)
        return place == "dns" or (both and place != "args")  # any program may use args

    def _capabilities(self) -> Iterator[Remark]:
        raw = folded(self.raw, "capabilities")
        if not isinstance(raw, dict | None):
            yield Remark(ERROR, "capabilities", described(raw, "must be an object of names with true or false"))
        served = self._served()
        for name, value in self.capabilities.items():
            if not isinstance(value, bool):
                yield Remark(
                    WARNING, f"capabilities.{name}", described(value, "is read as false: must be true or false")
                )
            elif value and name not in served and self._is_known_whole("capabilities"):
                yield Remark(WARNING, f"capabilities.{name}", f"this plugin does not support it{_near(name, served)}")
        supplied = folded(self.raw, "runtimeConfig")
        for name in supplied if isinstance(supplied, dict) else ():
            if self.capabilities.get(name) is not True:
                reason = f'is set by the runtime, and only if "capabilities" has {json.dumps({name: True})}'
                yield Remark(WARNING, f"runtimeConfig.{name}", reason)
        needed, instead = ONLY_BY_CAPABILITY.get(self.kind, ("", ()))
        is_given = self.capabilities.get(needed) is True or any(folded(self.raw, key) for key in instead)
        if needed and not is_given:
            reason = f"is missing: without it {self.kind} does nothing"
            yield Remark(WARNING, f"capabilities.{needed}", reason)

    def _served(self) -> set[str]:
        """Return the capabilities that the plugins read: the keys of runtimeConfig."""
        declared = [keys.fields["runtimeConfig"] for keys in self.declared if "runtimeConfig" in keys.fields]
        inside = [schema.inside(one.kind.schema)[0] for one in declared]
        return {capability for keys in inside if keys is not None for capability in keys.fields}

    def _contradictions(self) -> Iterator[Remark]:
        """Report the first error of each plugin of this suite when it reads the configuration."""
        for kind in self.own:
            try:
                reading.judge(kind, reading.call(self.network, self.raw))
            except InvalidConfig as error:
                has_none = error.path == "ipam.ranges" and not folded(folded(self.raw, "ipam"), "ranges")
                if has_none and self.capabilities.get("ipRanges") is True:
                    yield Remark(NOTE, error.path, 'the runtime must supply them, with the capability "ipRanges"')
                else:
                    yield Remark(ERROR, error.path, error.reason if error.path else error.msg)
            except CniError as error:
                yield Remark(ERROR, "", str(error))
        if "host-local" in self.own:
            for one in reading.ranges(self.network, self.raw):
                if one.gateway not in one.subnet:
                    yield Remark(WARNING, "ipam", f"the gateway {one.gateway} is outside of its subnet {one.subnet}")


def _members(value: Any, path: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the object, or the objects that are `depth` lists deep in the value, each with its path."""
    if depth == 0 and isinstance(value, dict):
        yield path, value
    elif depth and isinstance(value, list):
        for position, member in enumerate(value):
            yield from _members(member, f"{path}[{position}]", depth - 1)


def _unknown(raw: Iterable[str], known: Collection[str], path: str) -> Iterator[Remark]:
    lowered = {name.lower() for name in known}
    for key in raw:
        if key.lower() not in lowered:
            yield Remark(WARNING, _joined(path, key), f"unknown key{_near(key, known)}")


def _near(name: str, known: Collection[str]) -> str:
    spelled = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), spelled, 1)
    return f"; did you mean {json.dumps(spelled[near[0]])}?" if near else ""


def _value(declared: Field, name: str, raw: dict[str, Any], path: str) -> Iterator[Remark]:
    try:
        declared.read(name, raw, {key.lower(): key for key in raw})
    except Invalid as error:
        yield Remark(ERROR, _joined(path, error.path), described(error.value, error.reason))
        return


def _without_effect(keys: type[Config], raw: dict[str, Any], path: str) -> Iterator[Remark]:
    """Report keys that have no effect beside the object's other keys."""
    for name, one in keys.fields.items():
        if _is_unset(folded(raw, name)):
            continue
        if one.needs and not any(folded(raw, other) for other in one.needs):
            needed = " or ".join(map(json.dumps, one.needs))
            yield Remark(WARNING, _joined(path, name), f"has no effect without {needed}")
        for other, values in one.only_with:
            value = folded(raw, other)
            if (keys.fields[other].default if _is_unset(value) and value is not False else value) not in values:
                shown = " or ".join(json.dumps(one) for one in values if one != "")
                yield Remark(WARNING, _joined(path, name), f"has no effect unless {json.dumps(other)} is {shown}")


def _is_unset(value: Any) -> bool:
    """Return True for a value that asks for nothing; 0 may ask for something."""
    return value is None or value is False or value in ("", [])


# -- several networks


def _against(network: NetworkConfigList, others: Mapping[Path, NetworkConfigList]) -> Iterator[Remark]:
    """Report equal names and overlapping ranges of this network and the node's others."""
    for path, other in others.items():
        if other.name == network.name:
            yield Remark(ERROR, "name", f"{network.name} is also the name of the network in {path}: choose another one")
            continue
        theirs = [one for _, plugin in _plugins(other) for one in reading.ranges(other, plugin)]
        for prefix, plugin in _plugins(network):
            for mine in reading.ranges(network, plugin):
                for one in theirs:
                    if mine.overlaps(one):
                        reason = f"{mine} overlaps {one} of network {other.name} in {path}"
                        yield Remark(WARNING, _joined(prefix, "ipam"), f"{reason}: two pods may get the same address")
