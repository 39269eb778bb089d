"""A node that ran kubenet: `cnitool kubenet` makes its network, with all of kubenet's effects.

`cnitool pod` acts as a kubelet: loopback, then the default network.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.pretend import PATH, PretendHost
from tests.system import hostport_nodes
from tests.system.test_masquerade import OUTSIDE

CIDRS = ("10.1.0.0/24", "fd00:1::/112")
NODE, NODE_6 = "192.0.2.1", "fd00:99::1"  # the node's own addresses, of its uplink
MASQUERADED = {"172.16.5.5": NODE, "fd00:55::5": NODE_6}  # a destination, and the source that it sees
LEFT_ALONE = ("10.1.9.9", "fd00:1::9:9", NODE, NODE_6)
MAPPED = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": protocol} for protocol in ("tcp", "udp")]
}


class Node(hostport_nodes.Node):
    """A node with a neighbour `outside`, and pods that cnitool sets up."""

    def __init__(self, host: PretendHost, *options: str) -> None:
        self.host = host
        self.where = {"host": "", "outside": "/run/netns/outside"}
        host.run("sh", "-ec", OUTSIDE)
        made = self.cnitool("kubenet", *options, *CIDRS).stdout
        host.run("mkdir", "-p", "/etc/cni/net.d")
        host.run("tee", "/etc/cni/net.d/10-kubenet.conflist", input=made)
        self.configuration = json.loads(made)

    def cnitool(
        self, *args: str, check: bool = True, cni_path: str = "", capabilities: Any = None
    ) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": PATH, "CNI_PATH": cni_path or self.host.bin_dir}
        if capabilities:
            variables["CAP_ARGS"] = json.dumps(capabilities)
        return self.host.run(f"{self.host.bin_dir}/cnitool", *args, check=check, env=variables)

    def up(self, pod: str, capabilities: Any = None, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        if pod not in self.where:
            self.where[pod] = self.host.netns(pod)
        return self.cnitool("pod", "up", self.where[pod], "--json", capabilities=capabilities, check=check)

    def down(self, pod: str) -> None:
        self.cnitool("pod", "down", self.where[pod])

    def addresses(self, pod: str) -> list[str]:
        found: list[str] = json.loads(self.cnitool("pod", "status", self.where[pod], "--json").stdout)["addresses"]
        return found

    def state(self) -> tuple[Any, ...]:
        """Return all that a pod may leave behind: links, rules, cached results, leases."""
        links = sorted(link["ifname"] for link in self.host.ip("link"))
        cached = self.host.run("find", "/var/lib/cni", "-path", "*/results/*").stdout
        leases = [path for path in self.host.snapshot()["files"] if re.search(r"/[0-9a-f.:]{6,}$", path)]
        return links, self.host.run("nft", "list", "ruleset").stdout, cached, leases


# -- waited for the pod CIDR; not ready without it or without bridge, host-local, loopback


@pytest.mark.parametrize("missing", ["loopback", "bridge", "host-local", "portmap", "bandwidth"])
def test_not_ready_without_a_plugin(node: Node, tmp_path: Path, missing: str) -> None:
    for plugin in {"loopback", "bridge", "host-local", "portmap", "bandwidth"} - {missing}:
        (tmp_path / plugin).symlink_to(Path(node.host.bin_dir, plugin))
    done = node.cnitool("pod", "up", node.host.netns("new"), cni_path=str(tmp_path), check=False)
    assert done.returncode == 1 and f"plugin {missing} not found" in done.stderr
    assert node.state()[0] == ["lo", "uplink"]


def test_not_ready_without_pod_cidr(node: Node) -> None:
    node.host.run("rm", "/etc/cni/net.d/10-kubenet.conflist")
    done = node.up("a", check=False)
    assert done.returncode == 1 and "/etc/cni/net.d" in json.loads(done.stdout)["msg"]
    node.host.run("tee", "/etc/cni/net.d/10-kubenet.conflist", input=json.dumps(node.configuration))
    node.up("a")  # the directory is read again
    assert node.addresses("a") == ["10.1.0.2", "fd00:1::2"]


@pytest.mark.parametrize("cidr", ["10.1.0.0", "10.1.0.5/24", "fd00:1::/129", ""])
def test_pod_cidr_that_is_none(host: PretendHost, cidr: str) -> None:
    done = host.run(f"{host.bin_dir}/cnitool", "kubenet", cidr, check=False, env={"PATH": PATH})
    assert done.returncode == 2 and not done.stdout and (cidr or "''") in done.stderr


def test_a_full_range_is_not_ready(host: PretendHost) -> None:
    """STATUS of the chain reports it before a pod is tried."""
    node = Node(host)
    small = json.dumps(node.configuration).replace("10.1.0.0/24", "10.1.0.0/30")
    host.run("tee", "/etc/cni/net.d/10-kubenet.conflist", input=small.replace('"1.0.0"', '"1.1.0"'))
    node.up("a")
    done = node.up("b", check=False)
    assert done.returncode == 1 and json.loads(done.stdout)["code"] == 50


# -- the MTU of the smallest link


def test_mtu(node: Node) -> None:
    node.host.run("ip", "link", "set", "uplink", "mtu", "1400")
    node.up("a")
    mtus = {link["ifname"]: link["mtu"] for link in (*node.host.ip("link"), *node.host.ip("link", netns="a"))}
    assert (mtus["cbr0"], mtus["eth0"]) == (1400, 1400)
    bridge = node.host.ip("addr", "show", "dev", "cbr0")[0]["addr_info"]
    assert [(one["local"], one["prefixlen"]) for one in bridge][:2] == [("10.1.0.1", 24), ("fd00:1::1", 112)]
    routes = [node.host.ip(family, "route", netns="a") for family in ("-4", "-6")]
    assert [[one["gateway"] for one in both if one["dst"] == "default"] for both in routes] == [
        ["10.1.0.1"], ["fd00:1::1"]
    ]  # fmt: skip


# -- one source NAT for the node: neither local traffic nor the non-masquerade CIDRs


def test_masquerading(host: PretendHost) -> None:
    node = Node(host, "--non-masquerade-cidr", "10.0.0.0/8", "--non-masquerade-cidr", "fd00:1::/64")
    node.up("a")
    own = dict(zip((4, 6), node.addresses("a"), strict=True))
    expected = {**MASQUERADED, **{address: own[6 if ":" in address else 4] for address in LEFT_ALONE}}
    servers = [("outside", "tcp", 7), ("host", "tcp", 7)]
    answers = node.probe(servers, [("a", "tcp", address, 7) for address in expected])
    assert dict(zip(expected, (seen for _, seen in answers), strict=True)) == expected
    node.host.run("nft", "flush", "ruleset")
    assert node.probe(servers, [("a", "tcp", "10.1.9.9", 7)])[0][1] == own[4]


# -- hairpin, or a promiscuous bridge with de-duplication


@pytest.mark.parametrize(
    ("mode", "options"),
    [("hairpin-veth", ()), ("hairpin-veth", ("--bridge-nf-call-iptables",)), ("promiscuous-bridge", ())],
    ids=["hairpin", "hairpin, seen by iptables", "promiscuous"],
)
def test_pod_that_calls_itself(host: PretendHost, mode: str, options: tuple[str, ...]) -> None:
    seen = Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
    if options and not seen:
        pytest.skip("br_netfilter is not loaded")
    if seen:
        host.run("sysctl", "-qw", *(f"net.bridge.bridge-nf-call-{name}=0" for name in ("iptables", "ip6tables")))
    node = Node(host, "--hairpin-mode", mode, *options)
    node.up("a", MAPPED)
    bridge = host.ip("link", "show", "cbr0")[0]
    assert ("PROMISC" in bridge["flags"]) == (mode == "promiscuous-bridge")
    # kubenet used ebtables for this
    assert ("table bridge pycni" in node.state()[1]) == (mode == "promiscuous-bridge")
    if options:
        assert bridge["linkinfo"]["info_data"]["nf_call_iptables"] == 1
    probes = [("a", protocol, address, 8080) for address in (NODE, NODE_6) for protocol in ("tcp", "udp")]
    answers = node.probe([("a", "tcp", 80), ("a", "udp", 80)], probes)
    assert [answer[0] for answer in answers] == ["a"] * 4


# -- no duplicate-address detection


def test_ipv6_address_is_there_at_once(node: Node) -> None:
    node.up("a")
    for netns, device in (("a", "eth0"), (None, "cbr0")):
        found = node.host.ip("-6", "addr", "show", "dev", device, netns=netns)[0]["addr_info"]
        assert found and not [one for one in found if one.get("tentative") and one["scope"] == "global"]
    assert node.host.run("ip", "netns", "exec", "a", "sysctl", "-n", "net.ipv6.conf.eth0.accept_dad").stdout == "0\n"


# -- host ports, and the whole taken down after a failed set-up


def test_host_ports(node: Node) -> None:
    node.up("a", MAPPED)
    servers = [(pod, protocol, 80) for pod in ("a",) for protocol in ("tcp", "udp")]
    flows = [(origin, protocol, address, 8080)
             for origin in ("outside", "host") for address in (NODE, NODE_6) for protocol in ("tcp", "udp")]  # fmt: skip
    assert [answer[0] for answer in node.probe(servers, flows)] == ["a"] * len(flows)
    before = node.state()
    taken = node.up("b", {"portMappings": MAPPED["portMappings"][:1]}, check=False)
    error = json.loads(taken.stdout)
    assert taken.returncode == 1 and "8080/tcp" in error["msg"] + error["details"]
    assert node.state() == before
    assert not [link for link in node.host.ip("link", netns="b") if link["ifname"] != "lo"]
    node.down("b")
    assert node.state() == before
    node.down("a")
    node.up("b", MAPPED)
    # a tracked UDP connection follows the port to its new pod
    answers = node.probe([("b", protocol, 80) for protocol in ("tcp", "udp")], flows)
    assert [answer[0] for answer in answers] == ["b"] * len(flows)


# -- shaping by the pod's annotations


def test_shaping(node: Node) -> None:
    empty = node.state()[0]
    limits = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 4_000_000, "egressBurst": 400_000}
    node.up("a", {"bandwidth": limits})
    shown = json.loads(node.host.run("tc", "-j", "qdisc").stdout)
    rates = {one["dev"][:4]: one["options"]["rate"] for one in shown if one["kind"] == "tbf"}
    assert sorted(rates.values()) == [500_000, 1_000_000] and rates["veth"] == 1_000_000  # bytes per second
    node.down("a")
    assert node.state()[0] == sorted([*empty, "cbr0"])


# -- tear-down tolerates missing parts


def test_tear_down(node: Node) -> None:
    node.up("a", MAPPED)
    node.down("a")
    nothing = node.state()
    assert nothing[2:] == ("", [])
    for _ in range(2):
        node.up("a", MAPPED)
        node.host.drop_netns("a")
        for _ in range(2):
            node.down("a")
        assert node.state() == nothing
        node.where["a"] = node.host.netns("a")
    del node.where["a"]
    node.up("never", MAPPED)
    node.host.run("ip", "link", "delete", "cbr0")
    node.host.run("nft", "flush", "ruleset")
    node.down("never")
    assert node.state()[2:] == ("", [])
