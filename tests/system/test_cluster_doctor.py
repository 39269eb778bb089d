"""cnitool doctor and show on a node of a cluster: silent on a healthy one, and right about each trouble."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from shared.cluster.model import Alarm
from shared.cluster.tunnel import Tables, neighbour_limits
from shared.net.netns import open_netns
from tests.pretend import PretendHost
from tests.system.cluster_node import POOL, REPORT, SETTINGS, ClusterNode
from tests.system.test_cluster_duty import OTHER
from tests.system.test_doctor import CONF_DIR, DOCTOR, PYTHON, RUNTIME

SMALL = {"kind": "routed", "ranges": [{"cidr": "10.244.0.0/27", "blockLength": 28}, POOL["ranges"][1]]}
SHOW = """
import sys
from shared.cli import commands
from shared.cli.view import show
sys.exit(show.run(commands.parser().parse_args(sys.argv[1:])))
"""
MOST_ROUTES = 8192  # of a test
CHECKS = ("settings", "cluster", "engine", "neighbours")


@pytest.fixture(scope="module")
def node(installed: Any) -> Iterator[ClusterNode]:
    """Return a node with two pods, whose agent has joined a cluster; its address is unique there."""
    with PretendHost(installed) as host:
        netns = open_netns(f"/proc/{host.first_pid}/ns/net")
        node = ClusterNode(host, netns)
        node.start_etcd()
        node.put("pools/pods", POOL)
        node.put("nodes/other", OTHER)
        node.begin()
        node.until(lambda: [len(one) for one in node.published()] == [1, 1])
        node.until(lambda: node.report().get("isCurrent") and not node.report()["alarms"])
        node.until(lambda: len(node.routes()) == 2)
        node.host.run(sys.executable, "-c", RUNTIME, node.host.bin_dir, "1", "2", "1", env=PYTHON)
        node.until(lambda: [one["used"] for one in node.ranges()] == [2, 2])
        yield node
        netns.close()


@contextmanager
def stopped(node: ClusterNode) -> Iterator[None]:
    """Keep the agent from looking."""
    assert node.duties is not None
    node.duties.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.duties.process.send_signal(signal.SIGCONT)


def findings(node: ClusterNode, *checks: str) -> list[dict[str, str]]:
    """Return the findings of these checks, all by default."""
    command = [sys.executable, "-c", DOCTOR, "doctor", "--json", "--bin-dir", node.host.bin_dir, "--conf-dir", CONF_DIR]
    done = node.host.run(*command, check=False, env=PYTHON, timeout=120)
    assert done.stderr == "", done.stderr
    return [one for one in json.loads(done.stdout)["findings"] if one["check"] in (checks or (one["check"],))]


def described(node: ClusterNode, *checks: str) -> list[str]:
    return [f"{one['severity']} {one['check']} {one['where']}" for one in findings(node, *(checks or CHECKS))]


def test_a_healthy_node_with_pods(node: ClusterNode) -> None:
    assert [one for one in findings(node) if one["severity"] != "note"] == []


def test_machines_that_are_gone(node: ClusterNode) -> None:
    """A machine that has been replaced is one of them, though a node has its name."""
    block = {"node": "other", "nodeUID": "former", "since": 1.0, "state": "owned"}
    node.put("blocks/pods/10.244.250.0/28", block)
    node.put("blocks/pods/10.244.251.0/28", {**block, "node": "reserved", "nodeUID": "reserved"})
    try:
        (found,) = findings(node, "engine")
        assert found["severity"] == "warning" and found["where"] == "cluster node other"
        assert "has 1 block as machine former" in found["what"]
        assert found["todo"].startswith("cnitool cluster release other --uid former  #")
    finally:
        node.delete_key("blocks/pods/10.244.250.0/28")
        node.delete_key("blocks/pods/10.244.251.0/28")


def test_a_pool_without_free_blocks(node: ClusterNode) -> None:
    """Blocks outside of it do not count. Its alarm comes when a node needs one."""
    value = {"node": "other", "nodeUID": OTHER["uid"], "since": 1.0, "state": "owned"}
    with stopped(node):  # it would drain its block
        node.put("pools/pods", SMALL)
        for number in (0, 16):
            node.put(f"blocks/pods/10.244.0.{number}/28", value)
        (found,) = findings(node, "engine")
        node.put("pools/pods", POOL)
        for number in (0, 16):
            node.delete_key(f"blocks/pods/10.244.0.{number}/28")
    assert (found["severity"], found["where"]) == ("error", "pool pods")
    assert found["what"] == "has 0 of 2 IPv4 blocks free"


def test_alarms_and_reports(node: ClusterNode) -> None:
    """The last sentence of an alarm is the next step."""
    path = node.host.root / REPORT
    before = path.read_text()
    alarms = [
        Alarm("block-lost", "10.4.0.0/24", "block 10.4.0.0/24 is lost. Look at it. Delete its pods."),
        Alarm("pool-missing", "pods", "no pool"),
    ]
    with stopped(node):
        report = {**json.loads(before), "updated": time.time(), "alarms": [vars(one) for one in alarms]}
        path.write_text(json.dumps(report))
        lost, missing = findings(node, "cluster")
        path.write_text(json.dumps({**report, "updated": time.time() - 1000}))
        stale = findings(node, *CHECKS)
        path.unlink()
        none = findings(node, *CHECKS)
        path.write_text(before)
        path.chmod(0o600)
    assert (lost["severity"], lost["where"]) == ("error", "cluster 10.4.0.0/24")
    assert lost["what"] == "block-lost: block 10.4.0.0/24 is lost. Look at it" and lost["todo"] == "Delete its pods"
    assert (missing["severity"], missing["what"]) == ("warning", "pool-missing: no pool")
    assert [one["where"] for one in (*stale, *none)] == ["cluster", "cluster"]
    assert "has not looked for 10" in stale[0]["what"] and "has no report" in none[0]["what"]


def test_settings(node: ClusterNode) -> None:
    path = node.host.root / SETTINGS[1:]
    before = path.read_text()
    agent = node.host.root / "etc/cni/pycni-agent.json"
    before_agent = agent.read_text()
    try:
        path.write_text('{"engine": "zookeeper"}')
        (found,) = findings(node, *CHECKS)
        assert (found["severity"], found["where"]) == ("error", SETTINGS) and "zookeeper" in found["what"]
        agent.write_text('{"cluster": "yes"}')
        assert described(node) == ["error settings /etc/cni/pycni-agent.json"]
    finally:
        path.write_text(before)
        agent.write_text(before_agent)


def test_a_neighbour_table_that_is_nearly_full(node: ClusterNode) -> None:
    """Each peer on a link needs an entry of the kernel's table."""
    with node.network, closing(Tables()) as tables:
        limit = neighbour_limits(tables)[4]
    if limit > MOST_ROUTES:
        pytest.skip(f"the machine keeps {limit} neighbours: too many routes for a test")
    routes = [f"10.{250 + (one >> 16)}.{one >> 8 & 255}.{one & 255}" for one in range(limit * 9 // 10)]
    text = "".join(f"route add {one} via {one} dev up0 onlink proto 112 metric 2048\n" for one in routes)
    with stopped(node):  # it would delete them
        node.host.run("ip", "-batch", "-", input=text)
        try:
            (found,) = findings(node, "neighbours")
        finally:
            node.host.run("ip", "-batch", "-", input=text.replace("add", "delete"))
    assert (found["severity"], found["where"]) == ("note", "net.ipv4.neigh.default.gc_thresh3")
    assert found["what"].startswith(f"is {limit}, and there are ") and "sysctl -w" in found["todo"]


def show(node: ClusterNode, *arguments: str) -> str:
    return node.host.run(sys.executable, "-c", SHOW, "show", "--cluster", *arguments, env=PYTHON).stdout


def test_show(node: ClusterNode) -> None:
    """The picture has this node's ranges with their use, and the way to the other node, which a lost route takes away."""
    node.put("blocks/pods/10.244.250.0/28", {"node": "old", "nodeUID": "former", "since": 1.0, "state": "owned"})
    (v4,), (v6,) = node.published()
    try:
        document = json.loads(show(node, "--json"))
        tree, chart = show(node), show(node, "--mermaid")
        show(node, "--svg", "/run/cluster.svg")
        with stopped(node):
            node.host.run("ip", "route", "delete", "10.244.255.0/28")
            lost = json.loads(show(node, "--json"))
            node.host.run(
                *[
                    "ip",
                    "route",
                    "add",
                    "10.244.255.0/28",
                    "via",
                    "192.0.2.77",
                    "dev",
                    "up0",
                    "proto",
                    "112",
                    "metric",
                    "2048",
                ]
            )
        assert json.loads(show(node, "other network", "--json"))["pools"] == []
    finally:
        node.delete_key("blocks/pods/10.244.250.0/28")
    ways = {one["node"]: one["way"] for one in document["members"]}
    assert ways == {"pretend": "this node", "other": "direct"}
    assert {one["node"]: one["way"] for one in lost["members"]} == {"pretend": "this node", "other": "none"}
    (own,) = (one["spans"] for one in document["members"] if one["node"] == "pretend")
    assert [(one["cidr"], one["state"], one["used"]) for one in own] == [(v4, "owned", 2), (v6, "owned", 2)]
    assert document["remains"] == [{"node": "old", "uid": "former", "blocks": ["10.244.250.0/28"]}]
    (four, _) = document["pools"]
    assert (four["cidr"], four["size"], four["free"]) == ("10.244.0.0/16", 4096, 4094)
    picture = (node.host.root / "run/cluster.svg").read_text()
    assert picture.startswith("<svg") and "</svg>" in picture
    for text in ("pretend", "192.0.2.9", v4, "other", "10.244.255.0/28", "old", "10.244.250.0/28"):
        assert text in tree and text in chart and text in picture, text
    assert tree.splitlines()[-1].endswith("old  former  10.244.250.0/28")


def test_a_sign_of_life_after_a_restart(node: ClusterNode) -> None:
    """An agent that starts again has nothing to announce, and must not look gone."""
    key = f"alive/pretend/{node.report()['uid']}"
    node.kill_agent()
    node.delete_key(key)  # as when its lease has ended
    node.begin()
    with node.network:
        node.until(lambda: key in set(node.etcd.keys()))


def test_the_engine_is_down(node: ClusterNode) -> None:
    """The agent's alarm says it; without the agent's report, doctor tries for itself."""
    node.etcd.members[0].kill()
    node.until(lambda: node.alarms() == {"not-synchronised"})
    assert described(node) == ["warning cluster cluster pretend"]
    node.kill_agent()
    (node.host.root / REPORT).unlink()
    assert described(node) == ["error cluster cluster", "warning engine engine"]
