"""Nodes of a cluster: pretend hosts on a fabric with real agents, whose duty follows a real etcd."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from shared.cluster import conflist, routes
from shared.cluster.etcd_gateway import encode
from shared.cluster.model import Kind, Pool, Range
from tests.agent.running import Agent
from tests.etcd import PREFIX, Cluster
from tests.fabric import Fabric, PodHost
from tests.network_probes import inside
from tests.pretend import PretendHost, until

POOL = Pool("pods", Kind.ROUTED, (Range(ip_network("10.244.0.0/16"), 29), Range(ip_network("fd00:244::/48"), 125)))
BRIDGE: dict[str, Any] = {
    "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True, "ipam": {"type": "host-local"},
}  # fmt: skip
AGENT: dict[str, Any] = {"workers": 1, "heal": False, "collect": False, "metrics": "", "cluster": True}
KEPT = ("etc/cni", "var/lib/cni", "var/lib/pycni")  # over a boot
CONFLIST = "etc/cni/net.d/10-pods.conflist"


class Node(PodHost):
    """A host with an agent. Its disk is kept over a boot."""

    agent: Agent

    def __init__(self, site: Site, name: str, link: int, number: int) -> None:
        self.site, self.link, self.number, self.is_on = site, link, number, True
        super().__init__(PretendHost(site.bin_dir), name)
        try:
            self.addresses = site.fabric.attach(self.host, link, number)
        except BaseException:
            self.host.close()
            raise

    def install(self, plugin: dict[str, Any] = BRIDGE, **settings: Any) -> None:
        """Write the settings and the template, as an administrator does."""
        cluster = {"node": self.name, "engine": "etcd", "etcd": {"endpoints": list(self.site.engine.urls)}}
        template = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
        files = {
            "pycni-agent.json": AGENT,
            "pycni-cluster.json": {**cluster, "networks": {"pods": {}}, **settings},
            "pycni/pods.conflist": template,
        }
        for name, content in files.items():
            path = self.host.root / "etc/cni" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))

    def start(self) -> None:
        """Start the agent, and wait until it answers."""
        self.agent = Agent(self.host, idle=AGENT["workers"])

    def boot(self) -> None:
        """Start again with the same disk: without pods, routes and processes. Lose power before, if it has any."""
        self.power_off()
        self._power_on()
        for place in KEPT:
            shutil.copytree(self._disk / place, self.host.root / place, symlinks=True, dirs_exist_ok=True)

    def replace(self) -> None:
        """Put a new machine of this name in the place of the present one."""
        self.power_off()
        self._power_on()
        self.install()

    def power_off(self) -> None:
        """End all that runs, and keep the disk."""
        if not self.is_on:
            return
        shutil.rmtree(self._disk, ignore_errors=True)
        for place in KEPT:
            shutil.copytree(self.host.root / place, self._disk / place, symlinks=True)
        self.pods.clear()
        self.site.fabric.detach(self.link, self.number)
        self.host.close()
        self.is_on = False

    def _power_on(self) -> None:
        self.host = PretendHost(self.site.bin_dir)
        self.site.fabric.attach(self.host, self.link, self.number)
        self.is_on = True

    @property
    def _disk(self) -> Path:
        return self.site.directory / self.name

    @property
    def uid(self) -> str:
        return (self.host.root / "var/lib/pycni/agent/uid").read_text().strip()

    def ranges(self) -> list[str]:
        """Return the blocks that the conflist has."""
        return [str(one) for one in conflist.published(self.host.root / CONFLIST)]

    def cnitool(self, *words: str) -> Any:
        """Run an action of `cnitool cluster`. Return its status and its output, together with its messages."""
        done = self.host.run(f"{self.host.bin_dir}/cnitool", "cluster", *words, check=False)
        return done.returncode, done.stdout + done.stderr

    def is_synchronised(self) -> bool:
        return bool(self.said().get("isCurrent"))

    def is_ready(self) -> bool:
        return {ip_network(one).version for one in self.ranges()} == {4, 6}

    def said(self) -> Any:
        """Return the duty's file; empty before its first step."""
        with suppress(OSError):
            return json.loads((self.host.root / "run/pycni/cluster.json").read_text())
        return {}

    def alarms(self) -> set[str]:
        """Return the names of the alarms now."""
        return {one["name"] for one in self.said().get("alarms", ())}

    def routes(self) -> dict[str, bool]:
        """Return the CIDRs of the agent's routes, and whether they are tunnelled."""
        with inside(self.netns()):
            return {str(one.cidr): one.is_tunnelled for one in routes.read(())}


