"""bridge with ipMasq: the addresses seen outside, the rule set, and the state after DEL."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest

import tests.node
from tests.faults import batch
from tests.node import DEAF
from tests.pretend import Answer, PretendHost, read_line

V4, V6 = "10.1.0.0/16", "fd00:1::/64"
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": V4}], [{"subnet": V6}]]},
}  # fmt: skip
# A neighbour of the node with routes to the pods: it can answer any source.
OUTSIDE = """
ip netns add outside
ip link add uplink type veth peer name eth0 netns outside
ip address add 192.0.2.1/24 dev uplink
ip -6 address add fd00:99::1/64 dev uplink nodad
ip link set uplink up
ip -n outside link set lo up
ip -n outside address add 192.0.2.2/24 dev eth0
ip -n outside address add fd00:99::2/64 dev eth0 nodad
ip -n outside link set eth0 up
for address in 172.16.5.5/32 10.1.9.9/32 fd00:55::5/128 fd00:1::9:9/128; do ip -n outside address add $address dev lo nodad; done
ip -n outside route add 10.1.0.0/24 via 192.0.2.1
ip -n outside route add fd00:1::/112 via fd00:99::1
ip route add 172.16.5.5 via 192.0.2.2
ip route add 10.1.9.9 via 192.0.2.2
ip route add fd00:55::5 via fd00:99::2
ip route add fd00:1::9:9 via fd00:99::2
"""
# Tells each client which address it comes from.
SERVER = """
import socket
server = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
print("ready", flush=True)
while True:
    client, (address, *_) = server.accept()
    with client:
        client.sendall(address.removeprefix("::ffff:").encode())
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 7), timeout=5) as server:
    print(server.recv(100).decode())
"""
# Sends from an address that the host does not have, as a packet of the pod's looks when it leaves.
SEND = """
import socket, sys
_, source, destination = sys.argv
v6 = ":" in source
sender = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(41 if v6 else 0, 75 if v6 else 19, 1)  # IPV6_TRANSPARENT, IP_TRANSPARENT
sender.bind((source, 5000))
uplink = socket.if_nametoindex("uplink")
if v6:
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, uplink)
else:
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + uplink.to_bytes(4, sys.byteorder))
sender.sendto(b"x", (destination, 9))
"""
# Prints the source of each of two datagrams to any address or group.
LISTEN = """
import socket, sys
link = socket.if_nametoindex("eth0").to_bytes(4, sys.byteorder)
if sys.argv[1] == "4":
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.9.9.9") + bytes(4) + link)
else:
    listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, "ff08::99") + link)
listener.bind(("", 9))
print("ready", flush=True)
for _ in range(2):
    print(listener.recvfrom(10)[1][0], flush=True)
