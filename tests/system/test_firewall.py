"""firewall: the packets that pass with each backend, and the state after DEL."""

from __future__ import annotations

import re
from typing import Any

import pytest

from shared.admission import claims
from shared.net.owner import Owner
from tests.faults import batch
from tests.node import DEAF
from tests.pretend import PATH, PretendHost
from tests.system.firewall_node import CONFIG, Node

DROP = ("sh", "-ec", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
ADMITS = "-A CNI-FORWARD -s {} -j ACCEPT"


# -- iptables


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_where_forward_drops(node: Node, variant: str) -> None:
    """Nothing passes without the plugin; with it, the pod's packets and the replies pass and nothing else."""
    node.host.run("sh", "-ec", f"iptables-{variant} -P FORWARD DROP; ip6tables-{variant} -P FORWARD DROP")
    node.pod("a")
    assert node.reaches("a", "outside") == []
    node.add("a")
    assert node.reaches("a", "outside") == [4, 6] and node.reaches("outside", "a") == []
    assert node.check("a") == "" and node.elements() == {}
    assert ADMITS.format("10.1.0.2/32") in node.filter(variant=f"-{variant}")
    node.delete("a", netns="")
    assert node.reaches("a", "outside") == [] and node.records() == []
    assert not [line for line in node.filter(variant=f"-{variant}") if "10.1.0.2" in line]


@pytest.mark.parametrize("first", ["reference", "ours"])
def test_hand_over(node: Node, reference_bin: str, first: str) -> None:
    """Each suite writes the same rules for its pod; each continues the other's work and deletes it."""
    node.host.run(*DROP)
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {"bin_dir": reference_bin}
    one, two = (theirs, ours) if first == "reference" else (ours, theirs)
    node.add("a", **one)
    by_one = node.filter(), node.filter("ip6")
    node.add("a2", **two)
    assert node.reaches("a", "outside") == node.reaches("a2", "outside") == [4, 6]
    assert [line for line in node.filter() if "10.1.0.3" not in line] == by_one[0]
    assert node.check("a", **two) == "" and node.check("a2", **one) == ""
    node.delete("a2", prevResult=node.results["a2"], **one)
    assert (node.filter(), node.filter("ip6")) == by_one
    node.delete("a", prevResult=node.results["a"], **two)
    assert node.pod_rules() == [] and node.reaches("a", "outside") == []
    jump = '-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD'
    admin = '-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN'
    assert node.filter().count(jump) == node.filter().count(admin) == 1


UNDO = """
{0} -D FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
{0} -F CNI-FORWARD
{0} -X CNI-FORWARD
{0} -X ADMINS
"""


def test_the_same_rules_as_the_reference(node: Node, reference_bin: str) -> None:
    """Line by line, also with an administrator's chain and earlier rules."""
    node.pod("a")
    node.host.run("iptables", "-A", "FORWARD", "-s", "172.16.0.0/12", "-j", "DROP")
    made = []
    for bin_dir in (reference_bin, None):
        node.add("a", iptablesAdminChainName="ADMINS", backend="iptables", bin_dir=bin_dir)
        both = node.filter(), node.filter("ip6")
        made.append([[line for line in lines if line.startswith("-A")] for lines in both])
        assert all(":ADMINS -" in lines for lines in both)
        for command in ("iptables", "ip6tables"):
            node.host.run("sh", "-ec", UNDO.format(command))
    assert made[0] == made[1] and len(made[0][0]) == 5


@pytest.mark.row("foreign-rules")
def test_the_administrator_comes_first(node: Node) -> None:
    node.host.run(*DROP)
    node.add("a", iptablesAdminChainName="my-rules")
    node.host.run("iptables", "-A", "my-rules", "-d", "192.0.2.0/24", "-j", "DROP")
    assert node.reaches("a", "outside") == [6]
    node.add("b", iptablesAdminChainName="my-rules")
    assert node.reaches("b", "outside") == [6]
    assert node.filter().count("-A my-rules -d 192.0.2.0/24 -j DROP") == 1


def test_check_names_each_missing_rule(node: Node) -> None:
    node.host.run(*DROP)
    node.add("a")
    for family in ("ip", "ip6"):
        address, jump = {"ip": ("10.1.0.2/32", 1), "ip6": ("fd00:1::2/128", 1)}[family]
        for damage, words in (
            (f"-D CNI-FORWARD -s {address} -j ACCEPT", f"-A CNI-FORWARD -s {address} -j ACCEPT"),
            (f"-D FORWARD {jump}", "-A FORWARD -m comment"),
            ("-F CNI-FORWARD", f"-A CNI-FORWARD -d {address}"),
        ):
            node.host.run(f"{family}tables", *damage.split())
            said = node.check("a")
            assert f"{family}tables has no rule" in said and words in said, said
    node.host.run("iptables", "-F")
    node.host.run("iptables", "-X")
    assert "chain CNI-FORWARD" in node.check("a") and "chain CNI-ADMIN" in node.check("a")
    node.add("b")
    assert node.check("b") == ""
    node.delete("a")
    assert node.reaches("b", "outside") == [4, 6]


def test_an_address_that_is_leased_anew_keeps_its_rules(node: Node) -> None:
    """A late DEL, with or without the result, does not take them from the address's current owner."""
    node.host.run(*DROP)
    node.add("a")
    node.results["b"] = node.results["a"]
    node.add("b")
    node.delete("a", netns="")
    assert node.reaches("a", "outside") == [4, 6]  # the address is in its namespace
    node.delete("a", netns="", prevResult=node.results["a"])
    assert len(node.pod_rules()) == 4
    node.delete("b")
    assert node.pod_rules() == [] and node.records() == []


def test_what_the_references_del_leaves_behind(node: Node, reference_bin: str) -> None:
    """The reference does not delete the note; the leftover must not protect rules of the address's next owner."""
    node.host.run(*DROP)
    node.add("a")
    node.delete("a", prevResult=node.results["a"], bin_dir=reference_bin)
    assert node.pod_rules() == [] and len(node.records()) == 1
    node.results["b"] = node.results["a"]
    node.add("b")
    node.delete("b", netns="")
    assert node.pod_rules() == []
    node.collect()
    assert node.records() == []


def test_garbage_collection_by_iptables(node: Node) -> None:
    node.host.run(*DROP)
    for pod in ("a", "b", "c"):
        node.add(pod)
    node.add("d", name="other")
    pod_b = [{"containerID": "b", "ifname": "eth0"}, {"containerID": "c", "ifname": "eth1"}]
    node.collect("b", **{"cni.dev/valid-attachments": pod_b})
    assert {line.split()[3] for line in node.pod_rules()} == {
        f"{address}/{128 if ':' in address else 32}" for pod in ("b", "d") for address in node.addresses(pod)
    }
    assert len(node.records()) == 2
    assert node.reaches("b", "outside") == [4, 6] and node.check("b") == ""


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_with_iptables(node: Node, verb: str) -> None:
    """The call dies at each step that makes a process or file; a DEL without the result leaves nothing."""
    node.host.run(*DROP)
    node.add("other")
    before = node.filter(), node.filter("ip6"), node.records()
    node.pod("a")
    calls = "execve,mkdir,open,openat,rename,unlink,clone,fork,vfork,wait4"
    for number in range(1, 200, 3):
        killing = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={number}")  # fmt: skip
        if verb == "DEL":
            node.add("a")
        status = node.call(verb, "a", prefix=killing).status
        node.delete("a", netns="")
        assert (node.filter(), node.filter("ip6"), node.records()) == before, number
        if status == 0:
            break
    else:
        pytest.fail("no call got through")
    assert number > 20


def test_adds_at_once_with_iptables(host: PretendHost) -> None:
    """The first on a node: one jump, each pod's rules, and no call fails."""
    batch.make_pods(host, 12)
    host.run(*DROP)

    def calls(command: str) -> list[batch.Outcome]:
        return batch.run(host, [
            batch.Call("firewall", command, {**CONFIG, "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": f"10.1.0.{n + 2}/24"}]}},
                       {"CNI_CONTAINERID": f"c{n}"})
            for n in range(12)
        ], at_once=12)  # fmt: skip

    assert [answer.status for answer in calls("ADD")] == [0] * 12
    lines = host.run("iptables-save").stdout.splitlines()
    assert (
        sum(line.endswith("-j CNI-FORWARD") for line in lines)
        == sum(line.endswith("-j CNI-ADMIN") for line in lines)
        == 1
    )
    assert sum(line.startswith("-A CNI-FORWARD -s 10.1.0.") for line in lines) == 12
    assert [answer.status for answer in calls("DEL")] == [0] * 12
    assert "10.1.0." not in host.run("iptables-save").stdout


