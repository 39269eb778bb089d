"""bridge's VLANs, by effect: the receivers of each frame, and its tag."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.node import DEAF, Network, host_local
from tests.pretend import PretendHost
from tests.system.test_many_links import MOST_PORTS, fill

pytestmark = pytest.mark.kernel_vlan
FRAMES = str(Path(__file__).with_name("frames.py"))
NATIVE = {"PVID", "Egress Untagged"}
LAYER_2: dict[str, Any] = {"ipam": ...}


@pytest.fixture
def net(host: PretendHost) -> Network:
    return Network(host, isGateway=True)


def heard(net: Network, frames: list[tuple[str, int]], **links: str) -> dict[tuple[str, int], dict[str, int]]:
    """Return each frame's receivers with their VLANs; a frame is (sender, VLAN), `links` are places on the host."""
    places = {pod: (net.netns(pod), "eth0") for pod in net.results} | {name: ("", link) for name, link in links.items()}
    job = json.dumps({"places": places, "frames": frames})
    said = net.host.run(sys.executable, "-I", "-S", FRAMES, input=job).stdout
    return dict(zip(frames, json.loads(said), strict=True))


def vlans(net: Network, pod: str) -> dict[int, set[str]]:
    """Return the VLANs of a pod's port and their flags, as the kernel shows them."""
    name = net.results[pod]["interfaces"][1]["name"]
    (shown,) = json.loads(net.host.run("bridge", "-j", "vlan", "show", "dev", name).stdout)
    return {
        vlan: set(entry.get("flags", []))
        for entry in shown["vlans"]
        for vlan in range(entry["vlan"], entry.get("vlanEnd", entry["vlan"]) + 1)
    }


def filters(net: Network) -> bool:
    return bool(net.host.ip("link", "show", "cni0")[0]["linkinfo"]["info_data"]["vlan_filtering"])


@pytest.mark.row("spoofing")
def test_who_hears_what(net: Network) -> None:
    """Access ports, trunks, both in one, VLAN 1 kept, a pod without VLANs, the host and its gateway port."""
    net.add("access", vlan=100)
    net.add("same", vlan=100, **LAYER_2)
    net.add("other", vlan=200, **LAYER_2)
    net.add("trunk", vlanTrunk=[{"id": 100}, {"minID": 300, "maxID": 301}], **LAYER_2)
    net.add("both", vlan=200, vlanTrunk=[{"minID": 99, "maxID": 100}, {"minID": 300, "maxID": 302}], **LAYER_2)
    net.add("keeps", vlan=200, preserveDefaultVlan=True, **LAYER_2)
    net.add("plain", **LAYER_2)
    # the receivers of VLAN 100, 200 and 1, with the VLAN they see
    blue = {"access": 0, "same": 0, "trunk": 100, "both": 100, "gateway": 0}
    green = {"other": 0, "both": 0, "keeps": 0}
    default = {"keeps": 0, "plain": 0, "trunk": 0, "bridge": 0}
    expected: dict[tuple[str, int], dict[str, int]] = {
        ("access", 0): blue, ("access", 100): blue, ("access", 1): {}, ("access", 200): {}, ("access", 300): {},
        ("other", 0): green, ("other", 100): {}, ("other", 1): {},
        # no native VLAN of its own: frames without a tag are in the bridge's default one
        ("trunk", 0): default, ("trunk", 1): default, ("trunk", 100): blue, ("trunk", 200): {}, ("trunk", 300): {"both": 300},
        ("trunk", 301): {"both": 301}, ("trunk", 302): {},
        ("both", 0): green, ("both", 99): {}, ("both", 100): blue, ("both", 301): {"trunk": 301}, ("both", 302): {},
        ("keeps", 0): green, ("keeps", 1): default,
        ("plain", 0): default, ("plain", 100): {}, ("plain", 200): {},
        ("bridge", 0): default, ("bridge", 100): {},
        ("gateway", 0): blue, ("gateway", 200): {},
    }  # fmt: skip
    expected = {
        (sender, vlan): {name: tag for name, tag in hearers.items() if name != sender}
        for (sender, vlan), hearers in expected.items()
    }
    assert heard(net, list(expected), bridge="cni0", gateway="cni0.100") == expected


