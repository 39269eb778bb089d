"""The launcher hands each call to a worker or executes the interpreter: one of them, once, under all conditions."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.launcher_node import (
    BARE_SOURCE,
    BUILDS,
    CODE,
    INSTALLED,
    INTERPRETER,
    SOURCE,
    STATUS,
    WARNINGS,
    Node,
    compile_launcher,
    fill_in,
)
from tests.faults import stepper
from tests.pretend import PATH, PretendHost, read_line, until

FALL_BACK = f"-IS {CODE}/launcher bridge"
TAKE: list[Any] = ["request", ["send", "T"], "go"]
SERVE: list[Any] = [*TAKE, ["write", "answer"], ["status", 3]]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("launcher")
    return {build: compile_launcher(directory, build) for build in BUILDS}


@pytest.fixture(scope="module", params=[INSTALLED, "sanitized"])
def program(request: pytest.FixtureRequest, programs: dict[str, Path]) -> Path:
    return programs[request.param]


@pytest.fixture
def node(program: Path) -> Iterator[Node]:
    with PretendHost() as host:
        yield Node(host, program)


def assert_fell_back(node: Node, done: Any, times: int = 1) -> None:
    assert (done.status, done.stdout, done.stderr) == (STATUS, "done\n", ""), done
    assert node.executions() == [FALL_BACK] * times


# -- a call that a worker takes


def test_worker_gets_the_whole_call(node: Node) -> None:
    env = {"CNI_COMMAND": "ADD", "CNI_ARGS": "", "ü": "=é=", "PATH": PATH}
    with node.agent([*TAKE, ["read"], ["write", "answer"], ["status", 3]]) as agent:
        done = node.call("env", "--chdir=/proc", env=env, stdin="configuration")
        record = agent.record()
    assert (done.status, done.stdout, done.stderr) == (3, "answer", "")
    head, *strings = record["request"].split("\0")
    assert (head, strings[:2], strings[-1]) == ("pycni 1", [CODE, "bridge"], "")
    expected = {f"{name}={value}".encode().decode("latin-1") for name, value in env.items()}
    assert set(strings[2:-1]) == expected and len(strings) == 3 + len(env)
    assert (record["input"], record["directory"]) == ("configuration", "/proc")
    assert record["flags"] & os.O_PATH, "the worker gets the right to go there, and no more"
    assert node.executions() == []


@pytest.mark.parametrize("status", [0, 1, 42, 128, 255])
def test_status_is_passed_on(node: Node, status: int) -> None:
    with node.agent([*TAKE, ["status", status]]):
        assert node.call().status == status
    assert node.executions() == []


def test_environment_without_a_string(node: Node) -> None:
    with node.agent(SERVE) as agent:
        assert node.call("env", "-i").status == 3
        assert agent.record()["request"] == f"pycni 1\0{CODE}\0bridge\0"


def test_a_long_call_is_waited_for(node: Node) -> None:
    """The 200 ms are for the answer alone."""
    with node.agent([*TAKE, ["sleep", 1], ["status", 3]]):
        assert node.call().status == 3
    assert node.executions() == []


def test_a_worker_that_dies_is_an_error(node: Node) -> None:
    for number, script in enumerate(([*TAKE], ["request", ["send", "T"], ["sleep", 0.3]], [*TAKE, ["write", "{"]])):
        with node.agent(script):
            done = node.call()
        assert (done.status, done.stderr) == (1, ""), (number, done)
        error = json.loads(done.stdout.removeprefix("{") if number == 2 else done.stdout)
        assert error["code"] == 11 and error["msg"].startswith("pycni bridge: ") and error["details"], error
    assert node.executions() == []


# -- calls that no worker takes

DECLINES: dict[str, list[Any]] = {
    "declined": ["request", ["send", "D"]],
    "end at once": [],
    "end after the request": ["request"],
    "no answer": ["request", "hold"],
    "request unread": ["hold"],
    "another answer": ["request", ["send", "\0"], ["send", "T"], "hold"],
    "taken in small letters": ["request", ["send", "t"], "hold"],
    "an empty answer": ["request", ["send", ""], ["send", "T"], "hold"],
    "a long answer": ["request", ["send", "DT" * 4000], "hold"],
    "a flood": ["request", ["send", "D" * 200, 50], "hold"],
    "taken, and gone": ["request", ["send", "T"]],
    "taken, and GO refused": ["request", "deaf", ["send", "T"], "hold"],
}


@pytest.mark.parametrize("script", DECLINES)
def test_interpreter_is_executed_if_no_worker_takes_the_call(node: Node, script: str) -> None:
    with node.agent(DECLINES[script]) as agent:
        done = node.call(stdin="configuration", env={"COPY": "yes", "PATH": PATH})
        assert not agent.record()["begun"]
    if script == "taken, and gone" and done.code == 11:
        return  # GO was sent before the end
    assert (done.status, done.stdout, done.stderr) == (STATUS, "configurationdone\n", "")
    assert node.executions() == [FALL_BACK]


def test_interpreter_is_executed_without_an_agent(node: Node) -> None:
    assert_fell_back(node, node.call())
    with node.agent([], user=1000):
        assert_fell_back(node, node.call(), 2)
    (node.run / "pycni/agent.sock").write_text("a file")
    assert_fell_back(node, node.call(), 3)
    (node.run / "pycni/agent.sock").unlink()
    (node.run / "pycni/agent.sock").symlink_to("agent.sock")
    assert_fell_back(node, node.call(), 4)
    (node.run / "pycni/agent.sock").unlink()
    (node.run / "pycni").rmdir()
    assert_fell_back(node, node.call(), 5)


def test_nothing_is_told_to_an_agent_of_another_user(node: Node) -> None:
    with node.agent(["request"], user=1000) as agent:
        assert_fell_back(node, node.call())
        assert agent.record()["request"] == ""


def test_a_full_queue_costs_no_waiting(node: Node) -> None:
    """The launcher would wait for good: nobody accepts."""
    with node.agent(full=True, backlog=1):
        assert_fell_back(node, node.call())


def test_a_stopped_agent_holds_no_output(node: Node) -> None:
    """A runtime reads until the end of the output, and the request is unread for as long as the agent is stopped."""
    with node.agent(TAKE) as agent:
        agent.process.send_signal(signal.SIGSTOP)
        assert_fell_back(node, node.call())
        agent.process.send_signal(signal.SIGCONT)
        record = agent.record()
        assert record["request"] and not record["begun"], "a worker that wakes up late begins nothing"


def test_a_closed_standard_descriptor(node: Node) -> None:
    """No other file may take its place in the call."""
    with node.agent(SERVE):
        for number, closed in enumerate(("0<&-", "1>&-", "2>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"), 1):
            done = node.call("sh", "-c", f'exec "$0" {closed}')
            assert done.status == STATUS and len(node.executions()) == number, (closed, done)
        assert node.call().status == 3


def test_without_free_descriptors(node: Node) -> None:
    """The socket is the last descriptor that it gets, so there is none for the working directory."""
    with node.agent(TAKE) as agent:
        done = node.call("prlimit", "--nofile=4", "--")  # so that the interpreter cannot open its file either
        assert (done.status, done.stdout) == (STATUS, "done\n"), done
        assert not agent.record()["begun"]


def test_interpreter_inherits_everything(node: Node) -> None:
    """Signals, mask and environment are the caller's, and nothing of the launcher's is open."""
    (node.run / "pycni/fallbacks").touch()
    env = {"LOOK": "yes", "PATH": PATH, "CNI_ARGS": "a=b"}
    prepare = "import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGPIPE, signal.SIG_DFL); "
    prepare += (
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL); signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}); "
    )
    prepare += "os.execv('/run/interpreter' if sys.argv[1] == 'plain' else '/run/bridge', ['bridge'])"
    seen = []
    for how in ("plain", "declined", "gone", "no agent"):
        scripts = {"declined": [["request", ["send", "D"]]], "gone": [["request", ["send", "T"]]]}.get(how)
        if scripts:
            with node.agent(*scripts):
                done = node.host.run(sys.executable, "-ISc", prepare, how, env=env, check=False)
        else:
            done = node.host.run(sys.executable, "-ISc", prepare, how, env=env, check=False)
        if how == "gone" and '"code": 11' in done.stdout:
            continue
        assert done.returncode == STATUS, (how, done)
        signals = re.findall(r"^Sig[A-P]\w+:.*$", (node.run / "status").read_text(), re.MULTILINE)
        environment = sorted((node.run / "environment").read_bytes().split(b"\0"))
        seen.append((signals, environment, (node.run / "open").read_text()))
    assert len(seen) >= 3 and all(each == seen[0] for each in seen), seen


# -- environments of hostile size


@pytest.mark.parametrize("count", [990, 996, 997, 998, 1000, 1025, 5000])
def test_number_of_strings(node: Node, count: int) -> None:
    """The request has three strings before the environment."""
    with node.agent(SERVE):
        done = node.call(env={f"V{number}": "" for number in range(count)})
        assert done.status == (3 if count <= 997 else STATUS), done
    assert len(node.executions()) == (count > 997)


@pytest.mark.parametrize(("strings", "kib"), [(1, 100), (2, 90), (2, 120), (10, 100)])
def test_size_of_the_environment(node: Node, strings: int, kib: int) -> None:
    with node.agent(SERVE) as agent:
        done = node.call(env={f"V{number}": "x" * (kib << 10) for number in range(strings)})
        taken = done.status == 3
        assert taken == (not node.executions()) and taken == (strings * kib < 200), done
        assert not taken or len(agent.record()["request"]) > strings * kib << 10


# -- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_is_passed_on(node: Node, number: signal.Signals) -> None:
    """The launcher goes on waiting, however many come."""
    with node.agent([*TAKE, ["write", "begun\n"], "end", ["sleep", 0.3], ["status", 5]]) as agent:
        process = node.begin()
        assert read_line(process) == b"begun\n"
        for _ in range(3):
            process.send_signal(number)
            until(lambda: not pending_signals(process.pid))
        record = agent.record()
        assert record["ended"], record
        assert process.wait(30) == 5
    assert node.executions() == []


def pending_signals(pid: int) -> int:
    """Return the mask of signals that a process has not taken yet: a second one of a kind would be lost."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return int(re.findall(r"^ShdPnd:\s*(\w+)$", status, re.MULTILINE)[0], 16)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT, signal.SIGALRM])
