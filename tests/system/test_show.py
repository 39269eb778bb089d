"""cnitool show: its account of a node against the kernel's and the plugins' own results."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.pretend import PretendHost, read_line
from tests.system.pod_network import CNITOOL, NETWORK, Node

FORMS = ((), ("--json",), ("--mermaid",), ("--svg", "/run/picture.svg"))


@pytest.fixture
def node(host: PretendHost) -> Node:
    return Node(host)


@contextmanager
def running(host: PretendHost, *argv: str) -> Iterator[None]:
    """Start a command that continues, and wait for its first output."""
    process = host.popen(*argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert read_line(process)
        yield
    finally:
        process.kill()
        process.communicate()


def ports(shown: Any, bridge: str = "cni0") -> dict[str, Any]:
    """Return the ports by container ID, or by the host link's name if the owner is not known."""
    (found,) = [one for one in shown["bridges"] if one["name"] == bridge]
    return {(port["pod"] or {}).get("containerID") or port["name"]: port for port in found["ports"]}


def host_end(result: Any) -> str:
    (name,) = [one["name"] for one in result["interfaces"] if "sandbox" not in one and one["name"] != "cni0"]
    return str(name)


def addresses(result: Any) -> list[str]:
    return [one["address"] for one in result["ips"]]


def test_the_model(node: Node) -> None:
    """A pod that a runtime has cached, and one that only its link's alias names."""
    results = {"web1": node.attach("web1", "web"), "bare": node.attach_without_runtime("bare")}
    shown = node.show()
    (bridge,) = shown["bridges"]
    (kernel,) = node.host.ip("address", "show", "cni0")
    assert (bridge["name"], bridge["mtu"], bridge["mac"]) == ("cni0", kernel["mtu"], kernel["address"])
    assert bridge["addresses"] == ["10.1.0.1/24", "fd00:1::1/64"] and bridge["state"] == "up"
    found = ports(shown)
    assert set(found) == {"web1", "bare"}
    for pod, result in results.items():
        port = found[pod]
        assert (port["name"], port["state"], port["mtu"]) == (host_end(result), "up", 1500)
        assert port["pod"]["network"] == "pods" and port["pod"]["ifname"] == "eth0"
        assert port["pod"]["netns"] == f"/run/netns/{pod}"
        assert sorted(port["pod"]["addresses"]) == sorted(addresses(result))
        assert (port["pod"]["ownerFrom"], port["pod"]["addressesFrom"]) == ("alias", "namespace")
    assert (found["web1"]["pod"]["namespace"], found["web1"]["pod"]["name"]) == ("default", "web")
    assert found["bare"]["pod"]["name"] == ""
    assert shown["host"] == "pretend" and shown["unlinked"] == shown["unbridged"] == []


def test_addresses_are_the_pods_own_and_not_the_results(node: Node) -> None:
    node.attach("web1")
    node.host.run("ip", "-n", "web1", "address", "add", "10.9.9.9/32", "dev", "eth0")
    node.host.run("ip", "-n", "web1", "address", "del", "10.1.0.2/24", "dev", "eth0")
    assert "10.9.9.9/32" in ports(node.show())["web1"]["pod"]["addresses"]
    assert "10.1.0.2/24" not in ports(node.show())["web1"]["pod"]["addresses"]


def test_a_namespace_without_a_path_leaves_the_remembered_addresses(node: Node) -> None:
    result = node.attach("web1")
    with running(node.host, "ip", "netns", "exec", "web1", "sh", "-c", "echo; exec sleep 600"):
        node.host.drop_netns("web1")
        pod = ports(node.show())["web1"]["pod"]
        assert (pod["addresses"], pod["addressesFrom"]) == (addresses(result), "cache")
        assert "10.1.0.2/24 fd00:1::2/64 (as cached)" in node.cnitool("show").stdout


def test_uplinks(node: Node) -> None:
    for command in (
        "link add up0 type veth peer name wire0",
        "link set up0 up",
        "link set wire0 up",
        "address add 192.0.2.10/24 dev up0",
        "route add default via 192.0.2.1",
    ):
        node.host.run("ip", *command.split())
    (uplink,) = node.show()["uplinks"]
    assert (uplink["name"], uplink["addresses"], uplink["gateways"]) == ("up0", ["192.0.2.10/24"], ["192.0.2.1"])
    node.host.run("ip", "route", "del", "default")
    hops = ("nexthop", "via", "192.0.2.1", "nexthop", "via", "192.0.2.2")
    node.host.run("ip", "route", "add", "default", *hops)
    assert node.show()["uplinks"][0]["gateways"] == ["192.0.2.1", "192.0.2.2"]


def counters(host: PretendHost, link: str) -> tuple[int, int]:
    (found,) = host.ip("-s", "link", "show", link)
    return found["stats64"]["rx"]["bytes"], found["stats64"]["tx"]["bytes"]


