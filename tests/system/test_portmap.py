"""portmap: the senders that reach a pod through a host port, by packets; the state after each verb."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.net.owner import Owner
from tests.faults import batch
from tests.faults.batch import Call
from tests.pretend import PretendHost
from tests.system.hostport_nodes import (
    ALL,
    ANY,
    EITHER,
    EVERY,
    GATEWAY,
    GATEWAY_6,
    HOST,
    HOST_6,
    LOCALHOST,
    OTHER,
    OTHER_6,
    OUT,
    OUT_6,
    PROTOCOLS,
    REFUSED,
    TCP,
    Node,
    Plain,
    elements,
    left,
    ports,
    rules,
)  # fmt: skip

SERVERS = [("a", protocol, 80) for protocol in PROTOCOLS]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """Return the backend that a test asks for, "" for the default."""
    return str(getattr(request, "param", ""))


@pytest.fixture
def plain(host: PretendHost, backend: str) -> Plain:
    return Plain(host, backend)


@pytest.fixture
def node(host: PretendHost, backend: str) -> Node:
    return Node(host, backend)


# -- senders and targets


@EVERY
@pytest.mark.parametrize("at", ["any address", "one address"])
@pytest.mark.parametrize("bridged", ["seen by IP's hooks", "not seen"])
def test_who_reaches_a_pod(host: PretendHost, backend: str, at: str, bridged: str) -> None:
    """Protocol × family × origin, and the address that the pod sees; no access after DEL.

    If IP's hooks see bridged packets (bridge-nf-call-iptables), a pod that calls itself needs hairpinMode.
    """
    node = Node(host, backend, hairpinMode=bridged == "seen by IP's hooks")
    if bridged == "not seen":
        host.run("sh", "-c", "for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do echo 0 >$f; done")
    addresses = [HOST, HOST_6] if at == "one address" else [""]
    keys = ports(*((8080, 80, protocol, address) for protocol in PROTOCOLS for address in addresses))
    if at == "one address":
        keys["runtimeConfig"]["portMappings"] += ports(*((8080, 80, protocol, LOCALHOST) for protocol in PROTOCOLS))[
            "runtimeConfig"
        ]["portMappings"]
    node.add("a", keys)
    assert node.call("CHECK", "a", keys).status == 0
    seen: dict[tuple[Any, ...], str] = {}
    for protocol in PROTOCOLS:
        for address, out, gateway in ((HOST, OUT, GATEWAY), (HOST_6, OUT_6, GATEWAY_6)):
            for origin, expected in (("out", out), ("host", address), ("b", gateway), ("a", gateway)):
                seen[origin, protocol, address, 8080] = expected
        seen["host", protocol, LOCALHOST, 8080] = GATEWAY
    probes = list(seen)
    answers = dict(zip(probes, node.probe(SERVERS, probes), strict=True))
    assert answers == {probe: ["a", expected] for probe, expected in seen.items()}

    others = [("out", protocol, address, 8080) for protocol in PROTOCOLS for address in (OTHER, OTHER_6)]
    reached = node.probe(SERVERS, others, silence=at == "one address")
    nobody = [REFUSED, REFUSED, REFUSED, REFUSED, "silence", "silence"]
    assert reached == (nobody if at == "one address" else [["a", OUT], ["a", OUT_6]] * 3)
    assert node.probe(SERVERS, [("host", "tcp", "::1", 8080), ("host", "udp", "::1", 8080)]) == [REFUSED] * 2

    assert node.call("DEL", "a", keys).status == 0
    spoken = [probe for probe in probes if probe[1] != "sctp"]
    assert node.probe(SERVERS, spoken) == [REFUSED] * len(spoken)
    rest = [probe for probe in probes if probe[1] == "sctp"]
    assert node.probe(SERVERS, rest, silence=True) == ["silence"] * len(rest)


@EITHER
def test_what_is_masqueraded(node: Node) -> None:
    """With masqAll everything is; without snat nothing is, and localhost is not admitted."""
    node.add("a", {**TCP, "masqAll": True})
    node.add("b", ports((8081, 80), snat=False))
    servers = [("a", "tcp", 80), ("b", "tcp", 80)]
    probes = [(origin, "tcp", address, port) for port in (8080, 8081) for origin, address in (("out", HOST), ("out", HOST_6), ("far", HOST))]  # fmt: skip
    assert node.probe(servers, probes) == [
        ["a", GATEWAY], ["a", GATEWAY_6], ["a", GATEWAY], ["b", OUT], ["b", OUT_6], ["b", "192.0.3.9"],
    ]  # fmt: skip
    hairpins = [elements(node.host).get(f"hairpin{version}") for version in (4, 6)]
    assert hairpins == ([None] * 2 if node.keys["backend"] == "iptables" else [["net/a/eth0"]] * 2)


@EITHER
@pytest.mark.parametrize("keys", [{}, {"masqAll": True}])
def test_who_calls_a_pod_by_its_own_address_keeps_theirs(node: Node, keys: dict[str, Any]) -> None:
    """Clients of either family, outside and in another pod, call the mapped port and another one."""
    node.host.run("sh", "-c", "for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do echo 1 >$f; done")
    node.add("a", {**ALL, **keys})
    own = {pod: [ip["address"].partition("/")[0] for ip in node.results[pod]["ips"]] for pod in "ab"}
    servers = [("a", protocol, port) for protocol in ("tcp", "udp") for port in (80, 81)]
    probes = [(origin, protocol, address, port) for _, protocol, port in servers for origin in ("out", "b") for address in own["a"]]  # fmt: skip
    assert node.probe(servers, probes) == [["a", seen] for _ in servers for seen in (OUT, OUT_6, *own["b"])]


@EITHER
@pytest.mark.parametrize(("keys", "is_let_through"), [
    (TCP, True), (ports((8080, 80, "tcp", "127.0.0.1")), True), (ports((8080, 80, "tcp", "127.0.0.7")), True), (ports((8080, 80, "tcp", ANY)), True),
    ({**TCP, "snat": False}, False), (ports((8080, 80, "tcp", HOST)), False), (ports((8080, 80, "tcp", "::")), False), ({}, False),
])  # fmt: skip
def test_localhost_is_let_through_where_it_is_mapped(plain: Plain, keys: dict[str, Any], is_let_through: bool) -> None:
    """It is admitted on the link to the pod, and on no other."""
    plain.host.run("ip", "link", "add", "eth9", "up", "type", "bridge")
    plain.add(keys)
    found = plain.host.run("sh", "-c", "cd /proc/sys/net/ipv4/conf; grep -H . */route_localnet").stdout.split()
    assert {line for line in found if not line.endswith(":0")} == (
        {"br0/route_localnet:1"} if is_let_through else set()
    )


@EITHER
@pytest.mark.row("local-destination")
def test_only_what_is_sent_to_this_host_is_redirected(node: Node) -> None:
    """Packets that the host routes, or sends to others, to a port that is mapped here pass (CVE-2025-67499)."""
    node.add("a", ALL)
    servers = [*SERVERS, *(("far", protocol, 8080) for protocol in PROTOCOLS)]
    sent = [(origin, protocol, address, 8080) for protocol in PROTOCOLS for origin in ("out", "host", "b") for address in ("192.0.3.9", "fd00:3::9")]  # fmt: skip
    assert [answer[0] for answer in node.probe(servers, sent)] == ["far"] * len(sent)


@EITHER
@pytest.mark.row("host-ip")
def test_another_hosts_address_is_no_host_ip(node: Node) -> None:
    """ADD refuses it, and a former address of the host stops matching once a neighbour has it (CVE-2020-8554)."""
    far, protocols = ("192.0.3.9", "fd00:3::9"), ("tcp", "udp")
    keys = ports(*((8080, 80, protocol, address) for protocol in protocols for address in far))
    refused = node.call("ADD", "a", keys)
    assert refused.status == 1 and refused.json["code"] == 7 and far[0] in refused.json["msg"]
    for address in far:
        node.host.run("ip", "address", "add", address, "dev", "lo")
    node.add("a", keys)
    for address in far:
        node.host.run("ip", "address", "del", address, "dev", "lo")
    servers = [*SERVERS, *(("far", protocol, 8080) for protocol in protocols)]
    sent = [(origin, protocol, address, 8080) for protocol in protocols for origin in ("out", "host", "b") for address in far]  # fmt: skip
    assert [answer[0] for answer in node.probe(servers, sent)] == ["far"] * len(sent)


FRAME = """
import ctypes, os, socket, struct, sys
netns, bridge, own, source, *destinations = sys.argv[1:]
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("", 9999))
receiver.settimeout(30)
ctypes.CDLL(None).setns(os.open(netns, os.O_RDONLY), 0x40000000)
def frame(text, destination):
    payload = struct.pack("!HHHH", 7777, 9999, 8 + len(text), 0) + text
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(destination))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))) + head[12:]
    return b"".join(bytes.fromhex(mac.replace(":", "")) for mac in (bridge, own)) + b"\\x08\\x00" + head + payload
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
for text, destination in zip((b"first", b"second"), destinations):
    raw.send(frame(text, destination))