def test_death_of_the_launcher_is_seen(node: Node, number: signal.Signals) -> None:
    with node.agent([*TAKE, ["write", "begun\n"], "end"]) as agent:
        process = node.begin()
        assert read_line(process) == b"begun\n"
        process.send_signal(number)
        assert agent.record()["ended"] and process.wait(30) == -number
    assert node.executions() == []


def test_signal_before_the_call_is_taken_ends_the_launcher(node: Node) -> None:
    with node.agent(["request", ["sleep", 0.1], ["send", "T"], "go"]) as agent:
        agent.process.send_signal(signal.SIGSTOP)
        process = node.begin()
        until(lambda: is_waiting(process.pid))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
        agent.process.send_signal(signal.SIGCONT)
        assert not agent.record()["begun"]
    assert node.executions() == []


def is_waiting(pid: int) -> bool:
    """Return True if the process is the launcher and sleeps in poll."""
    program = Path(f"/proc/{pid}/comm").read_text()
    return program == "bridge\n" and "poll" in Path(f"/proc/{pid}/wchan").read_text()


def test_ignored_signal_stays_ignored(node: Node) -> None:
    with node.agent([*TAKE, ["write", "begun\n"], ["quiet", 0.5], ["status", 5]]) as agent:
        process = node.begin("sh", "-c", 'trap "" HUP; exec "$0"')
        assert read_line(process) == b"begun\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 5
        assert agent.record()["quiet"]


