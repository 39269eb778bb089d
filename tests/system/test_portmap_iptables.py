"""portmap's iptables backend beside the reference's: the same chains, hand-over, cost and leftovers of calls.

test_portmap.py tests with packets, for both backends.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.faults import batch
from tests.faults.batch import Call
from tests.pretend import PretendHost
from tests.system.hostport_nodes import (
    ALL,
    BY_IPTABLES,
    GATEWAY,
    GATEWAY_6,
    HOST,
    HOST_6,
    LOCALHOST,
    OUT,
    TCP,
    Node,
    Plain,
    left,
    of_pods,
    ports,
)

INTERFACE = re.compile(r' -m comment --comment "if: \\"eth0\\""| if: \\"eth0\\"')
SHARED = (
    "PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT", "OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    'POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ', "CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
    'CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000',
)  # fmt: skip


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "iptables"))


@pytest.fixture
def plain(host: PretendHost, backend: str) -> Plain:
    return Plain(host, backend)


@pytest.fixture
def node(host: PretendHost, backend: str) -> Node:
    return Node(host, backend)


def saved(plain: Plain, table: str = "nat", six: str = "") -> list[str]:
    """Return the rules of a table, of the iptables that the plain host's calls find."""
    done = plain.host.run(f"ip{six}tables-save", "-t", table, env=plain.environment.get("env"))
    return [line for line in done.stdout.splitlines() if line.startswith("-A")]


def both(plain: Plain) -> list[list[str]]:
    return [saved(plain), saved(plain, six="6")]


# -- beside the reference


def by_reference(plain: Plain, verb: str, keys: dict[str, Any], reference_bin: str, **more: Any) -> None:
    config = plain.config({**keys, "cniVersion": "1.0.0"})
    config["prevResult"]["cniVersion"] = "1.0.0"
    more = {"netns": plain.netns, **plain.environment, **more}
    answer = plain.host.cni("portmap", verb, config, bin_dir=reference_bin, **more)
    assert answer.status == 0, answer


MANY = [(9000 + number, 80 + number, "tcp") for number in range(17)]


@pytest.mark.parametrize("keys", [
    ALL, {**TCP, "snat": False}, {**TCP, "markMasqBit": 5}, {**TCP, "externalSetMarkChain": "MINE"}, ports(*MANY, (5, 6, "udp")),
    {**TCP, "conditionsV4": ["!", "-d", "192.0.2.0/24", "-i", "x"], "conditionsV6": ["!", "-i", "x", "-s", "fd00:9::/64"]},
])  # fmt: skip
@BY_IPTABLES
def test_the_same_rules(plain: Plain, reference_bin: str, backend: str, keys: dict[str, Any]) -> None:
    """Line by line, except for the owners of rules and for IPv6 localhost, which the reference redirects wrongly.

    ip6tables-legacy treats translations to other ports as equal, so the reference makes only the first of them.
    """
    env = plain.environment.get("env")
    for six in ("", "6"):
        plain.host.run(f"ip{six}tables", "-t", "nat", "-N", "MINE", env=env)
    by_reference(plain, "ADD", keys, reference_bin)
    theirs = both(plain)
    by_reference(plain, "DEL", keys, reference_bin)
    plain.add(keys)
    ours = both(plain)
    for one, other in zip(ours, theirs, strict=True):
        made = [INTERFACE.sub("", line) for line in one if " -d ::1/128 " not in line]
        assert len(made) == len(one) - (one is ours[1])
        if backend == "legacy" and one is ours[1]:
            assert {*other} <= {*made}
        else:
            assert sorted(made) == sorted(other)
    assert plain.problems(keys) == ""


@BY_IPTABLES
def test_hand_over(plain: Plain, reference_bin: str) -> None:
    """Each suite removes the other's rules, with UDP that goes on; the shared rules stay as they are."""
    keys = ports((8080, 80, "tcp"), (8080, 80, "udp"), (8081, 81, "udp", HOST), *MANY)
    plain.add(ports((7000, 70)), "kept", 9)
    before = both(plain)
    by_reference(plain, "ADD", keys, reference_bin)
    assert len(of_pods(plain.host)) > 60
    assert plain.call("DEL", {"prevResult": None}, netns="").status == 0
    assert both(plain) == before
    plain.add(keys)
    by_reference(plain, "DEL", keys, reference_bin)
    assert both(plain) == before
    by_reference(plain, "ADD", keys, reference_bin)
    plain.add(ports((8090, 90)), ifname="eth1", number=6)
    assert (
        plain.call("DEL", {}, ifname="eth1").status == 0
    )  # the reference's rules do not say for which interface they are
    assert both(plain) == before