print(receiver.recv(100).decode())
"""


@EITHER
def test_localhost_stays_shut_if_an_add_fails(plain: Plain) -> None:
    """It stays shut until a rule keeps strangers out."""
    plain.add(TCP)
    plain.host.run("sysctl", "-qw", "net.ipv4.conf.br0.route_localnet=0")
    assert plain.call("ADD", TCP, "c2", 6).status == 1
    assert plain.host.run("cat", "/proc/sys/net/ipv4/conf/br0/route_localnet").stdout == "0\n"


@EVERY
@pytest.mark.row("route-localnet")
def test_localhost_cannot_be_reached_from_outside(node: Node) -> None:
    """route_localnet is on (CVE-2020-8558); without the suite's rule it could be reached."""
    node.add("a", TCP)
    mac = {link["ifname"]: link["address"] for link in node.host.ip("link")}["cni0"]
    own = node.results["b"]["interfaces"][2]["mac"]
    address = node.results["b"]["ips"][0]["address"].partition("/")[0]
    argv = (sys.executable, "-c", FRAME, node.where["b"], mac, own, address)
    for localhost in (LOCALHOST, "127.0.0.53", "127.255.255.254"):
        assert node.host.run(*argv, localhost, GATEWAY).stdout == "second\n", localhost
    flush = (
        ("iptables", "-t", "raw", "-F")
        if node.keys["backend"] == "iptables"
        else ("nft", "flush chain inet pycni hostports_localnet")
    )
    node.host.run(*flush, env=node.environment.get("env"))
    assert node.host.run(*argv, LOCALHOST, GATEWAY).stdout == "first\n"


