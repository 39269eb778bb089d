"""firewall when FORWARD's owner changes under running pods: CHECK reports it, the next ADD or GC admits all pods."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shared.admission import claims
from shared.net.owner import Owner
from tests.faults import batch
from tests.firewalld import Firewalld
from tests.node import DEAF
from tests.pretend import PretendHost
from tests.system.firewall_node import CONFIG, Node

DROP = ("sh", "-ec", "for six in '' 6; do ip${six}tables -P FORWARD DROP; done")
FLUSH = ("sh", "-ec", "for six in '' 6; do ip${six}tables -F; ip${six}tables -X; done")
PROXY = """
for six in '' 6; do
ip${six}tables -N KUBE-FORWARD
ip${six}tables -A FORWARD -m comment --comment "a proxy's -j DROP" -j KUBE-FORWARD
ip${six}tables -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
ip${six}tables -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
ip${six}tables -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
done
"""
EITHER = pytest.mark.parametrize("verb", ["ADD", "GC"])


def repair(node: Node, verb: str, *pods: str, **keys: Any) -> None:
    """Make the next call of the network: an ADD of another pod, or GC."""
    if verb == "ADD":
        node.add(f"next{len(node.results)}", bridge=4, **keys)
    else:
        node.collect(*pods, **keys)


def outside(node: Node, *pods: str) -> list[list[int]]:
    return [node.reaches(pod, "outside") for pod in pods]


def end(node: Node, *pods: str) -> None:
    for pod in pods or node.results:
        node.delete(pod, netns="")
    assert node.elements() == {} and node.pod_rules() == [] and node.records() == []


ALL = [[4, 6], [4, 6]]
NOBODY: list[list[int]] = [[], []]


@pytest.mark.row(23)
@EITHER
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_forward_becomes_drop(node: Node, variant: str, verb: str) -> None:
    node.add("a")
    node.add("b", bridge=2)
    node.host.run("sh", "-ec", f"iptables-{variant} -P FORWARD DROP; ip6tables-{variant} -P FORWARD DROP")
    assert outside(node, "a", "b") == NOBODY
    for pod in "ab":
        said = node.check(pod)
        assert all(f"drops packets from {address}" in said for address in node.addresses(pod)), said
    repair(node, verb, "a", "b")
    assert outside(node, "a", "b") == ALL
    assert node.check("a") == node.check("b") == ""
    assert "admitted4" not in node.elements()
    for pod in node.results:
        node.delete(pod, netns="")
    lines = node.filter(variant=f"-{variant}") + node.filter("ip6", f"-{variant}")
    assert node.elements() == {} and node.records() == []
    assert [line for line in lines if line.startswith("-A CNI-FORWARD -") and "CNI-ADMIN" not in line] == []


def test_rules_that_let_a_pod_through_do_not_break_it(node: Node) -> None:
    """CHECK looks for its rules at the place that ADD chose; elsewhere it asks only whether packets are dropped."""
    node.add("a")
    node.host.run("sh", "-ec", PROXY)
    assert outside(node, "a") == [[4, 6]] and node.check("a") == ""
    node.host.run(
        "sh",
        "-ec",
        "for six in '' 6; do ip${six}tables -I FORWARD -i cn+ ! -o cni9 -j ACCEPT; ip${six}tables -P FORWARD DROP; done",
    )
    assert outside(node, "a") == [[4, 6]] and node.check("a") == ""
    node.host.run(
        "sh", "-ec", "for six in '' 6; do ip${six}tables -D FORWARD 1; ip${six}tables -P FORWARD ACCEPT; done"
    )
    assert node.check("a") == ""
    node.host.run("sh", "-ec", "iptables -A FORWARD -j REJECT; ip6tables -I FORWARD -s fd00:1::/64 -j DROP")
    assert outside(node, "a") == [[]]
    said = node.check("a")
    assert (
        "iptables (nft) drops packets from 10.1.0.2" in said and "ip6tables (nft) drops packets from fd00:1::2" in said
    ), said
    node.add("b")
    assert outside(node, "a", "b") == [[4], [4]] or outside(node, "a", "b") == ALL
    assert "10.1.0.2" not in node.check("a")


@pytest.mark.row(23, "lost-rules")
@EITHER
@pytest.mark.parametrize("policy", ["ACCEPT", "DROP"])
def test_iptables_are_flushed(node: Node, policy: str, verb: str) -> None:
    node.host.run(*DROP)
    node.add("a")
    node.add("b", bridge=2)
    node.host.run(*FLUSH)
    node.host.run("sh", "-ec", f"for six in '' 6; do ip${{six}}tables -P FORWARD {policy}; done")
    assert outside(node, "a", "b") == (NOBODY if policy == "DROP" else ALL)
    assert "has no rule" in node.check("a") and "CNI-FORWARD" in node.check("b")
    repair(node, verb, "a", "b")
    assert outside(node, "a", "b") == ALL
    assert node.check("a") == node.check("b") == ""
    end(node)


@pytest.mark.row(23, "lost-rules")
@EITHER
@pytest.mark.parametrize("damage", [
    "flush ruleset", "delete table inet pycni", "flush set inet pycni admitted4; flush map inet pycni guarded4; flush map inet pycni guarded6",
    "delete table inet pycni; delete table bridge pycni", "flush set inet pycni bridges; flush set bridge pycni isolated", "flush chain inet pycni forwarding",
])  # fmt: skip
def test_nf_tables_are_flushed(node: Node, damage: str, verb: str) -> None:
    """The rules that keep pods apart are restored for all of them."""
    policy = {"ingressPolicy": "isolated"}
    for pod, bridge in (("a", 1), ("a2", 1), ("b", 2)):
        node.add(pod, bridge=bridge, **policy)
    before = node.elements()
    assert node.reaches("a", "b") == node.reaches("a", "a2") == []
    node.host.run("nft", damage)
    assert node.check("a", **policy) != ""
    repair(node, verb, "a", "a2", "b", **(policy if verb == "GC" else {}))
    assert node.reaches("a", "b") == node.reaches("a", "a2") == node.reaches("b", "a") == []
    assert [node.check(pod, **policy) for pod in ("a", "a2", "b")] == ["", "", ""]
    if verb == "GC":
        assert node.elements() == before
    end(node)


@pytest.mark.row(23, "lost-rules")
@EITHER
def test_firewalld_loads_anew(node: Node, firewalld: Firewalld, verb: str) -> None:
    """firewalld forgets its sources by a reload and by a restart; CHECK names each."""
    node.add("a")
    node.add("b", bridge=2)
    for step in ("reload", "restart"):
        if step == "reload":
            firewalld.run("--reload")
        else:
            firewalld.stop(firewalld.daemon)
            firewalld.start()
        assert outside(node, "a", "b") == NOBODY and "fd00:2::2/128" in node.check("b")
        repair(node, verb, "a", "b")
        assert outside(node, "a", "b") == ALL and node.check("a") == node.check("b") == ""
    end(node)
    assert firewalld.sources() == []


@pytest.mark.row(23)
@EITHER
@pytest.mark.parametrize("before", ["nftables", "iptables"])
def test_firewalld_starts_later_and_stops(node: Node, before: str, verb: str) -> None:
    if before == "iptables":
        node.host.run("sh", "-ec", PROXY)
    node.add("a")
    node.add("b", bridge=2)
    firewalld = Firewalld(node.host)
    assert outside(node, "a", "b") == NOBODY
    assert "firewalld runs and has no source 10.1.0.2/32" in node.check("a")
    repair(node, verb, "a", "b")
    assert outside(node, "a", "b") == ALL and node.check("a") == node.check("b") == ""
    firewalld.stop(firewalld.daemon)
    assert "firewalld does not run" in node.check("a")
    repair(node, verb, "a", "b")
    assert outside(node, "a", "b") == ALL and node.check("a") == node.check("b") == ""
    end(node)


def test_links_that_firewalld_lets_through(node: Node, firewalld: Firewalld) -> None:
    """CHECK accepts a pod that nf_tables admitted if the administrator put its bridge into the zone."""
    node.add("a", backend="nftables")
    assert "has no source" in node.check("a")
    firewalld.run("--zone=trusted", "--add-interface=cni1")
    assert outside(node, "a") == [[4, 6]] and node.check("a") == ""


# -- pods that are not admitted


@pytest.mark.row(23)
@EITHER
def test_the_dead_are_not_admitted(node: Node, verb: str) -> None:
    for pod in ("a", "b", "c"):
        node.add(pod)
    node.host.drop_netns("b")
    node.host.run(*DROP)
    repair(node, verb, "a", "b")
    rules = " ".join(node.pod_rules())
    assert "10.1.0.2/32" in rules and "10.1.0.3/32" not in rules and ("10.1.0.4/32" in rules) == (verb == "ADD")
    node.delete("b", netns="")
    end(node)


def test_other_networks_are_left_alone(node: Node) -> None:
    node.add("a")
    node.add("b", name="other")
    node.host.run(*DROP)
    node.add("c")
    assert outside(node, "a", "b", "c") == [[4, 6], [], [4, 6]]
    assert "drops" in node.check("b", name="other")
    node.collect("b", name="other")
    assert outside(node, "a", "b") == ALL


@pytest.mark.parametrize("whose", ["another network's", "a dead attachment's"])
def test_notes_that_are_not_for_this_network(node: Node, whose: str) -> None:
    """Names of older releases' notes do not contain the network; a note under another name belongs to no attachment."""
    node.add("a")
    node.add("b", name="other" if whose.startswith("another") else "net")
    directory = node.host.root / "run/cni/firewall"
    name = "other" if whose.startswith("another") else "net"
    path, older = (directory / Path(one).name for one in claims._paths(Owner(name, "b", "eth0")))  # noqa: SLF001
    if whose.startswith("another"):
        path.rename(older)
    else:
        (directory / f"{path.name[:-7]}aa.json").write_text(path.read_text())
        node.delete("b")
    node.host.run(*DROP)
    node.add("c")
    assert outside(node, "a", "b", "c") == [[4, 6], [], [4, 6]]


