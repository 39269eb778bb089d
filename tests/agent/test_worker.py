"""Workers: whom they serve, how a call ends, and that no state crosses from one call to the next."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.agent.calls import BRIDGED, CALLER, LOOPBACK, VERSION, Calls, ended, inside, open_files
from tests.faults.state import state
from tests.plugins import SAMPLES
from tests.pretend import PATH, PretendHost, read_line, until

FAULTS_OF_A_CALL = 400  # page faults; 230 to 330 before the workers have learnt the pages, 10 to 100 after that
SYSTEM_CALLS_OF_A_CALL = 110  # of a worker, from the connection to its end, for an ADD of loopback; 85 were counted
LEARNING = 16  # calls
# A directory with everything of / in it, but another one.
ANOTHER_ROOT = """
mkdir /run/root; mount -t tmpfs tmpfs /run/root
for entry in /*; do
    if [ -L $entry ]; then cp -P $entry /run/root; elif [ -d $entry ]; then mkdir /run/root$entry; mount --rbind $entry /run/root$entry; fi
done
"""
# Callers in other places, and the reason that the worker gives.
CALLERS: dict[str, tuple[str, ...]] = {
    "another group": ("setpriv", "--regid=1", "--clear-groups"),
    "another network namespace": ("unshare", "--net"),
    "another mount namespace": ("unshare", "--mount"),
    "another user namespace": ("unshare", "--user", "--map-root-user"),
    "another process namespace": ("unshare", "--pid", "--fork"),
    "another root directory": ("chroot", "/run/root"),
    "fewer capabilities": ("setpriv", "--bounding-set=-sys_boot"),
}
VERBS = ("VERSION", "STATUS", "ADD", "CHECK", "GC", "DEL")
# Numbers of namespaces, of the moment, and of objects, which differ from host to host.
NUMBERS = re.compile(r"netns=[\d:]+|\b4:\d{10}:\d+|(?<=order\": )\d+")


def test_callers_from_elsewhere_execute_their_calls(calls: Calls) -> None:
    host = calls.host
    host.run("sh", "-ec", ANOTHER_ROOT)
    expected = host.cni("loopback", "VERSION", VERSION)
    assert expected.status == 0
    for prefix in CALLERS.values():
        assert host.cni("loopback", "VERSION", VERSION, prefix=prefix) == expected
    until(lambda: calls.counted() == (1, len(CALLERS)))
    assert calls.agent.status()["reasons"] == dict.fromkeys(CALLERS, 1)


def test_another_user_is_declined(calls: Calls) -> None:
    """Only root can enter the directory; a worker does not rely on that."""
    host = calls.host
    order = json.dumps([("send", calls.request()), ("receive",)])
    as_nobody = ("setpriv", "--reuid=65534", "/usr/bin/python3", "-c", CALLER, order)
    assert "PermissionError" in host.run(*as_nobody, check=False).stderr
    host.run("chmod", "711", "/run/pycni")
    host.run("chmod", "666", "/run/pycni/agent.sock")
    assert json.loads(host.run(*as_nobody).stdout) == ["D"]
    until(lambda: calls.agent.status()["reasons"] == {"not root": 1})


def test_values_that_name_the_callers_own_files_are_not_for_a_worker(calls: Calls) -> None:
    for value in ("/proc/self/ns/net", "/proc/thread-self/ns/net", "/dev/fd/9"):
        assert calls.host.cni("loopback", "ADD", LOOPBACK, netns=value).status == 1
    assert calls.counted() == (0, 3)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"tree": "/another-0123456789ab"}, "another release"),
        ({"plugin": "nothing"}, "unknown plugin"),
        ({"plugin": "../loopback"}, "unknown plugin"),
    ],
)
def test_other_requests_are_declined(calls: Calls, words: dict[str, str], reason: str) -> None:
    caller = calls.follow(("send", calls.request(**words)), ("receive",))
    assert caller.stdout is not None
    assert json.loads(read_line(caller)) == ["D"]
    until(lambda: calls.agent.status()["reasons"] == {reason: 1})


HOSTILE: dict[str, tuple[tuple[Any, ...], ...]] = {
    "nothing": (),
    "garbage": (("send", "\xff\x00garbage"), ("receive",)),
    "empty": (("send", ""), ("receive",)),
    "huge": (("send", "x", 0, 150_000), ("receive",)),
    "too early": (("send", "REQUEST", 3), ("receive",)),
    "no go": (("send", "REQUEST"), ("receive",)),
    "another word": (("send", "REQUEST"), ("receive",), ("send", "?", 4), ("receive",)),
    "too few": (("send", "REQUEST"), ("receive",), ("send", "G", 3), ("receive",)),
    "too many": (("send", "REQUEST"), ("receive",), ("send", "G", 7), ("receive",)),
    "none": (("send", "REQUEST"), ("receive",), ("send", "G"), ("receive",)),
}


def test_hostile_callers_do_not_keep_workers(calls: Calls) -> None:
    """All kinds come at once, and stay. The workers live on, without their descriptors, and serve the next call."""
    before = sorted(calls.workers())
    callers = {
        kind: calls.follow(*(tuple(calls.request() if word == "REQUEST" else word for word in one) for one in orders))
        for kind, orders in HOSTILE.items()
    }
    for kind, caller in callers.items():
        assert caller.stdout is not None
        answers = json.loads(read_line(caller))
        assert not {"\0", "\1"} & {*answers}, f"{kind}: a call has run: {answers}"
        assert kind != "too early" or answers == ["D"]
    calls.serve_until(lambda: calls.agent.taken() > 0)
    assert all(caller.poll() is None for caller in callers.values())
    until(lambda: calls.busy() == 0)
    still_there = set(before) & set(calls.workers())
    assert len(still_there) >= len(before) - calls.agent.taken(), calls.agent.log
    for worker in still_there:
        until(lambda worker=worker: len(os.listdir(f"/proc/{worker}/fd")) <= 5)  # type: ignore[misc]


def test_a_worker_whose_caller_leaves_after_taken_waits_for_another(calls: Calls) -> None:
    caller = calls.follow(("send", calls.request()), ("receive",))
    assert caller.stdout is not None
    assert json.loads(read_line(caller)) == ["T"]
    before = sorted(calls.workers())
    caller.kill()
    caller.wait()
    for _ in before:
        assert calls.host.cni("loopback", "ADD", LOOPBACK, netns="/run/netns/pod").status == 0
    until(lambda: calls.counted() == (len(before), 0))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_launcher_undoes_an_add(calls: Calls, number: signal.Signals) -> None:
    host = calls.host
    assert host.cni("bridge", "ADD", BRIDGED, netns="/run/netns/pod").status == 0
    assert host.cni("bridge", "DEL", BRIDGED, netns="/run/netns/pod").status == 0
    before = state(host, ["pod"])
    lock = host.root / "var/lib/cni/networks/net/lock"
    with lock.open() as held:  # host-local waits for it, when the veth pair is there
        fcntl.flock(held, fcntl.LOCK_EX)
        process = calls.begin_taken("bridge", "ADD", BRIDGED)
        assert process.stdin is not None
        process.stdin.close()
        until(lambda: any(link.get("linkinfo", {}).get("info_kind") == "veth" for link in host.ip("link")))
        process.send_signal(number)
        assert process.wait(60) == 1
    assert process.stdout is not None
    assert json.loads(process.stdout.read())["msg"].startswith("terminated by signal")
    assert state(host, ["pod"]) == before


def test_the_death_of_the_launcher_undoes_an_add(calls: Calls) -> None:
    host = calls.host
    assert host.cni("bridge", "ADD", BRIDGED, netns="/run/netns/pod").status == 0
    assert host.cni("bridge", "DEL", BRIDGED, netns="/run/netns/pod").status == 0
    before = state(host, ["pod"])
    with (host.root / "var/lib/cni/networks/net/lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = calls.begin_taken("bridge", "ADD", BRIDGED)
        assert process.stdin is not None
        process.stdin.close()
        until(lambda: any(link.get("linkinfo", {}).get("info_kind") == "veth" for link in host.ip("link")))
        process.kill()
        process.wait()
        until(lambda: calls.busy() == 0)
    assert state(host, ["pod"]) == before


def test_the_death_of_the_launcher_before_the_call_begins(calls: Calls) -> None:
    """The worker reads standard input, which a killed launcher's runtime may hold open for ever."""
    process = calls.begin_taken("loopback", "ADD", LOOPBACK)
    process.kill()
    process.wait()
    until(lambda: calls.busy() == 0, seconds=15)


def test_the_death_of_a_worker_is_an_error(calls: Calls) -> None:
    before = set(calls.workers())
    process = calls.begin_taken("loopback", "ADD", LOOPBACK)
    busy = before - set(calls.idle_workers())
    assert len(busy) == 1
    os.kill(busy.pop(), signal.SIGKILL)
    assert process.wait(30) == 1
    assert process.stdout is not None
    assert json.loads(process.stdout.read())["code"] == 11
    assert calls.counted()[1] == 0


def test_descriptors_and_place_are_the_launchers(calls: Calls) -> None:
    """A worker in a call has the caller's descriptors, working directory, umask and environment, and nothing else."""
    before = set(calls.workers())
    process = calls.begin(
        "loopback", "ADD", "sh", "-c", 'umask 027; cd /run/netns; exec "$0"', env={"MARK": "mine", "CNI_ARGS": "A=b"}
    )
    until(lambda: calls.busy() == 1)
    (worker,) = before - set(calls.idle_workers())
    launcher = process.pid
    until(lambda: os.readlink(f"/proc/{worker}/cwd") == "/run/netns")
    for descriptor in range(3):
        assert os.readlink(f"/proc/{worker}/fd/{descriptor}") == os.readlink(f"/proc/{launcher}/fd/{descriptor}")
    assert "Umask:\t0027" in Path(f"/proc/{worker}/status").read_text()
    kinds = sorted(re.sub(r"\d+", "N", name) for name in open_files(worker))
    assert kinds == ["pipe:[N]"] * 4 + ["socket:[N]"], "the standard descriptors, the reports, the connection"
    process.kill()


def test_nothing_of_the_callers_is_in_use_after_the_call(calls: Calls) -> None:
    """The pod's namespace and the working directory can be unmounted while the worker has yet to end."""
    host = calls.host
    host.run("sh", "-ec", "mkdir /run/there; mount -t tmpfs tmpfs /run/there")
    workers = calls.idle_workers()
    delay = ("-e", "trace=exit_group", "-e", "inject=exit_group:delay_enter=60000000")  # a minute
    attached = [word for pid in inside(workers) for word in ("-p", str(pid))]
    tracer = host.popen("strace", "-qq", "-o", "/run/trace", *delay, *attached)
    until(lambda: all("TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text() for pid in workers))
    here = ("sh", "-c", 'cd /run/there; exec "$0"')
    assert host.cni("loopback", "ADD", LOOPBACK, netns="/run/netns/pod", prefix=here).status == 0
    until(lambda: calls.counted() == (1, 0))
    assert not any(map(ended, workers))
    host.run("umount", "/run/netns/pod")
    host.run("umount", "/run/there")
    tracer.kill()
    tracer.wait()


def test_no_state_crosses_into_the_next_call(calls: Calls) -> None:
    """The environment of a call ends with it. The agent's own is not that of a call."""
    host = calls.host
    calls.agent.kill()
    calls.agent.process = host.popen(calls.agent.program, env={"PATH": PATH, "TRACEPARENT": "the agent's"})
    calls.agent.wait_until_ready()
    config = LOOPBACK | {"pycni": {"log": "/run/pycni.log"}}
    host.netns("other")
    assert host.cni("loopback", "ADD", config, netns="/run/netns/other", env={"TRACEPARENT": "first"}).status == 0
    assert host.cni("loopback", "ADD", config, netns="/run/netns/pod").status == 0
    first, second = map(json.loads, (host.root / "run/pycni.log").read_text().splitlines())
    assert first["traceparent"] == "first"
    assert "traceparent" not in second
    assert first["steps"].keys() == second["steps"].keys()


def test_input_without_end_is_refused(calls: Calls) -> None:
    """The limits of an executed call hold: 16 MiB, and 20 seconds (which the slow test of executables waits for)."""
    process = calls.begin("loopback", "ADD")
    assert process.stdin is not None
    try:
        while True:
            process.stdin.write(b" " * 65536)
    except BrokenPipeError:
        pass
    assert process.wait(30) == 1
    assert process.stdout is not None
    assert "larger than" in json.loads(process.stdout.read())["msg"]


# -- the same answers both ways


def lived(host: PretendHost, plugin: str) -> list[object]:
    """Return everything that a plugin answers and leaves, from VERSION to DEL, with its lines in the log."""
    netns = "/run/netns/pod"
    sample = SAMPLES[plugin]
    host.run("sh", "-ec", sample.links)
    common = {"cniVersion": "1.1.0", "name": "net", "pycni": {"log": "/run/pycni.log"}}
    own: dict[str, Any] = {}
    for before in sample.before:
        own = {"prevResult": host.cni(before["type"], "ADD", common | before | own, netns=netns).json}
    seen: list[object] = []
    result: Any = None
    for verb in VERBS:
        more: dict[str, Any] = {"cni.dev/valid-attachments": []} if verb == "GC" else {}
        if verb in ("CHECK", "DEL"):
            own = {"prevResult": result}
        answer = host.cni(plugin, verb, common | sample.keys | own | more, netns=netns)
        if verb == "ADD" and answer.status == 0:
            result = answer.json
        seen += [verb, answer, sorted(state(host, ["pod"]))]
    seen.append(host.cni(plugin, "ADD", "{garbage", netns=netns))
    seen.append(host.cni(plugin, "ADD", common | sample.keys, netns="/run/netns/none"))
    lines = list(map(json.loads, (host.root / "run/pycni.log").read_text().splitlines()))
    steps = [[step for step in line["steps"] if step != "dad"] for line in lines]  # a step only if the call must wait
    seen += [[{**line, "time": 0, "ms": 0, "steps": told} for line, told in zip(lines, steps, strict=True)]]
    return seen


def _comparable(seen: list[object]) -> list[str]:
    """Return it as text without the random MACs of the host's links, and the numbers of namespaces and links."""
    text = [repr(one) for one in seen]
    random = r"(?:br0.{0,40}?|link (?:up0p?|hostmv-\d+) .{0,120}?)((?:[0-9a-f]{2}:){5}[0-9a-f]{2})"
    for mac in set(re.findall(random, " ".join(text), re.DOTALL)):
        text = [one.replace(mac, "MAC") for one in text]
    return [NUMBERS.sub("N", one) for one in text]


# Those that may have to run on the slow stock kernel share their code with macvlan and sbr.
@pytest.mark.parametrize("plugin", [name for name, one in SAMPLES.items() if not (one.is_served or one.needs)])
def test_answers_are_those_of_an_executable(calls: Calls, installed_with_agent: Path, plugin: str) -> None:
    by_workers = lived(calls.host, plugin)
    until(lambda: calls.busy() == 0)
    served, executed = calls.counted()
    assert served >= len(VERBS) + 2
    assert executed == 0, calls.agent.status()
    with PretendHost(installed_with_agent) as other:
        other.netns("pod")
        by_executables = lived(other, plugin)
    assert _comparable(by_workers) == _comparable(by_executables)


# -- counts


def test_page_faults_of_a_call(calls: Calls) -> None:
    """A frozen server does not bury its workers: a dead one still tells the number of its page faults."""
    host = calls.host
    faults = []
    for number in range(LEARNING + 8):
        calls.agent.wait_until_ready()
        calls.agent.signal(signal.SIGSTOP)
        before = {pid: _faults(pid) for pid in calls.workers()}
        verb = "ADD" if number % 2 == 0 else "DEL"
        assert host.cni("loopback", verb, LOOPBACK, netns="/run/netns/pod").status == 0
        until(lambda: any(ended(pid) for pid in calls.workers()))
        faults += [_faults(pid) - before[pid] for pid in calls.workers() if ended(pid)]
        calls.agent.signal(signal.SIGCONT)
    assert max(faults) <= FAULTS_OF_A_CALL, faults
    assert sorted(faults[LEARNING:])[4] <= FAULTS_OF_A_CALL / 4, faults


def _faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def test_system_calls_of_a_call(calls: Calls) -> None:
    """Count them in the worker, from the accepted connection on."""
    host = calls.host
    workers = calls.workers()
    attached = [word for pid in inside(workers) for word in ("-p", str(pid))]
    tracer = host.popen("strace", "-f", "-qq", "-o", "/run/trace", *attached)
    until(lambda: all("TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text() for pid in workers))
    assert host.cni("loopback", "ADD", LOOPBACK, netns="/run/netns/pod").status == 0
    until(lambda: calls.agent.taken() == 1)
    tracer.terminate()
    tracer.wait()
    lines = (host.root / "run/trace").read_text().splitlines()
    server = next(line.split()[0] for line in lines if "accept4" in line and "= -1" not in line)
    own = [line for line in lines if line.split()[0] == server and "(" in line and "resumed>" not in line]
    assert len(own) <= SYSTEM_CALLS_OF_A_CALL, "\n".join(own)
    assert not any(re.search(r"\b(clone|fork|vfork|execve)\b", line) for line in own), "no process is started"