def programs_of(node: Node, verb: str) -> list[str]:
    """Return the names of the iptables programs that a call for pod a executes."""
    trace = ("strace", "-f", "-qq", "-e", "trace=execve", "-e", "status=successful", "-o", "/run/trace")
    assert node.call(verb, "a", prefix=trace).status == 0
    made = re.findall(r'execve\("[^"]*/([^"/]*)"', node.host.run("cat", "/run/trace").stdout)
    return [name for name in made if "tables" in name]


def test_one_or_two_processes_for_each_family(node: Node) -> None:
    """DEL reads through netlink which rules there are."""
    node.host.run(*DROP)
    node.pod("a")
    of_add = ["iptables-nft-save", "iptables-nft-restore", "ip6tables-nft-save", "ip6tables-nft-restore"]
    assert programs_of(node, "ADD") == of_add
    assert programs_of(node, "DEL") == of_add[1::2]
    assert node.pod_rules() == []


@pytest.mark.parametrize(("changes", "kept"), [
    (["-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT"], 0),
    ([
        "-A CNI-FORWARD -d 10.1.0.2/32 -m conntrack --ctstate DNAT -j ACCEPT",
        "-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT",
    ], 0),
    (["-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT", "-D CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT"], 0),
    (["-D CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT", "-A CNI-FORWARD -s 10.1.0.2/32 -p tcp -j ACCEPT"], 1),
    (["-A CNI-FORWARD -d 10.1.0.2/32 -p udp -j DROP"], 1),
], ids=["twice", "twice beside host ports", "in another order", "replaced", "beside another"])  # fmt: skip
def test_del_of_changed_rules(node: Node, changes: list[str], kept: int) -> None:
    """DEL deletes its own rules, however often they are there, and no other one."""
    node.host.run(*DROP)
    node.add("a")
    for change in changes:
        node.host.run("iptables", *change.split())
    node.delete("a")
    assert len([rule for rule in node.host.run("iptables-save").stdout.splitlines() if "10.1.0.2/32" in rule]) == kept
    assert "fd00:" not in node.host.run("ip6tables-save").stdout