def test_the_gateway_of_each_vlan(net: Network, host: PretendHost) -> None:
    """A pod reaches its own VLAN's gateway at once, in both families, and another VLAN only through the host."""
    other: dict[str, Any] = {"vlan": 200, "name": "other", "ipam": host_local("10.2.0.0/24", "fd00:2::/64")}
    net.add("a", vlan=100, isDefaultGateway=True)
    net.add("b", vlan=100)
    net.add("c", isDefaultGateway=True, **other)
    assert set(net.kernel_addresses(None, "cni0.100")) == {"10.1.0.1/24", "fd00:1::1/64"}
    assert set(net.kernel_addresses(None, "cni0.200")) == {"10.2.0.1/24", "fd00:2::1/64"}
    assert net.kernel_addresses(None, "cni0") == {}
    interfaces = net.results["a"]["interfaces"]
    (kernel,) = host.ip("link", "show", "cni0.100")
    assert [interface["name"] for interface in interfaces][::3] == ["cni0", "cni0.100"]
    assert (interfaces[3]["mac"], interfaces[3]["mtu"]) == (kernel["address"], kernel["mtu"])
    assert net.pings("a", "10.1.0.1") and net.pings("a", "fd00:1::1")
    assert net.pings("a", "10.1.0.3") and net.pings("a", "fd00:1::3")
    assert net.pings("a", "10.2.0.2") and net.pings("c", "fd00:1::2")
    host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    assert not net.pings("a", "10.2.0.2")


@pytest.mark.parametrize(("keys", "expected"), [
    ({"vlan": 1}, {1: NATIVE}),
    ({"vlan": 100, "vlanTrunk": [{"minID": 99, "maxID": 101}]}, {99: set(), 100: NATIVE, 101: set()}),
    ({"vlanTrunk": [{"id": 7}]}, {1: NATIVE, 7: set()}),
    ({"vlanTrunk": [{"minID": 1, "maxID": 4094}]}, {1: NATIVE} | {vlan: set() for vlan in range(2, 4095)}),
])  # fmt: skip
@pytest.mark.row("spoofing")
def test_the_ports_vlans(net: Network, keys: dict[str, Any], expected: dict[int, set[str]]) -> None:
    """CHECK finds them, even thousands, and so does the next ADD. A trunk alone stays in the default VLAN."""
    net.add("a", **keys, **LAYER_2)
    assert vlans(net, "a") == expected
    assert net.check("a", **keys, **LAYER_2) == ""
    net.add("b", **keys, **LAYER_2)
    net.delete("a", **keys, **LAYER_2)


@pytest.mark.parametrize(("default", "keys", "expected"), [
    (9, {"vlan": 100}, {100: NATIVE}),
    (9, {"vlan": 9}, {9: NATIVE}),
    (9, {"vlan": 1, "vlanTrunk": [{"id": 5}]}, {1: NATIVE, 5: set()}),
    (9, {"vlan": 100, "preserveDefaultVlan": True}, {9: {"Egress Untagged"}, 100: NATIVE}),
    (9, {"vlanTrunk": [{"minID": 8, "maxID": 10}]}, {8: set(), 9: NATIVE, 10: set()}),
    (0, {"vlan": 100}, {100: NATIVE}),
    (0, {"vlanTrunk": [{"id": 1}]}, {1: set()}),
])  # fmt: skip
def test_a_bridge_with_another_default_vlan(
    net: Network, host: PretendHost, default: int, keys: dict[str, Any], expected: dict[int, set[str]]
) -> None:
    """A port leaves the VLAN that this bridge puts new ports into, 9 or none; the gateway port does as well."""
    bridge = f"ip link add cni0 type bridge vlan_filtering 1 vlan_default_pvid {default}"
    host.run("sh", "-ec", f"{bridge}; ip link set cni0 up")
    net.add("a", **keys)
    assert vlans(net, "a") == expected
    assert net.check("a", **keys) == ""
    if "vlan" not in keys:
        return
    (gateway,) = host.ip("link", "show", f"cni0.{keys['vlan']}")
    net.results["gateway"] = {"interfaces": [{}, {"name": gateway["link"]}]}
    assert vlans(net, "gateway") == {vlan: flags for vlan, flags in expected.items() if flags}
    assert net.pings("a", "10.1.0.1")
    port = net.host_link("a")["ifname"]
    for link in (port, gateway["link"]):
        host.run("bridge", "vlan", "add", "dev", link, "vid", "9", check=False)
    told = net.check("a", **keys) if default and 9 not in expected else ""
    for link in (port, gateway["link"]) if told else ():
        assert f"link {link} is in VLAN 9, the default one of bridge cni0, too" in told


@pytest.mark.row(16)
def test_a_trunk_keeps_the_pods_network(net: Network) -> None:
    """Beside its tagged VLANs the pod reaches gateway and pods as without them."""
    net.add("a", vlanTrunk=[{"id": 7}])
    net.add("b")
    assert net.pings("a", "10.1.0.1") and net.pings("a", "10.1.0.3") and net.pings("b", "fd00:1::2")


