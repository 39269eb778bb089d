"""DHCPv6 on a LAN with hostile servers: the daemon lives, serves, and says why an answer was not used."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.dhcp_lan import IPV6
from tests.pretend import PretendHost, read_line, until
from tests.system.dhcp_node import Node as DhcpNode

# Answers each message as a kind of evil says, and reports the messages that it gets, until its stdin ends.
SERVER = """
import random, socket, struct, sys
evil = sys.argv[1]
OWN, OTHER = bytes.fromhex("00030001020000000001"), bytes.fromhex("00030001020000000002")
ADVERTISE, REPLY, FOREVER = 2, 7, 2**32 - 1
names = {1: "SOLICIT", 3: "REQUEST", 5: "RENEW", 6: "REBIND", 8: "RELEASE", 9: "DECLINE"}
link = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
link.bind(("::", 547))
group = socket.inet_pton(socket.AF_INET6, "ff02::1:2") + struct.pack("@i", socket.if_nametoindex("eth0"))
link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)

def option(number, value=b""):
    return struct.pack("!HH", number, len(value)) + value

def read(data):
    found = {}
    while data:
        number, length = struct.unpack("!HH", data[:4])
        found[number], data = data[4 : 4 + length], data[4 + length :]
    return found

def status(code):
    return option(13, struct.pack("!H", code) + b"never\\n")

def reply(kind, *, client=None, server=OWN, address="fd09::77", times=(1, 2, 3, 3), inner=b"", outer=b"", xid=None):
    lease = option(5, socket.inet_pton(socket.AF_INET6, address) + struct.pack("!II", *times[2:]))
    body = option(3, asked[3][:4] + struct.pack("!II", *times[:2]) + (inner or lease))
    names = option(1, client or asked[1]) + (option(2, server) if server else b"")
    return bytes([kind]) + (xid or data[1:4]) + names + body + outer

