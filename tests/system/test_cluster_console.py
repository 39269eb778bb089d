"""cnitool cluster, on real etcd and on the Kubernetes server of the tests: it shows the truth, and frees nothing alive."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cli.cluster import pool, release
from shared.cli.cluster.access import Cluster
from shared.cli.commands import parser
from shared.cluster import engines
from shared.cluster.engine import Engine
from shared.cluster.kube_follow import Scope
from shared.cluster.kubernetes import Kubernetes
from shared.cluster.model import Block, Cidr, Kind, Peer, Pool, Range, State
from shared.cluster.settings import Settings
from shared.net.netns import Netns, open_netns
from tests import certificates, etcd
from tests.cluster_contract import Following
from tests.conftest import ROOT
from tests.kube_server import ADMIN, KubeServer, role
from tests.kube_store import User
from tests.pretend import PATH, PretendHost, until
from tests.system.kube_cluster import TIMES, administrator

SCRIPT = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from shared.cli.cnitool import run; sys.exit(run('/none', sys.argv[1:]))"
SETTINGS = "/etc/cni/pycni-cluster.json"
SINCE = time.time() - 90_060  # shown as 1d 1h for almost an hour
PODS = Pool("pods", Kind.ROUTED, (Range(ip_network("10.4.0.0/16"), 24), Range(ip_network("fd04::/48"), 64)))
LAN = Pool("lan", Kind.SEGMENT, (Range(ip_network("192.168.8.0/24"), 28, ip_address("192.168.8.1")),))
FOUR, SIX = ip_network("10.4.3.0/24"), ip_network("fd04:0:0:3::/64")


@dataclass
class Console:
    """A pretend host with an engine, and cnitool there."""

    host: PretendHost
    netns: Netns
    connect: Callable[[], Engine]
    show_node: Callable[[str, str], None]  # gives a machine a sign of life
    kind: str
    empty: Callable[[], None]

    def cnitool(self, *arguments: str, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-c", SCRIPT, "cluster", *arguments]
        env = {"PATH": PATH, "NODE_NAME": "one"}
        done = self.host.run(*command, env=env, check=False, input=stdin)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *arguments: str, status: int = 0, stdin: str = "") -> Any:
        return json.loads(self.cnitool(*arguments, "--json", status=status, stdin=stdin).stdout)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Yield an engine with all rights, in whose network the thread is."""
        with self.netns, closing(self.connect()) as engine:
            yield engine

    def fill(self, *things: Block | Peer | Pool) -> None:
        with self.engine() as engine:
            for thing in things:
                if isinstance(thing, Block):
                    engine.claim(thing)
                elif isinstance(thing, Peer):
                    engine.announce(thing)
                else:
                    engine.write_pool(thing)

    def has(self, cidr: Cidr, network: str = "pods") -> bool:
        with self.engine() as engine:
            return engine.read_block(network, cidr) is not None

    def peers(self) -> dict[str, Any]:
        return {one["node"]: one for one in self.json("peers")["peers"]}

    def write(self, path: str, content: object) -> None:
        self.host.run("mkdir", "-p", str(Path(path).parent))
        self.host.run("tee", path, input=content if isinstance(content, str) else json.dumps(content))


@contextmanager
def etcd_console() -> Iterator[Console]:
    with PretendHost() as host, closing(open_netns(f"/proc/{host.first_pid}/ns/net")) as netns:
        cluster = etcd.Cluster(host, netns)
        with netns:
            cluster.start()

        def show(node: str, uid: str) -> None:
            cluster.put(f"alive/{node}/{uid}", b"")

        console = Console(host, netns, cluster.engine, show, "etcd", cluster.empty)
        console.write(SETTINGS, {"engine": "etcd", "etcd": {"endpoints": cluster.urls}, "networks": {"pods": {}}})
        yield console


