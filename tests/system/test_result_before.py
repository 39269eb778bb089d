"""Main plugins behind others in a list: the result of those before is carried on, and serves CHECK and DEL."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import node as nodes
from tests.plugins import SAMPLES, params
from tests.pretend import PretendHost

PLUGINS = ("dummy", "host-device", "ipvlan", "macvlan", "tap", "vlan")
BEFORE: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "x", "mac": "02:00:00:00:00:77", "sandbox": "/run/netns/a"}],
    "ips": [{"address": "10.9.0.1/24", "interface": 0}],
    "routes": [{"dst": "10.99.0.0/16", "gw": "10.9.0.254"}],
    "dns": {"nameservers": ["10.9.0.9"]},
}


@pytest.mark.parametrize("plugin", params(PLUGINS))
def test_the_result_before_is_carried_on(host: PretendHost, plugin: str) -> None:
    """Its members come first, and the indexes of this plugin's addresses follow."""
    host.run("sh", "-ec", SAMPLES[plugin].links)
    node = nodes.Node(host, **SAMPLES[plugin].keys)
    own = node.add("b")
    node.delete("b")  # some can serve one pod alone
    result = node.add("a", prevResult=BEFORE)
    count = len(own["interfaces"])
    assert result["interfaces"][0] == BEFORE["interfaces"][0] and len(result["interfaces"]) == 1 + count
    assert result["ips"][0] == BEFORE["ips"][0]
    assert [ip["interface"] for ip in result["ips"][1:]] == [1 + ip["interface"] for ip in own["ips"]]
    assert result["routes"][0] == BEFORE["routes"][0] and result["dns"] == BEFORE["dns"]
    node.delete("a", prevResult=json.loads(json.dumps(result)))
    assert [link["ifname"] for link in host.ip("link", "show", netns="a")] == ["lo"]
