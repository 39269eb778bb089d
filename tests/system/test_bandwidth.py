"""bandwidth: the queueing disciplines of a pod's link on the host, the speed of packets, and the clean-up."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

import tests.node
from shared.net.owner import Owner
from tests.node import injected
from tests.pretend import Answer, PretendHost, read_line

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
SUBNETS = ["10.9.0.0/24", "10.9.1.0/24", "fd00:9::/64", "10.9.0.7/24"]  # the last one is the first
SHAPED, UNSHAPED = {**BOTH, "shapedSubnets": SUBNETS}, {**BOTH, "unshapedSubnets": SUBNETS}
KIBI = 1024


class Node(tests.node.Node):
    """A pretend host with pods on a bridge of this suite or of the reference."""

    def attach(self, pod: str, ifname: str = "eth0", *, bin_dir: str | None = None, version: str = "1.1.0") -> str:
        """Attach a pod by bridge; return the name of its link on the host."""
        answer = super().call("ADD", pod, {**BRIDGE, "cniVersion": version}, ifname=ifname, bin_dir=bin_dir)
        assert answer.status == 0, answer
        self.results[pod, ifname] = answer.json
        return str(answer.json["interfaces"][1]["name"])

    def call(
        self, verb: str, pod: str, keys: Mapping[str, Any] = {}, /, *, ifname: str = "eth0", **more: Any
    ) -> Answer:
        previous = self.results.get((pod, ifname))
        return super().call(verb, pod, {"type": "bandwidth", "prevResult": previous, **keys}, ifname=ifname, **more)

    def add(self, pod: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> Any:
        answer = self.call("ADD", pod, keys, **more)
        assert answer.status == 0, answer
        return answer.json

    def check(self, pod: str, keys: Mapping[str, Any] = {}, /, *, ifname: str = "eth0", **more: Any) -> str:
        return super().check(pod, {"prevResult": self.results.get((pod, ifname)), **keys}, ifname=ifname, **more)

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


def redirects(filters: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Return preference and target of each filter that redirects all packets."""
    return [
        (one["pref"], one["options"]["actions"][0]["to_dev"])
        for one in filters
        if one["options"].get("match", {}).get("mask") == "0"
    ]


def bucket(rate: int, burst: int) -> dict[str, int]:
    """Return a token bucket as tc shows it: bytes and microseconds."""
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
    ({**SHAPED, **UNSHAPED}, '"shapedSubnets": [ "10.9.0.0/24"'),
    ({**BOTH, "runtimeConfig": {"bandwidth": {"shapedSubnets": ["::/0"], "unshapedSubnets": ["::/0"]}}}, 'excludes "unshapedSubnets"'),
    ({**BOTH, "shapedSubnets": ["10.9.0.0/24", "10.9.0.1"]}, '"shapedSubnets[1]": "10.9.0.1" '),
    ({**BOTH, "unshapedSubnets": "10.9.0.0/24"}, '"unshapedSubnets": "10.9.0.0/24" '),
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
    """Rates beyond 32 bits, and the end of the kernel's clock: CHECK reads the values that ADD set."""
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
source = (sys.argv[3], 0) if len(sys.argv) > 3 else None
with socket.create_connection((sys.argv[1], 5001), timeout=50, source_address=source) as connection:
    begin = time.monotonic()
    connection.sendall(bytes(int(sys.argv[2])))
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b"!"
    print(time.monotonic() - begin)
"""


def seconds(node: Node, receiver: str, sender: str, address: str, size: int, *source: str) -> float:
    """Return the time of a transfer between two places, the host ("") or a pod's namespace."""

    def python(place: str, *words: str) -> tuple[str, ...]:
        return (*(("ip", "netns", "exec", place) if place else ()), "/usr/bin/python3", "-c", *words)

    with node.host.popen(*python(receiver, RECEIVE, address)) as server:
        assert read_line(server) == b"listening\n"
        taken = float(node.host.run(*python(sender, SEND, address, str(size), *source)).stdout)
        assert server.wait(10) == 0
    return taken