def answers():
    times = (4, 8, 12, 12) if evil == "withdrawal" else (1, 2, 3, 3)
    good = reply(ADVERTISE if name == "SOLICIT" else REPLY, times=times)
    if evil == "noise":
        for size in (0, 1, 3, 4, 5, 100, 1400):
            yield random.randbytes(size)
            yield good[: len(good) // 2] + random.randbytes(size)
    elif evil == "truncated":
        yield from (good[:size] for size in range(4, len(good)))
    elif evil == "another transaction":
        yield reply(ADVERTISE, xid=b"eve")
    elif evil == "another client":
        yield reply(ADVERTISE, client=OTHER)
    elif evil == "no server":
        yield reply(ADVERTISE, server=b"")
    elif evil in ("fe80::77", "ff02::1", "::1"):
        yield reply(ADVERTISE, address=evil)
    elif evil == "no lifetime":
        yield reply(ADVERTISE, times=(0, 0, 0, 0))
    elif evil == "no confirmation":
        yield reply(ADVERTISE, times=(0, 0, 60, 60)) if name == "SOLICIT" else reply(REPLY, inner=status(2))
    elif evil == "another server confirms":
        yield good if name == "SOLICIT" else reply(REPLY, server=OTHER)
    elif evil == "endless UnspecFail":
        yield reply(ADVERTISE, outer=status(1))
    elif evil == "none, but rapid":
        yield reply(REPLY, outer=option(14), times=(FOREVER,) * 4)
    elif evil == "another server renews":
        yield good if name in ("SOLICIT", "REQUEST") else reply(REPLY, server=OTHER)
    elif evil == "withdrawal":
        if name != "SOLICIT" or not renewed:
            yield reply(REPLY, times=(0, 0, 0, 0)) if renewed else good
    elif evil == "a stranger without the lease":
        if name in ("SOLICIT", "REQUEST", "REBIND"):
            yield reply(REPLY, server=OTHER, inner=status(3)) if name == "REBIND" else good
    elif evil == "no lease, when rebound":
        if name != "RENEW":
            yield reply(REPLY, inner=status(3)) if name == "REBIND" else good
    elif evil == "failing renewals":
        yield good if name in ("SOLICIT", "REQUEST") else reply(REPLY, inner=status(1))

renewed = False
print("ready", flush=True)
while True:
    data, sender = link.recvfrom(4096)
    asked, name = read(data[4:]), names[data[0]]
    renewed = renewed or name == "RENEW"
    print(name, flush=True)
    for answer in answers():
        link.sendto(answer, sender)
"""
# The words of ADD's error, for each kind of evil.
EVILS = {
    "noise": r"SOLICITs? sent, .*\d unreadable messages received",
    "truncated": r"\d unreadable messages received",
    "another transaction": r"ADVERTISE for another transaction",
    "another client": r"ADVERTISE from fe80::\S+ not used: it names another client, or no server",
    "no server": r"ADVERTISE from fe80::\S+ not used: it names another client, or no server",
    "fe80::77": r"not used: no address that a pod can use",
    "ff02::1": r"not used: no address that a pod can use",
    "::1": r"not used: no address that a pod can use",
    "no lifetime": r"not used: NoBinding",
    "no confirmation": r"00:03:00:01:02:00:00:00:00:01 offered a lease and did not confirm it",
    "another server confirms": r"REPLY from fe80::\S+ not used: the request was for 00:03:00:01:02:00:00:00:00:01",
    "endless UnspecFail": r"not used: UnspecFail 'never\\n'",
}


class Node(DhcpNode):
    """A node whose pods lease an IPv6 address alone."""

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host)
        self.config["ipam"] = {"type": "dhcp", "dhcpv4": False, "dhcpv6": "stateful"}


@pytest.fixture
def daemon(node: Node) -> Iterator[Node]:
    """Return a node with a daemon that must live to the end of the test, and say nothing unexpected."""
    node.start("-resendtimeout", "3s")
    yield node
    assert node.daemon is not None and node.daemon.poll() is None
    assert "unexpected" not in node.log.read_text() and "Traceback" not in node.log.read_text()


def begin(node: Node, evil: str) -> subprocess.Popen[bytes]:
    """Start an evil server on the LAN."""
    server = node.host.popen("ip", "netns", "exec", "lan", sys.executable, "-c", SERVER, evil)
    assert read_line(server) == b"ready\n"
    return server


def await_message(server: subprocess.Popen[bytes], name: str) -> None:
    """Wait until the server has got a message."""
    while read_line(server) != f"{name}\n".encode():
        continue


@pytest.mark.parametrize("evil", EVILS)
def test_a_hostile_server_alone(daemon: Node, evil: str) -> None:
    """ADD fails in time and names the reason. With an honest server instead, the next ADD succeeds."""
    server = begin(daemon, evil)
    daemon.refused("a", 11, EVILS[evil])
    daemon.recover(server, *IPV6)


def test_a_program_in_the_pod_that_answers(daemon: Node) -> None:
    """It hears the questions of its own link, and needs no privilege to answer them. The answers are not heard."""
    daemon.netns("a")
    daemon.config["type"] = "dhcp"
    link = ("port", "up", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", "a")
    daemon.host.run("ip", "link", "add", *link)
    daemon.host.run("ip", "-n", "a", "link", "set", "lo", "up")
    server = daemon.serve("a", SERVER, "none, but rapid")
    answer = daemon.call("ADD", "a")
    assert re.search(r"\d SOLICITs? sent, 0 replies", answer.json["msg"]), answer
    assert read_line(server) == b"SOLICIT\n"


def test_a_rapid_commit_forever(daemon: Node) -> None:
    """One message and its answer are enough; a lease that never ends is not renewed, but for a new daemon."""
    server = begin(daemon, "none, but rapid")
    assert [ip["address"] for ip in daemon.add("a")["ips"]] == ["fd09::77/128"]
    assert daemon.check("a") == ""
    assert read_line(server) == b"SOLICIT\n"
    daemon.stop()
    daemon.start()
    assert read_line(server) == b"RENEW\n"
    assert daemon.on_link("a", 6) == {"fd09::77/128"} and daemon.check("a") == ""
    daemon.delete("a")
    assert read_line(server) == b"RELEASE\n"


def test_renewals_by_another_server(daemon: Node) -> None:
    """They are not used: the lease is rebound instead, which asks all servers."""
    server = begin(daemon, "another server renews")
    daemon.add("a")
    for name in ("RENEW", "REBIND", "RENEW"):
        await_message(server, name)
    assert daemon.on_link("a", 6) == {"fd09::77/128"} and daemon.check("a") == ""


def test_a_server_that_withdraws_the_address(daemon: Node) -> None:
    """A lifetime of zero: the address leaves the link at once, and CHECK has the status."""
    server = begin(daemon, "withdrawal")
    daemon.add("a")
    await_message(server, "RENEW")
    assert read_line(server) == b"SOLICIT\n"
    until(lambda: daemon.on_link("a", 6) == set())
    assert "the lease of fd09::77 was refused by the server (NoBinding)" in daemon.check("a")


def test_a_server_that_fails_to_renew(daemon: Node) -> None:
    """UnspecFail: the client goes on asking. The lease expires, and comes back."""
    server = begin(daemon, "failing renewals")
    daemon.add("a")
    await_message(server, "RENEW")
    await_message(server, "REBIND")
    await_message(server, "SOLICIT")
    daemon.await_log("expired")
    until(lambda: daemon.on_link("a", 6) == {"fd09::77/128"})


def test_a_stranger_without_the_lease(daemon: Node) -> None:
    """NoBinding of another server ends nothing: it is not asked for an address, and the lease lives to its end."""
    server = begin(daemon, "a stranger without the lease")
    daemon.add("a")
    await_message(server, "REBIND")
    assert read_line(server) in (b"REBIND\n", b"SOLICIT\n")
    until(lambda: "expired" in daemon.log.read_text())


def test_a_server_that_forgot_the_lease_before_it_is_rebound(daemon: Node) -> None:
    """NoBinding of the lease's own server: the same address is requested again at once."""
    server = begin(daemon, "no lease, when rebound")
    daemon.add("a")
    await_message(server, "REBIND")
    assert read_line(server) == b"REQUEST\n"
    assert daemon.on_link("a", 6) == {"fd09::77/128"} and daemon.check("a") == ""