def test_in_and_out_are_the_pods(node: Node) -> None:
    link = host_end(node.attach("web1"))
    # no answers: the pod sends more than it receives
    for command in ("link set eth0 arp off", "link set eth0 address 02:00:00:00:00:09"):
        node.host.run("ip", "-n", "web1", *command.split())
    node.host.run("ip", "netns", "exec", "web1", "ping", "-q", "-c", "20", "-i", "0.01", "-W", "0.1", "-s", "1400",
                  "10.1.0.99", check=False)  # fmt: skip
    before = counters(node.host, link)
    traffic = ports(node.show())["web1"]["traffic"]
    after = counters(node.host, link)
    assert before[0] >= 20 * 1400
    assert before[0] <= traffic["out"] <= after[0] and before[1] <= traffic["in"] <= after[1]


def test_traffic_is_what_passed_meanwhile(node: Node) -> None:
    link = host_end(node.attach("web1"))
    ping = ("ping", "-i", "0.01", "-s", "1000", "10.1.0.1")
    with running(node.host, "ip", "netns", "exec", "web1", *ping):
        before = counters(node.host, link)
        shown = json.loads(node.cnitool("show", "--json", "--seconds", "0.3").stdout)
        after = counters(node.host, link)
    rate = ports(shown)["web1"]["traffic"]
    assert shown["seconds"] >= 0.3
    assert 0 < rate["out"] * shown["seconds"] <= after[0] - before[0] + 1


def test_the_references_pod(node: Node, reference_bin: str) -> None:
    """Without an alias, only the runtime's cache names the owner."""
    result = node.attach_without_runtime("nobody", bin_dir=reference_bin)
    node.configure({**NETWORK_OF_THE_REFERENCE})
    remembered = node.attach("theirs", "db", network="theirs", bin_dir=reference_bin)
    found = ports(node.show())
    unknown = found[host_end(result)]["pod"]
    assert (unknown["containerID"], unknown["ownerFrom"], unknown["netns"]) == ("", "", "/run/netns/nobody")
    assert unknown["ifname"] == "eth0" and unknown["addresses"] == addresses(result)
    known = found["theirs"]["pod"]
    assert (known["network"], known["ifname"], known["name"]) == ("theirs", "eth0", "db")
    assert (known["ownerFrom"], known["addressesFrom"]) == ("cache", "namespace")
    assert known["addresses"] == addresses(remembered)
    assert "owner not known, in /run/netns/nobody" in node.cnitool("show").stdout


NETWORK_OF_THE_REFERENCE: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "theirs",
    "plugins": [{"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local", "subnet": "10.2.0.0/24"}}],
}


def test_the_reference_remembered_without_names_on_the_host(node: Node, reference_bin: str) -> None:
    """If the result does not name the host's end, the link inside the namespace identifies the attachment."""
    node.configure(NETWORK_OF_THE_REFERENCE)
    node.attach("theirs", "db", network="theirs", bin_dir=reference_bin)
    entry = node.host.root / "var/lib/cni/results/theirs-theirs-eth0"
    content = json.loads(entry.read_text())
    del content["result"]["interfaces"]
    entry.write_text(json.dumps(content))
    assert ports(node.show())["theirs"]["pod"]["name"] == "db"


def test_links_without_a_bridge_and_attachments_without_a_link(node: Node, reference_bin: str) -> None:
    ipam = {"type": "host-local", "subnet": "10.3.0.0/24"}
    node.configure({"cniVersion": "1.0.0", "name": "routed", "plugins": [{"type": "ptp", "ipam": ipam}]})
    node.attach("routed1", network="routed", bin_dir=reference_bin)
    node.attach("web1")
    node.host.drop_netns("web1")
    node.host.run("ip", "link", "add", "stranger", "type", "veth", "peer", "name", "stranger2")
    shown = node.show()
    (port,) = shown["unbridged"]
    assert port["pod"]["containerID"] == "routed1" and port["pod"]["addresses"] == ["10.3.0.2/24"]
    (left,) = shown["unlinked"]
    assert (left["containerID"], left["gone"], left["addressesFrom"]) == ("web1", True, "cache")
    assert "its namespace is gone" in node.cnitool("show").stdout


def test_ports_that_lead_to_no_pod(node: Node) -> None:
    node.attach("web1")
    node.host.run("ip", "link", "add", "here", "type", "veth", "peer", "name", "there")
    node.host.run("ip", "link", "set", "here", "master", "cni0")
    port = ports(node.show())["here"]
    assert (port["pod"], port["peer"], port["state"]) == (None, "there", "down")


