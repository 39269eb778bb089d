"""host-device: the device in the pod, and at home again as it was, wherever the pod, the kernel or others put it.

The devices are veth ends and ifbs, which a pretend host can create. PCI and auxiliary devices are directories in
sysfs, so that a file system that covers a part of it has them. The kernel moves real hardware home by itself: a test
moves its veth end as the kernel would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests import node as nodes
from tests.node import DEAF, host_local
from tests.pretend import TREE, PretendHost, until

MAC = "02:00:00:00:d0:01"
# dev0 is the pod's device, and `far` has the other end. dev0 has what an administrator gives a device.
LINKS = f"""
ip netns add far
ip link add dev0 address {MAC} mtu 1450 txqueuelen 77 type veth peer name eth0 netns far
ip link property add dev dev0 altname enp9s0 altname uplink
ip link set dev0 alias storage up
ip -n far address add 10.1.0.200/24 dev eth0
ip -n far address add fd00:1::200/64 dev eth0 nodad
ip -n far link set eth0 up
"""
RECORDS = "run/cni/.pycni/devices"
PCI, VF, AUXILIARY = "0000:09:00.0", "0000:09:00.1", "mlx5_core.sf.2"
# A sysfs with a network card, a card of a DPDK driver, a virtio card, and an auxiliary device.
SYSFS = f"""
mount -t tmpfs tmpfs /sys/bus
cd /sys/bus; mkdir -p pci/devices auxiliary/devices pci/drivers/vfio-pci pci/drivers/mlx5_core; cd pci/devices
mkdir -p {PCI}/net/dev0 {VF} 0000:09:00.2/virtio7/net/dev0 ../../auxiliary/devices/{AUXILIARY}/net/dev0
ln -s ../../drivers/mlx5_core {PCI}/driver
ln -s ../../drivers/vfio-pci {VF}/driver
mount -t tmpfs tmpfs /sys/devices/pnp0; mkdir -p /sys/devices/pnp0/00:09/net/dev0
"""


class Node(nodes.Node):
    """A node with dev0, and a dual-stack network of it."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **nodes.Node.DEFAULTS, "type": "host-device", "device": "dev0", "ipam": host_local(),
    }  # fmt: skip

    def __init__(self, host: PretendHost, **config: Any) -> None:
        super().__init__(host, **config)
        host.run("sh", "-ec", LINKS)
        self.at_home = self.device("dev0")

    def device(self, name: str, pod: str | None = None) -> dict[str, Any]:
        """Return the settings of a link that an administrator can choose."""
        (found,) = self.host.ip("link", "show", name, netns=pod)
        keys = ("ifname", "address", "mtu", "txqlen", "ifalias", "altnames")
        shown = {key: found.get(key) for key in keys} | {"up": "UP" in found["flags"]}
        return shown | {"altnames": sorted(shown["altnames"] or [])}

    def names(self, pod: str | None = None) -> set[str]:
        return {link["ifname"] for link in self.host.ip("link", netns=pod)} - {"lo"}

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.host.root / RECORDS).glob("*.json")]

    def leases(self) -> list[str]:
        store = self.host.root / "var/lib/cni/networks/net"
        return sorted(path.name for path in store.glob("*") if path.name[0] in "1f")

    def is_whole(self) -> bool:
        """Return True if dev0 is at home as it was, and nothing is left of its pod."""
        return (self.device("dev0"), self.records(), self.leases()) == (self.at_home, [], [])

    def bring(self, pod: str, name: str, new_name: str) -> None:
        """Move a link to the host as the kernel does when a namespace is deleted: down, and under another name."""
        self.host.run("ip", "-n", pod, "link", "set", name, "netns", "1", "name", new_name)


