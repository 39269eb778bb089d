"""The duties process: metrics, the remains of dead attachments, its beginning and its end."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

from shared.cli.leases import inhabited
from shared.cli.leases.inhabited import Namespaces
from shared.cni.errors import IOFailure
from tests.agent.duties import METRICS, Duties, only
from tests.pretend import PretendHost, read_line, until
from tests.system.pod_network import CNITOOL, CODE, NETWORK, ROOT, Node

OLD = "10 minutes ago"
LOOKS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from shared.cli.agent.collect import Collect
from shared.cli.agent.counts import Counts
from shared.runtime.client import Client
duty = Collect(Client([sys.argv[1]]), "/etc/cni/net.d", 300, Counts())
print("ready", flush=True)
for line in sys.stdin:
    duty.look(float(line))
    print("looked", flush=True)
"""


# A plugin whose ADD passes the result on, and whose DEL is to be followed by a command.
COMES_BACK = """
import json, os, sys
if os.environ["CNI_COMMAND"] == "ADD":
    print(json.dumps(json.load(sys.stdin)["prevResult"]))
    sys.exit()
"""


class Looks:
    """The duty `collect` in a process of its own, which looks when a test says so."""

    def __init__(self, node: Node, bin_dir: str = "") -> None:
        self.node = node
        argv = (sys.executable, "-I", "-B", "-W", "error", "-c", LOOKS, bin_dir or node.host.bin_dir)
        self.process = node.host.popen(*argv)
        assert read_line(self.process) == b"ready\n"

    def at(self, *moments: float) -> None:
        """Look at moments in seconds."""
        assert self.process.stdin is not None
        for moment in moments:
            self.process.stdin.write(f"{moment}\n".encode())
            self.process.stdin.flush()
            assert read_line(self.process) == b"looked\n", self.process.communicate()

    def end(self) -> str:
        """Return the lines that it said."""
        _, said = self.process.communicate(timeout=60)
        return str(said.decode())


@pytest.fixture
def node(host: PretendHost) -> Node:
    return Node(host)


@pytest.fixture
def pods(node: Node) -> Node:
    """Return a node with a living and a dead pod, both of ten minutes ago."""
    for pod in ("living", "dead"):
        node.results[pod] = node.attach(pod)
        age(node, pod)
    node.kill("dead")
    return node


def entry(node: Node, pod: str) -> Path:
    return node.host.root / f"var/lib/cni/results/pods-{pod}-eth0"


def age(node: Node, pod: str) -> None:
    node.host.run("touch", "-d", OLD, f"/var/lib/cni/results/{entry(node, pod).name}")


def leases(node: Node) -> set[str]:
    """Return the containers that have a lease."""
    found = (node.host.root / "var/lib/cni/networks/pods").iterdir()
    return {path.read_text().split()[0] for path in found if path.name[0].isdigit()}


def test_remains_of_a_dead_pod_are_deleted_at_the_second_look(pods: Node) -> None:
    looks = Looks(pods)
    before = pods.host.snapshot(["living"])
    looks.at(0)
    assert pods.host.snapshot(["living"]) == before
    looks.at(60)
    assert leases(pods) == {"living"}
    assert entry(pods, "living").exists() and not entry(pods, "dead").exists()
    assert "collect: pods dead eth0: its namespace and its link are gone" in looks.end()
    assert pods.pings("living", "10.1.0.1")


def test_grace(pods: Node) -> None:
    entry(pods, "dead").touch()
    looks = Looks(pods)
    looks.at(0, 60, 120, 299)
    assert leases(pods) == {"living", "dead"}
    looks.at(301)
    assert leases(pods) == {"living"}
    looks.end()


def cut(pods: Node) -> None:
    pods.host.run("truncate", "-s", "40", "/var/lib/cni/results/pods-living-eth0")


def empty_digest(pods: Node) -> None:
    pods.host.run("touch", "/var/lib/cni/results/~5ad0")


def no_directory(pods: Node) -> None:
    pods.host.run("sh", "-c", "rm -r /var/lib/cni/results && touch /var/lib/cni/results")