class Site:
    """The fabric, its etcd, and the nodes by name."""

    def __init__(self, fabric: Fabric, engine: Cluster, bin_dir: Path, directory: Path) -> None:
        self.fabric, self.engine, self.bin_dir, self.directory = fabric, engine, bin_dir, directory
        self.nodes: dict[str, Node] = {}

    def close(self) -> None:
        for node in self.nodes.values():
            node.host.close()

    def add(self, names: str, link: int) -> list[Node]:
        """Add nodes to a link, one for each letter, and start their agents together."""
        made = []
        for name in names:
            made.append(Node(self, name, link, ord(name) - ord("a") + 1))
            self.nodes[name] = made[-1]
            made[-1].install()
        return made

    def start(self, nodes: Iterable[Node] = ()) -> None:
        """Start agents together, all by default, and wait until their networks are ready."""
        chosen = list(nodes) or list(self.nodes.values())
        together(Node.start, chosen)
        self.await_ready(chosen)

    def write_pool(self, pool: Pool) -> None:
        """Write a pool, as an administrator does."""
        with self.fabric.home, closing(self.engine.engine()) as writer:
            writer.write_pool(pool)

    def end_life(self, node: Node) -> None:
        """Have etcd forget the sign of life of a node that is off, as it does after a minute."""
        with self.fabric.home:
            for key in list(self.engine.keys()):
                if key.startswith(f"alive/{node.name}/"):
                    self.engine.call("kv/deleterange", key=encode(f"{PREFIX}{key}".encode()))

    def blocks(self, uid: str) -> set[str]:
        """Return the blocks of a machine in etcd."""
        with self.fabric.home:
            keys = [key for key in list(self.engine.keys()) if key.startswith("blocks/pods/")]
            return {key.removeprefix("blocks/pods/") for key in keys if self.engine.value(key)["nodeUID"] == uid}

    def await_ready(self, nodes: Iterable[Node] = ()) -> None:
        """Wait until nodes, all by default, have ranges of both families."""
        for node in nodes or self.nodes.values():
            wait(node, node.is_ready)

    def await_routes(self, nodes: Iterable[Node] = ()) -> None:
        """Wait until nodes, all by default, have routes to the published blocks of all others."""
        known = list(nodes) or list(self.nodes.values())
        for node in known:
            wanted = {one for other in known if other is not node for one in other.ranges()}
            wait(node, lambda node=node, wanted=wanted: wanted <= node.routes().keys())  # type: ignore[misc]


@contextmanager
def site(bin_dir: Path, directory: Path, *, members: int = 1, pool: Pool = POOL) -> Iterator[Site]:
    """Have a fabric with etcd and a pool."""
    with ExitStack() as stack:
        host = stack.enter_context(PretendHost(bin_dir))
        fabric = stack.enter_context(Fabric(host))
        engine = fabric.add_engine(members)
        found = Site(fabric, engine, bin_dir, directory)
        stack.callback(found.close)
        found.write_pool(pool)
        yield found


def attach_each(nodes: Iterable[Node], *pods: str) -> None:
    """Attach pods on each node, the nodes at the same time. Their names begin with the node's."""

    def attach(node: Node) -> None:
        for pod in pods:
            node.add(f"{node.name}{pod}")

    together(attach, list(nodes))


def together(act: Callable[[Node], object], nodes: Sequence[Node]) -> None:
    """Do something on nodes at the same time."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(act, nodes))


def wait(node: Node, condition: Callable[[], bool]) -> None:
    """Wait for a condition of a node; on failure show the agent's log and the duty's file."""
    try:
        until(condition, seconds=60)
    except AssertionError as error:
        raise AssertionError(f"{node.name}: {error}\n{node.said()}\n{node.agent.log}") from None
