"""The log of calls: its entries, and faults of the log, none of which changes a call's answer."""

from __future__ import annotations

import fcntl
import json
import random
import re
import signal
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.faults import batch, fake_ipam
from tests.faults.batch import Call
from tests.pretend import Answer, PretendHost, read_line

LOG = "/run/pycni.log"
COMPLAINT = re.compile(r"pycni: cannot write the log: [^\n]+\n")
BASE: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "cni.dev/valid-attachments": []}
BRIDGE = BASE | {
    "type": "bridge",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]},
}
VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION")


def switch_on(host: PretendHost, settings: Any = None) -> None:
    text = settings if isinstance(settings, str) else json.dumps(settings or {"log": LOG})
    (host.root / "etc/cni/pycni.json").write_text(text)


def text_of(host: PretendHost, path: str = LOG) -> str:
    file = host.root / path.lstrip("/")
    return file.read_text() if file.exists() else ""


def entries(host: PretendHost, path: str = LOG) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text_of(host, path).splitlines()]


def life(host: PretendHost, plugin: str, config: dict[str, Any]) -> list[Answer]:
    """Call every verb once, each with success."""
    netns = host.netns("pod")
    answers = [host.cni(plugin, "ADD", config, netns=netns)]
    config = config | {"prevResult": answers[0].json}
    answers.append(host.cni(plugin, "CHECK", config, netns=netns))
    answers += [host.cni(plugin, verb, config, netns=netns) for verb in ("DEL", "GC", "STATUS", "VERSION")]
    host.drop_netns("pod")
    assert [answer.status for answer in answers] == [0] * len(answers), answers
    return answers