def test_garbage_collection(plain: Plain, reference_bin: str) -> None:
    """It deletes chains of this network, of either suite, and one of two interfaces that share a chain."""
    for number, name in enumerate(("c1", "c2", "c3")):
        plain.add(ports((8000 + number, 80, "udp")), name, number)
        by_reference(plain, "ADD", ports((8100 + number, 80, "tcp")), reference_bin, container_id=f"r{name}")
    plain.add({**ports((9000, 80)), "name": "net2"}, "c1", 7)
    plain.add(ports((9001, 80)), "c2", 8, ifname="eth1")
    valid = [
        {"containerID": name, "ifname": ifname} for name, ifname in (("c1", "eth0"), ("c2", "eth1"), ("rc1", "eth0"))
    ]
    for _ in range(2):
        assert plain.call("GC", {"cni.dev/valid-attachments": valid}).status == 0
        text = "\n".join(of_pods(plain.host))
        assert set(re.findall(r"--dports (\S+)", text)) == {"8000", "8100", "9000", "9001"}
        assert set(re.findall(r"--dport (\S+)", text)) == {"8000", "8100", "9000", "9001"}
        assert len(re.findall(r"^:", text, re.MULTILINE)) == 8
    assert plain.problems(ports((9001, 80)), "c2", 8, ifname="eth1") == ""
    assert plain.call("GC", {"cni.dev/valid-attachments": []}).status == 0
    assert set(re.findall(r"--dports (\S+)", "\n".join(of_pods(plain.host)))) == {"9000"}


# -- holders of a port


def test_a_port_that_the_other_backend_has(plain: Plain, reference_bin: str) -> None:
    plain.add({**ports((8080, 80), (8081, 80, "udp", HOST)), "backend": "nftables"})
    plain.refused(
        ports((8080, 81)), 999, "host port 8080/tcp of every IPv4 address is taken by net/c1/eth0", "c2", number=6
    )
    plain.refused(ports((8081, 81, "udp", HOST)), 999, f"8081/udp of {HOST} is taken by net/c1/eth0", "c2", number=6)
    plain.add(ports((8082, 80), (8081, 80, "udp")), "c2", 6)
    plain.refused(
        {**ports((8082, 80)), "backend": "nftables"},
        999,
        "8082/tcp of every IPv4 address is taken by net/c2/eth0",
        "c3",
        number=7,
    )
    by_reference(plain, "ADD", ports((8083, 80, "tcp"), (8084, 80, "tcp", HOST)), reference_bin, container_id="c4")
    for keys in ({}, {"backend": "nftables"}):
        plain.refused(
            {**ports((8083, 80)), **keys}, 999, "8083/tcp of every IPv4 address is taken by net/c4", "c3", number=7
        )
        plain.refused(
            {**ports((8084, 80, "tcp", HOST)), **keys}, 999, f"8084/tcp of {HOST} is taken by net/c4", "c3", number=7
        )
    assert plain.call("DEL", {}, "c2").status == plain.call("DEL", {}, "c4").status == 0
    plain.add({**ports((8082, 80), (8083, 80)), "backend": "nftables"}, "c3", 7)


@BY_IPTABLES
def test_ports_of_the_living_that_lead_to_the_same_address_stay(plain: Plain) -> None:
    """They belong to another network, or to another container that shares the address; those of dead pods would go."""
    plain.add(TCP)
    plain.add({**ports((8081, 80)), "name": "net2"})
    plain.add(ports((8082, 80)), "c2")
    assert plain.problems(TCP) == plain.problems({**ports((8081, 80)), "name": "net2"}) == ""
    assert plain.problems(ports((8082, 80)), "c2") == ""


