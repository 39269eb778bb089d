"""A fabric of veth for pretend hosts: two links with a router between them, a world outside, and an engine.

The router knows the ways to the hosts and to the outside, and none to a pod.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from shared.cluster.model import Address
from shared.net.netns import open_netns
from tests import etcd
from tests.network_probes import Capture, silent
from tests.pretend import PATH, PretendHost

if TYPE_CHECKING:
    from typing import Self

OUTSIDE = {4: "198.51.100.1", 6: "2001:db8:ff::1"}  # of the world outside
# The router has the last address of each link. The link of etcd's members is a third one.
FABRIC = """
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
for number in 0 1 2; do
    ip link add net$number address 02:00:00:00:ff:0$number type bridge  # its own, whichever ports it has
    ip address add 192.0.$number.254/24 dev net$number
    ip address add fd80:$number::254/64 dev net$number nodad
    ip link set net$number up
done
ip netns add outside
ip -n outside link set lo up
ip link add out0 type veth peer name eth0 netns outside
ip link set out0 up
ip -n outside link set eth0 up
ip address add 198.51.100.254/24 dev out0
ip address add 2001:db8:ff::254/64 dev out0 nodad
ip -n outside address add 198.51.100.1/24 dev eth0
ip -n outside address add 2001:db8:ff::1/64 dev eth0 nodad
ip -n outside route add default via 198.51.100.254
ip -n outside route add default via 2001:db8:ff::254
"""
MEMBER = """
ip netns add {name}
ip -n {name} link set lo up
ip link add {name} master net2 type veth peer name eth0 netns {name}
ip link set {name} up
ip -n {name} link set eth0 up
ip -n {name} address add {address}/24 dev eth0
ip -n {name} route add default via 192.0.2.254
"""
JOIN = "ip link add {port} type veth peer name up0 netns {pid} && ip link set {port} master net{link} up"
ATTACH = """
sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1
ip address add 192.0.{link}.{number}/24 dev up0
ip address add fd80:{link}::{number}/64 dev up0 nodad
ip link set up0 up
ip route add default via 192.0.{link}.254
ip route add default via fd80:{link}::254
"""


class PodHost:
    """A pretend host on which a runtime attaches pods to the network `pods`."""

    def __init__(self, host: PretendHost, name: str) -> None:
        self.host, self.name = host, name
        self.pods: dict[str, list[str]] = {}  # addresses

    def cni(self, verb: str, pod: str) -> Any:
        """Have cnitool call the network's plugins for a pod, as a runtime does; return its result."""
        path = f"/run/netns/{pod}"
        if verb == "add":
            self.host.netns(pod)
        variables = {"PATH": PATH, "CNI_PATH": self.host.bin_dir, "NETCONFPATH": "/etc/cni/net.d"}
        words = (f"{self.host.bin_dir}/cnitool", verb, "pods", path, "--container-id", pod)
        out = self.host.run(*words, env=variables).stdout
        return json.loads(out) if out.strip() else None

    def add(self, pod: str) -> list[str]:
        """Attach a pod; return its addresses."""
        self.pods[pod] = [ip["address"].partition("/")[0] for ip in self.cni("add", pod)["ips"]]
        return self.pods[pod]

    def delete(self, pod: str) -> None:
        """Detach a pod, and delete its namespace."""
        self.cni("del", pod)
        self.host.drop_netns(pod)
        del self.pods[pod]

    def netns(self, pod: str = "") -> str:
        """Return the path of a pod's network namespace, or of the host's own, as this process sees it."""
        return f"{self.host.root}/run/netns/{pod}" if pod else f"/proc/{self.host.first_pid}/ns/net"

    def leases(self) -> set[str]:
        """Return the addresses of the leases in host-local's store."""
        directory = self.host.root / "var/lib/cni/networks/pods"
        return {one.name for one in directory.iterdir() if "." in one.name or ":" in one.name} - {
            "last_reserved_ip.0", "last_reserved_ip.1",
        }  # fmt: skip


class Fabric:
    """The router's host, which has the links, the outside and etcd's members in namespaces of its own."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        host.run("sh", "-euc", FABRIC)
        self.netns = f"/proc/{host.first_pid}/ns/net"
        self.home = open_netns(self.netns)
        self.outside = f"{host.root}/run/netns/outside"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.home.close()

    def attach(self, host: PretendHost, link: int, number: int) -> tuple[Address, Address]:
        """Give a host a port on a link. Return the host's addresses."""
        join = JOIN.format(port=f"port{link}-{number}", pid=host.first_pid, link=link)
        # the machine's processes know both hosts' numbers
        where = ["nsenter", f"--net={self.netns}"]
        subprocess.run([*where, "sh", "-euc", join], check=True, capture_output=True)
        host.run("sh", "-euc", ATTACH.format(link=link, number=number))
        return ip_address(f"192.0.{link}.{number}"), ip_address(f"fd80:{link}::{number}")

    def detach(self, link: int, number: int) -> None:
        """Remove a host's port at once; the kernel takes a moment for a host that has ended."""
        self.host.run("ip", "link", "delete", f"port{link}-{number}")

    def add_engine(self, size: int = 1) -> etcd.Cluster:
        """Run etcd; each member has a namespace of its own on a link of their own."""
        places = [etcd.Place(f"192.0.2.{number + 1}", f"m{number}") for number in range(size)]
        for place in places:
            self.host.run("sh", "-euc", MEMBER.format(name=place.netns, address=place.address))
        engine = etcd.Cluster(self.host, self.home, places=places)
        with self.home:
            engine.start()
        return engine

    def capture(self, link: str) -> Capture:
        """Capture the packets of one of the router's links, such as net0 or out0, or of a host's port, such as port0-1."""
        return Capture(self.netns, link)


def silent_pods(hosts: Iterable[PodHost], **keys: Any) -> list[tuple[str, str]]:
    """Have every pod ask every other one. Return those without an answer: namespaces and addresses."""
    pods = {(one.netns(pod), pod): found for one in hosts for pod, found in one.pods.items()}
    asked = {mine[0]: [one for other, found in pods.items() if other != mine for one in found] for mine in pods}
    return silent(asked, **keys)
