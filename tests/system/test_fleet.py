"""One pod in three networks of different plugins, and the networks that CRI-O, nerdctl and podman are shipped with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from shared.executables import PLUGINS
from tests.agent.running import Agent
from tests.node import host_local
from tests.plugins import Keys
from tests.pretend import PATH, PretendHost, until
from tests.system.macvlan_node import LAN

CONF_DIR = "/etc/cni/net.d"
BRIDGE: list[Keys] = [
    {
        "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True,
        "ipam": host_local("10.9.0.0/24", "fd00:9::/64"),
    }
]  # fmt: skip
MACVLAN: list[Keys] = [
    {
        "type": "macvlan", "master": "up0",
        "ipam": {
            "type": "host-local",
            "ranges": [
                [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "gateway": "10.1.0.254"}],
                [{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::10", "gateway": "fd00:1::fe"}],
            ],
        },
    },
    {"type": "sbr"},
]  # fmt: skip
PTP: list[Keys] = [{"type": "ptp", "ipam": host_local("10.3.0.0/24", "fd00:3::/64")}]
VLAN: list[Keys] = [{"type": "vlan", "master": "up0", "vlanId": 100, "ipam": host_local("10.3.0.0/24", "fd00:3::/64")}]
# The machine in the LAN is in the VLAN, too, with the network's gateway.
IN_VLAN = """
ip -n lan link add link eth0 name eth0.100 type vlan id 100
ip -n lan address add 10.3.0.1/24 dev eth0.100
ip -n lan address add fd00:3::1/64 dev eth0.100 nodad
ip -n lan link set eth0.100 up
"""
THIRD = [
    pytest.param((PTP, ":"), id="ptp"),
    pytest.param((VLAN, IN_VLAN), id="vlan", marks=pytest.mark.kernel_8021q),
]
# the networks in Multus's order, each with its interface and its machine
IFNAMES = {"pods": "eth0", "lan": "net1", "third": "net2"}
REACHED = {"pods": ("10.9.0.1", "fd00:9::1"), "lan": ("10.1.0.254", "fd00:1::fe"), "third": ("10.3.0.1", "fd00:3::1")}


class Tool:
    """cnitool on a pretend host with some networks."""

    def __init__(self, host: PretendHost, networks: Mapping[str, Mapping[str, Any]]) -> None:
        self.host = host
        host.run("mkdir", "-p", CONF_DIR)
        for network in networks.values():
            host.run("tee", f"{CONF_DIR}/{network['name']}.conflist", input=json.dumps(network))

    def say(self, *args: str, status: int = 0, **variables: str) -> str:
        """Return cnitool's output, which ends with this status."""
        argv = (f"{self.host.bin_dir}/cnitool", *args)
        done = self.host.run(*argv, env={"PATH": PATH, "CNI_PATH": self.host.bin_dir, **variables}, check=False)
        assert done.returncode == status, (args, done)
        return done.stdout + done.stderr


class Fleet(Tool):
    """Pods with an interface in each of three networks, as Multus attaches them."""

    def __init__(self, host: PretendHost, third: Sequence[Keys], links: str) -> None:
        plugins = {"pods": BRIDGE, "lan": MACVLAN, "third": third}
        self.plugins = plugins
        super().__init__(
            host, {name: {"cniVersion": "1.1.0", "name": name, "plugins": plugins[name]} for name in plugins}
        )
        host.run("sh", "-ec", f"{LAN}{links}")

    def call(self, verb: str, network: str, pod: str, *, status: int = 0) -> str:
        """Run a verb for one attachment of a pod."""
        where = (network, f"/run/netns/{pod}", "--container-id", pod)
        return self.say(verb, *where, status=status, CNI_IFNAME=IFNAMES[network])

    def attach(self, pod: str, networks: Iterable[str] = IFNAMES) -> None:
        """Make a pod and attach it to networks."""
        self.host.netns(pod)
        for network in networks:
            self.call("add", network, pod)

    def state(self, pod: str) -> tuple[Any, ...]:
        """Return the pod's links, addresses, routes and rules, and what the node keeps for pods."""
        rules = [self.host.ip(family, "rule", netns=pod) for family in ("-4", "-6")]
        return rules, self.host.snapshot([pod])["pods"][pod]

    def names(self, pod: str) -> list[str]:
        return [link["ifname"] for link in self.host.ip("link", netns=pod)]

    def reached(self, pod: str) -> set[str]:
        """Return the networks with a machine that answers the pod in both families."""
        inside = ("ip", "netns", "exec", pod, "ping", "-n", "-c1", "-W2")
        return {
            network
            for network, addresses in REACHED.items()
            if all(self.host.run(*inside, one, check=False).returncode == 0 for one in addresses)
        }

    def collect(self, network: str) -> None:
        """Execute GC of a network's plugins with no valid attachment."""
        for keys in self.plugins[network]:
            config = {"cniVersion": "1.1.0", "name": network, **keys, "cni.dev/valid-attachments": []}
            answer = self.host.cni(keys["type"], "GC", config)
            assert (answer.status, answer.stdout) == (0, ""), answer

    def remains(self) -> set[str]:
        """Return leases, notes, records, cached results, links of pods and elements of rules on the node."""
        snapshot = self.host.snapshot()
        files = {path for path in snapshot["files"] if not path.endswith(("/lock", "/boot", ".0", ".1"))}
        links = {
            name for name, link in snapshot["host"]["links"].items() if link["kind"] in ("veth", "macvlan", "vlan")
        }
        ruleset = json.loads(self.host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]
        sets = [one[kind] for one in ruleset for kind in ("set", "map") if kind in one]
        return files | links - {"up0"} | {f"{one['name']} {element}" for one in sets for element in one.get("elem", [])}