@pytest.mark.parametrize("first", [ALL, {**ALL, "backend": "nftables"}], ids=["by iptables", "by nftables"])
def test_a_port_that_the_containers_other_network_has(plain: Plain, first: dict[str, Any]) -> None:
    """podman asks for it with each network of a container: the remaining attachment keeps the port."""
    other = {**ALL, "name": "net2"}
    plain.add(first)
    plain.add(other, number=6, ifname="eth1")
    assert plain.problems(first) == plain.problems(other, number=6, ifname="eth1") == ""
    plain.refused({**TCP, "name": "net3"}, 999, "is taken by net", "c2", number=7)
    assert plain.call("DEL", {}).status == 0
    assert plain.problems(other, number=6, ifname="eth1") == ""
    plain.add({**first, "backend": "nftables"}, number=5)
    assert plain.call("DEL", {}).status == plain.call("DEL", {"name": "net2"}, ifname="eth1").status == 0
    assert left(plain.host) == {}


def at_once(plain: Plain, verb: str, keys: list[dict[str, Any]]) -> list[batch.Outcome]:
    return batch.run(plain.host, [
        Call("portmap", verb, plain.config(one, number), {"CNI_CONTAINERID": f"c{number}", "CNI_NETNS": plain.netns})
        for number, one in enumerate(keys)
    ], at_once=len(keys))  # fmt: skip


def test_20_adds_at_once(plain: Plain) -> None:
    """They are the first on a node: each has its rules once; after DEL none has any."""
    batch.make_pods(plain.host, 2)
    keys = [ports((8000 + number, 80, "tcp"), (8000 + number, 80, "udp")) for number in range(20)]
    assert [answer.status for answer in at_once(plain, "ADD", keys)] == [0] * 20
    for rules in both(plain):
        assert [sum(line == f"-A {rule}" for line in rules) for rule in SHARED] == [1] * len(SHARED)
        assert sorted(re.findall(r"--dports (\d+)", "\n".join(rules))) == sorted(2 * [str(8000 + n) for n in range(20)])
    assert {plain.problems(one, f"c{number}", number) for number, one in enumerate(keys)} == {""}
    assert [answer.status for answer in at_once(plain, "DEL", [{}] * 20)] == [0] * 20
    assert of_pods(plain.host) == []


def test_one_of_those_that_want_a_port_at_once_gets_it(plain: Plain) -> None:
    batch.make_pods(plain.host, 2)
    for _ in range(3):
        statuses = [answer.status for answer in at_once(plain, "ADD", [TCP] * 6)]
        assert sorted(statuses) == [0, 1, 1, 1, 1, 1]
        assert len([line for line in of_pods(plain.host) if " --to-destination " in line]) == 2
        at_once(plain, "DEL", [{}] * 6)
        assert of_pods(plain.host) == []


def test_not_both_backends_get_a_port_that_is_wanted_at_once(plain: Plain) -> None:
    batch.make_pods(plain.host, 2)
    for _ in range(8):
        keys = [{**TCP, "backend": backend} for backend in ("nftables", "iptables")]
        statuses = [answer.status for answer in at_once(plain, "ADD", keys)]
        assert statuses != [0, 0]
        assert len(left(plain.host)) == (5 if statuses[0] == 0 else 1 if statuses[1] == 0 else 0), (
            statuses,
            left(plain.host),
        )
        at_once(plain, "DEL", [{}] * 2)
        assert left(plain.host) == {}


# -- effects of the rules


def test_conditions_that_iptables_cannot_have(plain: Plain) -> None:
    plain.add(ports((9999, 80)), "other", 9)
    for conditions, words in (
        (["-d", "192.0.2.0/24", "!", "-d", HOST], "the second -d"), (["-i", 'a";x'], "link"), (["-i", "x'y"], "safely"), (["-i", "-x"], "safely"),
        (["-i", "$(x)"], "safely"), (["!", "-s", "0.0.0.0/0"], "no packet fulfils"), (["-i", "x\n-A", "OUTPUT"], "only ip saddr"),
    ):  # fmt: skip
        plain.refused({**TCP, "conditionsV4": conditions}, 7, "conditionsV4")
        plain.refused({**TCP, "conditionsV4": conditions}, 7, words)
    for chain in ("a b", 'X"Y', "-j", "X\n-F", "X;Y"):
        plain.refused({**TCP, "externalSetMarkChain": chain}, 7, "externalSetMarkChain")
    plain.refused({**TCP, "externalSetMarkChain": "NONE"}, 7, "is no chain of table nat of iptables")