def test_device_in_the_pod(node: Node) -> None:
    result = node.add("p")
    assert result["interfaces"] == [{"name": "eth0", "mac": MAC, "mtu": 1450, "sandbox": "/run/netns/p"}]
    assert "dev0" not in node.names() and node.names("p") == {"eth0"}
    assert node.device("eth0", "p") | {"altnames": []} == {
        "ifname": "eth0", "address": MAC, "mtu": 1450, "txqlen": 77, "ifalias": "dev0", "altnames": [], "up": True,
    }  # fmt: skip
    assert "10.1.0.2/24" in [ip["address"] for ip in result["ips"]] and node.check("p") == ""
    for address in ("10.1.0.200", "fd00:1::200"):  # the kernel may report the carrier to the far end late
        until(lambda address=address: node.pings("p", address))  # type: ignore[misc]
    node.delete("p")
    assert node.is_whole()


@pytest.mark.parametrize("keys", [
    {"device": "enp9s0"},
    {"device": ..., "hwaddr": MAC.upper()},
    {"device": ..., "kernelpath": "/sys/devices/pnp0/00:09"},
    {"device": ..., "pciBusID": PCI},
    {"device": ..., "pciBusID": "0000:09:00.2"},
    {"device": ..., "pciBusID": AUXILIARY},
    {"device": ..., "pciBusID": "0000:ff:00.0", "runtimeConfig": {"deviceID": PCI}},
])  # fmt: skip
def test_ways_to_name_it(node: Node, keys: dict[str, Any]) -> None:
    node.host.run("sh", "-ec", SYSFS)
    result = node.add("p", keys)
    chosen = (keys.get("runtimeConfig") or {}).get("deviceID") or keys.get("pciBusID")
    assert result["interfaces"][0].get("pciID") == chosen
    assert result["interfaces"][0]["mac"] == MAC
    assert node.check("p", keys) == ""
    node.host.run("sh", "-ec", "umount /sys/bus /sys/devices/pnp0")  # DEL looks for nothing there
    node.delete("p", {key: value for key, value in keys.items() if key != "runtimeConfig"})
    assert node.is_whole()


def test_driver_of_dpdk(node: Node) -> None:
    """The device has no link: only its address is passed on. DEL needs neither the device nor sysfs."""
    node.host.run("sh", "-ec", SYSFS)
    before = node.names()
    result = node.add("p", device=..., pciBusID=VF)
    assert result["interfaces"] == [{"name": "eth0", "sandbox": "/run/netns/p", "pciID": VF}]
    assert len(result["ips"]) == 2 and node.names() == before and node.names("p") == set()
    assert node.check("p", device=..., pciBusID=VF) == ""
    node.host.run("umount", "/sys/bus")
    assert "there is no device" in node.check("p", device=..., pciBusID=VF)
    node.delete("p", device=..., pciBusID=VF)
    assert node.leases() == []


def test_no_such_device(node: Node) -> None:
    node.host.run("sh", "-ec", SYSFS)
    node.refused("p", 999, "there is no device nosuch0 on the host", device="nosuch0")
    node.refused("p", 999, "there is no device with MAC 02:00:00:00:00:01", device=..., hwaddr="02:00:00:00:00:01")
    node.refused("p", 999, "there is no device 0000:ff:00.0", device=..., pciBusID="0000:ff:00.0")
    assert node.call("STATUS", "", device="nosuch0").code == 50


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"device": ...}, '"device" or "hwaddr"'),
        ({"device": "a/b"}, '"device": "a/b" must be'),
        ({"hwaddr": "x"}, '"hwaddr": "x" must be'),
        ({"pciBusID": [PCI, VF]}, '"pciBusID": .* must be one address'),
        ({"pciBusID": f"{PCI},{VF}"}, '"pciBusID": .* must be one address'),
        ({"pciBusID": "../../x"}, '"pciBusID": .* must be one address'),
        ({"pciBusID": ".."}, '"pciBusID": "..": must be'),
        ({"runtimeConfig": {"deviceID": "a/b"}}, '"runtimeConfig.deviceID": "a/b" must be'),
        ({"kernelpath": "/etc"}, '"kernelpath": "/etc" must be a path below /sys/devices/'),
        ({"kernelpath": "/sys/devices/../../etc"}, '"kernelpath": .* must be an absolute path'),
        ({"mtu": 20}, '"mtu": 20 must be'),
    ],
)
def test_values_that_cannot_be_used(node: Node, keys: dict[str, Any], words: str) -> None:
    node.refused("p", 7, words.replace('"..": must', '".." must'), keys)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            "ip link add br0 type bridge; ip link set dev0 master br0",
            "dev0 cannot be moved into a pod: it is a port of br0",
        ),
        ("ip link set dev0 alias pycni:net/x/eth0", "it belongs to another pod's interface"),
    ],
)
def test_a_device_in_use(node: Node, make: str, words: str) -> None:
    node.host.run("sh", "-ec", make)
    node.refused("p", 999, words)
    assert node.call("STATUS", "").code == 50


