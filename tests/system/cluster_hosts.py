"""Three pretend hosts of a cluster on a fabric of veth: a and b share a link, c is behind a router."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from shared.cluster import conflist
from shared.cluster.model import Kind, Pool, Range, Route
from shared.cluster.tunnel import End, mac_of
from tests.pretend import PATH, PretendHost

POOL = Pool("pods", Kind.ROUTED, (Range(ip_network("10.244.0.0/16"), 24), Range(ip_network("fd00:244::/48"), 64)))
UNDERLAYS = {"a": (0, 1), "b": (0, 2), "c": (1, 1)}  # number of the network and of the host in it
ROUTER = 254
# The router joins both networks; the first one is a bridge with the ports of a and b.
FABRIC = """
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
ip link add net0 type bridge
ip address add 192.0.0.254/24 dev net0
ip address add 2001:db8:0::254/64 dev net0 nodad
ip link set net0 up
"""
JOIN = "ip link add {port} type veth peer name up0 netns {pid} && ip link set {port} up"
PORTS = {0: "ip link set {port} master net0",
         1: "ip address add 192.0.1.254/24 dev {port} && ip address add 2001:db8:1::254/64 dev {port} nodad"}  # fmt: skip
ATTACH = """
sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1
ip address add 192.0.{net}.{number}/24 dev up0
ip address add 2001:db8:{net}::{number}/64 dev up0 nodad
ip link set up0 up
ip route add default via 192.0.{net}.254
ip route add default via 2001:db8:{net}::254
"""
READ_ROUTES = """
import json, sys
from ipaddress import ip_address, ip_network
from shared.cluster import routes, tunnel
from shared.cluster.model import Route
from shared.cluster.tunnel import End
raw = json.loads(sys.argv[1])
wanted = [Route(ip_network(c), n, ip_address(v), *more) for c, n, v, *more in raw["routes"]]
end = End(raw["mac"], tuple(map(ip_address, raw["addresses"])), tuple(map(ip_network, raw["sources"])), raw["vni"])
"""
APPLY = f"""{READ_ROUTES}
outcome = routes.apply(wanted, end)
is_read_back = routes.read(wanted) == frozenset(wanted) - outcome.missing
print(json.dumps([sorted(str(one.cidr) for one in outcome.missing), outcome.problems, is_read_back]))
"""
PING = "for one in {addresses}; do ping -n -c1 -W10 {options} $one >/dev/null || echo $one; done"


def row(route: Route) -> list[str | bool]:
    """Return a route as READ_ROUTES reads it."""
    return [
        str(route.cidr), route.node, str(route.via), route.is_tunnelled, route.mac, route.key, route.is_refused,
    ]  # fmt: skip


class Member:
    """A host of the cluster, with one block of each family, or with several."""

    def __init__(self, host: PretendHost, name: str, fabric: PretendHost) -> None:
        net, number = UNDERLAYS[name]
        self.host, self.name, self.uid = host, name, f"uid-of-{name}"
        self.addresses = (ip_address(f"192.0.{net}.{number}"), ip_address(f"2001:db8:{net}::{number}"))
        order = "abc".index(name)
        self.cidrs = [ip_network(f"10.244.{order}.0/24"), ip_network(f"fd00:244:0:{order}::/64")]
        self.pods: dict[str, list[str]] = {}  # addresses
        join = f"{JOIN} && {PORTS[net]}".format(port=f"port-{name}", pid=host.first_pid)
        # the machine's processes know both hosts' numbers
        where = ["nsenter", f"--net=/proc/{fabric.first_pid}/ns/net"]
        subprocess.run([*where, "sh", "-euc", join], check=True, capture_output=True)
        host.run("sh", "-euc", ATTACH.format(net=net, number=number))

    @property
    def end(self) -> End:
        return End(mac_of(self.uid), self.addresses, tuple(self.cidrs[:2]))

    def routes(self, *, tunnel: int = 0) -> list[Route]:
        """Return the others' routes to this member, by tunnels over addresses of a family if it is not 0."""
        if tunnel:
            via = next(one for one in self.addresses if one.version == tunnel)
            return [Route(cidr, self.name, via, is_tunnelled=True, mac=mac_of(self.uid)) for cidr in self.cidrs]
        vias = {one.version: one for one in self.addresses}
        return [Route(cidr, self.name, vias[cidr.version], is_tunnelled=False) for cidr in self.cidrs]

    def apply(self, routes: Iterable[Route], **keys: Any) -> tuple[list[str], list[str]]:
        """Set the routes. Return the CIDRs of missing ones, and problems; the others can be read back."""
        missing, problems, is_read_back = json.loads(self.host.python(APPLY, self.words(routes, **keys)))
        assert is_read_back
        return missing, problems

    def words(self, routes: Iterable[Route], **keys: Any) -> str:
        """Return routes and this end as READ_ROUTES reads them."""
        rows = list(map(row, routes))
        end = self.end
        return json.dumps({
            "routes": rows, "mac": end.mac, "addresses": list(map(str, end.addresses)),
            "sources": list(map(str, end.sources)), "vni": end.vni, **keys,
        })  # fmt: skip

    def publish(self, plugin: dict[str, Any], directory: Path, *, mtu: int = 0) -> bool:
        """Write the conflist with this member's blocks, as the agent does."""
        path = directory / f"{self.name}.template"
        path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}))
        target = self.host.root / "etc/cni/net.d/10-pods.conflist"
        exempt = conflist.exempt([POOL])
        return conflist.publish(conflist.read(path, "pods"), target, POOL, self.cidrs, mtu=mtu, unmasqueraded=exempt)

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

    def leases(self) -> set[str]:
        """Return the addresses of the leases in host-local's store."""
        directory = self.host.root / "var/lib/cni/networks/pods"
        return {one.name for one in directory.iterdir() if "." in one.name or ":" in one.name} - {
            "last_reserved_ip.0", "last_reserved_ip.1",
        }  # fmt: skip

    def unreachable(self, pod: str, addresses: Iterable[str], options: str = "") -> list[str]:
        """Return the addresses that do not answer a pod's echo requests, or the host's own without a pod."""
        inside = ("ip", "netns", "exec", pod) if pod else ()
        words = PING.format(addresses=" ".join(addresses), options=options)
        return self.host.run(*inside, "sh", "-c", words).stdout.split()


@contextmanager
def cluster(bin_dir: Path) -> Iterator[dict[str, Member]]:
    """Yield the members by name; the fabric's host is gone with them."""
    with ExitStack() as stack:
        fabric = stack.enter_context(PretendHost(bin_dir))
        fabric.run("sh", "-euc", FABRIC)
        yield {name: Member(stack.enter_context(PretendHost(bin_dir)), name, fabric) for name in UNDERLAYS}


def unreachable(members: Iterable[Member], options: str = "") -> list[tuple[str, list[str]]]:
    """Return each pod from which some pods do not answer, and their addresses."""
    known = list(members)
    every = {address: pod for one in known for pod, addresses in one.pods.items() for address in addresses}
    found = [
        (pod, one.unreachable(pod, [address for address, other in every.items() if other != pod], options))
        for one in known
        for pod in one.pods
    ]
    return [(pod, silent) for pod, silent in found if silent]