@pytest.fixture(params=THIRD)
def fleet(request: pytest.FixtureRequest, host: PretendHost) -> Fleet:
    return Fleet(host, *request.param)


def test_a_pod_in_three_networks(fleet: Fleet) -> None:
    """Each network has its interface, calls and CHECK; DEL in reverse order leaves the others working, then nothing."""
    states = []
    fleet.host.netns("a")
    for network, ifname in IFNAMES.items():
        states.append((fleet.remains(), fleet.state("a")))
        result = json.loads(fleet.call("add", network, "a"))
        assert {one["name"] for one in result["interfaces"] if "sandbox" in one} == {ifname}
    assert fleet.names("a") == ["lo", *IFNAMES.values()]
    assert fleet.reached("a") == {*IFNAMES}
    assert {rule["src"] for rules in fleet.state("a")[0] for rule in rules} == {"all", "10.1.0.10", "fd00:1::10"}
    for number, network in reversed([*enumerate(IFNAMES)]):
        assert [fleet.call("check", one, "a") for one in [*IFNAMES][: number + 1]] == [""] * (number + 1)
        assert fleet.call("del", network, "a") == fleet.call("del", network, "a") == ""
        assert (fleet.remains(), fleet.state("a")) == states[number]
    assert fleet.names("a") == ["lo"] and fleet.remains() == set()


def test_check_names_the_broken_network_alone(fleet: Fleet) -> None:
    fleet.attach("a")
    fleet.host.run("ip", "-n", "a", "link", "set", "net1", "down")
    assert fleet.call("check", "pods", "a") == fleet.call("check", "third", "a") == ""
    assert "net1" in fleet.call("check", "lan", "a", status=1)


@pytest.mark.parametrize("fleet", [(PTP, ":")], ids=["ptp"], indirect=True)
def test_networks_are_collected_apart(fleet: Fleet) -> None:
    """The other pod keeps all of its networks, and an attachment in one network none of those in others."""
    fleet.attach("kept")
    before = fleet.remains()
    fleet.attach("a")
    fleet.host.drop_netns("a")
    for network in IFNAMES:
        fleet.say("gc", network)
    until(lambda: fleet.remains() == before)
    assert fleet.reached("kept") == {*IFNAMES}
    fleet.collect("lan")
    assert fleet.names("kept") == ["lo", "eth0", "net2"] and fleet.reached("kept") >= {"pods", "third"}
    assert fleet.call("check", "pods", "kept") == fleet.call("check", "third", "kept") == ""
    for network in IFNAMES:  # the first comes first here
        assert fleet.call("del", network, "kept") == ""
    assert fleet.remains() == set()


def shipped(bridge: str, subnets: Sequence[Mapping[str, str]], *routes: str) -> Keys:
    """Return the bridge plugin with the keys that CRI-O's, nerdctl's and podman's networks have in common."""
    ranges = [[dict(subnet)] for subnet in subnets]
    ipam = {"type": "host-local", "routes": [{"dst": route} for route in routes], "ranges": ranges}
    return {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}


