"""Checks of the network configurations and of the plugins that they name."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from shared.cli.config import reading
from shared.cli.doctor.findings import Finding, Severity, error, note, warning
from shared.cli.doctor.node import Node
from shared.cni import suite
from shared.cni.errors import CniError
from shared.cni.versions import SUPPORTED
from shared.executables import PLUGINS
from shared.net import owner
from shared.runtime.attach import PluginError, execute
from shared.runtime.find import PluginNotFound, find

VERSION_SECONDS = 5.0
TOOLS = ("cnitool",)  # what may stand among the plugins and is none


def files(node: Node) -> Iterator[Finding]:
    """A conf dir with at least one configuration, and none that is invalid."""
    for complaint in node.complaints:
        path, _, reason = complaint.partition(": ")
        yield warning(
            path, f"is not valid and passed over: {reason}", f"cnitool validate {shlex.quote(path)}  # and correct it"
        )
    if node.no_network:
        yield error(
            node.conf_dir, f"{node.no_network}: no pod can be set up", f"install a configuration in {node.conf_dir}"
        )


def default_network(node: Node) -> Iterator[Finding]:
    """One configuration only: kubelet and containerd use the first and nothing else."""
    for other in node.networks[1:]:
        path, first = shlex.quote(other.path), node.networks[0].path
        yield warning(
            other.path, f"network {other.name} is not used by kubelet and containerd: {first} comes first",
            f"mv {path} {path}.disabled  # or the other one, if this is the right one",
        )  # fmt: skip


def refused(node: Node) -> Iterator[Finding]:
    """What this suite's plugins would answer an ADD with that has such a configuration."""
    for network in node.networks:
        sections = [(plugin, plugin["type"]) for plugin in network.config.plugins]
        sections += [(plugin, section["type"]) for plugin, section in network.ipam if "type" in section]
        for plugin, kind in sections:
            if own := _own_plugin(node, kind):
                try:
                    reading.judge(own, network.call(plugin))
                except CniError as reason:
                    yield error(
                        network.path, f"{kind} refuses it: {reason}", f"cnitool validate {shlex.quote(network.path)}"
                    )


def missing_plugins(node: Node) -> Iterator[Finding]:
    """Each plugin that a configuration names is there, and loopback, which runtimes need for every pod."""
    for network in node.networks:
        for kind in dict.fromkeys(network.types):
            reason = _reason_against(node, kind)
            if reason:
                yield error(network.path, reason, _install(node, kind))
    reason = _reason_against(node, "loopback")
    if reason:
        yield warning("loopback", f"{reason}: containerd and kubelet need it for every pod", _install(node, "loopback"))


def _reason_against(node: Node, kind: str) -> str:
    try:
        find(kind, node.bin_dirs)
    except (PluginNotFound, ValueError) as reason:
        return str(reason)
    return ""


def _install(node: Node, kind: str) -> str:
    if kind in PLUGINS:
        return f"./install.sh --bin-dir {shlex.quote(str(node.bin_dirs[0]))}"
    return f"install {shlex.quote(kind)} into {node.bin_dirs[0]}"


def _path(node: Node, kind: str) -> Path | None:
    try:
        return find(kind, node.bin_dirs)
    except (PluginNotFound, ValueError):
        return None


def _own_plugin(node: Node, kind: str) -> str:
    """Return the plugin of this suite that a type's executable is, whatever its name; empty if it is none."""
    path = _path(node, kind)
    launched = _launched(path) if path else None
    plugin = launched[1] or kind if launched else ""
    return plugin if plugin in PLUGINS else ""


def launched_tree(path: Path) -> Path | None:
    """Return the code that a launcher of this suite starts, None for anything else."""
    launched = _launched(path)
    return Path(launched[0]) if launched else None


def _launched(path: Path) -> tuple[str, str] | None:
    with path.open("rb") as file:
        return suite.launched(file.read(suite.LAUNCHER_BYTES))


def answers(node: Node) -> Iterator[Finding]:
    """Every executable of the bin dirs answers VERSION, with versions that exist, the network's among them."""
    used = [(path, network) for network in node.networks for kind in network.types if (path := _path(node, kind))]
    executables = _executables(node)
    with ThreadPoolExecutor() as pool:
        for path, (versions, complaint) in zip(executables, pool.map(_ask, executables), strict=True):
            command = f"CNI_COMMAND=VERSION timeout 5 {shlex.quote(str(path))} </dev/null  # then install it anew"
            if complaint:
                severity = Severity.ERROR if path in dict(used) else Severity.WARNING
                yield Finding(severity, str(path), complaint, command)
                continue
            for network in (network for one, network in used if one == path):
                if network.config.cni_version not in versions:
                    yield error(
                        path, f"speaks {', '.join(versions)}, not {network.config.cni_version} of {network.path}",
                        f"set cniVersion in {shlex.quote(network.path)} to one of these",
                    )  # fmt: skip


def interpreter(_: Node) -> Iterator[Finding]:
    """Note if the Python of this installation has no fast digests, as under FIPS."""
    if not owner.has_fast_digests():
        version = sys.version.split()[0]
        what = f"Python {version} has no BLAKE2 of any size, as under FIPS: slower code computes the same names"
        yield note(
            sys.executable, what, "nothing has to be done; another Python makes calls faster: install.sh --python"
        )


def _executables(node: Node) -> list[Path]:
    found = []
    for directory in node.bin_dirs:
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            try:
                is_file = stat.S_ISREG(path.stat().st_mode)
            except OSError:
                continue
            if is_file and os.access(path, os.X_OK) and path.name not in TOOLS:
                found.append(path)
    return found


@cache
def _ask(path: Path) -> tuple[tuple[str, ...], str]:
    """The versions that a plugin says it speaks, or what is wrong with its answer."""
    try:
        raw = execute(path, "VERSION", {"cniVersion": SUPPORTED[-1]}, {"CNI_COMMAND": "VERSION"}, VERSION_SECONDS)
    except PluginError as reason:
        return (), f"does not answer VERSION: {reason.msg}{f': {reason.details}' if reason.details else ''}"
    try:
        versions = tuple(map(str, json.loads(raw)["supportedVersions"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return (), f"answers VERSION with what is no list of versions: {raw[:60]!r}"
    if not set(versions) & set(SUPPORTED):
        return (), f"answers VERSION with versions that no specification has: {', '.join(versions)[:60] or 'none'}"
    return versions, ""
