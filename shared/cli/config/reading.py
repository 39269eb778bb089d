"""Read configurations with the plugins' own code, without calling a plugin or touching anything."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from ipam.host_local import Pool
from ipam.host_local.ranges import Range
from shared.cni.call import Call, folded
from shared.cni.errors import CniError
from shared.cni.versions import of_plugin
from shared.launch import PLUGINS
from shared.runtime.conflist import NetworkConfigList

# The class of a plugin that reads a call and raises its errors before anything is touched.
READERS = {
    **dict.fromkeys(("bandwidth", "bridge", "firewall", "portmap", "tuning"), "Attachment"), "host-local": "Pool",
}  # fmt: skip
# An attachment that does not exist: checks that depend on it are skipped.
ENVIRONMENT = {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "none", "CNI_NETNS": "/none", "CNI_IFNAME": "eth0", "CNI_PATH": "/none",
}  # fmt: skip


def call(network: NetworkConfigList, plugin: Mapping[str, Any]) -> Call:
    """Return the ADD that the plugin would get, without the runtime's capability arguments. Raise CniError."""
    made = Call(ENVIRONMENT)
    message = {**plugin, "name": network.name, "cniVersion": network.cni_version}
    made.read_config(json.dumps(message).encode(), of_plugin(PLUGINS.get(str(plugin.get("type")), "")))
    return made


def judge(kind: str, made: Call) -> None:
    """Let a plugin of this suite read a call. Raise the CniError that the plugin raises."""
    if kind in READERS:
        getattr(importlib.import_module(PLUGINS[kind]), READERS[kind])(made)


def pool(network: NetworkConfigList, plugin: Mapping[str, Any]) -> Pool | None:
    """Return host-local's pool for a plugin, None if it assigns no addresses. Raise CniError."""
    ipam = folded(dict(plugin), "ipam")
    is_asked = isinstance(ipam, dict) and folded(ipam, "type") == "host-local"
    return Pool(call(network, plugin)) if is_asked else None


def ranges(network: NetworkConfigList, plugin: Mapping[str, Any]) -> list[Range]:
    """Return the ranges of that pool, none if it cannot be read: `judge` reports the reason."""
    try:
        found = pool(network, plugin)
    except CniError:
        return []
    return [one for entry in found.sets for one in entry.ranges] if found else []
