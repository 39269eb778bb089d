"""The holder of a host port, rule or address died without DEL: the next ADD that needs it takes it over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.net.owner import Owner
from tests.pretend import PretendHost
from tests.system.chain_node import BRIDGE, FIREWALL, PORTMAP, Node, Plugin
from tests.system.hostport_nodes import HOST, HOST_6, OUT, OUT_6
from tests.system.hostport_nodes import Node as PortNode

BACKENDS = ("nftables", "iptables")
BACKENDS_OF_BOTH = [(first, second) for first in BACKENDS for second in BACKENDS]


def portmap(backend: str, *ports: tuple[int, int, str]) -> Plugin:
    mappings = [{"hostPort": port, "containerPort": to, "protocol": protocol} for port, to, protocol in ports]
    return {"type": "portmap", "backend": backend, **({"runtimeConfig": {"portMappings": mappings}} if ports else {})}


def ported(backend: str) -> list[Plugin]:
    return [BRIDGE, {**PORTMAP, "backend": backend}]


@pytest.mark.row(25)
@pytest.mark.parametrize(("first", "second"), BACKENDS_OF_BOTH)
def test_a_dead_holder_of_a_host_port(host: PretendHost, first: str, second: str) -> None:
    """Its port reaches the new pod with each pair of backends, tracked UDP as well; none of its state is left."""
    outside = PortNode(host)
    node = Node(host)
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.4.0.0/24"}], [{"subnet": "fd00:4::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}  # fmt: skip
    bridge = {**BRIDGE, "bridge": "cni4", "ipam": ipam}
    ports = ((8080, 80, "tcp"), (8081, 80, "udp"))
    node.up("c", [bridge, portmap(first, *ports, (8082, 80, "tcp"))])
    outside.where["c"] = "/run/netns/c"
    goes_on = [("out", "udp", HOST, 8081, 5555)]  # from one port: a connection that the kernel tracks
    assert outside.probe([("c", "udp", 80)], goes_on) == [["c", OUT]]
    node.kill("c")
    node.up("d", [bridge, portmap(second, *ports)])
    outside.where["d"] = "/run/netns/d"
    assert outside.probe([("d", "udp", 80)], goes_on) == [["d", OUT]]
    servers = [("d", "tcp", 80), ("d", "udp", 80)]
    probes = [
        ("out", "tcp", HOST, 8080),
        ("out", "udp", HOST, 8081),
        ("out", "tcp", HOST_6, 8080),
        ("out", "udp", HOST_6, 8081),
    ]
    assert outside.probe(servers, probes) == [["d", OUT], ["d", OUT], ["d", OUT_6], ["d", OUT_6]]
    assert not [one for one in node.elements() if "net/c/" in one]
    assert not [one for one in node.iptables() if r"id: \"c\"" in one]
    # it holds the port now, and is alive
    node.host.netns("e")
    result = node.call("ADD", "e", bridge).json
    for backend in BACKENDS:
        answer = node.call("ADD", "e", portmap(backend, (8080, 80, "tcp")), prevResult=result)
        assert answer.code == 999 and "host port 8080/tcp" in answer.json["msg"] and "net/d" in answer.json["msg"], (
            answer
        )
    assert outside.probe(servers, probes) == [["d", OUT], ["d", OUT], ["d", OUT_6], ["d", OUT_6]]


@pytest.mark.row(25)
@pytest.mark.parametrize(("first", "second"), BACKENDS_OF_BOTH)
@pytest.mark.parametrize("state", ["alive", "netns held", "path gone", "link gone", "unmarked"])
def test_a_holder_that_may_be_alive_is_refused(node: Node, first: str, second: str, state: str) -> None:
    """The loss of its namespace or of its link alone is no proof; without a mark nothing is."""
    node.up("a", ported(first))
    node.host.netns("b")
    result = node.call("ADD", "b", BRIDGE).json
    holder = None
    if state == "netns held":  # by a process: the link stays, the path does not
        holder = node.host.popen("ip", "netns", "exec", "a", "sleep", "60")
        node.host.run("sh", "-c", "until ip netns pids a | grep -q .; do sleep 0.01; done")
        node.host.run("umount", "/run/netns/a")
    elif state == "path gone":
        node.host.run("mount", "--bind", "/run/netns/a", "/run/netns/b2", check=False)
        holder = node.host.popen("ip", "netns", "exec", "a", "sleep", "60")
        node.host.run(
            "sh", "-c", "until ip netns pids a | grep -q .; do sleep 0.01; done; umount /run/netns/a; rm /run/netns/a"
        )
    elif state == "link gone":
        node.host.run("ip", "-n", "a", "link", "del", "eth0")
    elif state == "unmarked":
        node.kill("a")
        node.host.run("rm", "-rf", "/run/cni/portmap")
        if first == "nftables":
            shown = json.loads(node.host.run("nft", "--json", "list", "set", "inet", "pycni", "attachments").stdout)
            marks = [
                one["elem"]
                for entry in shown["nftables"]
                for one in entry.get("set", {}).get("elem", [])
                if one["elem"]["comment"].startswith("veth")
            ]
            node.host.run("nft", f"delete element inet pycni attachments {{ {marks[0]['val']} }}")
    before = node.left()
    answer = node.call("ADD", "b", {**PORTMAP, "backend": second}, prevResult=result)
    assert answer.code == 999 and "is taken by net/a" in answer.json["msg"], answer
    assert node.left() == before
    if holder:
        holder.kill()
        holder.communicate()


@pytest.mark.row(25)
@pytest.mark.parametrize("backend", BACKENDS)
def test_names_of_any_length(node: Node, backend: str) -> None:
    """A truncated label still identifies the link and the namespace."""
    pod, network = "a" * 90, "n" * 60
    node.host.netns("x")

    def call(verb: str, plugin: Plugin, **keys: Any) -> Any:
        answer = node.host.cni(
            plugin["type"],
            verb,
            {"cniVersion": "1.1.0", "name": network, **plugin, **keys},
            netns="/run/netns/x",
            container_id=pod,
        )
        assert answer.status == 0, answer
        return answer.json if answer.stdout else None

    bridge = {**BRIDGE, "name": network}
    result = call("ADD", bridge)
    call("ADD", {**PORTMAP, "backend": backend}, prevResult=result)
    node.host.drop_netns("x")
    node.host.run("sh", "-c", "while ip link | grep -q ': veth'; do sleep 0.01; done")
    node.up("b", ported(backend))
    assert not [one for one in (*node.elements(), *node.iptables()) if "nnnn" in one]


@pytest.mark.row(25)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_container_comes_back(node: Node, backend: str) -> None:
    """It has a new namespace, and portmap follows an unknown plugin: the container's own former ports are stale."""
    for place in range(2):
        node.host.netns("a")
        result = node.call("ADD", "a", BRIDGE).json
        answer = node.call("ADD", "a", {**PORTMAP, "backend": backend}, prevResult=result)
        assert answer.status == 0, answer
        again = node.call("ADD", "a", {**PORTMAP, "backend": backend}, prevResult=result)
        assert again.code == 999 and "added before" in again.json["msg"], again
        if not place:
            node.lose("a")
    node.down("a", ported(backend))
    assert node.left()[2:] == (set(), set(), set())