@contextmanager
def kube_console(directory: Path) -> Iterator[Console]:
    authority = certificates.make(directory)
    authority.issue("server")
    certificate, key = authority.issue(ADMIN, client=True)
    operator, operator_key = authority.issue("operator", client=True)
    server = KubeServer(directory / "server.crt", directory / "server.key", authority.certificate)
    server.users["operator"] = User("operator", rules=role("pycni-admin"))  # cnitool's credentials
    with PretendHost() as host, closing(open_netns(f"/proc/{host.first_pid}/ns/net")) as netns:
        with netns:
            server.start()
        access = administrator(server, authority.certificate, certificate, key)

        def show(node: str, _uid: str) -> None:
            server.add("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "spec": {}})

        def empty() -> None:
            for objects in server.store.objects.values():
                for name in list(objects):
                    resource = next(one for one, found in server.store.objects.items() if found is objects)
                    server.store.delete(server.admin, resource, name, {})

        console = Console(host, netns, lambda: Kubernetes(access, "one", Scope(), TIMES), show, "kubernetes", empty)
        config = {
            "current-context": "main",
            "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server.url, "certificate-authority": "/etc/cni/ca.crt"}}],
            "users": [{"name": "u", "user": {"client-certificate": "/etc/cni/a.crt", "client-key": "/etc/cni/a.key"}}],
        }
        console.write("/etc/cni/admin.conf", config)
        for name, path in (("ca.crt", authority.certificate), ("a.crt", operator), ("a.key", operator_key)):
            console.write(f"/etc/cni/{name}", path.read_text())
        keys = {"kubeconfig": "/etc/cni/admin.conf"}
        console.write(SETTINGS, {"engine": "kubernetes", "kubernetes": keys, "networks": {"pods": {}}})
        try:
            yield console
        finally:
            server.stop()


@pytest.fixture(scope="module", params=["etcd", "kubernetes"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    if request.param == "etcd":
        with etcd_console() as console:
            yield console
    else:
        with kube_console(tmp_path_factory.mktemp("authority")) as console:
            yield console


@pytest.fixture
def console(running: Console) -> Console:
    """Return a console of an empty cluster."""
    with running.netns:
        running.empty()
    return running


def block(cidr: Cidr = FOUR, node: str = "three", uid: str = "", network: str = "pods") -> Block:
    return Block(network, cidr, node, uid or f"uid-{node}", SINCE)


def peer(node: str = "three", *cidrs: Cidr, uid: str = "", address: str = "192.0.2.3") -> Peer:
    return Peer(node, uid or f"uid-{node}", (ip_address(address),), {"pods": cidrs}, SINCE)


# -- looking


def test_blocks(console: Console) -> None:
    own, reserved = ip_network("10.4.0.0/24"), ip_network("10.4.254.0/23")
    former, renamed, missing = (ip_network(f"10.4.{third}.0/24") for third in (5, 6, 7))
    console.fill(
        PODS, peer("one", own), block(own, "one"), peer("three", FOUR), block(FOUR), block(SIX),
        block(former, "three", "uid-former"), block(renamed, "old-name", "uid-three"), block(missing, "gone"),
        block(reserved, "reserved", "reserved"), block(ip_network("192.168.8.16/28"), "three", network="lan"),
    )  # fmt: skip
    with console.engine() as engine:
        found = engine.read_block("pods", SIX)
        assert found
        engine.update_block(replace(found, state=State.DRAINING))
    shown = {(one["network"], one["cidr"]): one for one in console.json("blocks")["blocks"]}
    assert {cidr: one["note"] for (network, cidr), one in shown.items() if network == "pods"} == {
        str(own): "this node", str(FOUR): "", str(SIX): "", str(former): "another machine has this name now",
        str(renamed): "the machine is node three now", str(missing): "no such node",
        str(reserved): "by an administrator",
    }  # fmt: skip
    assert shown["pods", str(SIX)]["state"] == "draining" and shown["pods", str(former)]["uid"] == "uid-former"
    table = console.cnitool("blocks", "pods").stdout.splitlines()
    assert table[0].split() == ["NETWORK", "CIDR", "NODE", "STATE", "AGE", "UID", "NOTE"]
    assert table[1].split()[:7] == ["pods", "10.4.0.0/24", "one", "owned", "1d", "1h", "uid-one"]
    assert table[-1] == "7 blocks of 5 machines" and len(table) == 9
    assert console.cnitool("blocks", "--node", "gone").stdout.splitlines()[-1] == "1 block of 1 machine"
    assert console.cnitool("blocks", "none").stdout == "no blocks of network none\n"


def test_peers_and_the_ways_to_them(console: Console) -> None:
    """The kernel tells the way; a route to another address than the peer's does not lead to it."""
    near, wrong, far = (ip_network(f"10.4.{third}.0/24") for third in (1, 2, 9))
    console.fill(
        peer("one", address="192.0.2.1"), peer("near", near), peer("wrong", wrong, address="192.0.2.4"),
        peer("far", far, address="198.51.100.9"), peer("idle", address="192.0.2.8"),
    )  # fmt: skip
    with uplink(console.host):
        for cidr in (near, wrong):
            console.host.run("ip", "route", "add", str(cidr), "via", "192.0.2.3", "metric", "2048", "proto", "112")
        found = console.peers()
        table = console.cnitool("peers").stdout.splitlines()
    assert {node: one["way"] for node, one in found.items()} == {
        "one": "this node", "near": "direct", "wrong": "none", "far": "none", "idle": None,
    }  # fmt: skip
    assert table[0].split() == ["NODE", "ADDRESSES", "CIDRS", "WAY", "AGE", "UID"] and table[-1] == "5 nodes"
    assert table[3].split() == ["near", "192.0.2.3", "pods:", "10.4.1.0/24", "direct", "1d", "1h", "uid-near"]


@contextmanager
def uplink(host: PretendHost) -> Iterator[None]:
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    try:
        host.run("ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
        for name in ("up0", "up1"):
            host.run("ip", "link", "set", name, "up")
        yield
    finally:
        host.run("ip", "link", "del", "up0")


def test_pools(console: Console) -> None:
    console.fill(PODS, LAN, block(), block(ip_network("10.9.0.0/24")), block(FOUR, network="lost"))
    lan, pods = console.json("pool")["pools"]
    assert lan["ranges"] == [
        {"cidr": "192.168.8.0/24", "blockLength": 28, "gateway": "192.168.8.1", "size": 16, "free": 16}
    ]
    assert [(one["size"], one["free"]) for one in pods["ranges"]] == [(256, 255), (65536, 65536)]
    assert pods["outside"] == ["10.9.0.0/24"]
    table = console.cnitool("pool", "show").stdout.splitlines()
    assert table[2].split() == ["pods", "routed", "10.4.0.0/16", "/24", "–", "256", "255"]
    assert table[-2:] == [
        "pods: 1 block outside of its ranges: their nodes drain them",
        "lost: 1 block and no pool: `cnitool cluster pool set FILE`",
    ]


@pytest.mark.parametrize("running", ["etcd"], indirect=True)  # an API server admits no such object
def test_an_unreadable_object_is_named(console: Console) -> None:
    with console.netns, closing(console.connect()) as engine:
        engine._write("nodes/two", {"uid": ""})  # type: ignore[attr-defined]  # noqa: SLF001
    done = console.cnitool("peers")
    assert "nodes/two" in done.stderr and "uid" in done.stderr
    assert "nodes/two is unreadable" in console.cnitool("release", "two", status=1).stderr


# -- setting a pool


def value(**fields: object) -> dict[str, Any]:
    return {"network": "pods", "kind": "routed", "ranges": [{"cidr": "10.4.0.0/16", "blockLength": 24}], **fields}


def test_pool_set(console: Console) -> None:
    console.write("/run/pool.json", value())
    assert console.cnitool("pool", "set", "/run/pool.json", "--dry-run").stdout.splitlines() == [
        "pods: 10.4.0.0/16 has 256 blocks of /24, 256 of them free", "nothing is written, because of --dry-run",
    ]  # fmt: skip
    assert console.json("pool")["pools"] == []
    assert console.cnitool("pool", "set", "/run/pool.json").stdout.splitlines()[-1] == "pool pods is written"
    console.fill(block(), peer("three", FOUR))
    wider = value(ranges=[{"cidr": "10.5.0.0/16", "blockLength": 25}, {"cidr": "fd04::/48", "blockLength": 64}])
    done = console.json("pool", "set", "-", stdin=json.dumps(wider))
    assert done == {"pool": wider, "isWritten": True, "outside": [str(FOUR)]}
    (written,) = console.json("pool")["pools"]
    assert [one["cidr"] for one in written["ranges"]] == ["10.5.0.0/16", "fd04::/48"]


RANGE = {"cidr": "10.4.0.0/16", "blockLength": 24}
BAD = {
    "no JSON": ("{", "not JSON"),
    "a list": ("[]", "an object"),
    "an unknown key": (value(ipv6=True), "'ipv6'"),
    "an unknown key of a range": (value(ranges=[{**RANGE, "blocklength": 24}]), r"ranges[0] has the unknown key"),
    "no kind": ({"network": "pods", "ranges": [RANGE]}, "'kind'"),
    "no range": (value(ranges=[]), "ranges is empty"),
    "blocks too long": (value(ranges=[{"cidr": "10.4.0.0/16", "blockLength": 8}]), "ranges[0].blockLength"),
    "blocks without addresses": (value(ranges=[{"cidr": "10.4.0.0/16", "blockLength": 31}]), "shorten blockLength"),
    "a gateway of routed blocks": (value(ranges=[{**RANGE, "gateway": "10.4.0.1"}]), "ranges[0].gateway"),
    "another kind": (value(network="lan"), "give a network of another kind another name"),
    "the addresses of a segment": (value(ranges=[{"cidr": "192.168.0.0/16", "blockLength": 24}]), "of network lan"),
    "a node's address": (
        value(ranges=[{"cidr": "192.0.2.0/24", "blockLength": 28}]),
        "192.0.2.3/32 of node three itself",
    ),
    "another network's CIDRs": (
        value(network="new", ranges=[RANGE]),
        "overlaps 10.4.3.0/24 of node three, network pods",
    ),
}


def test_a_pool_that_harms_is_refused(console: Console) -> None:
    console.fill(LAN, peer("three", FOUR), block(ip_network("192.168.8.16/28"), network="lan"))
    for name, (content, reason) in BAD.items():
        text = content if isinstance(content, str) else json.dumps(content)
        done = console.cnitool("pool", "set", "-", status=1, stdin=text)
        assert reason in done.stderr and done.stdout == "", (name, done.stderr)
    assert [one["network"] for one in console.json("pool")["pools"]] == ["lan"]
    assert "No such file" in console.cnitool("pool", "set", "/run/none", status=1).stderr


# -- releasing


def test_release(console: Console) -> None:
    """Without the id nothing is freed. With it, that machine's blocks and its peer object are."""
    other = ip_network("10.4.8.0/24")
    console.fill(PODS, peer("three", FOUR), block(FOUR), block(SIX), peer("two", other), block(other, "two"))
    plan = console.cnitool("release", "three", status=1).stdout.splitlines()
    assert plan[1].split() == ["uid-three", "2", "yes", "none"]
    assert plan[-1].split() == ["cnitool", "cluster", "release", "three", "--uid", "uid-three"]
    assert (
        "which has uid-three: nothing is released"
        in console.cnitool("release", "three", "--uid", "uid-thre", status=1).stderr
    )
    assert console.has(FOUR) and console.has(SIX) and "three" in console.peers()
    done = console.cnitool("release", "three", "--uid", "uid-three").stdout.splitlines()
    assert done == [
        "removed   the peer object of three: other nodes delete their routes to it",
        "released  10.4.3.0/24 of pods", "released  fd04:0:0:3::/64 of pods", "2 blocks released",
    ]  # fmt: skip
    assert not console.has(FOUR) and not console.has(SIX) and console.has(other) and set(console.peers()) == {"two"}
    again = console.cnitool("release", "three", status=1).stderr
    assert "neither blocks nor a peer object" in again and "the nodes are two" in again


def test_a_living_node_is_not_released(console: Console) -> None:
    console.fill(peer("three", FOUR), block())
    with console.netns:
        console.show_node("three", "uid-three")
    done = console.cnitool("release", "three", "--uid", "uid-three", status=1)
    assert "is not gone" in done.stderr and done.stdout == ""
    (machine,) = console.json("release", "three", status=1)["machines"]
    assert machine["signOfLife"] and machine["blocks"] == [{"network": "pods", "cidr": str(FOUR)}]
    assert console.has(FOUR) and "three" in console.peers()


def test_the_former_machine_of_a_name_is_released(console: Console) -> None:
    """Its successor lives, and keeps its blocks and its peer object."""
    mine = ip_network("10.4.8.0/24")
    console.fill(block(FOUR, uid="former"), block(mine), peer("three", mine))
    with console.netns:
        console.show_node("three", "uid-three")
    machines = {one["uid"]: one for one in console.json("release", "three", status=1)["machines"]}
    assert machines["former"]["successor"] == "uid-three" and not machines["former"]["signOfLife"]
    done = console.json("release", "three", "--uid", "former")
    assert done["released"] == [{"network": "pods", "cidr": str(FOUR)}] and not done["isWithdrawn"]
    assert not console.has(FOUR) and console.has(mine) and "three" in console.peers()


def test_a_renamed_machine_keeps_its_blocks(console: Console) -> None:
    """Only the object of its old name goes: its agent uses or returns the blocks."""
    console.fill(peer("old", uid="u"), block(FOUR, "old", "u"), peer("new", FOUR, uid="u", address="192.0.2.4"))
    with console.netns:
        console.show_node("new", "u")
    done = console.cnitool("release", "old", "--uid", "u").stdout.splitlines()
    assert done[-2:] == [
        "0 blocks released",
        "the machine is node new now, whose agent keeps or gives back its 1 block",
    ]
    assert console.has(FOUR) and set(console.peers()) == {"new"}


def test_addresses_are_reserved_and_released(console: Console) -> None:
    """A reservation may be of any length, and come before the pool. No node may have a block there."""
    assert console.cnitool("pool", "reserve", "lan", "192.168.8.0/29").stdout == "reserved 192.168.8.0/29 of lan\n"
    console.fill(LAN, PODS, block(FOUR))
    assert console.json("pool", "reserve", "pods", "10.4.8.0/23") == {"network": "pods", "reserved": "10.4.8.0/23"}
    assert "in no range of pool pods" in console.cnitool("pool", "reserve", "pods", "10.0.0.0/24").stderr
    for cidr, reason in (
        ("10.4.2.0/23", "block 10.4.3.0/24 of node three"), ("10.4.9.0/24", "of node reserved"), ("10.4.1.1/24", "CIDR"),
    ):  # fmt: skip
        assert reason in console.cnitool("pool", "reserve", "pods", cidr, status=1).stderr
    assert [[one["free"] for one in pool["ranges"]] for pool in console.json("pool")["pools"]] == [[15], [253, 65536]]
    done = console.cnitool("release", "reserved", "--uid", "reserved").stdout.splitlines()
    assert done[-1] == "3 blocks released" and console.has(FOUR)


def test_a_node_claims_addresses_that_are_being_reserved(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    console.fill(PODS)

    def connect(_settings: Settings, _node: str) -> Engine:
        engine = console.connect()
        claim = engine.claim

        def claim_late(reserved: Block) -> Block:
            claim(block(ip_network("10.4.9.0/24")))
            return claim(reserved)

        monkeypatch.setattr(engine, "claim", claim_late)
        return engine

    monkeypatch.setattr(engines, "connect", connect)
    words = ["cluster", "pool", "reserve", "pods", "10.4.8.0/23", "--settings", str(console.host.root / SETTINGS[1:])]
    with console.netns, pytest.raises(pool.InvalidPool, match=r"node three has claimed 10\.4\.9\.0/24 meanwhile"):
        pool.reserve(parser().parse_args(words))
    assert not console.has(ip_network("10.4.8.0/23")) and console.has(ip_network("10.4.9.0/24"))


def test_this_machine_does_not_release_itself(console: Console) -> None:
    """Its agent may be cut off from the engine, without a sign of life there."""
    uid = "ab" * 16
    console.fill(block(FOUR, "one", uid))
    console.write("/var/lib/pycni/agent/uid", uid)
    try:
        assert "it is this machine" in console.cnitool("release", "one", "--uid", uid, status=1).stderr
    finally:
        console.host.run("rm", "-r", "/var/lib/pycni/agent")
    assert console.has(FOUR)


def test_a_release_stops_if_somebody_writes(console: Console) -> None:
    """A machine that was only cut off comes back, and writes its objects."""
    console.fill(peer("three", FOUR, SIX), block(FOUR), block(SIX))
    with console.engine() as engine, Following(engine) as following:
        snapshot = following.until_current()
        cluster = Cluster(Settings({"engine": console.kind, "networks": {"pods": {}}}), "one", engine, snapshot)
        (machine,) = release.find(snapshot, "three")
        engine.update_block(replace(snapshot.blocks["pods", SIX], state=State.DRAINING))
        with pytest.raises(release.Refused, match="1 block released"):
            release._free(machine, cluster, is_json=True)  # noqa: SLF001
        engine.announce(peer("three", SIX))
        with pytest.raises(release.Refused, match="0 blocks released"):
            release._free(machine, cluster, is_json=True)  # noqa: SLF001
    assert not console.has(FOUR) and console.has(SIX) and "three" in console.peers()


NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [{"type": "bridge", "isDefaultGateway": True, "ipam": {"type": "host-local"}}],
}
DUTY = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from shared.cluster import settings
from shared.cluster.duty import Duty
Duty(settings.read(), print).run()
"""


@pytest.mark.parametrize("running", ["etcd"], indirect=True)
def test_status_and_explain(console: Console) -> None:
    """Before the agent, beside it, without the engine, and after the agent."""
    assert '"cluster": true' in console.cnitool("status", status=1).stderr
    console.write("/etc/cni/pycni-agent.json", {"cluster": True})
    assert "has not looked at the cluster yet" in console.json("status", status=1)["msg"]
    assert "no node yet" in console.cnitool("explain", status=1).stderr
    assert not console.host.run("ls", "/var/lib/pycni").stdout
    settings = json.loads(console.host.run("cat", SETTINGS).stdout)
    console.write(SETTINGS, {**settings, "addresses": ["192.0.2.1"]})
    console.write("/etc/cni/pycni/pods.conflist", NETWORK)
    console.fill(PODS, peer("three", FOUR), block())
    with uplink(console.host):
        duty = console.host.popen(sys.executable, "-c", DUTY, env={"PATH": PATH, "NODE_NAME": "one"})
        found: dict[str, Any] = {}

        def is_ready() -> bool:
            done = console.host.run("cat", "/run/pycni/cluster.json", check=False).stdout
            found.update(json.loads(done) if done else {})
            ranges = found.get("networks", {}).get("pods", {}).get("ranges", ())
            return found.get("routes") == 1 and sum(one["isPublished"] for one in ranges) == 2

        until(is_ready)
        until(lambda: "nothing to do" in console.cnitool("explain").stdout)
        status = console.cnitool("status").stdout
        duty.send_signal(signal.SIGSTOP)  # it would set the route again
        console.host.run("ip", "route", "del", str(FOUR))
        before = console.host.snapshot()
        plan = console.cnitool("explain").stdout
        down = {**settings, "etcd": {"endpoints": ["http://127.0.0.1:9"]}, "addresses": ["192.0.2.1"]}
        console.write("/run/down.json", down)
        without = console.json("explain", "--settings", "/run/down.json", "--wait", "0.5")
        assert console.host.snapshot() == before
        duty.kill()
        duty.wait()
    own = next(one["cidr"] for one in found["networks"]["pods"]["ranges"] if "." in one["cidr"])
    assert "engine    etcd, synchronised since " in status and "others    1 nodes, 1 routes, 0 of them" in status
    row = next(line.split() for line in status.splitlines() if own in line)
    assert row == ["pods", "routed", own, "owned", "0", "253", "yes"]
    assert f"has       {own} of pods: 0 leases, in the conflist\n" in plan
    assert "   1      make the kernel have 1 route; set 1: 10.4.3.0/24 via 192.0.2.3 (three)\n" in plan
    assert [one["name"] for one in without["alarms"]] == ["not-synchronised"] and "refused" in str(without["alarms"])
    assert [one["action"] for one in without["actions"]] == ["SetRoutes"]  # of the checkpoint


@pytest.mark.parametrize("running", ["etcd"], indirect=True)
def test_status_of_a_troubled_node(console: Console) -> None:
    state = {
        "node": "one", "uid": "ab" * 16, "engine": "etcd", "isCurrent": False, "failure": "connection refused",
        "since": SINCE, "updated": time.time() - 10, "alarms": [{"name": "block-lost", "about": "x", "text": "gone\x1b"}],
        "networks": {"pods": {"kind": "routed", "ranges": []}}, "peers": 3, "routes": 2, "missingRoutes": 1, "counts": {},
    }  # fmt: skip
    console.write("/run/pycni/cluster.json", state)
    text = console.cnitool("status", status=1).stdout
    assert "not synchronised since " in text and ": connection refused\n" in text and "2 routes, 1 of them" in text
    assert "none yet" in text and text.endswith("alarm     block-lost x: gone\N{REPLACEMENT CHARACTER}\n")
    assert "hangs" not in text
    calm = {**state, "alarms": [], "isCurrent": True, "failure": ""}
    console.write("/run/pycni/cluster.json", {**calm, "updated": time.time() - 10_000})
    assert "the agent has ended, or hangs" in console.cnitool("status", status=1).stdout
    console.write("/run/pycni/cluster.json", calm)
    assert console.json("status")["isStale"] is False
    for garbled in ("", "[]", "{}", json.dumps({**calm, "networks": {"pods": {}}}), json.dumps({**calm, "since": "x"})):
        console.write("/run/pycni/cluster.json", garbled)
        assert "garbled" in console.json("status", status=1)["msg"], garbled


def test_an_engine_that_does_not_answer(console: Console) -> None:
    settings = json.loads(console.host.run("cat", SETTINGS).stdout)
    if console.kind == "etcd":
        settings["etcd"]["endpoints"] = ["http://127.0.0.1:9"]
    else:
        settings["kubernetes"]["server"] = "https://127.0.0.1:9"
    console.write("/run/down.json", settings)
    for command in (["blocks"], ["peers"], ["pool"], ["release", "three", "--uid", "u"]):
        done = console.cnitool(*command, "--settings", "/run/down.json", "--wait", "0.5", status=1)
        assert "was not read in 0.5 seconds" in done.stderr and "refused" in done.stderr, done.stderr
    error = console.json("blocks", "--settings", "/run/none.json", status=1)
    assert "/run/none.json: No such file" in error["msg"]
