"""ptp: addresses and routes of both ends, packets between them, masquerading, and the state after failures, DEL and GC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tests import node as nodes
from tests.node import V4, V6, host_local, sysctl
from tests.system import pod_network

ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
# A host beyond the node that knows no way to the pods; it prints the address of each client.
OUTSIDE = """
ip netns add outside
ip link add uplink up type veth peer name eth0 netns outside
ip address add 192.0.2.1/24 dev uplink
ip address add fd00:99::1/64 dev uplink nodad
ip -n outside address add 192.0.2.2/24 dev eth0
ip -n outside address add fd00:99::2/64 dev eth0 nodad
ip -n outside link set eth0 up
"""
SERVER = """
import socket
server = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    client, (address, *_) = server.accept()
    client.sendall(address.removeprefix("::ffff:").encode())
    client.close()
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 7), timeout=5) as server:
    print(server.recv(100).decode())
"""


class Node(nodes.Node):
    """A node with a dual-stack network of ptp and default routes."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **nodes.Node.DEFAULTS, "type": "ptp", "ipam": host_local(routes=ROUTES),
    }  # fmt: skip

    def port(self, pod: str) -> str:
        return str(self.results[pod]["interfaces"][0]["name"])

    def routes(self, pod: str | None, link: str) -> set[str]:
        """Return a link's routes as `destination via gateway src source scope`, but for its own and link-local ones."""
        found = self.host.ip("-4", "route", "show", "dev", link, netns=pod)
        found += self.host.ip("-6", "route", "show", "dev", link, netns=pod)
        kept = [one for one in found if not one["dst"].startswith("fe80") and (pod or one.get("protocol") != "kernel")]
        words = {"gateway": "via", "prefsrc": "src", "scope": "scope"}
        return {
            " ".join([one["dst"], *(f"{words[k]} {one[k]}" for k in words if one.get(k, "global") != "global")])
            for one in kept
        }

    def addresses_of(self, pod: str | None, link: str) -> set[str]:
        (shown,) = self.host.ip("address", "show", link, netns=pod)
        assert not any(one.get("tentative") for one in shown["addr_info"] if one["scope"] == "global")
        kept = [one for one in shown["addr_info"] if not one["local"].startswith("fe80")]
        return {f"{one['local']}/{one['prefixlen']}" for one in kept}

    def leases(self) -> set[str]:
        """Return the leased addresses of the network."""
        store = self.host.root / "var/lib/cni/networks/net"
        return {path.name for path in store.glob("*") if path.name[0].isdigit() or ":" in path.name}

    def source_at(self, pod: str, address: str) -> str:
        """Return the address that a server beyond the node sees of a pod."""
        inside = ("ip", "netns", "exec", pod, "python3", "-c", CLIENT, address)
        return self.host.run(*inside).stdout.strip()

    def answers(self, address: str) -> bool:
        return self.host.run("ping", "-n", "-c1", "-W1", address, check=False).returncode == 0


def test_both_ends(node: Node) -> None:
    """Addresses, routes and sysctls as the reference makes them."""
    result = node.add("a", mtu=1400)
    port = node.port("a")
    assert [one["name"] for one in result["interfaces"]] == [port, "eth0"]
    assert [one["mtu"] for one in result["interfaces"]] == [1400, 1400]
    assert result["ips"] == [
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
        {"address": "fd00:1::2/64", "gateway": "fd00:1::1", "interface": 1},
    ]
    assert node.addresses_of("a", "eth0") == {"10.1.0.2/24", "fd00:1::2/64"}
    assert node.addresses_of(None, port) == {"10.1.0.1/32", "fd00:1::1/128"}
    assert node.routes("a", "eth0") == {
        "default via 10.1.0.1", "10.1.0.0/24 via 10.1.0.1 src 10.1.0.2", "10.1.0.1 src 10.1.0.2 scope link",
        "default via fd00:1::1", "fd00:1::/64 via fd00:1::1 src fd00:1::2", "fd00:1::1 src fd00:1::2",
    }  # fmt: skip
    assert node.routes(None, port) == {"10.1.0.2 scope host", "fd00:1::2"}
    assert (sysctl(node.host, "ipv4/ip_forward"), sysctl(node.host, "ipv6/conf/all/forwarding")) == ("1", "1")
    for pod, link in (("a", "eth0"), (None, port)):
        assert sysctl(node.host, f"ipv6/conf/{link}/accept_ra", pod) == "0"
    assert sysctl(node.host, "ipv6/conf/eth0/keep_addr_on_down", "a") == "1"
    assert node.check("a") == ""