@EITHER
def test_udp_that_goes_on(node: Node) -> None:
    """A tracked connection follows the mapping; other tracked connections are left alone."""
    servers = [("a", "udp", 80), ("b", "udp", 80), ("host", "udp", 8080), ("host", "udp", 8081), ("far", "udp", 8080)]
    flow = [
        ("out", "udp", HOST, 8080, 5555),
        ("out", "udp", HOST_6, 8080, 5555),
        ("host", "udp", LOCALHOST, 8080, 5556),
    ]
    other = [("out", "udp", HOST, 8081, 5555), ("out", "udp", "192.0.3.9", 8080, 5557)]

    def reached() -> list[str]:
        return [answer[0] for answer in node.probe(servers, [*flow, *other])]

    def others() -> set[str]:
        """Return the kernel's numbers of the connections that do not belong to the mapping."""
        tracked = node.host.run("conntrack", "-L", "-o", "id").stdout.splitlines()
        return {line.rpartition(" id=")[2] for line in tracked if "dport=8081" in line or "dst=192.0.3.9 " in line}

    keys = ports((8080, 80, "udp"))
    node.add("b", ports((80, 80)))  # rules of which the kernel tracks connections from now on
    assert reached() == ["host", "host", "host", "host", "far"]
    before = others()
    assert len(before) == 2
    node.add("a", keys)
    assert others() == before
    assert reached() == ["a", "a", "a", "host", "far"]
    assert node.call("DEL", "a", {}).status == 0
    assert reached() == ["host", "host", "host", "host", "far"]
    node.add("b", {**ports((8080, 80, "udp", HOST), (8082, 80, "udp")), "name": "net2"})
    assert reached() == ["b", "host", "host", "host", "far"]
    answer = node.call("GC", "b", {"name": "net2", "cni.dev/valid-attachments": []})
    assert answer.status == 0
    assert reached() == ["host", "host", "host", "host", "far"]
    assert others() == before  # the same connections all the time, not new ones of the same traffic


# -- entries that lead to the same place


@EITHER
@pytest.mark.parametrize("entries", [
    [(8080, 80), (8080, 80)], [(8080, 80, "tcp"), (8080, 80, "TCP", "")], [(8080, 80, "tcp", "::"), (8080, 80)], [(8080, 80), (8080, 80, "tcp", "::")],
    [(8080, 80), (8080, 80, "tcp", ANY)], [(8080, 80, "tcp", ANY), (8080, 80, "tcp", "::"), (8080, 80, "tcp", None)], [(8080, 80, "tcp", f"::ffff:{ANY}"), (8080, 80)],
])  # fmt: skip
def test_entries_that_lead_to_the_same_place_are_one(plain: Plain, entries: list[Any]) -> None:
    plain.add(ports((8080, 80)))
    once = {name: len(held) for name, held in left(plain.host).items()}
    assert plain.call("DEL", {}).status == 0
    plain.add(ports(*entries))
    assert {name: len(held) for name, held in left(plain.host).items()} == once
    assert plain.problems(ports(*entries)) == plain.problems(ports((8080, 80))) == ""
    plain.add(ports((8080, 80, "tcp", HOST), (8080, 80, "tcp", f"::ffff:{HOST}")), "c2", 6)  # is another place
    assert plain.problems(ports((8080, 80, "tcp", HOST)), "c2", 6) == ""
    for name in ("c1", "c2"):
        assert plain.call("DEL", ports(*entries), name).status == 0
    assert left(plain.host) == {}


# -- conflicts


@EITHER
def test_a_port_that_is_taken(plain: Plain) -> None:
    """The refusal names the holder; one address beside any address, and other protocols, are no conflict."""
    plain.add(ports((8080, 80), (8081, 81, "udp", HOST)))
    plain.refused(
        ports((9000, 80), (8080, 81)),
        999,
        "host port 8080/tcp of every IPv4 address is taken by net/c1/eth0",
        "c2",
        number=6,
    )
    plain.refused(
        ports((8080, 80, "tcp", "::")), 999, "host port 8080/tcp of every IPv6 address is taken by net/c1/eth0", "c2"
    )
    plain.refused(
        ports((8081, 80, "udp", HOST)), 999, f"host port 8081/udp of {HOST} is taken by net/c1/eth0", "c2", number=6
    )
    plain.refused({**TCP, "name": "net2"}, 999, "is taken by net/c1/eth0", "c2", number=6)
    plain.add(ports((8080, 80, "udp"), (8080, 80, "tcp", HOST), (8081, 80, "udp")), "c2", 6)
    assert plain.call("DEL", {}, "c1").status == 0
    plain.add(ports((8080, 80)), "c3", 7)