@pytest.mark.parametrize("damage", [cut, empty_digest, no_directory])
def test_a_cache_that_cannot_be_read_counts_as_alive(pods: Node, damage: Any) -> None:
    damage(pods)
    looks = Looks(pods)
    looks.at(0, 60, 1000, 2000)
    assert leases(pods) == {"living", "dead"}
    said = looks.end()
    assert said.count("/var/lib/cni/results") == 1, said  # once, not at each look


def test_a_namespace_that_is_there_counts_as_alive(pods: Node) -> None:
    pods.host.run("ip", "link", "delete", pods.results["living"]["interfaces"][1]["name"])
    looks = Looks(pods)
    looks.at(0, 60)
    assert leases(pods) == {"living"}
    assert entry(pods, "living").exists()
    looks.end()


def test_a_link_that_is_there_counts_as_alive(pods: Node) -> None:
    """A process keeps the namespace after its path is gone."""
    keeper = pods.host.popen("ip", "netns", "exec", "living", "sh", "-c", "echo kept; exec sleep 600")
    assert read_line(keeper) == b"kept\n"
    pods.host.run("ip", "netns", "delete", "living")
    looks = Looks(pods)
    looks.at(0, 60)
    assert leases(pods) == {"living"}
    keeper.kill()
    keeper.wait()
    until(lambda: not pods.links("veth"))
    looks.at(120)
    assert leases(pods) == {"living"}  # the first look that finds it dead
    looks.at(180)
    assert leases(pods) == set()
    looks.end()


def test_attachments_outside_the_cache(pods: Node) -> None:
    pods.host.run("rm", "-r", "/var/lib/cni/results")
    looks = Looks(pods)
    looks.at(0, 60, 299)
    assert leases(pods) == {"living", "dead"}
    looks.at(301, 361)
    assert leases(pods) == {"living"}
    assert looks.end().count("collect: pods dead eth0") == 1
    assert pods.pings("living", "10.1.0.1")


