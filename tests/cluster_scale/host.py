"""Measure one node's real agent with many peers: `python -m tests.cluster_scale.host PEERS near|far`, in a pretend host.

Its engine is in memory. Its kernel, files and decisions are the real ones. Prints a JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from shared.cluster import codec
from shared.cluster.checkpoint import Store
from shared.cluster.codec import Content
from shared.cluster.etcd_follow import read_object
from shared.cluster.executor import Executor
from shared.cluster.model import Block, Cidr, Kind, Peer, Pool, Range
from shared.cluster.node import NodeHost
from shared.cluster.settings import Settings
from shared.cluster.tunnel import mac_of

POOL = Pool("pods", Kind.ROUTED, (Range(ip_network("10.0.0.0/8"), 24), Range(ip_network("fd00::/48"), 64)))
OWN = ("172.16.0.1", "fd16::1")
LINKS = {
    "near": ("172.16.0.1/12", "fd16::1/64"),  # all peers are on the node's link
    "far": ("172.16.0.1/31", "fd16::1/127"),  # all peers are behind tunnels
}
LINK = "ip link add up0 type veth peer name up1; ip address add {0} dev up0; ip address add {1} dev up0 nodad; ip link set up0 up; ip link set up1 up"
TEMPLATE = {
    "cniVersion": "1.0.0", "name": "pods",
    "plugins": [{"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local"}}],
}  # fmt: skip
FIRST = 16  # the number of the first peer; those before it have other uses


class MemoryEngine:
    """The content of an engine, as the objects' JSON values."""

    def __init__(self) -> None:
        self.content = Content()
        self.revision = 0

    def put(self, key: str, value: object) -> str:
        self.revision += 1
        data, revision = codec.serialise(value), self.revision
        self.content.put(key, data, lambda: read_object(key, data, revision))
        return str(revision)

    def claim(self, block: Block) -> Block:
        return replace(block, revision=self.put(f"blocks/{block.network}/{block.cidr}", codec.block_value(block)))

    def announce(self, peer: Peer) -> Peer:
        return replace(peer, revision=self.put(f"nodes/{peer.node}", codec.peer_value(peer)))

    def find_life_refusal(self) -> str:
        return ""

    def join_all(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.join(number)

    def join(self, number: int) -> None:
        """Let a peer join with a block of each family."""
        uid, name = f"{number:032x}", f"node-{number:05}"
        cidrs: tuple[Cidr, Cidr] = (
            ip_network((int(ip_address("10.0.0.0")) + (number << 8), 24)),
            ip_network((int(ip_address("fd00::")) + (number << 64), 64)),
        )
        for cidr in cidrs:
            self.claim(Block("pods", cidr, name, uid, 1e9))
        addresses = tuple(ip_address(int(ip_address(first)) + number) for first in OWN)
        self.announce(Peer(name, uid, addresses, {"pods": cidrs}, 1e9, mac_of(uid)))


def resident_mib(name: str = "VmRSS") -> float:
    """Return this process's memory, or with VmHWM its peak so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) / 1024


def timed(call: Callable[[], Any]) -> float:
    """Return the processor time of a call in seconds."""
    began = time.process_time()
    call()
    return time.process_time() - began


def main() -> None:
    """Measure, and print the figures."""
    count, kind = int(sys.argv[1]), sys.argv[2]
    subprocess.run(["sh", "-euc", LINK.format(*LINKS[kind])], check=True)
    directory = Path(tempfile.mkdtemp())
    template, target = directory / "template", directory / "10-pods.conflist"
    template.write_text(json.dumps(TEMPLATE))
    raw = {
        "engine": "etcd", "node": "this", "addresses": list(OWN), "etcd": {"endpoints": ["http://127.0.0.1:2379"]},
        "networks": {"pods": {"template": str(template), "conflist": str(target)}},
    }  # fmt: skip
    settings, store, engine = Settings(raw), Store(directory / "agent"), MemoryEngine()
    before = resident_mib()
    engine.put("pools/pods", codec.pool_value(POOL))
    list_seconds = timed(lambda: engine.join_all(range(FIRST, FIRST + count)))
    listed = resident_mib()
    host = NodeHost(settings, "this", store.uid, directory=directory / "agent")
    executor = Executor(engine, host, store)  # type: ignore[arg-type]
    now = time.monotonic()

    def step() -> None:
        done = executor.step(engine.content.snapshot(is_current=True), now, time.time())
        assert done.done, done.failure
        assert not done.missing

    def decided() -> list[str]:
        found = executor.step(engine.content.snapshot(is_current=True), now, time.time())
        return [type(action).__name__ for action in found.decision.actions]

    join_seconds = timed(step)
    while decided():
        pass
    steady_seconds = timed(step)
    engine.join(FIRST + count)
    change_seconds = timed(step)
    while decided():
        pass
    routes = len(executor.checkpoint.kept_routes)
    print(json.dumps({
        "peers": count + 1, "kind": kind, "routes": routes, "empty_mib": before, "listed_mib": listed,
        "mib": resident_mib(), "peak_mib": resident_mib("VmHWM"), "list_seconds": list_seconds,
        "join_seconds": join_seconds, "steady_seconds": steady_seconds, "change_seconds": change_seconds,
        "ranges": [str(cidr) for cidr in executor.checkpoint.kept_ranges["pods"]],
        "kernel_routes": len(executor.step(engine.content.snapshot(is_current=True), now, time.time()).local.routes),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