@pytest.mark.parametrize("family", [4, 6])
def test_packets_wait(node: Node, family: int) -> None:
    """Traffic in each direction takes at least the time of its rate, less the burst."""
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


@pytest.mark.parametrize("name", ["ingress", "egress"])
@pytest.mark.parametrize("burst", [2**31 - 1, 8 * (2**32 - 1) - 1])
def test_the_burst_is_what_was_asked_for(node: Node, name: str, burst: int) -> None:
    """Runtimes ask for such bursts: a megabyte passes at once, although it is 1,000 seconds of the rate."""
    node.attach("a")
    keys = {f"{name}Rate": 8000, f"{name}Burst": burst}
    result = node.add("a", keys)
    assert node.check("a", keys) == ""
    assert "burst" in node.check("a", {**keys, f"{name}Burst": burst - 8000})
    first = result["ips"][0]
    ends = ("a", "", first["address"].partition("/")[0]) if name == "ingress" else ("", "a", first["gateway"])
    assert seconds(node, *ends, 10**6) < 50


@pytest.mark.parametrize("rate", [8_000_000, 8 * 10**9])
def test_tc_shows_a_long_burst(node: Node, rate: int) -> None:
    """Bursts of up to 274 seconds of the rate, the longest that the kernel shows."""
    node.attach("a")
    node.add("a", {"ingressRate": rate, "ingressBurst": 2**31 - 1})
    (shown,) = node.qdiscs()
    assert abs(shown["options"]["burst"] - (2**31 - 1) // 8) <= rate // 4 / 10**6 + 1  # microseconds are counted
    assert abs(shown["options"]["lat"] - 25000) <= 1


# -- a part of the traffic


def limited(node: Node) -> dict[str, int]:
    """Return the bytes that have passed each link's token bucket."""
    return {one["dev"]: one["bytes"] for one in json.loads(node.host.run("tc", "-s", "-j", "qdisc").stdout)
            if one["kind"] == "tbf"}  # fmt: skip


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("family", [4, 6])
def test_subnets(node: Node, inside: bool, family: int) -> None:
    """The buckets count the peer inside the subnets, or the one outside, in both directions."""
    link = node.attach("a")
    before = node.state()
    fast = {"ingressRate": 10**10, "ingressBurst": 10**9, "egressRate": 10**10, "egressBurst": 10**9}
    keys = {**fast, "shapedSubnets" if inside else "unshapedSubnets": SUBNETS}
    result = node.add("a", keys)
    ifb = Owner("net", "a", "eth0").ifb
    pod, gateway = (result["ips"][family == 6][key].partition("/")[0] for key in ("address", "gateway"))
    member, stranger = ("10.9.1.5", "10.8.0.5") if family == 4 else ("fd00:9::5", "fd00:8::5")
    for peer in (member, stranger):
        node.host.run("ip", "address", "add", peer, "dev", "lo", *(("nodad",) if family == 6 else ()))
        node.host.run("ip", "-n", "a", "route", "add", peer, "via", gateway)
        is_limited = (peer == member) is inside
        for bucket, ends in ((link, ("a", "", pod, 10**5, peer)), (ifb, ("", "a", peer, 10**5))):
            passed = limited(node)
            seconds(node, *ends)
            passed = {name: number - passed[name] for name, number in limited(node).items()}
            if is_limited:
                assert passed[bucket] > 10**5 and min(passed.values()) > 500, (peer, passed)
            else:
                assert max(passed.values()) < 2000, (peer, passed)  # neighbour discovery at most
    assert node.check("a", keys) == ""
    node.host.run("ip", "address", "flush", "dev", "lo", "scope", "global")
    assert node.call("DEL", "a", {"prevResult": None}).status == 0
    assert node.state() == before


@pytest.mark.parametrize("keys", [SHAPED, UNSHAPED], ids=["shaped", "unshaped"])
def test_what_hangs_there_with_subnets(node: Node, keys: dict[str, Any]) -> None:
    link = node.attach("a")
    node.add("a", keys)
    ifb = Owner("net", "a", "eth0").ifb
    kinds = [(one["dev"], one["kind"], one["handle"]) for one in node.qdiscs()]
    assert kinds == [(link, "htb", "1:"), (link, "tbf", "30:"), (link, "ingress", "ffff:"),
                     (ifb, "htb", "1:"), (ifb, "tbf", "30:")]  # fmt: skip
    assert [one["options"] for one in node.qdiscs() if one["kind"] == "tbf"] == [
        bucket(4_000_000, 800_000), bucket(8_000_000, 1_000_000)
    ]  # fmt: skip
    for place, at in ((link, (12, 8)), (ifb, (16, 24))):
        said = node.host.run("tc", "filter", "show", "dev", place).stdout
        words = [
            f"match 0a090000/ffffff00 at {at[0]}",
            f"match 0a090100/ffffff00 at {at[0]}",
            f"match fd000009/ffffffff at {at[1]}",
        ]
        assert [said.count(one) for one in words] == [1, 1, 1], said
    assert node.check("a", keys) == ""
    other = {**BOTH, "unshapedSubnets" if keys is SHAPED else "shapedSubnets": SUBNETS}
    assert f"the default class of {link}" in node.check("a", other)
    assert f"the filters of {ifb}" in node.check("a", {**keys, **{key: ["::/0"] for key in keys.keys() - BOTH.keys()}})
    assert f"link {link} has no token bucket" in node.check("a", BOTH)
    assert "burst of" in node.check("a", {**keys, "egressBurst": 10**7})


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("tc filter del dev {} pref 15 protocol ipv6", "filters of"),
        ("tc filter add dev {} parent 1: pref 16 protocol ip u32 match ip src 10.7.0.0/24 flowid 1:30", "filters of"),
        ("tc class change dev {} parent 1: classid 1:30 htb rate 1mbit", "class 1:30 of"),
        ("tc qdisc del dev {} parent 1:30 handle 30:", "no token bucket"),
        ("tc qdisc change dev {} parent 1:30 handle 30: tbf rate 3mbit burst 100000 limit 200000", "rate of"),
        ("tc qdisc del dev {} root", "no HTB"),
    ],
)
def test_check_of_subnets(node: Node, command: str, told: str) -> None:
    link = node.attach("a")
    node.add("a", SHAPED)
    for place in (link, Owner("net", "a", "eth0").ifb):
        node.host.run(*command.format(place).split())
        found = node.check("a", SHAPED)
        assert told in found and place in found, found