def test_a_second_add_changes_nothing(node: Node) -> None:
    node.host.run(*DROP)
    node.add("a")
    before = node.filter()
    node.add("a")
    assert node.filter() == before


# -- nf_tables


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_no_rule_without_its_note(node: Node, backend: str) -> None:
    """A rule does not name its owner: an ADD that cannot write the note creates no rule."""
    node.pod("a")
    (node.host.root / claims._paths(Owner("net", "a", "eth0"))[0][1:]).mkdir(parents=True)  # noqa: SLF001
    assert node.call("ADD", "a", backend=backend).code == 5
    assert node.pod_rules() == [] and "admitted4" not in node.elements()


def test_del_fails_where_its_rules_cannot_be_removed(node: Node) -> None:
    """The programs that created them are gone: the note stays, and a repeated DEL removes the rules."""
    node.add("a", backend="iptables")
    rules, records = node.pod_rules(), node.records()
    failed = node.call("DEL", "a", env={"PATH": "/none"})
    assert failed.status == 1 and "not in PATH" in failed.json["msg"], failed
    assert node.pod_rules() == rules and node.records() == records
    node.delete("a", netns="")
    assert node.pod_rules() == [] and node.records() == []


def test_without_programs_or_processes(node: Node) -> None:
    """On a host without iptables, a call executes nothing but the plugin itself."""
    for pod, bridge in (("a", 1), ("b", 2)):
        node.pod(pod, bridge)
        keys = {"ingressPolicy": "isolated"}
        for command in ("ADD", "CHECK"):
            made = node.traced(command, pod, **keys)
            assert len(made) == 1 and made[0].startswith("execve("), made
    assert node.reaches("a", "outside") == node.reaches("outside", "a") == [4, 6] and node.reaches("a", "b") == []
    for pod in ("a", "b"):
        made = node.traced("DEL", pod, netns="")
        assert [line.partition("(")[0] for line in made] == ["execve", "clone"], made  # the child closes the sockets
    assert node.elements() == {} and node.records() == []
    assert "guard-" not in node.host.run("nft", "list", "ruleset").stdout


