"""bridge's keys for frames: macspoofchk, the second copies of promiscMode, bridgeNfCallIptables."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest

from tests.node import DEAF, Network, sysctl
from tests.pretend import Answer, PretendHost, read_line
from tests.system.traces import WAITS, messages_outside_waits

ATTACHMENTS = "attachments"
NOTHING: dict[str, list[Any]] = {ATTACHMENTS: [], "guarded": [], "bound": []}
OTHER_MAC = "0a:58:0a:01:00:77"
# Sends an Ethernet frame for each "destination source ethertype payload" on its standard input.
SEND = """
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("eth0", 0))
for line in sys.stdin:
    destination, source, kind, payload = line.split()
    macs = bytes.fromhex((destination + source).replace(":", ""))
    link.send(macs + bytes.fromhex(kind) + bytes.fromhex(payload).ljust(46, b"\\0"))
"""
# Prints "source ethertype" of each frame that has the mark in it, until one with the other mark comes.
LISTEN = """
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind((sys.argv[1], 0))
print("ready", flush=True)
while True:
    frame, (_, _, direction, *_) = link.recvfrom(2000)
    if direction == socket.PACKET_OUTGOING:
        continue
    if b"the end" in frame:
        break
    if b"a frame" in frame:
        print(frame[6:12].hex(":"), frame[12:14].hex())
"""
DATAGRAM = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 9))
"""
MARK, END = b"a frame", b"the end"
IPV4, IPV6, ARP = "0800", "86dd", "0806"
TAGGED = "8100"  # an ARP frame of VLAN 5
KINDS = (IPV4, IPV6, ARP, TAGGED)


def elements(host: PretendHost) -> dict[str, list[Any]]:
    """Return the elements of each set in the tables of the suite."""
    found = {}
    for entry in json.loads(host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]:
        for one in (entry[kind] for kind in ("set", "map") if kind in entry):
            found[one["name"]] = one.get("elem", [])
    return found


def guarded(host: PretendHost) -> set[str]:
    """Return the names of the ports with checked frames."""
    return {one["elem"]["val"] for one in elements(host).get("guarded", [])}


class Ear:
    """Receives the marked frames that arrive at a link, in a pod or on the host (None)."""

    def __init__(self, host: PretendHost, pod: str | None, link: str = "eth0") -> None:
        inside = () if pod is None else ("ip", "netns", "exec", pod)
        self.process = host.popen(*inside, sys.executable, "-c", LISTEN, link)
        assert read_line(self.process) == b"ready\n"

    def heard(self) -> list[str]:
        """Return all marked frames up to the one that ends them."""
        out, err = self.process.communicate(timeout=10)
        assert self.process.returncode == 0, err
        return out.decode().splitlines()


def mac(net: Network, pod: str) -> str:
    return str(net.results[pod]["interfaces"][2]["mac"])


def packet(kind: str, mark: bytes) -> str:
    """Return the content of a frame of that ethertype, in hexadecimal.

    Netfilter on bridges drops malformed IP packets. The packet's destination is one to which there is no route.
    """
    if kind == IPV4:
        header = bytearray.fromhex("4500000000000000403b00000a010002c6336403")
        header[2:4] = (20 + len(mark)).to_bytes(2, "big")
        words = sum(int.from_bytes(header[place : place + 2], "big") for place in range(0, 20, 2))
        header[10:12] = (0xFFFF - words % 0xFFFF).to_bytes(2, "big")
        return (header + mark).hex()
    if kind == IPV6:
        addresses = "fd00000100000000000000000000000220010db8000000000000000000000003"
        return f"60000000{len(mark):04x}3b40{addresses}{mark.hex()}"
    return f"0005{ARP}{mark.hex()}" if kind == TAGGED else mark.hex()