MATCHES = [
    "-m mark --mark 0x1/0x1", "-m conntrack --ctstate NEW", "-m conntrack ! --ctstate INVALID,RELATED", "-m addrtype --src-type UNICAST",
    "-m comment --comment plain", "-m limit --limit 5/sec", "-m statistic --mode random --probability 0.5", "-m time --timestart 10:00",
    "-m length --length 0:100", "-m pkttype --pkt-type unicast", "-m tcp ! --syn", "-m tcp --sport 1000:2000", "-m multiport --sports 1,2,5:9", "-m state --state NEW",
    "-m recent --name here --rcheck", "-m recent --set", "-m physdev --physdev-in x", "-m connmark --mark 1", "-o eth0 -m mark ! --mark 1",
    "-s 192.0.2.0/24 -m mark --mark 1 -i eth+ -m dscp --dscp 4", "-m u32 --u32 0=1", "-m policy --pol none --dir in", "-m hashlimit --hashlimit-upto 5/sec --hashlimit-name x",
]  # fmt: skip


@pytest.mark.parametrize(
    "words", [*(match.split() for match in MATCHES), ["-m", "comment", "--comment", 'a "b" \\ -j if: \\"x\\"']]
)
@BY_IPTABLES
def test_other_matches(plain: Plain, words: list[str]) -> None:
    """ADD accepts them or gives iptables' reason; CHECK finds the rule as iptables-save prints it; DEL removes it."""
    six = [word.replace("192.0.2.0/24", "fd00::/8") for word in words]
    keys = ports((8080, 80, "tcp"), (8081, 80, "tcp", HOST), conditionsV4=words, conditionsV6=six)
    answer = plain.call("ADD", keys)
    if answer.status:
        # this kernel may lack the match
        assert answer.json["details"] or "are refused by iptables" in answer.json["msg"], answer
        assert of_pods(plain.host) == []
        pytest.skip(answer.json["msg"] + answer.json.get("details", ""))
    assert plain.call("STATUS", keys).status == 0
    assert plain.problems(keys) == ""
    mark = ["-m", "mark", "--mark", "7"]
    assert "has no rule" in plain.problems({**keys, "conditionsV4": mark, "conditionsV6": mark})
    plain.refused(keys, 999, "it was added before")
    assert plain.call("DEL", {}).status == 0
    assert of_pods(plain.host) == []
    plain.add(keys)
    other = ports((9090, 80, "tcp"), conditionsV4=words, conditionsV6=six)
    plain.add(other, ifname="eth1", number=6)
    plain.add(ports((7070, 80, "tcp")), "c2", 7)
    assert plain.call("DEL", {}).status == 0
    assert plain.problems(other, ifname="eth1", number=6) == plain.problems(ports((7070, 80, "tcp")), "c2", 7) == ""
    assert plain.call("GC", {"cni.dev/valid-attachments": []}).status == 0
    assert of_pods(plain.host) == []


@BY_IPTABLES
def test_packets_that_other_matches_select(node: Node) -> None:
    """The conditions match a mark that the administrator's rules set."""
    for six in ("", "6"):
        mark = f"ip{six}tables -t mangle -A PREROUTING -i far0 -j MARK --set-mark 5"
        node.host.run(*mark.split(), env=node.environment.get("env"))
    words = ["-m", "mark", "--mark", "0x4/0x4", "-m", "comment", "--comment", "by the mark"]
    keys = ports(
        (8080, 80, "tcp"), (8081, 80, "tcp", HOST), (8081, 80, "tcp", HOST_6), conditionsV4=words, conditionsV6=words
    )
    node.add("a", keys)
    assert node.call("CHECK", "a", keys).status == 0
    probes = [
        (origin, "tcp", address, port)
        for origin in ("far", "out")
        for port in (8080, 8081)
        for address in (HOST, HOST_6)
    ]
    expected = [["a", "192.0.3.9"], ["a", "fd00:3::9"]] * 2
    assert node.probe([("a", "tcp", 80)], probes) == [*expected, *["ConnectionRefusedError"] * 4]


