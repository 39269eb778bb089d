"""Main plugins without `ipam`: the pod's link is up, without addresses, and router advertisements are the pod's to heed."""

from __future__ import annotations

import pytest

from tests import node as nodes
from tests.node import sysctl
from tests.plugins import SAMPLES, params
from tests.pretend import PretendHost

PLUGINS = ("host-device", "ipvlan", "macvlan", "tap", "vlan")


@pytest.mark.parametrize("plugin", params(PLUGINS))
def test_router_advertisements(host: PretendHost, plugin: str) -> None:
    """A pod with addresses of IPAM refuses them."""
    host.run("sh", "-ec", SAMPLES[plugin].links)
    node = nodes.Node(host, **SAMPLES[plugin].keys)
    for keys, wanted in (({"ipam": ..., "hostAccess": ...}, "1"), ({}, "0")):
        node.add("a", keys)
        for name in ("accept_ra", "autoconf"):
            assert sysctl(host, f"ipv6/conf/eth0/{name}", "a") == wanted
        node.delete("a", keys)
