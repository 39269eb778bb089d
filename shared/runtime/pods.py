"""The network of pods, in a kubelet's way: loopback first, then the default network of a configuration directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.runtime import attach
from shared.runtime.attach import Attachment, Result
from shared.runtime.conflist import NetworkConfigList, Warn, load, parse
from shared.runtime.find import find

# 0.3.1 is what containerd sends; it has no CHECK.
LOOPBACK = parse({"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]})


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PodResult:
    """What a set-up returned: the results of both networks, and the network that was the default one then."""

    network: NetworkConfigList
    loopback: Result
    default: Result


class PodNetwork:
    """Sets up and tears down pods.

    It keeps no state and reads the directory anew on each call, so one object serves any number of threads; calls for
    one and the same pod are the caller's to put in order.

    The default network is the first valid configuration in lexical order. All methods raise ConfigError where there
    is none, and PluginError where a plugin fails.
    """

    def __init__(
        self,
        conf_dir: Path | str,
        bin_dirs: Sequence[Path | str],
        *,
        limit: float = attach.TIME_LIMIT,
        warn: Warn = log.warning,
    ) -> None:
        self.conf_dir, self.bin_dirs, self.limit, self.warn = Path(conf_dir), tuple(bin_dirs), limit, warn

    def default_network(self) -> NetworkConfigList:
        """The network that the next pod would get."""
        return load(self.conf_dir, self.warn)[0]

    def status(self) -> NetworkConfigList:
        """The default network, if a pod can be set up now: a configuration is there and so are all its plugins.

        Raises ConfigError, PluginNotFound, ValueError (a type that is no file name).
        """
        network = self.default_network()
        for plugin in (*LOOPBACK.plugins, *network.plugins):
            find(plugin["type"], self.bin_dirs)
            ipam = plugin.get("ipam")
            if isinstance(ipam, dict) and isinstance(ipam.get("type"), str):
                find(ipam["type"], self.bin_dirs)
        return network

    def set_up(
        self,
        namespace: str,
        name: str,
        container_id: str,
        netns: str,
        capability_args: Mapping[str, Any] | None = None,
    ) -> PodResult:
        """Loopback, then the default network as eth0. After a failure nothing of the default network is left."""
        network = self.default_network()
        pod = _attachment(namespace, name, container_id, netns, capability_args)
        loopback = attach.add(LOOPBACK, _loopback(pod), self.bin_dirs, limit=self.limit)
        return PodResult(network, loopback, attach.add(network, pod, self.bin_dirs, limit=self.limit))

    def check(
        self,
        namespace: str,
        name: str,
        container_id: str,
        netns: str,
        result: PodResult,
        capability_args: Mapping[str, Any] | None = None,
    ) -> bool:
        """CHECK of the pod's network; raises PluginError if it is not as set up. False where it has no CHECK."""
        pod = _attachment(namespace, name, container_id, netns, capability_args)
        return attach.check(result.network, pod, self.bin_dirs, result.default, limit=self.limit)

    def tear_down(
        self,
        namespace: str,
        name: str,
        container_id: str,
        netns: str,
        result: PodResult | None = None,
        capability_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the pod off its network; lo goes with the namespace. Can be repeated, also with an empty `netns`.

        Without the `result` of the set-up the plugins work without prevResult, on today's default network.
        """
        pod = _attachment(namespace, name, container_id, netns, capability_args)
        network = result.network if result else self.default_network()
        attach.delete(network, pod, self.bin_dirs, result.default if result else None, limit=self.limit)


def _attachment(
    namespace: str, name: str, container_id: str, netns: str, capability_args: Mapping[str, Any] | None
) -> Attachment:
    return Attachment(
        container_id=container_id,
        netns=netns,
        cni_args={
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": namespace,
            "K8S_POD_NAME": name,
            "K8S_POD_INFRA_CONTAINER_ID": container_id,
        },
        capability_args=capability_args or {},
    )


def _loopback(pod: Attachment) -> Attachment:
    return Attachment(pod.container_id, pod.netns, "lo", pod.cni_args)
