"""tap: programs open it with the rights of the configuration, frames pass, and DEL, GC and failures leave nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from shared.net.owner import Owner
from tests import node as nodes
from tests.node import DEAF, host_local, injected
from tests.pretend import TREE, read_line

# Opens the pod's tap as user argv[1] and group argv[2], with the flags argv[3:], and answers each ARP request with its
# own MAC. It prints `ready`, or the error of the kernel.
PROGRAM = """
import fcntl, os, struct, sys
user, group, *flags = map(int, sys.argv[1:])
tap = os.open("/dev/net/tun", os.O_RDWR)
os.setgroups([]), os.setgid(group), os.setuid(user)
try:
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002 | sum(flags)))
except OSError as error:
    sys.exit(print(error.strerror, flush=True))
print("ready", flush=True)
while True:
    frame = os.read(tap, 2000)
    if frame[12:14] == bytes.fromhex("0806"):
        sender, target, own = frame[22:32], frame[38:42], bytes.fromhex("020000000099")
        os.write(tap, sender[:6] + own + frame[12:20] + bytes.fromhex("0002") + own + target + sender)
"""
IFF_MULTI_QUEUE, IFF_VNET_HDR = 0x0100, 0x4000
OWNER, GROUP, STRANGER = 1234, 5678, 4321


class Node(nodes.Node):
    """A node with a dual-stack network of taps."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {**nodes.Node.DEFAULTS, "type": "tap", "ipam": host_local()}

    def tap(self, pod: str, name: str = "eth0") -> dict[str, Any]:
        """Return a pod's tap as the kernel has it."""
        (found,) = self.host.ip("address", "show", name, netns=pod)
        return found

    def open(self, pod: str, user: int, group: int, *flags: int) -> tuple[Any, str]:
        """Start a program that opens the pod's tap; return it and its first line."""
        inside = ("ip", "netns", "exec", pod, "python3", "-c", PROGRAM, *map(str, (user, group, *flags)))
        process = self.host.popen(*inside)
        return process, read_line(process).decode().strip()

    def notes(self) -> list[str]:
        """Return the files that tell where a tap is."""
        return [path.name for path in (self.host.root / "run/cni/links").glob("*")]

    def leases(self) -> list[str]:
        store = self.host.root / "var/lib/cni/networks/net"
        return sorted(path.name for path in store.glob("*") if path.name[0] in "1f")


def test_result_and_link(node: Node) -> None:
    result = node.add("p", mtu=1400)
    found = node.tap("p")
    assert result["interfaces"] == [{"name": "eth0", "mac": found["address"], "mtu": 1400, "sandbox": "/run/netns/p"}]
    assert {ip["interface"] for ip in result["ips"]} == {0}
    addresses = {f"{one['local']}/{one['prefixlen']}" for one in found["addr_info"] if one["scope"] == "global"}
    assert addresses == {ip["address"] for ip in result["ips"]}
    data = found["linkinfo"]["info_data"]
    assert found["linkinfo"]["info_kind"] == "tun" and found["mtu"] == 1400 and "UP" in found["flags"]
    assert data == {
        "type": "tap", "pi": False, "vnet_hdr": False, "multi_queue": False, "persist": True,
    }, data  # fmt: skip
    assert node.check("p") == ""


def test_no_iproute2(node: Node) -> None:
    """The call makes the tap itself, by one request to the kernel."""
    trace = ("strace", "-f", "-o", "/run/trace", "-e", "trace=execve,ioctl")
    node.add("p", owner=1, group=2, prefix=trace)
    lines = (node.host.root / "run/trace").read_text().splitlines()
    executed = [line for line in lines if "execve(" in line and " = 0" in line]
    assert not [line for line in executed if '/ip"' in line]
    assert sum("TUNSETIFF" in line for line in lines) == 1


def test_frames_pass(node: Node) -> None:
    node.add("p", owner=OWNER)
    process, line = node.open("p", OWNER, 0)
    assert line == "ready"
    assert not node.pings("p", "10.1.0.77")
    neighbours = node.host.ip("neighbour", netns="p")
    assert [one["lladdr"] for one in neighbours if one["dst"] == "10.1.0.77"] == ["02:00:00:00:00:99"]
    process.kill()