@EITHER
def test_one_address_comes_before_any(node: Node) -> None:
    node.add("a", TCP)
    node.add("b", ports((8080, 80, "tcp", OTHER)))
    servers = [("a", "tcp", 80), ("b", "tcp", 80)]
    probes = [("out", "tcp", HOST, 8080), ("out", "tcp", OTHER, 8080)]
    assert [answer[0] for answer in node.probe(servers, probes)] == ["a", "b"]
    assert node.call("DEL", "b", {}).status == 0
    assert [answer[0] for answer in node.probe(servers, probes)] == ["a", "a"]


@EITHER
def test_add_twice(plain: Plain) -> None:
    plain.add(ALL)
    plain.refused(ALL, 999, "net/c1/eth0")
    plain.refused(ports((9000, 80)), 999, "it was added before")
    assert plain.problems(ALL) == ""


@EITHER
def test_two_interfaces_of_a_pod(plain: Plain) -> None:
    other = ports((9090, 90, "udp"), (9090, 90, "tcp", HOST))
    plain.add(ALL)
    plain.add(other, number=6, ifname="eth1")
    assert plain.call("DEL", {}).status == 0
    assert plain.problems(other, number=6, ifname="eth1") == ""
    assert plain.call("DEL", {}, ifname="eth1").status == 0
    assert left(plain.host) == {}


CONDITIONED = ports((8080, 80), (8080, 80, "tcp", HOST), conditionsV4=["-s", OUT])