def test_subnets_of_everything(node: Node) -> None:
    """A whole family, neither family, and many subnets."""
    many = [f"10.{n // 256}.{n % 256}.0/24" for n in range(1000)]
    for number, subnets in enumerate((["0.0.0.0/0", "::/0"], ["0.0.0.0/0"], [], many)):
        pod = f"p{number}"
        node.attach(pod)
        node.add(pod, {**BOTH, "shapedSubnets": subnets})
        assert node.check(pod, {**BOTH, "shapedSubnets": subnets}) == ""
        assert node.call("DEL", pod, BOTH).status == 0
    assert node.qdiscs() == []


def test_subnets_beside_the_runtimes_limits(node: Node) -> None:
    """The configuration's subnets hold for the runtime's limits; if it has none, the runtime's subnets hold."""
    node.attach("a")
    of_runtime = {"runtimeConfig": {"bandwidth": {**BOTH, "shapedSubnets": ["10.0.0.0/8"]}}}
    for keys, same in (
        ({"unshapedSubnets": SUBNETS, **of_runtime}, UNSHAPED), (of_runtime, {**BOTH, "shapedSubnets": ["10.0.0.0/8"]}),
        ({"unshapedSubnets": [], **of_runtime}, {**BOTH, "shapedSubnets": ["10.0.0.0/8"]}),
    ):  # fmt: skip
        node.add("a", keys)
        assert node.check("a", same) == ""
        node.call("DEL", "a", {})
    assert node.add("a", {"shapedSubnets": SUBNETS}) == node.results["a", "eth0"]
    assert node.qdiscs() == []


