"""bridge: after ADD every host reaches the pod: neighbours with an old MAC, others through the node."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.node import V4, V6, Network, host_local, sysctl
from tests.pretend import PATIENCE, PretendHost

ADDRESSES = ("10.1.0.9", "fd00:1::9")
GATEWAYS = ("10.1.0.1", "fd00:1::1")
PLACES = (None, "other", "lan")  # the host, another pod, a host behind a port of the bridge
# Longer than any test: the kernel takes no other MAC from an ARP message that is not gratuitous for this time.
LOCKTIME = 10**6
# Connects to a closed TCP port, and prints the number of segments that were sent again.
CONNECT = """
import socket, sys
address = sys.argv[1]
def again():
    names, values = [line.split() for line in open("/proc/net/snmp") if line.startswith("Tcp:")]
    return int(values[names.index("RetransSegs")])
before = again()
with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
    client.settimeout(20)
    try:
        client.connect((address, 9))
    except ConnectionRefusedError:
        print(again() - before)
"""


def fixed(number: int = 9) -> dict[str, Any]:
    """Return ranges of one address, which each pod gets in turn."""
    ranges = []
    for subnet, gateway in zip((V4, V6), GATEWAYS, strict=True):
        one = f"{gateway[:-1]}{number}"
        ranges.append([{"subnet": subnet, "rangeStart": one, "rangeEnd": one, "gateway": gateway}])
    return {"type": "host-local", "ranges": ranges}


REUSES: dict[str, dict[str, Any]] = {
    "range": {"ipam": fixed()},
    "ips": {"ipam": host_local(), "runtimeConfig": {"ips": list(ADDRESSES)}},
}


class Node(Network):
    """A node whose bridge has another pod and a port to `lan`; `far` reaches the pods through it."""

    def __init__(self, host: PretendHost, **keys: Any) -> None:
        super().__init__(host, isDefaultGateway=True, **keys)

    def far(self) -> None:
        """Create a host on the other side of the node."""
        self.host.netns("far")
        self._pair("out0", "far")
        for family, near, away, subnet in ((4, "192.168.7.1", "192.168.7.2", V4), (6, "fd07::1", "fd07::2", V6)):
            length = "24" if family == 4 else "64"
            more = ("nodad",) if family == 6 else ()
            self.host.run("ip", "address", "add", f"{near}/{length}", "dev", "out0", *more)
            self.host.run("ip", "-n", "far", "address", "add", f"{away}/{length}", "dev", "eth0", *more)
            self.host.run("ip", "-n", "far", "route", "add", subnet, "via", near)
        # The way to the node is known: nothing but the way to the pod can take time.
        for near in ("192.168.7.1", "fd07::1"):
            self.host.run(*self._in("far"), "ping", "-c1", "-W9", near)

    def lan(self) -> None:
        """Create a host behind a port of the bridge."""
        self.host.netns("lan")
        self._pair("port0", "lan")
        if "uplinks" not in self.config:
            self.host.run("ip", "link", "set", "port0", "master", self.config["bridge"])
        self.host.run("ip", "-n", "lan", "address", "add", "10.1.0.200/24", "dev", "eth0")
        self.host.run("ip", "-n", "lan", "address", "add", "fd00:1::200/64", "dev", "eth0", "nodad")

    def _pair(self, name: str, netns: str) -> None:
        self.host.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", netns)
        self.host.run("ip", "link", "set", name, "up")
        self.host.run("ip", "-n", netns, "link", "set", "eth0", "up")

    def _in(self, place: str | None) -> tuple[str, ...]:
        return () if place is None else ("ip", "netns", "exec", place)

    def reaches(self, place: str | None, address: str) -> bool:
        """Return True if the first and only echo request is answered."""
        ping = (*self._in(place), "ping", "-n", "-c1", f"-W{PATIENCE:.0f}", address)
        return self.host.run(*ping, check=False).returncode == 0

    def lock_neighbours(self) -> None:
        """Make each neighbour keep the MAC that it has just learnt; ordinary ARP messages do not change it."""
        vlan = self.config.get("vlan")
        for place in PLACES if (self.host.root / "run/netns/lan").exists() else PLACES[:2]:
            link = "eth0" if place else f"{self.config['bridge']}.{vlan}" if vlan else self.config["bridge"]
            self.host.run(*self._in(place), "sysctl", "-qw", f"net/ipv4/neigh/{link}/locktime={LOCKTIME}")

    def retransmissions(self, address: str) -> int:
        """Return the number of segments that `far` sent again until the pod answered; fail if it never did."""
        return int(self.host.run(*self._in("far"), sys.executable, "-c", CONNECT, address).stdout)


def unreached(node: Node, places: tuple[str | None, ...] = PLACES) -> list[tuple[str | None, str]]:
    return [(place, one) for place in places for one in ADDRESSES if not node.reaches(place, one)]


@pytest.fixture
def node(host: PretendHost) -> Node:
    """Return a node with neighbours in each place that keep the MACs they learn."""
    crowded = Node(host)
    crowded.add("other")
    crowded.lan()
    crowded.lock_neighbours()
    return crowded


# -- an address goes to another pod


@pytest.mark.row(21)
@pytest.mark.parametrize("reuse", REUSES)
def test_an_address_goes_to_another_pod(node: Node, reuse: str) -> None:
    """Host, other pod and host behind a port know its old MAC, and reach the new pod with their first packet."""
    for pod in ("a", "b", "c"):
        node.add(pod, **REUSES[reuse], name="reused")
        assert unreached(node) == []
        node.delete(pod, **REUSES[reuse], name="reused")


@pytest.mark.row(21)
@pytest.mark.parametrize(
    "keys",
    [{"hairpinMode": True}, {"macspoofchk": True}, {"promiscMode": True}, {"enabledad": True}, {"mtu": 1300},
     {"runtimeConfig": {"mac": "0a:58:0a:01:00:09"}}, {"bridgeNfCallIptables": True}, {"portIsolation": True}],
    ids=lambda keys: next(iter(keys)),
)  # fmt: skip
def test_it_does_so_with_each_key(node: Node, keys: dict[str, Any]) -> None:
    for pod in ("a", "b"):
        more = keys if pod == "b" else {}
        node.add(pod, ipam=fixed(), name="reused", **more)
        assert unreached(node) == []
        node.delete(pod, ipam=fixed(), name="reused", **more)


@pytest.mark.row(21)
def test_the_gateway_address_is_announced_as_well(host: PretendHost) -> None:
    """A host behind a port of the bridge used another gateway before, or this one with another MAC."""
    node = Node(host)
    host.run("sh", "-c", "ip link add cni0 address 02:00:00:00:00:66 type bridge; ip link set cni0 up")
    node.lan()
    host.run("ip", "netns", "exec", "lan", "sysctl", "-qw", f"net/ipv4/neigh/eth0/locktime={LOCKTIME}")
    for gateway, bits in zip(GATEWAYS, (24, 64), strict=True):
        more = ("nodad",) if ":" in gateway else ()
        host.run("ip", "address", "add", f"{gateway}/{bits}", "dev", "cni0", *more)
        host.run("ip", "netns", "exec", "lan", "ping", "-n", "-c9", "-i.2", "-w9", gateway)  # fails if none is answered
    host.run("sh", "-c", "ip address flush dev cni0 scope global; ip link set cni0 address 02:00:00:00:00:77")
    node.add("a")
    assert [gateway for gateway in GATEWAYS if not node.reaches("lan", gateway)] == []


@pytest.mark.row(21)
def test_a_host_behind_an_uplink_learns_pod_and_gateway(host: PretendHost) -> None:
    """The node was restarted and has only new MACs; the host behind the uplink was not."""
    node = Node(host, uplinks=["port0"])
    node.lan()
    host.run("ip", "netns", "exec", "lan", "sysctl", "-qw", f"net/ipv4/neigh/eth0/locktime={LOCKTIME}")
    for address in (*ADDRESSES, *GATEWAYS):
        stale = ("neighbour", "add", address, "lladdr", "02:00:00:00:00:66", "dev", "eth0", "nud", "reachable")
        host.run("ip", "-n", "lan", *stale)
    node.add("a", ipam=fixed())
    assert [address for address in (*ADDRESSES, *GATEWAYS) if not node.reaches("lan", address)] == []


@pytest.mark.row(21)
def test_a_pod_keeps_announcing_by_itself(node: Node) -> None:
    """It announces a later change of its MAC."""
    node.add("a", ipam=fixed())
    assert unreached(node) == []
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    assert unreached(node) == []


@pytest.mark.row(21)
def test_tuning_announces_a_new_mac(node: Node, host: PretendHost) -> None:
    """It announces one even on an interface that the kernel does not announce."""
    for number, switch in enumerate(("1", "0")):
        pod = f"a{number}"
        result = node.add(pod, ipam=fixed(), name="reused")
        for path in ("ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"):
            host.run("ip", "netns", "exec", pod, "sysctl", "-qw", f"net/{path}={switch}")
        assert unreached(node) == []
        config = {"cniVersion": "1.1.0", "name": "reused", "type": "tuning", "mac": f"02:00:00:00:00:5{number}",
                  "prevResult": result}  # fmt: skip
        answer = host.cni("tuning", "ADD", config, netns=node.netns(pod), container_id=pod)
        assert (answer.status, answer.stderr) == (0, ""), answer
        assert unreached(node) == []
        node.delete(pod, ipam=fixed(), name="reused")


def test_an_announcement_that_cannot_be_sent(host: PretendHost) -> None:
    """ADD does not fail: the pod works, and its neighbours learn the MAC later."""
    node = Node(host)
    config = json.dumps({**node.config})
    netns = host.netns("a")
    # without the capability for packet sockets, on a node with read-only sysctls
    drop = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", "--")
    prepare(host, "a")
    read_only(host)
    answer = host.cni("bridge", "ADD", config, netns=netns, container_id="a", prefix=drop)
    assert answer.status == 0, answer
    assert "cannot announce the addresses of eth0" in answer.stderr
    assert node.pings("a", GATEWAYS[0])


# -- the first pod, from outside


@pytest.mark.row(22)
@pytest.mark.parametrize("there", ["no bridge", "a bridge without ports", "a bridge that lost its ports", "a bridge"])
def test_the_first_pod_is_reached_from_outside_at_once(host: PretendHost, there: str) -> None:
    """The node forwards the first segment, in both families; it asks for the pod's MAC by its link-local address."""
    node = Node(host)
    node.far()
    if there != "no bridge":
        host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 up")
    if there == "a bridge that lost its ports":
        host.run("sh", "-c", "ip link add p type veth peer name p1; ip link set p master cni0; ip link set p up; "
                             "ip link set p1 up; ip link del p")  # fmt: skip
    if there == "a bridge":
        host.run("sh", "-c", "ip link add p type veth peer name p1; ip link set p master cni0; ip link set p up; "
                             "ip link set p1 up")  # fmt: skip
    node.add("a", ipam=fixed())
    assert {address: node.retransmissions(address) for address in reversed(ADDRESSES)} == dict.fromkeys(ADDRESSES, 0)


