"""Row 30: the engine is restored from a backup, or does not answer a node for long.

The nodes' duties run one after another, each with a clock of its own: hours take no time. Pods are attached by the real
plugins, at each moment that the network is ready.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster.checkpoint import Store
from shared.cluster.model import Kind, Pool, Range
from tests.cluster_site import Site, site
from tests.etcd import Member
from tests.fabric import silent_pods
from tests.faults.plugin import Tally
from tests.faults.struck_node import MEMORY, NOWHERE, run_duty

# Five blocks of five addresses, and enough blocks of IPv6.
POOL = Pool("pods", Kind.ROUTED, (
    Range(ip_network("10.244.0.0/27"), 29), Range(ip_network("10.245.0.0/29"), 29), Range(ip_network("fd00:244::/120"), 125),
))  # fmt: skip
RECONNECTION_SECONDS = 20.0  # of each node after an outage, far less than the grace of an empty block
NOT_READY = ("addresses are leased", "no IP ranges specified")
FULL = 4  # pods of a block with which the next one is claimed


class Clocked:
    """A cluster whose duties run when the test wants it."""

    def __init__(self, found: Site) -> None:
        self.site, self.nodes = found, found.nodes
        self.complaints: list[str] = []
        self.looks = 0

    def run(
        self, names: Iterable[str] = (), *, rounds: int = 1, seconds: float = 1e9, is_cut_off: bool = False
    ) -> None:
        """Run the duties of nodes, all by default, in any order; so many times."""
        for _ in range(rounds):
            chosen = [self.nodes[name] for name in names] or list(self.nodes.values())
            random.shuffle(chosen)
            for node in chosen:
                settings = json.loads((node.host.root / "etc/cni/pycni-cluster.json").read_text())
                if is_cut_off:
                    settings["etcd"]["endpoints"] = [NOWHERE]
                status, said = run_duty(node.host, {**settings, "graceSeconds": 60}, seconds=seconds)
                if status:
                    self.complaints.append(f"{node.name}: the duty ends with {status}: {said}")

    def attach(self, name: str, number: int = 1) -> None:
        """Attach pods to a node."""
        node = self.nodes[name]
        for _ in range(number):
            node.add(f"{name}{len(node.pods)}")
        self.look(f"{number} pods more on {name}")

    def attach_each(self, moment: str) -> None:
        """Attach a pod to each node. A node that has no free address refuses it."""
        for node in self.nodes.values():
            try:
                node.add(f"{node.name}{len(node.pods)}")
            except RuntimeError as error:
                node.host.drop_netns(f"{node.name}{len(node.pods)}")
                if not any(text in str(error) for text in NOT_READY):
                    self.complaints.append(f"{moment}: ADD on {node.name}: {error}")
        self.look(moment)

    def look(self, moment: str) -> None:
        """Note each address that two pods have."""
        self.looks += 1
        every = [
            (address, pod) for node in self.nodes.values() for pod, found in node.pods.items() for address in found
        ]
        owners: dict[str, str] = {}
        for address, pod in every:
            if owners.setdefault(address, pod) != pod:
                self.complaints.append(f"{moment}: {pod} and {owners[address]} have {address}")

    def blocks(self) -> dict[str, set[Any]]:
        """Return the blocks of each node in the engine."""
        return {name: {ip_network(one) for one in self.site.blocks(node.uid)} for name, node in self.nodes.items()}

    def settle(self) -> None:
        """Note each block that is lost, and each pod without a block."""
        blocks = self.blocks()
        for name, node in self.nodes.items():
            held = {cidr for _, cidr in Store(node.host.root / MEMORY).read().held}
            if blocks[name] != held:
                self.complaints.append(f"{name} holds {[*map(str, held)]}, in the engine {[*map(str, blocks[name])]}")
            published = {ip_network(one) for one in node.ranges()}
            addresses = [ip_address(one) for found in node.pods.values() for one in found]
            used = {cidr for cidr in held if any(one in cidr for one in addresses)}
            if held - published - used:
                self.complaints.append(f"{name} neither uses nor gives back {[*map(str, held - published - used)]}")
            if published - blocks[name]:
                self.complaints.append(f"{name} publishes {[*map(str, published - blocks[name])]} of others")
            self.complaints += [
                f"{name}: {one} is in no own block" for one in addresses if not any(one in c for c in held)
            ]
        silent = silent_pods(self.nodes.values())
        self.complaints += [f"{pod} does not hear {address}" for pod, address in silent]


@pytest.fixture
def cluster(installed: Path, tmp_path: Path, tally: Tally) -> Iterator[Clocked]:
    """Have nodes a, b and c with a pod each, and two free blocks of IPv4."""
    with site(installed, tmp_path) as found:
        found.write_pool(POOL)
        found.add("abc", 0)
        clocked = Clocked(found)
        clocked.run(rounds=2)
        for name in "abc":
            clocked.attach(name)
        yield clocked
        tally(30, clocked.looks, len(clocked.complaints))
        assert not clocked.complaints, "\n".join(clocked.complaints)


def save(cluster: Clocked, member: Member) -> None:
    with_tool = ("ip", "netns", "exec", "m0", "etcdctl", "--endpoints", member.url, "snapshot", "save", "/run/backup")
    cluster.site.fabric.host.run(*with_tool, env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "ETCDCTL_API": "3"})


def restore(cluster: Clocked, member: Member) -> None:
    """Put the backup in place of the engine's content."""
    member.kill()
    shutil.rmtree(member.data)
    words = ("--name", member.name, "--initial-cluster", cluster.site.engine.names)
    cluster.site.fabric.host.run(
        "etcdctl", "snapshot", "restore", "/run/backup", "--data-dir", f"/run/{member.name}", *words,
        "--initial-advertise-peer-urls", member.peer_url, env={"PATH": "/usr/bin:/bin", "ETCDCTL_API": "3"},
    )  # fmt: skip
    with cluster.site.fabric.home:
        cluster.site.engine.start()


