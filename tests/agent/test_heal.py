"""Running pods are repaired after a flush, a reload, a drop policy, a bridge that went down: by hand and by the duty."""

from __future__ import annotations

import itertools
import json
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from shared.cli.agent.repairs import LOST, Lost, Runners, Step
from shared.cni import repair as repair_process
from tests.agent.duties import SETTINGS, Duties, only
from tests.agent.running import LOG, Agent
from tests.faults import state
from tests.firewalld import Firewalld
from tests.pretend import PATH, TURNS, PretendHost, read_line, until
from tests.system.pod_network import ROOT

REACH = str(Path(__file__).with_name("reach.py"))
PORT, FIRST_PORT = 7, 8000
HOST4, HOST6, OUT4, OUT6 = "192.0.2.1", "fd00:2::1", "192.0.2.9", "fd00:2::9"
OUTSIDE = f"""
ip netns add out
ip link add up0 type veth peer name eth0 netns out
ip address add {HOST4}/24 dev up0
ip address add {HOST6}/64 dev up0 nodad
ip link set up0 up
ip -n out link set lo up
ip -n out address add {OUT4}/24 dev eth0
ip -n out address add {OUT6}/64 dev eth0 nodad
ip -n out link set eth0 up
"""
PLUGINS: list[dict[str, Any]] = [
    {
        "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]},
    },
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "firewall", "admitHostPorts": True},
    {
        "type": "bandwidth", "ingressRate": 1_000_000_000, "ingressBurst": 100_000_000, "egressRate": 1_000_000_000,
        "egressBurst": 100_000_000,
    },
]  # fmt: skip


# Looks at each line; the first one only plans, and "repair" repairs by that plan.
LOOKS = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from shared.cli.agent.counts import Counts
from shared.cli.agent.heal import Heal
duty = Heal("/var/lib/cni", [sys.argv[1]], Counts())
steps = duty._plan([])
print("ready", flush=True)
for line in sys.stdin:
    if line == "look\\n":
        duty.look()
        pauses = {{reason: one[0] for reason, one in duty.pacing._pauses.items()}}
        print(json.dumps({{"busy": sorted(map(str, duty._busy)), "pauses": pauses}}), flush=True)
    else:
        print(sorted({{one.code for one in duty.runners.repair(steps)}}), flush=True)
"""
# Has the slots of all attachments until its stdin ends.
BUSY = "import fcntl, sys; held = open(sys.argv[1], 'r+'); fcntl.lockf(held, 2); print(flush=True); sys.stdin.read()"


class Looks:
    """The duty `heal` in a process of its own, which looks when a test says so."""

    def __init__(self, node: Node) -> None:
        argv = (sys.executable, "-I", "-B", "-W", "error", "-c", LOOKS, node.host.bin_dir)
        self.process = node.host.popen(*argv)
        assert read_line(self.process) == b"ready\n"

    def end(self) -> list[str]:
        """Return the lines that it said."""
        _, said = self.process.communicate(timeout=60)
        return [str(line) for line in said.decode().splitlines()]

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()
        line = read_line(self.process)
        assert line, self.end()
        return json.loads(line)


class Node:
    """A pretend host with a neighbour outside, and pods that the runtime's cache remembers."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        host.run("mkdir", "-p", "/etc/cni/net.d")
        host.run("sh", "-ec", OUTSIDE)
        self.serve("out")
        self.pods: dict[str, int] = {}
        self.numbers = itertools.count(1)
        self.configure(PLUGINS)

    def configure(self, plugins: list[dict[str, Any]], version: str = "1.1.0") -> None:
        network = {"cniVersion": version, "name": "pods", "plugins": plugins}
        self.host.run("tee", "/etc/cni/net.d/pods.conflist", input=json.dumps(network))

    def serve(self, *pods: str) -> None:
        """Serve in pods from now on."""
        process = self.host.popen(sys.executable, REACH, "serve", str(PORT), *(f"/run/netns/{pod}" for pod in pods))
        assert read_line(process) == b"ready\n"

    def runtime(self, verb: str, pod: str, **variables: str) -> Any:
        argv = (f"{self.host.bin_dir}/cnitool", verb, "pods", f"/run/netns/{pod}", "--container-id", pod)
        return self.host.run(*argv, env={"PATH": PATH, **variables}, check=False)

    def attach(self, *pods: str) -> None:
        for pod in pods:
            number = self.pods[pod] = next(self.numbers)
            self.host.netns(pod)
            mapping = {"hostPort": FIRST_PORT + number, "containerPort": PORT, "protocol": "tcp"}
            done = self.runtime("add", pod, CAP_ARGS=json.dumps({"portMappings": [mapping]}))
            assert done.returncode == 0, done

    def detach(self, *pods: str) -> None:
        for pod in pods:
            done = self.runtime("del", pod)
            assert done.returncode == 0, done

    def reached(self, pods: Iterable[str] = (), *, seconds: float = 1) -> set[str]:
        """Return the pods that are reached by their host ports, and reach the neighbour, in both families."""
        chosen = list(pods or self.pods)
        questions: list[str] = []
        for pod in chosen:
            for address in (HOST4, HOST6):
                questions += ["/run/netns/out", address, str(FIRST_PORT + self.pods[pod])]
            for address in (OUT4, OUT6):
                questions += [f"/run/netns/{pod}", address, str(PORT)]
        out = self.host.run(sys.executable, REACH, "ask", str(seconds), *questions).stdout
        answered = {int(word) for word in out.split()}
        return {pod for place, pod in enumerate(chosen) if {4 * place + one for one in range(4)} <= answered}

    def state(self) -> set[str]:
        return state.state(self.host, self.pods)

    def heal(self, *words: str, check: bool = True) -> str:
        done = self.host.run(
            f"{self.host.bin_dir}/cnitool", "heal", *words, env={"PATH": PATH}, check=False
        )  # fmt: skip
        assert not check or done.returncode == 0, done
        assert done.stderr == "", done.stderr
        return done.stdout