@pytest.mark.row(22)
def test_all_of_several_first_pods_are_reached(host: PretendHost) -> None:
    """Several ADDs run at once; some of them find the bridge that another has made."""
    node = Node(host)
    node.far()
    config = {**node.config, "cniVersion": "1.0.0"}
    processes = []
    for number in range(2, 6):
        netns = host.netns(f"p{number}")
        env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": f"p{number}", "CNI_NETNS": netns, "CNI_IFNAME": "eth0",
               "CNI_PATH": host.bin_dir, "PATH": "/usr/bin:/bin"}  # fmt: skip
        process = host.popen(f"{host.bin_dir}/bridge", env=env)
        assert process.stdin is not None
        process.stdin.write(json.dumps({**config, "ipam": fixed(number)}).encode())
        process.stdin.close()
        process.stdin = None
        processes.append(process)
    for process in processes:
        out, _ = process.communicate(timeout=60 * PATIENCE)
        assert process.returncode == 0, out
    again = {number: node.retransmissions(f"fd00:1::{number}") for number in range(2, 6)}
    assert again == dict.fromkeys(range(2, 6), 0)


@pytest.mark.row(22)
def test_with_detection_add_waits_for_the_link_local_address(host: PretendHost) -> None:
    node = Node(host, enabledad=True)
    node.far()
    node.add("a", ipam=fixed())
    assert node.retransmissions("fd00:1::9") == 0
    assert sysctl(host, "ipv6/conf/cni0/accept_dad") == "1"


