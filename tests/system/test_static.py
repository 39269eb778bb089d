"""static: the sources of addresses and their precedence, gateways, and addresses that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tests import node as nodes

ADDRESSES = [
    {"address": "10.0.0.5/24"}, {"address": "10.0.1.5/24", "gateway": "10.0.1.1"},
    {"address": "fd00::5/64", "gateway": "fe80::1"},
]  # fmt: skip
OWN = ["10.0.0.5/24", "10.0.1.5/24 10.0.1.1", "fd00::5/64 fe80::1"]


class Node(nodes.Node):
    """A node with a network whose pods have the same addresses."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {**nodes.Node.DEFAULTS, "type": "static"}

    def given(self, ipam: Mapping[str, Any] = {}, keys: Mapping[str, Any] = {}, *, args: str = "") -> list[str]:
        """Return the addresses that an ADD returns, each with its gateway."""
        result = self.add("a", {"ipam": {"type": "static", "addresses": ADDRESSES, **ipam}, **keys}, args=args)
        ips = result["ips"]
        return [" ".join([one["address"], *([one["gateway"]] if "gateway" in one else [])]) for one in ips]


def args(*ips: str) -> dict[str, Any]:
    return {"args": {"cni": {"ips": ips}}}


def runtime(*ips: str) -> dict[str, Any]:
    return {"runtimeConfig": {"ips": ips}}


def test_the_last_source_with_addresses_counts(node: Node) -> None:
    """CNI_ARGS add to the configuration's; args.cni replace both; the runtime's replace all."""
    assert node.given() == OWN
    environment = "IP=10.0.2.5/24, 10.0.3.5/24;GATEWAY=10.0.2.1,10.0.0.1"
    assert node.given(args=environment) == [*OWN, "10.0.2.5/24 10.0.2.1", "10.0.3.5/24"]
    assert node.given({}, args("10.0.4.5/24"), args=environment) == ["10.0.4.5/24"]
    both = args("10.0.4.5/24") | runtime("10.0.6.5/24", "fd00:6::5/64")
    assert node.given({}, both) == ["10.0.6.5/24", "fd00:6::5/64"]
    assert node.given({"addresses": None}, runtime("10.0.6.5/24")) == ["10.0.6.5/24"]


def test_an_address_without_a_length_takes_that_of_its_network(node: Node) -> None:
    """It takes the configured gateway with it, as podman requests addresses."""
    assert node.given({}, runtime("10.0.1.9", "fd00::9")) == ["10.0.1.9/24 10.0.1.1", "fd00::9/64 fe80::1"]
    twice = [*ADDRESSES, {"address": "10.0.0.6/16"}]
    for wanted, addresses in (("10.9.0.9", ADDRESSES), ("10.0.0.9", twice)):
        keys = {"ipam": {"addresses": addresses}, **runtime(wanted)}
        node.refused("a", 7, f'"runtimeConfig.ips": "{wanted}" has no prefix length', keys)
    node.refused("a", 7, "none of them holds it", {"ipam": {}, **args("10.0.0.5")})


def test_gateways_serve_requested_addresses(node: Node) -> None:
    ipam = {"addresses": [], "gateways": ["10.0.0.1", "fe80::1"]}
    assert node.given(ipam, runtime("10.0.0.5/24", "fd00::5/64")) == ["10.0.0.5/24 10.0.0.1", "fd00::5/64 fe80::1"]
    assert node.given(ipam, args("10.0.0.5/32", "10.7.0.5/24")) == ["10.0.0.5/32 10.0.0.1", "10.7.0.5/24"]
    assert node.given(ipam, args="IP=10.0.0.5/24") == ["10.0.0.5/24 10.0.0.1"]
    node.refused("a", 7, '"ipam.gateways": .* has two of IPv4', {"ipam": {"gateways": ["10.0.0.1", "10.0.0.2"]}})


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ("is the address of its network", {"address": "10.0.0.0/24"}),
        ("is the address of its network", {"address": "fd00::/64"}),
        ("is the broadcast address", {"address": "10.0.0.255/24"}),
        ("is not a unicast address", {"address": "224.0.0.5/24"}),
        ("is not a unicast address", {"address": "::/128"}),
        ("is there twice", {"address": "10.0.1.5/16"}),
        ("must be an address in CIDR notation", {"address": "10.0.0.5/33"}),
        ("must be an address in CIDR notation", {"address": "10.0.0.5"}),
        ("is required", {"gateway": "10.0.0.1"}),
        ("is not in the network of 10.0.0.5/24", {"address": "10.0.0.5/24", "gateway": "10.7.0.1"}),
        ("is not in the network of 10.0.0.5/24", {"address": "10.0.0.5/24", "gateway": "fd00::1"}),
        ("is the address itself", {"address": "10.0.0.5/24", "gateway": "10.0.0.5"}),
    ],
)
def test_an_unusable_address_is_refused_by_name(node: Node, words: str, address: dict[str, str]) -> None:
    ipam = {"addresses": [ADDRESSES[1], address]}
    node.refused("a", 7, rf'"ipam.addresses\[1\].*{words}', {"ipam": ipam})


