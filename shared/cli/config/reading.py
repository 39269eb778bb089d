"""Read configurations with the plugins' own code. No plugin is executed, and nothing is touched."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from ipam.host_local import Pool
from ipam.host_local.ranges import Range
from shared.cni.call import Call, folded
from shared.cni.errors import CniError
from shared.cni.versions import of_plugin
from shared.executables import PLUGINS
from shared.runtime.conflist import NetworkConfigList

# No pod has this attachment: checks that depend on the pod do not apply.
ENVIRONMENT = {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "none", "CNI_NETNS": "/none", "CNI_IFNAME": "eth0", "CNI_PATH": "/none",
}  # fmt: skip


def call(network: NetworkConfigList, plugin: Mapping[str, Any]) -> Call:
    """Return the ADD that the plugin would get, without the runtime's arguments for capabilities. Raise CniError."""
    made = Call(ENVIRONMENT)
    message = {**plugin, "name": network.name, "cniVersion": network.cni_version}
    made.read_config(json.dumps(message).encode(), of_plugin(PLUGINS.get(str(plugin.get("type")), "")))
    return made


def reader(kind: str) -> Callable[[Call], object] | None:
    """Return the function by which a plugin of this suite reads a call; None if the plugin has no keys."""
    found: Callable[[Call], object] | None = getattr(importlib.import_module(PLUGINS[kind]), "read", None)
    return found


def judge(kind: str, made: Call) -> None:
    """Let a plugin of this suite read a call. Raise CniError if the plugin refuses it."""
    read = reader(kind)
    if read is not None:
        read(made)


def pool(network: NetworkConfigList, plugin: Mapping[str, Any]) -> Pool | None:
    """Return the pool of host-local for a plugin, None if the plugin does not use host-local. Raise CniError."""
    ipam = folded(dict(plugin), "ipam")
    is_asked = isinstance(ipam, dict) and folded(ipam, "type") == "host-local"
    return Pool(call(network, plugin)) if is_asked else None


def ranges(network: NetworkConfigList, plugin: Mapping[str, Any]) -> list[Range]:
    """Return the ranges of that pool. Return none if the pool cannot be read; `judge` reports the reason."""
    try:
        found = pool(network, plugin)
    except CniError:
        return []
    return [one for entry in found.sets for one in entry.ranges] if found else []
