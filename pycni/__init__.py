"""The runtime's side of CNI as a library: configurations, plugins, chains, cached results, and the pods of a kubelet.

    import pycni

    network = pycni.named("/etc/cni/net.d", "pods", warn=print)
    client = pycni.Client(["/opt/cni/bin"])
    result = client.add(network, pycni.Attachment("c1", "/run/netns/c1"))
    client.delete(network, pycni.Attachment("c1", "/run/netns/c1"))

The standard library is all that it needs. Its functions change network namespaces and files of the node as root.
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
