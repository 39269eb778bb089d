"""Check the network configurations and the plugins that they name."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from shared.cli.config import reading
from shared.cli.doctor.findings import Finding, Severity, error, note, warning
from shared.cli.doctor.node import Node
from shared.cni import digests, suite
from shared.cni.errors import CniError
from shared.cni.versions import SUPPORTED
from shared.executables import PLUGINS
from shared.runtime.attach import PluginError, execute
from shared.runtime.find import PluginNotFound, find

VERSION_SECONDS = 5.0
TOOLS = ("cnitool", "pycni-agent")  # executables that are installed beside the plugins


def files(node: Node) -> Iterator[Finding]:
    """Report invalid configurations, and a directory without a valid one."""
    for complaint in node.complaints:
        path, _, reason = complaint.partition(": ")
        yield warning(
            path,
            f"is not a valid configuration and is ignored: {reason}",
            f"cnitool validate {shlex.quote(path)}  # then correct it",
        )
    if node.no_network:
        yield error(
            node.conf_dir, f"{node.no_network}: pods cannot be set up", f"install a configuration in {node.conf_dir}"
        )


def default_network(node: Node) -> Iterator[Finding]:
    """Report every configuration but the first: kubelet and containerd use only the first."""
    for other in node.networks[1:]:
        path, first = shlex.quote(other.path), node.networks[0].path
        yield warning(
            other.path, f"kubelet and containerd ignore network {other.name}: they use only the first file, {first}",
            f"mv {path} {path}.disabled  # or rename the first, if this network is the right one",
        )  # fmt: skip


def refused(node: Node) -> Iterator[Finding]:
    """Report configurations that this suite's plugins would reject at ADD."""
    for network in node.networks:
        sections = [(plugin, plugin["type"]) for plugin in network.config.plugins]
        sections += [(plugin, section["type"]) for plugin, section in network.ipam if "type" in section]
        for plugin, kind in sections:
            if own := own_plugin(node, kind):
                try:
                    reading.judge(own, network.call(plugin))
                except CniError as reason:
                    yield error(
                        network.path,
                        f"plugin {kind} rejects it: {reason}",
                        f"cnitool validate {shlex.quote(network.path)}",
                    )


def missing_plugins(node: Node) -> Iterator[Finding]:
    """Report missing plugins: those that configurations name, and loopback, which runtimes need for every pod."""
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


def plugin_path(node: Node, kind: str) -> Path | None:
    """Return the path of a type's executable, None if it is missing."""
    try:
        return find(kind, node.bin_dirs)
    except (PluginNotFound, ValueError):
        return None


def own_plugin(node: Node, kind: str) -> str:
    """Return the name of this suite's plugin that a type's executable starts, empty if it is another suite's.

    The executable may have another name than the plugin.
    """
    path = plugin_path(node, kind)
    launched = suite.launched(str(path)) if path else None
    plugin = launched[1] or kind if launched else ""
    return plugin if plugin in PLUGINS else ""


def launched_tree(path: Path) -> Path | None:
    """Return the code that a launcher of this suite starts, None for any other file."""
    try:
        launched = suite.launched(str(path))
    except OSError:
        return None
    return Path(launched[0]) if launched else None


def answers(node: Node) -> Iterator[Finding]:
    """Report executables without a valid answer to VERSION, and those without the network's version."""
    used = [(path, network) for network in node.networks for kind in network.types if (path := plugin_path(node, kind))]
    executed = executables(node.bin_dirs)
    with ThreadPoolExecutor() as pool:
        for path, (versions, complaint) in zip(executed, pool.map(_ask, executed), strict=True):
            command = (
                f"CNI_COMMAND=VERSION timeout 5 {shlex.quote(str(path))} </dev/null  # if that fails, install it again"
            )
            if complaint:
                severity = Severity.ERROR if path in dict(used) else Severity.WARNING
                yield Finding(severity, str(path), complaint, command)
                continue
            for network in (network for one, network in used if one == path):
                if network.config.cni_version not in versions:
                    yield error(
                        path, f"supports {', '.join(versions)}, but {network.path} has {network.config.cni_version}",
                        f"set cniVersion in {shlex.quote(network.path)} to one of these versions",
                    )  # fmt: skip


def interpreter(_: Node) -> Iterator[Finding]:
    """Report a Python without fast digests, as in FIPS mode."""
    if not digests.has_fast_digests():
        version = sys.version.split()[0]
        what = f"Python {version} lacks BLAKE2 with short digests, as in FIPS mode; slower code computes the names"
        yield note(sys.executable, what, "nothing; for faster calls choose another Python: install.sh --python")


def executables(bin_dirs: Sequence[Path]) -> list[Path]:
    """Return the plugins' executables in these directories, of any suite."""
    found = []
    for directory in bin_dirs:
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
    """Return the CNI versions that a plugin supports, and a complaint about its answer or ""."""
    try:
        raw = execute(path, "VERSION", {"cniVersion": SUPPORTED[-1]}, {"CNI_COMMAND": "VERSION"}, VERSION_SECONDS)
    except PluginError as reason:
        return (), f"does not answer VERSION: {reason.msg}{f': {reason.details}' if reason.details else ''}"
    try:
        versions = tuple(map(str, json.loads(raw)["supportedVersions"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return (), f"answers VERSION without a list of versions: {raw[:60]!r}"
    if not set(versions) & set(SUPPORTED):
        return (), f"answers VERSION with unknown CNI versions only: {', '.join(versions)[:60] or 'none'}"
    return versions, ""
