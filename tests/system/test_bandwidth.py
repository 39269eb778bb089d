"""bandwidth: what hangs at the host's end of a pod's link, how fast packets get through, and that all of it goes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from shared.net.owner import Owner
from tests.pretend import Answer, PretendHost

BRIDGE: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}
INGRESS = {"ingressRate": 4_000_000, "ingressBurst": 800_000}
EGRESS = {"egressRate": 8_000_000, "egressBurst": 1_000_000}
BOTH = {**INGRESS, **EGRESS}
KIBI = 1024


class Node:
    """A pretend host whose pods are attached to a bridge by this suite, or by another one."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        self.results: dict[tuple[str, str], Any] = {}

    def attach(self, pod: str, ifname: str = "eth0", *, bin_dir: str | None = None, version: str = "1.1.0") -> str:
        """A pod as bridge leaves it; the name of its link on the host."""
        if not (self.host.root / f"run/netns/{pod}").exists():
            self.host.netns(pod)
        config = {**BRIDGE, "cniVersion": version}
        answer = self.host.cni(
            "bridge", "ADD", config, netns=f"/run/netns/{pod}", container_id=pod, ifname=ifname, bin_dir=bin_dir
        )
        assert answer.status == 0, answer
        self.results[pod, ifname] = answer.json
        return str(answer.json["interfaces"][1]["name"])

    def call(self, verb: str, pod: str, keys: dict[str, Any], ifname: str = "eth0", **more: Any) -> Answer:
        config = {
            "cniVersion": "1.1.0", "name": "net", "type": "bandwidth", "prevResult": self.results.get((pod, ifname)), **keys
        }  # fmt: skip
        call = {"netns": f"/run/netns/{pod}", "container_id": pod, "ifname": ifname, **more}
        return self.host.cni("bandwidth", verb, config, **call)

    def add(self, pod: str, keys: dict[str, Any], ifname: str = "eth0", **more: Any) -> Any:
        answer = self.call("ADD", pod, keys, ifname, **more)
        assert answer.status == 0, answer
        return answer.json

    def check(self, pod: str, keys: dict[str, Any], ifname: str = "eth0", **more: Any) -> str:
        """What CHECK complains of."""
        answer = self.call("CHECK", pod, keys, ifname, **more)
        return str(answer.json.get("details", answer.json["msg"])) if answer.status else ""

    def qdiscs(self) -> list[dict[str, Any]]:
        return [
            {key: one[key] for key in ("dev", "kind", "handle", "options")}
            for one in json.loads(self.host.run("tc", "-j", "qdisc").stdout)
            if one["kind"] != "noqueue"
        ]

    def filters(self, link: str) -> list[dict[str, Any]]:
        return [
            one
            for one in json.loads(self.host.run("tc", "-j", "filter", "show", "dev", link, "ingress").stdout)
            if "options" in one
        ]

    def ifbs(self) -> list[str]:
        return [link["ifname"] for link in self.host.ip("link", "show", "type", "ifb")]

    def state(self) -> Any:
        links = self.host.ip("link")
        return (
            [link["ifname"] for link in links],
            self.qdiscs(),
            [self.filters(link["ifname"]) for link in links],
            self.host.snapshot()["host"],
        )


@pytest.fixture
def node(host: PretendHost) -> Node:
    return Node(host)