def test_usable_addresses_at_the_edges(node: Node) -> None:
    edges = ["10.0.0.0/31", "10.0.1.1/32", "fd00::/127", "fd00:1::5/128", "10.2.0.5/24 10.3.0.1"]
    addresses = [{"address": one} for one in edges[:-1]] + [{"address": "10.2.0.5/24", "gateway": "10.3.0.1"}]
    assert node.given({"addresses": addresses, "routes": [{"dst": "10.3.0.1/32"}]}) == edges


def test_no_address_and_old_versions_and_arguments(node: Node) -> None:
    node.refused("a", 7, '"ipam.addresses" is required', {"ipam": {}})
    node.refused("a", 4, "IP '10.0.0' must be an address", {"ipam": {}}, args="IP=10.0.0")
    node.refused("a", 4, "GATEWAY 'x' is not an address", {"ipam": {}}, args="GATEWAY=x")
    node.refused("a", 7, r'"ipam.routes\[0\]"', {"ipam": {"routes": [{"gw": "10.0.0.1"}]}})
    node.refused("a", 7, '"ipam.dns"', {"ipam": {"dns": {"nameservers": "1.1.1.1"}}})
    node.config["cniVersion"] = "0.2.0"
    node.refused("a", 7, "more than 1 address per family", {"ipam": {"addresses": ADDRESSES}})


def test_routes_and_dns(node: Node) -> None:
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.0.0.7", "mtu": 1400, "advmss": 1300, "priority": 7,
                                     "table": 100, "scope": 253}]  # fmt: skip
    dns = {"nameservers": ["1.1.1.1"], "search": ["a.example"]}
    node.given({"routes": routes, "dns": dns})
    assert (node.results["a"]["routes"], node.results["a"]["dns"]) == (routes, dns)
    node.config["cniVersion"] = "1.0.0"
    node.given({"routes": routes})
    assert node.results["a"]["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.0.0.7"}]


def test_check_del_gc_and_status(node: Node) -> None:
    ipam = {"ipam": {"addresses": ADDRESSES}}
    node.add("a", ipam)
    assert node.check("a", ipam) == ""
    fewer = [*node.results["a"]["ips"][:1], {"address": "10.0.1.5/24", "gateway": "10.0.1.2"}]
    answer = node.call("CHECK", "a", ipam, prevResult={**node.results["a"], "ips": fewer})
    assert answer.json["msg"] == (
        "static: the gateway of 10.0.1.5/24 is 10.0.1.2 in prevResult, not 10.0.1.1; address fd00::5/64 is not in prevResult"
    )
    for _ in range(2):
        node.delete("a", {"ipam": {"addresses": "nonsense"}}, netns="")
    node.collect("b", **ipam)
    assert node.call("STATUS", "", ipam).status == 0
    assert node.call("STATUS", "", {"ipam": {"addresses": [{"address": "10.0.0.0/24"}]}}).code == 7


def test_a_pod_of_bridge_has_the_addresses_and_route_extras(node: Node) -> None:
    """The main plugin gives the routes their MTU, priority and table."""
    ipam = {
        "type": "static", "addresses": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1"}, {"address": "fd00::5/64"}],
        "routes": [{"dst": "0.0.0.0/0", "mtu": 1300, "advmss": 1200, "priority": 7}, {"dst": "10.9.0.0/16", "table": 300}],
    }  # fmt: skip
    node.add("a", {"type": "bridge", "isGateway": True, "ipam": ipam})
    (default,) = node.host.ip("route", "show", "default", netns="a")
    assert (default["gateway"], default["metric"]) == ("10.0.0.1", 7)
    assert default["metrics"] == [{"mtu": 1300, "advmss": 1200}]
    assert [one["dst"] for one in node.host.ip("route", "show", "table", "300", netns="a")] == ["10.9.0.0/16"]
    assert node.pings("a", "10.0.0.1") and node.check("a", {"type": "bridge", "isGateway": True, "ipam": ipam}) == ""
    assert node.call("STATUS", "", {"type": "bridge", "isGateway": True, "ipam": ipam}).status == 0
