"""firewall with firewalld: a real daemon on a real bus in the pretend host, and fake buses."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.firewalld import Firewalld
from tests.node import DEAF
from tests.pretend import PATH, TREE, read_line
from tests.system.firewall_node import Node

SOURCES = ["10.1.0.2/32", "fd00:1::2/128"]


@pytest.mark.parametrize("keys", [{}, {"backend": "firewalld"}, {"firewalldZone": "own"}])
def test_what_passes(node: Node, firewalld: Firewalld, keys: dict[str, Any]) -> None:
    """The zone of the key admits the pod's packets and the replies, without another backend's rules."""
    zone = keys.get("firewalldZone", "trusted")
    if zone == "own":
        firewalld.run("--permanent", "--new-zone=own")
        firewalld.run("--permanent", "--zone=own", "--set-target=ACCEPT")
        firewalld.run("--reload")
    node.pod("a")
    assert node.reaches("a", "outside") == []
    node.add("a", **keys)
    assert node.reaches("a", "outside") == [4, 6] and node.reaches("outside", "a") == []
    assert firewalld.sources(zone) == SOURCES and node.check("a", **keys) == ""
    assert node.elements() == {} and node.pod_rules() == []
    node.add("a", **keys)
    assert firewalld.sources(zone) == SOURCES
    node.delete("a", netns="")
    assert node.reaches("a", "outside") == [] and firewalld.sources(zone) == [] and node.records() == []


def test_beside_the_keys_of_nf_tables(node: Node, firewalld: Firewalld) -> None:
    for pod, bridge in (("a", 1), ("b", 2)):
        node.add(pod, bridge=bridge)
    assert node.reaches("a", "b") == [4, 6]
    for pod, bridge in (("a", 1), ("b", 2)):
        node.add(pod, bridge=bridge, ingressPolicy="same-bridge")
    assert node.reaches("a", "b") == [] and node.reaches("a", "outside") == [4, 6]
    assert node.check("a", ingressPolicy="same-bridge") == ""
    for pod in ("a", "b"):
        node.delete(pod, netns="")
    assert node.elements() == {} and firewalld.sources() == []


@pytest.mark.parametrize("first", ["reference", "ours"])
def test_hand_over(node: Node, firewalld: Firewalld, reference_bin: str, first: str) -> None:
    """Each suite binds the same sources; each removes the other's."""
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {"bin_dir": reference_bin}
    one, two = (theirs, ours) if first == "reference" else (ours, theirs)
    keys: dict[str, Any]
    for keys in ({}, {"backend": "firewalld", "firewalldZone": "home"}):
        zone = keys.get("firewalldZone", "trusted")
        node.add("a", **{**one, **keys})
        assert firewalld.sources(zone) == SOURCES
        assert node.check("a", **ours, **keys) == ""
        node.delete("a", prevResult=node.results["a"], **two, **keys)
        assert firewalld.sources(zone) == []
        node.delete("a", **ours)
    assert node.records() == []


def test_what_is_lost(node: Node, firewalld: Firewalld) -> None:
    """A reload and a restart drop the sources: CHECK reports it, the next ADD restores them, DEL and GC succeed."""
    node.add("a")
    node.add("b")
    firewalld.run("--zone=trusted", "--remove-source=10.1.0.2/32")
    assert node.check("a") == "firewalld has no source 10.1.0.2/32 in zone trusted"
    firewalld.run("--reload")
    said = node.check("a")
    assert all(source in said for source in SOURCES), said
    node.add("c")
    assert node.check("c") == "" and node.reaches("c", "outside") == [4, 6]
    assert node.check("a") == node.check("b") == "" and len(firewalld.sources()) == 6
    node.collect("b", "c")
    assert len(node.records()) == 2 and len(firewalld.sources()) == 4
    firewalld.stop(firewalld.daemon)
    said = node.check("b", backend="firewalld")
    assert "firewalld does not run" in said, said
    node.delete("b")
    firewalld.start()
    node.delete("c")
    assert firewalld.sources() == [] and node.records() == []


@pytest.mark.parametrize("what", ["daemon", "bus"])
def test_del_when_firewalld_is_gone(node: Node, firewalld: Firewalld, what: str) -> None:
    node.add("a")
    firewalld.stop(getattr(firewalld, what))
    for keys in ({}, {"prevResult": node.results["a"]}):
        node.delete("a", netns="", **keys)
    assert node.records() == [] and not (node.host.root / "run/activated").exists()


