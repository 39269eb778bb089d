"""dummy: a link of the pod with addresses, and the state after failures, DEL and GC. The stock kernel has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tests import node as nodes
from tests.node import host_local, sysctl


class Node(nodes.Node):
    """A node with a dual-stack network of dummy."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {**nodes.Node.DEFAULTS, "type": "dummy", "ipam": host_local()}

    def names(self, pod: str) -> list[str]:
        return [link["ifname"] for link in self.host.ip("link", "show", netns=pod)]

    def leases(self) -> set[str]:
        store = self.host.root / "var/lib/cni/networks/net"
        return {path.name for path in store.glob("*") if path.name[0].isdigit() or ":" in path.name}


@pytest.mark.kernel_dummy
def test_the_pod_gets_its_own_addresses(node: Node) -> None:
    """Both families answer when ADD does; a link of that name on the host does not matter. The keys take effect."""
    node.host.run("ip", "link", "add", "eth0", "type", "dummy")
    keys = {"mtu": 1400, "runtimeConfig": {"mac": "02:00:00:00:00:01"}, "dns": {"search": ["example.org"]}}
    result = node.add("a", keys)
    assert result["interfaces"] == [
        {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/a", "mtu": 1400}
    ]
    assert result["dns"] == keys["dns"]
    (link,) = node.host.ip("-d", "link", "show", "eth0", netns="a")
    assert (link["linkinfo"]["info_kind"], link["mtu"], link["ifalias"]) == ("dummy", 1400, "pycni:net/a/eth0")
    assert "UP" in link["flags"]
    node.host.run("ip", "-n", "a", "link", "set", "lo", "up")
    assert node.pings("a", "10.1.0.2") and node.pings("a", "fd00:1::2")
    assert sysctl(node.host, "ipv6/conf/eth0/keep_addr_on_down", "a") == "1"
    assert node.check("a", keys) == ""
    for loss, words in (
        ("addr del 10.1.0.2/24 dev eth0", "address 10.1.0.2/24 is missing on eth0"),
        ("link set eth0 down", "link eth0 is down in /run/netns/a"),
        ("link del eth0", "link eth0 is missing in /run/netns/a"),
    ):
        node.host.run("ip", "-n", "a", *loss.split())
        assert words in node.check("a", keys)


def test_without_ipam(node: Node) -> None:
    node.refused("a", 7, '"ipam" is required', ipam=...)


@pytest.mark.kernel_dummy
@pytest.mark.row(3, 15, 16)
def test_delete(node: Node) -> None:
    """With and without the namespace, twice; GC removes what is not valid; a second ADD leaves the first one's link."""
    for how in ({}, {"netns": ""}):
        node.add("a")
        node.refused("a", 999, "link eth0 already exists in /run/netns/a")
        for _ in range(2):
            node.delete("a", **how)
        assert node.names("a") == ["lo"] and node.leases() == set()
    node.add("a")
    node.add("b")
    assert node.call("STATUS", "").status == 0
    node.collect("a")
    assert (node.names("a"), node.names("b")) == (["lo", "eth0"], ["lo"])
    assert node.leases() == set(node.addresses("a"))