def send(net: Network, pod: str, *frames: tuple[str, str, str, bytes]) -> None:
    """Send frames of (destination, source, ethertype, mark) from a pod's interface."""
    text = "".join(f"{to} {source} {kind} {packet(kind, mark)}\n" for to, source, kind, mark in frames)
    net.host.run("ip", "netns", "exec", pod, sys.executable, "-c", SEND, input=text)


@pytest.fixture
def net(host: PretendHost) -> Network:
    return Network(host, isDefaultGateway=True, macspoofchk=True)


# -- macspoofchk: received frames


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.row("spoofing")
def test_frames_from_another_mac(net: Network, checked: bool) -> None:
    """Neither another pod nor the host receives them, whatever their content; they receive the pod's own frames."""
    net.add("a", macspoofchk=checked)
    net.add("b", macspoofchk=checked)
    own, other, bridge = mac(net, "a"), mac(net, "b"), net.results["a"]["interfaces"][0]["mac"]
    ears = {"b": Ear(net.host, "b"), "host": Ear(net.host, None, "cni0")}
    for destination in (other, bridge, "ff:ff:ff:ff:ff:ff"):
        for source in (OTHER_MAC, other, bridge, own):
            send(net, "a", *((destination, source, kind, MARK) for kind in KINDS))
    send(net, "a", ("ff:ff:ff:ff:ff:ff", own, ARP, END))
    for ear in ears.values():
        heard = ear.heard()
        honest = [f"{own} {kind}" for kind in (IPV4, IPV6, ARP, ARP)] * 2  # to itself and to everybody
        assert (heard == honest) == checked, heard
        forged = {kind for source, kind in map(str.split, heard) if source != own}
        assert forged == (set() if checked else {IPV4, IPV6, ARP})


def test_ports_beside_that_are_not_checked(net: Network) -> None:
    """A pod without the key, beside one with it, may send from any MAC."""
    net.add("a")
    net.add("b", macspoofchk=False)
    ear = Ear(net.host, None, "cni0")
    everybody = "ff:ff:ff:ff:ff:ff"
    send(net, "b", (everybody, OTHER_MAC, IPV4, MARK), (everybody, mac(net, "b"), IPV4, MARK))
    send(net, "b", (everybody, mac(net, "b"), ARP, END))
    assert ear.heard() == [f"{OTHER_MAC} {IPV4}", f"{mac(net, 'b')} {IPV4}"]


def test_a_pod_that_changes_its_mac(net: Network) -> None:
    net.add("a")
    net.add("b")
    there = [("a", "10.1.0.3"), ("a", "fd00:1::3"), ("a", "10.1.0.1"), ("a", "fd00:1::1")]
    assert all(net.pings(pod, address) for pod, address in [*there, ("b", "10.1.0.2"), ("b", "fd00:1::2")])
    net.host.run("ip", "-n", "a", "link", "set", "eth0", "address", OTHER_MAC)
    assert not any(net.pings(pod, address) for pod, address in there)
    assert net.pings("b", "10.1.0.1") and net.pings("b", "fd00:1::1")
    net.host.run("ip", "-n", "a", "link", "set", "eth0", "address", mac(net, "a"))
    net.host.run("ip", "-n", "a", "-6", "address", "replace", "fd00:1::2/64", "dev", "eth0", "nodad")
    assert net.pings("a", "10.1.0.3") and net.pings("a", "fd00:1::3")


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.row("spoofing")
def test_the_bridge_learns_nothing_forged(net: Network, checked: bool) -> None:
    """It learns nothing from frames to a link-local group either, which pass no rule before."""
    net.host.run("ip", "link", "add", "cni0", "type", "bridge")
    net.add("a", macspoofchk=checked)
    for number, group in enumerate(("01:80:c2:00:00:0e", "01:80:c2:00:00:00", "33:33:00:00:00:99")):
        send(net, "a", (group, f"0a:58:0a:01:01:{number:02x}", "88cc", MARK))
    port = net.results["a"]["interfaces"][1]["name"]
    learned = net.host.run("bridge", "fdb", "show", "brport", port).stdout
    assert (re.findall(r"0a:58:0a:01:01:\d\d", learned) == []) == checked, learned
    if checked:
        assert mac(net, "a") in learned and net.check("a") == ""
        net.host.run("ip", "link", "set", "cni0", "type", "bridge", "no_linklocal_learn", "0")
        assert "link-local" in net.check("a")