def redirects(filters: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Preference and target of each filter that leads everything elsewhere."""
    return [
        (one["pref"], one["options"]["actions"][0]["to_dev"])
        for one in filters
        if one["options"].get("match", {}).get("mask") == "0"
    ]


def bucket(rate: int, burst: int) -> dict[str, int]:
    """As tc shows it: bytes, microseconds."""
    return {"rate": rate // 8, "burst": burst // 8, "lat": 25000}


def test_life(node: Node) -> None:
    link = node.attach("a")
    before = node.state()
    result = node.add("a", BOTH)
    ifb = Owner("net", "a", "eth0").ifb
    assert node.qdiscs() == [
        {"dev": link, "kind": "tbf", "handle": "1:", "options": bucket(4_000_000, 800_000)},
        {"dev": link, "kind": "ingress", "handle": "ffff:", "options": {}},
        {"dev": ifb, "kind": "tbf", "handle": "1:", "options": bucket(8_000_000, 1_000_000)},
    ]
    assert redirects(node.filters(link)) == [(1, ifb)]
    (made,) = node.host.ip("link", "show", "type", "ifb")
    assert (made["ifname"], made["ifalias"], "UP" in made["flags"]) == (ifb, "pycni:net/a/eth0", True)
    previous = node.results["a", "eth0"]
    assert result == {
        **previous,
        "interfaces": [*previous["interfaces"], {"name": ifb, "mac": made["address"], "mtu": 1500}],
    }
    assert node.check("a", {**BOTH, "prevResult": result}) == ""
    for _ in range(2):
        assert node.call("DEL", "a", BOTH) == Answer(0, "", "")
        assert node.state() == before


@pytest.mark.parametrize(("keys", "ifbs", "kinds"), [(INGRESS, 0, ["tbf"]), (EGRESS, 1, ["ingress", "tbf"])])
def test_one_direction(node: Node, keys: dict[str, Any], ifbs: int, kinds: list[str]) -> None:
    node.attach("a")
    before = node.state()
    node.add("a", keys)
    assert (len(node.ifbs()), [one["kind"] for one in node.qdiscs()]) == (ifbs, kinds)
    assert node.check("a", keys) == ""
    node.call("DEL", "a", {})
    assert node.state() == before


@pytest.mark.parametrize("keys", [{}, {"ingressRate": 0}, {"runtimeConfig": {"bandwidth": None}}, {"runtimeConfig": {}},
                                  {"egressRate": 0, "runtimeConfig": {"bandwidth": BOTH}}])  # fmt: skip
def test_nothing_to_do(node: Node, keys: dict[str, Any]) -> None:
    node.attach("a")
    before = node.state()
    assert node.add("a", keys) == node.results["a", "eth0"]
    assert node.state() == before
    assert node.check("a", keys) == ""
    assert node.call("STATUS", "a", keys).status == 0


def test_as_containerd_sends_it(node: Node) -> None:
    capital = {key[0].upper() + key[1:]: value for key, value in BOTH.items()}
    link = node.attach("a")
    node.add("a", {"runtimeConfig": {"bandwidth": capital}})
    found = {one["dev"]: one["options"] for one in node.qdiscs() if one["kind"] == "tbf"}
    assert found == {link: bucket(4_000_000, 800_000), Owner("net", "a", "eth0").ifb: bucket(8_000_000, 1_000_000)}


def test_the_configuration_comes_before_the_runtime(node: Node) -> None:
    node.attach("a")
    node.add("a", {**INGRESS, "runtimeConfig": {"bandwidth": {"ingressRate": 8000, "ingressBurst": 8000, **EGRESS}}})
    assert [one["options"] for one in node.qdiscs()] == [bucket(4_000_000, 800_000)]


@pytest.mark.parametrize(("keys", "told"), [
    ({"ingressRate": 1000}, '"ingressRate": 1000 needs "ingressBurst"'),
    ({"egressBurst": 1000}, '"egressBurst": 1000 needs "egressRate"'),
    ({**EGRESS, "ingressRate": 7, "ingressBurst": 8}, '"ingressRate": 7 must be at least 8'),
    ({"ingressRate": 8, "ingressBurst": 7}, '"ingressBurst": 7 must be at least 8'),
    ({"ingressRate": -1, "ingressBurst": 8}, '"ingressRate": -1 '),
    ({"ingressRate": 1.5, "ingressBurst": 8}, '"ingressRate": 1.5 '),
    ({"ingressRate": "1M", "ingressBurst": 8}, '"ingressRate": "1M" '),
    ({"ingressRate": 2**64, "ingressBurst": 8}, f'"ingressRate": {2**64} '),
    ({"egressRate": 8, "egressBurst": 8 * (2**32 - 1)}, f'"egressBurst": {8 * (2**32 - 1)} '),
    ({"runtimeConfig": {"bandwidth": {"EgressRate": 9}}}, '"runtimeConfig.bandwidth.egressRate": 9 needs "egressBurst"'),
    ({"runtimeConfig": {"bandwidth": []}}, '"runtimeConfig.bandwidth": '),
    ({**BOTH, "prevResult": None}, '"prevResult" is required'),
])  # fmt: skip
def test_what_is_refused_touches_nothing(node: Node, keys: dict[str, Any], told: str) -> None:
    node.attach("a")
    before = node.state()
    answer = node.call("ADD", "a", keys)
    assert answer.code == 7 and told in answer.json["msg"], answer
    assert node.state() == before


def test_versions(node: Node) -> None:
    node.attach("a", version="0.4.0")
    assert node.call("ADD", "a", {**BOTH, "cniVersion": "0.2.0"}).code == 1
    for version in ("0.3.0", "0.3.1", "0.4.0"):
        node.add("a", {**BOTH, "cniVersion": version})
        assert node.call("DEL", "a", {**BOTH, "cniVersion": version}).status == 0


@pytest.mark.parametrize(
    ("rate", "burst"), [(8, 8 * (2**32 - 1) - 1), (2**64 - 1, 8 * 10**6), (2**64 - 1, 8), (8 * (2**32 - 1), 8 * 10**6)]
)
def test_extremes(node: Node, rate: int, burst: int) -> None:
    """Beyond 32 bits, and where the kernel's clock ends: what CHECK reads is what ADD set."""
    node.attach("a")
    keys = {"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst}
    node.add("a", keys)
    assert node.check("a", keys) == ""
    assert [one["options"]["rate"] for one in node.qdiscs() if one["kind"] == "tbf"] == [rate // 8] * 2


# -- packets

RECEIVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((sys.argv[1], 5001))
    server.listen()
    print("listening", flush=True)
    connection, _ = server.accept()
    with connection:
        while connection.recv(1 << 16):
            pass
        connection.sendall(b"!")
"""
SEND = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 5001), timeout=50) as connection:
    begin = time.monotonic()
    connection.sendall(bytes(int(sys.argv[2])))
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b"!"
    print(time.monotonic() - begin)
"""


def seconds(node: Node, receiver: str, sender: str, address: str, size: int) -> float:
    """How long a transfer takes between two places, the host ("") or a pod's namespace."""

    def python(place: str, *words: str) -> tuple[str, ...]:
        return (*(("ip", "netns", "exec", place) if place else ()), "/usr/bin/python3", "-c", *words)

    with node.host.popen(*python(receiver, RECEIVE, address)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        taken = float(node.host.run(*python(sender, SEND, address, str(size))).stdout)
        assert server.wait(10) == 0
    return taken


@pytest.mark.parametrize("family", [4, 6])
def test_packets_wait(node: Node, family: int) -> None:
    """What is received and what is sent takes at least as long as its rate says, less what the burst lets pass."""
    node.attach("a")
    result = node.add("a", BOTH)
    pods = [ip["address"].partition("/")[0] for ip in result["ips"]]
    gateways = [ip["gateway"] for ip in result["ips"]]
    place = 0 if family == 4 else 1
    for keys, name, ends in (
        (INGRESS, "ingress", ("a", "", pods[place])), (EGRESS, "egress", ("", "a", gateways[place])),
    ):  # fmt: skip
        rate, burst = keys[f"{name}Rate"] / 8, keys[f"{name}Burst"] / 8
        size = 500 * KIBI
        least = (size - burst) / rate
        assert least > 0.3
        assert seconds(node, *ends, size) >= least, name


def test_a_pods_limits_are_its_own(node: Node) -> None:
    """Two interfaces of one pod, each with an ifb; the end of one leaves the other's."""
    links = {ifname: node.attach("a", ifname) for ifname in ("eth0", "eth1")}
    for ifname in links:
        node.add("a", BOTH, ifname)
    ifbs = {ifname: Owner("net", "a", ifname).ifb for ifname in links}
    assert sorted(node.ifbs()) == sorted(ifbs.values())
    for ifname, link in links.items():
        assert redirects(node.filters(link)) == [(1, ifbs[ifname])]
    node.call("DEL", "a", BOTH, "eth0")
    assert node.ifbs() == [ifbs["eth1"]]
    assert node.check("a", BOTH, "eth1") == ""
    assert "is missing" in node.check("a", BOTH, "eth0")


# -- what is there already


@pytest.mark.parametrize("kind", ["clsact", "ingress"])
def test_strangers_qdisc_is_used_and_stays(node: Node, kind: str) -> None:
    link = node.attach("a")
    node.host.run("tc", "qdisc", "add", "dev", link, kind)
    theirs = "protocol ip pref 7 u32 match ip dst 192.0.2.1/32 action mirred egress redirect dev lo"
    node.host.run("tc", "filter", "add", "dev", link, "ingress", *theirs.split())
    before = node.state()
    result = node.add("a", BOTH)
    ifb = Owner("net", "a", "eth0").ifb
    assert redirects(node.filters(link)) == [(0xFFFF, ifb)]
    assert {one["pref"] for one in node.filters(link)} == {7, 0xFFFF}
    assert [one["kind"] for one in node.qdiscs() if one["dev"] == link] == ["tbf", kind]
    assert node.check("a", BOTH) == ""
    gateway, size = result["ips"][0]["gateway"], 500 * KIBI
    assert seconds(node, "", "a", gateway, size) >= (size - EGRESS["egressBurst"] / 8) / (EGRESS["egressRate"] / 8)
    for _ in range(2):
        assert node.call("DEL", "a", BOTH).status == 0
        assert node.state() == before


def test_own_qdisc_with_a_strangers_filter_stays(node: Node) -> None:
    link = node.attach("a")
    node.add("a", BOTH)
    theirs = "protocol ip pref 7 u32 match ip dst 192.0.2.1/32 action mirred egress redirect dev lo"
    node.host.run("tc", "filter", "add", "dev", link, "ingress", *theirs.split())
    node.call("DEL", "a", BOTH)
    assert [one["kind"] for one in node.qdiscs()] == ["ingress"]
    assert {one["pref"] for one in node.filters(link)} == {7}


def test_strangers_root_qdisc_is_an_error(node: Node) -> None:
    link = node.attach("a")
    node.host.run("tc", "qdisc", "add", "dev", link, "root", "pfifo")
    before = node.state()
    answer = node.call("ADD", "a", {**BOTH})
    assert answer.code == 999 and link in answer.json["msg"] and "pfifo" in answer.json["msg"], answer
    assert node.state() == before
    node.call("DEL", "a", BOTH)
    assert node.state() == before


def test_add_twice(node: Node) -> None:
    node.attach("a")
    for keys in (EGRESS, INGRESS, BOTH):
        node.add("a", keys)
        before = node.state()
        answer = node.call("ADD", "a", keys)
        assert answer.code == 999 and "already" in answer.json["msg"], answer
        assert node.state() == before
        node.call("DEL", "a", keys)


@pytest.mark.parametrize("link", ["link add eth0 type bridge", "link add eth0 type veth peer name other", ""])
def test_only_veth_pairs(node: Node, link: str) -> None:
    """Another kind of link, a pair whose other end is not on the host, and no link at all."""
    netns = node.host.netns("a")
    if link:
        node.host.run("ip", "-n", "a", *link.split())
    node.results["a", "eth0"] = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": netns}]}
    before = node.state()
    answer = node.call("ADD", "a", BOTH)
    assert answer.code == 999 and "eth0" in answer.json["msg"] and "veth" in answer.json["msg"], answer
    assert "on the host" in node.check("a", BOTH)
    assert node.call("DEL", "a", BOTH).status == 0
    assert node.state() == before


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_the_hosts_own_namespace(node: Node, verb: str) -> None:
    node.attach("a")
    before = node.state()
    assert node.call(verb, "a", BOTH, netns="/proc/1/ns/net").code == 8
    assert node.state() == before


# -- CHECK, DEL, GC, STATUS


def test_check_names_every_missing_piece(node: Node) -> None:
    link = node.attach("a")
    node.add("a", BOTH)
    ifb = Owner("net", "a", "eth0").ifb
    change = "root handle 1: tbf rate 3mbit burst 100000 limit 200000"
    told = {
        f"tc qdisc change dev {link} {change}": [f"rate of {link}", f"limit of {link}"],
        f"tc qdisc change dev {ifb} {change}": [f"rate of {ifb}", f"burst of {ifb}", f"limit of {ifb}"],
        f"tc filter del dev {link} ingress": [f"comes in at {link}"],
        f"ip link set {ifb} down": [f"{ifb} is down"],
        f"tc qdisc del dev {link} root": [f"link {link} has no token bucket"],
        f"tc qdisc del dev {ifb} root": [f"link {ifb} has no token bucket"],
        f"ip link del {ifb}": [f"{ifb} is missing"],
    }
    found = ""
    for command, expected in told.items():
        node.host.run(*command.split())
        found = node.check("a", BOTH)
        assert all(words in found for words in expected), (command, found)
    assert f"link {link} has no token bucket" in found and f"comes in at {link}" in found


def test_burst_of_the_same_rate(node: Node) -> None:
    node.attach("a")
    node.add("a", INGRESS)
    assert re.fullmatch(
        r"burst of \w+ is \d+, not \d+ ticks.*; limit .*", node.check("a", {**INGRESS, "ingressBurst": 900_000})
    )


@pytest.mark.parametrize("gone", ["namespace", "variable", "link"])
def test_del_with_nothing_to_go_by(node: Node, gone: str) -> None:
    link = node.attach("a")
    node.attach("b")
    node.add("b", BOTH)
    node.add("a", BOTH)
    if gone == "namespace":
        node.host.drop_netns("a")
    if gone == "link":
        node.host.run("ip", "link", "del", link)
    for _ in range(2):
        answer = node.call(
            "DEL",
            "a",
            {"prevResult": None, "ingressRate": "nonsense"},
            netns="" if gone == "variable" else "/run/netns/a",
        )
        assert (answer.status, answer.stdout) == (0, ""), answer
    assert node.ifbs() == [Owner("net", "b", "eth0").ifb]
    assert [one["dev"] for one in node.qdiscs() if one["dev"] == link] == []
    assert node.check("b", BOTH) == ""


def test_gc(node: Node) -> None:
    for pod in ("a", "b", "c"):
        node.attach(pod)
        node.add(pod, EGRESS)
    long = "n" + "x" * 254  # no alias has room for it
    node.host.run("ip", "link", "add", Owner("net", long, "eth0").ifb, "type", "ifb")
    node.host.run("ip", "link", "add", Owner("other", "c9", "eth0").ifb, "type", "ifb")
    node.host.run("ip", "link", "add", "bwp0123456789ab", "type", "ifb")
    marked = Owner("net", "d", "eth0").ifb
    node.host.run("ip", "link", "add", marked, "type", "ifb")
    node.host.run("ip", "link", "set", marked, "alias", "pycni:namesake/d/eth0")
    valid = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth1"}]
    assert node.call("GC", "a", {"cni.dev/valid-attachments": valid}).status == 0
    kept = [Owner("net", "a", "eth0").ifb, Owner("other", "c9", "eth0").ifb, "bwp0123456789ab", marked]
    assert sorted(node.ifbs()) == sorted(kept)
    assert node.call("GC", "a", {}).code == 7
    assert node.check("a", EGRESS) == ""


def test_status_leaves_nothing(node: Node) -> None:
    before = node.state()
    assert node.call("STATUS", "a", BOTH).status == 0
    assert node.state() == before
    assert node.call("STATUS", "a", {"ingressRate": 1}).code == 7


def injected(call: str, what: str, number: int | str) -> tuple[str, ...]:
    return (
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:{what}:when={number}",
    )


def test_status_tells_what_the_kernel_cannot(node: Node) -> None:
    """Each message in turn fails as it does where a kind is not known; with no key set none is sent."""
    for number in range(1, 100):
        answer = node.call("STATUS", "a", BOTH, prefix=injected("sendto", "error=EOPNOTSUPP", number))
        if answer.status == 0:
            break
        assert answer.code == 50, answer
    assert 6 < number < 99
    assert node.call("STATUS", "a", {}, prefix=injected("sendto", "error=EOPNOTSUPP", 1)).status == 0
    assert node.call("STATUS", "a", BOTH, prefix=injected("unshare", "error=ENOSPC", "1+")).code == 50


# -- faults


@pytest.mark.parametrize("stranger", ["", "clsact"])
def test_add_that_fails_at_any_request(node: Node, stranger: str) -> None:
    link = node.attach("a")
    if stranger:
        node.host.run("tc", "qdisc", "add", "dev", link, stranger)
    before = node.state()
    for number in range(1, 100):
        answer = node.call("ADD", "a", BOTH, prefix=injected("sendto", "error=ENOBUFS", number))
        if answer.status == 0:
            break
        assert "could not" not in answer.stderr, answer
        assert node.state() == before, number
    assert 8 < number < 99
    node.call("DEL", "a", BOTH)
    assert node.state() == before


@pytest.mark.parametrize("call", ["sendto", "recvfrom"])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_at_any_message(node: Node, verb: str, call: str) -> None:
    """Before each message to the kernel, or before each answer is read; then DEL: nothing is left."""
    node.attach("a")
    before = node.state()
    for number in range(1, 100):
        if verb == "DEL":
            node.add("a", BOTH)
        status = node.call(verb, "a", BOTH, prefix=injected(call, "signal=SIGKILL", number)).status
        assert node.call("DEL", "a", {"prevResult": None}, netns="" if number % 2 else "/run/netns/a").status == 0
        assert node.state() == before, number
        if status == 0:
            break
    assert (8 if verb == "ADD" else 5) < number < 99


def test_no_child_process_and_a_cost_that_does_not_grow(node: Node) -> None:
    def counted(verb: str, pod: str) -> int:
        trace = (
            "strace",
            "-f",
            "-qq",
            "-o",
            "/run/trace",
            "-e",
            "trace=sendto,recvfrom,clone,clone3,fork,vfork,execve",
        )
        assert node.call(verb, pod, BOTH, prefix=trace).status == 0
        calls = [line.split(maxsplit=1)[1] for line in node.host.run("cat", "/run/trace").stdout.splitlines()]
        assert sum(call.startswith("execve") for call in calls) == 1
        assert not [call for call in calls if call.startswith(("clone", "fork", "vfork"))]
        return len(calls)

    for pod in ("a", "z"):
        node.attach(pod)
    alone = [counted(verb, "a") for verb in ("ADD", "CHECK", "DEL")]
    for number in range(12):
        node.attach(f"p{number}")
        node.add(f"p{number}", BOTH)
    assert [counted(verb, "z") for verb in ("ADD", "CHECK", "DEL")] == alone


# -- hand-over


def test_reference_made_pods(node: Node, reference_bin: str) -> None:
    """What the reference's bridge and bandwidth made is checked, and removed by DEL; and ours limits its pods."""
    link = node.attach("a", bin_dir=reference_bin, version="1.0.0")
    before = node.state()
    config = {**BOTH, "cniVersion": "1.0.0"}
    result = node.add("a", config, bin_dir=reference_bin)
    theirs = [one for one in node.qdiscs() if one["dev"] == link]
    assert node.check("a", {**config, "prevResult": result}) == ""
    assert "rate of" in node.check("a", {**config, "ingressRate": 8_000_000})
    assert node.call("DEL", "a", config).status == 0
    assert node.state() == before
    node.add("a", config)
    assert [one for one in node.qdiscs() if one["dev"] == link] == theirs
    node.call("DEL", "a", config)
    assert node.state() == before


def test_reference_made_pods_without_their_namespace(node: Node, reference_bin: str) -> None:
    node.attach("a", bin_dir=reference_bin, version="1.0.0")
    node.add("a", {**BOTH, "cniVersion": "1.0.0"}, bin_dir=reference_bin)
    node.host.drop_netns("a")
    assert node.call("DEL", "a", BOTH, netns="").status == 0
    assert node.ifbs() == []


def test_in_a_chain_with_bridge(host: PretendHost) -> None:
    netns = host.netns("a")
    host.run("mkdir", "-p", "/etc/cni/net.d")
    plugins = [BRIDGE, {"type": "bandwidth", "capabilities": {"bandwidth": True}}]
    host.run(
        "tee",
        "/etc/cni/net.d/10-net.conflist",
        input=json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": plugins}),
    )
    tool, env = (
        f"{host.bin_dir}/cnitool",
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CAP_ARGS": json.dumps({"bandwidth": BOTH})},
    )
    result = json.loads(host.run(tool, "add", "net", netns, env=env).stdout)
    assert result["interfaces"][3]["name"].startswith("bwp")
    host.run(tool, "check", "net", netns, env=env)
    host.run(tool, "del", "net", netns, env=env)
    assert [link["ifname"] for link in host.ip("link")] == ["lo", "cni0"]