@pytest.mark.parametrize("subnets", [(V4,), (V6,), (V4, V6)], ids=["IPv4", "IPv6", "both"])
def test_packets_pass(node: Node, subnets: tuple[str, ...]) -> None:
    """When ADD answers: the host a pod, a pod the host by its gateway, pods each other; each with one packet."""
    keys = {"ipam": host_local(*subnets, routes=ROUTES[: len(subnets)] if subnets[0] == V4 else ROUTES[1:])}
    first, second = node.add("a", keys), node.add("b", keys)
    for ip in first["ips"]:
        assert node.answers(ip["address"].partition("/")[0])
        assert node.pings("a", ip["gateway"])
    for ip in second["ips"]:
        assert node.pings("a", ip["address"].partition("/")[0])
    assert node.check("a", keys) == node.check("b", keys) == ""


@pytest.mark.parametrize("backend", ["", "nftables", "iptables"])
def test_masquerading(node: Node, backend: str) -> None:
    """Packets beyond the pods' network get the node's address, others keep the pod's; without ipMasq all do."""
    node.host.run("sh", "-ec", OUTSIDE)
    keys = {"ipMasq": True, **({"ipMasqBackend": backend} if backend else {})}
    node.add("a", keys)
    node.add("b", keys)
    node.serve("outside", SERVER)
    node.serve("b", SERVER)
    assert (node.source_at("a", "192.0.2.2"), node.source_at("a", "fd00:99::2")) == ("192.0.2.1", "fd00:99::1")
    assert (node.source_at("a", "10.1.0.3"), node.source_at("a", "fd00:1::3")) == ("10.1.0.2", "fd00:1::2")
    assert node.check("a", keys) == ""
    node.host.run("nft", "flush", "ruleset")
    assert node.check("a", keys) != ""
    node.delete("a", keys)
    node.add("c")
    assert not node.pings("c", "192.0.2.2")


def test_masquerading_ends_with_the_pod(node: Node) -> None:
    """By either backend. DEL's configuration need not say so, and the pod's namespace need not exist."""
    for backend in ("nftables", "iptables"):
        node.add("a", ipMasq=True, ipMasqBackend=backend)
        node.kill("a")
        node.delete("a", netns="")
        assert "10.1.0.2" not in node.host.run("nft", "list", "ruleset").stdout


def test_macs(node: Node) -> None:
    """The runtime's MAC before args.cni.mac before MAC= in CNI_ARGS, and without one the same each time."""
    asked = {"runtimeConfig": {"mac": "02:00:00:00:00:01"}, "args": {"cni": {"mac": "02:00:00:00:00:02"}}}
    for pod, keys in (("a", asked), ("b", {"args": asked["args"]})):
        result = node.add(pod, keys)
        wanted = "02:00:00:00:00:01" if pod == "a" else "02:00:00:00:00:02"
        assert result["interfaces"][1]["mac"] == wanted
        assert node.check(pod, keys) == ""
    assert node.add("c", args="MAC=02:00:00:00:00:03;IgnoreUnknown=1")["interfaces"][1]["mac"] == "02:00:00:00:00:03"
    first = node.add("d")["interfaces"]
    node.delete("d")
    assert [one["mac"] for one in node.add("d")["interfaces"]] == [one["mac"] for one in first]


def test_two_interfaces_of_one_network(node: Node) -> None:
    """The reference fails at the second one's IPv6 routes."""
    node.add("a")
    second = node.add("a", ifname="eth1")
    assert node.check("a", ifname="eth1") == ""
    for address in ("10.1.0.2", "fd00:1::2", *node.addresses("a")):
        assert node.answers(address)
    node.delete("a")
    assert node.links("veth") == [second["interfaces"][0]["name"]]
    assert node.check("a", ifname="eth1") == "" and all(map(node.answers, node.addresses("a")))


