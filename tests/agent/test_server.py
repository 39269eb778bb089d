"""The call server: its place, its workers' number, its ends, its upgrade, its duties process, and its answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.agent.calls import BRIDGED, LOOPBACK, NO_DUTIES, SETTINGS, VERSION, Calls, ended, inside
from tests.agent.running import IDLE_WORKERS, Agent, proportional_mib
from tests.pretend import PretendHost, read_line, until
from tests.pythons import found

MEMORY_MIB = 40.0  # of the server with four idle workers
FAILED_WORKERS = 12  # at most, within the first pauses; without pauses there are hundreds
DUTIES = """#!/bin/sh
echo "$*" >>/run/duties/started
echo $$ >/run/duties/pid
[ ! -e /run/duties/done ] || exit 0
[ ! -e /run/duties/fails ] || exit 3
while read -r line; do echo "$line" >>/run/duties/calls; done
"""


def run_agent(host: PretendHost) -> subprocess.CompletedProcess[str]:
    """Run an agent that is to refuse."""
    return host.run(f"{host.bin_dir}/pycni-agent", check=False)


# -- a place that only root can enter


PLANTED = {
    "a link": ("ln -s /run/other /run/pycni; mkdir -m 700 /run/other", "is not a directory"),
    "a file": ("touch /run/pycni", "is not a directory"),
    "mode": ("mkdir -m 755 /run/pycni", "has mode 0755, it must have 0700"),
    "owner": ("mkdir -m 700 /run/pycni; chown 1000 /run/pycni", "belongs to user 1000"),
    "fifo": ("mkdir -m 700 /run/pycni; mkfifo -m 600 /run/pycni/agent.sock", "/run/pycni/agent.sock is not a socket"),
    "link": ("mkdir -m 700 /run/pycni; ln -s /run/x /run/pycni/agent.sock", "/run/pycni/agent.sock is not a socket"),
    "control": ("mkdir -m 700 /run/pycni; touch /run/pycni/control.sock", "/run/pycni/control.sock is not a socket"),
    "count": ("mkdir -m 700 /run/pycni; ln -s /run/x /run/pycni/fallbacks", "/run/pycni/fallbacks is not a regular"),
    "lock": ("mkdir -m 700 /run/pycni; ln -s /run/x /run/pycni/lock", "/run/pycni/lock"),
    "lock's owner": (
        "mkdir -m 700 /run/pycni; install -m 600 -o 1000 /dev/null /run/pycni/lock",
        "belongs to user 1000",
    ),
    "lock's mode": ("mkdir -m 700 /run/pycni; install -m 666 /dev/null /run/pycni/lock", "has mode 0666"),
}


def test_planted_files_are_refused_and_not_followed(node_host: PretendHost) -> None:
    for kind, (plant, complaint) in PLANTED.items():
        node_host.run("sh", "-ec", f"rm -rf /run/pycni /run/other /run/x; {plant}")
        look = ("sh", "-c", "find /run -newermt 1970-01-01 -printf '%p %y %m %U %l\\n' | grep -v pycni/lock | sort")
        before = node_host.run(*look).stdout
        done = run_agent(node_host)
        assert done.returncode == 1, kind
        assert complaint in done.stderr, kind
        after = set(node_host.run(*look).stdout.splitlines()) - set(before.splitlines())
        assert after == set(), kind
        assert not (node_host.root / "run/x").exists()


def test_a_socket_of_a_killed_agent_is_replaced(calls: Calls) -> None:
    calls.agent.kill()
    with Agent(calls.host) as second:
        assert calls.host.cni("loopback", "VERSION", VERSION).status == 0
        until(lambda: second.taken() == 1)
        mode = (calls.host.root / "run/pycni/agent.sock").stat().st_mode & 0o7777
        assert mode == 0o600


def test_a_second_agent_is_refused(calls: Calls) -> None:
    pid = calls.agent.status()["pid"]
    done = run_agent(calls.host)
    assert (done.returncode, done.stderr) == (1, f"pycni: agent: another agent is running, its process id is {pid}\n")
    calls.serve_until(lambda: calls.agent.taken() > 0)


WRONG = {
    '{"worker": 4}': '"worker" is not a key',
    '{"workers": 0}': '"workers": 0 must be a whole number from 1 to 64',
    '{"metrics": "localhost:1"}': '"metrics": "localhost:1" must be "unix"',
    '{"metrics": "127.0.0.1:70000"}': '"metrics"',
    '{"heal": 1}': '"heal": 1 must be true or false',
    '{"graceSeconds": 1}': '"graceSeconds": 1 must be',
    "[]": "it must be an object",
    "{": "no JSON",
}


def test_wrong_settings_are_named(node_host: PretendHost) -> None:
    for text, complaint in WRONG.items():
        (node_host.root / SETTINGS).write_text(text)
        done = run_agent(node_host)
        assert done.returncode == 1, text
        assert f"/{SETTINGS}: " in done.stderr, done.stderr
        assert complaint in done.stderr or text == "{", done.stderr


def test_the_argument_version_prints_the_release(node_host: PretendHost) -> None:
    done = node_host.run(f"{node_host.bin_dir}/pycni-agent", "version")
    assert done.stdout.strip()
    assert node_host.run(f"{node_host.bin_dir}/pycni-agent", "start", check=False).returncode == 2


# -- workers


def test_calls_are_served_and_counted(calls: Calls) -> None:
    host, pod = calls.host, "/run/netns/pod"
    added = host.cni("bridge", "ADD", BRIDGED, netns=pod)
    assert added.status == 0, added
    for verb in ("CHECK", "DEL"):
        answer = host.cni("bridge", verb, BRIDGED | {"prevResult": added.json}, netns=pod)
        assert (answer.status, answer.stdout) == (0, "")
    assert host.cni("bridge", "ADD", BRIDGED, netns="/run/netns/none").code == 3
    expected = {"bridge": {"ADD": {"0": 1, "3": 1}, "CHECK": {"0": 1}, "DEL": {"0": 1}}}
    until(lambda: calls.agent.status()["calls"] == expected)
    status = calls.agent.status()
    assert (status["declined"], status["fallbacks"], status["tree"]) == (0, 0, calls.tree)
    until(lambda: calls.agent.status()["workers"] == {"idle": IDLE_WORKERS, "busy": 0})


def test_more_calls_at_once_than_workers(calls: Calls) -> None:
    """All succeed. Some may have waited too long for a worker on a slow machine, and were executed."""
    with ExitStack() as stack:
        processes = [stack.enter_context(calls.begin("loopback", "ADD")) for _ in range(20)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(LOOPBACK).encode())
            process.stdin.close()
        assert [process.wait(60) for process in processes] == [0] * 20
    until(lambda: sum(calls.counted()) == 20)
    until(lambda: calls.agent.status()["workers"] == {"idle": IDLE_WORKERS, "busy": 0})


def test_no_worker_is_forked_beside_a_call(calls: Calls) -> None:
    """A fork beside a call makes it slower. But half of the idle workers must be there for others."""
    process = calls.begin_taken("loopback", "ADD", LOOPBACK)
    calls.busy()  # the server has had a turn since it knows of the call
    assert len(calls.workers()) == IDLE_WORKERS
    assert calls.host.cni("loopback", "VERSION", VERSION).status == 0
    until(lambda: calls.agent.status()["workers"] == {"idle": IDLE_WORKERS // 2 + 1, "busy": 1})
    assert len(calls.workers()) == IDLE_WORKERS // 2 + 2
    assert finish(process) == 0
    until(lambda: calls.agent.status()["workers"] == {"idle": IDLE_WORKERS, "busy": 0})


def test_memory(calls: Calls) -> None:
    for _ in range(24):  # workers learn which pages to copy
        assert calls.host.cni("loopback", "ADD", LOOPBACK, netns="/run/netns/pod").status == 0
    calls.agent.wait_until_ready()
    until(lambda: len(calls.workers()) == IDLE_WORKERS)  # the last call's may have yet to end
    used = [proportional_mib(pid) for pid in (calls.agent.process.pid, *calls.workers())]
    assert len(used) == 1 + IDLE_WORKERS
    assert sum(used) <= MEMORY_MIB, used


def test_workers_that_fail_are_forked_with_pauses(node_host: PretendHost) -> None:
    """Their failure is planted into the agent's own start."""
    (node_host.root / SETTINGS).write_text(NO_DUTIES)
    program = Path(node_host.bin_dir, "pycni-agent").read_text()
    spoilt = program.replace("\nmain(", "\nfrom shared.agent.worker import Worker\ndel Worker.prepare\nmain(")
    assert spoilt != program
    (node_host.root / "run/bin").mkdir()
    (node_host.root / "run/bin/pycni-agent").write_text(spoilt)
    (node_host.root / "run/bin/pycni-agent").chmod(0o755)
    process = node_host.popen("/run/bin/pycni-agent", stderr=subprocess.PIPE)
    with suppress(subprocess.TimeoutExpired):
        process.wait(4)
    assert process.poll() is None
    assert node_host.cni("loopback", "VERSION", VERSION).status == 0
    process.terminate()
    assert process.wait(30) == 0
    assert process.stderr is not None
    failed = process.stderr.read().decode().count("a worker failed: AttributeError")
    assert 0 < failed <= FAILED_WORKERS


