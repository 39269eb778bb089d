"""dhcp: leases of DHCPv6 beside those of DHCP, with the routes of a router."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.dhcp_lan import IPV6, STATELESS_IPV6
from tests.pretend import until
from tests.system.dhcp_node import Node as DhcpNode

ROUTER = "--dhcp-option=option:router,10.9.0.1"


class Node(DhcpNode):
    """A node whose pods lease addresses of both families."""

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self.config["ipam"] = {"type": "dhcp", "dhcpv6": "stateful"}

    def default_routes(self, pod: str) -> set[tuple[str, str]]:
        """Return the gateway and the origin of the pod's IPv6 default routes."""
        found = self.host.ip("-6", "route", "show", "default", netns=pod)
        return {(one["gateway"], one["protocol"]) for one in found}

    def router(self) -> str:
        """Return the link-local address of the LAN's router."""
        (shown,) = self.host.ip("-6", "address", "show", "eth0", "scope", "link", netns="lan")
        return str(shown["addr_info"][0]["local"])


def test_a_pod_gets_leases_of_both_families(node: Node) -> None:
    """One ADD: addresses and DNS settings of both servers, routes of the router, a CHECK that agrees, two RELEASEs."""
    node.serve_lan(ROUTER, "--dhcp-option=option:dns-server,10.9.0.53", *IPV6)
    node.start()
    result = node.add("a")
    ipv4, ipv6 = (ip["address"] for ip in result["ips"])
    assert node.leases() == {ipv4.partition("/")[0], ipv6.partition("/")[0]}
    assert ipv6.startswith("fd09::1") and ipv6.endswith("/128")
    assert "gateway" not in result["ips"][1]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]
    assert result["dns"] == {"nameservers": ["10.9.0.53", "fd09::53"], "search": ["six.example", "b.six.example"]}
    assert (node.on_link("a"), node.on_link("a", 6)) == ({ipv4}, {ipv6})
    until(lambda: node.default_routes("a") == {(node.router(), "ra")})
    assert node.pings("a", "fd09::1")
    assert node.check("a") == ""
    node.delete("a")
    node.delete("a")
    until(lambda: node.leases() == set())
    assert (node.heard("DHCPRELEASE"), node.records()) == (2, [])