def test_dns(node: Node) -> None:
    dns = {"nameservers": ["10.1.0.1"], "search": ["example.org"]}
    assert node.add("a", dns=dns)["dns"] == dns


def test_without_ipam(node: Node) -> None:
    """The pod gets the link, up and without addresses."""
    result = node.add("a", ipam=...)
    assert "ips" not in result and "UP" in node.host.ip("link", "show", "eth0", netns="a")[0]["flags"]
    assert node.check("a", ipam=...) == ""
    node.call("STATUS", "", ipam=...)
    node.delete("a", ipam=...)
    assert node.links("veth") == []


def test_routes_of_the_configuration(node: Node) -> None:
    """With a gateway of their own, or by that of the pod's address; in the table that they name."""
    routes = [{"dst": "192.0.2.0/24"}, {"dst": "198.51.100.0/24", "gw": "10.1.0.1"}, {"dst": "fd00:5::/64"}]
    node.add("a", ipam=host_local(routes=routes))
    found = node.routes("a", "eth0")
    assert {"192.0.2.0/24 via 10.1.0.1", "198.51.100.0/24 via 10.1.0.1", "fd00:5::/64 via fd00:1::1"} <= found


FIRST = {"address": "10.1.0.10/24", "gateway": "10.1.0.1"}
FAKE: dict[str, Any] = {"ipam": {"type": "fake"}}


def fake_ipam(node: Node, ips: list[dict[str, Any]]) -> str:
    """Make an IPAM plugin that returns these addresses, and notes DEL in /run/released; return a CNI_PATH with it."""
    result = json.dumps({"cniVersion": "1.0.0", "ips": ips})
    script = f"#!/bin/sh\ncase $CNI_COMMAND in ADD) echo '{result}' ;; DEL) : >/run/released ;; esac\n"
    (node.host.root / "run/fake").write_text(script)
    node.host.run("chmod", "+x", "/run/fake")
    return f"{node.host.bin_dir}:/run"


def is_released(node: Node) -> bool:
    return (node.host.root / "run/released").exists()


def test_addresses_of_one_network(node: Node) -> None:
    """Two addresses with one gateway share its routes."""
    path = fake_ipam(node, [FIRST, FIRST | {"address": "10.1.0.20/24"}])
    node.add("a", FAKE, path=path)
    assert node.answers("10.1.0.10") and node.answers("10.1.0.20")
    assert node.addresses_of(None, node.port("a")) == {"10.1.0.1/32"}
    assert node.check("a", FAKE, path=path) == ""


def test_an_address_without_a_network(node: Node) -> None:
    """A /32 and a /128 have a route to the gateway alone."""
    ips = [{"address": "10.1.0.10/32", "gateway": "10.9.9.1"}, {"address": "fd00:1::10/128", "gateway": "fd00:9::1"}]
    path = fake_ipam(node, ips)
    node.add("a", FAKE, path=path)
    assert node.answers("10.1.0.10") and node.answers("fd00:1::10") and node.pings("a", "10.9.9.1")
    own = {"fd00:1::10"}  # of the kernel
    assert node.routes("a", "eth0") - own == {"10.9.9.1 src 10.1.0.10 scope link", "fd00:9::1 src fd00:1::10"}
    assert node.check("a", FAKE, path=path) == ""


@pytest.mark.parametrize(("ips", "words"), [
    ([], "missing IP config"),
    ([{"address": "10.1.0.10/24"}], 'fake returned 10.1.0.10/24 with "gateway" missing'),
    ([FIRST, {"address": "fd00:1::10/64"}], 'fake returned fd00:1::10/64 with "gateway" missing'),
    ([FIRST | {"gateway": "10.1.0.10"}], 'with "gateway" 10.1.0.10'),
    ([FIRST | {"gateway": "fd00:1::1"}], 'with "gateway" fd00:1::1'),
])  # fmt: skip
@pytest.mark.row(10, 11)
def test_an_ipam_answer_that_does_not_do(node: Node, ips: list[dict[str, Any]], words: str) -> None:
    """It is refused by name, and released; the reference passes a missing gateway to the kernel, and leaks no address."""
    node.refused("a", 999, words, FAKE, path=fake_ipam(node, ips))
    assert is_released(node)