def test_status_with_subnets(node: Node) -> None:
    """STATUS answers 50 if the kernel refuses any message."""
    before = node.state()
    assert node.call("STATUS", "a", SHAPED).status == 0
    for number in range(1, 100):
        answer = node.call("STATUS", "a", SHAPED, prefix=injected("sendto", "error=EOPNOTSUPP", number))
        if answer.status == 0:
            break
        assert answer.code == 50, answer
    assert 6 < number < 99
    assert node.state() == before


@pytest.mark.parametrize("classes", ["1:30", "1:1 1:30"])
@pytest.mark.row("foreign-rules")
def test_a_strangers_htb_stays(node: Node, classes: str) -> None:
    """DEL knows its own limit, and the reference's, by more than the handle."""
    link = node.attach("a")
    node.host.run("tc", *f"qdisc add dev {link} root handle 1: htb default 30".split())
    for one in classes.split():
        node.host.run("tc", *f"class add dev {link} parent 1: classid {one} htb rate 1gbit".split())
    before = node.state()
    assert "has a qdisc already" in node.call("ADD", "a", SHAPED).json["msg"]
    assert node.call("DEL", "a", SHAPED).status == 0
    assert node.state() == before


def test_the_references_htb_goes(node: Node) -> None:
    """The reference's releases from 1.6 on create it."""
    link = node.attach("a")
    before = node.state()
    for words in ("qdisc add dev {} root handle 1: htb default 30", "class add dev {} parent 1: classid 1:30 htb rate 1mbit",
                  "class add dev {} parent 1: classid 1:1 htb rate 800gbit"):  # fmt: skip
        node.host.run("tc", *words.format(link).split())
    assert node.call("DEL", "a", BOTH).status == 0
    assert node.state() == before


def test_a_pods_limits_are_its_own(node: Node) -> None:
    """Two interfaces of one pod, each with an ifb; DEL of one leaves the other's."""
    links = {ifname: node.attach("a", ifname) for ifname in ("eth0", "eth1")}
    for ifname in links:
        node.add("a", BOTH, ifname=ifname)
    ifbs = {ifname: Owner("net", "a", ifname).ifb for ifname in links}
    assert sorted(node.ifbs()) == sorted(ifbs.values())
    for ifname, link in links.items():
        assert redirects(node.filters(link)) == [(1, ifbs[ifname])]
    node.call("DEL", "a", BOTH, ifname="eth0")
    assert node.ifbs() == [ifbs["eth1"]]
    assert node.check("a", BOTH, ifname="eth1") == ""
    assert "is missing" in node.check("a", BOTH, ifname="eth0")


# -- qdiscs and filters that exist before ADD


@pytest.mark.parametrize("kind", ["clsact", "ingress"])
@pytest.mark.row("foreign-rules")
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


@pytest.mark.parametrize("root", [
    "root handle 2: tbf rate 5mbit burst 100000 limit 200000", "root handle 1: prio", "root handle 2: pfifo",
])  # fmt: skip
def test_strangers_root_qdiscs_stay(node: Node, root: str) -> None:
    """A stranger's qdisc replaced a limit on a link that also has the other limit."""
    link = node.attach("a")
    node.add("a", EGRESS)
    added = node.host.run("tc", "qdisc", "add", "dev", link, *root.split(), check=False)
    if added.returncode and "kind is unknown" in added.stderr:
        pytest.skip("this kernel has no such queue")
    before = [one for one in node.qdiscs() if one["dev"] == link and one["kind"] != "ingress"]
    assert len(before) == 1
    assert node.call("DEL", "a", EGRESS).status == 0
    assert [one for one in node.qdiscs() if one["dev"] == link] == before and node.ifbs() == []