@pytest.mark.parametrize("given", [
    {"runtimeConfig": {"mac": OTHER_MAC}}, {"ipam": {}, "isDefaultGateway": False},
    pytest.param({"vlan": 7}, marks=pytest.mark.kernel_vlan), {"mtu": 1400, "hairpinMode": True},
])  # fmt: skip
def test_beside_other_keys(net: Network, given: dict[str, Any]) -> None:
    net.add("a", **given)
    net.add("b", **({} if "runtimeConfig" in given else given))
    assert net.check("a", **given) == ""
    ear = Ear(net.host, "b")
    send(net, "a", (mac(net, "b"), "0a:58:0a:01:00:78", IPV4, MARK), (mac(net, "b"), mac(net, "a"), IPV4, MARK))
    send(net, "a", (mac(net, "b"), mac(net, "a"), ARP, END))
    assert ear.heard() == [f"{mac(net, 'a')} {IPV4}"]


# -- left, lost and restored rules


@pytest.mark.parametrize("state", ["whole", "netns empty", "netns gone", "with prevResult"])
def test_delete(net: Network, host: PretendHost, state: str) -> None:
    net.add("a")
    net.add("b")
    if state == "netns gone":
        host.drop_netns("a")
    for _ in range(2):
        keys = {"prevResult": net.results["a"]} if state == "with prevResult" else {}
        net.delete("a", keys, netns="" if state == "netns empty" else None)
    assert guarded(host) == {net.results["b"]["interfaces"][1]["name"]} and net.check("b") == ""
    net.delete("b")
    assert elements(host) == NOTHING


@pytest.mark.parametrize(("damage", "words"), [
    ("flush ruleset", ["chain spoofs of table bridge pycni", "set guarded", "set bound", "net/a/eth0 is not registered"]),
    ("flush table bridge pycni", ["chain spoofs of table bridge pycni"]),
    ("flush chain bridge pycni spoofs", ["chain spoofs of table bridge pycni"]),
    ("flush set bridge pycni guarded", ["in set guarded of table bridge pycni is missing"]),
    ("flush set bridge pycni bound", ["in set bound of table bridge pycni is missing"]),
    ("flush set bridge pycni attachments", ["net/a/eth0 is not registered"]),
])  # fmt: skip
@pytest.mark.row("lost-rules")
def test_a_flushed_rule_set(net: Network, host: PretendHost, damage: str, words: list[str]) -> None:
    """CHECK names the losses, the next ADD restores all that it needs, DEL succeeds and GC deletes the rest."""
    net.add("a")
    assert net.check("a") == ""
    host.run("nft", damage)
    said = net.check("a")
    assert all(word in said for word in words), said
    net.add("b")
    assert net.check("b") == ""
    ear = Ear(host, None, "cni0")
    send(net, "b", ("ff:ff:ff:ff:ff:ff", OTHER_MAC, IPV4, MARK), ("ff:ff:ff:ff:ff:ff", mac(net, "b"), ARP, END))
    assert ear.heard() == []
    net.delete("a")
    assert collect(net, "b").status == 0
    assert guarded(host) == {net.results["b"]["interfaces"][1]["name"]}
    assert {len(found) for found in elements(host).values()} == {1}


def collect(net: Network, *valid: str) -> Answer:
    keys: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": pod, "ifname": "eth0"} for pod in valid]}
    return net.host.cni("bridge", "GC", {**net.config, **keys}, container_id="")


