"""Only the kernel's netlink answers count, whatever a process in the pod's namespace sends; a request has an end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.node import Network, host_local
from tests.pretend import PATH, PretendHost, read_line

pytestmark = pytest.mark.row("netlink")

# A datagram that reached a socket before it was connected; without the connection there are thousands.
SLIPPED_IN = 10

# Sends the same datagram to the port of every process, as a socket's port is its process's id by default, until its
# standard input ends. Prints how many were taken. Forged are refusals (ENODEV) of the first 200 requests.
ATTACKER = """
import os, select, socket, struct, sys
sender = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
forged = b"".join(struct.pack("=IHHIIi", 36, 2, 0, number, 0, -19) + bytes(16) for number in range(1, 200))
noise = struct.pack("=IHHII", 16, 1, 0, 0, 0) * 1000
data = forged if sys.argv[1] == "forge" else noise
taken = 0
print("ready", flush=True)
while not select.select([0], [], [], 0)[0]:
    for port in (name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()):
        try:
            sender.sendto(data, socket.MSG_DONTWAIT, (int(port), 0))
            taken += 1
        except BlockingIOError:
            taken += 1
        except ConnectionRefusedError:
            pass
print(taken)
"""

# Tells the group's members of nothing, as fast as it can.
SHOUTER = """
import select, socket, struct
sender = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
print("ready", flush=True)
while not select.select([0], [], [], 0)[0]:
    sender.sendto(struct.pack("=IHHII", 16, 1, 0, 0, 0), (0, 1 << 8))
print(0)
"""


@contextmanager
def attack(host: PretendHost, netns: str, script: str, *args: str) -> Iterator[list[int]]:
    """Run a script in the pod's namespace during the body; afterwards the list has the number that it printed."""
    argv = ("ip", "netns", "exec", netns, sys.executable, "-I", "-c", script, *args)
    process = host.popen(*argv, env={"PATH": PATH}, stdout=subprocess.PIPE, stderr=None)
    assert read_line(process) == b"ready\n"
    counted: list[int] = []
    try:
        yield counted
    finally:
        out, _ = process.communicate(timeout=60)
    counted.append(int(out))


@pytest.fixture
def net(host: PretendHost) -> Network:
    made = Network(host, isDefaultGateway=True, ipam=host_local("10.1.0.0/24"))
    made.add("a")
    return made


@pytest.mark.parametrize("how", ["forge", "flood"])
@pytest.mark.parametrize("command", ["CHECK", "DEL"])
def test_a_process_in_the_pod_sends_to_the_calls_sockets(
    net: Network, host: PretendHost, how: str, command: str
) -> None:
    """Each request begins a tenth of a second late, so that a forged answer or a full buffer is there before it."""
    if command == "DEL":  # of a veth pair as the reference plugins make it, which DEL finds from inside the pod
        (made,) = host.ip("link", "show", "type", "veth")
        host.run("ip", "link", "set", made["ifname"], "name", "veth1234", "alias", "")
    slowly = ("strace", "-qq", "-o", "/run/trace", "-e", "trace=sendto", "-e", "inject=sendto:delay_enter=100000")
    result = {"prevResult": net.results["a"]} if command == "CHECK" else {}  # which names the host's end
    with attack(host, "a", ATTACKER, how) as taken:
        answer = host.cni(
            "bridge", command, {**net.config, **result}, netns=net.netns("a"), container_id="a", prefix=slowly
        )
    assert (answer.status, answer.stdout) == (0, ""), answer
    assert taken[0] < SLIPPED_IN
    if command == "DEL":
        assert not host.ip("link", "show", "type", "veth")