def test_the_zone_is_another_one_now(node: Node, firewalld: Firewalld) -> None:
    """The next ADD of the network moves its pods there, and leaves nothing in the former zone."""
    node.add("a", firewalldZone="trusted")
    node.add("b", firewalldZone="home")
    assert firewalld.sources() == [] and len(firewalld.sources("home")) == 4
    assert node.check("a", firewalldZone="home") == ""
    node.delete("a", netns="")
    node.delete("b", netns="")
    assert firewalld.sources("home") == [] and node.records() == []


@pytest.mark.parametrize("noted", [True, False])
def test_sources_of_the_administrators_stay_with_another_backend(node: Node, firewalld: Firewalld, noted: bool) -> None:
    """DEL asks firewalld if a note says so, or if there is no note and the configuration has firewalld."""
    node.pod("a")
    if noted:
        node.add("a", backend="nftables")
    firewalld.run("--zone=trusted", "--add-source=10.1.0.2/32")
    node.delete("a", prevResult=node.results["a"], **({} if noted else {"backend": "nftables"}))
    assert firewalld.sources() == ["10.1.0.2/32"] and node.records() == []
    node.delete("a", prevResult=node.results["a"])  # as the reference's ADD may have left it
    assert firewalld.sources() == []


def test_firewalld_is_never_started(node: Node, firewalld: Firewalld) -> None:
    """An ADD that asks for it fails if it does not run; no call starts it through the bus."""
    firewalld.stop(firewalld.daemon)
    node.pod("a")
    answer = node.call("ADD", "a", backend="firewalld")
    assert answer.code == 11 and "org.fedoraproject.FirewallD1" in answer.json["msg"], answer
    node.delete("a", prevResult=node.results["a"], backend="firewalld")
    assert node.records() == [] and not (node.host.root / "run/activated").exists()
    node.add("a")
    assert node.elements()["admitted4"] == 1
    ask = ("--system", "--print-reply", "--dest=org.fedoraproject.FirewallD1", "/", "org.example.Method")
    firewalld.host.run("dbus-send", *ask, check=False)
    assert (node.host.root / "run/activated").exists()


def test_what_firewalld_refuses(node: Node, firewalld: Firewalld) -> None:
    node.pod("a")
    answer = node.call("ADD", "a", firewalldZone="nowhere")
    assert answer.code == 7 and '"firewalldZone": "nowhere" is not a zone' in answer.json["msg"], answer
    assert node.records() == []
    firewalld.run("--zone=public", "--add-source=10.1.0.2/32")
    answer = node.call("ADD", "a")
    assert answer.code == 999 and "10.1.0.2/32" in answer.json["msg"] and "ZONE_CONFLICT" in answer.json["details"]
    assert node.records() == []
    firewalld.run("--zone=public", "--remove-source=10.1.0.2/32")
    firewalld.run("--zone=public", "--add-source=fd00:1::2/128")
    assert node.call("ADD", "a").code == 999
    assert firewalld.sources() == [] and firewalld.sources("public") == ["fd00:1::2/128"]
    node.delete("a", prevResult=node.results["a"])
    assert firewalld.sources("public") == ["fd00:1::2/128"]


def test_status(node: Node, firewalld: Firewalld) -> None:
    ask = {"cniVersion": "1.1.0"}
    for keys in ({}, {"backend": "firewalld"}):
        assert node.call("STATUS", "", **keys, **ask).status == 0
        answer = node.call("STATUS", "", firewalldZone="nowhere", **keys, **ask)
        assert answer.code == 50 and "nowhere" in answer.json["msg"], answer
    firewalld.stop(firewalld.daemon)
    assert node.call("STATUS", "", **ask).status == 0
    assert node.call("STATUS", "", backend="firewalld", **ask).code == 50
    firewalld.stop(firewalld.bus)
    assert node.call("STATUS", "", backend="firewalld", **ask).code == 50


def test_an_address_that_is_leased_anew_stays(node: Node, firewalld: Firewalld) -> None:
    node.add("a")
    node.results["b"] = node.results["a"]
    node.add("b")
    node.delete("a", netns="", prevResult=node.results["a"])
    assert firewalld.sources() == SOURCES
    node.delete("b", netns="")
    assert firewalld.sources() == [] and node.records() == []


