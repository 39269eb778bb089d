"""Any user can keep the system bus busy: calls that do not need it are not delayed, calls that need it fail."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from shared.admission.firewalld import FILES
from tests.firewalld import BUS
from tests.pretend import read_line
from tests.system.firewall_node import Node
from tests.system.test_firewalld import end, fake_bus

pytestmark = pytest.mark.row("bus")
FULL = BUS.replace(
    "</busconfig>",
    '<limit name="max_incomplete_connections">16</limit><limit name="auth_timeout">600000</limit></busconfig>',
)
# More connections than the bus and the socket's queue take; none of them authenticates.
CONNECT = """
import os, socket, time
os.setgroups([]), os.setgid(65534), os.setuid(65534)
open = [socket.socket(socket.AF_UNIX) for _ in range(600)]
for one in open:
    one.setblocking(False)
    try:
        one.connect("/run/dbus/system_bus_socket")
    except BlockingIOError:
        continue
print("full", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def full_bus(node: Node) -> None:
    host = node.host
    host.run("mkdir", "-p", "/run/dbus/services")
    (host.root / "run/dbus/bus.conf").write_text(FULL)
    bus = host.popen("dbus-daemon", "--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile", "--print-address")
    assert b"unix:path=" in read_line(bus)
    crowd = host.popen(sys.executable, "-IS", "-c", CONNECT)
    assert read_line(crowd) == b"full\n"


def passes(node: Node) -> None:
    node.add("a")
    assert node.elements()["admitted4"] == 1
    assert node.check("a") == ""
    node.collect("a")
    node.delete("a", netns="")
    node.delete("a", netns="", prevResult=node.results["a"])
    assert node.records() == [] and node.elements() == {}


@pytest.mark.usefixtures("full_bus")
def test_a_full_bus(node: Node) -> None:
    passes(node)


@pytest.mark.slow
@pytest.mark.usefixtures("full_bus")
def test_a_full_bus_that_is_needed(node: Node) -> None:
    node.pod("a")
    answer: Any = node.call("ADD", "a", backend="firewalld")
    assert answer.code == 11 and "no answer from the system bus within 25 seconds" in answer.json["msg"], answer
    assert "too many connections" in answer.json["details"]
    assert node.records() == []


def test_a_silent_bus(node: Node) -> None:
    bus = fake_bus(node, "silence")
    passes(node)
    end(node, bus)


def test_a_host_without_firewalld_is_not_asked(node: Node) -> None:
    """Without firewalld's files, the plugin does not ask even a bus that would claim that it runs."""
    for number, path in enumerate(("/etc", "/usr/sbin", "/usr/share/dbus-1")):
        over = f"lowerdir={path},upperdir=/run/{number}/up,workdir=/run/{number}/work"
        node.host.run("mkdir", "-p", f"/run/{number}/up", f"/run/{number}/work")
        node.host.run("mount", "-t", "overlay", "-o", over, "overlay", path)
    node.host.run("rm", "-rf", *FILES)
    bus = fake_bus(node, "<")
    node.add("a")
    assert node.elements()["admitted4"] == 1
    node.delete("a")
    end(node, bus)