def test_a_wait_heeds_the_kernels_news_alone(net: Network, host: PretendHost) -> None:
    """A process may send the pod's listeners anything: the call asks again only after a notification of the kernel."""
    prefix = ("strace", "-qq", "-o", "/run/trace", "-e", "trace=sendto")
    config = {
        **net.config,
        "name": "dad",
        "bridge": "cni1",
        "enabledad": True,
        "ipam": host_local("10.2.0.0/24", "fd00:2::/64"),
    }
    with attack(host, "a", SHOUTER):
        answer = host.cni("bridge", "ADD", config, netns=net.netns("a"), container_id="a", ifname="eth1", prefix=prefix)
    assert answer.status == 0, answer
    assert (
        host.run("cat", "/run/trace").stdout.count("sendto(") < 2000
    )  # it was five times as many, once for each datagram


def test_a_datagram_is_judged_by_its_sender(host: PretendHost) -> None:
    """A datagram may arrive before the socket is connected; here the connection is undone for that."""
    said = host.python("""
import ctypes, socket, struct
from shared.net import links, netlink
kernel = netlink.Netlink()
if kernel.socket.getsockname()[0] == 0:
    kernel.socket.bind((0, 0))
unconnect = bytes(12)  # struct sockaddr_nl with AF_UNSPEC
assert ctypes.CDLL(None).connect(kernel.socket.fileno(), unconnect, len(unconnect)) == 0
lie = struct.pack("=IHHIIi", 36, 2, 0, kernel.sequence + 1, 0, -19) + bytes(16)
liar = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
liar.sendto(lie, (kernel.socket.getsockname()[0], 0))
print(links.require(kernel, "lo")["index"])
""")
    assert said.split() == ["1"]


def test_the_first_number_is_a_random_one(host: PretendHost) -> None:
    said = host.python("from shared.net import netlink; print(*(netlink.Netlink().sequence for _ in range(20)))")
    numbers = {int(word) for word in said.split()}
    assert len(numbers) == 20 and all(0 <= number < 1 << 31 for number in numbers)


def test_a_dump_after_one_that_was_cut_short(host: PretendHost) -> None:
    """A signal ended the first in the middle: the kernel refuses a second one on the same socket until it is read."""
    said = host.python("""
from shared.net import links, netlink, wire
kernel = netlink.Netlink()
for number in range(150):
    kernel.request(wire.RTM_NEWLINK, {"IFLA_IFNAME": f"i{number}", "IFLA_LINKINFO": {"IFLA_INFO_KIND": "ifb"}}, wire.NLM_F_CREATE)
kernel._send([netlink.Request(wire.RTM_GETLINK, {}, wire.NLM_F_DUMP)], acknowledge=False)
print(len(kernel.dump(wire.RTM_GETLINK)))
try:
    kernel.scan(wire.RTM_GETLINK, None, lambda stream: 1 // 0)
except ZeroDivisionError:
    print(len(kernel.dump(wire.RTM_GETLINK)))
""")  # fmt: skip
    assert said.split() == ["151", "151"]


def test_sigterm_ends_a_call_in_the_middle_of_an_answer(net: Network, host: PretendHost) -> None:
    """The call's last request is the tenth part of a table with thousands of routes."""
    routes = "\n".join(f"route add 10.{99 + n // 65536}.{n // 256 % 256}.{n % 256} dev eth0" for n in range(20_000))
    host.run("ip", "-n", "a", "-batch", "-", input=routes + "\n")
    prefix = (
        "strace", "-qq", "-o", "/run/trace", "-e", "trace=sendto,recvfrom",
        "-e", "inject=recvfrom:signal=SIGTERM:when=10",
    )  # fmt: skip
    config = {**net.config, "prevResult": net.results["a"]}
    answer = host.cni("bridge", "CHECK", config, netns=net.netns("a"), container_id="a", prefix=prefix)
    assert answer.code == 999 and "terminated by signal 15" in answer.json["msg"], answer
    calls = host.run("cat", "/run/trace").stdout.splitlines()
    struck = next(place for place, call in enumerate(calls) if "SIGTERM" in call)
    assert not [call for call in calls[struck:] if call.startswith("sendto(")]