def test_one_network(node: Node) -> None:
    other = {**NETWORK_OF_THE_REFERENCE, "name": "other"}
    node.configure({**other, "plugins": [{**other["plugins"][0], "bridge": "cni1"}]})
    node.attach("web1")
    node.attach("db1", network="other")
    assert {bridge["name"] for bridge in node.show()["bridges"]} == {"cni0", "cni1"}
    shown = node.show("other")
    assert [bridge["name"] for bridge in shown["bridges"]] == ["cni1"] and set(ports(shown, "cni1")) == {"db1"}
    assert "no pods of network nothing" in node.cnitool("show", "nothing").stdout


def test_pods_whose_link_came_from_the_host_or_a_program(node: Node) -> None:
    """The kind of their own link is shown, and its state if it is not up. A tap has no carrier without a reader."""
    node.host.run("sh", "-ec", "ip link add dev0 type veth peer name far0; ip link set far0 up; ip link set dev0 up")
    for name, plugin in (("lent", {"type": "host-device", "device": "dev0"}), ("taps", {"type": "tap"})):
        ipam = {"type": "host-local", "subnet": "10.3.0.0/24"}
        node.configure({"cniVersion": "1.0.0", "name": name, "plugins": [{**plugin, "ipam": ipam}]})
        node.attach(name, network=name)
    shown = {pod["network"]: (pod["link"], pod["state"]) for pod in node.show()["unlinked"]}
    assert shown == {"taps": ("tap", "no carrier"), "lent": ("veth", "up")}
    assert "no carrier" not in node.cnitool("show").stdout
    for form in FORMS:
        done = node.cnitool("show", "--seconds", "0", *form)
        assert "tap" in (done.stdout or (node.host.root / "run/picture.svg").read_text())
    node.host.run("ip", "-n", "taps", "link", "set", "eth0", "down")
    assert re.search(r"tap +taps/taps/eth0 +10.3.0.2/24 +down$", node.cnitool("show").stdout, re.MULTILINE)
    node.host.run("ip", "-n", "taps", "link", "del", "eth0")
    assert {pod["network"]: pod["state"] for pod in node.show()["unlinked"]} == {"taps": "missing", "lent": "up"}


@pytest.mark.kernel_8021q
def test_the_number_of_a_pods_vlan(node: Node) -> None:
    node.host.run("sh", "-ec", "ip link add up0 type veth peer name far0; ip link set up0 up; ip link set far0 up")
    plugin = {"type": "vlan", "master": "up0", "vlanId": 100, "ipam": {"type": "host-local", "subnet": "10.3.0.0/24"}}
    node.configure({"cniVersion": "1.0.0", "name": "hundred", "plugins": [plugin]})
    node.attach("web1", network="hundred")
    (master,) = node.show()["masters"]
    assert [(port["kind"], port["vlan"]) for port in master["ports"]] == [("vlan", 100)]
    assert "vlan 100" in node.cnitool("show", "--seconds", "0").stdout


@pytest.mark.kernel_vrf
def test_the_vrf_of_a_pods_link(node: Node) -> None:
    node.configure({**NETWORK, "plugins": [*NETWORK["plugins"], {"type": "vrf", "vrfname": "blue"}]})
    node.attach("web1")
    assert ports(node.show())["web1"]["pod"]["vrf"] == "blue"
    assert "vrf blue" in node.cnitool("show", "--seconds", "0").stdout


@pytest.mark.parametrize("ipv6", ["", "1"])
def test_a_node_without_pods(node: Node, ipv6: str) -> None:
    if ipv6:
        node.host.run("tee", "/proc/sys/net/ipv6/conf/all/disable_ipv6", input=ipv6)
    shown = node.cnitool("show", "--seconds", "0")
    assert shown.stdout.splitlines()[-1] == "└── no pods" and shown.stderr == ""
    node.host.run("ip", "link", "add", "cni0", "type", "bridge")
    for form in FORMS:
        done = node.cnitool("show", "--seconds", "0", *form)
        assert "cni0" in (done.stdout or (node.host.root / "run/picture.svg").read_text()) and done.stderr == ""


def test_pods_without_ipv6(node: Node) -> None:
    node.host.run("tee", "/proc/sys/net/ipv6/conf/default/disable_ipv6", input="1")
    node.configure({**NETWORK_OF_THE_REFERENCE, "name": "pods"})
    node.attach("web1")
    assert ports(node.show())["web1"]["pod"]["addresses"] == ["10.2.0.2/24"]


def test_every_form_tells_of_the_pod(node: Node) -> None:
    link = host_end(node.attach("web1", "web"))
    for form in FORMS:
        done = node.cnitool("show", "--seconds", "0", *form)
        text = done.stdout or (node.host.root / "run/picture.svg").read_text()
        for word in ("web", "10.1.0.2/24", "fd00:1::2/64", link, "cni0", "10.1.0.1/24", "pretend"):
            assert word in text, f"{word} is not in {form}"
        assert "\033" not in done.stdout and done.stderr == ""
    assert max(map(len, node.cnitool("show").stdout.splitlines())) > 100  # nothing is wrapped in a pipe