def test_open(node: Node) -> None:
    node.add("a")
    node.add("b", bridge=2)
    assert node.elements() == {"attachments": 2, "admitted4": 2, "admitted6": 2}
    assert node.reaches("a", "b") == node.reaches("outside", "a") == [4, 6]
    assert node.host.run("iptables-save").stdout == ""


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("policy", ["same-bridge", "isolated"])
def test_ingress_policy(node: Node, policy: str, backend: str) -> None:
    """Nothing passes between bridges that have it; traffic from and to other places passes as before."""
    for pod, bridge in (("a", 1), ("a2", 1), ("b", 2)):
        node.add(pod, bridge=bridge, ingressPolicy=policy, backend=backend)
        assert node.check(pod, ingressPolicy=policy, backend=backend) == ""
    node.add("open", bridge=3, backend=backend)
    assert node.reaches("a", "b") == node.reaches("b", "a2") == []
    assert node.reaches("a", "a2") == ([] if policy == "isolated" else [4, 6])
    assert node.reaches("a", "open") == node.reaches("open", "b") == [4, 6]
    assert node.reaches("outside", "a") == node.reaches("a", "outside") == [4, 6]
    node.delete("b", netns="")
    assert node.reaches("a", "b") == node.reaches("b", "a") == [4, 6]
    node.delete("a", netns="")
    assert node.reaches("a2", "a") == ([] if policy == "isolated" else [4, 6])  # no answer reaches a2
    assert node.check("a2", ingressPolicy=policy, backend=backend) == ""
    node.delete("a2", netns="")
    node.delete("open", netns="")
    assert node.elements() == {} and node.pod_rules() == []


def test_isolated_pods_are_reached_by_an_uplink(node: Node) -> None:
    """A host in the segment behind the bridge is no pod; a port that is no veth belongs to no pod."""
    for pod in ("a", "b"):
        node.add(pod, ingressPolicy="isolated")
    node.host.run("sh", "-ec", """
ip netns add lan
ip link add up0 up type veth peer name eth0 netns lan
ip -n lan address add 10.1.0.200/24 dev eth0
ip -n lan address add fd00:1::200/64 dev eth0 nodad
ip -n lan link set lo up
ip -n lan link set eth0 up
ip link add port link up0 type macvlan mode passthru
ip link set port up master cni1
""")  # fmt: skip
    assert node.reaches("lan", "a") == node.reaches("lan", "b") == [4, 6]
    assert node.reaches("a", "b") == []


@pytest.mark.parametrize("policy", ["ACCEPT", "DROP"])
@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_iptables_is_taken_where_forward_has_rules(node: Node, family: str, policy: str) -> None:
    """It is taken with either policy: a rule may drop packets that no rule of nf_tables can accept."""
    node.pod("a")
    node.host.run("sh", "-ec", f"iptables -S; ip6tables -S; {family}tables -P FORWARD {policy}")
    if policy == "ACCEPT":
        node.add("a")
        assert node.elements()["admitted4"] == 1 and node.pod_rules() == []
        node.delete("a")
        node.host.run(f"{family}tables", "-A", "FORWARD", "-j", "DROP")
    node.add("a")
    assert node.reaches("a", "outside") == [4, 6]
    assert "admitted4" not in node.elements() and len(node.pod_rules()) == 4
    assert node.check("a") == ""


