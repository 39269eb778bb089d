"""The runtime's side of CNI as a library.

It reads configurations, finds and chains plugins, caches results, and sets up pods as a kubelet does.

    import pycni

    network = pycni.named("/etc/cni/net.d", "pods", warn=print)
    client = pycni.Client(["/opt/cni/bin"])

    result = client.add(network, pycni.Attachment("c1", "/run/netns/c1"))
    client.delete(network, pycni.Attachment("c1", "/run/netns/c1"))

It needs only the standard library. Its functions change the node's network namespaces and files, as root.
"""

from __future__ import annotations

from shared.runtime.attach import PluginError
from shared.runtime.attachment import Attachment
from shared.runtime.cache import CacheError
from shared.runtime.client import Client
from shared.runtime.conflist import ConfigError, NetworkConfigList, load, named, parse
from shared.runtime.find import PluginNotFound
from shared.runtime.pods import Pod, PodNetwork
from shared.runtime.presence import AttachmentExists

__all__ = [
    "Attachment", "AttachmentExists", "CacheError", "Client", "ConfigError", "NetworkConfigList", "PluginError",
    "PluginNotFound", "Pod", "PodNetwork", "load", "named", "parse",
]  # fmt: skip