"""


class Node(tests.node.Node):
    """A pretend host with a neighbour, and pods of the network."""

    DEFAULTS = CONFIG

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host)
        host.run("sh", "-ec", OUTSIDE)
        self.serve("outside", SERVER)

    def gc(self, *valid: str, **more: Any) -> Answer:
        """Call GC with these pods valid, and another interface of pod a."""
        attachments = [{"containerID": pod, "ifname": "eth0"} for pod in valid] + [
            {"containerID": "a", "ifname": "eth1"}
        ]
        return self.call("GC", "", {"cni.dev/valid-attachments": attachments}, **more)

    def seen(self, pod: str, destination: str) -> str:
        """Return the source address that the destination sees."""
        return self.host.run("ip", "netns", "exec", pod, sys.executable, "-c", CLIENT, destination).stdout.strip()

    def elements(self) -> dict[str, list[Any]]:
        """Return the elements of each set and map in the tables of the suite."""
        found = {}
        for entry in json.loads(self.host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]:
            for one in (entry[kind] for kind in ("set", "map") if kind in entry):
                found[one["name"]] = one.get("elem", [])
        return found


def test_the_outside_sees_the_node(node: Node) -> None:
    node.add("a")
    assert node.seen("a", "192.0.2.2") == "192.0.2.1"
    assert node.seen("a", "fd00:99::2") == "fd00:99::1"


def test_without_it_the_outside_sees_the_pod(node: Node) -> None:
    node.add("a", ipMasq=False)
    assert [node.seen("a", "192.0.2.2"), node.seen("a", "fd00:99::2")] == node.addresses("a")
    assert node.host.run("nft", "list", "ruleset").stdout == ""


def test_not_within_the_pods_own_network(node: Node) -> None:
    """Hosts elsewhere with addresses of that network see the pod itself, as the other pods and the node do."""
    node.add("a")
    node.add("b")
    for version, gateway, elsewhere in (("-4", "10.1.0.1", "10.1.9.9"), ("-6", "fd00:1::1", "fd00:1::9:9")):
        node.host.run("ip", version, "-n", "a", "route", "add", elsewhere, "via", gateway)
    assert [node.seen("a", "10.1.9.9"), node.seen("a", "fd00:1::9:9")] == node.addresses("a")
    node.serve("b", SERVER)
    assert [node.seen("a", address) for address in node.addresses("b")] == node.addresses("a")


@pytest.mark.parametrize(("place", "neighbour", "group", "node_is"), [
    (0, "192.0.2.2", "239.9.9.9", "192.0.2.1"), (1, "fd00:99::2", "ff08::99", "fd00:99::1"),
])  # fmt: skip
def test_not_to_multicast_groups(node: Node, place: int, neighbour: str, group: str, node_is: str) -> None:
    node.add("a")
    source = node.addresses("a")[place]
    listener = node.serve("outside", LISTEN, "46"[place])
    for destination, seen in ((neighbour, node_is), (group, source)):
        node.host.run(sys.executable, "-c", SEND, source, destination)
        assert read_line(listener).decode().strip() == seen


def test_networks_that_are_exempt(node: Node) -> None:
    """kubenet's rule: traffic to them and to the node shows the pod's address; all other traffic the node's."""
    exempt = ["172.16.0.0/12", "fd00:55::7/48"]
    node.add("a", nonMasqueradeCIDRs=exempt)
    v4, v6 = node.addresses("a")
    assert [node.seen("a", address) for address in ("172.16.5.5", "fd00:55::5")] == [v4, v6]
    assert [node.seen("a", address) for address in ("192.0.2.2", "fd00:99::2")] == ["192.0.2.1", "fd00:99::1"]
    node.serve("", SERVER)
    assert [node.seen("a", address) for address in ("192.0.2.1", "fd00:99::1")] == [v4, v6]
    assert node.check("a", nonMasqueradeCIDRs=exempt) == ""
    assert "does not lead to its chain or value" in node.check("a")
    text = node.host.run("nft", "list", "ruleset").stdout
    assert "fib daddr type local return" in text and "ip6 daddr fd00:55::/48 return" in text


def test_pods_of_a_network_share_their_chains(node: Node) -> None:
    for pod in ("a", "b", "c"):
        node.add(pod)
    assert len(re.findall(r"chain masq-\w+ {", node.host.run("nft", "list", "ruleset").stdout)) == 2
    node.add("d", name="other", bridge="cni1", ipam={"type": "host-local", "subnet": "10.2.0.0/24"})
    text = node.host.run("nft", "list", "ruleset").stdout
    assert len(re.findall(r"chain masq-\w+ {", text)) == 3
    node.host.run("nft", "--check", "-f", "-", input=text)  # an administrator can load a saved rule set again


@pytest.mark.parametrize("state", ["whole", "netns empty", "netns gone", "with prevResult"])
def test_delete(node: Node, state: str) -> None:
    """DEL succeeds twice; the other pod keeps its own state."""
    node.add("a")
    node.add("b")
    if state == "netns gone":
        node.host.drop_netns("a")
    for _ in range(2):
        node.delete("a", **({"netns": ""} if state == "netns empty" else {}),
                    **({"prevResult": node.results["a"]} if state == "with prevResult" else {}))  # fmt: skip
    assert [len(elements) for elements in node.elements().values()] == [1, 1, 1]
    assert node.check("b") == "" and node.seen("b", "192.0.2.2") == "192.0.2.1"
    node.delete("b")
    assert node.elements() == {"attachments": [], "masq4": [], "masq6": []}