def test_kinds_that_do_not_move(node: Node) -> None:
    node.host.run("ip", "link", "add", "br0", "type", "bridge")
    node.host.run("ip", "link", "set", "br0", "up")
    node.refused("p", 999, "device br0 cannot be moved to another network namespace: its kind is bridge", device="br0")
    node.refused("p", 999, "it is the loopback device", device="lo")


def test_a_name_that_the_pod_has(node: Node) -> None:
    node.netns("p")
    node.host.run("ip", "-n", "p", "link", "add", "eth0", "type", "ifb")
    node.refused("p", 999, "link eth0 already exists in /run/netns/p")
    assert node.is_whole()


@pytest.mark.parametrize("name", ["enp9s0", "dev0", "uplink"])
def test_names_that_clash_in_the_pod(node: Node, name: str) -> None:
    """The interface gets an alternative name of its own, its own name; or the pod has a link with one of them."""
    node.netns("p")
    node.host.run("ip", "-n", "p", "link", "add", "uplink" if name != "uplink" else "enp9s0", "type", "ifb")
    node.add("p", ifname=name)
    assert name in node.names("p")
    node.delete("p", ifname=name)
    assert node.is_whole()


def test_mtu(node: Node) -> None:
    assert node.add("p", mtu=1300)["interfaces"][0]["mtu"] == 1300
    node.delete("p")
    assert node.is_whole()


def test_layer_2(node: Node) -> None:
    result = node.add("p", ipam=...)
    assert "ips" not in result and node.device("eth0", "p")["up"]
    assert node.check("p", ipam=...) == ""
    node.delete("p", ipam=...)
    assert node.is_whole()


def test_without_carrier(node: Node) -> None:
    """A cable may be missing, or negotiation take a while: that is no error."""
    node.host.run("ip", "-n", "far", "link", "set", "eth0", "down")
    node.add("p")
    assert node.check("p") == ""


def test_a_device_that_was_down(node: Node) -> None:
    node.host.run("ip", "link", "set", "dev0", "down")
    node.at_home = node.device("dev0")
    node.add("p")
    assert node.device("eth0", "p")["up"]
    node.delete("p")
    assert node.is_whole() and not node.device("dev0")["up"]


CHANGES = {
    "none": "",
    "renamed": "ip link set eth0 down; ip link set eth0 name swp1",
    "all changed": (
        "ip link set eth0 down; ip link set eth0 name swp1 address 02:00:00:00:00:42 mtu 1280 txqueuelen 5;"
        " ip link set swp1 alias nonsense promisc on; ip link property del dev swp1 altname enp9s0"
    ),
    "another link has the name": "ip link set eth0 name swp1; ip link add eth0 type ifb; ip link set eth0 up",
}
PLACES = ("the pod", "unnamed", "unmounted", "the host")
# A virtual device whose MAC and alias the pod has changed cannot be identified on the host.
RETURNS = [(place, change) for place in PLACES for change in CHANGES if (place, change) != ("the host", "all changed")]


