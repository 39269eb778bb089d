"""Repairs: whatever is lost under a running pod comes back as ADD made it, and nothing else changes."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.cni.repair import ANOTHER_CODE
from tests.faults.state import state
from tests.firewalld import Firewalld
from tests.pretend import PretendHost, read_line, until
from tests.system.firewall_node import OUTSIDE, SERVER
from tests.system.hostport_nodes import elements
from tests.system.repair_node import BRIDGE, CHAIN, FIREWALL, PORTMAP, TUNING, Node, Repairs

pytestmark = pytest.mark.row(23)
PTP: dict[str, Any] = {
    "type": "ptp", "ipMasq": True, "ipam": {**BRIDGE["ipam"], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]},
}  # fmt: skip
BY_IPTABLES: list[dict[str, Any]] = [
    {**BRIDGE, "ipMasqBackend": "iptables", "hairpinMode": True, "portIsolation": True, "uplinks": ["wire"]},
    {**PORTMAP, "backend": "iptables"},
    {**FIREWALL, "backend": "iptables", "admitHostPorts": True},
]
# Connects to each address and port, and prints those that answer.
CONNECT = """
import socket, sys
for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        socket.create_connection((address, int(port)), timeout=3).close()
        print(address, port)
    except OSError:
        pass
"""


class Wired(Node):
    """A node with a neighbour outside. Each pod serves port 80."""

    def __init__(self, host: PretendHost, *chain: dict[str, Any]) -> None:
        super().__init__(host, *chain)
        host.run("sh", "-ec", OUTSIDE + "ip link add wire type veth peer name wire1\n")
        self.repairs = Repairs(host)
        for pod in "ab":
            self.add(pod)
            serve = host.popen("ip", "netns", "exec", pod, sys.executable, "-c", SERVER.replace("7)", "80)"))
            assert read_line(serve) == b"ready\n"
        self.links = {
            link["ifalias"].split("/")[1]: link["ifname"]
            for link in host.ip("link", "show", "type", "veth")
            if link.get("ifalias", "").startswith("pycni:")
        }
        ifbs = {link["ifalias"].split("/")[1]: link["ifname"] for link in host.ip("link", "show", "type", "ifb")}
        self.words = {"VETH": self.links["a"], "OTHER": self.links["b"], "IFB": ifbs.get("a", "")}

    def reached(self) -> set[str]:
        """Return the host ports that the neighbour reaches, and the pods that reach the neighbour."""
        ports = [word for port in self.ports.values() for word in ("192.0.2.1", str(port))]
        inside = ("ip", "netns", "exec", "outside", sys.executable, "-c", CONNECT)
        found = set(self.host.run(*inside, *ports).stdout.splitlines())
        ping = ("ping", "-n", "-c1", "-W2", "192.0.2.2")
        return found | {
            pod for pod in self.results if not self.host.run("ip", "netns", "exec", pod, *ping, check=False).returncode
        }

    def damage(self, script: str) -> None:
        for word, name in self.words.items():
            script = script.replace(word, name)
        self.host.run("sh", "-ec", script)

    def look(self) -> set[str]:
        """Return the host's state without the numbers of traffic control's actions."""
        return {re.sub(r"\tindex \d+", "", line) for line in state(self.host, self.results)}

    def prove(self, *scripts: str) -> None:
        """Damage the host by each script: a repair makes it as it was, and the next one makes nothing."""
        before, reached = self.look(), self.reached()
        assert len(reached) == len(self.ports) + len(self.results)
        for script in scripts:
            self.damage(script)
            texts = self.repair(self.repairs)
            assert texts and not [text for text in texts if '"error"' in text], (script, texts)
            after = self.look()
            assert after == before, (script, sorted(after ^ before))
            assert self.repair(self.repairs) == [] and self.reached() == reached, script
        assert [self.each("CHECK", pod) for pod in self.results] == [[], []]


def test_the_chain(host: PretendHost) -> None:
    node = Wired(host)
    node.prove(
        "nft flush ruleset",
        "nft delete table inet pycni",
        "nft delete table bridge pycni",
        "nft flush chain inet pycni forwarding",
        "nft flush chain inet pycni hostports",
        "nft flush map inet pycni masq4",
        "nft flush map inet pycni hostports4",
        "nft flush set inet pycni attachments",
        "nft flush set bridge pycni bound",
        "ip link set cni0 down",
        "ip link set cni0 down; ip link set VETH nomaster; nft flush ruleset",
        "ip link delete cni0",
        "ip link set VETH nomaster",
        "ip link set VETH down",
        "ip address flush dev cni0",
        "echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
        "tc qdisc delete dev VETH root",
        "tc qdisc delete dev VETH ingress",
        "tc qdisc delete dev IFB root",
        "ip link delete IFB",
        "ip link set IFB down",
        "ip netns exec a ip link set eth0 txqueuelen 1000",
    )


def test_sysctls_stay_as_the_pod_set_them(host: PretendHost) -> None:
    """The container runtime sets the pod's own sysctls after ADD; CHECK names the difference."""
    node = Node(host, BRIDGE, TUNING)
    node.add("a")
    host.run("ip", "netns", "exec", "a", "sh", "-ec", "echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_filter")
    host.run("ip", "-n", "a", "link", "set", "eth0", "txqueuelen", "1000")
    assert node.repair(Repairs(host)) == ["txQLen of eth0 is 1000, not 500"]
    assert node.each("CHECK", "a") == ["sysctl net/ipv4/conf/eth0/arp_filter is 0, not 1"]
    assert node.repair(Repairs(host)) == []


