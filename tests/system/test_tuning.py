"""tuning: the settings in the pod, and their restoration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tests.node
from tests.node import DEAF
from tests.pretend import PretendHost

MAC, FIRST_MAC = "02:00:00:00:00:09", "02:00:00:00:00:01"
RECORD = "/run/cni/tuning/a_eth0.json"
SYSCTL = "net.ipv4.conf.IFNAME.arp_filter"


class Node(tests.node.Node):
    """A pretend host with one pod; its eth0 is up, with an address and a route, as after bridge."""

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host, type="tuning")
        self.path = host.netns("a")
        host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "eth0", "netns", "a")
        host.run("ip", "link", "set", "veth0", "up")
        for words in (
            f"link set eth0 address {FIRST_MAC} up",
            "addr add 10.1.0.5/24 dev eth0",
            "addr add fd00:1::5/64 dev eth0 nodad",
            "route add default via 10.1.0.1",
            "route add default via fd00:1::1",
        ):
            host.run("ip", "-n", "a", *words.split())
        self.previous = self.config["prevResult"] = {
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "veth0", "mac": "02:00:00:00:00:02"},
                {"name": "eth0", "mac": FIRST_MAC, "sandbox": self.path, "mtu": 1500},
            ],
            "ips": [{"address": "10.1.0.5/24", "interface": 1}],
            "dns": {},
        }

    def sysctl(self, path: str) -> str:
        return self.host.run("ip", "netns", "exec", "a", "cat", f"/proc/sys/net/{path}").stdout.strip()

    def state(self) -> tuple[Any, ...]:
        (link,) = self.host.ip("link", "show", "eth0", netns="a")
        flags = sorted({"PROMISC", "ALLMULTI", "UP"}.intersection(link["flags"]))
        network = self.host.snapshot(["a"])["pods"]["a"]
        return link["address"], link["mtu"], link.get("txqlen", 0), flags, network["addresses"], network["routes"]


ALL = {"mac": MAC, "mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 77, "sysctl": {SYSCTL: "1"}}


def test_everything_is_set_checked_and_set_back(node: Node) -> None:
    before = node.state()
    result = node.add("a", ALL)
    mac, mtu, queue, flags, addresses, routes = node.state()
    assert (mac, mtu, queue, flags) == (MAC, 1400, 77, ["ALLMULTI", "PROMISC", "UP"])
    assert (addresses, routes) == before[4:]
    assert node.sysctl("ipv4/conf/eth0/arp_filter") == "1"
    assert result["interfaces"][1] == {"name": "eth0", "mac": MAC, "sandbox": node.path, "mtu": 1400}
    assert result["interfaces"][0] == node.previous["interfaces"][0] and result["ips"] == node.previous["ips"]

    assert node.call("CHECK", "a", {**ALL, "prevResult": result}).status == 0
    for words in ("mtu 1450", "promisc off", "allmulticast off", "txqueuelen 78", f"address {FIRST_MAC}"):
        node.host.run("ip", "-n", "a", "link", "set", "eth0", *words.split())
    node.host.run("ip", "netns", "exec", "a", "sysctl", "-qw", "net.ipv4.conf.eth0.arp_filter=0")
    told = node.call("CHECK", "a", {**ALL, "prevResult": result}).json["details"]
    for name in ("mtu", "promisc", "allmulti", "txQLen", "mac", "arp_filter"):
        assert name in told

    node.call("DEL", "a", ALL)
    assert node.state() == before
    assert node.sysctl("ipv4/conf/eth0/arp_filter") == "0"
    assert not (node.host.root / RECORD.lstrip("/")).exists()
    assert node.call("DEL", "a", ALL).status == 0
    assert node.state() == before


def test_only_what_is_asked_for_is_touched(node: Node) -> None:
    node.add("a", {"mtu": 1400})
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "txqueuelen", "55", "promisc", "on")
    node.call("DEL", "a", {"mtu": 1400})
    assert node.state()[1:4] == (1500, 55, ["PROMISC", "UP"])


def test_del_needs_neither_namespace_nor_result_nor_a_whole_configuration(node: Node) -> None:
    node.add("a", ALL)
    config = {"cniVersion": "1.1.0", "name": "net", "type": "tuning", "mtu": "nonsense"}
    assert node.host.cni("tuning", "DEL", config, container_id="a").status == 0
    assert node.host.snapshot()["files"] == {}


def test_second_add_keeps_what_was_first(node: Node) -> None:
    before = node.state()
    node.add("a", {"mtu": 1400})
    node.add("a", {"mtu": 1300})
    node.call("DEL", "a", {"mtu": 1300})
    assert node.state() == before


def test_a_record_of_a_lost_namespace_is_not_set_back_in_the_next(node: Node) -> None:
    """The pod was lost without DEL and comes back under its ID: DEL restores the values of the new namespace."""
    node.add("a", {"mtu": 1400})
    node.host.drop_netns("a")
    node.host.run("sh", "-c", "while ip link show veth0; do sleep 0.1; done")  # the kernel comes to it later
    again = Node(node.host)
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "mtu", "1450")
    again.add("a", {"mtu": 1300})
    assert again.call("DEL", "a", {"mtu": 1300}).status == 0
    assert again.state()[1] == 1450 and node.host.snapshot()["files"] == {}


def test_an_add_that_fails_late_sets_everything_back(node: Node) -> None:
    """The ADD cannot write its result."""
    before = node.state(), node.sysctl("ipv4/conf/eth0/arp_filter")
    assert node.call("ADD", "a", ALL, prefix=DEAF).status == 1
    assert (node.state(), node.sysctl("ipv4/conf/eth0/arp_filter")) == before
    assert node.host.snapshot()["files"] == {}


@pytest.mark.parametrize("first", ["reference", "ours"])
def test_hand_over(node: Node, reference_bin: str, first: str) -> None:
    before = node.state()
    known = {key: value for key, value in ALL.items() if key != "txQLen"}  # not yet to Debian's
    old = {**known, "cniVersion": "1.0.0", "prevResult": {**node.previous, "cniVersion": "1.0.0"}}
    begin, end = (reference_bin, None) if first == "reference" else (None, reference_bin)
    node.add("a", old, bin_dir=begin)
    assert node.state()[:2] == (MAC, 1400)
    assert node.call("DEL", "a", old, bin_dir=end).status == 0
    assert node.state()[:4] == before[:4]
    assert node.host.snapshot()["files"] == {}


@pytest.mark.parametrize(
    ("keys", "args", "mac"),
    [
        ({"mac": MAC}, "", MAC),
        ({"mac": "02:00:00:00:00:03"}, f"MAC={MAC}", MAC),
        ({"runtimeConfig": {"mac": MAC}}, "MAC=02:00:00:00:00:03", MAC),
        ({"args": {"cni": {"mac": MAC}}, "runtimeConfig": {"mac": "02:00:00:00:00:03"}}, "", MAC),
    ],
)
def test_where_the_mac_comes_from(node: Node, keys: dict[str, Any], args: str, mac: str) -> None:
    node.add("a", keys, args=args)
    assert node.state()[0] == mac


def test_arguments_come_before_the_configuration(node: Node) -> None:
    cni = {"mtu": 1350, "promisc": False, "txQLen": 0, "sysctl": {SYSCTL: "1"}}
    node.add("a", {**ALL, "sysctl": {}, "args": {"cni": cni}})
    assert node.state()[1:4] == (1350, 0, ["ALLMULTI", "UP"])
    assert node.sysctl("ipv4/conf/eth0/arp_filter") == "1"


@pytest.mark.parametrize("key", ["net/ipv4/conf/IFNAME/arp_filter", "net.ipv4.conf.IFNAME.arp_filter"])
def test_interface_with_a_dot(node: Node, key: str) -> None:
    node.host.run("ip", "-n", "a", "link", "add", "eth0.7", "type", "veth", "peer", "other")
    node.add("a", {"sysctl": {key: "1"}}, ifname="eth0.7")
    assert node.sysctl("ipv4/conf/eth0.7/arp_filter") == "1"
    node.call("DEL", "a", {"sysctl": {key: "1"}}, ifname="eth0.7")
    assert node.sysctl("ipv4/conf/eth0.7/arp_filter") == "0"


@pytest.mark.parametrize(
    "keys",
    [
        {"sysctl": {"kernel.core_pattern": "|/bin/sh"}},
        {"sysctl": {"net.ipv4.conf../../../kernel.core_pattern": "x"}},
        {"sysctl": {"net/../kernel/core_pattern": "x"}},
        {"sysctl": {"net/ipv4/../../kernel/core_pattern": "x"}},
        {"sysctl": {"/net/ipv4/ip_forward": "1"}},
        {"sysctl": {"net": "1"}},
        {"sysctl": {"net.": "1"}},
        {"sysctl": {"net..ipv4": "1"}},
        {"sysctl": {"net.ipv4.ip_forward\n": "1"}},
        {"sysctl": {"net.ipv4.ip_forward": 1}},
        {"sysctl": {"net.ipv4.ip_forward": "1\n+kernel.x=1"}},
        {"sysctl": []},
        {"sysctl": "net.ipv4.ip_forward"},
        {"args": {"cni": {"sysctl": {"kernel.x": "1"}}}},
        {"sysctl": {"net.netfilter.nf_hooks_lwtunnel": "1"}},
        {"sysctl": {"net/netfilter/nf_conntrack_max": "1"}},
        {"args": {"cni": {"sysctl": {"net.nf_conntrack_max": "1"}}}},
        {"mtu": -1},
        {"mtu": "1500"},
        {"txQLen": 1.5},
        {"promisc": "yes"},
        {"mac": "02:00"},
        {"dataDir": "relative"},
    ],
)
def test_bad_values_are_refused_before_anything_is_touched(node: Node, keys: dict[str, Any]) -> None:
    before, files = node.state(), node.host.snapshot()
    answer = node.call("ADD", "a", {"mtu": 1400, **keys})
    assert answer.code == 7, answer.stdout
    assert (node.state(), node.host.snapshot()) == (before, files)


def test_sysctl_that_is_there_twice(node: Node) -> None:
    text = json.dumps({"cniVersion": "1.1.0", "name": "net", "prevResult": node.previous, "sysctl": {}})
    twice = '{"net.ipv4.ip_forward": "1", "net.ipv4.ip_forward": "0"}'
    answer = node.host.cni("tuning", "ADD", text.replace('"sysctl": {}', f'"sysctl": {twice}'), netns=node.path)
    assert answer.code == 7 and "net.ipv4.ip_forward" in answer.json["msg"]


def test_without_a_result_there_is_nothing_to_tune(node: Node) -> None:
    answer = node.call("ADD", "a", {"mtu": 1400, "prevResult": None})
    assert answer.code == 7 and "prevResult" in answer.json["msg"]


@pytest.mark.parametrize(
    "keys", [{"sysctl": {"net.ipv4.no_such": "1"}}, {"mtu": 65535, "sysctl": {SYSCTL: "nonsense"}}]
)
def test_what_the_kernel_refuses_leaves_nothing(node: Node, keys: dict[str, Any]) -> None:
    before = node.state()
    assert node.call("ADD", "a", {**ALL, **keys}).code == 999
    assert node.state() == before
    assert node.host.snapshot()["files"] == {}


@pytest.mark.row("host-sysctls")
def test_administrators_allowlist(node: Node) -> None:
    node.host.run("mkdir", "-p", "/etc/cni/tuning")
    allow = "^net\\.ipv4\\.conf\\.IFNAME\\.arp_filter$\n\nnet.ipv4\n"
    node.host.run("tee", "/etc/cni/tuning/allowlist.conf", input=allow)
    node.add("a", {"sysctl": {SYSCTL: "1"}})
    answer = node.call("ADD", "a", {"sysctl": {"net.ipv4.ip_forward": "1"}})
    assert answer.code == 7 and "net.ipv4.ip_forward" in answer.json["msg"]


@pytest.mark.row("host-sysctls")
def test_only_the_pods_sysctls_change(node: Node) -> None:
    before = node.host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout
    node.add("a", {"sysctl": {"net.ipv4.ip_forward": "1"}})
    assert node.host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == before == "0\n"
    assert node.sysctl("ipv4/ip_forward") == "1"
    node.call("DEL", "a", {})
    assert node.sysctl("ipv4/ip_forward") == "0"


@pytest.mark.row("host-sysctls")
def test_interface_name_that_makes_a_sysctl_the_hosts(node: Node) -> None:
    answer = node.call("ADD", "a", {"sysctl": {"net.netfilter.nf_conntrack_IFNAME": "1"}}, ifname="max")
    assert answer.code == 7 and "nf_conntrack_IFNAME" in answer.json["msg"]


# Changes each sysctl of the pod that tuning accepts, and prints those that changed on the host as well.
WALK = """
import os, sys
from shared.net import pod_sysctls
from shared.cni.config import Invalid
from shared.net.netns import open_netns