@pytest.mark.parametrize(("place", "change"), RETURNS)
def test_return(node: Node, change: str, place: str) -> None:
    """DEL finds the device in each place, after each change by the pod, and comes twice."""
    node.add("p")
    node.host.run("ip", "netns", "exec", "p", "sh", "-ec", CHANGES[change])
    end = "/run/netns/p"
    if place == "unnamed":
        end = ""
    elif place == "unmounted":  # a process of the pod keeps the namespace
        node.serve("p", "print('ready', flush=True); input()")
        node.host.drop_netns("p")
    elif place == "the host":
        name = "eth0" if change == "none" else "swp1"
        node.bring("p", name, "dev7")
    for _ in range(2):
        node.delete("p", netns=end)
        assert node.is_whole()
    assert node.names() == {"dev0"}


def test_return_to_a_host_without_its_name(node: Node) -> None:
    """Another link has the name by now: DEL succeeds, and says how the device is called."""
    node.add("p")
    node.host.run("ip", "link", "add", "dev0", "type", "ifb")
    node.host.run("ip", "link", "set", "dev0", "alias", "stranger")
    answer = node.call("DEL", "p")
    assert (
        answer.status == 0
        and "device dev0 is called dev0_0 now: another link of the host has its name" in answer.stderr
    )
    assert node.device("dev0")["ifalias"] == "stranger"
    found = node.device("dev0_0")
    assert found == node.at_home | {"ifname": "dev0_0"} and node.records() == []


def test_return_from_the_kernel_to_a_taken_name(node: Node) -> None:
    node.add("p")
    node.host.run("ip", "link", "add", "dev0", "type", "ifb")
    node.bring("p", "eth0", "dev7")
    answer = node.call("DEL", "p")
    assert (
        answer.status == 0
        and "device dev0 is called dev0_0 now: another link of the host has its name" in answer.stderr
    )
    assert node.device("dev0_0") == node.at_home | {"ifname": "dev0_0"}


def test_return_without_an_alternative_name(node: Node) -> None:
    node.add("p")
    node.host.run("ip", "link", "add", "uplink", "type", "ifb")
    answer = node.call("DEL", "p")
    assert answer.status == 0 and "does not get its alternative name uplink again" in answer.stderr
    assert node.device("dev0") == node.at_home | {"altnames": ["enp9s0"]}


def test_a_virtual_device_dies_with_its_pod(node: Node) -> None:
    node.add("p")
    node.host.drop_netns("p")
    until(lambda: node.host.ip("link", "show", "type", "veth", netns="far") == [])
    node.delete("p")
    assert (node.records(), node.leases()) == ([], [])


def test_the_next_pod_gets_a_device_that_nobody_gave_back(node: Node) -> None:
    """The kernel has brought it home as dev7, and no DEL came: the next ADD restores it first."""
    node.add("p")
    node.host.run("ip", "-n", "p", "link", "set", "eth0", "address", "02:00:00:00:00:42")
    node.bring("p", "eth0", "dev7")
    node.host.drop_netns("p")
    node.add("q")
    assert [one["containerID"] for one in node.records()] == ["q"]
    node.delete("p")
    assert node.names("q") == {"eth0"}
    node.delete("q")
    assert node.device("dev0") == node.at_home


def test_a_lent_device_is_not_taken(node: Node) -> None:
    node.add("p")
    for keys in ({}, {"device": "enp9s0"}, {"device": ..., "hwaddr": MAC}):
        node.refused("q", 999, "is lent to eth0 of container p in network net", keys)
    node.refused("p", 999, "link eth0 already exists|is lent to eth0 of container p")
    assert node.call("STATUS", "").status == 0
    assert node.check("p") == ""


def test_another_attachments_device_stays(node: Node) -> None:
    """DEL and GC touch only their own, though the path leads to the other's pod."""
    node.add("p")
    node.delete("q", netns="/run/netns/p")
    node.delete("p", netns="/run/netns/p", ifname="net1")
    node.collect("p")
    node.collect(name="other")
    assert node.names("p") == {"eth0"} and node.check("p") == ""