def test_a_fork_that_fails_is_tried_again(calls: Calls) -> None:
    server = calls.agent.process.pid
    forks = "?clone,?clone3,?fork"
    strike = ("-e", f"trace={forks}", "-e", f"inject={forks}:error=EAGAIN:when=1")
    (inner,) = inside([server])
    tracer = calls.host.popen("strace", "-qq", "-o", "/run/forks", *strike, "-p", str(inner))
    until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{server}/status").read_text())
    calls.serve_until(lambda: "no worker can be forked: Resource temporarily unavailable" in calls.agent.log)
    until(lambda: calls.agent.status()["workers"]["idle"] == 4)
    tracer.terminate()
    tracer.wait()


def test_killed_workers_are_replaced(calls: Calls) -> None:
    for worker in calls.workers():
        os.kill(worker, signal.SIGKILL)
    until(lambda: calls.agent.status()["workers"]["idle"] == 4)
    calls.serve_until(lambda: calls.agent.taken() > 0)


def test_a_frozen_server_does_not_stop_calls(calls: Calls) -> None:
    """Idle workers serve; later calls are executed after the launcher has waited."""
    calls.agent.signal(signal.SIGSTOP)
    for _ in range(6):
        assert calls.host.cni("loopback", "VERSION", VERSION).status == 0
    calls.agent.signal(signal.SIGCONT)
    until(lambda: calls.counted() == (4, 2))
    calls.serve_until(lambda: calls.agent.taken() > 4)