def test_what_iptables_refuses(plain: Plain) -> None:
    """The error has iptables' own words and the key; nothing is left, and STATUS reports it before."""
    plain.add(ports((9999, 80)), "other", 9)
    for words, said in (
        (["-m", "nonesuch"], "nonesuch"), (["-m", "tcp", "--dport", "x"], "x"),
        (["-m", "mark", "--mark"], "--mark"), (["-m", "mark", "--mark", "1", "stray"], "stray"),
        (["--mark", "1"], "unknown option"), (["-m", "comment"], "--comment"), (["-m", "set", "--match-set", "none", "src"], "none"),
    ):  # fmt: skip
        for key in ("conditionsV4", "conditionsV6"):
            plain.refused({**TCP, key: words}, 7, f'"{key}" are refused by iptables')
            plain.refused({**TCP, key: words}, 7, said)
            answer = plain.call("STATUS", {**TCP, key: words})
            assert answer.code == 50 and said in answer.json["msg"], answer
    plain.refused({**TCP, "conditionsV4": ["-m", "mark", "--mark", "1"], "backend": "nftables"}, 7, "'-m'")


@pytest.mark.parametrize("odd", ['e"th~};x', "a\\b", "if:", "x" * 15, "'$(x)"])
def test_nothing_is_pasted(plain: Plain, odd: str) -> None:
    """A link's name is no word for iptables-restore, and long names fit."""
    plain.add(TCP, ifname=odd) if odd != "if:" else plain.add(TCP, "c" * 64 + ".id", ifname="if")
    name = "c" * 64 + ".id" if odd == "if:" else "c1"
    ifname = "if" if odd == "if:" else odd
    assert plain.problems(TCP, name, ifname=ifname) == ""
    for long in ("n" * 300, "m" * 300):
        plain.add({**ports((9000 + ord(long[0]), 80)), "name": long}, "k" * 300, 8)
    assert plain.call("DEL", {}, name, ifname=ifname).status == 0
    assert plain.call("GC", {"name": "n" * 300, "cni.dev/valid-attachments": []}).status == 0
    assert set(re.findall(r"--dport (\d+)", "\n".join(of_pods(plain.host)))) == {"9109"}
    assert plain.call("DEL", {"name": "m" * 300}, "k" * 300).status == 0
    assert of_pods(plain.host) == []


@pytest.mark.parametrize("how", ["a bit", "a chain"])
def test_marks(node: Node, how: str) -> None:
    """Packets without a way back get the mark of the keys and are masqueraded, by the suite or the chain's owner."""
    keys: dict[str, Any] = {"markMasqBit": 4}
    if how == "a chain":
        keys = {"externalSetMarkChain": "MINE"}
        for six in ("", "6"):
            for rule in (
                "-N MINE",
                "-A MINE -j MARK --or-mark 0x40",
                "-A POSTROUTING -m mark --mark 0x40/0x40 -j MASQUERADE",
            ):
                node.host.run(f"ip{six}tables", "-t", "nat", *rule.split())
    node.add("a", {**TCP, **keys})
    probes = [
        ("b", "tcp", HOST, 8080),
        ("b", "tcp", HOST_6, 8080),
        ("host", "tcp", LOCALHOST, 8080),
        ("out", "tcp", HOST, 8080),
    ]
    assert node.probe([("a", "tcp", 80)], probes) == [["a", GATEWAY], ["a", GATEWAY_6], ["a", GATEWAY], ["a", OUT]]
    text = node.host.run("iptables-save", "-t", "nat").stdout
    assert ("--set-xmark 0x10/0x10" in text, "0x2000" in text) == (how == "a bit", False)


ADMITTED = ("-A", "CNI-ADMIN", "-m", "conntrack", "--ctstate", "DNAT", "-j", "ACCEPT")