@pytest.mark.parametrize(("damage", "words"), [
    ("flush ruleset", ["chain masquerading of table inet pycni", "chain masq-", "map masq4", "map masq6", "net/a/eth0 is not registered"]),
    ("delete table inet pycni", ["chain masquerading of table inet pycni", "map masq4"]),
    ("flush table inet pycni", ["chain masquerading of table inet pycni", "chain masq-"]),
    ("flush chain inet pycni masquerading", ["chain masquerading of table inet pycni"]),
    ("flush map inet pycni masq4", ["10.1.0.2 in map masq4 of table inet pycni is missing"]),
    ("flush set inet pycni attachments", ["net/a/eth0 is not registered"]),
])  # fmt: skip
def test_a_flushed_rule_set(node: Node, damage: str, words: list[str]) -> None:
    """CHECK names the losses, the next ADD restores all that it needs, DEL succeeds and GC deletes the rest."""
    node.add("a")
    assert node.check("a") == ""
    node.host.run("nft", damage)
    said = node.check("a")
    assert all(word in said for word in words), said
    node.add("b")
    assert node.check("b") == ""
    assert node.seen("b", "192.0.2.2") == "192.0.2.1" and node.seen("b", "fd00:99::2") == "fd00:99::1"
    node.delete("a")
    assert node.gc("b").status == 0
    assert [len(elements) for elements in node.elements().values()] == [1, 1, 1]


def test_garbage_collection(node: Node) -> None:
    """It removes invalid attachments of this network, and finally their shared chains."""
    for pod in ("a", "b", "c"):
        node.add(pod)
    node.add("d", name="other", bridge="cni1", ipam={"type": "host-local", "subnet": "10.2.0.0/24"})
    for _ in range(2):
        answer = node.gc("b")
        assert (answer.status, answer.stdout) == (0, ""), answer
    assert {name: len(elements) for name, elements in node.elements().items()} == {"attachments": 2, "masq4": 2, "masq6": 1}  # fmt: skip
    assert node.check("b") == ""
    assert node.gc().status == 0
    assert len(re.findall(r"chain masq-\w+ {", node.host.run("nft", "list", "ruleset").stdout)) == 1


def test_an_address_that_is_leased_anew(node: Node) -> None:
    """Its last owner never got a DEL; a late DEL must not take the rules from the current owner."""
    node.add("a")
    node.host.drop_netns("a")
    node.host.run("sh", "-c", "rm -r /var/lib/cni/networks")
    node.add("b")
    assert node.addresses("a") == node.addresses("b") and node.check("b") == ""
    node.delete("a", netns="", ipam={})
    assert node.check("b") == "" and node.seen("b", "192.0.2.2") == "192.0.2.1"


def test_a_failed_add_leaves_nothing(node: Node) -> None:
    """The ADD fails at its very end: it cannot write its answer."""
    node.host.netns("a")
    answer = node.call("ADD", "a", prefix=DEAF)
    assert answer.status == 1
    assert node.elements() == {"attachments": [], "masq4": [], "masq6": []}


def test_a_second_add_leaves_the_first(node: Node) -> None:
    node.add("a")
    before = node.host.run("nft", "list", "ruleset").stdout
    assert node.call("ADD", "a").status == 1
    assert node.host.run("nft", "list", "ruleset").stdout == before


@pytest.mark.parametrize(("keys", "code", "words"), [
    ({"ipMasqBackend": "ebtables"}, 7, "ipMasqBackend"),
    ({"nonMasqueradeCIDRs": ["10.0.0.0"]}, 7, r"nonMasqueradeCIDRs\[0\]"), ({"nonMasqueradeCIDRs": "10.0.0.0/8"}, 7, "nonMasqueradeCIDRs"),
    ({"nonMasqueradeCIDRs": ["10.0.0.0/8; drop"]}, 7, "nonMasqueradeCIDRs"), ({"ipMasq": "yes"}, 7, "ipMasq"),
    ({"nonMasqueradeCIDRs": ["10.0.0.0/8"], "ipMasq": False}, 7, 'nonMasqueradeCIDRs.* needs "ipMasq": true'),
])  # fmt: skip
def test_unusable_keys(node: Node, keys: dict[str, Any], code: int, words: str) -> None:
    node.host.netns("a")
    answer = node.call("ADD", "a", **keys)
    assert answer.code == code and re.search(words, answer.json["msg"]), answer
    assert node.host.run("nft", "list", "ruleset").stdout == ""