@pytest.mark.parametrize(("first", "second"), [(ALL, ALL), (TCP, CONDITIONED), (CONDITIONED, ALL)])
def test_a_port_that_the_containers_other_network_has(
    plain: Plain, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """podman asks for it with each network of a container: the port stays with the first."""
    other = {**second, "name": "net2"}
    plain.add(first)
    before = elements(plain.host)
    del before["attachments"]
    plain.add(other, number=6, ifname="eth1")
    assert plain.problems(first) == "" and plain.problems(other, number=6, ifname="eth1") == ""
    plain.refused({**TCP, "name": "net3"}, 999, "is taken by net/c1/eth0", "c2", number=7)
    after = elements(plain.host)
    for name, held in before.items():
        assert [owner for owner in after[name] if owner == "net/c1/eth0"] == held
    assert after.get("conditional4") == before.get("conditional4")  # by which the port would be the other's
    assert plain.call("DEL", {"name": "net2"}, ifname="eth1").status == 0
    assert plain.problems(first) == ""
    plain.add(other, number=6, ifname="eth1")
    assert plain.call("DEL", {}).status == 0
    assert "missing" in plain.problems(other, number=6, ifname="eth1")
    assert plain.call("DEL", {"name": "net2"}, ifname="eth1").status == 0
    assert elements(plain.host) == {}


def test_an_address_that_another_pod_had(plain: Plain) -> None:
    """Its owner's DEL has not come: the new pod's packets pass, and the late DEL does not touch its entries."""
    plain.add(TCP)
    plain.add(ports((9000, 80)), "c2")
    assert elements(plain.host)["hairpin4"] == ["net/c2/eth0"]
    assert plain.call("DEL", TCP).status == 0
    assert plain.problems(ports((9000, 80)), "c2") == ""


# -- conditions


@pytest.mark.parametrize(("v4", "v6"), [
    (["!", "-s", f"{OUT}/32"], ["!", "-s", OUT_6]),
    (["-s", "192.0.3.0/24"], ["--source", "fd00:3::/64"]),
    (["ip saddr != 192.0.2.0/24"], ["ip6 saddr != fd00:2::/64"]),
    (["ip", "saddr", "192.0.3.9", "!", "-d", OTHER], ["iifname far0", "ip6 daddr != ff00::/8"]),
    (["iifname != out0"], ['iifname "far0"']),
    (["!", "-i", "out0"], ["--in-interface", "far0"]),
    (["-s", "192.0.3.7,192.0.3.0/255.255.255.0,10.9.0.0/16"], ["--source=fd00:9::/64,fd00:3::9"]),
    (["ip saddr { 192.0.3.7, 192.0.3.9 }", "-i far+"], ["ip6 saddr != { fd00:2::/64, fd00:9::9 }", "iifname != { o*, x }"]),
    (["ip saddr != { 192.0.2.8/31, 10.9.0.0/16 }"], ["ip6", "saddr", "{fd00:3::/64,fd00:4::/64}", 'iifname { "far0", "x" }']),
    (["-s 192.0.3.9,192.0.3.10", "-d", f"{HOST},{OTHER}"], ["iifname f*", "-s", "fd00:3::9/128"]),
    (["!", "-i", "out+"], ["-i", "+", "! -i", "ou+"]),
])  # fmt: skip
@pytest.mark.parametrize("at", ["", HOST])
@EITHER
def test_conditions(node: Node, v4: list[str], v6: list[str], at: str) -> None:
    """Packets that meet them reach the pod; for all others the port is not mapped."""
    conditions = {"conditionsV4": v4, "conditionsV6": v6}
    mapped = [(8080, 80, "tcp", at), *([(8080, 80, "tcp", HOST_6)] if at else [])]
    if node.keys["backend"] == "iptables" and "+" in v6:
        return  # which takes one -i
    node.add("a", ports(*mapped, **conditions))
    assert node.call("CHECK", "a", ports(*mapped, **conditions)).status == 0
    servers = [("a", "tcp", 80), ("b", "tcp", 80)]
    probes = [(origin, "tcp", address, 8080) for origin in ("far", "out") for address in (HOST, HOST_6)]
    assert node.probe(servers, probes) == [["a", "192.0.3.9"], ["a", "fd00:3::9"], REFUSED, REFUSED]
    if at:  # other packets match the mapping of any address
        node.add("b", ports((8080, 80)))
        assert [answer[0] for answer in node.probe(servers, probes)] == ["a", "a", "b", "b"]
        assert node.call("DEL", "b", {}).status == 0
    assert node.call("DEL", "a", {}).status == 0
    assert node.probe(servers, probes) == [REFUSED] * 4
    assert node.call("GC", "a", {"cni.dev/valid-attachments": []}).status == 0
    assert not re.search(r"(hostport|hairpin)-", rules(node.host))


def test_conditions_are_shared(plain: Plain) -> None:
    """All attachments with the same conditions share one chain for each family; other conditions have another."""
    for number in range(3):
        plain.add(
            ports((8000 + number, 80), conditionsV4=["!", "-d", "192.0.2.0/24"], conditionsV6=["-i", "x"]),
            f"c{number}",
            number,
        )
    assert len(set(re.findall(r"chain hostport-\w+", rules(plain.host)))) == 2
    plain.refused(ports((8001, 80)), 999, "is taken by net/c1/eth0", "c9", number=9)


def test_a_chain_that_nobody_asks(plain: Plain) -> None:
    """An administrator's chain should decide about masquerading: nf_tables cannot ask it, and both verbs say so."""
    for keys, is_said in (
        ({"externalSetMarkChain": "KUBE-MARK-MASQ"}, True), ({"externalSetMarkChain": "X", "backend": "nftables"}, True),
        ({"externalSetMarkChain": "X", "snat": False}, False), ({"markMasqBit": 3}, False), ({}, False),
    ):  # fmt: skip
        for verb in ("STATUS", "ADD"):
            answer = plain.call(verb, {**TCP, **keys})
            assert answer.status == 0 and ('"externalSetMarkChain": ' in answer.stderr) == is_said, answer
        assert plain.call("DEL", {**TCP, **keys}).stderr == ""


# -- mappings in every form, and refused ones


@pytest.mark.parametrize("entry", [
    {"hostPort": 8080, "containerPort": 80}, {"hostPort": 8080, "containerPort": 80, "protocol": None, "hostIP": None},
    {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""}, {"hostPort": 8080, "containerPort": 80, "protocol": "", "hostIP": ""},
    {"HOSTPORT": 8080, "containerport": 80, "protocol": "Tcp", "interface": "x"},
])  # fmt: skip
@EITHER
def test_forms_of_a_mapping(plain: Plain, entry: dict[str, Any]) -> None:
    plain.add({"runtimeConfig": {"portMappings": [entry]}})
    assert plain.problems(TCP) == ""


@pytest.mark.parametrize(("host_ip", "sets"), [
    ("", {"hostports4", "hostports6"}), (ANY, {"hostports4"}), ("::", {"hostports6"}), (HOST, {"hostports4_at"}),
    ("fd00:1::1", {"hostports6_at"}), (f"::ffff:{HOST}", {"hostports4_at"}), ("127.3.2.1", {"hostports4_at"}),
])  # fmt: skip
def test_forms_of_an_address(plain: Plain, host_ip: str, sets: set[str]) -> None:
    plain.add(ports((8080, 80, "tcp", host_ip)))
    assert {name for name in elements(plain.host) if name.startswith("hostports")} == sets


@pytest.mark.parametrize("keys", [
    {}, {"runtimeConfig": None}, {"runtimeConfig": {}}, {"runtimeConfig": {"portMappings": None}}, {"runtimeConfig": {"portMappings": []}},
    {"runtimeConfig": {"PortMappings": []}, "conditionsV4": ["!", "-d", "192.0.2.0/24"]},
])  # fmt: skip
@EITHER
def test_nothing_to_map(plain: Plain, keys: dict[str, Any]) -> None:
    """ADD passes the result on, and makes no table; nor do DEL and GC."""
    result = plain.add(keys)
    assert result["ips"] == plain.config({})["prevResult"]["ips"]
    assert plain.problems(keys) == ""
    assert plain.call("DEL", keys).status == plain.call("GC", {**keys, "cni.dev/valid-attachments": []}).status == 0
    assert rules(plain.host) == ""


NO_PORTS: tuple[Any, ...] = (0, -1, 65536, "80", 80.0, True, None, [], 2**70)
NO_PROTOCOLS: tuple[Any, ...] = ("icmp", "tcp ", "tcp dport 1 accept", "tcp; flush ruleset", "TCP\n", 6, ["tcp"], "ＴＣＰ")  # fmt: skip
NO_ADDRESSES: tuple[Any, ...] = (
    "localhost", "1.2.3", "1.2.3.4/32", "192.0.2.1; drop", "192.0.2.1\n", 1, ["192.0.2.1"], "fe80::1%br0", "::1", "0:0:0:0:0:0:0:1",
    "192.0.2.77", "198.51.100.1", "fd00:1::99", "2001:db8::1", "224.0.0.1", "255.255.255.255", "ff02::1",
)  # fmt: skip
NO_CHAINS: tuple[Any, ...] = (1, "a b", "-x", "!", "x" * 29, "a\nb", "ö")
NO_CONDITIONS: tuple[Any, ...] = (
    ["-d"], ["!"], ["!", "-d"], ["-p", "tcp"], ["!", "!", "-d", HOST], ["-d", "fd00::/8"], ["ip6 saddr fd00::/8"], ["ip", "saddr"], ["iifname"],
    ["-d", "192.0.2.0/24", "drop"], ["ip daddr 192.0.2.0/24; flush ruleset"], ["accept"], ["iifname *th"], ["-i", "e+h"], ["ip daddr {1.2.3.4"], ["-d", "10.0.0.0/255.0.255.0"], ["!", "-d", "1.2.3.4,5.6.7.8"],
    ["-i", "a/b"], ["-d", "192.0.2.0/33"], ["tcp dport 80"], "-d 192.0.2.0/24", [1], [["-d"]], ["ip daddr @set"], ["-m", "set", "--match-set", "none", "src"], ["-j"],
)  # fmt: skip
BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    **{f"hostPort {value!r}": (ports((value, 80)), 7, "portMappings[0].hostPort") for value in NO_PORTS},
    **{f"containerPort {value!r}": (ports((80, value)), 7, "portMappings[0].containerPort") for value in NO_PORTS},
    **{f"protocol {value!r}": (ports((80, 80, value)), 7, "portMappings[0].protocol") for value in NO_PROTOCOLS},
    **{f"hostIP {value!r}": (ports((80, 80, "tcp", value)), 7, "portMappings[0].hostIP") for value in NO_ADDRESSES},
    "twice": (ports((80, 80), (80, 81)), 7, "portMappings[1].hostPort"),
    "twice, both named": (ports((80, 80), (81, 80), (80, 81, "TCP", "::")), 7, "and in portMappings[0] to port 80"),
    "twice, by address": (ports((80, 80, "tcp", HOST), (80, 81, "TCP", HOST)), 7, "portMappings[1].hostPort"),
    "twice, any": (ports((80, 80, "udp", ANY), (80, 81, "udp")), 7, "portMappings[1].hostPort"),
    "portMappings": ({"runtimeConfig": {"portMappings": {"a": 1}}}, 7, "portMappings"),
    "an entry": ({"runtimeConfig": {"portMappings": [None]}}, 7, "portMappings[0]"),
    "runtimeConfig": ({"runtimeConfig": []}, 7, "runtimeConfig"),
    "backend": ({**TCP, "backend": "ipvs"}, 7, "backend"),
    "snat": ({**TCP, "snat": "false"}, 7, "snat"), "masqAll": ({**TCP, "masqAll": 1}, 7, "masqAll"),
    "markMasqBit": ({**TCP, "markMasqBit": 32}, 7, "markMasqBit"), "markMasqBit text": ({**TCP, "markMasqBit": "13"}, 7, "markMasqBit"),
    "both": ({**TCP, "markMasqBit": 0, "externalSetMarkChain": "KUBE-MARK-MASQ"}, 7, "markMasqBit"),
    **{f"chain {value!r}": ({**TCP, "externalSetMarkChain": value}, 7, "externalSetMarkChain") for value in NO_CHAINS},
    **{f"conditions {value!r}": ({**TCP, "conditionsV4": value}, 7, "conditionsV4") for value in NO_CONDITIONS},
    "conditionsV6": ({**TCP, "conditionsV6": ["-d", "192.0.2.0/24"]}, 7, "conditionsV6"),
    "no result": ({**TCP, "prevResult": None}, 7, "prevResult"),
    "no address": ({**TCP, "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}]}}, 7, "prevResult"),
    "no address of the family": ({**ports((80, 80, "tcp", "fd00:1::1")), "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.5/24"}]}}, 7, "hostIP"),
}  # fmt: skip


