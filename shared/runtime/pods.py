"""The network of pods, in a kubelet's way: loopback first, then the default network of a configuration directory.

pods = PodNetwork("/etc/cni/net.d", ["/opt/cni/bin"])
pods.status()
pod = Pod("default", "web", "c1", "/run/netns/web")
print(pods.set_up(pod).default["ips"])
print(pods.addresses(pod))
pods.tear_down(pod)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.cni.ip import Prefix
from shared.net import addresses, links
from shared.net.netlink import Netlink
from shared.net.netns import open_netns
from shared.runtime import attach, cache, presence
from shared.runtime.attach import Result
from shared.runtime.attachment import Attachment
from shared.runtime.cache import Cache
from shared.runtime.client import Client
from shared.runtime.conflist import NetworkConfigList, Warn, load, parse
from shared.runtime.find import find
from shared.runtime.presence import AttachmentExists

# 0.3.1 is what containerd sends; it has no CHECK.
LOOPBACK = parse({"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]})
VENDOR_DIR = "/opt/{type}/bin"  # where a plugin's vendor may put it, besides the plugins' own directories
IFNAME = "eth0"
LINK_LOCAL = Prefix.parse("fe80::/10")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pod:
    """A pod's sandbox; `netns` is a path, empty when the namespace is gone."""

    namespace: str
    name: str
    container_id: str
    netns: str
    capability_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attachment(self) -> Attachment:
        """Its place in the default network, with the CNI_ARGS of a kubelet."""
        cni_args = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": self.namespace,
            "K8S_POD_NAME": self.name,
            "K8S_POD_INFRA_CONTAINER_ID": self.container_id,
        }
        return Attachment(self.container_id, self.netns, IFNAME, cni_args, self.capability_args)


@dataclass(frozen=True)
class PodResult:
    """What a set-up returned: the results of both networks, and the network that was the default one then."""

    network: NetworkConfigList
    loopback: Result
    default: Result


class PodNetwork:
    """Sets up and tears down pods.

    What it knows it reads anew on each call, from the configuration directory and libcni's cache, so one object serves
    any number of threads; calls for one and the same pod are the caller's to put in order.

    The default network is the first valid configuration in lexical order. Plugins are looked for in `vendor_dir`, where
    `{type}` stands for the plugin's type, and then in `bin_dirs`. All methods raise ConfigError where there is no
    network, PluginError where a plugin fails, CacheError where the cache does not work.
    """

    def __init__(
        self,
        conf_dir: Path | str,
        bin_dirs: Sequence[Path | str],
        *,
        vendor_dir: str = VENDOR_DIR,
        cache_dir: Path | str = cache.DIRECTORY,
        limit: float = attach.TIME_LIMIT,
        warn: Warn = log.warning,
    ) -> None:
        self.conf_dir, self.bin_dirs, self.vendor_dir = Path(conf_dir), tuple(bin_dirs), vendor_dir
        self.cache_dir, self.limit, self.warn = cache_dir, limit, warn

    def default_network(self) -> NetworkConfigList:
        """The network that the next pod would get."""
        return load(self.conf_dir, self.warn)[0]

    def client(self, network: NetworkConfigList) -> Client:
        """The client for a network, with the vendors' directories of its plugins."""
        types = dict.fromkeys(str(plugin["type"]) for plugin in network.plugins)
        vendors = [self.vendor_dir.format(type=name) for name in types if "/" not in name] if self.vendor_dir else []
        bin_dirs = [*(path for path in vendors if Path(path).is_dir()), *self.bin_dirs]
        return Client(bin_dirs, cache_dir=self.cache_dir, limit=self.limit)

    def status(self) -> NetworkConfigList:
        """The default network, if a pod can be set up now: it is there, its plugins are, and they say so (STATUS).

        Raises PluginNotFound and ValueError (a type that is no file name), too.
        """
        network = self.default_network()
        client = self.client(network)
        for plugin in (*LOOPBACK.plugins, *network.plugins):
            find(plugin["type"], client.bin_dirs)
            ipam = plugin.get("ipam")
            if isinstance(ipam, dict) and isinstance(ipam.get("type"), str):
                find(ipam["type"], client.bin_dirs)
        client.status(network)
        return network

    def set_up(self, pod: Pod) -> PodResult:
        """Loopback, then the default network as eth0. After a failure nothing of the default network is left.

        Raises AttachmentExists, before any plugin is executed, if the pod has its network already.
        """
        network = self.expect_new(pod)
        client = self.client(network)
        # lo goes with the namespace: there is nothing to remember
        lo = Attachment(pod.container_id, pod.netns, "lo", pod.attachment.cni_args)
        loopback = attach.add(LOOPBACK, lo, client.bin_dirs, limit=self.limit)
        return PodResult(network, loopback, client.add(network, pod.attachment))

    def expect_new(self, pod: Pod) -> NetworkConfigList:
        """Return the network that the pod will get; raises AttachmentExists if it is on one already.

        What is left of a pod whose namespace is gone, on a network that was the default one then, gets its DEL.
        """
        network = self.default_network()
        for entry in Cache(self.cache_dir).attachments(container_id=pod.container_id, ifname=IFNAME):
            if entry.network == network.name:
                continue
            reason = presence.evidence(entry.network, entry.attachment, entry.result)
            if reason:
                raise AttachmentExists(entry.network, entry.attachment, f"{entry.path} remembers it, and {reason}")
            if entry.config is not None:
                self.client(entry.config).delete(entry.config, entry.attachment)
        self.client(network).expect_new(network, pod.attachment)
        return network

    def check(self, pod: Pod) -> bool:
        """CHECK of the pod's network; raises PluginError if it is not as set up. False where it has no CHECK."""
        network = self.network_of(pod)
        return self.client(network).check(network, pod.attachment)

    def tear_down(self, pod: Pod) -> None:
        """Takes the pod off the network that it was set up with; can be repeated, also when its namespace is gone.

        Where that network is not remembered (the set-up did not end), today's default network is meant.
        """
        network = self.network_of(pod)
        self.client(network).delete(network, pod.attachment)

    def addresses(self, pod: Pod) -> list[str]:
        """The pod's addresses, IPv4 first, read inside its namespace; those of link scope are not meant.

        Raises CniError (shared.cni.errors) where the namespace or its eth0 is not there.
        """
        with closing(open_netns(pod.netns)) as netns, netns, closing(Netlink()) as inside:
            found = addresses.of_link(inside, links.require(inside, IFNAME)["index"])
        found.sort(key=lambda prefix: prefix.version)
        return [str(prefix.address) for prefix in found if prefix.address not in LINK_LOCAL]

    def network_of(self, pod: Pod) -> NetworkConfigList:
        """The network that the pod was set up with, as remembered, and otherwise the default network.

        Of an entry that cannot be read the file's name still tells the network.
        """
        entries, unreadable = Cache(self.cache_dir).look(container_id=pod.container_id, ifname=IFNAME)
        for entry in entries:
            if entry.config is not None:
                return entry.config
        names = {one.path.name.removesuffix(f"-{pod.container_id}-{IFNAME}") for one in unreadable}
        if names:
            return next((one for one in load(self.conf_dir, self.warn) if one.name in names), self.default_network())
        return self.default_network()