# -- the interpreter


@pytest.mark.parametrize(("verb", "code"), [("ADD", 999), ("STATUS", 50), (None, 999)])
def test_what_keeps_the_interpreter_from_starting(node: Node, verb: str | None, code: int) -> None:
    """The runtime gets an error object, whatever is missing, unless nobody reads it."""
    env = {"CNI_COMMAND": verb, "PATH": PATH} if verb else {}
    (node.run / "code/launcher").unlink()
    done = node.call(env=env)
    assert (done.status, done.stderr, done.code) == (1, "", code), done
    assert done.json["msg"] == "pycni bridge cannot start: run install.sh again"
    assert done.json["details"] == f"{CODE}/launcher: No such file or directory (code {CODE})"
    (node.run / "code/launcher").touch()
    for python, why in (
        ('/run/a "\\ file', "No such file"),
        ("/run", "Permission denied"),
        ("/run/code/launcher", "Permission"),
    ):
        node.write("bridge", fill_in(node.program, python=python))
        done = node.call(env=env)
        assert (done.status, done.stderr, done.code) == (1, "", code), done
        assert done.json["details"].startswith(python.translate({34: "'", 92: "'"}) + f": {why}"), done
    done = node.call("sh", "-c", 'exec "$0" 1>&-', env=env)
    assert (done.status, done.stdout) == (1, "")
    done = node.call("sh", "-c", 'exec "$0" 0<&- 1>&- 2>&-', env=env)
    assert (done.status, done.stdout) == (1, "")
    done = node.call("bash", "-c", 'exec 3> >(exec true); wait $!; "$0" >&3', env=env)
    assert done.status == 1, "a reader that is gone does not change the status"


