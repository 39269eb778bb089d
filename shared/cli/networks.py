"""cnitool add, check, del, gc, status, version: a runtime's calls by hand, with what the Go cnitool's users know.

Results go to stdout and all else to stderr, as there.
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
    """The verb that the command line names; 1 where it failed, with the reason on stderr."""
    return guarded(options, VERBS[options.command.name])


def guarded(options: Options, step: Callable[[Options], None]) -> int:
    """Runs a step; what it raises is told, with --json as a CNI error object on stdout."""
    try:
        step(options)
    except ExceptionGroup as group:
        for error in group.exceptions:
            tell(options, error)
        return 1
    except FAILURES as error:
        tell(options, error)
        return 1
    return 0


def tell(options: Options, error: Exception) -> None:
    """An error for a person on stderr, or for a program on stdout."""
    if options.json:
        code = getattr(error, "code", attach.INTERNAL_ERROR)
        print_json({"code": code, "msg": getattr(error, "msg", str(error)), "details": getattr(error, "details", "")})
    else:
        for line in (str(error), *getattr(error, "__notes__", [])):
            print(f"cnitool: {line}", file=sys.stderr)


def print_json(value: Any) -> None:
    """JSON with the indentation that CNI's own programs print."""
    print(json.dumps(value, indent=4))


def warn(text: str) -> None:
    """Something that does not keep the command from its work."""
    print(f"cnitool: warning: {text}", file=sys.stderr)


def bin_dirs() -> list[str]:
    """CNI_PATH, by default where cnitool is; raises UsageError for a relative directory."""
    found = [part for part in os.environ.get("CNI_PATH", "").split(os.pathsep) if part]
    for part in found:
        if not part.startswith("/"):
            raise UsageError(f"CNI_PATH: {part!r} is not an absolute path")
    return found or [str(Path(sys.argv[0]).resolve().parent)]


def conf_dir() -> str:
    """NETCONFPATH, by default /etc/cni/net.d."""
    return os.environ.get("NETCONFPATH") or CONF_DIR


def client(options: Options) -> Client:
    """The client that environment and options describe."""
    return Client(bin_dirs(), cache_dir=options.cache_dir)


def network(options: Options) -> NetworkConfigList:
    """The network of the command line; raises ConfigError."""
    return conflist.named(conf_dir(), options.network, warn)


def container_id_of(netns: str) -> str:
    """The container id that the Go cnitool gives a namespace."""
    return f"cnitool-{hashlib.sha512(netns.encode()).digest()[:10].hex()}"


def attachment(options: Options) -> Attachment:
    """The attachment that environment and options describe; raises UsageError, ValueError."""
    netns = os.path.abspath(options.netns)
    return Attachment(
        options.container_id or container_id_of(netns), netns, os.environ.get("CNI_IFNAME") or "eth0", cni_args(),
        capability_args(),
    )  # fmt: skip


def cni_args() -> dict[str, str]:
    """CNI_ARGS; raises UsageError."""
    pairs = [pair.partition("=") for pair in os.environ.get("CNI_ARGS", "").split(";") if pair]
    wrong = next((pair for pair in pairs if not pair[0] or not pair[1]), None)
    if wrong is not None:
        raise UsageError(f"CNI_ARGS: {''.join(wrong)!r} is not of the form KEY=VALUE")
    return {key: value for key, _, value in pairs}


def capability_args() -> dict[str, Any]:
    """CAP_ARGS; raises UsageError."""
    try:
        found = json.loads(os.environ.get("CAP_ARGS") or "{}")
    except ValueError as error:
        raise UsageError(f"CAP_ARGS: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError("CAP_ARGS: a JSON object is required")
    return found


def _add(options: Options) -> None:
    print_json(client(options).add(network(options), attachment(options)))


def _check(options: Options) -> None:
    mine, pod = client(options), attachment(options)
    if not mine.check(_made_with(options, mine, pod), pod):
        warn(f"network {options.network} has no CHECK (cniVersion before 0.4.0, or disableCheck)")


def _del(options: Options) -> None:
    mine, pod = client(options), attachment(options)
    mine.delete(_made_with(options, mine, pod), pod)


def _made_with(options: Options, mine: Client, pod: Attachment) -> NetworkConfigList:
    """The configuration that ADD had, from the cache: today's may be another, or gone. Otherwise today's."""
    return mine.remembered(options.network, pod) or network(options)


def _status(options: Options) -> None:
    client(options).status(network(options))
    if options.json:
        print_json({"network": options.network, "ready": True})


def _gc(options: Options) -> None:
    # nothing else here needs these
    from shared.cli.leases import living

    mine, found = client(options), network(options)
    if found.disable_gc:
        warn(f"network {found.name} has disableGC: nothing is done")
        return
    census = living.take(found, mine.cache)
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
        """Return the plan's, and those of ADDs that have begun since; None if no plugin is to be asked."""
        if not asks:
            return None
        now = living.take(found, mine.cache)
        if now.strangers:
            _warn_of_strangers(now)
            return None
        return {*census.living, *now.living}

    mine.collect(found, census.gone, valid)


def _warn_of_strangers(census: Census) -> None:
    warn(f"{', '.join(census.strangers)}: in use, but it cannot be told by which pod; plugins are not asked")


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
        print(f"GC to {types}: all that is of none of the {len(census.living)} attachments that are alive goes")
        for container_id, ifname in census.leftovers:
            print(f"  goes: {container_id} {ifname}".rstrip() + ": not in the cache, and in no namespace")
        for one in census.living.values():
            print(f"  stays: {one.container_id} {one.ifname}: {one.reason}")
    elif not census.gone:
        print(f"nothing to do: all {len(census.living)} attachments of {found.name} are alive")


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