def test_frozen_workers_do_not_stop_calls(calls: Calls) -> None:
    workers = calls.workers()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    assert calls.host.cni("loopback", "VERSION", VERSION).status == 0
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    assert calls.counted() == (0, 1)
    calls.serve_until(lambda: calls.agent.taken() > 0)


@pytest.mark.parametrize("version", found())
def test_each_python_can_run_it(node_host: PretendHost, version: str) -> None:
    (node_host.root / SETTINGS).write_text(NO_DUTIES)
    text = Path(node_host.bin_dir, "pycni-agent").read_text()
    (node_host.root / "run/bin").mkdir()
    program = node_host.root / "run/bin/pycni-agent"
    program.write_text(f"#!{found()[version]} -IBS\n{text.partition(chr(10))[2]}")
    program.chmod(0o755)
    with Agent(node_host, "/run/bin") as agent:
        pod = node_host.netns("pod")
        for verb in ("ADD", "DEL"):
            assert node_host.cni("bridge", verb, BRIDGED, netns=pod).status == 0
        until(lambda: agent.taken() == 2)
        agent.signal(signal.SIGHUP)
        until(lambda: agent.taken() == 2 and agent.status()["workers"]["idle"] == 4)
        assert agent.stop() == 0
        assert agent.log == ""


# -- ends


def finish(process: subprocess.Popen[bytes]) -> int:
    """End a call's input, and return its exit status."""
    assert process.stdin is not None
    process.stdin.close()
    return process.wait(60)


def test_calls_in_progress_outlive_a_killed_server(calls: Calls) -> None:
    process = calls.begin_taken("loopback", "ADD", LOOPBACK)
    workers = calls.workers()
    calls.agent.kill()
    until(lambda: sum(not ended(worker) for worker in workers) == 1)
    assert calls.host.cni("loopback", "VERSION", VERSION).status == 0
    assert finish(process) == 0
    until(lambda: all(map(ended, workers)))


def test_the_end_waits_for_calls_in_progress(calls: Calls) -> None:
    process = calls.begin_taken("loopback", "ADD", LOOPBACK)
    calls.agent.signal(signal.SIGTERM)
    until(lambda: not (calls.host.root / "run/pycni/agent.sock").exists())
    assert calls.host.cni("loopback", "VERSION", VERSION).status == 0
    assert calls.agent.process.poll() is None
    assert finish(process) == 0
    assert calls.agent.process.wait(30) == 0
    assert os.listdir(calls.host.root / "run/pycni") == ["lock"]
    assert calls.agent.log == ""