@pytest.mark.parametrize(("keys", "words"), [
    ({"mtu": 67}, '"mtu": 67 must be 0 or at least 68'), ({"mtu": "1400"}, '"mtu"'), ({"mtu": 65536}, '"mtu"'),
    ({"ipMasq": "yes"}, '"ipMasq"'), ({"ipMasqBackend": "ipvs"}, '"ipMasqBackend"'), ({"dns": {"search": 1}}, '"dns"'),
    ({"ipam": {"type": "absent"}}, '"ipam.type"'), ({"ipam": []}, '"ipam"'), ({"ipam": {"type": "ptp"}}, '"ipam.type"'),
    ({"runtimeConfig": {"mac": "x"}}, '"runtimeConfig.mac"'),
])  # fmt: skip
def test_a_configuration_that_cannot_be_used(node: Node, keys: dict[str, Any], words: str) -> None:
    node.refused("a", 7, words, keys)


def test_ipv6_that_is_impossible(node: Node) -> None:
    """The error names the cause, and nothing is left."""
    node.refused("a", 999, "its MTU is 1000 bytes and IPv6 needs 1280", mtu=1000)
    assert node.call("STATUS", "", mtu=1000).code == 50
    node.add("b", mtu=1000, ipam=host_local(V4, routes=ROUTES[:1]))


def test_ipv6_that_new_links_do_not_have(node: Node) -> None:
    """disable_ipv6 of the node's and the pod's new links is overridden for a pod that gets an IPv6 address."""
    node.netns("a")
    switch = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"
    node.host.run("sh", "-c", switch)
    node.host.run("ip", "netns", "exec", "a", "sh", "-c", switch)
    node.add("a")
    assert node.answers("fd00:1::2") and node.pings("a", "fd00:1::1")


@pytest.mark.parametrize("step", ["interface", "answer"])
@pytest.mark.row(10)
def test_a_failing_add_leaves_nothing(node: Node, step: str) -> None:
    """The pod has a link of that name, or nobody reads the answer. The fault tests let each system call fail."""
    node.netns("a")
    if step == "interface":
        node.host.run("ip", "-n", "a", "link", "add", "eth0", "type", "ifb")
    before = node.host.snapshot(["a"])
    prefix = ("sh", "-c", 'exec "$0" >&-') if step == "answer" else ()
    assert node.call("ADD", "a", ipMasq=True, prefix=prefix).status == 1
    after = node.host.snapshot(["a"])
    assert node.links("veth") == [] and node.leases() == set()
    assert after["pods"] == before["pods"] and after["host"]["routes"] == before["host"]["routes"]


def test_delete_is_idempotent(node: Node) -> None:
    """With and without the namespace and the result, and when nothing was ever there."""
    node.delete("none", netns="")
    for how in ({}, {"netns": ""}, {"netns": "/run/netns/gone"}):
        result = node.add("a", ipMasq=True)
        for _ in range(2):
            node.delete("a", **how)
        node.delete("a", prevResult=result, **how)
        assert node.links("veth") == [] and node.leases() == set()
    assert node.host.ip("link", "show", netns="a")[0]["ifname"] == "lo"


def test_a_collection(node: Node) -> None:
    """GC removes invalid attachments of its network, and nothing of others."""
    for pod in ("kept", "lost"):
        node.add(pod, ipMasq=True)
    other = node.add("other", name="another", ipam=host_local("10.2.0.0/24"))
    node.collect("kept", ipMasq=True)
    assert set(node.links("veth")) == {node.port("kept"), other["interfaces"][0]["name"]}
    assert node.check("kept", ipMasq=True) == ""
    assert (
        node.leases() == {"10.1.0.2", "fd00:1::2"} and "10.1.0.3" not in node.host.run("nft", "list", "ruleset").stdout
    )