@pytest.fixture
def node(host: PretendHost) -> Node:
    """Return a node with three pods that packets reach."""
    made = Node(host)
    made.attach("a", "b", "c")
    made.serve("a", "b", "c")
    assert made.reached(seconds=5) == {"a", "b", "c"}
    return made


FLUSH = "nft flush ruleset"
DAMAGES = {
    "flush": FLUSH,
    "table": "nft delete table inet pycni",
    "drop": "for six in '' 6; do ip${six}tables -F; ip${six}tables -P FORWARD DROP; done",
    "bridge": "ip link set cni0 down",
    "bridge-gone": "ip link delete cni0",
    "ports": "for port in $(ls /sys/class/net/cni0/brif); do ip link set $port nomaster; done",
    "ports-down": "for port in $(ls /sys/class/net/cni0/brif); do ip link set $port down; done",
}
EACH = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


def differences(before: set[str], after: set[str]) -> list[str]:
    return sorted(before ^ after)


def damage_once(node: Node, damage: str) -> set[str]:
    """Return the state that every repair must restore; a drop policy moves the pods to another backend, once."""
    if damage == DAMAGES["drop"]:
        node.host.run("sh", "-ec", damage)
        node.heal()
        assert node.reached(seconds=5) == {"a", "b", "c"}
    return node.state()


@pytest.mark.row(23)
@EACH
def test_by_hand(node: Node, damage: str) -> None:
    before = damage_once(node, damage)
    node.host.run("sh", "-ec", damage)
    assert node.reached() == set()
    complained = node.heal("--dry-run", check=False)
    assert "3 attachments looked at" in complained and "all in order" not in complained
    assert "repaired" in node.heal()
    assert node.reached(seconds=5) == {"a", "b", "c"}
    assert differences(before, node.state()) == []
    assert node.heal() == node.heal("--dry-run") == "3 attachments looked at: all in order\n"


@pytest.mark.row(23)
@EACH
def test_by_the_duty(node: Node, damage: str) -> None:
    before = damage_once(node, damage)
    duties = begin(node)
    node.host.run("sh", "-ec", damage)
    until(lambda: node.reached() == {"a", "b", "c"}, duties.require)
    until(lambda: differences(before, node.state()) == [], duties.require)
    duties.await_line("heal: pods a eth0: ", "repaired")
    made = sum("repaired" in line for line in duties.said())
    until(lambda: sum(only(duties.metrics(), "pycni_repairs_total").values()) == made)
    assert duties.end() == 0


def begin(node: Node, **settings: Any) -> Duties:
    """Return the duties after their first look."""
    duties = Duties(node.host, **{"collect": False, **settings})
    until(lambda: passes(duties) == 1)
    return duties


def passes(duties: Duties) -> float:
    return duties.metrics()["pycni_heal_pass_seconds_count"]


