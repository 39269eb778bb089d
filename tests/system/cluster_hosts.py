"""Three pretend hosts of a cluster on a fabric of veth: a and b share a link, c is behind a router."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from shared.cluster import conflist
from shared.cluster.model import Kind, Pool, Range, Route
from shared.cluster.tunnel import End, mac_of
from tests.fabric import Fabric, PodHost
from tests.network_probes import silent
from tests.pretend import PretendHost

POOL = Pool("pods", Kind.ROUTED, (Range(ip_network("10.244.0.0/16"), 24), Range(ip_network("fd00:244::/48"), 64)))
UNDERLAYS = {"a": (0, 1), "b": (0, 2), "c": (1, 1)}  # number of the network and of the host in it
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


def row(route: Route) -> list[str | bool]:
    """Return a route as READ_ROUTES reads it."""
    return [
        str(route.cidr), route.node, str(route.via), route.is_tunnelled, route.mac, route.key, route.is_refused,
    ]  # fmt: skip


class Member(PodHost):
    """A host of the cluster, with one block of each family, or with several."""

    def __init__(self, host: PretendHost, name: str, fabric: Fabric) -> None:
        super().__init__(host, name)
        self.uid = f"uid-of-{name}"
        self.addresses = fabric.attach(host, *UNDERLAYS[name])
        order = "abc".index(name)
        self.cidrs = [ip_network(f"10.244.{order}.0/24"), ip_network(f"fd00:244:0:{order}::/64")]

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

    def silent(self, pod: str, addresses: Iterable[str], **keys: Any) -> list[str]:
        """Return the addresses that do not answer a pod's echo requests, or the host's own without a pod."""
        return [one for _, one in silent({self.netns(pod): addresses}, **keys)]


@contextmanager
def cluster(bin_dir: Path) -> Iterator[dict[str, Member]]:
    """Yield the members by name; the fabric's host is gone with them."""
    with ExitStack() as stack:
        fabric = stack.enter_context(Fabric(stack.enter_context(PretendHost(bin_dir))))
        yield {name: Member(stack.enter_context(PretendHost(bin_dir)), name, fabric) for name in UNDERLAYS}