PORTMAP: Keys = {"type": "portmap", "capabilities": {"portMappings": True}}
V4, V6 = "0.0.0.0/0", "::/0"
CRIO = ({"subnet": "10.85.0.0/16"},)
NERDCTL = ({"subnet": "10.4.0.0/24", "gateway": "10.4.0.1"},)
# by the names of their files: the plugins and keys as their programs ship or generate them, each list of a version
SHIPPED: dict[str, Keys] = {
    "11-crio-ipv4-bridge": {"cniVersion": "1.0.0", "name": "crio", "plugins": [shipped("cni0", CRIO, V4)]},
    "11-crio-ipv4-bridge, 1.22": {"cniVersion": "0.3.1", "name": "crio", "plugins": [shipped("cni0", CRIO, V4)]},
    "10-crio-bridge": {
        "cniVersion": "1.0.0", "name": "crio", "plugins": [shipped("cni0", (*CRIO, {"subnet": "1100:200::/24"}), V4, V6)],
    },
    "nerdctl-bridge": {
        "cniVersion": "1.0.0", "name": "bridge", "nerdctlID": "17f29b073143d8cd97b5bbe492bdeffec1c5fee55cc1fe2112c8b9335f8b6121",
        "nerdctlLabels": {"nerdctl/default-network": "true"},
        "plugins": [
            shipped("nerdctl0", NERDCTL, V4), PORTMAP, {"type": "firewall", "ingressPolicy": "same-bridge"}, {"type": "tuning"},
        ],
    },
    "nerdctl-bridge, 0.17": {
        "cniVersion": "0.4.0", "name": "bridge", "nerdctlID": 0, "nerdctlLabels": {},
        "plugins": [shipped("nerdctl0", NERDCTL, V4), PORTMAP, {"type": "firewall"}, {"type": "tuning"}],
    },
    "87-podman-bridge": {
        "cniVersion": "0.4.0", "name": "podman",
        "plugins": [
            shipped("cni-podman0", ({"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"},), V4), PORTMAP,
            {"type": "firewall"}, {"type": "tuning"},
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("file", SHIPPED)
def test_shipped_networks(host: PretendHost, file: str) -> None:
    """cnitool finds nothing wrong with them, and runs each verb; the pod's published port answers, if there are any."""
    network = SHIPPED[file]
    name = network["name"]
    tool = Tool(host, {file: network})
    ports = json.dumps({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
    assert tool.say("validate") == "" and tool.say("status", name) == ""
    netns = host.netns("web")
    result = json.loads(tool.say("add", name, netns, CAP_ARGS=ports))
    assert result["cniVersion"] == network["cniVersion"]
    assert tool.say("check", name, netns, CAP_ARGS=ports) == "" or network["cniVersion"] == "0.3.1"
    for gateway in (ip["gateway"] for ip in result["ips"]):
        host.run("ip", "netns", "exec", "web", "ping", "-n", "-c1", "-W2", gateway)
    assert (PORTMAP in network["plugins"]) == ("8080" in host.run("nft", "list", "ruleset").stdout)
    tool.say("gc", name)
    assert [link["ifname"] for link in host.ip("link", netns="web")] == ["lo", "eth0"]
    assert tool.say("del", name, netns, CAP_ARGS=ports) == ""
    assert [link["ifname"] for link in host.ip("link", netns="web")] == ["lo"]
    assert not list((host.root / "var/lib/cni/networks" / name).glob("1[01]*"))
    assert "8080" not in host.run("nft", "list", "ruleset").stdout


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_bare_execution_names_the_reference_release(host: PretendHost, plugin: str) -> None:
    """nerdctl executes firewall like this, and isolates its networks if this release is 1.1.0 or later."""
    done = host.run(f"{host.bin_dir}/{plugin}", env={"PATH": PATH, "CNI_PATH": host.bin_dir})
    first, second = done.stderr.splitlines()
    assert re.fullmatch(rf"CNI {plugin} plugin v1\.[1-9]\d*\.\d+\+pycni", first) and done.stdout == ""
    assert second.startswith("CNI protocol versions supported: ") and second.endswith(", 1.1.0")


def test_a_bare_execution_with_the_agent(installed_with_agent: Path) -> None:
    with PretendHost(installed_with_agent) as host, Agent(host) as agent:
        done = host.run(f"{host.bin_dir}/firewall", env={"PATH": PATH})
        assert done.stderr.startswith("CNI firewall plugin v1.") and done.stdout == ""
        until(lambda: agent.taken() == 1)