def test_garbage_collection(net: Network, host: PretendHost) -> None:
    for pod in ("a", "b", "c"):
        net.add(pod, promiscMode=True)
    net.config["promiscMode"] = True
    assert collect(net, "b").status == 0
    assert {len(found) for found in elements(host).values()} == {1, 2}  # two mechanisms have registered it
    assert net.check("b") == ""
    assert collect(net).status == 0
    assert not any(elements(host).values())


def test_a_failed_add_leaves_nothing(net: Network, host: PretendHost) -> None:
    """The ADD fails at its very end: it cannot write its answer."""
    keys = {**net.config, "promiscMode": True, "bridgeNfCallIptables": True}
    answer = host.cni("bridge", "ADD", keys, netns=host.netns("a"), container_id="a", prefix=DEAF)
    assert answer.status == 1
    assert elements(host) == {**NOTHING, "podmacs": [], "selves": []}
    assert [link["ifname"] for link in host.ip("link", "show")] == ["lo"]


def test_a_second_add_leaves_the_first(net: Network, host: PretendHost) -> None:
    net.add("a")
    before = host.run("nft", "list", "ruleset").stdout
    assert net.call("ADD", "a", runtimeConfig={"mac": OTHER_MAC}).status == 1
    assert host.run("nft", "list", "ruleset").stdout == before and net.pings("a", "10.1.0.1")


@pytest.mark.parametrize("call", ["sendto", "recvfrom"])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_at_any_message(net: Network, host: PretendHost, verb: str, call: str) -> None:
    """No port of the bridge receives frames of an unchecked pod at any time; DEL leaves nothing."""
    net.config["promiscMode"] = True
    net.add("other")
    before = {name: len(found) for name, found in elements(host).items()}
    netns = host.netns("a")
    for number in range(1, 100):
        if verb == "DEL":
            assert host.cni("bridge", "ADD", net.config, netns=netns, container_id="a").status == 0
        injected = f"inject={call}:signal=SIGKILL:when={number}"
        killing = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", injected)
        status = host.cni("bridge", verb, net.config, netns=netns, container_id="a", prefix=killing).status
        ports = host.ip("link", "show", "type", "veth", "master", "cni0")
        assert {port["ifname"] for port in ports if "UP" in port["flags"]} <= guarded(host), number
        assert host.cni("bridge", "DEL", net.config, netns=netns if number % 2 else "", container_id="a").status == 0
        assert {name: len(found) for name, found in elements(host).items()} == before, number
        assert len(host.ip("link", "show", "type", "veth")) == 1
        if status == 0:
            break
    else:
        pytest.fail("no call got through")
    assert number > (15 if verb == "ADD" else 6)
    assert net.check("other") == ""


def test_a_failing_add_that_is_killed_at_any_message(net: Network, host: PretendHost) -> None:
    """The undo may be killed as well: the port is silent before its check is removed."""
    net.add("other")
    netns = host.netns("a")
    for number in range(12, 100):
        injected = f"inject=sendto:signal=SIGKILL:when={number}"
        killing = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", injected)
        status = host.cni("bridge", "ADD", net.config, netns=netns, container_id="a", prefix=(*killing, *DEAF)).status
        ports = host.ip("link", "show", "type", "veth", "master", "cni0")
        assert {port["ifname"] for port in ports if "UP" in port["flags"]} <= guarded(host), number
        assert host.cni("bridge", "DEL", net.config, netns=netns, container_id="a").status == 0
        if status == 1:
            break
    else:
        pytest.fail("no call got through")
    assert number > 20


MANY = """
from shared.net.owner import Owner
from shared.frames import dedup, spoofcheck
from shared.undo import Undo
for n in range(200):
    owner = Owner("net", f"{n:064x}", "eth0")
    spoofcheck.add(Undo(), owner, owner.pod_mac)
    dedup.add(Undo(), owner, owner.pod_mac)
"""