def test_calls_of_this_suite_lead_to_no_pass(node: Node) -> None:
    duties = begin(node)
    for pod in "defg":
        node.attach(pod)
        node.detach(pod)
    node.host.run("nft", "add table ip unrelated; add chain ip unrelated x; delete chain ip unrelated x")
    node.host.run("ip", "link", "add", "other", "up", "type", "bridge")
    node.host.run("ip", "link", "delete", "other")
    node.host.run("sh", "-ec", FLUSH)  # the mark: all events before it have been read
    until(lambda: node.reached(["a", "b", "c"]) == {"a", "b", "c"}, duties.require)
    assert passes(duties) == 2, duties.said()


def test_calls_of_workers_lead_to_no_pass(node_host: PretendHost) -> None:
    node = Node(node_host)
    node_host.run("tee", SETTINGS, input='{"heal": false, "collect": false, "metrics": ""}')
    with Agent(node_host) as agent:
        node.attach("a")
        node.serve("a")
        duties = begin(node)
        for pod in "bc":
            node.attach(pod)
            node.detach(pod)
        assert agent.status()["calls"]["bridge"] == {"ADD": {"0": 3}, "DEL": {"0": 2}}
        node.host.run("sh", "-ec", FLUSH)  # the mark: all events before it have been read
        until(lambda: node.reached(["a"]) == {"a"}, duties.require)
        assert passes(duties) == 2, duties.said()
        assert duties.end() == 0


def test_calls_without_a_worker_lead_to_no_pass(node_host: PretendHost) -> None:
    """The launcher executes Python: the kernel would call that process python3."""
    node = Node(node_host)
    duties = begin(node)
    node.attach("a")
    node.serve("a")
    for pod in "bcd":
        node.attach(pod)
        node.detach(pod)
    node.host.run("sh", "-ec", FLUSH)  # the mark: all events before it have been read
    until(lambda: node.reached(["a"]) == {"a"}, duties.require)
    assert passes(duties) == 2, duties.said()


@pytest.mark.row(23)
def test_the_agent_heals(node_host: PretendHost) -> None:
    """All processes as they are installed: workers, duties, and cnitool that asks them."""
    node = Node(node_host)
    with Agent(node_host) as agent:
        node.attach("a", "b")
        node.serve("a", "b")
        node.host.run("sh", "-ec", FLUSH)
        until(lambda: node.reached() == {"a", "b"})
        shown = node.host.run(f"{node.host.bin_dir}/cnitool", "agent", env={"PATH": PATH}).stdout
        assert re.search(rf"process {agent.status()['pid']},", shown)
        assert re.search(r"bridge +ADD +2 +0", shown)
        log = node.host.run("cat", LOG).stdout
        assert "pycni-agent: heal: pods a eth0: bridge: repaired" in log


@pytest.mark.row(23)
def test_during_adds_and_dels(node: Node) -> None:
    """Nothing is made for a pod that is gone, and nothing twice."""
    before = node.state()
    duties = begin(node)
    stop = threading.Event()
    errors: list[str] = []

    def come_and_go(name: str) -> None:
        number = 0
        while not stop.is_set():
            pod, number = f"{name}{number}", number + 1
            try:
                node.attach(pod)
                node.detach(pod)
            except AssertionError as error:
                errors.append(str(error))
            node.host.drop_netns(pod)
            del node.pods[pod]

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in ("x", "y")]
    for thread in threads:
        thread.start()
    for _ in range(5):
        node.host.run("sh", "-ec", FLUSH)
        until(lambda: node.reached(["a", "b", "c"]) == {"a", "b", "c"}, duties.require)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    until(lambda: differences(before, node.state()) == [], duties.require)
    assert [line for line in duties.said() if "cannot" in line] == []
    assert duties.end() == 0
    node.detach("a", "b", "c")
    assert [line for line in node.state() if re.search(r"pods/|CNI-[0-9a-f]|8001", line)] == []


@pytest.mark.row(23)
def test_firewalld_reloads(host: PretendHost) -> None:
    node = Node(host)
    firewalld = Firewalld(host)
    firewalld.run("--set-default-zone=drop")
    node.configure([{"type": "bridge", "isDefaultGateway": True, "ipam": PLUGINS[0]["ipam"]}, {"type": "firewall"}])
    node.attach("a", "b")
    sources = firewalld.sources()
    assert len(sources) == 4
    duties = begin(node)
    for damage in (lambda: firewalld.run("--reload"), lambda: restart(firewalld)):
        damage()
        until(lambda: firewalld.sources() == sources, duties.require)
    assert duties.end() == 0


def restart(firewalld: Firewalld) -> None:
    firewalld.stop(firewalld.daemon)
    firewalld.start()


