"""A node with a cluster duty to strike: scenes that need its steps, and the state of node and engine.

A scene begins with a settled node and a change. The node's disk, its kernel and the engine are put back to that state
before each strike.
"""

from __future__ import annotations

import json
import math
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from shared.cluster import conflist, routes
from shared.cluster.checkpoint import Checkpoint, Store
from shared.cluster.model import Cidr, Route
from shared.cluster.tunnel import End, mac_of
from shared.net.netns import Netns
from tests.faults import duty_once
from tests.faults.stepper import CONTENT, FILES, MESSAGE, RECEIVE, REPORT, Strike
from tests.pretend import PATH, TREE, Answer, PretendHost
from tests.relay import Relay
from tests.system.cluster_node import BRIDGE, CONFLIST, ClusterNode

POOL = {
    "kind": "routed",
    "ranges": [{"cidr": "10.244.0.0/24", "blockLength": 28}, {"cidr": "fd00:244::/120", "blockLength": 124}],
}
OWN = (ip_address("192.0.2.9"), ip_address("2001:db8::9"))
MEMORY = "var/lib/pycni/agent"
DISK = ("/etc/cni", "/var/lib/cni", "/var/lib/pycni", "/run/pycni")
NETNS = "/run/netns/pod"  # of all pods here: host-local looks only if it exists
FOREIGN = """
ip link add cni0 type bridge; ip link set cni0 up
ip route add 10.9.0.0/16 via 192.0.2.250 proto static
ip -6 route add fd00:9::/64 via 2001:db8::250 proto static
ip route add 10.8.0.0/16 via 192.0.2.250 proto 113 metric 2048
ip netns add pod
mkdir -p /run/pycni /run/kept
"""
NOWHERE = "http://127.0.0.1:9"
METHODS = (b"GET", b"POST", b"PUT", b"DELETE")
COUNTED = MESSAGE | FILES | CONTENT | RECEIVE
FULL, MOST = 10, 13  # pods of one block: with which the next one is claimed, and that it has addresses for
UNUSABLE_TEMPLATE = {**BRIDGE, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}]]}}


def peer(number: int, address: str, *, mac: str = "", six: str = "") -> dict[str, Any]:
    """Return the object of another node, with the blocks of this number of 0 to 15."""
    addresses = [one for one in (address, six) if one]
    cidrs = {"pods": [f"10.244.0.{16 * number}/28", f"fd00:244::{16 * number:x}/124"]}
    return {
        "uid": f"{number:x}" * 32, "addresses": addresses, "since": 1.0, "cidrs": cidrs, **({"vtepMAC": mac} if mac else {})
    }  # fmt: skip


NEAR = peer(15, "192.0.2.77", six="2001:db8::77")
FAR = peer(14, "198.51.100.7", mac="02:00:00:00:00:07")
MOVED = peer(14, "198.51.100.8", mac="02:00:00:00:00:08")


@dataclass(frozen=True)
class State:
    """Everything that a strike can change, and the pods with their addresses."""

    directory: str
    objects: dict[str, Any]
    routes: frozenset[Route]
    gateways: list[str]
    pods: dict[str, list[str]]
    facts: Facts


@dataclass
class Facts:
    """The node and the engine as they are seen at one moment."""

    conflist: str | None
    published: set[Cidr]
    own: dict[Cidr, Any]  # the engine's blocks of this machine
    others: dict[str, Any]  # objects of others in the engine
    peer: Any  # the object of this machine
    routes: set[tuple[Any, ...]]
    foreign: list[str]
    gateways: set[str]


@dataclass(frozen=True)
class Scene:
    """A change to a settled node."""

    base: str  # the scene after which it happens
    change: Callable[[StruckNode], None]
    loses: bool = False  # the engine does not have all blocks that the pods' addresses are of
    drains: bool = False  # the emptiest block is given back: a pod more makes it another one
    is_down: bool = False  # the engine does not answer the struck duty