def test_the_end_waits_for_a_call_that_is_being_taken(calls: Calls) -> None:
    """The worker has answered TAKEN, and the server does not know that yet."""
    workers = calls.workers()
    calls.agent.signal(signal.SIGSTOP)
    caller = calls.follow(("send", calls.request()), ("receive",), ("tell",))
    assert json.loads(read_line(caller)) == ["T"]
    calls.agent.signal(signal.SIGTERM)
    calls.agent.signal(signal.SIGCONT)
    assert calls.agent.process.wait(30) == 0
    assert all(map(ended, workers))
    caller.kill()


# -- upgrade


def test_no_call_fails_during_upgrades(calls: Calls) -> None:
    """Each call is served once: by a worker of either release, or by its launcher."""
    host = calls.host
    pid = calls.agent.status()["pid"]
    in_progress = calls.begin_taken("loopback", "ADD", LOOPBACK)
    answers: list[int] = []
    stop = threading.Event()

    def stream() -> None:
        while not stop.is_set():
            answers.append(host.cni("loopback", "VERSION", VERSION).status)

    threads = [threading.Thread(target=stream) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        before = len(answers)
        calls.agent.signal(signal.SIGHUP)
        until(lambda before=before: len(answers) >= before + 6)  # type: ignore[misc]
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) == {0}
    assert finish(in_progress) == 0
    until(lambda: sum(calls.counted()) == len(answers) + 1)
    until(lambda: calls.agent.status()["workers"] == {"idle": IDLE_WORKERS, "busy": 0})
    assert calls.agent.status()["pid"] == pid
    until(lambda: len(calls.workers()) == 4)
    assert calls.agent.log == ""
    assert run_agent(host).returncode == 1, "the lock is still held"


def test_an_upgrade_without_a_program_changes_nothing(node_host: PretendHost) -> None:
    (node_host.root / SETTINGS).write_text(NO_DUTIES)
    node_host.run("sh", "-ec", f"mkdir /run/bin; cp {node_host.bin_dir}/pycni-agent /run/bin/")
    with Agent(node_host, "/run/bin") as agent:
        (node_host.root / "run/bin/pycni-agent").unlink()
        agent.signal(signal.SIGHUP)
        until(lambda: "/run/bin/pycni-agent cannot be executed, the agent goes on as before" in agent.log)
        assert node_host.cni("loopback", "VERSION", VERSION).status == 0
        until(lambda: agent.taken() == 1)


def test_wrong_settings_do_not_end_a_running_agent(calls: Calls) -> None:
    in_progress = calls.begin_taken("loopback", "ADD", LOOPBACK)
    (calls.host.root / SETTINGS).write_text('{"wrokers": 2}')
    calls.agent.signal(signal.SIGHUP)
    until(lambda: "wrokers" in calls.agent.log)
    assert "the settings stay as they were" in calls.agent.log
    assert finish(in_progress) == 0
    until(lambda: calls.agent.status()["workers"] == {"idle": IDLE_WORKERS, "busy": 0})
    assert calls.agent.duties() == []


def test_an_early_upgrade_does_not_end_the_agent(node_host: PretendHost) -> None:
    """install.sh finds the agent by its lock, which has a process id long before the workers are there."""
    (node_host.root / SETTINGS).write_text(NO_DUTIES)
    lock = node_host.root / "run/pycni/lock"
    process = node_host.popen(f"{node_host.bin_dir}/pycni-agent", stderr=subprocess.PIPE)
    until(lambda: lock.exists() and bool(lock.read_text()))
    process.send_signal(signal.SIGHUP)
    until(lambda: node_host.cni("loopback", "VERSION", VERSION).status == 0 and process.poll() is None)
    process.terminate()
    assert process.wait(30) == 0


# -- the service manager, the control socket


def test_systemd_is_told(node_host: PretendHost) -> None:
    (node_host.root / SETTINGS).write_text(NO_DUTIES)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(node_host.root / "run/notify"))
        manager.settimeout(30)
        process = node_host.popen(f"{node_host.bin_dir}/pycni-agent", env={"NOTIFY_SOCKET": "/run/notify"})
        assert manager.recv(100) == b"READY=1"
        process.send_signal(signal.SIGHUP)
        assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(100) == b"READY=1"
        process.send_signal(signal.SIGHUP)
        assert manager.recv(100).startswith(b"RELOADING=1")
        process.terminate()  # it waits for the next release
        received = [manager.recv(100), manager.recv(100)]
        assert received == [b"READY=1", b"STOPPING=1"]
        assert process.wait(30) == 0