def test_the_number_of_messages_does_not_grow(net: Network, host: PretendHost) -> None:
    """The number is the same with 1 pod and with 201. No program is executed, and DEL alone has children that wait."""
    net.config["promiscMode"] = True
    netns = host.netns("a")

    def counted(command: str, **keys: Any) -> int:
        names = f"trace=sendto,sendmsg,{WAITS},clone,clone3,fork,vfork,execve"
        prefix = ("strace", "-f", "-qq", "-o", "/run/trace", "-e", names)
        answer = host.cni("bridge", command, {**net.config, **keys}, netns=netns, container_id="a", prefix=prefix)
        assert answer.status == 0, answer
        if command == "ADD":
            net.results["a"] = answer.json
        calls = [line.split(maxsplit=1)[1] for line in host.run("cat", "/run/trace").stdout.splitlines()]
        assert command == "DEL" or not [call for call in calls if call.startswith(("clone", "fork", "vfork"))]
        assert sum(call.startswith("execve") for call in calls) == 1
        return messages_outside_waits(calls)

    def life() -> list[int]:
        return [counted("ADD"), counted("CHECK", prevResult=net.results["a"]), counted("DEL")]

    net.add("b")
    few = life()
    host.python(MANY)
    assert len(elements(host)["guarded"]) == len(elements(host)["podmacs"]) == 201
    assert life() == few


def injecting(number: int) -> tuple[str, ...]:
    """Return a tracer that lets the n-th socket of the call fail, as on a kernel without nf_tables."""
    injected = f"inject=socket:error=EPROTONOSUPPORT:when={number}"
    return ("strace", "-qq", "-o", "/dev/null", "-e", "trace=socket", "-e", injected)


@pytest.mark.parametrize("key", ["macspoofchk", "promiscMode"])
def test_a_kernel_without_nf_tables(host: PretendHost, key: str) -> None:
    """ADD and STATUS report that no check is possible; promiscuous mode works."""
    config = {**Network(host, isGateway=True).config, key: True}
    netns = host.netns("a")

    def call(command: str, **keys: Any) -> Answer:
        prefix = injecting(3 if command == "CHECK" else 2)  # after those to the links, of CHECK also the pod's
        return host.cni("bridge", command, {**config, **keys}, netns=netns, container_id="a", prefix=prefix)

    added, status = call("ADD"), call("STATUS")
    if key == "promiscMode":
        assert added.status == status.status == 0
        assert call("CHECK", prevResult=added.json).status == 0
    else:
        assert added.code == 2 and re.search('"macspoofchk": true.*nf_tables', added.json["msg"]), added
        assert status.code == 50 and re.search('"macspoofchk": true.*nf_tables', status.json["msg"]), status
        assert [link["ifname"] for link in host.ip("link", "show")] == ["lo"]
    assert call("DEL").status == 0
    assert call("GC", **{"cni.dev/valid-attachments": []}).status == 0
    assert host.run("nft", "list", "ruleset").stdout == ""


def test_status(net: Network, host: PretendHost) -> None:
    """STATUS creates nothing."""
    assert net.call("STATUS", "a").status == 0
    assert host.run("nft", "list", "ruleset").stdout == ""


def test_what_the_reference_has_made(net: Network, host: PretendHost, reference_bin: str) -> None:
    """DEL removes its chains for the container, and no others."""
    config = {**net.config, "cniVersion": "1.0.0"}
    for pod in ("a", "b"):
        netns = host.netns(pod)
        assert host.cni("bridge", "ADD", config, netns=netns, container_id=pod, bin_dir=reference_bin).status == 0
    before = host.run("nft", "list", "table", "bridge", "nat").stdout
    assert before.count("macspoofchk-a-eth0") == 4
    for _ in range(2):
        assert host.cni("bridge", "DEL", config, netns="/run/netns/a", container_id="a").status == 0
        after = host.run("nft", "list", "table", "bridge", "nat").stdout
        assert after.count("cni-br-iface-a-eth0") == after.count("macspoofchk-a-eth0") == 0
        assert after.count("cni-br-iface-b-eth0") == before.count("cni-br-iface-b-eth0") == 4
    netns = "/run/netns/b"
    assert host.cni("bridge", "DEL", config, netns=netns, container_id="b", bin_dir=reference_bin).status == 0