def read(path):
    try:
        return open(path).read()
    except OSError:
        return None

pod = open_netns(sys.argv[1])
with pod:
    found = [os.path.join(folder, name) for folder, _, names in os.walk("/proc/sys/net") for name in names]
walked = 0
for path in found:
    try:
        pod_sysctls.path_of(path.removeprefix("/proc/sys/"))
    except Invalid:
        continue
    host = read(path)
    with pod:
        before = read(path)
        for value in ("1", "0", "2", "16"):
            try:
                open(path, "w").write(value)
            except OSError:
                continue
            if read(path) != before:
                walked += 1
                break
    if read(path) != host:
        print(path)
    with pod:
        try:
            open(path, "w").write(before or "")
        except OSError:
            pass
print(walked)
"""


@pytest.mark.row("host-sysctls")
def test_no_sysctl_of_a_pod_is_the_hosts(node: Node) -> None:
    *shared, walked = node.host.python(WALK, node.path).split()
    assert not shared
    assert int(walked) > 300


def test_gc_forgets_what_is_not_valid(node: Node) -> None:
    for container_id in ("c1", "c2"):
        node.add(container_id, netns=node.path, mtu=1400)
    node.add("c3", netns=node.path, mtu=1400, name="other")
    valid = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth1"}]
    assert node.call("GC", "", {"cni.dev/valid-attachments": valid}).status == 0
    kept = {Path(path).name for path in node.host.snapshot()["files"]}
    assert kept == {"c1_eth0.json", "c3_eth0.json"}


@pytest.mark.row("symlinks")
def test_symbolic_link_in_the_place_of_the_record(node: Node) -> None:
    node.host.run("mkdir", "-p", "/run/cni/tuning")
    node.host.run("tee", "/run/victim", input="{}")
    node.host.run("ln", "-s", "/run/victim", RECORD)
    answer = node.call("ADD", "a", {"mtu": 1400})
    assert answer.code == 5 and RECORD in answer.json["msg"]
    assert node.state()[1] == 1500
    node.call("DEL", "a", {})
    assert node.host.run("cat", "/run/victim").stdout == "{}"


def test_in_a_chain_with_bridge(host: PretendHost, installed: Path) -> None:
    netns = host.netns("a")
    host.run("mkdir", "-p", "/etc/cni/net.d")
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
    plugins = [{"type": "bridge", "isDefaultGateway": True, "ipam": ipam}, {"type": "tuning", **ALL}]
    content = {"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}
    host.run("tee", "/etc/cni/net.d/10-pods.conflist", input=json.dumps(content))
    tool = f"{installed}/cnitool"
    result = json.loads(host.run(tool, "add", "pods", netns).stdout)
    assert result["interfaces"][2]["mac"] == MAC
    host.run("ip", "netns", "exec", "a", "ping", "-c1", "-W2", "10.1.0.1")
    host.run("ip", "netns", "exec", "a", "ping", "-c1", "-W2", "fd00:1::1")
    host.run(tool, "check", "pods", netns)
    host.run(tool, "del", "pods", netns)
    assert [link["ifname"] for link in host.ip("link", netns="a")] == ["lo"]