def test_without_programs(node: Node, firewalld: Firewalld) -> None:
    """A DEL may fork a child that waits for the kernel. Nothing but the plugin itself is executed."""
    node.pod("a")
    for command in ("ADD", "CHECK", "DEL"):
        made = [line.partition("(")[0] for line in node.traced(command, "a")]
        assert made in (["execve"], *([["execve", "clone"]] if command == "DEL" else [])), made
        assert (firewalld.sources() == []) == (command == "DEL")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_anywhere(node: Node, firewalld: Firewalld, verb: str) -> None:
    node.pod("a")
    struck = 0
    for call in ("connect", "sendto", "recvfrom", "rename", "unlink", "flock"):
        for number in range(1, 100):
            if verb == "DEL":
                node.add("a")
            killing = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")  # fmt: skip
            status = node.call(verb, "a", prefix=killing).status
            node.delete("a", netns="")
            assert firewalld.sources() == [] and node.records() == [], (call, number)
            if status == 0:
                break
            struck += 1
    assert struck > 12


def test_a_failed_add_leaves_nothing(node: Node, firewalld: Firewalld) -> None:
    node.pod("a")
    assert node.call("ADD", "a", prefix=DEAF).status == 1
    assert firewalld.sources() == [] and node.records() == []


# -- a bus that is none

# Answers each connection with the bytes of its argument, of which {serial} is the last call's, and then does as told.
FAKE = """
import os, socket, struct, sys
kind, path = sys.argv[1:]
def field(order, code, kind, value):
    if kind == "u":
        data = struct.pack(order + "I", value)
    else:
        data = struct.pack(order + "I", len(value)) + value + b"\\0"
    data = bytes([code]) + b"\\1" + kind.encode() + b"\\0" + data
    return data + bytes(-len(data) % 8)
def message(serial, order="<", kind=2, body=b"", more=b""):
    fields = field(order, 5, "u", serial) + more
    head = (b"l" if order == "<" else b"B") + bytes([kind, 0, 1]) + struct.pack(order + "III", len(body), 7, len(fields))
    return head + fields + bytes(-len(fields) % 8) + body
OK = b"OK 1234\\r\\n"
truth = b"\\x08\\1g\\0\\1b\\0\\0"
def yes(serial, order):
    return message(serial, order, body=struct.pack(order + "I", 1), more=truth)
ANSWERS = {
    "garbage": os.urandom(4096),
    "zeros": OK + bytes(4096),
    "nothing": b"",
    "refusal": b"REJECTED KERBEROS\\r\\n",
    "enormous": OK + b"l\\2\\0\\1" + b"\\xff" * 12,
    "cut": OK + message(1)[:-5],
    "field without end": OK + message(1, more=b"\\4\\1s\\0\\xff\\xff\\xff\\x7f"),
    "array": OK + message(1, more=b"\\4\\1a\\0" + bytes(4)),
    "error without name": OK + message(1, kind=3),
    "string without end": OK + message(1, body=b"\\xff" * 4, more=b"\\x08\\1g\\0\\1s\\0\\0"),
    "half a truth": OK + message(1, body=b"\\1", more=truth),
    "garbage later": OK + message(1) + bytes(4096),
    "another's truth": OK + message(1) + yes(99, "<") + message(2, body=bytes(4), more=truth),
    "no truth": OK + message(1) + message(2) + message(3),
}
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
print("ready", flush=True)
while True:
    client, _ = server.accept()
    try:
        if kind == "endless line":
            while True:
                client.sendall(b"A" * 4096)
        elif kind == "endless signals":
            client.sendall(OK)
            while True:
                client.sendall(message(99, kind=4))
        elif kind in "<>":
            client.recv(4096)
            client.sendall(OK + message(1, kind))
            serial = 2
            while client.recv(4096):
                client.sendall(yes(serial, kind))
                serial += 1
        elif kind == "silence":
            while client.recv(4096):
                pass
        else:
            client.sendall(ANSWERS[kind])
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    except OSError:
        pass
    client.close()
"""


def fake_bus(node: Node, kind: str, path: str = "/run/dbus/system_bus_socket") -> Any:
    (node.host.root / path[1:]).parent.mkdir(exist_ok=True)
    process = node.host.popen(sys.executable, "-c", FAKE, kind, path)
    assert read_line(process) == b"ready\n"
    return process


def end(node: Node, bus: Any) -> None:
    bus.kill()
    bus.communicate()
    (node.host.root / "run/dbus/system_bus_socket").unlink()


