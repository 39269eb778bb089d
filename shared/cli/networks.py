"""cnitool add, check, del, gc, status, version: a runtime's calls by hand, compatible with the Go cnitool.

Print results to stdout and everything else to stderr.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.commands import CONF_DIR, UsageError
from shared.cni.errors import CniError
from shared.runtime import attach, conflist
from shared.runtime.attach import PluginError
from shared.runtime.attachment import Attachment
from shared.runtime.cache import CacheError
from shared.runtime.client import Client
from shared.runtime.conflist import ConfigError, NetworkConfigList
from shared.runtime.find import PluginNotFound
from shared.runtime.presence import AttachmentExists

if TYPE_CHECKING:
    from shared.cli.leases.living import Census

Options = argparse.Namespace

FAILURES = (ConfigError, CacheError, PluginError, PluginNotFound, AttachmentExists, CniError, ValueError)


def run(options: Options) -> int:
    """Run the verb of the command line.

    Return 1 if it failed, with the reason on stderr.
    """
    return run_guarded(options, VERBS[options.command.name])


def run_guarded(options: Options, step: Callable[[Options], None]) -> int:
    """Run a step and report its errors, with --json as a CNI error object on stdout.

    Return 1 after an error.
    """
    try:
        step(options)
    except ExceptionGroup as group:
        for error in group.exceptions:
            print_error(options, error)
        return 1
    except FAILURES as error:
        print_error(options, error)
        return 1
    return 0


def print_error(options: Options, error: Exception) -> None:
    """Print an error as text to stderr, or as JSON to stdout."""
    if options.json:
        code = getattr(error, "code", attach.INTERNAL_ERROR)
        print_json({"code": code, "msg": getattr(error, "msg", str(error)), "details": getattr(error, "details", "")})
    else:
        for line in (str(error), *getattr(error, "__notes__", [])):
            print(f"cnitool: {line}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print JSON with the indentation of CNI's own programs."""
    print(json.dumps(value, indent=4))


def warn(text: str) -> None:
    """Print a warning to stderr."""
    print(f"cnitool: warning: {text}", file=sys.stderr)


def bin_dirs() -> list[str]:
    """Return the directories of CNI_PATH, by default that of cnitool.

    Raise UsageError for a relative directory.
    """
    found = [part for part in os.environ.get("CNI_PATH", "").split(os.pathsep) if part]
    for part in found:
        if not part.startswith("/"):
            raise UsageError(f"CNI_PATH: {part!r} is not an absolute path")
    return found or [str(Path(sys.argv[0]).resolve().parent)]


def conf_dir() -> str:
    """Return NETCONFPATH, by default /etc/cni/net.d."""
    return os.environ.get("NETCONFPATH") or CONF_DIR


def client(options: Options) -> Client:
    """Return a client with the settings of environment and options."""
    return Client(bin_dirs(), cache_dir=options.cache_dir)


def network(options: Options) -> NetworkConfigList:
    """Return the network of the command line. Raise ConfigError."""
    return conflist.named(conf_dir(), options.network, warn)


def container_id_of(netns: str) -> str:
    """Return the container id that the Go cnitool derives from a namespace's path."""
    return f"cnitool-{hashlib.sha512(netns.encode()).digest()[:10].hex()}"


def attachment(options: Options) -> Attachment:
    """Return the attachment of environment and options. Raise UsageError or ValueError."""
    netns = os.path.abspath(options.netns)
    return Attachment(
        options.container_id or container_id_of(netns), netns, os.environ.get("CNI_IFNAME") or "eth0", cni_args(),
        capability_args(),
    )  # fmt: skip


def cni_args() -> dict[str, str]:
    """Return the arguments in CNI_ARGS. Raise UsageError."""
    pairs = [pair.partition("=") for pair in os.environ.get("CNI_ARGS", "").split(";") if pair]
    wrong = next((pair for pair in pairs if not pair[0] or not pair[1]), None)
    if wrong is not None:
        raise UsageError(f"CNI_ARGS: {''.join(wrong)!r} must have the form KEY=VALUE")
    return {key: value for key, _, value in pairs}