@pytest.mark.parametrize("preference", [1, 0xFFFF])
def test_strangers_redirections_stay(node: Node, preference: int) -> None:
    """A stranger's filter of the same preference redirects everything to another link."""
    link = node.attach("a")
    node.host.run("sh", "-ec", "ip link add theirs up type ifb; ip link add gone up type ifb")
    node.host.run("tc", "qdisc", "add", "dev", link, "ingress")
    words = f"protocol all pref {preference} u32 match u32 0 0 action mirred egress redirect dev theirs"
    node.host.run("tc", "filter", "add", "dev", link, "ingress", *words.split())
    before = node.state()
    assert redirects(node.filters(link)) == [(preference, "theirs")]
    for _ in range(2):
        assert node.call("DEL", "a", BOTH).status == 0
        assert node.state() == before


def test_strangers_links_that_are_called_like_its_own_stay(node: Node) -> None:
    """A bridge with the name of the host's end is not limited, and one with the name of the ifb is not deleted."""
    owner = Owner("net", "a", "eth0")
    netns = node.host.netns("a")
    node.results["a", "eth0"] = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": netns}]}
    for name in (owner.host_link, owner.ifb):
        node.host.run("ip", "link", "add", name, "up", "type", "bridge")
    before = node.state()
    answer = node.call("ADD", "a", INGRESS)
    assert answer.code == 999 and "no other end" in answer.json["msg"], answer
    assert node.state() == before
    assert node.call("DEL", "a", BOTH).status == 0
    assert node.state() == before


def test_strangers_limits_in_the_hosts_own_namespace_stay(node: Node) -> None:
    """With CNI_NETNS_OVERRIDE, a link's name does not show that it is the pod's."""
    node.host.run("ip", "link", "add", "eth0", "up", "type", "veth", "peer", "name", "far")
    for link in ("eth0", "far"):
        node.host.run("tc", *f"qdisc add dev {link} root handle 1: tbf rate 5mbit burst 100000 limit 200000".split())
    before = node.state()
    env = {"CNI_NETNS_OVERRIDE": "1"}
    assert node.call("DEL", "a", BOTH, netns="/proc/self/ns/net", env=env).status == 0
    assert node.state() == before


@pytest.mark.row("foreign-rules")
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
    """Another kind of link, a pair with its other end outside the host, and no link."""
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


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
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
        f"tc filter del dev {link} ingress": [f"{link} does not redirect"],
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
    assert f"link {link} has no token bucket" in found and f"{link} does not redirect" in found


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
    young = Owner("net", "n", "eth0").ifb  # of an ADD before it names it
    node.host.run("ip", "link", "add", young, "type", "ifb")
    node.host.run("ip", "link", "add", Owner("other", "c9", "eth0").ifb, "type", "ifb")
    node.host.run("ip", "link", "add", "bwp0123456789ab", "type", "ifb")
    marked = Owner("net", "d", "eth0").ifb
    node.host.run("ip", "link", "add", marked, "type", "ifb")
    node.host.run("ip", "link", "set", marked, "alias", "pycni:namesake/d/eth0")
    valid = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth1"}]
    assert node.call("GC", "a", {"cni.dev/valid-attachments": valid}).status == 0
    kept = [Owner("net", "a", "eth0").ifb, Owner("other", "c9", "eth0").ifb, "bwp0123456789ab", marked, young]
    assert sorted(node.ifbs()) == sorted(kept)
    assert node.call("GC", "a", {}).code == 7
    assert node.check("a", EGRESS) == ""