LOSSES = {
    "ip -n a link set eth0 down": "link eth0 is down in /run/netns/a",
    "ip -n a link del eth0": "link eth0 is missing in /run/netns/a",
    "ip -n a link set eth0 address 02:00:00:00:00:77": "link eth0 has MAC 02:00:00:00:00:77",
    "ip -n a addr del 10.1.0.2/24 dev eth0": "address 10.1.0.2/24 is missing on eth0",
    "ip -n a addr del fd00:1::2/64 dev eth0": "address fd00:1::2/64 is missing on eth0",
    "ip -n a route del default": "route to 0.0.0.0/0 is missing in /run/netns/a",
    "ip -n a route del 10.1.0.0/24": "route to 10.1.0.0/24 via 10.1.0.1 is missing on eth0 in /run/netns/a",
    "ip -n a route del 10.1.0.1": "route to 10.1.0.1/32 is missing on eth0 in /run/netns/a",
    "ip -n a -6 route del fd00:1::1": "route to fd00:1::1/128 is missing on eth0 in /run/netns/a",
    "ip link set PORT down": "link PORT is down",
    "ip addr del 10.1.0.1/32 dev PORT": "gateway address 10.1.0.1 is missing on PORT",
    "ip addr del fd00:1::1/128 dev PORT": "gateway address fd00:1::1 is missing on PORT",
    "ip route del 10.1.0.2": "route to 10.1.0.2/32 is missing on PORT",
    "ip -6 route del fd00:1::2": "route to fd00:1::2/128 is missing on PORT",
    "echo 0 >/proc/sys/net/ipv4/ip_forward": "the host does not forward: sysctl net/ipv4/ip_forward is 0",
    "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding": "the host does not forward: sysctl net/ipv6/conf/all/forwarding is 0",
    "rm /var/lib/cni/networks/net/10.1.0.2": "10.1.0.2 of prevResult not leased to container a eth0",
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
def test_check_names_each_loss(node: Node, loss: str) -> None:
    node.add("a")
    assert node.check("a") == ""
    node.host.run("sh", "-ec", loss.replace("PORT", node.port("a")))
    assert LOSSES[loss].replace("PORT", node.port("a")) in node.check("a")


def test_a_stale_route_does_not_win(node: Node) -> None:
    """A pod was never deleted: packets to its address go to the pod that has it now."""
    node.add("a")
    node.host.run("sh", "-c", "rm -r /var/lib/cni/networks/net /var/lib/cni/networks/.pycni")
    node.add("b")
    assert node.addresses("a") == node.addresses("b")
    for address in node.addresses("b"):
        assert node.host.ip("route", "get", address)[0]["dev"] == node.port("b")


def test_status(node: Node) -> None:
    assert node.call("STATUS", "", ipMasq=True).status == 0
    tiny = host_local("10.1.0.0/30")
    node.add("a", ipam=tiny)
    assert node.call("STATUS", "", ipam=tiny).code == 50
    assert node.links("veth") == [node.port("a")]


@pytest.mark.parametrize("first", ["ours", "reference"])
def test_hand_over(node: Node, reference_bin: str, first: str) -> None:
    """The other suite checks and deletes a pod; nothing is left."""
    keys = {"cniVersion": "1.0.0", "ipMasq": True, "ipMasqBackend": "iptables"}
    adds, ends = (None, reference_bin) if first == "ours" else (reference_bin, None)
    result = node.add("a", keys, bin_dir=adds)
    assert node.check("a", keys, bin_dir=ends) == ""
    node.delete("a", keys, prevResult=result, bin_dir=ends)
    assert node.links("veth") == [] and "10.1.0.2" not in node.host.run("iptables-save").stdout
    assert node.leases() == set()


def test_cnitool_knows_it(node: Node) -> None:
    """validate has no complaint, show draws the pod behind its link, doctor names a loss."""
    plugin = {key: value for key, value in node.config.items() if key not in ("cniVersion", "name")}
    tool = pod_network.Node(node.host)
    tool.configure({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]})
    result = tool.attach("web1", "web")
    assert tool.cnitool("validate", "--bin-dir", node.host.bin_dir).stdout == ""
    (port,) = tool.show()["unbridged"]
    assert (port["name"], port["pod"]["name"]) == (result["interfaces"][0]["name"], "web")
    assert port["pod"]["addresses"] == ["10.1.0.2/24", "fd00:1::2/64"]
    tool.cnitool("show", "--mermaid")
    node.host.run("ip", "-n", "web1", "link", "set", "lo", "up")
    healthy = tool.cnitool("doctor", "--bin-dir", node.host.bin_dir, check=False)
    assert healthy.returncode == 0 and "0 errors, 0 warnings" in healthy.stdout, healthy.stdout