@BY_IPTABLES
def test_with_masquerading_and_firewall(host: PretendHost, backend: str) -> None:
    """All three use iptables, and FORWARD drops: masquerading stops no hairpin, the administrator lets outsiders in."""
    node = Node(host, backend, ipMasq=True, ipMasqBackend="iptables", hairpinMode=True)
    environment: dict[str, Any] = node.environment
    env = environment.get("env")
    for six in ("", "6"):
        host.run(f"ip{six}tables", "-P", "FORWARD", "DROP", env=env)
        host.run(
            f"ip{six}tables",
            "-t",
            "nat",
            "-I",
            "POSTROUTING",
            "-d",
            "203.0.113.0/24" if not six else "fd00:77::/64",
            "-j",
            "ACCEPT",
            env=env,
        )

    def firewall(verb: str, pod: str) -> None:
        config = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "firewall",
            "backend": "iptables",
            "prevResult": node.results[pod],
        }
        answer = host.cni("firewall", verb, config, netns=node.where[pod], container_id=pod, **environment)
        assert answer.status == 0, answer

    node.add("a", TCP)
    for pod in "ab":
        firewall("ADD", pod)
    assert node.call("CHECK", "a", TCP).status == 0
    own = [
        ("a", "tcp", HOST, 8080),
        ("b", "tcp", HOST, 8080),
        ("b", "tcp", HOST_6, 8080),
        ("host", "tcp", LOCALHOST, 8080),
        ("host", "tcp", HOST, 8080),
    ]
    outside = [("out", "tcp", HOST, 8080), ("out", "tcp", HOST_6, 8080)]
    seen = [["a", GATEWAY], ["a", GATEWAY], ["a", GATEWAY_6], ["a", GATEWAY], ["a", HOST]]
    assert node.probe([("a", "tcp", 80)], own) == seen
    assert node.probe([("a", "tcp", 80)], outside, silence=True) == ["silence"] * 2
    for six in ("", "6"):
        host.run(f"ip{six}tables", *ADMITTED, env=env)
    assert node.probe([("a", "tcp", 80)], [*own, *outside]) == [*seen, ["a", OUT], ["a", "fd00:2::9"]]
    there = host.run("iptables-save", "-t", "nat", env=env).stdout.splitlines()
    targets = [line.rpartition(" -j ")[2][:16] for line in there if line.startswith("-A POSTROUTING")]
    assert targets[:2] == ["ACCEPT", "CNI-HOSTPORT-MAS"] and len(targets) == 4
    firewall("DEL", "a")
    assert node.call("DEL", "a", {}).status == 0
    assert of_pods(host) == []
    assert node.probe([("a", "tcp", 80)], outside) == ["ConnectionRefusedError"] * 2


# -- the other verbs, and the cost of a call


@BY_IPTABLES
def test_check_names_each_missing_rule(plain: Plain) -> None:
    keys = ports((8080, 80, "tcp"), (8081, 81, "udp", HOST), conditionsV4=["-s", "192.0.2.0/24"])
    plain.add(keys)
    assert plain.problems(keys) == ""
    rules = {
        ("iptables", "nat"): saved(plain),
        ("ip6tables", "nat"): saved(plain, six="6"),
        ("iptables", "raw"): saved(plain, "raw"),
    }
    assert [len(lines) for lines in rules.values()] == [13, 9, 2]
    for (program, table), lines in rules.items():
        for line in lines:
            script = f"*{table}\n-D{line[2:]}\nCOMMIT\n", f"*{table}\n{line}\nCOMMIT\n"
            plain.host.run(f"{program}-restore", "--noflush", input=script[0], env=plain.environment.get("env"))
            assert plain.problems(keys) == f"{program} has no rule {line} in table {table}"
            plain.host.run(f"{program}-restore", "--noflush", input=script[1], env=plain.environment.get("env"))
    plain.host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/br0/route_localnet")
    assert "sysctl net/ipv4/conf/br0/route_localnet" in plain.problems(keys)


@pytest.mark.row("lost-rules")
def test_after_a_flush(node: Node) -> None:
    """CHECK reports it, and the next ADD creates all rules again."""
    node.add("a", TCP)
    node.host.run(
        "sh", "-c", "for six in '' 6; do ip${six}tables -t nat -F; ip${six}tables -t nat -X; done; iptables -t raw -F"
    )
    assert node.call("CHECK", "a", TCP).code == 999
    assert node.call("DEL", "a", {}).status == 0
    node.add("a", TCP)
    assert node.call("CHECK", "a", TCP).status == 0
    assert node.probe([("a", "tcp", 80)], [("out", "tcp", HOST, 8080)]) == [["a", OUT]]