def test_status_leaves_nothing(node: Node) -> None:
    before = node.state()
    assert node.call("STATUS", "a", BOTH).status == 0
    assert node.state() == before
    assert node.call("STATUS", "a", {"ingressRate": 1}).code == 7


def test_status_tells_what_the_kernel_cannot(node: Node) -> None:
    """Each message in turn fails as for an unknown kind; with no key set none is sent."""
    for number in range(1, 100):
        answer = node.call("STATUS", "a", BOTH, prefix=injected("sendto", "error=EOPNOTSUPP", number))
        if answer.status == 0:
            break
        assert answer.code == 50, answer
    assert 6 < number < 99
    assert node.call("STATUS", "a", {}, prefix=injected("sendto", "error=EOPNOTSUPP", 1)).status == 0
    assert node.call("STATUS", "a", BOTH, prefix=injected("unshare", "error=ENOSPC", "1+")).code == 50


# -- faults


@pytest.mark.parametrize("keys", [BOTH, SHAPED], ids=["both", "shaped"])
@pytest.mark.parametrize("stranger", ["", "clsact"])
def test_add_that_fails_at_any_request(node: Node, stranger: str, keys: dict[str, Any]) -> None:
    link = node.attach("a")
    if stranger:
        node.host.run("tc", "qdisc", "add", "dev", link, stranger)
    before = node.state()
    for number in range(1, 100):
        answer = node.call("ADD", "a", keys, prefix=injected("sendto", "error=ENOBUFS", number))
        if answer.status == 0:
            break
        assert "could not" not in answer.stderr, answer
        assert node.state() == before, number
    assert 8 < number < 99
    node.call("DEL", "a", BOTH)
    assert node.state() == before


@pytest.mark.parametrize("call", ["sendto", "recvfrom"])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("keys", [BOTH, UNSHAPED], ids=["both", "unshaped"])
def test_killed_at_any_message(node: Node, verb: str, call: str, keys: dict[str, Any]) -> None:
    """The call dies before each message to the kernel, or before each answer; DEL leaves nothing."""
    node.attach("a")
    before = node.state()
    for number in range(1, 100):
        if verb == "DEL":
            node.add("a", keys)
        status = node.call(verb, "a", keys, prefix=injected(call, "signal=SIGKILL", number)).status
        assert node.call("DEL", "a", {"prevResult": None}, netns="" if number % 2 else "/run/netns/a").status == 0
        assert node.state() == before, number
        if status == 0:
            break
    assert (8 if verb == "ADD" else 5) < number < 99


def test_killed_at_any_message_and_collected(node: Node) -> None:
    """Nobody calls DEL: GC deletes the ifb at once, since it never lacks its alias."""
    node.attach("a")
    for number in range(1, 100):
        status = node.call("ADD", "a", BOTH, prefix=injected("sendto", "signal=SIGKILL", number)).status
        node.collect(**BOTH)
        assert node.ifbs() == [], number
        node.call("DEL", "a", BOTH)
        if status == 0:
            break
    assert 8 < number < 99


def test_no_program_and_a_cost_that_does_not_grow(node: Node) -> None:
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
        # the deletion of the ifb waits in a child
        assert sum(call.startswith(("clone", "fork", "vfork")) for call in calls) == (verb == "DEL")
        return sum(not call.startswith("<... ") for call in calls)

    for pod in ("a", "z"):
        node.attach(pod)
    alone = [counted(verb, "a") for verb in ("ADD", "CHECK", "DEL")]
    for number in range(12):
        node.attach(f"p{number}")
        node.add(f"p{number}", BOTH)
    assert [counted(verb, "z") for verb in ("ADD", "CHECK", "DEL")] == alone


# -- hand-over


def test_reference_made_pods(node: Node, reference_bin: str) -> None:
    """CHECK and DEL work on limits of the reference's bridge and bandwidth; this suite's ADD limits its pods."""
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