def capability_args() -> dict[str, Any]:
    """Return the arguments in CAP_ARGS. Raise UsageError."""
    try:
        found = json.loads(os.environ.get("CAP_ARGS") or "{}")
    except ValueError as error:
        raise UsageError(f"CAP_ARGS: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError("CAP_ARGS: must be a JSON object")
    return found


def _add(options: Options) -> None:
    print_json(client(options).add(network(options), attachment(options)))


def _check(options: Options) -> None:
    mine, pod = client(options), attachment(options)
    if not mine.check(_config_of_add(options, mine, pod), pod):
        warn(f"network {options.network} is not checked: its cniVersion is before 0.4.0, or it has disableCheck")


def _del(options: Options) -> None:
    mine, pod = client(options), attachment(options)
    mine.delete(_config_of_add(options, mine, pod), pod)


def _config_of_add(options: Options, mine: Client, pod: Attachment) -> NetworkConfigList:
    """Return the cached configuration of the ADD, or today's if the cache has none."""
    return mine.remembered(options.network, pod) or network(options)


def _status(options: Options) -> None:
    client(options).status(network(options))
    if options.json:
        print_json({"network": options.network, "ready": True})


def _gc(options: Options) -> None:
    # The other commands do not need this module.
    from shared.cli.leases import living

    mine, found = client(options), network(options)
    if found.disable_gc:
        warn(f"network {found.name} has disableGC: nothing is deleted")
        return
    census = living.take_census(found, mine.cache)
    for reason in filter(None, (census.trouble, *(one.reason for one in census.unreadable))):
        warn(f"{reason}; its pods count as alive")
    asks = found.supports("1.1.0") and not census.strangers
    if found.supports("1.1.0") and not asks:
        _warn_of_strangers(census)
    if options.json:
        print_json(_plan(found, census, asks=asks))
    else:
        _print_plan(found, census, asks=asks)
    if options.dry_run:
        return

    def valid() -> set[tuple[str, str]] | None:
        """Return the attachments of the plan and of ADDs since then, None if plugins must not be asked."""
        if not asks:
            return None
        now = living.take_census(found, mine.cache)
        if now.strangers:
            _warn_of_strangers(now)
            return None
        return {*census.living, *now.living}

    mine.collect(found, census.gone, valid)


def _warn_of_strangers(census: Census) -> None:
    warn(f"{', '.join(census.strangers)}: in use by an unknown pod, so plugins are not asked to clean up")


def _plan(found: NetworkConfigList, census: Census, *, asks: bool) -> dict[str, Any]:
    return {
        "network": found.name,
        "valid": [
            {"containerID": one.container_id, "ifname": one.ifname, "netns": one.netns, "reason": one.reason}
            for one in census.living.values()
        ],
        "remove": [
            {"containerID": mine.container_id, "ifname": mine.ifname, "netns": mine.netns}
            for mine in (entry.attachment for entry in census.gone)
        ],
        "leftovers": [{"containerID": container_id, "ifname": ifname} for container_id, ifname in census.leftovers],
        "unreadable": [str(one.path) for one in census.unreadable],
        "pluginsAsked": asks,
    }


def _print_plan(found: NetworkConfigList, census: Census, *, asks: bool) -> None:
    for entry in census.gone:
        mine = entry.attachment
        print(f"DEL {mine.container_id} {mine.ifname}: its namespace {mine.netns} is gone")
    if asks:
        types = ", ".join(str(plugin["type"]) for plugin in found.plugins)
        print(f"GC to {types}: deletes everything except living attachments, {len(census.living)} in number")
        for container_id, ifname in census.leftovers:
            print(f"  delete: {container_id} {ifname}".rstrip() + ": not in the cache, and in no namespace")
        for one in census.living.values():
            print(f"  keep: {one.container_id} {one.ifname}: {one.reason}")
    elif not census.gone:
        print(f"nothing to do: all attachments of {found.name} are alive, {len(census.living)} in number")


def _version(options: Options) -> None:
    own = options.tree.name.rpartition("-")[0] or "(not installed)"
    plugins = {name: _answered(name) for name in options.plugin}
    if options.json:
        print_json({"cnitool": own, "plugins": plugins})
        return
    print(f"cnitool {own}")
    for name, supported in plugins.items():
        print(f"{name}: CNI {', '.join(supported)}")


def _answered(plugin: str) -> tuple[str, ...]:
    return attach.versions(plugin, bin_dirs())


VERBS = {"add": _add, "check": _check, "del": _del, "gc": _gc, "status": _status, "version": _version}