# -- promiscMode

VIPS = """
table inet services {
    chain arriving {
        type nat hook prerouting priority dstnat
        ip daddr 192.0.2.9 dnat ip to 10.1.0.3
        ip6 daddr fd00:9::9 dnat ip6 to fd00:1::3
    }
}
"""


@pytest.fixture
def promiscuous(host: PretendHost) -> Network:
    """Return a network with two pods, and addresses of a service that lead to the second."""
    net = Network(host, isDefaultGateway=True, promiscMode=True)
    net.add("a")
    net.add("b")
    host.run("nft", "-f", "-", input=VIPS)
    return net


def copies(net: Network, *destinations: str) -> list[str]:
    """Return the sources of the frames that pod b receives of pod a's datagrams to each of the addresses."""
    for address in ("10.1.0.3", "fd00:1::3"):  # the host knows its MAC
        net.host.run("ping", "-n", "-c1", "-W5", address)
    ear = Ear(net.host, "b")

    def datagram(destination: str, text: str) -> None:
        net.host.run("ip", "netns", "exec", "a", sys.executable, "-c", DATAGRAM, destination, text)
        net.pings("a", destination)  # its earlier packets have arrived by the time of the answer

    for destination in destinations:
        datagram(destination, "a frame")
    datagram(destinations[-1], "the end")
    return [frame.partition(" ")[0] for frame in ear.heard()]


@pytest.mark.parametrize(("direct", "service"), [("10.1.0.3", "192.0.2.9"), ("fd00:1::3", "fd00:9::9")])
@pytest.mark.parametrize("by_iptables", [True, False])
def test_each_frame_once(promiscuous: Network, host: PretendHost, direct: str, service: str, by_iptables: bool) -> None:
    """The bridge delivers it if its packets pass netfilter, otherwise the host; never both."""
    keys = {"promiscMode": True, "bridgeNfCallIptables": by_iptables}
    promiscuous.add("c", **keys)
    pod, bridge = mac(promiscuous, "a"), promiscuous.results["a"]["interfaces"][0]["mac"]
    assert copies(promiscuous, direct, service) == [pod, pod if by_iptables else bridge]
    host.run("nft", "delete", "table", "bridge", "pycni")
    assert copies(promiscuous, service) == ([pod, bridge] if by_iptables else [bridge])
    said = promiscuous.check("a")
    assert "chain copies of table bridge pycni" in said and "set podmacs" in said and "set selves" in said
    promiscuous.delete("c", **keys)
    promiscuous.add("c", **keys)
    assert promiscuous.check("c", **keys) == ""


@pytest.mark.parametrize(("direct", "service"), [("10.1.0.3", "192.0.2.9"), ("fd00:1::3", "fd00:9::9")])
def test_a_frame_to_itself(promiscuous: Network, direct: str, service: str) -> None:
    """A pod calls a service that leads to itself: the bridge sends nothing back out of its port, so the host must."""
    promiscuous.add("c", promiscMode=True, bridgeNfCallIptables=True)
    assert copies(promiscuous, direct) == [mac(promiscuous, "a")]
    ear = Ear(promiscuous.host, "b")
    for pod, destination, text in (("b", service, "a frame"), ("a", direct, "the end")):
        promiscuous.host.run("ip", "netns", "exec", pod, sys.executable, "-c", DATAGRAM, destination, text)
    assert [frame.partition(" ")[0] for frame in ear.heard()] == [promiscuous.results["a"]["interfaces"][0]["mac"]]