@pytest.mark.row(21, 22)
@pytest.mark.kernel_vlan
def test_the_gateway_of_a_vlan(host: PretendHost) -> None:
    """Its port has a link-local address of its own, and both of its ends have to be up."""
    node = Node(host, vlan=100)
    node.far()
    node.add("a", ipam=fixed(), name="reused")
    assert {address: node.retransmissions(address) for address in reversed(ADDRESSES)} == dict.fromkeys(ADDRESSES, 0)
    node.add("other")
    node.lock_neighbours()
    assert unreached(node, PLACES[:2]) == []
    node.delete("a", ipam=fixed(), name="reused")
    node.add("b", ipam=fixed(), name="reused")
    assert unreached(node, PLACES[:2]) == []


def test_a_strangers_bridge_keeps_its_detection(host: PretendHost) -> None:
    host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 up")
    node = Node(host)
    node.add("a")
    assert sysctl(host, "ipv6/conf/cni0/accept_dad") == "1"
    node.add("b", bridge="cni1")
    assert sysctl(host, "ipv6/conf/cni1/accept_dad") == "0"


def test_a_bridge_without_a_link_local_address(host: PretendHost) -> None:
    """ADD has nothing to wait for."""
    host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 addrgenmode none up")
    node = Node(host)
    node.add("a")
    assert node.pings("a", "fd00:1::1")
    host.run("ip", "address", "flush", "dev", "cni0", "scope", "link")
    node.add("b")
    assert node.pings("b", "fd00:1::1")