@pytest.mark.parametrize(
    ("keys", "user", "group", "words"),
    [
        ({"owner": OWNER}, OWNER, 1, "ready"),
        ({"owner": OWNER}, STRANGER, 1, "Operation not permitted"),
        ({"group": GROUP}, STRANGER, GROUP, "ready"),
        ({"group": GROUP}, STRANGER, 1, "Operation not permitted"),
        ({"owner": OWNER, "group": GROUP}, OWNER, GROUP, "ready"),
        ({"owner": OWNER, "group": GROUP}, OWNER, 1, "Operation not permitted"),
        ({"owner": 0}, STRANGER, 1, "Operation not permitted"),
        ({"group": 0}, STRANGER, 1, "Operation not permitted"),
        ({"group": 0}, STRANGER, 0, "ready"),
    ],
)  # fmt: skip
def test_rights(node: Node, keys: dict[str, int], user: int, group: int, words: str) -> None:
    node.add("p", keys)
    assert node.open("p", user, group)[1] == words
    assert node.check("p", keys) == ""
    assert node.check("p", keys | {"owner": 99}).startswith("owner of eth0 is ")


def test_owner_and_group_lose_no_other_key(node: Node) -> None:
    """The reference drops `mac` and `mtu` then."""
    keys = {"owner": OWNER, "group": GROUP, "mac": "02:00:00:00:00:42", "mtu": 1300}
    node.add("p", keys)
    found = node.tap("p")
    assert (found["address"], found["mtu"], found["linkinfo"]["info_data"]["vnet_hdr"]) == (keys["mac"], 1300, False)


def test_queues(node: Node) -> None:
    node.add("p", multiQueue=True)
    assert [node.open("p", 0, 0, IFF_MULTI_QUEUE)[1] for _ in range(2)] == ["ready", "ready"]
    node.add("q")
    assert node.open("q", 0, 0, IFF_MULTI_QUEUE)[1] == "Invalid argument"
    assert node.open("q", 0, 0, IFF_VNET_HDR)[1] == "ready"
    assert node.check("p", multiQueue=True) == ""
    assert node.check("q", multiQueue=True) == "multiQueue of eth0 is False, not True"


def test_macs(node: Node) -> None:
    own = "02:00:00:00:00:0{}"
    layers: list[dict[str, Any]] = [
        {"mac": own.format(1)},
        {"args": f"IgnoreUnknown=1;MAC={own.format(2)}"},
        {"runtimeConfig": {"mac": own.format(3)}},
    ]
    given: dict[str, Any] = {}
    for number, layer in enumerate(layers, 1):
        given |= layer
        assert node.add(f"p{number}", **given)["interfaces"][0]["mac"] == own.format(number)
    assert node.check("p3", **given) == ""


def test_bridge_in_the_pod(node: Node) -> None:
    node.netns("p")
    node.host.run("ip", "-n", "p", "link", "add", "br0", "type", "bridge")
    node.host.run("ip", "link", "add", "elsewhere", "type", "bridge")
    node.add("p", ipam=..., bridge="br0")
    assert node.tap("p")["master"] == "br0"
    assert node.check("p", ipam=..., bridge="br0") == ""
    node.host.run("ip", "-n", "p", "link", "set", "eth0", "nomaster")
    assert node.check("p", ipam=..., bridge="br0") == "link eth0 is not a port of bridge br0"
    node.delete("p", bridge="br0")
    node.refused("p", 999, "must be a bridge in the pod, /run/netns/p: there is none", bridge="elsewhere")
    node.refused("p", 999, "it is a link of kind tun", bridge="t0", prefix=(
        "sh", "-c", 'ip -n p tuntap add t0 mode tap; "$0"; status=$?; ip -n p link del t0; exit $status',
    ))  # fmt: skip


def test_selinux_context_without_selinux(node: Node) -> None:
    node.refused("p", 2, '"selinuxContext" needs SELinux, which is not enabled here', selinuxContext="a:b:c:s0")
    answer = node.call("STATUS", "", selinuxContext="a:b:c:s0")
    assert answer.code == 50 and "selinuxContext" in answer.json["msg"]