def test_pods_that_go_while_it_looks(node: Node) -> None:
    node.attach("web1")
    churn = """ip link add br9 type bridge
    while echo; do
        ip netns add churn
        ip link add outer type veth peer name inner netns churn
        ip link set outer master br9 alias pycni:pods/churn/inner up
        ip netns del churn
    done"""
    with running(node.host, "sh", "-c", churn):
        for _ in range(5):
            assert "web1" in ports(node.show())


def test_many_strangers(node: Node) -> None:
    node.attach("web1")
    strangers = "\n".join(f"link add s{number} type veth peer name t{number}" for number in range(600))
    node.host.run("ip", "-batch", "-", input=strangers)
    shown = node.show()
    assert set(ports(shown)) == {"web1"} and len(shown["bridges"]) == 1 and shown["unbridged"] == []


def test_hostile_names(node: Node) -> None:
    """A name or an alias can be any bytes: they are escaped on the terminal and in the picture."""
    node.attach("web1")
    name = b'b\xff\x1b[1m"<&'
    node.host.run("ip", "link", "add", name, "type", "bridge")  # type: ignore[arg-type]
    node.host.run("ip", "link", "add", "v", "type", "veth", "peer", "name", "w")
    node.host.run("ip", "link", "set", "v", "master", name, "alias", 'pycni:pods/\x1b]0;"]-->/eth0')  # type: ignore[arg-type]
    (node.host.root / "var/lib/cni/results/x-y-z").write_text('{"kind": "cniCacheV1", "containerId": "y", "ifName": "z",'
        '"networkName": "x", "netns": "/none", "result": {"ips": 3, "interfaces": "none", "ip4": []}}')  # fmt: skip
    for form in FORMS:
        done = node.cnitool("show", "--seconds", "0", *form)
        assert "\033" not in done.stdout and done.stderr == ""
    assert 'pods/�]0;"]-->/eth0' in node.cnitool("show", "--seconds", "0").stdout
    ET.fromstring((node.host.root / "run/picture.svg").read_text())  # noqa: S314 - our own
    assert [pod["containerID"] for pod in node.show()["unlinked"]] == ["y"]


def test_progress_is_for_terminals(node: Node) -> None:
    pods = "".join(
        f"link add h{number} type veth peer name p{number}\nlink set h{number} master cni0 alias pycni:pods/c{number}/eth0\n"
        for number in range(30)
    )  # fmt: skip
    node.host.run("ip", "-batch", "-", input=f"link add cni0 type bridge\n{pods}")
    quiet = node.cnitool("show", "--seconds", "0")
    assert quiet.stderr == "" and "looking" not in quiet.stdout
    command = " ".join(f"'{word}'" if word != CNITOOL[-1] else f'"{word}"' for word in CNITOOL)
    environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm"}
    seen = node.host.run("script", "-qec", f"{command} show --seconds 0", "/dev/null", env=environment)
    assert "looking into pods" in seen.stdout and "pods/c29/eth0" in seen.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--svg", "/nonexistent/picture.svg"), "--svg /nonexistent/picture.svg: No such file or directory"),
        (("--cache-dir", "/proc/version"), "cannot read /proc/version/results: Not a directory"),
    ],
)
def test_refusals(node: Node, arguments: tuple[str, ...], words: str) -> None:
    done = node.cnitool("show", "--seconds", "0", *arguments, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"cnitool: {words}\n")


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "much", "3601"])
def test_seconds(node: Node, seconds: str) -> None:
    done = node.cnitool("show", "--seconds", seconds, check=False)
    assert done.returncode == 2 and f"--seconds: '{seconds}' is not a number from 0 to 3600" in done.stderr


def test_no_namespace_is_made(node: Node) -> None:
    """A cached path without a file stays so."""
    node.attach("web1")
    node.host.drop_netns("web1")
    node.show()
    assert not Path(node.host.root, "run/netns/web1").exists()


def test_limits_are_no_pod(node: Node) -> None:
    """bandwidth's ifb is in the result, and has the pod's alias, but is no pod's link."""
    limits = {"type": "bandwidth", "egressRate": 10**6, "egressBurst": 10**6}
    node.configure({**NETWORK, "plugins": [*NETWORK["plugins"], limits]})
    node.attach("c1")
    assert [link["ifname"] for link in node.host.ip("link", "show", "type", "ifb")]
    shown = node.show()
    assert (len(shown["bridges"][0]["ports"]), shown["unbridged"], shown["unlinked"]) == (1, [], [])
