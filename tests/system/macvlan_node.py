"""A node with a LAN: the master up0 of the node, and a machine beyond it in the namespace `lan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tests import node as nodes
from tests.node import host_local
from tests.pretend import PretendHost

LAN = """
ip netns add lan
ip link add up0 type veth peer name eth0 netns lan
ip address add 10.1.0.1/24 dev up0
ip address add fd00:1::1/64 dev up0 nodad
ip -n lan address add 10.1.0.254/24 dev eth0
ip -n lan address add fd00:1::fe/64 dev eth0 nodad
ip netns exec lan sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad'
ip link set up0 up
ip -n lan link set lo up
ip -n lan link set eth0 up
until ip link show up0 | grep -q 'state UP' && ip -n lan link show eth0 | grep -q 'state UP'; do sleep 0.05; done
"""


class Node(nodes.Node):
    """A node with a dual-stack network of macvlan on up0."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **nodes.Node.DEFAULTS, "type": "macvlan", "master": "up0", "ipam": host_local(),
    }  # fmt: skip

    def __init__(self, host: PretendHost, **config: Any) -> None:
        super().__init__(host, **config)
        host.run("sh", "-ec", LAN)

    def link(self, pod: str, name: str = "eth0") -> dict[str, Any]:
        """Return a link of a pod, with the attributes of its kind."""
        (found,) = self.host.ip("-d", "link", "show", name, netns=pod)
        return found

    def mode(self, pod: str) -> str:
        return str(self.link(pod)["linkinfo"]["info_data"]["mode"])

    def names(self, pod: str) -> list[str]:
        """Return the names of all links of a pod."""
        return [link["ifname"] for link in self.host.ip("link", "show", netns=pod)]

    def leases(self) -> set[str]:
        """Return the leased addresses of the network."""
        store = self.host.root / "var/lib/cni/networks/net"
        return {path.name for path in store.glob("*") if path.name[0].isdigit() or ":" in path.name}

    def notes(self) -> list[str]:
        """Return the notes of the pods' links."""
        return sorted(path.name for path in (self.host.root / "run/cni/links").glob("*"))

    def is_clean(self) -> bool:
        """Return True if no lease, no note and no link of the host is left."""
        return (self.leases(), self.notes(), self.links("macvlan")) == (set(), [], [])

    def answers(self, address: str) -> bool:
        """Return True if an address answers the node's echo request within a second."""
        return self.host.run("ping", "-n", "-c1", "-W1", address, check=False).returncode == 0