@pytest.mark.parametrize("place", [0, -1])
def test_the_first_and_the_last_are_witnesses(node: Node, place: int) -> None:
    """An ADD killed while it restores has done the first ones only: the next ADD looks at the first and the last."""
    node.host.run(*DROP)
    for pod in ("a", "b", "c"):
        node.add(pod)
    pods = {claims_path(pod): pod for pod in ("a", "b", "c")}
    lost = pods[node.records()[place]]
    for address in node.addresses(lost):
        six, length = ("6", 128) if ":" in address else ("", 32)
        node.host.run(f"ip{six}tables", "-D", "CNI-FORWARD", "-s", f"{address}/{length}", "-j", "ACCEPT")
    assert outside(node, lost) == [[]]
    node.add("d")
    assert outside(node, lost) == [[4, 6]]


def claims_path(pod: str) -> str:
    """Return the path of a pod's note."""
    return claims._paths(Owner("net", pod, "eth0"))[0].rpartition("/")[2]  # noqa: SLF001


def results(count: int) -> list[dict[str, Any]]:
    return [{"cniVersion": "1.0.0", "ips": [{"address": f"10.1.0.{n + 2}/24"}]} for n in range(count)]


def test_pods_that_end_meanwhile(host: PretendHost) -> None:
    """A pod that is deleted while other calls restore lost rules has no rules afterwards."""
    batch.make_pods(host, 2)

    def calls(*commands: tuple[str, int]) -> None:
        made = [
            batch.Call(
                "firewall",
                verb,
                {**CONFIG, "prevResult": results(40)[n]},
                {"CNI_CONTAINERID": f"c{n}", "CNI_NETNS": "/run/netns/pod0"},
            )
            for verb, n in commands
        ]
        assert {answer.status for answer in batch.run(host, made, at_once=len(made))} == {0}

    for step, damage in enumerate((DROP, FLUSH, ("nft", "flush", "ruleset"))):
        first = 12 * step
        calls(*(("ADD", n) for n in range(first, first + 8)))
        host.run(*damage)
        calls(*(("DEL", n) for n in range(first, first + 6)), *(("ADD", n) for n in range(first + 8, first + 12)))
        left = {n for n in range(40) if f"10.1.0.{n + 2}/32" in host.run("iptables-save").stdout}
        elements = {
            n
            for n in range(40)
            if f"10.1.0.{n + 2} " in host.run("nft", "list", "table", "inet", "pycni", "", check=False).stdout
        }
        alive = {*range(first + 6, first + 12)}
        assert not (left | elements) & {*range(first, first + 6)}
        assert left >= alive or elements >= alive, (left, elements)
        calls(*(("DEL", n) for n in range(first + 6, first + 12)))
    assert not (host.root / "run/cni/firewall").exists() or not any((host.root / "run/cni/firewall").iterdir())