def test_hostile_clients_of_the_control_socket(calls: Calls) -> None:
    """Some say nothing, some do not read: the next one gets its answer."""
    with ExitStack() as stack:
        for number in range(60):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            client.settimeout(30)
            client.connect(str(calls.host.root / "run/pycni/control.sock"))
            if number % 2:
                with suppress(OSError):
                    client.send(b"x" * 5000)
        assert calls.agent.status()["workers"]["idle"] == 4
        assert calls.agent.process.poll() is None
    assert len(os.listdir(f"/proc/{calls.agent.process.pid}/fd")) < 30


# -- the duties process


@pytest.fixture
def dutiful(node_host: PretendHost) -> PretendHost:
    """Return a host whose agent finds a program that notes its calls in the place of cnitool."""
    node_host.run("sh", "-ec", f"mkdir /run/bin /run/duties; cp {node_host.bin_dir}/pycni-agent /run/bin/")
    (node_host.root / "run/bin/cnitool").write_text(DUTIES)
    (node_host.root / "run/bin/cnitool").chmod(0o755)
    return node_host


def noted(host: PretendHost, name: str) -> list[str]:
    with suppress(FileNotFoundError):
        return (host.root / "run/duties" / name).read_text().splitlines()
    return []


def test_the_duties_process_is_told_of_calls(dutiful: PretendHost) -> None:
    with Agent(dutiful, "/run/bin") as agent:
        until(lambda: noted(dutiful, "started") == ["agent run"])
        assert dutiful.cni("loopback", "VERSION", VERSION).status == 0
        until(lambda: len(noted(dutiful, "calls")) == 1)
        (record,) = map(json.loads, noted(dutiful, "calls"))
        assert record.pop("seconds") > 0
        assert record == {"plugin": "loopback", "verb": "VERSION", "code": 0}
        assert agent.status()["duties"]["pid"] is not None
        agent.signal(signal.SIGHUP)
        until(lambda: noted(dutiful, "started").count("agent run") == 2)
        # a slow machine's launcher may execute a call while the agent starts anew
        until(lambda: len(noted(dutiful, "calls")) > 1, lambda: dutiful.cni("loopback", "VERSION", VERSION))
        assert agent.stop() == 0
    (pid,) = noted(dutiful, "pid")
    assert dutiful.run("sh", "-c", f"kill -0 {pid}", check=False).returncode == 1, "it has ended with the agent"


def test_the_duties_process_is_told_of_the_last_call(dutiful: PretendHost) -> None:
    """A single worker is replaced while it serves, so that nothing is forked after its call."""
    (dutiful.root / SETTINGS).write_text('{"workers": 1}')
    agent = Agent(dutiful, "/run/bin", idle=1)
    try:
        until(lambda: noted(dutiful, "started") == ["agent run"])
        assert dutiful.cni("loopback", "VERSION", VERSION).status == 0
        until(lambda: len(noted(dutiful, "calls")) == agent.taken() == 1)
    finally:
        agent.kill()


def test_a_failing_duties_process_is_started_again(dutiful: PretendHost) -> None:
    (dutiful.root / "run/duties/fails").touch()
    with Agent(dutiful, "/run/bin") as agent:
        until(lambda: len(noted(dutiful, "started")) >= 2)
        assert len(noted(dutiful, "started")) <= 3
        (dutiful.root / "run/duties/fails").unlink()
        until(lambda: agent.status()["duties"]["pid"] is not None, seconds=60)
        assert agent.status()["duties"]["restarts"] >= 2


def test_a_duties_process_with_nothing_to_do_may_end(dutiful: PretendHost) -> None:
    (dutiful.root / "run/duties/done").touch()
    with Agent(dutiful, "/run/bin") as agent:
        until(lambda: noted(dutiful, "started") == ["agent run"] and agent.status()["duties"]["pid"] is None)
        (dutiful.root / "run/duties/done").unlink()
        assert agent.status()["duties"] == {"pid": None, "restarts": 0}
        agent.signal(signal.SIGHUP)
        until(lambda: len(noted(dutiful, "started")) == 2)


def test_without_cnitool_calls_are_served(node_host: PretendHost) -> None:
    node_host.run("sh", "-ec", f"mkdir /run/bin; cp {node_host.bin_dir}/pycni-agent /run/bin/")
    with Agent(node_host, "/run/bin") as agent:
        until(lambda: "/run/bin/cnitool cannot be started: No such file" in agent.log)
        assert node_host.cni("loopback", "VERSION", VERSION).status == 0
        until(lambda: agent.taken() == 1)