@pytest.mark.parametrize("place", ["the pod", "the host"])
def test_a_collection(node: Node, place: str) -> None:
    node.add("p")
    if place == "the host":
        node.bring("p", "eth0", "dev7")
    node.collect("q")
    assert node.is_whole()


def test_a_collection_waits_once_for_all_devices(node: Node) -> None:
    """Hardware may be in a namespace that nobody finds: the kernel brings it later, or never."""
    node.add("p", ipam=...)
    (path,) = (node.host.root / RECORDS).glob("*.json")
    kept = json.loads(path.read_text())
    node.host.drop_netns("p")
    path.unlink()
    timers = []
    for number in range(3):
        lost = {"name": f"card{number}", "kind": "", "path": "/sys/devices/system", "port": "", "ownMac": ""}
        path.with_name(f"{number}.json").write_text(json.dumps(kept | lost))
        trace = ("strace", "-f", "-o", "/run/trace", "-e", "trace=setitimer")
        answer = node.call("GC", "", {"cni.dev/valid-attachments": []}, ipam=..., prefix=trace)
        assert answer.status == 0 and answer.stderr.count("a later call restores it") == number + 1
        timers.append((node.host.root / "run/trace").read_text().count("setitimer("))
    assert timers[0] > 0 and set(timers) == {timers[0]} and len(node.records()) == 3


def test_a_renamed_network(node: Node) -> None:
    node.add("p")
    node.delete("p", name="renamed")
    assert node.device("dev0") == node.at_home and node.records() == []


# In place of the executable: the plugin on a kernel that tells no cookies of namespaces.
WITHOUT_COOKIES = """
import sys
from shared.net import netns
netns.SO_NETNS_COOKIE = 0xFFFF
from shared.cni.plugin import serve
sys.exit(serve("plugins.host_device"))
"""
OLD_KERNEL: dict[str, Any] = {"prefix": (sys.executable, "-c", WITHOUT_COOKIES), "env": {"PYTHONPATH": TREE}}


def test_return_without_cookies(node: Node) -> None:
    node.add("p", **OLD_KERNEL)
    assert node.records()[0]["namespace"].endswith(":")
    node.host.run("ip", "-n", "p", "link", "set", "eth0", "address", "02:00:00:00:00:42")
    node.delete("p", **OLD_KERNEL)
    assert node.is_whole()


@pytest.mark.parametrize("end", ["/run/netns/p", "", "/run/netns/q"])
@pytest.mark.parametrize("told_by", ["path", "MAC"])
def test_a_new_namespace_with_the_number_of_the_old_one(node: Node, end: str, told_by: str) -> None:
    """Its link has the index of the device, which died with its pod: it stays. The alias or the path may be the same."""
    node.add("p", ipam=..., **OLD_KERNEL)
    node.host.drop_netns("p")
    (path,) = (node.host.root / RECORDS).glob("*.json")
    node.netns("q")
    kept = json.loads(path.read_text())
    kept["namespace"] = node.host.run("stat", "-Lc", "%d:%i:", "/run/netns/q").stdout.strip()
    if told_by == "MAC":
        kept["netns"] = "/run/netns/q"
        kept["mark"] = node.host.python("from shared.net import liveness; print(liveness.mark('/run/netns/q'))").strip()
    path.write_text(json.dumps(kept))
    node.host.run(
        "sh", "-ec", f"ip -n q link add index {kept['podIndex']} name eth0 type veth peer name far0 netns far"
    )
    node.host.run("ip", "-n", "q", "link", "set", "eth0", "alias", "dev0" if told_by == "path" else "")
    node.serve("q", "print('ready', flush=True); input()")
    node.delete("p", netns=end, ipam=..., **OLD_KERNEL)
    assert node.names("q") == {"eth0"} and (node.names(), node.records()) == (set(), [])


