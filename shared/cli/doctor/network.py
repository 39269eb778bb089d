"""A network's configuration, read by the plugins' own eyes."""

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
    """A valid configuration file, and what this suite's plugins read in it."""

    def __init__(self, config: NetworkConfigList) -> None:
        self.config = config
        self.name = config.name

    @property
    def path(self) -> str:
        """The configuration's file."""
        return str(self.config.path)

    @cached_property
    def types(self) -> list[str]:
        """The plugins that it names, IPAM plugins last."""
        types = [plugin["type"] for plugin in self.config.plugins]
        return [*types, *(section["type"] for _, section in self.ipam if isinstance(section.get("type"), str))]

    @cached_property
    def ipam(self) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Its plugins that have an `ipam` object, and that object."""
        found = [(plugin, plugin.get("ipam")) for plugin in self.config.plugins]
        return [(plugin, section) for plugin, section in found if isinstance(section, dict)]

    def plugin(self, kind: str) -> Mapping[str, Any]:
        """The configuration of its first plugin of a type, empty where it has none."""
        return next((plugin for plugin in self.config.plugins if plugin["type"] == kind), {})

    def call(self, plugin: Mapping[str, Any]) -> Call:
        """What a plugin of it would be called with; raises CniError where that cannot be."""
        call = Call({"CNI_COMMAND": "VERSION"})
        message = {**plugin, "name": self.name, "cniVersion": self.config.cni_version}
        call.read_config(json.dumps(message).encode())
        return call

    @cached_property
    def bridge(self) -> bridge.Config | None:
        """The keys of its bridge plugin, None where it has none or one that cannot be read."""
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
        """The name of its bridge, empty where it has none."""
        return self.bridge.bridge if self.bridge else ""

    @property
    def is_gateway(self) -> bool:
        """Whether the host is its pods' gateway."""
        return bool(self.bridge and (self.bridge.isGateway or self.bridge.isDefaultGateway)) or "ptp" in self.types

    @property
    def gateway_link(self) -> str:
        """The link that has the gateway's addresses, empty where there is none."""
        if self.bridge is None or not self.is_gateway:
            return ""
        return f"{self.bridge_link}.{self.bridge.vlan}" if self.bridge.vlan else self.bridge_link

    @property
    def has_vlans(self) -> bool:
        """Whether its bridge has to filter VLANs."""
        return bool(self.bridge and (self.bridge.vlan or self.bridge.vlanTrunk))

    @cached_property
    def pools(self) -> list[Pool]:
        """The pools of its host-local; those that cannot be read are left out."""
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
        """The IP versions of its pools."""
        return {part.subnet.version for pool in self.pools for entry in pool.sets for part in entry.ranges}