@pytest.mark.row(16)
def test_a_bridge_without_room_for_the_gateway_port(net: Network, host: PretendHost) -> None:
    """The pod's port takes the last place: code 11, nothing left, and STATUS reports it before."""
    fill(host, MOST_PORTS - 1)
    status = net.call("STATUS", "a", vlan=100)
    assert status.code == 50 and "cni0 is full" in status.json["msg"], status
    answer = net.call("ADD", "a", vlan=100)
    assert answer.code == 11 and "cni0 is full: it has 1023 ports" in answer.json["msg"], answer
    assert not host.ip("link", "show", "type", "veth")
    host.run("ip", "link", "del", "p0")
    assert net.call("STATUS", "a", vlan=100).status == 0
    net.add("a", vlan=100)


@pytest.mark.row(16)
def test_status(net: Network, host: PretendHost) -> None:
    """The conflicting gateway address is on the VLAN's gateway port, not on the bridge; IPv6 is switched on there."""
    host.run("sh", "-ec", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6; ip link add cni0 type bridge; "
                          "ip link set cni0 up; ip address add 10.9.0.1/16 dev cni0")  # fmt: skip
    assert net.call("STATUS", "a", vlan=100).status == 0
    net.add("a", vlan=100)
    assert net.pings("a", "10.1.0.1") and net.pings("a", "fd00:1::1")
    assert net.call("STATUS", "a", vlan=100).status == 0
    host.run("sh", "-ec", "ip address add 10.3.0.1/16 dev cni0.100; ip address del 10.1.0.1/24 dev cni0.100")
    answer = net.call("STATUS", "b", vlan=100)
    assert answer.code == 50 and "cni0.100 already has an IP address" in answer.json["msg"], answer
    net.refused("b", 999, "cni0.100 already has an IP address", vlan=100)


@pytest.mark.parametrize("damage", [
    {
        "bridge vlan del dev {port} vid 100; bridge vlan del dev {port} vid 300": "{port} is not in the VLANs [100, 300]",
        "ip link set cni0.100 down": "cni0.100 is down",
        "ip address flush dev cni0.100 scope global": "gateway address 10.1.0.1 is missing on cni0.100",
        "bridge vlan del dev {peer} vid 100": "{peer} is not in the VLANs [100]",
    },
    {
        "bridge vlan add dev {port} vid 100": "VLAN 100 is not the native one of link {port}",
        "ip link set cni0 type bridge vlan_filtering 0": "bridge cni0 does not filter VLANs",
        "ip link set {peer} nomaster": "{peer} is not a port of cni0",
    },
    {"ip link del cni0.100": "cni0.100 is missing"},
])  # fmt: skip
def test_check(net: Network, host: PretendHost, damage: dict[str, str]) -> None:
    """CHECK reports everything that differs from ADD's state."""
    keys: dict[str, Any] = {"vlan": 100, "vlanTrunk": [{"id": 300}]}
    net.add("a", **keys)
    (gateway,) = host.ip("link", "show", "cni0.100")
    names = {"port": net.host_link("a")["ifname"], "peer": gateway["link"]}
    assert net.check("a", **keys) == ""
    host.run("sh", "-ec", "; ".join(damage).format(**names))
    answer = net.call("CHECK", "a", prevResult=net.results["a"], **keys)
    assert answer.code == 999, answer
    for words in damage.values():
        assert words.format(**names) in answer.json["details"], answer


def test_delete_and_garbage_collection(net: Network, host: PretendHost) -> None:
    """The pods' own links are deleted; the bridge, its filter and the gateway port of the VLAN's other pods stay."""
    for pod in ("a", "b", "c"):
        net.add(pod, vlan=100)
    ports = [net.host_link(pod)["ifname"] for pod in ("a", "b")]
    net.delete("a", vlan=100)
    host.drop_netns("b")
    valid = [{"containerID": "c", "ifname": "eth0"}]
    answer = host.cni("bridge", "GC", {**net.config, "vlan": 100, "cni.dev/valid-attachments": valid})
    assert (answer.status, answer.stdout) == (0, ""), answer
    links = {link["ifname"] for link in host.ip("link", "show")}
    assert not links & set(ports) and {"cni0", "cni0.100"} <= links
    leases = {name.rpartition("/")[2] for name in host.snapshot()["files"] if "/10.1." in name}
    assert leases == {"10.1.0.4"}
    assert net.check("c", vlan=100) == "" and net.pings("c", "10.1.0.1") and filters(net)