@pytest.mark.row(25)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_ports_of_a_dead_pod_do_not_lead_to_the_next_one(host: PretendHost, backend: str) -> None:
    """The next pod has its address, and asked for no port."""
    node = Node(host)
    node.up("a", ported(backend))
    addresses = node.addresses("a")
    node.lose("a")
    node.up("b", [BRIDGE])
    assert node.addresses("b") == addresses
    assert not [one for one in node.elements() if "net/a/" in one]
    assert not [one for one in node.iptables() if "--to-destination" in one]


@pytest.mark.row(25)
def test_firewall_and_masquerading_of_a_dead_pod(node: Node) -> None:
    """They do not affect the pod that gets its address."""
    node.up("a", [{**BRIDGE, "ipMasq": True}, {**FIREWALL, "ingressPolicy": "isolated"}])
    node.lose("a")
    chain = [{**BRIDGE, "ipMasq": True}, FIREWALL]
    node.up("b", chain)
    node.up("c", chain)
    for address in node.addresses("b"):
        node.host.run("ip", "netns", "exec", "c", "ping", "-c1", "-W2", address)
    check = node.call("CHECK", "b", chain[0], prevResult=node.results["b"])
    assert check.status == 0, check
    assert not [one for one in node.elements() if one.startswith("guarded")]


@pytest.mark.row(25)
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_firewall_behind_another_plugin(node: Node, backend: str) -> None:
    """The main plugin does not look for an earlier owner: the dead pod's policy must not hold for the new pod."""
    node.up("a", [{**BRIDGE, "ipMasq": True}, {**FIREWALL, "ingressPolicy": "same-bridge"}])
    node.lose("a")
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/b"}],
                "ips": [{"address": f"{address}/24", "interface": 0} for address in node.addresses("a") if "." in address]}  # fmt: skip
    node.host.netns("b")
    answer = node.call("ADD", "b", {**FIREWALL, "backend": backend}, prevResult=previous)
    assert answer.status == 0, answer
    assert not [one for one in node.elements() if one.startswith(("guarded4", "admitted4")) and "net/a/" in one]


@pytest.mark.row(25)
@pytest.mark.parametrize("backend", BACKENDS)
def test_portmap_behind_another_plugin(node: Node, backend: str) -> None:
    """A dead pod's ports do not lead to the pod that has its address."""
    node.up("a", ported(backend))
    node.lose("a")
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/b"}],
                "ips": [{"address": f"{address}/{120 if ':' in address else 24}", "interface": 0} for address in node.addresses("a")]}  # fmt: skip
    node.host.netns("b")
    answer = node.call("ADD", "b", portmap(backend, (9090, 80, "tcp")), prevResult=previous)
    assert answer.status == 0, answer
    assert not [one for one in (*node.elements(), *node.iptables()) if "net/a/" in one or r"id: \"a\"" in one]


@pytest.mark.row(25)
def test_records_are_nothing_to_be_led_by(node: Node) -> None:
    """A file written by another program names no other attachment, and an unreadable one no holder."""
    node.up("a", ported("iptables"))
    directory = Path(node.host.root, "run/cni/portmap")
    (own,) = directory.glob("*.json")
    content = json.loads(own.read_text())
    assert content["network"] == "net" and content["mark"].endswith(" /run/netns/a")
    node.host.run("ip", "link", "set", Owner("net", "a", "eth0").host_link, "down", "name", "renamed")
    (directory / "x.json").write_text(own.read_text().replace(content["mark"], "1:1 /nowhere"))
    (directory / "y.json").write_text("{")
    node.host.netns("b")
    result = node.call("ADD", "b", BRIDGE).json
    for step in ("others' words", "what cannot be read"):
        if step == "what cannot be read":
            (directory / "z.json").symlink_to("/etc/passwd")
        answer = node.call("ADD", "b", {**PORTMAP, "backend": "iptables"}, prevResult=result)
        assert answer.code == 999 and "is taken by net/a/eth0" in answer.json["msg"], (step, answer)