@EITHER
def test_what_is_refused_before_anything_is_changed(plain: Plain) -> None:
    plain.add(ports((9999, 80)), "other", 9)
    for what, (keys, code, words) in BAD.items():
        try:
            plain.refused(keys, code, words)
        except AssertionError as error:
            raise AssertionError(what) from error


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_results_of_every_version(plain: Plain, version: str) -> None:
    """ADD understands them and passes them on unchanged."""
    result: dict[str, Any] = {"cniVersion": version, "dns": {}}
    if version < "0.3.0":
        result["ip4"] = {"ip": "10.1.0.6/16"}
    else:
        family = {"version": "4"} if version < "1.0.0" else {}
        result["interfaces"] = [{"name": "br0"}, {"name": "eth0", "sandbox": plain.netns}]
        result["ips"] = [{**family, "address": f"{address}/16", "interface": place} for place, address in ((0, GATEWAY), (1, "10.1.0.6"), (1, "10.1.0.7"))]  # fmt: skip
    keys = {**TCP, "cniVersion": version, "prevResult": result}
    assert plain.add(keys) == result
    assert '"net/c1/eth0" : 10.1.0.6 . 80' in rules(plain.host)
    assert plain.call("DEL", keys).status == 0
    assert elements(plain.host) == {}


# -- the other verbs


