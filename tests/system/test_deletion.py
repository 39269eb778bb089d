"""Links are deleted without waiting for the kernel's answer: a child waits for it, the call for the kernel's report."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from shared.net.owner import Owner
from tests import node as nodes
from tests.pretend import Answer, PretendHost, until

FIRST_PROCESS = {"1"}
# Deletes links again and again, and creates one of the same name at once: argv are the arguments of `ip link add`.
AGAIN = """
import subprocess, sys, time
from shared import handover
from shared.net import links
from shared.net.netlink import Netlink
handover.is_executable = True
host = Netlink()
for _ in range(20):
    subprocess.run(["ip", "link", "add", "gone", *sys.argv[1:]], check=True)
    assert links.delete(host, "gone") and not links.delete(host, "gone")
    subprocess.run(["ip", "link", "add", "gone", "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "del", "gone"], check=True)
"""
# Deletes loopback, which the kernel refuses, with and without a child.
REFUSED = """
from shared import handover
from shared.net import links
from shared.net.netlink import Netlink, NetlinkError
for handover.is_executable in (False, True):
    try:
        links.delete(Netlink(), "lo")
    except NetlinkError as error:
        print(error.errno, error)
"""
# Is init of a process namespace, and serves a DEL: argv are the arguments of signal.signal, and the executable.
# Prints the processes that are left, again and again, until init is the only one.
INIT = """
import signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGCHLD, signal.Handlers[sys.argv[1]])
subprocess.run(sys.argv[2:])
def states():
    paths = [path for path in Path("/proc").iterdir() if path.name.isdecimal() and path.name != "1"]
    return [(path / "stat").read_text().rpartition(") ")[2][0] for path in paths]
deadline = time.monotonic() + 20
while (left := states()) and time.monotonic() < deadline:
    time.sleep(0.01)
print("left:", *left)
"""
LIBRARY = """
import posix
from shared import handover
from shared.net import links
from shared.net.netlink import Netlink
posix.fork = None
print(links.delete(Netlink(), "gone"), handover.start(print))
"""


class Node(nodes.Node):
    """A pretend host with pods on a bridge."""

    DEFAULTS = {**nodes.Node.DEFAULTS, **nodes.BRIDGE, "isGateway": True}  # noqa: RUF012

    def link(self, pod: str) -> str:
        return Owner("net", pod, "eth0").host_link

    def is_there(self, name: str) -> bool:
        return any(link["ifname"] == name for link in self.host.ip("link"))

    def leases(self) -> set[str]:
        directory = self.host.root / "var/lib/cni/networks/net"
        return {path.name for path in directory.iterdir() if path.name[0] in "1f"}

    def processes(self) -> set[str]:
        return {path.name for path in (self.host.root / "proc").iterdir() if path.name.isdecimal()}

    def is_idle(self) -> bool:
        return self.processes() == FIRST_PROCESS

    def traced(
        self, verb: str, pod: str, keys: Mapping[str, Any] = {}, /, *, inject: str = "", calls: str = "",
        front: Sequence[str] = (), **more: Any,
    ) -> tuple[Answer, list[str]]:  # fmt: skip
        """Return the answer of a call, and the lines of its strace, with the process's number at the beginning."""
        names = f"trace=clone,clone3,fork,vfork,sendto{calls}"
        injection = ("-e", f"inject={inject}") if inject else ()
        prefix = ("strace", "-f", "-qq", "-o", "/run/trace", "-e", names, *injection, *front)
        return self.call(verb, pod, keys, prefix=prefix, **more), self.host.run("cat", "/run/trace").stdout.splitlines()


def forks(lines: list[str]) -> int:
    return sum(bool(re.match(r"\d+ +(clone|fork|vfork)", line)) for line in lines)


def deletions(lines: list[str]) -> list[str]:
    """Return the numbers of the processes that ask for the deletion of a link."""
    return [line.split()[0] for line in lines if "RTM_DELLINK" in line]


@pytest.mark.parametrize("kind", ["veth", "ifb", "bridge", "macvlan"])
def test_the_name_is_free_at_once(host: PretendHost, kind: str) -> None:
    host.run("ip", "link", "add", "below", "type", "bridge")
    more = {"veth": ("peer", "name", "other"), "macvlan": ("link", "below")}.get(kind, ())
    before, after = (more, ()) if kind == "macvlan" else ((), more)
    try:
        host.run("ip", "link", "add", "trial", *before, "type", kind, *after)
    except RuntimeError:
        pytest.skip(f"this kernel has no {kind}")
    host.run("ip", "link", "del", "trial")
    host.python(AGAIN, *before, "type", kind, *after)


def test_one_child_sends_one_message(node: Node) -> None:
    node.add("a")
    answer, lines = node.traced("DEL", "a")
    assert answer.status == 0 and forks(lines) == 1
    (child,) = deletions(lines)
    assert child != lines[0].split()[0]
    assert [line for line in lines if line.startswith(child) and "sendto" in line and "resumed" not in line] == [
        line for line in lines if "RTM_DELLINK" in line
    ]


def test_the_child_holds_nothing_else(node: Node) -> None:
    """The runtime waits for the end of stdout and stderr; a lock is held until its last descriptor is closed."""
    node.add("a", ipMasq=True)
    _, lines = node.traced("DEL", "a", ipMasq=True, calls=",close_range,socket")
    (child,) = deletions(lines)
    closed: set[int] = set()
    before_request = itertools.takewhile(lambda line: "RTM_DELLINK" not in line, lines)
    for line in before_request:
        if found := re.match(rf"{child} +close_range\((\d+), (\d+), 0\) += 0", line):
            closed |= set(range(int(found[1]), int(found[2]) + 1))
    kept = {int(line.split()[-1]) for line in lines if " socket(AF_NETLINK" in line}
    assert set(range(1024)) - closed <= kept and closed


def test_a_second_del_and_a_new_add_at_once(node: Node) -> None:
    for _ in range(10):
        first = node.add("a")
        node.delete("a")
        assert not node.is_there(node.link("a")) and node.leases() == set()
        assert node.host.ip("link", "show", netns="a")[0]["ifname"] == "lo"
        assert len(node.host.ip("link", "show", netns="a")) == 1
        node.delete("a")
        assert node.add("a")["interfaces"][1]["name"] == first["interfaces"][1]["name"]
        assert node.check("a") == ""
        node.delete("a")


def test_no_child_is_left(node: Node) -> None:
    for pod in ("a", "b"):
        node.add(pod, ipMasq=True)
    for pod in ("a", "b"):
        node.delete(pod, ipMasq=True)
    until(node.is_idle, seconds=1)


@pytest.mark.parametrize("handling", ["SIG_IGN", "SIG_DFL"])
def test_no_zombie_is_left(node: Node, handling: str) -> None:
    """Some containers have an init that reaps nothing. Init of a machine reaps each child that ends."""
    node.add("a", ipMasq=True)
    init = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", INIT, handling)
    answer = node.call("DEL", "a", ipMasq=True, prefix=init)
    assert (answer.status, answer.stdout) == (0, "left:\n"), answer
    assert not node.is_there(node.link("a")) and node.leases() == set()


def test_undo_does_not_wait_either(node: Node) -> None:
    """A failed ADD deletes the veth pair and the new bridge, each by a child."""
    node.netns("a")
    answer, lines = node.traced("ADD", "a", front=nodes.DEAF)
    assert answer.status == 1 and len(deletions(lines)) == 2
    assert lines[0].split()[0] not in deletions(lines)
    assert not node.is_there(node.link("a")) and not node.is_there("cni0") and node.leases() == set()


def test_a_call_without_a_link_forks_nothing(node: Node) -> None:
    node.add("a", ipMasq=True)
    node.delete("a", ipMasq=True)
    answer, lines = node.traced("DEL", "a", ipMasq=True)
    assert answer.status == 0 and forks(lines) == 0 and not deletions(lines)


def test_gc_deletes_all_by_one_child(node: Node) -> None:
    pods = "abcde"
    for pod in pods:
        node.add(pod)
    answer, lines = node.traced("GC", "", {"cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}]})
    assert answer.status == 0 and forks(lines) == 1 and len(deletions(lines)) == 1
    assert [pod for pod in pods if node.is_there(node.link(pod))] == ["c"]
    for pod in "ab":
        node.add(pod)
    until(node.is_idle, seconds=1)


def test_a_refusal_is_the_calls_error(host: PretendHost) -> None:
    without, with_child = host.python(REFUSED).splitlines()
    assert without == with_child and "kernel refused RTM_DELLINK" in without


@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
def test_without_a_child_the_call_waits_itself(node: Node, error: str) -> None:
    node.add("a")
    answer, lines = node.traced("DEL", "a", inject=f"clone,clone3,fork,vfork:error={error}")
    assert answer.status == 0 and len(set(deletions(lines))) == 1
    assert {line.split()[0] for line in lines} == set(deletions(lines))
    assert not node.is_there(node.link("a")) and node.leases() == set()


def test_without_a_second_socket_the_call_waits_itself(node: Node) -> None:
    node.add("a")
    for number in range(1, 9):
        answer, _ = node.traced("DEL", "a", inject=f"socket:error=EMFILE:when={number}", calls=",socket")
        assert answer.status == 0 or answer.code, answer
        node.delete("a")
        assert not node.is_there(node.link("a"))
        node.add("a")


def test_a_call_whose_child_is_killed_deletes_the_link(node: Node) -> None:
    """The child is killed when it closes descriptors, before it sends the request."""
    node.add("a")
    answer, lines = node.traced("DEL", "a", inject="close_range:signal=SIGKILL", calls=",close_range")
    assert answer.status == 0 and forks(lines) == 1
    assert deletions(lines) == [lines[0].split()[0]]
    assert not node.is_there(node.link("a")) and node.leases() == set()


@pytest.mark.parametrize("what", ["signal=SIGKILL", "signal=SIGTERM", "error=ENOBUFS"])
def test_struck_at_each_answer(node: Node, what: str) -> None:
    """The child is not traced, and works on."""
    node.add("z")
    statuses = []
    for number in range(1, 30):
        node.add("a")
        prefix = ("strace", "-qq", "-o", "/run/trace", "-e", "trace=recvfrom", "-e", f"inject=recvfrom:{what}:when={number}")  # fmt: skip
        answer = node.call("DEL", "a", prefix=prefix)
        statuses.append(answer.status)
        assert answer.status == 0 or what == "signal=SIGKILL", answer
        node.delete("a")
        assert not node.is_there(node.link("a")) and len(node.leases()) == 2
        if len(node.host.run("cat", "/run/trace").stdout.splitlines()) < number:
            break
    assert len(statuses) > 5 and statuses[-1] == 0
    until(node.is_idle, seconds=1)


def test_the_library_does_not_fork(host: PretendHost) -> None:
    host.run("ip", "link", "add", "gone", "type", "bridge")
    assert host.python(LIBRARY) == "True False\n"