def test_the_bridge_is_found_wherever_it_stands(node: Node) -> None:
    """The reference takes the result's first interface as the bridge."""
    for pod, bridge in (("a", 1), ("b", 2)):
        node.pod(pod, bridge)
        found = node.results[pod]
        found["interfaces"] = found["interfaces"][::-1]
        for ip in found["ips"]:
            ip["interface"] = 0
        node.add(pod, bridge=bridge, ingressPolicy="same-bridge")
    assert node.reaches("a", "b") == []
    previous = {
        **node.results["a"],
        "interfaces": [{"name": "uplink"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
        "ips": [],
    }
    refused = node.call("ADD", "a", ingressPolicy="same-bridge", prevResult=previous)
    assert refused.code == 7 and "ingressPolicy" in refused.json["msg"]


@pytest.mark.parametrize(("damage", "words"), [
    ("flush ruleset", ["chain forwarding", "chain isolating", "chain guard-", "10.1.0.2 in set admitted4", "cni1 in set bridges", "set isolated"]),
    ("flush chain inet pycni forwarding", ["chain forwarding"]),
    ("delete element inet pycni admitted6 { fd00:1::2 }", ["fd00:1::2 in set admitted6"]),
    ("delete element inet pycni bridges { cni1 }", ["cni1 in set bridges"]),
    ("delete element inet pycni guarded4 { 10.1.0.2 }", ["10.1.0.2 in map guarded4"]),
    ("flush set bridge pycni isolated", ["in set isolated"]),
])  # fmt: skip
def test_check_names_what_nf_tables_lost(node: Node, damage: str, words: list[str]) -> None:
    policy: dict[str, Any] = {"ingressPolicy": "isolated"}
    node.add("a", **policy)
    assert node.check("a", **policy) == ""
    node.host.run("nft", damage)
    said = node.check("a", **policy)
    assert all(word in said for word in words), said
    node.add("b", **policy)
    assert node.check("b", **policy) == "" and node.reaches("a", "b") == []
    node.delete("a")
    node.delete("b")
    node.collect()
    assert node.elements() == {}


def test_garbage_collection_by_nf_tables(node: Node) -> None:
    for pod, bridge in (("a", 1), ("b", 1), ("c", 2)):
        node.add(pod, bridge=bridge, ingressPolicy="isolated")
    node.add("d", bridge=3, name="other", ingressPolicy="isolated")
    node.collect("b")
    assert node.elements() == {"attachments": 4, "admitted4": 2, "admitted6": 2, "guarded4": 2, "guarded6": 2, "bridges": 2, "isolated": 2}  # fmt: skip
    assert node.check("b", ingressPolicy="isolated") == ""
    node.collect()
    node.collect(name="other")
    assert node.elements() == {}


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_at_any_message(node: Node, verb: str) -> None:
    node.add("other", ingressPolicy="isolated")
    before = node.elements()
    node.pod("a", 2)
    for number in range(1, 100):
        killing = ("strace", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", f"inject=sendto:signal=SIGKILL:when={number}")  # fmt: skip
        if verb == "DEL":
            node.add("a", ingressPolicy="isolated")
        status = node.call(verb, "a", prefix=killing, ingressPolicy="isolated").status
        node.delete("a", netns="")
        assert node.elements() == before, number
        if status == 0:
            break
    else:
        pytest.fail("no call got through")
    assert number > 5


def test_a_failed_add_leaves_nothing(node: Node) -> None:
    node.pod("a")
    for backend in ("nftables", "iptables"):
        assert node.call("ADD", "a", prefix=DEAF, backend=backend, ingressPolicy="isolated").status == 1
        assert node.elements() == {} and node.pod_rules() == [] and node.records() == []


# -- keys


@pytest.mark.parametrize(("keys", "code", "words"), [
    ({"backend": "ebtables"}, 7, "backend"), ({"firewalldZone": "a\x00"}, 7, "firewalldZone"), ({"firewalldZone": "\ud800"}, 7, "firewalldZone"),
    ({"ingressPolicy": "closed"}, 7, "ingressPolicy"), ({"firewalldZone": 3}, 7, "firewalldZone"),
    ({"iptablesAdminChainName": "a\n-F"}, 7, "iptablesAdminChainName"), ({"iptablesAdminChainName": "-F"}, 7, "iptablesAdminChainName"),
    ({"iptablesAdminChainName": "x" * 29}, 7, "iptablesAdminChainName"), ({"iptablesAdminChainName": "CNI-FORWARD"}, 7, "iptablesAdminChainName"),
    ({"prevResult": None}, 7, "prevResult"), ({"cniVersion": "0.3.1"}, 1, "incompatible"),
])  # fmt: skip
def test_unusable_keys(node: Node, keys: dict[str, Any], code: int, words: str) -> None:
    node.pod("a")
    answer = node.call("ADD", "a", **keys)
    assert answer.code == code and words in answer.json["msg"], answer
    assert node.elements() == {} and node.pod_rules() == [] and node.records() == []


def test_status(node: Node) -> None:
    """STATUS creates nothing and reports missing features."""
    ask = {"cniVersion": "1.1.0"}
    assert node.call("STATUS", "", **ask).status == 0
    assert node.call("STATUS", "", env={"PATH": "/none"}, **ask).status == 0
    assert node.host.run("nft", "list", "ruleset").stdout == ""
    assert node.call("STATUS", "", backend="iptables", **ask).status == 0
    answer = node.call("STATUS", "", backend="iptables", env={"PATH": "/none"}, **ask)
    assert answer.code == 50 and "iptables-save is not in PATH" in answer.json["msg"], answer
    node.host.run(*DROP)
    assert node.call("STATUS", "", env={"PATH": "/none"}, **ask).code == 50
    assert node.call("STATUS", "", env={"PATH": PATH}, **ask).status == 0


def test_del_where_nothing_is(node: Node) -> None:
    node.pod("a")
    for keys in ({}, {"prevResult": node.results["a"]}, {"prevResult": "nonsense"}, {"backend": 3}):
        node.delete("a", **keys)
    assert node.records() == []