def run_duty(host: PretendHost, settings: dict[str, Any], *prefix: str, seconds: float = math.inf) -> tuple[int, str]:
    """Run the duty until nothing is left to do, or for some seconds of its clock. Return its exit status and words."""
    words = (sys.executable, "-m", duty_once.__name__, json.dumps(settings), "/run/pycni/cluster.json", str(seconds))
    env = {"PATH": PATH, "PYTHONPATH": TREE, "PYTHONDONTWRITEBYTECODE": "1"}
    done = host.run(*prefix, *words, env=env, check=False)
    return done.returncode, done.stderr


class Losing(Relay):
    """Loses one request, or its answer."""

    def __init__(self, port: int, number: int = 0, *, is_answer: bool = False) -> None:
        self.number, self.is_answer, self.requests = number, is_answer, 0
        super().__init__(port)

    def serve(self, connection: socket.socket) -> None:
        self.is_lossy = False
        super().serve(connection)

    def pass_on(self, data: bytes, server: socket.socket) -> None:
        if data.split(b" ", 1)[0] in METHODS:
            self.requests += 1
            if self.requests == self.number:
                if not self.is_answer:
                    raise ConnectionResetError
                self.is_lossy = True
        super().pass_on(data, server)


class StruckNode(ClusterNode):
    """The node, with etcd in its host."""

    name = "pretend"

    def __init__(self, host: PretendHost, network: Netns, program: Path) -> None:
        super().__init__(host, network)
        host.run("sh", "-ec", FOREIGN)
        self.program = program
        self.pods: dict[str, list[str]] = {}
        self.settled: dict[str, State] = {}  # after the scenes
        self.calls: dict[str, list[str]] = {}  # the names of those that are counted, by scene
        self.kept = 0
        self.said = ""

    def open(self) -> None:
        """Start the engine, with a pool and other nodes."""
        self.start_etcd()
        self.put("pools/pods", POOL)
        for name, one in (("near", NEAR), ("far", FAR)):
            self.put_node(name, one)
        self.settled[""] = self.keep()

    @property
    def endpoint(self) -> str:
        """Return the URL of the engine."""
        return self.etcd.urls[0]

    def put_node(self, name: str, one: dict[str, Any]) -> None:
        """Write another node's object and its blocks."""
        self.put(f"nodes/{name}", one)
        for cidr in one["cidrs"]["pods"]:
            self.put(f"blocks/pods/{cidr}", {"node": name, "nodeUID": one["uid"], "since": 1.0, "state": "owned"})

    # -- the duty

    def run_duty(self, strike: Strike | None = None, *, url: str = "") -> int:
        """Run the duty until nothing is left to do. Return its exit status; `said` has its words."""
        settings = {**self.settings, "graceSeconds": 60, **self.engine_settings(url)}
        status, self.said = run_duty(self.host, settings, *(strike.prefix(self.program) if strike else ()))
        return status

    def engine_settings(self, url: str) -> dict[str, Any]:
        """Return the settings of the engine behind a URL."""
        return {"etcd": {"endpoints": [url or self.endpoint]}}

    def begin_scene(self, name: str) -> State:
        """Make the state in which a scene's duty begins."""
        scene = SCENES[name]
        self.restore(self.settle_scene(scene.base))
        scene.change(self)
        return self.keep()

    def settle_scene(self, name: str) -> State:
        """Return the state after a scene without a strike. Keep the names of the duty's system calls, too."""
        if name not in self.settled:
            self.begin_scene(name)
            status = self.run_duty(Strike(classes=COUNTED), url=NOWHERE if SCENES[name].is_down else "")
            assert status == 0, self.said
            lines = (self.host.root / REPORT[1:]).read_text().splitlines()
            self.calls[name] = [line.partition(" ")[2] for line in lines]
            self.settled[name] = self.keep()
        return self.settled[name]

    # -- pods: leases of the real host-local

    def attach_pod(self, name: str) -> Answer:
        """Lease addresses by the published conflist, as a runtime's ADD does."""
        answer = self._call("ADD", name)
        if answer.status == 0:
            self.pods[name] = [one["address"].partition("/")[0] for one in answer.json["ips"]]
            for one in answer.json["ips"]:  # as bridge does
                gateway = f"{one['gateway']}/{one['address'].partition('/')[2]}"
                self.host.run(
                    "ip", "address", "replace", gateway, "dev", "cni0", *(["nodad"] if ":" in gateway else [])
                )
        return answer

    def delete_pod(self, name: str) -> None:
        answer = self._call("DEL", name)
        assert answer.status == 0, answer
        del self.pods[name]

    def _call(self, verb: str, name: str) -> Answer:
        raw = self.conflist()
        config = {"cniVersion": "1.0.0", "name": raw["name"], "type": "bridge", "ipam": raw["plugins"][0]["ipam"]}
        return self.host.cni("host-local", verb, config, netns=NETNS, container_id=name)

    @contextmanager
    def relay(self, number: int = 0, *, is_answer: bool = False) -> Iterator[Losing]:
        """Put a relay in front of the engine, which loses a request by its number."""
        with self.network, Losing(int(self.endpoint.rpartition(":")[2]), number, is_answer=is_answer) as found:
            yield found

    # -- states

    def checkpoint(self) -> Checkpoint:
        """Return the node's memory; empty before it has one."""
        directory = self.host.root / MEMORY
        return Store(directory).read() if (directory / "uid").exists() else Checkpoint()

    @property
    def uid(self) -> str:
        path = self.host.root / MEMORY / "uid"
        return path.read_text().strip() if path.exists() else ""

    def gateways(self) -> set[str]:
        """Return the addresses of the pods' bridge."""
        found = [one for link in self.host.ip("address", "show", "dev", "cni0") for one in link["addr_info"]]
        return {f"{one['local']}/{one['prefixlen']}" for one in found if one["scope"] == "global"}

    def keep(self) -> State:
        """Keep the present state."""
        self.kept += 1
        directory = f"/run/kept/{self.kept}"
        copies = "; ".join(f"mkdir -p {directory}{path}; cp -a {path}/. {directory}{path}" for path in DISK)
        self.host.run("sh", "-ec", copies)
        with self.network:
            present = routes.read(self.checkpoint().kept_routes)
        return State(directory, self.dump(), present, sorted(self.gateways()), dict(self.pods), self.see())

    def restore(self, state: State) -> None:
        """Put a kept state back."""
        self.pods = dict(state.pods)
        words = [f"find {path} -mindepth 1 -delete; cp -a {state.directory}{path}/. {path}" for path in DISK]
        words += ["ip address flush dev cni0 scope global"]
        words += [f"ip address add {one} dev cni0 {'nodad' if ':' in one else ''}" for one in state.gateways]
        if not state.routes:
            words += ["ip link del pycni.vxlan 2>/dev/null || :"]
        self.host.run("sh", "-ec", "\n".join(words))
        with self.network:
            end = End(mac_of(self.uid or "none"), OWN, tuple(cidr for _, cidr in self.checkpoint().held))
            routes.apply(state.routes, end)
        self.load(state.objects)

    def dump(self) -> dict[str, Any]:
        """Return the engine's objects, to `load` them again."""
        with self.network:
            return {key: kv["value"] for key, kv in self.etcd.keys().items() if not key.startswith("alive/")}

    def load(self, objects: dict[str, Any]) -> None:
        """Make the engine's objects those of a dump, in one transaction."""
        with self.network:
            self.etcd.replace(objects)

    def boot(self) -> None:
        """Lose what a boot loses, and the conflist, too."""
        self.host.run(
            "sh",
            "-c",
            f"rm /{CONFLIST}; ip route flush proto 112; ip -6 route flush proto 112; ip link del pycni.vxlan",
        )

    def see(self) -> Facts:
        """Look at everything."""
        path, uid = self.host.root / CONFLIST, self.uid
        objects = {key: one for key, one in self.objects().items() if not key.startswith("alive/")}
        mine = {key for key, one in objects.items() if one.get("nodeUID", one.get("uid")) == uid}
        own = {
            ip_network(key.removeprefix("blocks/pods/")): objects[key] for key in mine if key.startswith("blocks/pods/")
        }
        with self.network:
            present = {(one.cidr, one.via, one.is_tunnelled, one.mac) for one in routes.read(())}
        foreign = [
            line
            for version in ("-4", "-6")
            for line in self.host.run("ip", version, "route", "show").stdout.splitlines()
            if "proto 112" not in line and "proto kernel" not in line
        ]
        return Facts(
            path.read_text() if path.exists() else None, set(conflist.published(path)), own,
            {key: one for key, one in objects.items() if key not in mine}, objects.get(f"nodes/{self.name}"), present, foreign,
            self.gateways(),
        )  # fmt: skip

    def leases(self) -> set[str]:
        """Return the leased addresses, which are names of files."""
        directory = self.host.root / "var/lib/cni/networks/pods"
        names = [one.name for one in directory.iterdir()] if directory.exists() else []
        return {name for name in names if name[0].isalnum() and not name.startswith(("last", "lock"))}