HOSTILE = (
    *("garbage", "zeros", "nothing", "refusal", "enormous", "cut", "field without end", "array", "error without name"),
    *("endless line", "endless signals", "string without end", "half a truth"),
)


def test_hostile_answers(node: Node) -> None:
    """ADD fails in time with an error of the specification and leaves nothing; DEL does not claim success."""
    node.pod("a")
    for kind in HOSTILE:
        bus = fake_bus(node, kind)
        for keys in ({}, {"backend": "firewalld"}):
            answer = node.call("ADD", "a", **keys)
            assert (answer.status, answer.code) == (1, 999) and "system bus" in answer.json["msg"], (kind, answer)
            assert answer.stderr == "" and node.records() == [] and node.elements() == {}
        answer = node.call("DEL", "a", prevResult=node.results["a"])
        assert answer.code == 999 and "system bus" in answer.json["msg"], (kind, answer)
        end(node, bus)
        node.delete("a", prevResult=node.results["a"])


def test_the_answer_to_another_question(node: Node) -> None:
    """The plugin skips it: firewalld does not run here, as the next answer says."""
    node.pod("a")
    bus = fake_bus(node, "another's truth")
    node.add("a")
    assert node.elements()["admitted4"] == 1
    end(node, bus)


def test_no_truth(node: Node) -> None:
    """An answer that is neither true nor false does not count as firewalld."""
    bus = fake_bus(node, "no truth")
    node.add("a")
    assert node.elements()["admitted4"] == 1
    node.delete("a")
    end(node, bus)


def test_what_a_failed_add_could_not_end(node: Node) -> None:
    """firewalld may have the source or not: the note stays for DEL."""
    node.pod("a")
    bus = fake_bus(node, "garbage later")
    answer = node.call("ADD", "a", backend="firewalld")
    assert answer.code == 999 and "could not end admission by firewalld" in answer.stderr, answer
    assert node.call("DEL", "a").code == 999 and len(node.records()) == 1
    end(node, bus)
    node.delete("a")
    assert node.records() == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_either_byte_order(node: Node, order: str) -> None:
    """The byte order is the sender's and may differ from this machine's."""
    bus = fake_bus(node, order)
    node.add("a")
    assert node.check("a") == "" and node.elements() == {} and len(node.records()) == 1
    node.delete("a")
    end(node, bus)


@pytest.mark.slow
def test_a_silent_bus(node: Node) -> None:
    """One time limit covers all answers together: code 11, and DEL keeps the note of its unfinished work."""
    bus = fake_bus(node, "<")
    node.add("a")
    end(node, bus)
    bus = fake_bus(node, "silence")
    answer = node.call("DEL", "a", netns="")
    assert answer.code == 11 and "25 seconds" in answer.json["msg"], answer
    assert len(node.records()) == 1
    end(node, bus)
    node.delete("a", netns="")
    assert node.records() == []


def test_the_address_of_the_bus(node: Node) -> None:
    node.pod("a")
    fake_bus(node, "<", "/run/elsewhere")
    for address in ("unix:path=/run/elsewhere", "unix:path=/run/elsewhere,guid=12;unix:path=/none"):
        env = {"DBUS_SYSTEM_BUS_ADDRESS": address}
        node.add("a", env=env)
        assert node.elements() == {} and len(node.records()) == 1
        node.delete("a", env=env)
        assert node.records() == []
    node.add("a", env={"DBUS_SYSTEM_BUS_ADDRESS": "unix:abstract=x"})
    assert node.elements()["admitted4"] == 1


def test_explain_asks_nobody(node: Node, tmp_path: Path) -> None:
    """The rehearsal has its own namespaces, but a socket's file is reachable from them."""
    path = tmp_path / "bus"
    plugins = [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}, {"type": "firewall"}]
    network = {"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}
    (node.host.root / "run/pods.conflist").write_text(json.dumps(network))
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(path))
        bus.listen()
        bus.setblocking(False)
        env = {"PATH": PATH, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={path}"}
        code = (
            f"import sys; sys.path.insert(0, {TREE!r}); from shared.cli.cnitool import main; sys.exit(main({TREE!r}))"
        )
        tool = (sys.executable, "-I", "-B", "-c", code, "explain", "/run/pods.conflist", "--bin-dir", node.host.bin_dir)
        assert "10.1.0.2" in node.host.run(*tool, env=env).stdout
        with pytest.raises(BlockingIOError):
            bus.accept()
