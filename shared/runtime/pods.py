"""Set up pods as a kubelet does: loopback first, then the default network of a directory.

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

# containerd sends 0.3.1, too; that version has no CHECK
LOOPBACK = parse({"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]})
VENDOR_DIR = "/opt/{type}/bin"  # a plugin's vendor may install it here instead of in a plugin directory
IFNAME = "eth0"
LINK_LOCAL = Prefix.parse("fe80::/10")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pod:
    """A pod's sandbox; `netns` is a path, empty if the namespace is gone."""

    namespace: str
    name: str
    container_id: str
    netns: str
    capability_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attachment(self) -> Attachment:
        """Its attachment to the default network, with a kubelet's CNI_ARGS."""
        cni_args = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": self.namespace,
            "K8S_POD_NAME": self.name,
            "K8S_POD_INFRA_CONTAINER_ID": self.container_id,
        }
        return Attachment(self.container_id, self.netns, IFNAME, cni_args, self.capability_args)


@dataclass(frozen=True)
class PodResult:
    """The results of a set-up: of both networks, and the network that was the default one then."""

    network: NetworkConfigList
    loopback: Result
    default: Result


class PodNetwork:
    """Set up and tear down pods.

    Each call reads the configuration directory and libcni's cache anew, so that any number of threads can share one
    object. The caller puts calls for one pod in order.

    The default network is the first valid configuration in lexical order. Plugins are searched in `vendor_dir`, where
    `{type}` stands for the plugin's type, then in `bin_dirs`. All methods raise ConfigError if there is no network,
    PluginError if a plugin fails, CacheError if the cache fails.
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
        """Return the network for the next pod."""
        return load(self.conf_dir, self.warn)[0]

    def client(self, network: NetworkConfigList) -> Client:
        """Return the client for a network, with the vendor directories of its plugins."""
        types = dict.fromkeys(str(plugin["type"]) for plugin in network.plugins)
        vendors = [self.vendor_dir.format(type=name) for name in types if "/" not in name] if self.vendor_dir else []
        bin_dirs = [*(path for path in vendors if Path(path).is_dir()), *self.bin_dirs]
        return Client(bin_dirs, cache_dir=self.cache_dir, limit=self.limit)

    def status(self) -> NetworkConfigList:
        """Return the default network if it can serve a pod now: plugins exist and answer STATUS.

        Raise PluginNotFound, and ValueError for a type that is not a file name, too.
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
        """Add loopback, then the default network as eth0. A failure leaves nothing of the default network.

        Raise AttachmentExists, before any plugin is executed, if the pod has its network already.
        """
        network = self.expect_new(pod)
        client = self.client(network)
        # do not cache lo: it is deleted with the namespace
        lo = Attachment(pod.container_id, pod.netns, "lo", pod.attachment.cni_args)
        loopback = attach.add(LOOPBACK, lo, client.bin_dirs, limit=self.limit)
        return PodResult(network, loopback, client.add(network, pod.attachment))

    def expect_new(self, pod: Pod) -> NetworkConfigList:
        """Return the network that the pod will get. Raise AttachmentExists if it already has one.

        If the pod's namespace is gone and a former default network still has an entry, that gets its DEL.
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
        """Execute CHECK of the pod's network. Raise PluginError on a difference. Return False without CHECK."""
        network = self.network_of(pod)
        return self.client(network).check(network, pod.attachment)

    def tear_down(self, pod: Pod) -> None:
        """Detach the pod from its network. Can be repeated, also if its namespace is gone.

        If its network is not known, because the set-up did not finish, use the present default network.
        """
        network = self.network_of(pod)
        self.client(network).delete(network, pod.attachment)

    def addresses(self, pod: Pod) -> list[str]:
        """Return the pod's addresses, IPv4 first, read in its namespace, without link-local ones.

        Raise CniError (shared.cni.errors) if the namespace or its eth0 does not exist.
        """
        with closing(open_netns(pod.netns)) as netns, netns, closing(Netlink()) as inside:
            found = addresses.of_link(inside, links.require(inside, IFNAME)["index"])
        found.sort(key=lambda prefix: prefix.version)
        return [str(prefix.address) for prefix in found if prefix.address not in LINK_LOCAL]

    def network_of(self, pod: Pod) -> NetworkConfigList:
        """Return the network in the pod's cache entry, or else the default network.

        If the entry is unreadable, the file's name shows the network.
        """
        entries, unreadable = Cache(self.cache_dir).look(container_id=pod.container_id, ifname=IFNAME)
        for entry in entries:
            if entry.config is not None:
                return entry.config
        names = {one.path.name.removesuffix(f"-{pod.container_id}-{IFNAME}") for one in unreadable}
        if names:
            return next((one for one in load(self.conf_dir, self.warn) if one.name in names), self.default_network())
        return self.default_network()