def test_a_namespace_that_cannot_be_read_is_a_doubt(host: PretendHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attachment may live in it under another path."""

    def refuse(_path: str) -> NoReturn:
        raise IOFailure("too many open files")

    held = f"/proc/{host.first_pid}/ns/net"
    monkeypatch.setattr(inhabited, "paths", lambda: [held, "/none", "/etc/passwd"])
    assert not Namespaces().home("eth9", set(), set(), guess=False)
    monkeypatch.setattr(inhabited, "_inside", refuse)
    assert "cannot be read" in Namespaces().home("eth9", set(), set(), guess=False)
    monkeypatch.setattr(inhabited, "paths", lambda: ["/none", "/etc/passwd"])  # neither is a namespace
    assert not Namespaces().home("eth9", set(), set(), guess=False)


def test_a_damaged_note_keeps_its_network_alone(pods: Node) -> None:
    note = {"network": "pods", "containerID": "x", "ifname": "eth0", "addresses": 5}
    pods.host.run("mkdir", "-p", "/run/cni/firewall")
    pods.host.run("tee", "/run/cni/firewall/x.json", input=json.dumps(note))
    looks = Looks(pods)
    looks.at(0, 60, 120)
    assert leases(pods) == {"living", "dead"}
    pods.host.run("rm", "/run/cni/firewall/x.json")
    looks.at(180, 240)
    assert leases(pods) == {"living"}
    assert looks.end().count("network pods counts as alive") == 1


def test_an_attachment_that_comes_back_lives(pods: Node) -> None:
    looks = Looks(pods)
    looks.at(0)
    pods.attach("dead")  # replaces the entry
    looks.at(60, 1000)
    assert leases(pods) == {"living", "dead"}
    assert pods.pings("dead", "10.1.0.1")
    assert looks.end() == ""


@pytest.mark.parametrize("came", ["ip netns add dead", "touch /var/lib/cni/results/pods-dead-eth0"])
def test_an_attachment_that_comes_back_during_its_del_keeps_the_rest(node: Node, came: str) -> None:
    """The last plugin's DEL is the first one: an ADD begins in it."""
    script = f"#!{sys.executable}\n{COMES_BACK}os.system({came!r})"
    node.host.run("sh", "-ec", f"mkdir /run/bin; cp -P {node.host.bin_dir}/* /run/bin")
    node.host.run("sh", "-ec", "cat >/run/bin/slow; chmod +x /run/bin/slow", input=script)
    node.configure({**NETWORK, "plugins": [*NETWORK["plugins"], {"type": "slow"}]})
    node.attach("dead", bin_dir="/run/bin")
    age(node, "dead")
    node.kill("dead")
    looks = Looks(node, "/run/bin")
    looks.at(0, 60)
    assert leases(node) == {"dead"} and entry(node, "dead").exists()
    assert looks.end() == ""


def test_an_attachment_that_dies_again_is_looked_at_twice_again(pods: Node) -> None:
    looks = Looks(pods)
    looks.at(0)
    pods.results["dead"] = pods.attach("dead")
    age(pods, "dead")
    pods.kill("dead")
    looks.at(60)
    assert leases(pods) == {"living", "dead"}
    looks.at(120)
    assert leases(pods) == {"living"}
    looks.end()


def test_looks_leave_no_descriptors(pods: Node) -> None:
    looks = Looks(pods)
    looks.at(0, 60)
    fds = f"/proc/{looks.process.pid}/fd"
    before = len(os.listdir(fds))
    looks.at(*range(120, 720, 60))
    assert len(os.listdir(fds)) == before
    looks.end()


# -- metrics


def test_metrics_equal_the_calls(node: Node) -> None:
    node.attach("web")
    (node.host.root / "run/pycni").mkdir(mode=0o700)
    (node.host.root / "run/pycni/fallbacks").write_bytes(b"123")
    duties = Duties(node.host, heal=False, collect=False)
    for code, seconds in ((0, 0.003), (0, 0.2), (11, 3)):
        duties.record(plugin="bridge", verb="ADD", code=code, seconds=seconds)
    for useless in ({}, {"plugin": "bridge", "verb": "DEL", "code": 0, "seconds": "soon"}):
        duties.record(**useless)
    duties.record(plugin="host-local", verb="DEL", code=0, seconds=0.001)
    last = 'pycni_calls_total{outcome="ok",plugin="host-local",verb="DEL"}'
    until(lambda: last in duties.metrics())
    found = duties.metrics()
    assert only(found, "pycni_calls") == {
        'pycni_calls_total{outcome="ok",plugin="bridge",verb="ADD"}': 2,
        'pycni_calls_total{outcome="11",plugin="bridge",verb="ADD"}': 1,
        last: 1,
    }
    durations = {name: value for name, value in found.items() if re.match(r"pycni_call_seconds_.*bridge", name)}
    assert durations['pycni_call_seconds_bucket{le="0.005",plugin="bridge",verb="ADD"}'] == 1
    assert durations['pycni_call_seconds_bucket{le="0.25",plugin="bridge",verb="ADD"}'] == 2
    assert durations['pycni_call_seconds_count{plugin="bridge",verb="ADD"}'] == 3
    assert found["pycni_fallbacks_total"] == 3
    assert only(found, "pycni_addresses") == {
        'pycni_addresses{network="pods",ranges="10.1.0.1-10.1.0.254",state="used"}': 1,
        'pycni_addresses{network="pods",ranges="10.1.0.1-10.1.0.254",state="free"}': 252,
        'pycni_addresses{network="pods",ranges="fd00:1::1-fd00:1::ffff:ffff:ffff:ffff",state="used"}': 1,
        'pycni_addresses{network="pods",ranges="fd00:1::1-fd00:1::ffff:ffff:ffff:ffff",state="free"}': float(2**64),
    }
    assert duties.end() == 0
    assert duties.said() == []


def test_metrics_are_roots_alone(node: Node) -> None:
    duties = Duties(node.host, heal=False, collect=False)
    duties.metrics()
    assert (node.host.root / "run/pycni").stat().st_mode & 0o777 == 0o700
    assert (node.host.root / METRICS).stat().st_mode & 0o777 == 0o600


def test_socket_of_an_earlier_agent_is_replaced(node: Node) -> None:
    first = Duties(node.host, heal=False, collect=False)
    first.metrics()
    first.process.kill()
    first.process.wait()
    second = Duties(node.host, heal=False, collect=False)
    second.record(plugin="bridge", verb="ADD", code=0, seconds=1)
    until(lambda: bool(only(second.metrics(), "pycni_calls")))


@pytest.mark.parametrize(
    ("plant", "word"),
    [
        ("mkdir -m 700 /run/pycni; touch /run/other; ln -s /run/other /run/pycni/metrics.sock", "another file"),
        ("mkdir /run/elsewhere; ln -s /run/elsewhere /run/pycni", "must be a directory"),
        ("mkdir -m 777 /run/pycni", "must be a directory"),
    ],
)
def test_planted_files_are_refused(node: Node, plant: str, word: str) -> None:
    node.host.run("sh", "-c", plant)
    before = node.host.run("ls", "-lR", "/run/pycni", "/run").stdout
    duties = Duties(node.host, heal=False, collect=False)
    duties.await_line("metrics cannot be served", word)
    assert "metrics.sock" in before or not (node.host.root / METRICS).exists()
    assert duties.end() == 0


def test_metrics_on_a_port(node: Node) -> None:
    duties = Duties(node.host, heal=False, collect=False, metrics="127.0.0.1:9477")
    get = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9477/metrics').read().decode())"
    done: list[str] = []

    def scrape() -> bool:
        answer = node.host.run(sys.executable, "-c", get, check=False)
        done.append(answer.stdout)
        return answer.returncode == 0

    until(scrape, duties.require)
    assert "pycni_heal_pass_seconds_count 0.0" in done[-1]


def test_frozen_scrapers_stop_nobody(node: Node) -> None:
    duties = Duties(node.host, heal=False, collect=False)
    duties.metrics()
    with ExitStack() as frozen:
        for _ in range(5):
            connection = frozen.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.connect(str(node.host.root / METRICS))
            connection.sendall(b"GET /metrics HTTP/1.0\r\n")
        duties.record(plugin="bridge", verb="ADD", code=0, seconds=1)
        until(lambda: bool(only(duties.metrics(), "pycni_calls")))
        assert duties.end() == 0


# -- the process


def test_ends_with_the_agent(node: Node) -> None:
    duties = Duties(node.host)
    duties.metrics()
    assert duties.end() == 0


def test_invalid_settings_are_named(node: Node) -> None:
    duties = Duties(node.host, heel=True)
    assert duties.process.wait(60) == 1
    assert any("pycni-agent.json" in line and "heel" in line for line in duties.said())


def test_without_the_tools(node: Node) -> None:
    """Only metrics need a library; heal and collect do without."""
    hidden = "import sys; sys.modules['prometheus_client'] = sys.modules['pyroute2'] = None; "
    hidden += "import importlib.util as u; u.find_spec = lambda name: None; " + CODE
    command = (*CNITOOL[:-1], hidden, "agent", "run")
    duties = Duties(node.host, *command)
    duties.await_line("no metrics", "install.sh --with-tools")
    duties.require()
    assert duties.end() == 0
    assert len(duties.said()) == 1


def test_collects_by_itself(pods: Node) -> None:
    fast = CODE.replace("sys.exit(run", "import shared.cli.agent.collect as c; c.LOOK_SECONDS = 0.1; sys.exit(run")
    duties = Duties(pods.host, *CNITOOL[:-1], fast, "agent", "run", heal=False)
    duties.await_line("collect", "pods dead eth0")
    until(lambda: duties.metrics().get('pycni_collected_total{network="pods"}') == 1)
    assert leases(pods) == {"living"}
    assert duties.end() == 0


@pytest.mark.parametrize("place", ["__init__", "_plan"])
def test_a_duty_that_fails_ends_no_other(pods: Node, place: str) -> None:
    broken = "import shared.cli.agent.collect as c, shared.cli.agent.duties as d, shared.cli.agent.heal as h; "
    broken += (
        f"c.LOOK_SECONDS = d.PAUSE_SECONDS = h.LOOK_SECONDS = 0.1; h.Heal.{place} = lambda *a: 1 / 0; sys.exit(run"
    )
    duties = Duties(pods.host, *CNITOOL[:-1], CODE.replace("sys.exit(run", broken), "agent", "run")
    duties.await_line("heal: unexpected ZeroDivisionError")
    duties.await_line("collect", "pods dead eth0")
    until(lambda: duties.metrics().get('pycni_collected_total{network="pods"}') == 1)
    assert duties.end() == 0
    assert len([line for line in duties.said() if "ZeroDivisionError" in line]) == 1


def test_a_damaged_library(node: Node) -> None:
    """The metrics fail alone."""
    damaged = CODE.replace("sys.exit(run", "sys.modules['prometheus_client'] = sys; sys.exit(run")
    duties = Duties(node.host, *CNITOOL[:-1], damaged, "agent", "run")
    duties.await_line("no metrics", "install.sh --with-tools")
    duties.require()
    assert duties.end() == 0


# -- status


@pytest.fixture
def agents(node: Node) -> Iterator[Any]:
    """Return a function that listens as an agent and answers with a document."""
    listening: list[socket.socket] = []

    def answer(document: bytes) -> None:
        directory = node.host.root / "run/pycni"
        directory.mkdir(mode=0o700)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.bind(f"{directory}/control.sock")
        made.listen()
        listening.append(made)

        def serve() -> None:
            connection, _ = made.accept()
            with connection:
                assert connection.recv(100)
                connection.sendall(document)

        threading.Thread(target=serve, daemon=True).start()

    yield answer
    for one in listening:
        one.close()


STATE: dict[str, Any] = {
    "release": "0.2.0", "tree": "/opt/cni/lib/pycni/0.2.0-abc", "pid": 17, "since": 1764000000.0,
    "workers": {"idle": 4, "busy": 1},
    "calls": {"bridge": {"ADD": {"0": 5, "11": 1}}, "portmap": {"DEL": {"0": 2}}},
    "declined": 2, "fallbacks": 3, "duties": {"pid": 18, "restarts": 1},
}  # fmt: skip


def test_status(node: Node, agents: Any) -> None:
    agents(json.dumps(STATE).encode())
    done = node.host.run(*CNITOOL, "agent", "status")
    assert done.stderr == ""
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        "agent 0.2.0, process 17, since 2025-11-24T16:00:00+00:00",
        "code /opt/cni/lib/pycni/0.2.0-abc",
        "workers 4 idle, 1 busy",
        "executed 3 calls that no worker took, 2 declined",
        "duties process 18, started again 1 times",
        "",
        "PLUGIN VERB OK FAILED CODES",
        "bridge ADD 5 1 11: 1",
        "portmap DEL 2 0",
    ]


def test_status_as_json(node: Node, agents: Any) -> None:
    agents(json.dumps(STATE).encode())
    assert json.loads(node.host.run(*CNITOOL, "agent", "--json").stdout) == {"running": True, **STATE}


def test_status_without_an_agent(node: Node) -> None:
    done = node.host.run(*CNITOOL, "agent", check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert "no agent runs on this node" in done.stderr
    as_json = node.host.run(*CNITOOL, "agent", "status", "--json", check=False)
    assert json.loads(as_json.stdout)["running"] is False


@pytest.mark.parametrize("answer", [b"", b"{", b"[]"])
def test_status_of_something_else(node: Node, agents: Any, answer: bytes) -> None:
    agents(answer)
    done = node.host.run(*CNITOOL, "agent", check=False)
    assert done.returncode == 1 and "/run/pycni/control.sock" in done.stderr