def test_a_chain_by_iptables(host: PretendHost) -> None:
    """Rules of the administrator's own stay as the damage left them."""
    host.run("sh", "-ec", "iptables -w -P FORWARD DROP; ip6tables -w -P FORWARD DROP")
    node = Wired(host, *BY_IPTABLES)
    node.prove(
        "iptables -F; ip6tables -F",
        "iptables -t nat -F",
        "iptables -F CNI-FORWARD",
        "iptables -t nat -F CNI-HOSTPORT-DNAT",
        "for t in nat filter raw; do iptables -t $t -F; iptables -t $t -X; ip6tables -t $t -F; ip6tables -t $t -X; done",
        "bridge link set dev VETH hairpin off",
        "bridge link set dev VETH isolated off",
        "ip link set wire nomaster",
        "ip link set wire down",
        "ip link delete cni0",
    )


def test_ptp(host: PretendHost) -> None:
    node = Wired(host, PTP, PORTMAP, FIREWALL)
    node.prove(
        "nft flush ruleset",
        "ip link set VETH down",
        "ip address flush dev VETH",
        "ip route flush dev VETH",
        "ip -6 route delete fd00:1::2",
        "echo 0 >/proc/sys/net/ipv4/ip_forward",
    )


def test_another_backend_decides(host: PretendHost) -> None:
    """Docker sets FORWARD to DROP under pods that nf_tables admitted: they are admitted there, too."""
    node = Wired(host, BRIDGE, {"type": "firewall"})
    assert node.reached() == {"a", "b"}
    host.run("sh", "-ec", "iptables -w -P FORWARD DROP; ip6tables -w -P FORWARD DROP")
    assert node.reached() == set()
    texts = node.repair(node.repairs)
    assert len(texts) == 4 and all("chain FORWARD" in text for text in texts)
    assert node.reached() == {"a", "b"} and node.repair(node.repairs) == []


def test_firewalld_reloads(host: PretendHost, firewalld: Firewalld) -> None:
    node = Wired(host, BRIDGE, {"type": "firewall"})
    sources = firewalld.sources("trusted")
    assert node.reached() == {"a", "b"} and len(sources) == 4
    firewalld.run("--reload")
    assert firewalld.sources("trusted") == [] and node.reached() == set()
    assert len(node.repair(node.repairs)) == 4
    assert firewalld.sources("trusted") == sources and node.reached() == {"a", "b"}
    assert node.repair(node.repairs) == []


@pytest.mark.parametrize("plugin", CHAIN, ids=lambda plugin: plugin["type"])
def test_no_repair_without_the_pod(host: PretendHost, plugin: dict[str, Any]) -> None:
    """Nothing is made for a namespace that is gone, has lost the interface, or has become another pod's."""
    node = Node(host)
    repairs = Repairs(host)
    for pod in "abc":
        node.add(pod)
    host.run("sh", "-ec", "ip -n b link set eth0 name old; ip netns delete a; nft flush ruleset")
    until(lambda: len(host.ip("link", "show", "type", "veth")) == 2)  # the kernel deletes the pair of `a` later
    before = state(host, "bc")
    another = {**node.request("a", plugin), "config": node.request("a", plugin)["config"]}
    another["environment"]["CNI_NETNS"] = "/run/netns/c"
    answers = [repairs.ask(node.request(pod, plugin)) for pod in "ab"] + [repairs.ask(another)]
    errors = [answer["error"] for answer in answers]
    assert [error["code"] for error in errors] == [3, 999, ANOTHER_CODE]
    assert "eth0 is missing" in errors[1]["msg"] and "of net/c/eth0" in errors[2]["msg"]
    assert state(host, "bc") == before


def test_a_port_that_was_given_away(host: PretendHost) -> None:
    """While the rules were flushed, another pod got the port: it keeps it."""
    node = Node(host, BRIDGE, PORTMAP)
    repairs = Repairs(host)
    node.add("a")
    host.run("nft", "flush", "ruleset")
    node.ports["b"] = node.ports["a"]
    node.add("b")
    answer = repairs.ask(node.request("a", PORTMAP))
    assert "net/b/eth0" in answer["error"]["details"]
    assert elements(host)["hostports4"] == ["net/b/eth0"]