def test_at_layer_2_there_is_nothing_to_masquerade(node: Node) -> None:
    node.add("a", ipam={}, isDefaultGateway=False)
    assert node.host.run("nft", "list", "ruleset").stdout == ""
    assert node.check("a", ipam={}, isDefaultGateway=False) == ""
    node.delete("a", ipam={})


# -- by iptables


def nat(node: Node) -> list[str]:
    """Return the suite's and the reference's rules and chains in iptables."""
    text = node.host.run("iptables-save", "-t", "nat").stdout + node.host.run("ip6tables-save", "-t", "nat").stdout
    return [line.partition(" [")[0] for line in text.splitlines() if "CNI-" in line]


@pytest.mark.parametrize("state", ["whole", "netns empty", "netns gone"])
def test_by_iptables(node: Node, state: str) -> None:
    """The effects equal those of nf_tables: addresses seen outside, CHECK, DEL of one pod, GC of the other."""
    keys: dict[str, Any] = {"ipMasqBackend": "iptables", "nonMasqueradeCIDRs": ["172.16.0.0/12", "fd00:55::/48"]}
    for pod in ("a", "b"):
        node.add(pod, **keys)
    v4, v6 = node.addresses("a")
    assert [node.seen("a", address) for address in ("192.0.2.2", "fd00:99::2")] == ["192.0.2.1", "fd00:99::1"]
    assert [node.seen("a", address) for address in ("172.16.5.5", "fd00:55::5")] == [v4, v6]
    node.serve("", SERVER)
    assert [node.seen("a", address) for address in ("192.0.2.1", "fd00:99::1")] == [v4, v6]
    assert node.check("a", **keys) == "" and len(nat(node)) == 24
    node.host.run("iptables", "-t", "nat", "-D", "POSTROUTING", "1")
    assert f"-s {v4}/32" in node.check("a", **keys)
    if state == "netns gone":
        node.host.drop_netns("a")
    for _ in range(2):
        node.delete("a", **({"netns": ""} if state == "netns empty" else {}))
    assert len(nat(node)) == 12 and node.check("b", **keys) == ""
    node.gc("b")
    assert len(nat(node)) == 12
    node.gc()
    assert nat(node) == []


def test_chains_that_only_name_the_network_stay(node: Node) -> None:
    """A stranger's chain may have a comment like this suite's; its name does not derive from the container."""
    for pod in ("a", "b"):
        node.add(pod, ipMasqBackend="iptables")
    chain = f"CNI-{'a' * 24}"
    comment = f'name: "{CONFIG["name"]}" id: "gone"'
    node.host.run("iptables", "-t", "nat", "-N", chain)
    node.host.run("iptables", "-t", "nat", "-A", chain, "-m", "comment", "--comment", comment, "-j", "ACCEPT")
    before = node.host.run("iptables-save", "-t", "nat").stdout.count(chain)
    assert node.gc("a").status == 0
    rules = node.host.run("iptables-save", "-t", "nat").stdout
    assert rules.count(chain) == before == 2 and "10.1.0.2/32" in rules and "10.1.0.3/32" not in rules


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_hand_over_by_iptables(node: Node, reference_bin: str, backend: str) -> None:
    """The rules equal the reference's, and each suite deletes the other's, this one whichever backend is set."""
    node.host.netns("a")

    def call(command: str, bin_dir: str | None, **keys: Any) -> Any:
        config = {**CONFIG, "cniVersion": "1.0.0", "ipMasqBackend": "iptables", **keys}
        answer = node.host.cni("bridge", command, config, netns="/run/netns/a", container_id="a", bin_dir=bin_dir)
        assert answer.status == 0, answer
        return answer.json if answer.stdout else None

    made = []
    for one, other, keys in ((reference_bin, None, {"ipMasqBackend": backend}), (None, reference_bin, {})):
        result = call("ADD", one)
        addresses = [ip["address"].partition("/")[0] for ip in result["ips"]]
        made.append([re.sub("|".join(map(re.escape, addresses)), "ADDRESS", line) for line in nat(node)])
        call("DEL", other, **keys, prevResult=result)
        assert nat(node) == []
    assert made[0] == made[1] and len(made[0]) == 8


