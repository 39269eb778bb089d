"""Check the links of the host that networks use: masters of pods' links, and devices that are lent to pods."""

from __future__ import annotations

from collections.abc import Iterator

from shared.cli.doctor import kernel
from shared.cli.doctor.configuration import own_plugin, plugin_path
from shared.cli.doctor.findings import Finding, error
from shared.cli.doctor.network import Network
from shared.cli.doctor.node import Node
from shared.cni.errors import PluginNotAvailable
from shared.cni.versions import CURRENT
from shared.runtime.attach import PluginError, execute
from shared.runtime.attachment import environment_of

USERS = ("macvlan", "ipvlan", "vlan", "host-device")
STATUS_SECONDS = 10.0


def links(node: Node) -> Iterator[Finding]:
    """Report links that a plugin needs and does not find, and those that are down. Ask the plugin's STATUS."""
    for network in node.networks:
        if kernel.lacks_something(network):
            continue
        for plugin in network.config.plugins:
            kind = str(plugin["type"])
            path = plugin_path(node, kind)
            if path and own_plugin(node, kind) in USERS and (reason := _reason_against(node, network, kind)):
                todo = f"cnitool status {network.name}  # after you have corrected the link or the configuration"
                yield error(network.path, f"plugin {kind} cannot attach pods: {reason}", todo)


def _reason_against(node: Node, network: Network, kind: str) -> str:
    """Return the error by which the plugin says that it is not available, without its IPAM plugin's."""
    plugin, path = network.plugin(kind), plugin_path(node, kind)
    message = {key: value for key, value in plugin.items() if key not in ("capabilities", "ipam")}
    message |= {"name": network.name, "cniVersion": CURRENT}
    try:
        if path:
            execute(path, "STATUS", message, environment_of("STATUS", node.bin_dirs), STATUS_SECONDS)
    except PluginError as reason:
        if reason.code == PluginNotAvailable.code:
            return f"{reason.msg}{f': {reason.details}' if reason.details else ''}"
    return ""
