"""The dhcp daemon on a LAN with hostile servers: it lives, serves, and says why an answer was not used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.pretend import read_line, until
from tests.system.dhcp_node import Node

# Answers each DISCOVER and REQUEST as a kind of evil says, until its stdin ends.
SERVER = f"""
import random, socket, struct, sys, time
sys.path.insert(0, {str(ROOT)!r})
evil = sys.argv[1]
OPTIONS = {{54: "0a090001", 51: "00000e10", 1: "ffffff00", 3: "0a090001"}}
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
link.bind(("eth0", 0x0800))

def checksum(data):
    total = sum(struct.unpack(f"!{{len(data) // 2}}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF

def frame(payload):
    udp = struct.pack("!HHHH", 67, 68, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([10, 9, 0, 1]), b"\\xff" * 4)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return b"\\xff" * 6 + bytes.fromhex("02000000beef") + b"\\x08\\x00" + head + udp

def reply(request, kind, options, xid=None):
    fixed = b"\\x02\\x01\\x06\\x00" + (xid or request[4:8]) + bytes(8) + bytes([10, 9, 0, 77, 10, 9, 0, 1])
    told = b"".join(bytes([number, len(value) // 2]) + bytes.fromhex(value) for number, value in options.items())
    return fixed + bytes(4) + request[28:44] + bytes(192) + b"\\x63\\x82\\x53\\x63\\x35\\x01" + bytes([kind]) + told + b"\\xff"

def answers(request, kind):
    offer = reply(request, 2, OPTIONS)
    ack = reply(request, 5, OPTIONS)
    if evil == "noise":
        for size in (0, 1, 20, 239, 240, 241, 600):
            yield random.randbytes(size)
            yield offer[:236] + random.randbytes(size)
            yield offer[:240] + random.randbytes(size)
    elif evil == "truncated":
        yield from (offer[:size] for size in range(236, len(offer) - 1))
    elif evil == "endless NAK":
        yield reply(request, 6, OPTIONS) if kind == 3 else offer
    elif evil == "another transaction":
        yield offer
        if kind == 3:
            yield reply(request, 5, OPTIONS, b"evil")
    elif evil == "no address":
        yield (offer if kind == 1 else ack).replace(bytes([10, 9, 0, 77]), bytes(4))
    elif evil == "no lease time":
        yield reply(request, 2 if kind == 1 else 5, {{54: "0a090001", 1: "ffffff00"}})
    elif evil == "none, but overload":
        packed = reply(request, 2 if kind == 1 else 5, {{52: "03"}})
        sname, file = (bytes.fromhex(text) for text in ("36040a090001" "03040a090001" "ff", "330400000e10" "0104ffffff00" "ff"))
        yield packed[:44] + sname.ljust(64, b"\\0") + file.ljust(128, b"\\0") + packed[236:]
    elif evil == "another server renews" and data[:6] != b"\\xff" * 6:
        yield reply(request, 5, OPTIONS | {{54: "0a0900fe"}})
    elif evil == "another server confirms":
        yield reply(request, 5, OPTIONS | {{54: "0a0900fe"}}) if kind == 3 else offer

print("ready", flush=True)
while evil == "for others":  # and from the pod itself
    for mac in (bytes(6), bytes.fromhex(sys.argv[2])):
        link.send(frame(reply(bytes(28) + mac + bytes(10), 2, OPTIONS, b"evil")[:236]))
    time.sleep(0.01)
while True:
    data = link.recv(4096)
    if data[23:24] != b"\\x11" or data[36:38] != b"\\x00\\x43":
        continue
    request = data[42:]
    kind = request[request.index(b"\\x35\\x01", 240) + 2]
    if evil == "another server renews" and request[12:16] != bytes(4):
        print("rebinding" if data[:6] == b"\\xff" * 6 else "renewing", flush=True)
    for payload in answers(request, kind):
        link.send(frame(payload))
"""
# The words of ADD's error, for each kind of evil.
EVILS = {
    "noise": r"DISCOVERs? sent, .*\d unreadable messages received",
    "truncated": r"\d unreadable messages received; OFFER from 10\.9\.0\.1 not used: no ",
    "endless NAK": r"10\.9\.0\.1 refused \(NAK\)",
    "another transaction": r"ACK for another transaction",
    "no address": r"OFFER from 10\.9\.0\.1 not used: 0\.0\.0\.0 .* is no address of a host",
    "no lease time": r"OFFER from 10\.9\.0\.1 not used: no lease time \(option 51\)",
    "another server confirms": r"ACK from 10\.9\.0\.1 not used: the request was for the offer of 10\.9\.0\.1",
}


@pytest.fixture
def daemon(node: Node) -> Iterator[Node]:
    """Return a node with a daemon that must live to the end of the test, and say nothing unexpected."""
    node.start("-resendtimeout", "3s")
    yield node
    assert node.daemon is not None and node.daemon.poll() is None
    assert "unexpected" not in node.log.read_text() and "Traceback" not in node.log.read_text()


def begin(node: Node, evil: str, *words: str, netns: str = "lan") -> subprocess.Popen[bytes]:
    """Start an evil server on the LAN, or in a pod."""
    server = node.host.popen("ip", "netns", "exec", netns, sys.executable, "-c", SERVER, evil, *words)
    assert read_line(server) == b"ready\n"
    return server


@pytest.mark.parametrize("evil", EVILS)
def test_a_hostile_server_alone(daemon: Node, evil: str) -> None:
    """ADD fails in time and names the reason. With an honest server instead, the next ADD succeeds."""
    server = begin(daemon, evil)
    daemon.refused("a", 11, EVILS[evil])
    daemon.recover(server)


def test_options_in_other_fields(daemon: Node) -> None:
    """Option 52: a server may put options into the fields `file` and `sname`."""
    begin(daemon, "none, but overload")
    result = daemon.add("a")
    assert [ip["address"] for ip in result["ips"]] == ["10.9.0.77/24"]
    assert daemon.routes("a") == {("default", "10.9.0.1")}
    assert daemon.check("a") == ""


def test_noise_beside_a_lease(daemon: Node) -> None:
    """Garbage for a pod that has a lease changes nothing."""
    daemon.serve_lan("--dhcp-option-force=option:T1,1", "--dhcp-option-force=option:T2,4")
    address = daemon.add("a")["ips"][0]["address"]
    begin(daemon, "noise")
    begin(daemon, "another transaction")
    before = daemon.heard("DHCPACK")
    until(lambda: daemon.heard("DHCPACK") >= before + 2)
    assert daemon.on_link("a") == {address} and daemon.check("a") == ""


def test_frames_that_are_for_no_client(daemon: Node) -> None:
    """Frames for other MACs, and frames of the pod itself, are not even counted."""
    plugin = daemon.begin_add("a")
    (link,) = daemon.host.ip("link", "show", "eth0", netns="a")
    mac = link["address"].replace(":", "")
    begin(daemon, "for others", "02" * 6)
    begin(daemon, "for others", mac, netns="a")
    assert plugin.stdout
    answer = plugin.stdout.read().decode()
    assert "0 replies" in answer and "unreadable" not in answer


def test_a_renewal_by_another_server(daemon: Node) -> None:
    """It is not used: the lease is rebound instead, which asks all servers."""
    daemon.serve_lan("--dhcp-option-force=option:T1,1", "--dhcp-option-force=option:T2,4")
    address = daemon.add("a")["ips"][0]["address"]
    daemon.silence()
    server = begin(daemon, "another server renews")
    assert read_line(server) == b"renewing\n"
    assert read_line(server) == b"rebinding\n"
    assert daemon.on_link("a") == {address} and daemon.check("a") == ""