def test_launcher_that_names_nothing(node: Node) -> None:
    node.write("bridge", node.program.read_bytes())
    done = node.call()
    assert (done.status, done.stdout) == (1, "") and "install.sh" in done.stderr
    for words in (("", CODE, INTERPRETER), ("bridge", "run/code", INTERPRETER), ("bridge", CODE, "")):
        node.write("bridge", fill_in(node.program, *words))
        assert node.call() == done
    assert node.executions() == []


def test_names_that_fill_the_place(node: Node) -> None:
    """The last NUL of the place may be missing."""
    node.write("bridge", fill_in(node.program, python="/" + "p" * 5000))
    done = node.call()
    assert (done.status, done.code) == (1, 999), done
    assert re.fullmatch(r"/p{3900,}: File name too long \(code /run/code\)", done.json["details"])


def test_calls_without_a_worker_are_counted(node: Node) -> None:
    """The file is the agent's to make. Nothing that is wrong with it is a call's business."""
    count = node.run / "pycni/fallbacks"
    node.call()
    assert not count.exists()
    count.touch()
    node.call()
    node.call()
    with node.agent(SERVE, ["request", ["send", "D"]]):
        assert node.call().status == 3
        assert count.stat().st_size == 2
        node.call()
        assert count.stat().st_size == 3
    count.unlink()
    os.mkfifo(count)
    assert node.call().status == STATUS
    count.unlink()
    count.symlink_to("/run/target")
    (node.run / "target").touch()
    assert node.call().status == STATUS
    assert (node.run / "target").stat().st_size == 0


def test_count_is_not_worth_a_call(node: Node) -> None:
    """Beyond the limit of a file's size the kernel sends SIGXFSZ."""
    (node.run / "pycni/fallbacks").touch()
    done = node.call("prlimit", "--fsize=0", "--", env={"PATH": PATH, "DRY": "yes"})
    assert (done.status, done.stdout) == (STATUS, "done\n"), done
    assert (node.run / "pycni/fallbacks").stat().st_size == 0


# -- all moments


@pytest.mark.parametrize("seed", range(2))
def test_random_agents_and_environments(node: Node, seed: int) -> None:
    """Each call is done once: by the worker or by the interpreter."""
    said = node.host.python(ATTACK, "fuzz", str(seed), "150", timeout=120)
    report = json.loads(said)
    assert not report["faults"], report["faults"][:3]
    assert report["begun"] > 20 and report["ran"] > 20 and report["lost"] > 2 and report["killed"] > 2, report


installed_and_static = pytest.mark.parametrize("build", sorted({INSTALLED, "static"}))
ATTACK = "from tests.agent import attacks; attacks.main()"


@pytest.fixture(scope="module")
def stepper_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stepper.compiled(tmp_path_factory.mktemp("stepper"))


@installed_and_static
@pytest.mark.parametrize("scene", ["served", "declined", "no agent", "dying"])
def test_strikes_at_each_system_call(programs: dict[str, Path], stepper_program: Path, build: str, scene: str) -> None:
    with PretendHost() as host:
        node = Node(host, programs[build])
        node.write("stepper", stepper_program.read_bytes())
        (node.run / "pycni/fallbacks").touch()
        report = json.loads(host.python(ATTACK, "strike", scene, timeout=120))
        assert not report["faults"], report["faults"][:3]
        assert report["strikes"] > 40, report


# -- what it is made of

WARM = """socket connect getsockopt sendmsg poll recvfrom openat rt_sigprocmask sendmsg rt_sigaction rt_sigaction
rt_sigaction rt_sigprocmask close poll recvfrom exit_group"""
without_libc = pytest.mark.skipif(INSTALLED != "bare", reason="this machine's launcher needs libc")
COLD = "socket connect openat access execve"


