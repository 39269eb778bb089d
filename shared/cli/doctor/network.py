"""Read a network's configuration with the plugins' own code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ipam.host_local import Pool
from plugins import bridge
from shared.cni.call import Call
from shared.cni.errors import CniError
from shared.net.links import own_name
from shared.runtime.conflist import NetworkConfigList


class Network:
    """A valid configuration file, and its keys as this suite's plugins read them."""

    def __init__(self, config: NetworkConfigList) -> None:
        self.config = config
        self.name = config.name

    @property
    def path(self) -> str:
        """Return the path of the configuration's file."""
        return str(self.config.path)

    @cached_property
    def types(self) -> list[str]:
        """Return the types of its plugins, IPAM plugins last."""
        types = [plugin["type"] for plugin in self.config.plugins]
        return [*types, *(section["type"] for _, section in self.ipam if isinstance(section.get("type"), str))]

    @cached_property
    def ipam(self) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Return its plugins that have an `ipam` object, each with that object."""
        found = [(plugin, plugin.get("ipam")) for plugin in self.config.plugins]
        return [(plugin, section) for plugin, section in found if isinstance(section, dict)]

    def plugin(self, kind: str) -> Mapping[str, Any]:
        """Return the configuration of its first plugin of a type, empty if it has none."""
        return next((plugin for plugin in self.config.plugins if plugin["type"] == kind), {})

    def call(self, plugin: Mapping[str, Any]) -> Call:
        """Return the call that a plugin of it would get. Raise CniError if it has an invalid configuration."""
        call = Call({"CNI_COMMAND": "VERSION"})
        message = {**plugin, "name": self.name, "cniVersion": self.config.cni_version}
        call.read_config(json.dumps(message).encode())
        return call

    @cached_property
    def bridge(self) -> bridge.Config | None:
        """Return the keys of its bridge plugin, None if there is none or it cannot be read."""
        raw = self.plugin("bridge")
        try:
            keys: bridge.Config | None = bridge.Config.read(dict(raw)) if raw else None
        except CniError:
            return None
        if keys:
            keys.bridge, keys.uplinks = own_name(keys.bridge), [own_name(uplink) for uplink in keys.uplinks]
        return keys

    @property
    def bridge_link(self) -> str:
        """Return the name of its bridge, empty if it has none."""
        return self.bridge.bridge if self.bridge else ""

    @property
    def is_gateway(self) -> bool:
        """Return True if the host is the gateway of its pods."""
        return bool(self.bridge and (self.bridge.isGateway or self.bridge.isDefaultGateway)) or "ptp" in self.types

    @property
    def gateway_link(self) -> str:
        """Return the link that holds the gateway addresses, empty if there is none."""
        if self.bridge is None or not self.is_gateway:
            return ""
        return f"{self.bridge_link}.{self.bridge.vlan}" if self.bridge.vlan else self.bridge_link

    @property
    def has_vlans(self) -> bool:
        """Return True if its bridge must filter VLANs."""
        return bool(self.bridge and (self.bridge.vlan or self.bridge.vlanTrunk))

    @cached_property
    def pools(self) -> list[Pool]:
        """Return the pools of its host-local; omit those that cannot be read."""
        found = []
        for plugin, section in self.ipam:
            if section.get("type") == "host-local":
                try:
                    found.append(Pool(self.call(plugin)))
                except CniError:
                    continue
        return found

    @property
    def versions(self) -> set[int]:
        """Return the IP versions of its pools."""
        return {part.subnet.version for pool in self.pools for entry in pool.sets for part in entry.ranges}