# -- the bridge's MAC


MAC = "7e:00:00:00:00:01"  # higher than most


@pytest.mark.parametrize("state", ["down", "up", "with its gateway address", "with a port"])
def test_a_bridge_that_was_there_keeps_its_mac(host: PretendHost, state: str) -> None:
    """A monitor sees the same MAC from the moment that the port joins."""
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    if state != "down":
        host.run("ip", "link", "set", "cni0", "up")
    if state == "with its gateway address":
        host.run("sh", "-c", "ip address add 10.1.0.1/24 dev cni0; ip address add fd00:1::1/64 dev cni0 nodad")
    if state == "with a port":
        host.run("sh", "-c", f"ip link add port0 address {MAC} type veth peer name port1; ip link set port1 up; "
                             "ip link set port0 master cni0; ip link set port0 up")  # fmt: skip
    before = host.ip("link", "show", "cni0")[0]["address"]
    node = Node(host)
    monitor = host.popen("ip", "-o", "monitor", "link", "dev", "cni0")
    result = node.add("a")
    monitor.terminate()
    seen = monitor.communicate()[0].decode().split("link/ether ")[1:]
    assert {line.split()[0] for line in seen} <= {before}
    assert result["interfaces"][0]["mac"] == before
    for pod in ("b", "c"):
        node.add(pod)
    for pod in ("a", "b", "c"):
        node.delete(pod)
        assert host.ip("link", "show", "cni0")[0]["address"] == before


def test_neighbours_survive_the_next_add(host: PretendHost) -> None:
    """The kernel forgets a link's neighbours when its MAC is set: only the first ADD sets it."""
    host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 up")
    node = Node(host)
    node.add("a")
    host.run("ip", "neighbour", "add", "10.1.0.77", "lladdr", MAC, "dev", "cni0", "nud", "permanent")
    node.add("b")
    assert host.ip("neighbour", "show", "10.1.0.77")


def test_a_port_of_another_keeps_its_precedence(host: PretendHost) -> None:
    """At layer 2 ADD sets no MAC: a bridge that took its MAC from a link of the node keeps it."""
    host.run("sh", "-c", f"ip link add cni0 type bridge; ip link set cni0 up; ip link add port0 address {MAC} type veth "
                         "peer name port1; ip link set port1 up; ip link set port0 master cni0 up")  # fmt: skip
    node = Node(host)
    for number in range(4):
        node.add(f"p{number}", ipam=..., isDefaultGateway=False)
        assert host.ip("link", "show", "cni0")[0]["address"] == MAC
    ports = [link["address"] for link in host.ip("link", "show", "master", "cni0") if link["ifname"] != "port0"]
    assert {address[:2] for address in ports} == {"fe"}


# -- the pod's interface


def test_ipv6_addresses_survive_a_link_that_was_down(host: PretendHost) -> None:
    node = Node(host)
    node.add("a", ipam=fixed())
    host.run("sh", "-c", "ip -n a link set eth0 down; ip -n a link set eth0 up")
    assert set(node.kernel_addresses("a")) == {"10.1.0.9/24", "fd00:1::9/64"}
    assert node.pings("a", "fd00:1::1")


@pytest.mark.parametrize("keys", [{}, {"ipam": host_local(V4)}, {"ipam": ..., "isDefaultGateway": False}],
                         ids=["dual stack", "IPv4", "layer 2"])  # fmt: skip
def test_the_pods_link_is_up(host: PretendHost, keys: dict[str, Any]) -> None:
    """It is up even if it has the index of its other end; the kernel then reports carrier once a second at most."""
    node = Node(host)
    for pod in ("a", "even"):
        host.netns(pod)
    host.run("sh", "-c", "ip link add even index 77 type veth peer name even1 index 77 netns even; "
                         "ip -n even link set even1 up; ip link set even up")  # fmt: skip
    node.add("a", **keys)
    # asked by netlink for the state, newer kernels bring it up to date first
    assert host.run("ip", "netns", "exec", "a", "cat", "/sys/class/net/eth0/operstate").stdout == "up\n"
    port = node.host_link("a")
    assert port["operstate"] == "UP" and port["ifindex"] == host.ip("link", "show", "eth0", netns="a")[0]["ifindex"]


# -- a node with a read-only /proc/sys