def test_a_shortage_is_no_busy_attachment(host: PretendHost) -> None:
    """The slot is free; another call has the lock of the rules, and answers with code 11."""
    node = Node(host, BRIDGE, {**PORTMAP, "backend": "iptables"})
    node.add("a")
    host.run("iptables", "-t", "nat", "-F")
    repairs = Repairs(host, "import shared.net.rules_lock as lock; lock.LOCK_SECONDS = 0.1")
    held = host.popen("flock", "/run/cni/.pycni/portmap/lock", "sh", "-c", "echo; exec sleep 600")
    assert read_line(held) == b"\n"
    answer = repairs.ask(node.request("a", node.chain[1]))
    assert answer["error"]["code"] == 999 and "lock" in answer["error"]["details"]


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_an_address_that_was_given_away(host: PretendHost, backend: str) -> None:
    """Another pod got the address, as after a lost lease: its masquerading stays."""
    bridge = {**BRIDGE, "ipMasqBackend": backend}
    node = Node(host, bridge)
    repairs = Repairs(host)
    node.add("a")
    host.run("sh", "-ec", "rm -r /var/lib/cni/networks; nft flush ruleset")
    node.add("b")
    before = {line for line in state(host, "b") if "masq" in line.lower()}
    assert node.results["a"]["prevResult"]["ips"] == node.results["b"]["prevResult"]["ips"] and before
    repairs.ask(node.request("a", bridge))
    assert before <= state(host, "b")


def test_a_pod_of_another_suites_plugin(host: PretendHost) -> None:
    """Its result names no link of the host: the MAC tells the pod."""
    node = Node(host, FIREWALL)
    host.netns("a")
    host.run("sh", "-ec", "ip link add other0 type veth peer name eth0 netns a; ip -n a link set eth0 up")
    [inside] = json.loads(host.run("ip", "-n", "a", "-json", "link", "show", "eth0").stdout)
    own = {"name": "eth0", "mac": inside["address"], "sandbox": "/run/netns/a"}
    result = {"cniVersion": "1.1.0", "interfaces": [own], "ips": [{"address": "10.9.0.5/24", "interface": 0}]}
    node.results["a"] = {"prevResult": result}
    keys = node.keys("a", FIREWALL) | node.results["a"]
    assert host.cni("firewall", "ADD", keys, netns="/run/netns/a", container_id="a").status == 0
    host.run("nft", "flush", "ruleset")
    repairs = Repairs(host)
    assert repairs.ask(node.request("a", FIREWALL))["repaired"]
    assert node.each("CHECK", "a") == []
    host.run("nft", "flush", "ruleset")
    host.run("ip", "-n", "a", "link", "set", "eth0", "address", "02:00:00:00:00:07")
    again = Repairs(host)  # which has not seen the pod
    assert again.ask(node.request("a", FIREWALL))["error"]["code"] == ANOTHER_CODE


def test_a_request_that_is_none(host: PretendHost) -> None:
    """The process answers with an error, and serves the next request."""
    node = Node(host)
    repairs = Repairs(host)
    node.add("a")
    for request in (
        {},
        {"plugin": "none", "environment": {}, "config": {}},
        {"plugin": "bridge", "environment": {}, "config": []},
    ):
        assert repairs.ask(request)["error"]["msg"]
    assert repairs.process.stdin
    repairs.process.stdin.write(b"[" * 100_000 + b"\n")  # deeper than the parser goes
    repairs.process.stdin.flush()
    assert "RecursionError" in json.loads(read_line(repairs.process))["error"]["msg"]
    assert repairs.ask(node.request("a", {"type": "loopback"})) == {"repaired": []}
    assert repairs.ask(node.request("a", BRIDGE)) == {"repaired": []}


def test_repairs_among_calls(host: PretendHost) -> None:
    """Flushes and repairs from a runtime's cache, during ADDs and DELs, leave nothing behind and disturb no call.

    Each pod comes back under its id, and the repairs know its former result for a while.
    """
    node = Node(host)
    repairs = Repairs(host)
    node.add("stays")
    before = state(host, ["stays"])
    known: dict[str, list[dict[str, Any]]] = {}

    def note(pod: str) -> Path:
        """Write the cached result as a runtime does; remember the requests that lead to it."""
        path = host.root / f"run/cache-{pod}"
        path.write_text("")
        cache = [f"/run/cache-{pod}", path.stat().st_mtime_ns]
        known[pod] = [{**node.request(pod, plugin), "cache": cache} for plugin in node.chain]
        return path

    def live(pod: str) -> None:
        for _ in range(2):
            node.add(pod)
            path = note(pod)
            assert node.each("DEL", pod) == []
            path.unlink()
            host.drop_netns(pod)

    note("stays")
    with ThreadPoolExecutor() as pool:
        lives = [pool.submit(live, f"p{number}") for number in range(4)]
        while not all(one.done() for one in lives):
            host.run("nft", "flush", "ruleset")
            for request in [one for requests in list(known.values()) for one in requests]:
                repairs.ask(request)
        for one in lives:
            one.result()
    node.results = {"stays": node.results["stays"]}
    node.repair(repairs)
    assert node.each("CHECK", "stays") == []
    assert state(host, ["stays"]) == before