@installed_and_static
def test_number_of_system_calls(programs: dict[str, Path], build: str) -> None:
    """Python's start makes some three hundred of them, libc's start some more than none."""
    with PretendHost() as host:
        node = Node(host, programs[build])
        trace = ("strace", "-qq", "-o", "/run/trace", "--signal=none")
        with node.agent(SERVE):
            assert node.call(*trace).status == 3
        assert own_calls(node, build) == WARM.split()
        assert node.call(*trace).status == STATUS
        assert own_calls(node, build)[:5] == COLD.split()
        assert node.run.joinpath("trace").read_text().count("execve(") >= 2


def own_calls(node: Node, build: str) -> list[str]:
    """Return the calls from the first one of main on. Without libc there is none before, except for the execve."""
    calls = re.findall(r"^(\w+)\(", (node.run / "trace").read_text(), re.MULTILINE)
    others = {"ppoll": "poll", "faccessat": "access"}  # on architectures without the older calls
    calls = [others.get(call, call) for call in calls]
    first = calls.index("socket")
    assert build != "bare" or calls[:first] == ["execve"], calls
    return calls[first:]


@without_libc
def test_program_without_libc_is_small(programs: dict[str, Path]) -> None:
    """Each part that is loaded costs time. No part is both writable and executable."""
    content = programs["bare"].read_bytes()
    (offset,) = struct.unpack_from("=Q", content, 32)
    size, number = struct.unpack_from("=HH", content, 54)
    headers = [struct.unpack_from("=IIQQQQQ", content, offset + size * at) for at in range(number)]
    parts = {(kind, flags): in_file for kind, flags, *_, in_file, _ in headers}
    load, stack, executable, writable, readable = 1, 0x6474E551, 1, 2, 4
    assert len(headers) == len(parts) == 3
    assert parts[load, readable | executable] < len(content) < 16384
    assert parts[load, readable | writable] == parts[stack, readable | writable] == 0


@without_libc
def test_words_of_errors(programs: dict[str, Path]) -> None:
    """They are those of libc; the other errors have their numbers."""
    words = dict(re.findall(r'\[(E\w+)\] = "([^"]+)"', BARE_SOURCE.read_text()))
    assert words == {name: os.strerror(getattr(errno, name)) for name in words} and len(words) > 10
    with PretendHost() as host:
        node = Node(host, programs["bare"])
        for name, said in (("ENOMEM", words["ENOMEM"]), ("ESTALE", "error 0116"), ("EHWPOISON", "error 0133")):
            done = node.call("strace", "-qq", "-o", "/run/trace", "-e", f"inject=faccessat:error={name}")
            assert (done.status, done.json["details"]) == (1, f"{CODE}/launcher: {said} (code {CODE})"), done


GCC = ["gcc", *WARNINGS, "-c", "-o", "/dev/null"]


@pytest.mark.parametrize(
    "command",
    [
        [*GCC, "-O2", "-fanalyzer"],
        [*GCC, "-O0", "-Wconversion", "-Wshadow", "-Wcast-qual", "-Wstrict-prototypes"],
        ["cppcheck", "-q", "--std=c11", "--enable=warning,style,performance,portability", "--error-exitcode=1"],
    ],
    ids=["analyzer", "warnings", "cppcheck"],
)
@pytest.mark.parametrize("libc", ["libc", pytest.param("bare", marks=without_libc)])
def test_checkers_find_nothing(command: list[str], libc: str) -> None:
    if libc == "bare":
        machine = {"x86_64": "__x86_64__", "aarch64": "__aarch64__"}[platform.machine()]
        cppcheck = ["-D__STDC_HOSTED__=0", "-D__LP64__", f"-D{machine}"]
        command = [*command, *(cppcheck if command[0] == "cppcheck" else ["-ffreestanding"])]
    done = subprocess.run([*command, SOURCE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


def test_size_and_means() -> None:
    """No function of the C library that allocates memory, no line that nobody needs."""
    text = SOURCE.read_text()
    assert text.count("\n") <= 255 and BARE_SOURCE.read_text().count("\n") <= 190
    assert not re.search(r"\b(?:malloc|calloc|realloc|strdup|asprintf|fopen|alloca)\b", text)