def prepare(host: PretendHost, *pods: str) -> None:
    """Set the sysctls that a node with a read-only /proc/sys needs, on the host and in its pods."""
    for path in ("ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1"):
        host.run("sysctl", "-qw", f"net/{path}")
    for pod in pods:
        host.run("ip", "netns", "exec", pod, "sysctl", "-qw", "net/ipv6/conf/default/accept_ra=0")


def read_only(host: PretendHost) -> None:
    host.run("sh", "-c", "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys")
    assert host.run("sysctl", "-qw", "net/ipv4/ip_forward=1", check=False).returncode


@pytest.mark.parametrize("subnets", [(V4,), (V4, V6)], ids=["IPv4", "dual stack"])
def test_read_only_sysctls_that_are_right(host: PretendHost, subnets: tuple[str, ...]) -> None:
    """ADD succeeds, and all reach the pod: neighbours with an old MAC, and hosts outside."""
    node = Node(host)
    node.far()
    pods = ["other", "a", "b"]
    for pod in pods:
        host.netns(pod)
    prepare(host, *pods)
    read_only(host)
    node.add("other", ipam=host_local(*subnets))
    one = fixed()
    one["ranges"] = one["ranges"][: len(subnets)]
    own = ADDRESSES[: len(subnets)]
    for pod in ("a", "b"):
        node.add(pod, ipam=one, name="reused")
        assert [node.retransmissions(address) for address in own] == [0] * len(subnets)
        assert [address for address in own if not node.reaches("other", address)] == []
        assert node.check(pod, ipam=one, name="reused") == ""
        node.delete(pod, ipam=one, name="reused")


WRONG = {
    "ip_forward": ("net/ipv4/ip_forward", "0", "1", "sysctl -w net/ipv4/ip_forward=1"),
    "forwarding": ("net/ipv6/conf/all/forwarding", "0", "1", "sysctl -w net/ipv6/conf/all/forwarding=1"),
    "pod's accept_ra": ("net/ipv6/conf/eth0/accept_ra", "1", "0", "net/ipv6/conf/default/accept_ra=0"),
    "bridge's accept_ra": ("net/ipv6/conf/cni0/accept_ra", "2", "0", "net/ipv6/conf/default/accept_ra=0"),
    "disable_ipv6": ("net/ipv6/conf/lo/disable_ipv6", "1", "0", "net/ipv6/conf/default/disable_ipv6=0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_read_only_sysctls_that_are_wrong(host: PretendHost, wrong: str) -> None:
    """The error names the sysctl, its value, the required value and the remedy; nothing is left."""
    path, value, wanted, remedy = WRONG[wrong]
    node = Node(host)
    host.netns("a")
    prepare(host, *([] if wrong == "pod's accept_ra" else ["a"]))
    inside = ("ip", "netns", "exec", "a")
    if wrong == "disable_ipv6":
        host.run(*inside, "sysctl", "-qw", "net/ipv6/conf/all/disable_ipv6=1", "net/ipv6/conf/default/disable_ipv6=1")
    elif "bridge" in wrong:
        host.run("sysctl", "-qw", f"net/ipv6/conf/default/accept_ra={value}")
    elif "pod" not in wrong:
        host.run("sysctl", "-qw", f"{path}={value}", "net/ipv6/conf/default/accept_ra=0")
    read_only(host)
    words = rf"cannot set the sysctl {path}: it is {value}, and must be {wanted} .*Read-only.*{remedy}.*remount,rw"
    node.refused("a", 999, words)
    assert not host.ip("link", "show", "type", "veth") and not host.ip("link", "show", "type", "bridge")


@pytest.mark.parametrize("why", ["disabled", "forwarding", "without IPv6"])
def test_read_only_sysctls_that_are_no_danger(host: PretendHost, why: str) -> None:
    """A link that forwards, or has no IPv6, accepts no router advertisements."""
    node = Node(host)
    host.netns("a")
    host.run("sysctl", "-qw", "net/ipv4/ip_forward=1")
    for place in ((), ("ip", "netns", "exec", "a")):
        if why == "without IPv6":
            host.run(
                *place, "sysctl", "-qw", "net/ipv6/conf/all/disable_ipv6=1", "net/ipv6/conf/default/disable_ipv6=1"
            )
        elif why == "disabled":
            host.run(*place, "sysctl", "-qw", "net/ipv6/conf/default/disable_ipv6=1")
        else:
            host.run(*place, "sysctl", "-qw", "net/ipv6/conf/all/forwarding=1")
    read_only(host)
    node.add("a", ipam=host_local(V4))
    assert node.pings("a", GATEWAYS[0])