# In place of the executable: the plugin on a node that seems to have SELinux. No kernel here labels the tap; the rest is
# real.
LABELLED = """
import sys
from shared.cni import suite
from shared.net import taps
suite.tree = sys.argv[1]
taps.require_selinux = lambda: None
taps._set_exec_label = lambda context: None
{}
from shared.cni.plugin import serve
sys.exit(serve("plugins.tap") and 1)
"""
HANGS = 'taps.SECONDS, taps.SCRIPT = 3, taps.SCRIPT + "; import time; time.sleep(600)"'
FAILS = "taps.SCRIPT = taps.SCRIPT.replace('taps.main', 'taps.DEVICE = \"/dev/null\"; taps.main')"


def labelled(more: str = "") -> dict[str, Any]:
    """Return the arguments of a call with an SELinux context."""
    prefix = (sys.executable, "-c", LABELLED.format(more), TREE)
    return {"selinuxContext": "a:b:c:s0", "prefix": prefix, "env": {"PYTHONPATH": TREE}}


def test_a_process_of_its_own_creates_a_labelled_tap(node: Node) -> None:
    node.add("p", multiQueue=True, owner=0, group=5678, mtu=1400, **labelled())
    found = node.tap("p")
    data = found["linkinfo"]["info_data"]
    assert (data["multi_queue"], data["persist"]) == (True, True) and "group" in data and "user" in data
    assert found["mtu"] == 1400 and found["address"] == node.results["p"]["interfaces"][0]["mac"]
    node.refused("p", 999, "link eth0 already exists in /run/netns/p", **labelled())
    node.delete("p")
    assert [link["ifname"] for link in node.host.ip("link", netns="p")] == ["lo"]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (HANGS, '"selinuxContext": no tap was created as a:b:c:s0 within 3 seconds'),
        (FAILS, '"selinuxContext": no tap could be created as a:b:c:s0 /dev/null refuses a tap'),
    ],
)
def test_a_failing_process_leaves_no_labelled_tap(node: Node, trouble: str, words: str) -> None:
    """One that hangs has created the tap before, unless the machine is slow."""
    node.refused("p", 999, words, **labelled(trouble))


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_labelled_tap_of_a_killed_call(node: Node, verb: str) -> None:
    """It has the name that the attachment's host link would have, and no alias."""
    node.netns("p")
    node.host.run("ip", "-n", "p", "tuntap", "add", Owner("net", "p", "eth0").host_link, "mode", "tap")
    if verb == "ADD":
        node.add("p", **labelled())
        assert {link["ifname"] for link in node.host.ip("link", netns="p")} == {"lo", "eth0"}
    node.delete("p")
    assert [link["ifname"] for link in node.host.ip("link", netns="p")] == ["lo"]


ORPHAN = """
import os
from shared.net import taps
try:
    taps.main(["eth0", "0", "-", "-", str(os.getppid() + 1)])
except SystemExit as ending:
    print(ending)
"""


def test_no_labelled_tap_for_a_killed_call(node: Node) -> None:
    assert node.host.python(ORPHAN) == "the call that wants the tap has ended\n"
    assert node.links("tun") == []


@pytest.mark.parametrize(
    ("hide", "words"),
    [
        ("mount -t tmpfs tmpfs /dev/net", "/dev/net/tun cannot be opened: No such file or directory.*modprobe tun"),
        (
            "mount -t tmpfs tmpfs /dev/net; mknod /dev/net/tun c 10 201",
            "/dev/net/tun cannot be opened: No such device.*modprobe tun",
        ),
    ],
)
def test_without_the_module(node: Node, hide: str, words: str) -> None:
    node.host.run("sh", "-ec", hide)
    node.refused("p", 999, words)
    answer = node.call("STATUS", "")
    assert answer.code == 50 and "/dev/net/tun" in answer.json["msg"]


@pytest.mark.parametrize("kind", ["veth", "tuntap"])
def test_a_name_that_is_taken(node: Node, kind: str) -> None:
    node.netns("p")
    made = ("tuntap", "add", "eth0", "mode", "tap") if kind == "tuntap" else ("link", "add", "eth0", "type", kind)
    node.host.run("ip", "-n", "p", *made)
    node.refused("p", 999, "link eth0 already exists in /run/netns/p")