STORE = ["ipam.lock", "ipam.leases"]
FIRST = ["ipam.lock", "ipam.index", "ipam.leases"]
READ = ["start", "stdin", "config"]
STEPS: dict[str, dict[str, list[str]]] = {
    "loopback": {
        "ADD": ["netns", "lo", "answer"],
        "CHECK": ["netns", "lo"],
        "DEL": ["netns", "lo"],
        "GC": [],
        "STATUS": [],
        "VERSION": [],
    },
    "host-local": {
        "ADD": [*FIRST, "answer"], "CHECK": STORE, "DEL": STORE, "GC": STORE, "STATUS": STORE, "VERSION": [],
    },
    "bridge": {
        "ADD": ["netns", "veth", "bridge", "ipam", *FIRST, "pod", "carrier", "gateway", "result", "answer"],
        "CHECK": ["netns", "pod", "bridge", "ipam", *STORE],
        "DEL": ["netns", "del", "ipam", *STORE],
        "GC": ["del", "ipam", *STORE],
        "STATUS": ["bridge", "ipam", *STORE],
        "VERSION": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("plugin", STEPS)
def test_a_line_for_each_call(host: PretendHost, plugin: str) -> None:
    switch_on(host)
    before = datetime.now(UTC)
    answers = life(host, plugin, BRIDGE)
    after = datetime.now(UTC)
    assert {answer.stderr for answer in answers} == {""}
    lines = entries(host)
    assert [line["verb"] for line in lines] == list(VERBS)
    for line in lines:
        assert (line["plugin"], line["containerID"], line["ifname"], line["outcome"]) == (plugin, "c1", "eth0", "ok")
        assert line["network"] == ("" if line["verb"] == "VERSION" else "net")
        assert list(line["steps"]) == [*READ, *STEPS[plugin][line["verb"]]], line
        assert line["ms"] == pytest.approx(sum(line["steps"].values()), abs=0.02)
        assert all(ms >= 0 for ms in line["steps"].values())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert times == sorted(times) and before < times[0] and times[-1] < after


def test_the_plugins_key_wins(host: PretendHost) -> None:
    life(host, "loopback", BASE | {"type": "loopback", "pycni": {"log": "/run/own.log"}})
    assert [line["verb"] for line in entries(host, "/run/own.log")] == list(VERBS[:-1])  # VERSION has no configuration
    switch_on(host)
    life(host, "loopback", BASE | {"type": "loopback", "PyCNI": {"Log": "/run/own.log"}})
    assert len(entries(host, "/run/own.log")) == 10 and [line["verb"] for line in entries(host)] == ["VERSION"]
    life(host, "loopback", BASE | {"type": "loopback", "pycni": {}})
    assert len(entries(host, "/run/own.log")) == 10 and len(entries(host)) == 7


def test_the_runtimes_trace_context(host: PretendHost) -> None:
    switch_on(host)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for value in (trace, None, "x\n" * 5000):
        host.cni("loopback", "STATUS", BASE, env={"TRACEPARENT": value})
    assert [line.get("traceparent") for line in entries(host)] == [trace, None, ("x\n" * 5000)[:1024]]


def test_an_executed_ipam_plugin_logs_itself(host: PretendHost, tmp_path: Path) -> None:
    switch_on(host)
    path = fake_ipam.write(host, tmp_path, "wrapped", f"exec {host.bin_dir}/host-local\n", release="")
    config = BRIDGE | {"ipam": BRIDGE["ipam"] | {"type": "wrapped"}}
    answer = host.cni("bridge", "ADD", config, netns=host.netns("pod"), path=path)
    assert answer.status == 0, answer
    ipam, bridge = entries(host)
    assert (ipam["plugin"], ipam["outcome"], bridge["plugin"], bridge["outcome"]) == (
        "host-local",
        "ok",
        "bridge",
        "ok",
    )
    assert "ipam.lock" in ipam["steps"] and "ipam.lock" not in bridge["steps"]
    assert bridge["steps"]["ipam"] > ipam["ms"]


FULL = "mkdir -p -m 700 {0}; for n in $(seq 2 6); do printf 'other\\r\\neth0' >{0}/10.7.0.$n; done".format(
    "/var/lib/cni/networks/net"
)
# name: command that causes it, verb, configuration, variables, and the step and errno in the log
FAILURES: dict[str, tuple[str, str, Any, dict[str, str | None], str, str | None]] = {
    "variable missing": (":", "ADD", BRIDGE, {"CNI_IFNAME": None}, "start", None),
    "verb unknown": (":", "FOO", BRIDGE, {}, "start", None),
    "hostile variables": (":", "ADD", BRIDGE, {"CNI_CONTAINERID": "\n\x1b" * 3000}, "start", None),
    "no JSON": (":", "ADD", "{", {}, "config", None),
    "version unknown": (":", "ADD", BRIDGE | {"cniVersion": "9"}, {}, "config", None),
    "wrong key": (":", "ADD", BRIDGE | {"mtu": -1}, {}, "config", None),
    "no pod": (":", "ADD", BRIDGE, {"CNI_NETNS": "/run/netns/none"}, "netns", "ENOENT"),
    "name taken": ("ip -n pod link add eth0 type bridge", "ADD", BRIDGE, {}, "veth", "EEXIST"),
    "wrong bridge": ("ip link add br0 type veth peer name other", "ADD", BRIDGE, {}, "bridge", None),
    "pool full": (FULL, "ADD", BRIDGE | {"ipam": {"type": "host-local", "subnet": "10.7.0.0/29"}}, {}, "ipam.leases", None),
    "store read-only": ("mount -o remount,ro /var/lib/cni", "ADD", BRIDGE, {}, "ipam.lock", "EROFS"),
    "gone": (":", "CHECK", BRIDGE | {"prevResult": {"cniVersion": "1.1.0"}}, {}, "ipam", None),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
def test_a_call_that_fails(host: PretendHost, what: str) -> None:
    preparation, verb, config, env, step, reason = FAILURES[what]
    netns = host.netns("pod")
    host.run("sh", "-ec", preparation)
    switch_on(host)
    answer = host.cni("bridge", verb, config, netns=netns, env=env)
    assert answer.status == 1 and not answer.stderr, answer
    [line] = entries(host)
    assert (line["outcome"], line["code"], line["msg"]) == ("error", answer.code, answer.json["msg"][:1024])
    assert line.get("details") == answer.json.get("details")
    assert (line["verb"], line["failedStep"], line.get("errno")) == (verb, step, reason), line
    assert list(line["steps"])[-1] == "answer"
    assert text_of(host).count("\n") == 1 and text_of(host).isprintable() is False and text_of(host)[:-1].isprintable()


# -- settings that cannot be used


WRONG = [
    ({"log": "run/x"}, '"pycni.log": "run/x"'),
    ({"log": "/run/../x"}, '"pycni.log": "/run/../x"'),
    ({"log": "/run/\n"}, '"pycni.log"'),
    ({"log": 5}, '"pycni.log": 5'),
    ({"LOG": ["/x"]}, '"pycni.log"'),
    ({"log": LOG, "size": 4095}, '"pycni.size": 4095'),
    ({"log": LOG, "size": True}, '"pycni.size": true'),
    ({"log": LOG, "size": "1"}, '"pycni.size": "1"'),
    ([], '"pycni": []'),
    ("/run/x", '"pycni": "/run/x"'),
]


@pytest.mark.parametrize("plugin", ["loopback", "bridge", "host-local"])
def test_a_wrong_key_is_an_error_but_a_pod_can_be_removed(host: PretendHost, plugin: str) -> None:
    switch_on(host)
    netns = host.netns("pod")
    for value, named in WRONG:
        config = BRIDGE | {"pycni": value, "prevResult": {"cniVersion": "1.1.0"}}
        for verb in ("ADD", "CHECK", "STATUS"):
            answer = host.cni(plugin, verb, config, netns=netns)
            assert answer.code == 7 and named in answer.json["msg"] and not answer.stderr, (value, answer)
        for verb in ("DEL", "GC"):
            answer = host.cni(plugin, verb, config, netns=netns)
            assert (answer.status, answer.stdout, answer.stderr) == (0, "", ""), (value, verb, answer)
    codes = [line.get("code") for line in entries(host)]
    assert codes == [7, 7, 7, None, None] * len(WRONG)


def garbage(text: str) -> Callable[[PretendHost], None]:
    return lambda host: switch_on(host, text)


NODE_FILES: dict[str, Callable[[PretendHost], object]] = {
    "empty": garbage(""),
    "no JSON": garbage("{"),
    "wrong path": garbage('{"log": "x"}'),
    "a list": garbage("[]"),
    "a directory": lambda host: (host.root / "etc/cni/pycni.json").mkdir(),
    "a FIFO": lambda host: host.run("mkfifo", "/etc/cni/pycni.json"),
}


@pytest.mark.parametrize("what", NODE_FILES)
def test_a_node_file_that_cannot_be_used(host: PretendHost, what: str) -> None:
    netns = host.netns("pod")
    without = host.cni("loopback", "ADD", BASE, netns=netns)
    NODE_FILES[what](host)
    answer = host.cni("loopback", "ADD", BASE, netns=netns)
    assert (answer.status, answer.stdout) == (0, without.stdout)
    assert COMPLAINT.fullmatch(answer.stderr) and "/etc/cni/pycni.json" in answer.stderr, answer


def test_a_node_file_without_a_path(host: PretendHost) -> None:
    switch_on(host, '{"size": 4096, "other": 1}')
    answer = host.cni("loopback", "STATUS", BASE)
    assert (answer.status, answer.stderr) == (0, "")


# -- a file that cannot be written

VICTIM = "/run/victim"
PLACES = {
    "directory missing": ("/run/none/x.log", ":"),
    "directory is a file": (f"{VICTIM}/x.log", ":"),
    "symbolic link": (LOG, f"ln -s {VICTIM} {LOG}"),
    "symbolic link to nothing": (LOG, f"ln -s /run/new {LOG}"),
    "another file's name": (LOG, f"ln {VICTIM} {LOG}"),
    "FIFO": (LOG, f"mkfifo {LOG}"),
    "directory": (LOG, f"mkdir {LOG}"),
    "device": ("/dev/full", ":"),
    "somebody else's": (LOG, f": >{LOG}; chown 65534 {LOG}"),
    "read-only": ("/run/ro/x.log", "mkdir /run/ro; mount -t tmpfs -o ro tmpfs /run/ro"),
    "full name is taken": (LOG, f"head -c 5000 /dev/zero >{LOG}; mkdir -p {LOG}.1 {LOG}.2/x"),
}


@pytest.mark.parametrize("what", PLACES)
def test_a_log_that_cannot_be_written_changes_nothing(host: PretendHost, what: str) -> None:
    path, preparation = PLACES[what]
    netns = host.netns("pod")
    host.run("sh", "-ec", f"echo precious >{VICTIM}; {preparation}")
    files = host.run("ls", "-lR", "/run", "--hide=cni").stdout
    config = BRIDGE | {"pycni": {"log": path, "size": 4096}}
    added = host.cni("bridge", "ADD", config, netns=netns)
    assert added.status == 0 and len(added.json["ips"]) == 2
    failed = host.cni("bridge", "ADD", config, netns=netns)
    assert failed.status == 1 and failed.code == 999
    deleted = host.cni("bridge", "DEL", config, netns=netns)
    assert (deleted.status, deleted.stdout) == (0, "")
    for answer in (added, failed, deleted):
        assert COMPLAINT.fullmatch(answer.stderr) and path in answer.stderr, answer
    assert text_of(host, VICTIM) == "precious\n"
    assert host.run("ls", "-lR", "/run", "--hide=cni").stdout == files


def test_nobody_to_complain_to(host: PretendHost) -> None:
    batch.make_pods(host, 1)
    config = BASE | {"pycni": {"log": "/run/none/x.log"}}
    for redirect in ("2>&-", "2>/dev/full"):
        [answer] = batch.run(host, [Call("loopback", "ADD", config, redirect=redirect)])
        assert answer.status == 0 and answer.json["ips"], answer


def test_a_full_disk_tears_no_line(host: PretendHost) -> None:
    host.run(
        "sh",
        "-ec",
        "mkdir /run/small; mount -t tmpfs -o size=8k tmpfs /run/small; head -c 3000 /dev/zero >/run/small/other",
    )
    path = "/run/small/x.log"
    config = BASE | {"pycni": {"log": path}}
    answers = [host.cni("loopback", "STATUS", config, container_id=f"c{number}") for number in range(30)]
    assert {answer.status for answer in answers} == {0} and not any(answer.stdout for answer in answers)
    told = [bool(answer.stderr) for answer in answers]
    assert told[0] is False and told[-1] is True
    assert all(COMPLAINT.fullmatch(answer.stderr) for answer in answers if answer.stderr)
    assert [line["containerID"] for line in entries(host, path)] == [f"c{n}" for n, t in enumerate(told) if not t]
    host.run("rm", "/run/small/other")
    assert host.cni("loopback", "STATUS", config, container_id="after").stderr == ""
    assert entries(host, path)[-1]["containerID"] == "after"


# -- the file


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_who_may_read_it(host: PretendHost, umask: str) -> None:
    switch_on(host)
    host.cni("loopback", "STATUS", BASE, prefix=("sh", "-c", f'umask {umask}; exec "$0" "$@"'))
    found = (host.root / LOG.lstrip("/")).stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 0, 0)


def test_the_owners_mode_is_left(host: PretendHost) -> None:
    switch_on(host)
    host.run("sh", "-c", f"umask 0; : >{LOG}; chmod 644 {LOG}")
    host.cni("loopback", "STATUS", BASE)
    assert len(entries(host)) == 1
    assert stat.S_IMODE((host.root / LOG.lstrip("/")).stat().st_mode) == 0o644


def test_many_calls_at_once_and_three_files(host: PretendHost) -> None:
    """32 calls run at a time; the two full files and the current one have all lines, each whole."""
    size = 60_000
    switch_on(host, {"log": LOG, "size": size})
    calls = [Call("loopback", "STATUS", BASE, {"CNI_CONTAINERID": f"c{number}"}) for number in range(480)]
    answers = batch.run(host, calls, at_once=32)
    assert {(answer.status, answer.stderr) for answer in answers} == {(0, "")}
    files = [text_of(host, path) for path in (LOG, f"{LOG}.1", f"{LOG}.2")]
    # a call without the lock after a second writes all the same
    assert files[0] and files[1] and all(len(text) < 1.3 * size for text in files)
    found = [line["containerID"] for path in (LOG, f"{LOG}.1", f"{LOG}.2") for line in entries(host, path)]
    assert sorted(found) == sorted(f"c{number}" for number in range(480))
    assert stat.S_IMODE((host.root / LOG.lstrip("/")).stat().st_mode) == 0o640


def test_a_lock_that_is_held_for_ever(host: PretendHost) -> None:
    switch_on(host, {"log": LOG, "size": 4096})
    path = host.root / LOG.lstrip("/")
    path.write_text("x\n" * 3000)
    path.chmod(0o640)
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        answer = host.cni("loopback", "STATUS", BASE)
    assert (answer.status, answer.stderr) == (0, "")
    assert json.loads(path.read_text().splitlines()[-1])["verb"] == "STATUS"
    host.cni("loopback", "STATUS", BASE)
    assert len(entries(host)) == 1 and text_of(host, f"{LOG}.1").count("\n") == 3001


# -- calls that are ended


def test_calls_that_are_killed_tear_no_line(host: PretendHost) -> None:
    batch.make_pods(host, 2)
    switch_on(host, {"log": LOG, "size": 30_000})
    chance = random.Random(9)
    calls = [
        Call("loopback", "ADD", BASE, {"CNI_CONTAINERID": f"c{number}"}, signal=(signal.SIGKILL, chance.uniform(0.005, 0.05)))
        for number in range(200)
    ]  # fmt: skip
    answers = batch.run(host, calls)
    killed = sum(answer.status == -signal.SIGKILL for answer in answers)
    assert 0 < killed < len(calls)
    found = [line["containerID"] for path in (LOG, f"{LOG}.1", f"{LOG}.2") for line in entries(host, path)]
    assert len(set(found)) == len(found)
    assert set(found) >= {f"c{n}" for n, answer in enumerate(answers) if answer.status == 0}


def test_what_a_killed_writer_left_spoils_no_other_line(host: PretendHost) -> None:
    switch_on(host)
    host.run("sh", "-c", f'umask 027; printf \'{{"time": "20\' >{LOG}')
    host.cni("loopback", "STATUS", BASE)
    torn, whole = text_of(host).splitlines()
    assert torn == '{"time": "20' and json.loads(whole)["verb"] == "STATUS"


def test_a_call_that_is_told_to_end(host: PretendHost, tmp_path: Path) -> None:
    batch.make_pods(host, 1)
    switch_on(host)
    path = fake_ipam.write(host, tmp_path, "slow", "exec sleep 100")
    config = BRIDGE | {"ipam": {"type": "slow"}}
    [answer] = batch.run(host, [Call("bridge", "ADD", config, {"CNI_PATH": path}, signal=(signal.SIGTERM, 2.0))])
    assert answer.code == 999, answer
    [line] = entries(host)
    assert (line["outcome"], line["code"], line["msg"]) == ("error", 999, f"terminated by signal {signal.SIGTERM:d}")
    assert line["failedStep"] == "ipam" and list(line["steps"])[-2:] == ["undo", "answer"]


def test_told_to_end_after_the_answer(host: PretendHost) -> None:
    """The signal comes while the call waits to write its line: it has answered, so it is a success, and is logged."""
    switch_on(host)
    path = host.root / LOG.lstrip("/")
    host.cni("loopback", "VERSION", BASE)
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = host.popen(f"{host.bin_dir}/loopback", env={"CNI_COMMAND": "VERSION"})
        assert process.stdin and process.stdout and process.stderr
        process.stdin.close()
        while read_line(process) != b"}\n":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert (process.wait(), process.stderr.read()) == (0, b"")
        process.stdout.close()
        process.stderr.close()
    assert [line["outcome"] for line in entries(host)] == ["ok", "ok"]


# -- without it


def test_off_it_costs_one_look(host: PretendHost) -> None:
    netns = host.netns("pod")
    for plugin in ("loopback", "bridge", "host-local"):
        answer = host.cni(
            plugin, "ADD", BRIDGE, netns=netns, container_id=plugin, prefix=("strace", "-f", "-o", "/run/trace")
        )
        assert answer.status == 0
        assert [call.split(maxsplit=1)[1].partition("(")[0] for call in text_of(host, "/run/trace").splitlines()
                if "pycni.json" in call] == ["access"]  # fmt: skip