def test_unfinished_work_of_others(plain: Plain) -> None:
    """A killed reference leaves a chain without a jump to it: ADD takes over none of its rules."""
    plain.add(TCP)
    (chain,) = {line.split()[1] for line in of_pods(plain.host) if line.startswith("-A CNI-DN")}
    plain.host.run("iptables", "-t", "nat", "-F", "CNI-HOSTPORT-DNAT")
    plain.host.run("iptables", "-t", "nat", "-F", chain)
    stale = f"iptables -t nat -A {chain} -p tcp --dport 8080 -j DNAT --to-destination 10.9.9.9:9".split()
    plain.host.run(*stale)
    assert plain.call("DEL", {}).status == 0
    assert left(plain.host) == {}
    plain.host.run("iptables", "-t", "nat", "-N", chain)
    plain.host.run(*stale)
    plain.add(TCP)
    assert "10.9.9.9" not in "".join(of_pods(plain.host))


def test_del_on_a_host_that_had_the_older_iptables(plain: Plain) -> None:
    """Its table may have the chain, which only its own programs can show; DEL cannot wait for them."""
    plain.host.run("sh", "-ec", "iptables-legacy -t nat -L; ip6tables-legacy -t nat -L")
    without: dict[str, Any] = {"env": {"PATH": "/none"}}
    assert plain.call("DEL", {}, **without).status == 0
    bridge = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipMasq": True}
    assert plain.host.cni("bridge", "DEL", bridge, **without).status == 0
    plain.add(TCP)
    answer = plain.call("DEL", {}, **without)
    assert answer.code == 2 and "iptables-save is not in PATH" in answer.json["msg"], answer
    assert plain.call("DEL", {}).status == 0
    assert left(plain.host) == {}


def test_status(plain: Plain) -> None:
    assert plain.call("STATUS", {}).status == 0
    answer = plain.call("STATUS", {}, env={"PATH": "/none"})
    assert answer.code == 50 and "iptables-save is not in PATH" in answer.json["msg"], answer
    assert plain.call("STATUS", {"backend": "nftables"}, env={"PATH": "/none"}).status == 0
    plain.refused(TCP, 2, "iptables-save is not in PATH", env={"PATH": "/none"})


def executed(plain: Plain, verb: str, keys: dict[str, Any], name: str = "c1", **more: Any) -> list[str]:
    """Return the programs that a call executes."""
    trace = ("/usr/bin/strace", "-f", "-qq", "-e", "trace=execve", "-e", "status=successful", "-o", "/run/trace")
    answer = plain.call(verb, keys, name, prefix=trace, **more)
    assert answer.status == 0, answer
    paths = re.findall(r'execve\("([^"]*)"', plain.host.run("cat", "/run/trace").stdout)
    return [path.rpartition("/")[2].replace("-nft", "") for path in paths[1:]]


TWO = ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"]


def test_two_processes_for_each_family(plain: Plain) -> None:
    """ADD and DEL run two, with UDP to flush; CHECK one; none run without rules, or for the other backend."""
    native = {**ports((9000, 90), (9000, 90, "udp")), "backend": "nftables"}
    assert executed(plain, "ADD", native, "n1", number=9) == []
    assert sorted(executed(plain, "ADD", ALL)) == sorted(TWO)
    assert executed(plain, "CHECK", ALL) == TWO[::2]
    assert executed(plain, "DEL", {}) == TWO
    # the shared chains are there, and no attachment's rules
    nothing: dict[str, Any] = {"cni.dev/valid-attachments": []}
    for verb, keys in (
        ("DEL", {}),
        ("DEL", native),
        ("ADD", native),
        ("CHECK", native),
        ("DEL", native),
        ("GC", nothing),
    ):
        assert executed(plain, verb, keys, "n1", number=9, env={"PATH": "/none"}) == [], verb
    assert left(plain.host) == {}