def test_the_host_has_a_link_of_that_name(node: Node) -> None:
    node.host.run("ip", "tuntap", "add", "eth0", "mode", "tap")
    node.add("p")
    node.delete("p")
    assert node.links("tun") == ["eth0"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"owner": -1}, '"owner": -1 must be'),
        ({"group": 2**32 - 1}, '"group": 4294967295 must be'),
        ({"owner": "root"}, '"owner": "root" must be'),
        ({"mtu": 67}, '"mtu": 67 must be'),
        ({"mtu": 65535}, "IFLA_MTU=65535"),
        ({"mac": "01:00:00:00:00:00"}, '"mac": "01:00:00:00:00:00" must be'),
        ({"bridge": "a/b"}, '"bridge": "a/b" must be'),
        ({"selinuxContext": "\n"}, '"selinuxContext": .* must be an SELinux context'),
        ({"selinuxContext": "a b"}, '"selinuxContext": .* must be an SELinux context'),
        ({"selinuxContext": "\ud800"}, '"selinuxContext": .* must be an SELinux context'),
    ],
)
def test_values_that_cannot_be_used(node: Node, keys: dict[str, Any], words: str) -> None:
    node.refused("p", 999 if "IFLA" in words else 7, words, keys)


def test_without_ipam(node: Node) -> None:
    result = node.add("p", ipam=...)
    assert "ips" not in result and "UP" in node.tap("p")["flags"]
    assert node.check("p", ipam=...) == ""
    node.delete("p", ipam=...)


def test_a_failing_add_leaves_nothing(node: Node) -> None:
    node.netns("p")
    before = node.host.snapshot(["p"])["pods"]
    assert node.call("ADD", "p", prefix=DEAF).status == 1
    assert (node.host.snapshot(["p"])["pods"], node.leases(), node.notes()) == (before, [], [])


@pytest.mark.parametrize("inside", ["", "link set eth0 name tap7", "link set eth0 address 02:00:00:00:00:77"])
def test_delete(node: Node, inside: str) -> None:
    """The alias leads to a tap that the pod has renamed; DEL comes twice, and to an empty CNI_NETNS."""
    node.add("p")
    node.add("q")
    if inside:
        node.host.run("ip", "-n", "p", *inside.split())
    for _ in range(2):
        node.delete("p")
        assert [link["ifname"] for link in node.host.ip("link", netns="p")] == ["lo"]
    node.delete("q", netns="")
    assert [link["ifname"] for link in node.host.ip("link", netns="q")] == ["lo"]
    assert (node.leases(), node.notes()) == ([], [])
    node.host.drop_netns("q")
    node.delete("q")


def test_delete_leaves_another_attachments_tap(node: Node) -> None:
    node.add("p")
    node.results["q"] = node.results["p"]
    node.delete("q", netns="/run/netns/p")
    node.delete("p", ifname="net1", name="other")
    assert node.tap("p")


def test_a_tap_of_another_suite(node: Node) -> None:
    """Its name and its MAC in the result identify it."""
    node.add("p")
    node.host.run("ip", "-n", "p", "link", "set", "eth0", "alias", "")
    stranger = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/x"}]}
    node.delete("p", prevResult=stranger)
    assert node.tap("p")
    node.delete("p", prevResult=node.results["p"])
    assert [link["ifname"] for link in node.host.ip("link", netns="p")] == ["lo"]


def test_delete_leaves_the_tap_that_made_add_fail(node: Node) -> None:
    """The runtime then calls DEL without a result. The pod also has a link of kind tun without a MAC."""
    node.netns("p")
    for name, mode in (("eth0", "tap"), ("tun0", "tun")):
        node.host.run("ip", "-n", "p", "tuntap", "add", name, "mode", mode)
    node.refused("p", 999, "link eth0 already exists in /run/netns/p")
    node.delete("p")
    assert {link["ifname"] for link in node.host.ip("link", netns="p")} == {"lo", "eth0", "tun0"}


def test_a_collection(node: Node) -> None:
    node.add("p")
    node.add("q")
    node.add("r")
    node.host.drop_netns("p")
    node.collect("q")
    assert [link["ifname"] for link in node.host.ip("link", netns="r")] == ["lo"]
    assert sorted(node.leases()) == sorted(node.addresses("q")) and len(node.notes()) == 1
    assert node.check("q") == ""