# Makes the pair in the pod; with another word than "", its other end is in a namespace of the pod's own making.
FORGE = """
import ctypes, os, signal, subprocess, sys
index, elsewhere = sys.argv[1:]
ready, done = os.pipe()
child = os.fork()
if child == 0:
    ctypes.CDLL(None).unshare(0x40000000)
    os.write(done, b"x")
    signal.pause()
os.read(ready, 1)
where = ["netns", str(child)] if elsewhere else []
pair = ["ip", "link", "add", "index", index, "name", "eth0", "type", "veth", "peer", "name", "evil", "index", "99", *where]
subprocess.run(pair, check=True)
subprocess.run(["ip", "link", "set", "eth0", "alias", "dev0"], check=True)
print("ready", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("elsewhere", ["", "elsewhere"])
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_a_pod_does_not_move_its_own_link_to_the_host(node: Node, verb: str, elsewhere: str) -> None:
    """The pod has deleted the device, and its own link has the index and the alias. DEL comes twice."""
    node.add("p")
    (kept,) = node.records()
    node.host.run("ip", "-n", "p", "link", "del", "eth0")
    node.serve("p", FORGE, str(kept["podIndex"]), elsewhere)
    if verb == "GC":
        node.collect()
    else:
        answer = node.call("DEL", "p")
        assert answer.status == 0 and "the link in its place is the pod's own, and stays" in answer.stderr
    answer = node.call("DEL", "p")
    assert answer.status == 0 and "the pod may have made it itself" in answer.stderr
    assert (node.names(), node.records(), node.leases()) == (set(), [], [])
    assert "eth0" in node.names("p")


@pytest.mark.parametrize("first", ["p", "q"])
def test_both_ends_of_a_pair_are_lent(node: Node, first: str) -> None:
    """The other end of each device moves while it is lent."""
    node.host.run("sh", "-ec", "ip link add a0 type veth peer name b0; ip link set a0 up; ip link set b0 up")
    devices = {"p": "a0", "q": "b0"}
    for pod, device in devices.items():
        node.add(pod, device=device, ipam=...)
    for pod in sorted(devices, reverse=first == "q"):
        node.delete(pod, device=devices[pod], ipam=...)
    assert node.names() == {"dev0", "a0", "b0"} and node.records() == []


def test_records_that_are_garbled(node: Node) -> None:
    node.add("p")
    (path,) = (node.host.root / RECORDS).glob("*.json")
    for text in ("", "{", "[]", '{"name": 1}'):
        path.write_text(text)
        node.delete("q")
        node.collect("p")
    node.delete("p")  # as one that another suite has lent: by its alias and the configuration
    assert node.names() == {"dev0"} and not path.exists()


GARBLED = ("", "{", "[]", '{"name": 1}', "up", "podIndex", "altnames", "namespace")


def garble(node: Node, how: str) -> Path:
    """Replace the only record by a text, or leave a member out. Return its path."""
    (path,) = (node.host.root / RECORDS).glob("*.json")
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {how: [0]}) if how in whole else how)
    return path


@pytest.mark.parametrize("how", GARBLED)
def test_a_garbled_record_of_a_device_that_came_home(node: Node, how: str) -> None:
    """Nothing leads to the device: DEL fails until somebody has renamed it."""
    node.add("p")
    path = garble(node, how)
    node.bring("p", "eth0", "dev7")
    node.refused("q", 999, f"there is no device dev0 on the host it may be lent.*{path.name}")
    assert path.name in node.call("STATUS", "").json["msg"]
    node.collect("p")
    for end in ("/run/netns/p", ""):
        answer = node.call("DEL", "p", netns=end)
        assert answer.code == 999 and "the record of device dev0 is garbled" in answer.json["msg"], answer
    assert len(node.leases()) == 2 and path.exists()
    node.host.run("ip", "link", "set", "dev7", "name", "dev0")
    node.delete("p")
    assert node.leases() == [] and not path.exists()


def test_a_collection_removes_garbled_records(node: Node) -> None:
    node.add("p")
    path = garble(node, "{")
    node.collect(name="other")
    assert path.exists()
    answer = node.call("GC", "", {"cni.dev/valid-attachments": []})
    assert answer.status == 0 and f"removed the garbled record /{RECORDS}/{path.name}" in answer.stderr
    assert not path.exists()


def test_records_that_are_unfinished(node: Node) -> None:
    """A call was killed while it wrote one: the device has not moved yet."""
    node.add("p")
    (path,) = (node.host.root / RECORDS).glob("*.json")
    node.delete("p")
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text("{")
    node.delete("p")
    assert not unfinished.exists()


def test_records_are_private(node: Node) -> None:
    node.add("p")
    modes = {path.stat().st_mode & 0o777 for path in (node.host.root / RECORDS).iterdir()}
    assert (node.host.root / RECORDS).stat().st_mode & 0o777 == 0o700 and modes == {0o600}


def test_a_failing_add_leaves_nothing(node: Node) -> None:
    node.netns("p")
    assert node.call("ADD", "p", prefix=DEAF).status == 1
    assert node.is_whole() and node.names("p") == set()
    answer = node.call("ADD", "p", ipam={"type": "host-local", "subnet": "10.1.0.0/30", "rangeStart": "10.9.0.1"})
    assert answer.status == 1 and node.is_whole()


def test_one_of_many_gets_it(node: Node) -> None:
    for number in range(6):
        node.netns(f"p{number}")
    shell = 'for n in 0 1 2 3 4 5; do CNI_CONTAINERID=p$n CNI_NETNS=/run/netns/p$n "$0" </run/config >/run/out$n & done; wait'
    (node.host.root / "run/config").write_text(json.dumps(node.config))
    env = {"CNI_COMMAND": "ADD", "CNI_IFNAME": "eth0", "CNI_PATH": node.host.bin_dir, "PATH": "/usr/bin:/bin"}
    node.host.run("sh", "-c", shell, f"{node.host.bin_dir}/host-device", env=env)
    answers = [json.loads((node.host.root / f"run/out{n}").read_text()) for n in range(6)]
    assert sorted("code" in one for one in answers) == [False, *[True] * 5]
    assert all("is lent to eth0 of container p" in one["msg"] for one in answers if "code" in one)
    assert len(node.records()) == 1 and len(node.leases()) == 2


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("link set eth0 down", "link eth0 is down in /run/netns/p"),
        ("address del 10.1.0.2/24 dev eth0", "address 10.1.0.2/24 is missing on eth0"),
        ("link set eth0 address 02:00:00:00:00:77", "link eth0 has MAC 02:00:00:00:00:77"),
        ("link set eth0 name swp1", "link eth0 is missing in /run/netns/p"),
    ],
)
def test_check_names_each_loss(node: Node, loss: str, words: str) -> None:
    node.add("p")
    node.host.run("sh", "-c", f"ip -n p {loss} || (ip -n p link set eth0 down; ip -n p {loss})")
    assert words in node.check("p")


def test_neighbours_learn_the_new_place(node: Node) -> None:
    """An address that another MAC had is announced."""
    entry = ("neighbour", "replace", "10.1.0.2", "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "stale")
    node.host.run("ip", "-n", "far", *entry)
    node.add("p")
    until(lambda: any(n["lladdr"] == MAC for n in node.host.ip("neighbour", netns="far") if n["dst"] == "10.1.0.2"))


@pytest.mark.parametrize("first", ["ours", "reference"])
def test_hand_over(node: Node, reference_bin: str, first: str) -> None:
    """One suite lends the device, and the other brings it home under its name."""
    ours, theirs = node.host.bin_dir, reference_bin
    adds, deletes = (ours, theirs) if first == "ours" else (theirs, ours)
    node.add("p", cniVersion="1.0.0", bin_dir=adds)
    node.delete("p", cniVersion="1.0.0", bin_dir=deletes)
    assert "dev0" in node.names() and node.names("p") == set()
    if first == "ours":  # the reference does not restore the state, and leaves the record: the next ADD does
        node.add("q")
        node.delete("q")
        assert node.is_whole()


class Cards:
    """A machine's two network cards, which are joined, on a pretend host with a network of the first."""

    MACS = ("52:54:00:00:00:00", "52:54:00:00:00:01")

    def __init__(self, host: PretendHost) -> None:
        self.node = nodes.Node(host, type="host-device", ipam=host_local())
        self.address = self._bring(self.MACS[0], "card0")
        self._bring(self.MACS[1], "card1")
        host.run(
            "sh", "-ec", "ip link set card0 mtu 1400 up; ip link set card1 up; ip address add 10.1.0.200/24 dev card1"
        )
        self.node.config["pciBusID"] = self.address

    def find(self, mac: str) -> str:
        """Return the name of a card in the initial namespace, "" if it is elsewhere."""
        links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
        return next((link["ifname"] for link in links if link.get("address") == mac), "")

    def _bring(self, mac: str, name: str) -> str:
        """Move a card from the initial namespace to the host under a name. Return its PCI address."""
        until(lambda: bool(self.find(mac)))
        found = self.find(mac)
        path = Path(f"/sys/class/net/{found}/device").resolve()
        subprocess.run(["ip", "link", "set", found, "netns", self.node.host.first_pid, "name", name], check=True)
        return next(part for part in reversed(path.parts) if part.count(":") == 2)

    def come_home(self) -> None:
        """Delete the pod's namespace. The kernel moves the card to the initial namespace, which is not this host's."""
        self.node.host.drop_netns("p")
        until(lambda: bool(self.find(self.MACS[0])))

    def arrive(self) -> None:
        """Move the card to the host, as if the host's namespace were the initial one."""
        self._bring(self.MACS[0], "dev7")

    def state(self) -> tuple[int, bool, str]:
        (found,) = self.node.host.ip("link", "show", "card0")
        return found["mtu"], "UP" in found["flags"], found["address"]