# -- cost and kills


def traced(host: PretendHost, number: int) -> list[int]:
    """Return the number of files, messages and programs that an ADD and a DEL take."""
    found = []
    for verb in ("ADD", "DEL"):
        config = {**CONFIG, "prevResult": results(200)[number]}
        prefix = ("strace", "-qq", "-e", "trace=openat,sendto,execve,rename,connect", "-o", "/run/trace")
        answer = host.cni("firewall", verb, config, netns="/run/netns/pod0", container_id=f"c{number}", prefix=prefix)
        assert answer.status == 0, answer
        found.append(host.run("cat", "/run/trace").stdout.count("\n"))
    return found


def test_cost_with_100_pods(host: PretendHost) -> None:
    """An ADD looks at two other pods, however many there are; a DEL at none."""
    batch.make_pods(host, 1)

    def add(numbers: range) -> None:
        calls = [
            batch.Call(
                "firewall",
                "ADD",
                {**CONFIG, "prevResult": results(200)[n]},
                {"CNI_CONTAINERID": f"c{n}", "CNI_NETNS": "/run/netns/pod0"},
            )
            for n in numbers
        ]
        assert {answer.status for answer in batch.run(host, calls)} == {0}

    add(range(3))
    few = traced(host, 150)
    add(range(3, 100))
    assert traced(host, 150) == few
    host.run("iptables", "-P", "FORWARD", "DROP")
    assert traced(host, 150)[0] > 3 * few[0]
    assert host.run("iptables-save").stdout.count("-A CNI-FORWARD -s 10.1.0.") == 100