def test_another_add_leaves_the_note(node: Node) -> None:
    """It fails, since the tap exists; DEL still finds that tap without CNI_NETNS."""
    node.add("p")
    node.refused("p", 999, "link eth0 already exists in /run/netns/p")
    node.delete("p", netns="")
    assert [link["ifname"] for link in node.host.ip("link", netns="p")] == ["lo"] and node.notes() == []


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("link set eth0 down", "link eth0 is down in /run/netns/p"),
        ("address del 10.1.0.2/24 dev eth0", "address 10.1.0.2/24 is missing on eth0"),
        ("link set eth0 address 02:00:00:00:00:77", "link eth0 has MAC 02:00:00:00:00:77"),
        ("link del eth0", "link eth0 is missing in /run/netns/p"),
    ],
)
def test_check_names_each_loss(node: Node, loss: str, words: str) -> None:
    node.add("p")
    node.host.run("ip", "-n", "p", *loss.split())
    assert words in node.check("p")


def test_status(node: Node) -> None:
    assert node.call("STATUS", "").status == 0
    node.add("p", ipam=host_local("10.2.0.0/30"), name="full")
    assert node.call("STATUS", "", ipam=host_local("10.2.0.0/30"), name="full").code == 50


# The program of a virtual machine at the tap argv[1] of the pod, with the MAC argv[2]: it answers ARP requests and echo
# requests, and prints the length of the longest frame when it ends.
MACHINE = """
import fcntl, os, struct, sys
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1002))
own = bytes.fromhex(sys.argv[2].replace(":", ""))
print("ready", flush=True)
while True:
    frame = os.read(tap, 65536)
    if frame[12:14] == bytes.fromhex("0806") and frame[20:22] == bytes.fromhex("0001"):
        sender, target = frame[22:32], frame[38:42]
        os.write(tap, sender[:6] + own + frame[12:20] + bytes.fromhex("0002") + own + target + sender)
    elif frame[12:14] == bytes.fromhex("0800") and frame[23] == 1 and frame[34] == 8:
        sum = (struct.unpack("!H", frame[36:38])[0] + 0x0800) % 0xFFFF
        reply = bytes(2) + struct.pack("!H", sum) + frame[38:]
        os.write(tap, frame[6:12] + own + frame[12:26] + frame[30:34] + frame[26:30] + reply)
"""
BESIDE = {"type": "tap", "redirect": "tap0", "ipam": ..., "owner": OWNER}
UP0 = "ip link add up0 type veth peer name up0p; ip address add 10.1.0.1/24 dev up0p; ip link set up0 up; ip link set up0p up"
FIRST: dict[str, dict[str, Any]] = {
    "ptp": {"type": "ptp", "ipam": host_local(nodes.V4)},
    "bridge": {"type": "bridge", "isGateway": True, "mtu": 1400, "ipam": host_local(nodes.V4)},
    "macvlan": {"type": "macvlan", "master": "up0", "mtu": 1400, "ipam": host_local(nodes.V4)},
}


def beside(node: Node, first: str) -> dict[str, Any]:
    """Attach the pod `p` by the first plugin, then put a tap beside its interface. Return that result."""
    if first == "macvlan":
        node.host.run("sh", "-ec", UP0)
    before = node.add("p", FIRST[first])
    found: dict[str, Any] = node.add("p", BESIDE, prevResult=before)
    return found


@pytest.mark.parametrize("first", FIRST)
def test_a_machine_beside_an_interface(node: Node, first: str) -> None:
    """Frames of the full MTU pass both ways, and the pod itself gets none; after DEL it gets them again."""
    result = beside(node, first)
    eth0, tap = node.tap("p"), node.tap("p", "tap0")
    assert (tap["address"], tap["mtu"]) == (eth0["address"], eth0["mtu"])
    shown = [
        {"name": one["ifname"], "mac": one["address"], "mtu": one["mtu"], "sandbox": "/run/netns/p"}
        for one in (eth0, tap)
    ]
    assert result["interfaces"][-2:] == shown
    address = result["ips"][0]["address"].partition("/")[0]
    assert address in {one["local"] for one in eth0["addr_info"]}
    ping = ("ping", "-n", "-c1", "-W9", "-Mdo", f"-s{eth0['mtu'] - 28}", address)
    assert node.host.run(*ping, "-W1", check=False).returncode == 1  # no machine is there, and nothing else answers
    machine = node.host.popen("ip", "netns", "exec", "p", sys.executable, "-c", MACHINE, "tap0", eth0["address"])
    assert read_line(machine) == b"ready\n"
    assert node.host.run(*ping).returncode == 0
    assert node.tap("p", "tap0")["addr_info"] == []
    assert node.check("p", BESIDE) == "" and node.check("p", FIRST[first]) == ""
    machine.kill()
    machine.wait()
    for _ in range(2):
        node.delete("p", BESIDE)
    assert [link["ifname"] for link in node.host.ip("link", netns="p")] == ["lo", "eth0"]
    assert node.host.run(*ping).returncode == 0
    node.delete("p", FIRST[first])