def test_a_pod_that_comes_to_a_bridge_without_vlans(net: Network) -> None:
    """The bridge filters from then on; its earlier pods remain in VLAN 1, with each other and with their gateway."""
    net.add("a")
    net.add("b", **LAYER_2)
    assert not filters(net)
    net.add("c", vlan=100, **LAYER_2)
    assert filters(net)
    assert heard(net, [("a", 0), ("c", 0)], bridge="cni0") == {("a", 0): {"b": 0, "bridge": 0}, ("c", 0): {}}
    assert net.pings("a", "10.1.0.1")


@pytest.mark.parametrize("there_before", [False, True])
def test_a_failed_add_leaves_nothing(net: Network, host: PretendHost, there_before: bool) -> None:
    """No port, gateway port or new bridge is left; an existing bridge goes on filtering: others may rely on it."""
    if there_before:
        net.add("b", isGateway=False, **LAYER_2)
    host.netns("a")
    before = host.snapshot(["a"])["host"]
    config = {**net.config, "vlan": 100}
    # all is done by the time that the result cannot be written
    silent = host.cni("bridge", "ADD", config, netns=net.netns("a"), prefix=DEAF)
    assert silent.status == 1, silent
    assert host.snapshot(["a"])["host"] == before
    assert not there_before or filters(net)
    net.add("a", vlan=100)
    assert net.pings("a", "10.1.0.1")


HALF_MADE = {
    "neither end joined": ["link set {port} nomaster", "link set {port} down", "link set cni0.100 down"],
    "no VLAN": ["link set {port} nomaster", "link set {port} master cni0", "link set {port} down", "link set cni0.100 down"],
    "both ends down": ["link set {port} down", "link set cni0.100 down"],
    "one end down": ["link set cni0.100 down"],
}  # fmt: skip


@pytest.mark.row("half-made")
@pytest.mark.parametrize("steps", HALF_MADE.values(), ids=HALF_MADE)
def test_a_half_made_gateway_port(net: Network, host: PretendHost, steps: list[str]) -> None:
    """An ADD killed between two messages leaves it: the next pod's ADD completes it, and the pod is reachable."""
    net.add("first", vlan=100)
    (made,) = host.ip("link", "show", "cni0.100")
    port = made["link"]
    for step in steps:
        host.run("sh", "-ec", f"ip {step.format(port=port)}")
    net.add("a", vlan=100, isDefaultGateway=True)
    (found,) = host.ip("link", "show", "cni0.100")
    net.results["gateway"] = {"interfaces": [{}, {"name": port}]}
    assert found["ifindex"] == made["ifindex"] and vlans(net, "gateway") == {100: NATIVE}
    assert net.pings("a", "10.1.0.1") and net.pings("a", "fd00:1::1")


STRANGERS = {
    "of another kind": "link add cni0.100 type ifb",
    "a veth that leads nowhere": "link add cni0.100 type veth peer name other",
    "a veth that leads to another bridge": "link add cni0.100 type veth peer name other; ip link add br9 type bridge; ip link set other master br9",
    "a veth that leads elsewhere": "netns add else; ip link add cni0.100 type veth peer name other netns else",
}  # fmt: skip


@pytest.mark.row("half-made")
@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_a_strangers_link_of_the_gateway_ports_name(net: Network, host: PretendHost, stranger: str) -> None:
    net.add("plain", ipam=...)
    host.run("sh", "-ec", f"ip {stranger}")
    before = host.snapshot()
    net.refused("a", 999, "link cni0.100 exists, and does not lead to a port of bridge cni0", vlan=100)
    now = host.snapshot()
    assert now["host"] == before["host"]
    answer = host.cni("bridge", "STATUS", {**net.config, "cniVersion": "1.1.0", "vlan": 100})
    assert answer.code == 50 and "link cni0.100 exists" in answer.json["msg"], answer


@pytest.mark.row("half-made")
def test_a_gateway_port_of_the_references(net: Network, host: PretendHost) -> None:
    """Its bridge identifies it, whatever the port's name is, and it stays in the default VLAN."""
    net.add("plain", ipam=...)
    host.run(
        "sh",
        "-ec",
        """
        ip link set cni0 type bridge vlan_filtering 1
        ip link add vethsome type veth peer name cni0.100
        ip link set vethsome master cni0 up
        ip link set cni0.100 up
        bridge vlan add dev vethsome vid 100 pvid untagged
    """,
    )
    net.add("a", vlan=100, isDefaultGateway=True)
    net.results["gateway"] = {"interfaces": [{}, {"name": "vethsome"}]}
    assert vlans(net, "gateway") == {100: NATIVE, 1: {"Egress Untagged"}}
    assert net.pings("a", "10.1.0.1")