@pytest.mark.slow
@pytest.mark.parametrize("damage", [DROP, ("nft", "flush", "ruleset")], ids=["drop", "flush"])
def test_killed_while_it_restores(node: Node, damage: tuple[str, ...]) -> None:
    """The ADD dies at each of its steps; the next ADD restores the rest."""
    pods = ("a", "b", "c", "d")
    for pod in pods:
        node.add(pod, ingressPolicy="isolated")
    node.pod("e")
    calls = "openat,rename,sendto,wait4"
    for number in range(1, 400, 7):
        node.host.run(
            "sh",
            "-ec",
            "for six in '' 6; do ip${six}tables -P FORWARD ACCEPT; ip${six}tables -F; ip${six}tables -X; done",
        )
        node.collect(*pods, ingressPolicy="isolated")
        node.host.run(*damage)
        killing = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={number}")  # fmt: skip
        status = node.call("ADD", "e", prefix=killing).status
        node.delete("e", netns="")
        node.add("e")
        assert [node.check(pod, ingressPolicy="isolated") for pod in pods] == [""] * 4, number
        node.delete("e", netns="")
        if status == 0:
            break
    else:
        pytest.fail("no call got through")
    assert number > 30
    end(node, *pods)


# -- notes


def notes(node: Node) -> dict[str, Path]:
    directory = node.host.root / "run/cni/firewall"
    return {json.loads(path.read_text())["containerID"]: path for path in directory.iterdir()}