def test_a_tap_beside_is_found_by_its_alias(node: Node) -> None:
    """The pod renames it. Without CNI_NETNS, the note of the interface leads to it."""
    beside(node, "macvlan")
    node.host.run("ip", "-n", "p", "link", "set", "tap0", "name", "tap7")
    node.delete("p", BESIDE, netns="")
    assert [link["ifname"] for link in node.host.ip("link", netns="p")] == ["lo", "eth0"]
    assert node.notes()
    node.delete("p", FIRST["macvlan"], netns="")
    assert [link["ifname"] for link in node.host.ip("link", netns="p")] == ["lo"] and node.notes() == []
    node.delete("p", BESIDE)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("ip link del tap0", "tap tap0 is missing in /run/netns/p"),
        ("ip link set tap0 mtu 1000", "tap tap0 has MTU 1000, and eth0 has 1400"),
        ("tc qdisc del dev eth0 ingress", "frames that eth0 receives do not pass to tap0"),
        ("tc qdisc del dev tap0 ingress", "frames that tap0 receives do not pass to eth0"),
    ],
)
def test_check_names_what_a_tap_beside_lost(node: Node, loss: str, words: str) -> None:
    beside(node, "bridge")
    assert node.check("p", BESIDE | {"owner": 1}) == "owner of tap0 is 1234, not 1"
    node.host.run("ip", "netns", "exec", "p", *loss.split())
    assert node.check("p", BESIDE) == words


def test_taps_that_cannot_be_beside(node: Node) -> None:
    for key, value in (("mtu", 1400), ("mac", "02:00:00:00:00:42"), ("bridge", "br0"), ("ipam", host_local())):
        node.refused("p", 7, f'"{key}": .* and "redirect" exclude each other', BESIDE | {key: value})
    node.refused("p", 7, '"redirect": "eth0" is the name of the interface itself', BESIDE | {"redirect": "eth0"})
    node.refused("p", 7, '"prevResult" is required', BESIDE)
    before = node.add("p")
    node.refused("p", 999, "eth0 is a tap itself", BESIDE, prevResult=before)
    node.delete("p")
    loopback = node.add("p", {"type": "loopback", "ipam": ...}, ifname="lo")
    node.refused("p", 999, '"redirect": lo is no Ethernet interface', BESIDE, prevResult=loopback, ifname="lo")
    beside(node, "bridge")
    again = node.results["p"]
    node.refused("p", 999, "link tap0 already exists in /run/netns/p", BESIDE, prevResult=again)


def test_a_failing_add_leaves_no_redirection(node: Node) -> None:
    before = node.add("p", FIRST["bridge"])
    state = node.host.snapshot(["p"])["pods"]
    assert node.call("ADD", "p", BESIDE, prevResult=before, prefix=DEAF).status == 1
    assert node.host.snapshot(["p"])["pods"] == state
    address = before["ips"][0]["address"].partition("/")[0]
    assert node.host.run("ping", "-n", "-c1", "-W1", address, check=False).returncode == 0


@pytest.mark.parametrize("call", ["sendto", "ioctl"])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_call_for_a_tap_beside_is_killed(node: Node, verb: str, call: str) -> None:
    """It dies before each message to the kernel. DEL leaves the interface as it was."""
    before = node.add("p", FIRST["bridge"])
    state = node.host.snapshot(["p"])["pods"]
    keys = {**BESIDE, "prevResult": before}
    for number in range(1, 100):
        if verb == "DEL":
            assert node.call("ADD", "p", keys).status == 0
        status = node.call(verb, "p", keys, prefix=injected(call, "signal=SIGKILL", number)).status
        node.delete("p", BESIDE)
        assert node.host.snapshot(["p"])["pods"] == state, number
        if status == 0:
            break
    assert 2 < number < 99