def test_attachments_that_are_passed_over(node: Node) -> None:
    """A namespace that is gone, an entry that is cut, a plugin of others."""
    node.host.run("truncate", "-s", "40", "/var/lib/cni/results/pods-b-eth0")
    node.host.drop_netns("c")
    node.host.run("sh", "-ec", FLUSH)
    done = node.host.run(f"{node.host.bin_dir}/cnitool", "heal", env={"PATH": PATH})
    assert "pods-b-eth0 is not JSON" in done.stderr
    assert {line.split()[1] for line in done.stdout.splitlines() if "repaired" in line} == {"a"}
    assert "1 attachment looked at" in done.stdout
    elements = [line for line in state.state(node.host) if line.startswith("element")]
    assert not [line for line in elements if "pods/c/" in line or "pods/b/" in line]
    assert [line for line in elements if "pods/a/" in line]


def test_a_plan_ends_with_its_result(node: Node) -> None:
    """Another ADD of the same names came after the plan."""
    looks = Looks(node)
    node.host.run("touch", *(f"/var/lib/cni/results/pods-{pod}-eth0" for pod in "abc"))
    node.host.run("sh", "-ec", FLUSH)
    assert looks.ask("repair") == [3]
    assert [line for line in node.state() if line.startswith("element")] == []


def test_busy_attachments_are_planned_anew(node: Node) -> None:
    node.host.run("sh", "-ec", FLUSH)
    looks = Looks(node)
    busy = node.host.popen(sys.executable, "-c", BUSY, TURNS)
    assert read_line(busy) == b"\n"
    assert len(looks.ask("look")["busy"]) == 12
    node.host.run("touch", *(f"/var/lib/cni/results/pods-{pod}-eth0" for pod in "abc"))
    busy.kill()
    busy.wait()
    assert looks.ask("look")["busy"] == []
    assert node.reached(seconds=5) == {"a", "b", "c"}