# -- a kernel without nf_tables


def injecting(number: int, error: str) -> tuple[str, ...]:
    """Return a tracer that lets the n-th socket of the call fail."""
    return (
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=socket",
        "-e",
        f"inject=socket:error={error}:when={number}",
    )


def test_a_kernel_without_nf_tables(node: Node) -> None:
    """STATUS and ADD report it, ADD leaves nothing; DEL and GC skip nf_tables and do the rest."""
    node.host.netns("a")
    missing = "EPROTONOSUPPORT"
    # the same sockets in each ADD: for an IPv6 address it opens one more if it has to wait for the kernel
    ipv4: dict[str, Any] = {"ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}
    status = node.call("STATUS", "", prefix=injecting(2, missing))
    assert status.code == 50 and "nf_tables" in status.json["msg"] and "ipMasq" in status.json["msg"], status
    sockets = ("strace", "-f", "-qq", "-e", "trace=socket", "-e", "status=successful", "-o", "/run/sockets")
    assert node.call("ADD", "a", prefix=sockets, **ipv4).status == 0
    traced = node.host.run("cat", "/run/sockets").stdout.splitlines()
    # the last: the first asks whether there are tables at all
    netfilter = 1 + max(place for place, line in enumerate(traced) if "NETLINK_NETFILTER" in line)
    node.delete("a", prefix=injecting(2, missing))
    assert not node.host.ip("link", "show", "type", "veth", "master", "cni0")
    assert len(node.elements()["masq4"]) == 1  # as if it were another kernel's
    node.host.run("nft", "flush ruleset")
    before = node.host.snapshot(["a"])["host"]
    added = node.call("ADD", "a", prefix=injecting(netfilter, missing), **ipv4)
    assert added.code == 2 and re.search('"ipMasq": true.*nf_tables', added.json["msg"]), added
    assert node.host.snapshot(["a"])["host"] == before
    gc = node.gc(prefix=injecting(2, missing))
    assert (gc.status, gc.stdout) == (0, ""), gc


def test_status(node: Node) -> None:
    """STATUS creates nothing, with rules or without."""
    assert node.call("STATUS", "").status == 0
    assert node.host.run("nft", "list", "ruleset").stdout == ""
    node.add("a")
    before = node.host.run("nft", "list", "ruleset").stdout
    assert node.call("STATUS", "", nonMasqueradeCIDRs=["10.0.0.0/8"]).status == 0
    assert node.host.run("nft", "list", "ruleset").stdout == before


# -- at once, killed, counted


def test_first_adds_at_once(host: PretendHost) -> None:
    """16 ADDs run on a node without bridge and tables, several times."""
    batch.make_pods(host, 16)
    for _ in range(4):

        def calls(command: str, keys: list[dict[str, Any]]) -> list[batch.Outcome]:
            return batch.run(host, [
                batch.Call("bridge", command, {**CONFIG, **extra}, {"CNI_CONTAINERID": f"c{n}", "CNI_IFNAME": f"eth{n}"})
                for n, extra in enumerate(keys)
            ], at_once=16)  # fmt: skip

        added = calls("ADD", [{"isDefaultGateway": False, "isGateway": True}] * 16)
        assert [answer.status for answer in added] == [0] * 16, added
        deleted = calls("DEL", [{}] * 16)
        assert [answer.status for answer in deleted] == [0] * 16, deleted
        rules = host.run("nft", "list", "ruleset").stdout
        assert rules.count("vmap @masq4") == rules.count("vmap @masq6") == 1 and rules.count("masquerade comment") == 2
        assert "net/" not in rules
        host.run("nft", "flush ruleset")
        host.run("ip", "link", "del", "cni0")


@pytest.mark.parametrize("call", ["sendto", "recvfrom"])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_at_any_message(node: Node, verb: str, call: str) -> None:
    """The call dies before each message to the kernel, or before each answer; DEL leaves nothing."""
    node.add("other")
    before = {name: len(elements) for name, elements in node.elements().items()}
    node.host.netns("a")
    for number in range(1, 100):
        killing = (
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:signal=SIGKILL:when={number}",
        )
        if verb == "DEL":
            assert node.call("ADD", "a").status == 0
        status = node.call(verb, "a", prefix=killing).status
        node.delete("a", netns="" if number % 2 else None)
        assert {name: len(elements) for name, elements in node.elements().items()} == before, number
        assert len(node.host.ip("link", "show", "type", "veth", "master", "cni0")) == 1
        if status == 0:
            break
    else:
        pytest.fail("no call got through")
    assert number > (15 if verb == "ADD" else 4)
    assert node.check("other") == ""


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_at_any_step_by_iptables(node: Node, verb: str) -> None:
    """The call dies at each message, write and process; DEL leaves nothing, and the other pod has its own rules."""
    keys: dict[str, Any] = {"ipMasqBackend": "iptables"}
    node.add("other", **keys)
    before = nat(node)
    node.host.netns("a")
    masqueraded = set()
    for step, number in (
        (step, number) for step, most in (("clone", 5), ("wait4", 5), ("write", 14)) for number in range(1, most)
    ):
        if verb == "DEL":
            assert node.call("ADD", "a", **keys).status == 0
        killing = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={step}", "-e", f"inject={step}:signal=SIGKILL:when={number}")  # fmt: skip
        assert node.call(verb, "a", prefix=killing, **keys).status in (0, -9)
        masqueraded.add(len(nat(node)) - len(before))
        node.delete("a", netns="" if number % 2 else None)
        assert nat(node) == before, (step, number)
        assert len(node.host.ip("link", "show", "type", "veth", "master", "cni0")) == 1
    assert masqueraded == {0, 4, 8}  # by both families, by one of them, and by none
    assert node.check("other", **keys) == ""


MANY = """
from shared.cni.ip import Prefix
from shared.net.owner import Owner
from shared.masquerade import nftables as masquerade
from shared.undo import Undo
for n in range(200):
    addresses = [Prefix.parse(f"10.1.7.{n}/16"), Prefix.parse(f"fd00:1::7:{n}/64")]
    masquerade.add(Undo(), Owner("net", f"{n:064x}", "eth0"), addresses, [])
"""


def test_the_number_of_messages_does_not_grow(node: Node) -> None:
    """ADD, DEL and CHECK send as many messages to nf_tables with 1 pod as with 201, and start no program."""

    def counted(command: str, **keys: Any) -> int:
        names = "trace=socket,sendto,sendmsg,clone,clone3,fork,vfork,execve"
        answer = node.call(command, "a", prefix=("strace", "-f", "-qq", "-o", "/run/trace", "-e", names), **keys)
        assert answer.status == 0, answer
        if command == "ADD":
            node.results["a"] = answer.json
        calls = [line.split(maxsplit=1)[1] for line in node.host.run("cat", "/run/trace").stdout.splitlines()]
        # the deletion of the veth pair waits in a child
        assert sum(call.startswith(("clone", "fork", "vfork")) for call in calls) == (command == "DEL")
        assert sum(call.startswith("execve") for call in calls) == 1
        sent, netfilter = 0, set()
        for call in calls:
            if "NETLINK_NETFILTER" in call:
                netfilter.add(call.rpartition(" ")[2])  # open until exit
            sent += call.startswith(("sendto(", "sendmsg(")) and re.split(r"[(,]", call)[1] in netfilter
        return sent

    def life() -> list[int]:
        return [counted("ADD"), counted("CHECK", prevResult=node.results["a"]), counted("DEL")]

    node.host.netns("a")
    node.add("b")
    few = life()
    node.host.python(MANY)
    assert len(node.elements()["masq4"]) == 201
    assert life() == few
    # ADD: tables, own entries, others' elements; the rules of three chains, the transaction
    # DEL: tables, own entries; entry, elements, transaction
    assert few[0] == 3 + 4 and few[2] == 2 + 3