@pytest.fixture
def cards(host: PretendHost) -> Cards:
    return Cards(host)


@pytest.mark.kernel_cards
def test_a_card_by_its_pci_address(cards: Cards) -> None:
    result = cards.node.add("p")
    assert result["interfaces"] == [
        {"name": "eth0", "mac": cards.MACS[0], "mtu": 1400, "sandbox": "/run/netns/p", "pciID": cards.address}
    ]
    until(lambda: cards.node.pings("p", "10.1.0.200"))
    cards.node.refused("q", 999, "is lent to eth0 of container p")
    cards.node.host.run("ip", "-n", "p", "link", "set", "eth0", "down")
    cards.node.host.run("ip", "-n", "p", "link", "set", "eth0", "name", "net7", "address", "02:00:00:00:00:07")
    cards.node.delete("p")
    assert cards.state() == (1400, True, cards.MACS[0])


@pytest.mark.kernel_cards
@pytest.mark.parametrize("verb", ["DEL", "GC", "ADD"])
def test_a_card_whose_pod_died(cards: Cards, verb: str) -> None:
    """DEL comes before the kernel has moved the card home: it succeeds, and a later call finds the card."""
    cards.node.add("p")
    cards.come_home()
    answer = cards.node.call("DEL", "p")
    assert answer.status == 0 and "a later call restores it" in answer.stderr
    cards.arrive()
    if verb == "DEL":
        cards.node.delete("p", netns="")
    elif verb == "GC":
        cards.node.collect()
    else:
        cards.node.add("q")
        cards.node.delete("q")
    assert cards.state() == (1400, True, cards.MACS[0])
    assert list((cards.node.host.root / RECORDS).glob("*.json")) == []


def test_status(node: Node) -> None:
    assert node.call("STATUS", "").status == 0
    assert node.call("STATUS", "", device=...).status == 0  # the device plugin chooses one for each pod
    node.add("p", ipam=host_local("10.2.0.0/30"), name="full")
    assert node.call("STATUS", "", ipam=host_local("10.2.0.0/30"), name="full").code == 50