def test_one_bad_attachment_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner ends at each step of the first attachment."""
    script = 'import sys\nfor line in sys.stdin:\n if "bad" in line: sys.exit()\n print("{}", flush=True)'
    monkeypatch.setattr(repair_process, "command", lambda: [sys.executable, "-ISc", script])
    pods = ["bad"] * 5 + ["good"] * 2
    steps = [
        Step("pods", pod, "eth0", f"plugin{n}", Path("/none"), {}, {"ID": pod}, ("", 0)) for n, pod in enumerate(pods)
    ]
    runners = Runners()
    assert [one.code for one in runners.repair(steps)] == [LOST] * 5 + [0, 0]
    runners.close()


def test_a_runner_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_process, "command", lambda: ["/bin/false"])
    steps = [Step("pods", f"c{n}", "eth0", "bridge", Path("/none"), {}, {}, ("", 0)) for n in range(9)]
    with pytest.raises(Lost, match="6 attachments are left"):
        list(Runners().repair(steps))


def test_another_pod_at_the_path_is_told_once(node: Node) -> None:
    node.host.drop_netns("b")
    node.host.netns("b")
    added = (f"{node.host.bin_dir}/cnitool", "add", "pods", "/run/netns/b", "--container-id", "x")
    node.host.run(*added, env={"PATH": PATH})
    looks = Looks(node)
    for _ in range(2):
        looks.ask("look")
    assert len([line for line in looks.end() if "pods b eth0: bridge: passed over: " in line and "pods/x" in line]) == 1
    assert "pods b eth0: bridge: passed over" in node.heal()


def test_the_rest_is_repaired_and_an_error_is_told_once(node: Node) -> None:
    """A pod lost its address: a repair changes nothing inside, but makes its rules again."""
    looks = Looks(node)
    for _ in range(2):
        node.host.run("sh", "-ec", f"ip -n a address flush dev eth0; {FLUSH}")
        looks.ask("look")
    said = [line for line in looks.end() if "pods a eth0: bridge" in line]
    assert len([line for line in said if "cannot repair it" in line and "address" in line]) == 1
    assert len([line for line in said if "repaired: " in line]) >= 2
    assert [line for line in node.state() if line.startswith("element") and "pods/a/" in line]


def test_what_is_deleted_again_and_again_waits(node: Node) -> None:
    """A pass that makes the same things as the last one has repaired nothing for long."""
    looks = Looks(node)
    for pause in (0, 1):
        node.host.run("sh", "-ec", FLUSH)
        assert looks.ask("look")["pauses"].get("table pycni", 0) == pause
    assert node.reached(seconds=5) == {"a", "b", "c"}


def test_the_duty_changes_nothing_in_a_pod(host: PretendHost) -> None:
    node = Node(host)
    node.configure([PLUGINS[0], {"type": "tuning", "txQLen": 500}])
    node.attach("a")
    host.run("sh", "-ec", f"ip -n a link set eth0 txqueuelen 1000; {FLUSH}")
    assert Looks(node).ask("look")["busy"] == []
    complained = node.heal("--dry-run", check=False)
    assert "txQLen of eth0 is 1000, not 500" in complained and "1 to repair" in complained
    assert node.heal().count("repaired") == 1
    assert "all in order" in node.heal("--dry-run")


def test_links_that_only_a_new_add_creates(host: PretendHost) -> None:
    """A tap repairs nothing: the command tells of it, with and without repairs of others, and fails."""
    node = Node(host)
    node.configure([{"type": "tap", "ipam": {"type": "host-local", "subnet": "10.3.0.0/24"}}])
    host.netns("a")
    assert node.runtime("add", "a").returncode == 0
    assert node.heal() == node.heal("--dry-run") == "1 attachment looked at: all in order\n"
    host.run("ip", "-n", "a", "link", "del", "eth0")
    lost = "pods a eth0: tap: cannot repair it: pods eth0 is not as it was made: link eth0 is missing in /run/netns/a\n"
    for options, count in ((["--dry-run"], "0 to repair, 1 that only a new ADD repairs"), ([], "0 repairs, 1 failure")):
        assert node.heal(*options, check=False) == f"{lost}1 attachment looked at: {count}\n"


def test_a_version_without_check(host: PretendHost) -> None:
    """A dry run has nothing to ask; a repair does its work."""
    node = Node(host)
    node.configure(PLUGINS[:1], version="0.3.1")
    host.netns("a")
    assert node.runtime("add", "a").returncode == 0
    assert "all in order" in node.heal("--dry-run")
    host.run("ip", "link", "set", "cni0", "down")
    assert "bridge: repaired: bridge cni0 is down" in node.heal()


def test_a_drop_policy_alone(node: Node) -> None:
    """Nothing is deleted when a policy changes."""
    duties = begin(node)
    node.host.run("sh", "-ec", "for six in '' 6; do ip${six}tables -P FORWARD DROP; done")
    until(lambda: node.reached() == {"a", "b", "c"}, duties.require)
    assert duties.end() == 0


def test_a_plugin_of_another_suite_is_passed_over(node: Node) -> None:
    """Only its name is known."""
    node.host.run("mkdir", "/run/bin")
    node.host.run("sh", "-ec", f"cp {node.host.bin_dir}/* /run/bin; echo '#!/bin/sh' >/run/bin/portmap")
    node.host.run("sh", "-ec", FLUSH)
    done = node.host.run("/run/bin/cnitool", "heal", env={"PATH": PATH})
    assert {line.split()[3] for line in done.stdout.splitlines() if "repaired" in line} == {"bridge:", "firewall:"}


def test_json(node: Node) -> None:
    node.host.run("sh", "-ec", FLUSH)
    looked = json.loads(node.heal("--dry-run", "--json", check=False))
    assert looked["attachments"] == 3 and {one["containerID"] for one in looked["found"]} == {"a", "b", "c"}
    healed = json.loads(node.heal("pods", "--json"))
    assert {one["plugin"] for one in healed["found"]} >= {"bridge", "portmap"}
    assert json.loads(node.heal("--json")) == {"attachments": 3, "found": [], "skipped": []}


def many(host: PretendHost, count: int) -> None:
    """Flush the rules of many pods, take their bridge down, and wait until all are reached again."""
    node = Node(host)
    pods = [f"p{number}" for number in range(count)]
    node.attach(*pods)
    node.serve(*pods)
    assert node.reached(seconds=10) == set(pods)
    before = node.state()
    duties = begin(node)
    for damage in (FLUSH, DAMAGES["bridge"]):
        node.host.run("sh", "-ec", damage)
        until(lambda: node.reached(seconds=5) == set(pods), duties.require, seconds=60)
        until(lambda: differences(before, node.state()) == [], duties.require)
    assert duties.end() == 0


@pytest.mark.row(23)
def test_ten_pods(host: PretendHost) -> None:
    many(host, 10)


@pytest.mark.faults
@pytest.mark.row(23)
def test_two_hundred_pods(host: PretendHost) -> None:
    many(host, 200)