@pytest.mark.row(30)
def test_backup_of_an_hour_ago(cluster: Clocked) -> None:
    """Since the backup, b gave back a block, c claimed one, and d joined: one of them has b's block of before."""
    (member,) = cluster.site.engine.members
    cluster.attach("b", FULL - 1)
    cluster.run("b")
    (first, second) = sorted(one for one in cluster.blocks()["b"] if one.version == 4)
    save(cluster, member)
    for pod in [*cluster.nodes["b"].pods]:
        cluster.nodes["b"].delete(pod)
    cluster.run("b")
    given_back = {first, second} - cluster.blocks()["b"]
    assert len(given_back) == 1
    cluster.attach("c", FULL - 1)
    cluster.site.add("d", 0)
    cluster.run("cd", rounds=2)
    cluster.attach("c", 2)
    cluster.attach("d", 2)
    before = cluster.blocks()
    assert given_back < before["c"] | before["d"], "nothing is free but the block that was given back"
    restore(cluster, member)
    assert given_back < cluster.blocks()["b"]
    cluster.attach_each("before anybody reconnects")
    for _ in range(2):
        cluster.run(seconds=RECONNECTION_SECONDS)
        cluster.attach_each("in the first seconds")
    for _ in range(3):
        cluster.run()
        cluster.look("later")
    cluster.attach_each("in the end")
    cluster.run(rounds=2)
    cluster.settle()


@pytest.mark.row(30)
def test_node_is_cut_off_for_long(cluster: Clocked) -> None:
    """Its agent starts again and again meanwhile, and its conflist is deleted once. The others take all free blocks."""
    c = cluster.nodes["c"]
    routes = c.routes()
    cluster.run("c", rounds=2, is_cut_off=True)
    (c.host.root / "etc/cni/net.d/10-pods.conflist").unlink()
    cluster.attach("a", FULL - 1)
    cluster.attach("b", FULL - 1)
    cluster.run("ab", rounds=2)
    cluster.run("c", is_cut_off=True)
    assert c.routes() == routes
    cluster.attach("c", FULL)  # its only block is full
    cluster.attach("a", 2)
    cluster.attach_each("c is full")
    cluster.run("ab", rounds=2)
    cluster.run("c", rounds=2, is_cut_off=True)
    for pod in [*cluster.nodes["a"].pods]:
        cluster.nodes["a"].delete(pod)
    cluster.run("ab", rounds=2)
    cluster.run(rounds=2)
    cluster.attach("c")
    cluster.run(rounds=2)
    cluster.settle()