def test_check_names_everything_that_is_missing(plain: Plain) -> None:
    keys = ports((8080, 80, "tcp"), (8081, 81, "udp", HOST), conditionsV4=["-i", "x"])
    plain.add(keys)
    assert plain.problems(keys) == ""
    assert "hostports4 of" in plain.problems(ports((8080, 81), (8081, 81, "udp", HOST), conditionsV4=["-i", "x"]))
    damage = (
        ("delete element inet pycni hostports4 { tcp . 8080 }", "tcp 8080 in map hostports4 "),
        (
            "delete element inet pycni hostports4_at { 192.0.2.1 . udp . 8081 }",
            "192.0.2.1 udp 8081 in map hostports4_at ",
        ),
        ("delete element inet pycni conditional4 { tcp . 8080 }", "tcp 8080 in map conditional4 "),
        ("delete element inet pycni hairpin6 { fd00:1::5 }", "fd00:1::5 in map hairpin6 "),
        ("flush set inet pycni attachments", "net/c1/eth0 is not registered"),
        ("flush chain inet pycni hostports_localnet", "chain hostports_localnet"),
        ("flush chain inet pycni hostports", "chain hostports "),
    )
    plain.host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/br0/route_localnet")
    for command, _ in damage:
        plain.host.run("nft", command)
    told = plain.problems(keys)
    for words in (*(words for _, words in damage), "sysctl net/ipv4/conf/br0/route_localnet"):
        assert words in told


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "flush table inet pycni",
        "delete table inet pycni",
        "flush chain inet pycni hostports_prerouting",
    ],
)
@pytest.mark.row("lost-rules")
def test_a_flushed_rule_set(node: Node, damage: str) -> None:
    """CHECK reports it, no client reaches a pod, and the next ADD creates all rules again."""
    node.add("a", TCP)
    probe = [("out", "tcp", HOST, 8080), ("out", "tcp", HOST, 9090)]
    servers = [("a", "tcp", 80), ("b", "tcp", 80)]
    node.host.run("nft", damage)
    assert node.call("CHECK", "a", TCP).code == 999
    assert node.probe(servers, probe) == [REFUSED] * 2
    node.add("b", ports((9090, 80)))
    assert node.call("CHECK", "b", ports((9090, 80))).status == 0
    assert node.probe(servers, probe[1:]) == [["b", OUT]]
    assert node.call("DEL", "a", TCP).status == 0
    node.add("a", TCP)
    assert node.probe(servers, probe) == [["a", OUT], ["b", OUT]]


def test_gc(plain: Plain) -> None:
    """It deletes only invalid attachments of this network, orphans included, and chains without a jump to them."""
    for number in range(6):
        plain.add(ports((8000 + number, 80, ["tcp", "udp"][number % 2])), f"c{number}", number)
    plain.add({**ports((9000, 80)), "name": "net2"}, "c1", 7)
    conditions = {"conditionsV4": ["-i", "x"]}
    plain.add(ports((9001, 80, "tcp", ANY), **conditions), "c9", 9)
    marks = {Owner("net", name, "eth0").host_link for name in ("c0", "c9")}  # how their marks begin
    before = {
        name: [
            label for label in labels if label not in ("net/c0/eth0", "net/c9/eth0") and label.split()[0] not in marks
        ]
        for name, labels in elements(plain.host).items()
    }
    valid = [{"containerID": f"c{number}", "ifname": "eth0"} for number in range(1, 6)]
    assert plain.call("GC", {"cni.dev/valid-attachments": valid}).status == 0
    after = elements(plain.host)
    assert after == {
        name: [label for label in labels if not label.startswith(("net/c0/", "net/c9/"))]
        for name, labels in before.items()
        if name != "conditional4"
    }
    assert "hostport-" not in rules(plain.host) and "hairpin-" in rules(plain.host)
    assert plain.call("GC", {}).code == 7
    plain.host.run("nft", "flush set inet pycni attachments")
    assert plain.call("GC", {"cni.dev/valid-attachments": []}).status == 0
    assert set(elements(plain.host)["hostports4"]) == {"net2/c1/eth0"}


@pytest.mark.parametrize(
    "how", ["whole", "no result", "no namespace", "empty variable", "bad configuration", "namespace gone"]
)
@EVERY
def test_del_with_nothing_to_go_by(plain: Plain, how: str) -> None:
    """DEL succeeds twice; the state of others stays."""
    plain.add(ports((9000, 90)), "kept", 9)
    before = left(plain.host)
    plain.add(ALL)
    keys = dict(ALL)
    more: dict[str, Any] = {}
    if how == "no result":
        keys["prevResult"] = None
    elif how == "no namespace":
        more["netns"] = "/run/netns/none"
    elif how == "empty variable":
        keys, more["netns"] = {"prevResult": None}, ""
    elif how == "bad configuration":
        keys = {"backend": "ipvs", "snat": 1, "runtimeConfig": {"portMappings": "x"}}
    elif how == "namespace gone":
        plain.host.drop_netns("pod")
    for _ in range(2):
        answer = plain.call("DEL", keys, **more)
        assert (answer.status, answer.stdout) == (0, ""), answer
        assert left(plain.host) == before