def test_a_clock_that_is_set_back(node: Node) -> None:
    """The wall clock does not decide the owner: the late DEL of the first pod leaves the rules of the second."""
    node.host.run(*DROP)
    node.add("a")
    os.utime(notes(node)["a"], (4e9, 4e9))
    node.results["b"] = node.results["a"]
    node.add("b")
    os.utime(notes(node)["b"], (0, 0))
    node.delete("a", netns="", prevResult=node.results["a"])
    assert len(node.pod_rules()) == 4
    node.delete("b", netns="")
    assert node.pod_rules() == [] and node.records() == []


@pytest.mark.parametrize("mtime", [0, 4e9])
def test_a_note_of_an_older_release(node: Node, mtime: float) -> None:
    """It counts as the oldest note, and its owner's DEL finds it."""
    node.host.run(*DROP)
    node.add("a")
    path = notes(node)["a"]
    note = {
        key: value
        for key, value in json.loads(path.read_text()).items()
        if key in ("network", "containerID", "ifname", "addresses")
    }
    older = path.with_name(path.name.partition("-")[2])
    path.unlink()
    older.write_text(json.dumps(note))
    os.utime(older, (mtime, mtime))
    assert node.check("a") == ""
    node.results["b"] = node.results["a"]
    node.add("b")
    node.delete("a", netns="", prevResult=node.results["a"])
    assert len(node.pod_rules()) == 4 and len(node.records()) == 1
    older.write_text(json.dumps(note))
    os.utime(older, (mtime, mtime))
    node.delete("b", netns="")
    assert node.pod_rules() == []
    node.delete("a", netns="")
    assert node.records() == []


@EITHER
def test_pods_of_an_older_release(node: Node, verb: str) -> None:
    """They were admitted by nf_tables without a note: the registered namespace shows if they are alive."""
    node.add("a")
    node.add("b", bridge=2)
    node.add("c", bridge=3, name="other")
    for path in notes(node).values():
        path.unlink()
    for name, pod in (("net", "a"), ("other", "c")):
        node.host.run("ip", "link", "add", Owner(name, pod, "eth0").host_link, "type", "bridge")
    assert node.check("a") == ""
    node.host.run(*DROP)
    assert "drops packets from 10.1.0.2" in node.check("a")
    repair(node, verb, "a")
    assert outside(node, "a") == [[4, 6]] and node.check("a") == ""
    assert not {"10.2.0.2/32", "10.3.0.2/32"} & {*" ".join(node.pod_rules()).split()}
    node.delete("b", netns="")
    node.delete("c", netns="", name="other")
    end(node)


# -- connections from outside to host ports


HOST_PORTS = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 7}]}}
KNOCK = """
import socket, sys
for address in sys.argv[1:]:
    try:
        socket.create_connection((address, 8080), timeout=3).close()
        print(6 if ":" in address else 4)
    except OSError:
        pass
"""


def knock(node: Node, origin: str = "outside") -> list[int]:
    """Return the families in which a client reaches a host port of the node."""
    argv = ("ip", "netns", "exec", origin, "python3", "-c", KNOCK, "192.0.2.1", "fd00:99::1")
    return [int(line) for line in node.host.run(*argv).stdout.split()]


def portmap(node: Node, verb: str, backend: str = "nftables", pod: str = "a") -> None:
    config = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "portmap",
        "backend": backend,
        **HOST_PORTS,
        "prevResult": node.results[pod],
    }
    answer = node.host.cni("portmap", verb, config, netns=f"/run/netns/{pod}", container_id=pod)
    assert answer.status == 0, answer