def inside(addresses: Iterable[str], cidrs: Iterable[Cidr]) -> bool:
    """Return True if each address is in a CIDR."""
    known = list(cidrs)
    return all(any(ip_address(one) in cidr for cidr in known) for one in addresses)


# -- scenes


def fill(node: StruckNode) -> None:
    """Attach pods until another block is needed."""
    attach(node, 0, FULL)


def attach(node: StruckNode, first: int, end: int) -> None:
    for number in range(first, end):
        answer = node.attach_pod(f"p{number}")
        assert answer.status == 0, answer


def empty(node: StruckNode) -> None:
    """Delete pods until one block is enough."""
    for name in [one for one in node.pods if one not in ("p0", "late")]:
        node.delete_pod(name)


def leave_one_behind(node: StruckNode) -> None:
    """Attach a pod from the second block, and delete most pods of the first one."""
    attach(node, FULL, MOST)
    assert node.attach_pod("late").status == 0
    empty(node)


def fill_again(node: StruckNode) -> None:
    """Attach pods until the drained block is needed again."""
    attach(node, 1, FULL)


def delete_last(node: StruckNode) -> None:
    """Delete the last pod of a drained block."""
    node.delete_pod("late")


def change_peers(node: StruckNode) -> None:
    """Remove a near node, move a far one, and add a third."""
    node.delete_key("nodes/near")
    for cidr in NEAR["cidrs"]["pods"]:
        node.delete_key(f"blocks/pods/{cidr}")
    node.put_node("far", MOVED)
    numbers = {cidr.network_address.packed[-1] // 16 for _, cidr in node.checkpoint().held}
    node.put_node("third", peer(min({10, 11, 12} - numbers), "192.0.2.78", six="2001:db8::78"))


def lose_block(node: StruckNode) -> None:
    """Give the block with most pods to another node, as after a mistake of an administrator."""
    lost = next(cidr for cidr in node.checkpoint().held if ip_address(node.pods["p0"][0]) in cidr[1])
    node.put(f"blocks/pods/{lost[1]}", {"node": "far", "nodeUID": FAR["uid"], "since": 1.0, "state": "owned"})


def lose_block_without_template(node: StruckNode) -> None:
    lose_block(node)
    node.write_template(UNUSABLE_TEMPLATE)


def restore_backup(node: StruckNode) -> None:
    """Lose the engine's newest objects: all of this node but one block."""
    for key, value in node.objects().items():
        if key == f"nodes/{node.name}" or (value.get("nodeUID") == node.uid and ":" in key):
            node.delete_key(key)


def boot(node: StruckNode) -> None:
    node.boot()


def do_nothing(node: StruckNode) -> None:
    """Join."""


SCENES = {
    "join": Scene("", do_nothing),
    "grow": Scene("join", fill),
    "shrink": Scene("grow", empty, drains=True),
    "leave one": Scene("grow", leave_one_behind, drains=True),
    "resume": Scene("leave one", fill_again),
    "release": Scene("leave one", delete_last),
    "peers": Scene("join", change_peers),
    "lost": Scene("grow", lose_block, loses=True),
    "lost, no template": Scene("grow", lose_block_without_template, loses=True),
    "restored": Scene("grow", restore_backup, loses=True),
    "boot": Scene("grow", boot, is_down=True),
}