@pytest.mark.parametrize("path", ["/proc/self/ns/net", "/proc/1/ns/net"])
@EITHER
def test_the_hosts_own_namespace(plain: Plain, path: str) -> None:
    """ADD and CHECK refuse it. For DEL the pod is gone."""
    before = left(plain.host)
    plain.add(TCP)
    made = rules(plain.host)
    for verb in ("ADD", "CHECK"):
        assert plain.call(verb, TCP, netns=path).code == 8
    assert rules(plain.host) == made
    assert plain.call("DEL", TCP, netns=path).status == 0
    assert left(plain.host) == before


def test_what_the_reference_has_made_is_removed(plain: Plain) -> None:
    """DEL removes its nftables backend's rules of this container, in both families; other rules and tables stay."""
    lines = [
        f'add rule {family} {table} {chain} counter comment "{name}"'
        for family in ("ip", "ip6") for table in ("cni_hostport", "mine") for chain in ("hostports", "hostip_hostports", "masquerading", "other")
        for name in ("c1", "c2", "c1")
    ]  # fmt: skip
    declared = [
        *(f"add table {family} {table}" for family in ("ip", "ip6") for table in ("cni_hostport", "mine")),
        *sorted({f"add chain {' '.join(line.split()[2:5])}" for line in lines}),
    ]
    plain.host.run("nft", "-f", "-", input="\n".join([*declared, *lines]))
    assert plain.call("DEL", {}).status == 0
    assert rules(plain.host).count('comment "c2"') == 16
    assert rules(plain.host).count('comment "c1"') == 2 * 8 + 2 * 2
    assert plain.call("DEL", {}).status == 0


NO_NF_TABLES = ("strace", "-qq", "-o", "/dev/null", "-e", "inject=socket:error=EPROTONOSUPPORT")


def test_status(plain: Plain) -> None:
    assert plain.call("STATUS", {}).status == 0
    answer = plain.call("STATUS", {}, prefix=NO_NF_TABLES)
    assert answer.code == 50 and "no nf_tables" in answer.json["msg"]
    assert plain.call("STATUS", {"snat": 1}).code == 7
    assert rules(plain.host) == ""


def test_without_nf_tables(plain: Plain) -> None:
    """ADD names the missing feature; DEL and GC have nothing to remove."""
    second = (*NO_NF_TABLES[:-1], "inject=socket:error=EPROTONOSUPPORT:when=2+")
    plain.refused(TCP, 2, "no nf_tables", prefix=second)
    assert plain.call("DEL", {}, prefix=NO_NF_TABLES).status == 0
    assert plain.call("GC", {"cni.dev/valid-attachments": []}, prefix=NO_NF_TABLES).status == 0


# -- cost


def traced(plain: Plain, verb: str, keys: dict[str, Any], name: str, number: int) -> list[str]:
    """Return the messages that a call sends, and the processes that it starts."""
    prefix = ("strace", "-f", "-qq", "-o", "/run/trace", "-e", "trace=sendto,sendmsg,fork,vfork,clone,clone3,execve")
    answer = plain.call(verb, keys, name, number, prefix=prefix)
    assert answer.status == 0, answer.stdout
    return plain.host.run("cat", "/run/trace").stdout.splitlines()


def test_cost_with_200_pods(plain: Plain) -> None:
    """As many messages as with one pod, and no program; a child of DEL closes the sockets."""
    keys = ports((8080, 80, "tcp"), (8080, 80, "udp"))
    plain.add(ports((7999, 80)), "first", 300)

    def life() -> list[int]:
        calls = [traced(plain, verb, keys, "c1", 5) for verb in ("ADD", "CHECK", "DEL")]
        for lines, processes in zip(calls, (["execve"], ["execve"], ["execve", "clone"]), strict=True):
            assert [line.split()[1].partition("(")[0] for line in lines if "send" not in line] == processes
        return [len(lines) for lines in calls]

    alone = life()
    adds = [
        Call("portmap", "ADD", plain.config(ports((10000 + number, 80), (10000 + number, 80, "udp")), number), {
            "CNI_CONTAINERID": f"p{number}", "CNI_NETNS": plain.netns})
        for number in range(10, 210)
    ]  # fmt: skip
    batch.make_pods(plain.host, 2)
    assert {answer.status for answer in batch.run(plain.host, adds)} == {0}
    assert life() == alone


def test_in_a_chain_with_bridge(host: PretendHost, installed: Path) -> None:
    """A runtime passes the ports to each verb."""
    node = Node(host)
    netns = host.netns("c")
    node.where["c"] = netns
    ipam = {"type": "host-local", "subnet": "10.4.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [
        {"type": "bridge", "bridge": "cni4", "isGateway": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    host.run("mkdir", "-p", "/etc/cni/net.d")
    host.run(
        "tee",
        "/etc/cni/net.d/10-pods.conflist",
        input=json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}),
    )
    env = {
        "PATH": "/none",
        "CAP_ARGS": json.dumps(
            {"portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]}
        ),
    }
    for verb, answer in (("add", ["c", OUT]), ("check", ["c", OUT]), ("del", REFUSED)):
        host.run(f"{installed}/cnitool", verb, "pods", netns, env=env)
        assert node.probe([("c", "tcp", 80)] if verb != "del" else [], [("out", "tcp", HOST, 8080)]) == [answer]
    assert elements(host) == {}