@pytest.mark.parametrize("by", ["nftables", "iptables"])
@pytest.mark.parametrize("order", ["portmap first", "firewall first"])
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_host_ports_are_admitted(node: Node, variant: str, order: str, by: str) -> None:
    node.host.run("sh", "-ec", f"iptables-{variant} -P FORWARD DROP; ip6tables-{variant} -P FORWARD DROP")
    node.pod("a")
    if order == "portmap first":
        portmap(node, "ADD", by)
    node.add("a")
    if order == "firewall first":
        portmap(node, "ADD", by)
    assert knock(node) == [] and node.reaches("outside", "a") == []
    assert node.check("a", admitHostPorts=True) == node.check("a") == ""  # as ADD left it
    node.delete("a")
    node.add("a", admitHostPorts=True)
    assert knock(node) == [4, 6]
    assert node.reaches("outside", "a") == []  # not by its own address
    assert node.check("a", admitHostPorts=True) == ""
    lines = node.filter(variant=f"-{variant}")
    rule = "CNI-FORWARD -d 10.1.0.2/32 -m conntrack --ctstate DNAT -j ACCEPT"
    assert f"-A {rule}" in lines
    node.host.run("sh", "-c", f"iptables-{variant} -D {rule}")
    assert "--ctstate DNAT" in node.check("a")
    node.collect("a")
    assert node.check("a") == "" and knock(node) == [4, 6]
    node.delete("a", netns="")
    portmap(node, "DEL", by)
    assert not [line for line in node.filter(variant=f"-{variant}") if "10.1.0.2" in line] and node.elements() == {}


def test_host_ports_by_nf_tables(node: Node) -> None:
    node.add("a", admitHostPorts=True)
    portmap(node, "ADD")
    assert node.elements()["published4"] == node.elements()["published6"] == 1 and node.check("a") == ""
    assert knock(node) == [4, 6]
    node.host.run(*DROP)
    assert knock(node) == []
    node.add("b")
    assert knock(node) == [4, 6] and node.check("a") == "" and len(node.pod_rules()) == 6 + 4
    portmap(node, "DEL")
    end(node, "a", "b")


def test_host_ports_of_pods_that_are_kept_apart(node: Node) -> None:
    """A policy's drop is final: host ports admit outsiders, but no pods of other bridges with a policy."""
    node.host.run(*DROP)
    for pod, bridge in (("a", 1), ("b", 2), ("open", 3)):
        node.add(pod, bridge=bridge, admitHostPorts=True, **({"ingressPolicy": "isolated"} if pod != "open" else {}))
    portmap(node, "ADD")
    assert knock(node) == [4, 6] and knock(node, "open") == [4, 6] and knock(node, "b") == []
    portmap(node, "DEL")
    end(node, "a", "b", "open")


@pytest.mark.parametrize("by", ["nftables", "iptables"])
def test_host_ports_with_firewalld(node: Node, firewalld: Firewalld, by: str) -> None:
    """firewalld accepts translated packets in every zone: no rule is needed."""
    node.add("a")
    portmap(node, "ADD", by)
    assert firewalld.run("--get-default-zone") == "public" and node.reaches("outside", "a") == []
    assert knock(node) == [4, 6]
    portmap(node, "DEL", by)
    node.delete("a")
    node.add("a", admitHostPorts=True)
    portmap(node, "ADD", by)
    assert knock(node) == [4, 6] and node.check("a") == ""
    portmap(node, "DEL", by)
    node.delete("a")
    assert firewalld.sources() == [] and node.records() == []


def test_a_failed_add_with_host_ports(node: Node) -> None:
    node.host.run(*DROP)
    node.pod("a")
    for keys in ({}, {"backend": "nftables"}):
        assert node.call("ADD", "a", prefix=DEAF, admitHostPorts=True, **keys).status == 1
        assert node.elements() == {} and node.pod_rules() == [] and node.records() == []
    assert node.call("ADD", "a", admitHostPorts="yes").code == 7


def test_add_twice_leaves_the_first(node: Node) -> None:
    node.add("a", ingressPolicy="isolated")
    assert "added before" in node.call("ADD", "a", ingressPolicy="isolated").json["msg"]
    assert node.check("a", ingressPolicy="isolated") == "" and len(node.records()) == 1
    node.host.drop_netns("a")  # and comes back in another namespace, without a DEL
    node.host.netns("a")
    node.add("a")
    assert node.check("a") == "" and node.elements() == {"attachments": 1, "admitted4": 1, "admitted6": 1, "bridges": 1}