def test_the_bridge_still_shows_what_passes(promiscuous: Network, host: PretendHost) -> None:
    """A listener on a promiscuous bridge receives the pods' frames."""
    ear = Ear(host, None, "cni0")
    to_b = mac(promiscuous, "b")
    send(promiscuous, "a", (to_b, mac(promiscuous, "a"), ARP, MARK), (to_b, mac(promiscuous, "a"), ARP, END))
    assert ear.heard() == [f"{mac(promiscuous, 'a')} {ARP}"]


def test_after_the_last_promiscuous_pod(promiscuous: Network, host: PretendHost) -> None:
    promiscuous.delete("a")
    assert {len(found) for found in elements(host).values()} == {1}
    promiscuous.delete("b")
    assert not any(elements(host).values())


# -- bridgeNfCallIptables


def settings(host: PretendHost, bridge: str = "cni0") -> tuple[int, int]:
    data = host.ip("link", "show", bridge)[0]["linkinfo"]["info_data"]
    return data["nf_call_iptables"], data["nf_call_ip6tables"]


def switches(host: PretendHost) -> list[str]:
    return [sysctl(host, f"bridge/bridge-nf-call-{name}") for name in ("iptables", "ip6tables")]


def test_calls_of_iptables(host: PretendHost) -> None:
    """On, it is set for this bridge alone; off, for the whole host; without the key nothing changes."""
    net = Network(host)
    host.run("sh", "-c", "for one in iptables ip6tables; do echo 0 >/proc/sys/net/bridge/bridge-nf-call-$one; done")
    net.add("a")
    assert settings(host) == (0, 0)
    net.add("b", bridgeNfCallIptables=True)
    assert settings(host) == (1, 1) and switches(host) == ["0", "0"]
    assert net.check("b", bridgeNfCallIptables=True) == ""
    assert "bridged packets traverse iptables or ip6tables" in net.check("b", bridgeNfCallIptables=False)
    net.add("c")
    assert settings(host) == (1, 1)
    host.run("sh", "-c", "for one in iptables ip6tables; do echo 1 >/proc/sys/net/bridge/bridge-nf-call-$one; done")
    net.add("e", bridgeNfCallIptables=True)
    assert switches(host) == ["1", "1"]
    host.run("sh", "-c", "echo 1 >/proc/sys/net/bridge/bridge-nf-call-ip6tables")
    net.add("d", bridgeNfCallIptables=False)
    assert settings(host) == (0, 0) and switches(host) == ["0", "0"]
    assert net.check("d", bridgeNfCallIptables=False) == ""
    assert "bridged packets bypass iptables or ip6tables" in net.check("d", bridgeNfCallIptables=True)


@pytest.mark.parametrize(("others", "left"), [(False, (0, 0)), (True, (1, 1))])
def test_calls_of_iptables_after_a_failed_add(host: PretendHost, others: bool, left: tuple[int, int]) -> None:
    """The settings are restored, unless other pods use the bridge by then."""
    net = Network(host)
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    if others:
        net.add("b")
    keys = {**net.config, "bridgeNfCallIptables": True}
    assert host.cni("bridge", "ADD", keys, netns=host.netns("a"), container_id="a", prefix=DEAF).status == 1
    assert settings(host) == left


def test_a_kernel_without_br_netfilter(host: PretendHost) -> None:
    host.run("mount", "-t", "tmpfs", "tmpfs", "/proc/sys/net/bridge")
    net = Network(host)
    net.refused("a", 2, '"bridgeNfCallIptables": true: .*br_netfilter', bridgeNfCallIptables=True)
    status = net.call("STATUS", "a", bridgeNfCallIptables=True)
    assert status.code == 50 and "br_netfilter" in status.json["msg"], status
    net.add("a", bridgeNfCallIptables=False)
    assert net.check("a", bridgeNfCallIptables=False) == ""


@pytest.mark.parametrize("value", ["yes", 1, {}])
def test_unusable_values(host: PretendHost, value: Any) -> None:
    Network(host).refused("a", 7, "bridgeNfCallIptables", bridgeNfCallIptables=value)
