"""Calls need hardly more memory, however much a pod or its peers put into the kernel's tables."""

from __future__ import annotations

from typing import Any

import pytest

from tests.node import Network, host_local
from tests.pretend import PretendHost
from tests.system.hostport_nodes import Plain, ports
from tests.system.peaks import WRAPPER, peak
from tests.system.pod_network import CNITOOL, Node

pytestmark = pytest.mark.row("size")

SLACK_MIB = 1.5
SLACK_OF_TOOLS_MIB = 6  # they keep a line for each link; pyroute2's messages alone would be 20
ROUTES, METRICS, ADDRESSES, FLOWS = 50_000, 10_000, 6000, 20_000  # of some, the kernel needs quadratic time for more

# UDP connections to this host's port 8080, from as many ports of several peers: ctnetlink's messages by hand, since the
# suite never makes any (linux/netfilter/nfnetlink_conntrack.h).
TRACK = """
import socket, struct, sys
def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
def ends(source, target, source_port, target_port):
    addresses = attribute(1, source) + attribute(2, target)
    protocol = attribute(1, b"\\x11") + attribute(2, source_port.to_bytes(2, "big")) + attribute(3, target_port.to_bytes(2, "big"))
    return attribute(0x8001, addresses) + attribute(0x8002, protocol)
kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
here = socket.inet_aton("192.0.2.1")
messages = []
for number in range(int(sys.argv[1])):
    peer, port = socket.inet_aton(f"198.51.100.{1 + number // 60000}"), 1024 + number % 60000
    body = struct.pack(">BBH", 2, 0, 0) + attribute(0x8001, ends(peer, here, port, 8080))
    body += attribute(0x8002, ends(here, peer, 8080, port)) + attribute(7, (3600).to_bytes(4, "big"))
    messages.append(struct.pack("=IHHII", 16 + len(body), 256, 0x601, 0, 0) + body)
for place in range(0, len(messages), 100):
    kernel.send(b"".join(messages[place : place + 100]))
"""


def fill(host: PretendHost, kind: str, count: int) -> None:
    """Put that many routes, addresses or names into the namespace of pod a."""
    routes = (f"route add 10.{99 + n // 65536}.{n // 256 % 256}.{n % 256} dev eth0" for n in range(count))
    commands = {
        "routes": routes,
        # all to the destination that the call looks for
        "metrics": (f"route add default via 10.1.0.1 metric {n}" for n in range(1, count + 1)),
        "addresses": (f"address add 127.{1 + n // 65536}.{n // 256 % 256}.{n % 256}/32 dev lo" for n in range(count)),
        "links": (f"link add x{n} type ifb" for n in range(count)),
        "own addresses": (f"address add 10.99.{n // 256}.{n % 256}/32 dev eth0" for n in range(count)),
    }[kind]
    host.run("ip", "-n", "a", "-batch", "-", input="\n".join(commands) + "\n", timeout=300)


@pytest.mark.parametrize(("kind", "count"), [
    ("routes", ROUTES), ("metrics", METRICS), ("own addresses", ADDRESSES),
])  # fmt: skip
def test_check_of_a_pod_with_many(host: PretendHost, kind: str, count: int) -> None:
    net = Network(host, isDefaultGateway=True, ipam=host_local("10.1.0.0/24"))
    net.add("a")
    config = {**net.config, "prevResult": net.results["a"]}

    def check() -> float:
        answer = host.cni("bridge", "CHECK", config, netns=net.netns("a"), container_id="a", prefix=WRAPPER)
        return peak(host, answer)

    before = check()
    fill(host, kind, count)
    assert check() - before < SLACK_MIB


def test_check_finds_one_route_among_many(host: PretendHost) -> None:
    """A missing route is reported all the same."""
    net = Network(host, isDefaultGateway=True, ipam=host_local("10.1.0.0/24"))
    net.add("a")
    fill(host, "routes", 5000)
    host.run("ip", "-n", "a", "route", "del", "default")
    answer = net.call("CHECK", "a", prevResult=net.results["a"])
    assert answer.code == 999 and "route to 0.0.0.0/0 via 10.1.0.1 is missing" in answer.json["details"], answer
    host.run("ip", "-n", "a", "route", "add", "default", "via", "10.1.0.1", "table", "77")
    assert net.check("a") == ""


def test_add_to_a_pod_with_many_loopback_addresses(host: PretendHost) -> None:
    config = {"cniVersion": "1.1.0", "name": "net", "type": "loopback"}
    netns = host.netns("a")

    def add() -> float:
        return peak(
            host, host.cni("loopback", "ADD", config, netns=netns, container_id="a", ifname="lo", prefix=WRAPPER)
        )

    before = add()
    fill(host, "addresses", ADDRESSES)
    assert add() - before < SLACK_MIB


def test_del_of_a_port_with_many_flows(host: PretendHost) -> None:
    """DEL deletes all conntrack entries without holding them in memory."""
    plain = Plain(host)
    keys = ports((8080, 80, "udp"))

    def delete() -> float:
        plain.add(keys)
        host.python(TRACK, str(count))
        assert tracked(host) == count
        answer = plain.call("DEL", keys, prefix=WRAPPER)
        assert tracked(host) == 0
        return peak(host, answer)

    count = 1
    before = delete()
    count = FLOWS
    assert delete() - before < SLACK_MIB


def tracked(host: PretendHost) -> int:
    done = host.run("conntrack", "-L", "-p", "udp", "--orig-port-dst", "8080")
    return len(done.stdout.splitlines())


def test_a_link_with_hundreds_of_names(host: PretendHost) -> None:
    """The kernel's description of the pod's end exceeds the calls' buffer: no call waits for the rest."""
    net = Network(host, isDefaultGateway=True, ipam=host_local("10.1.0.0/24"))
    net.add("a")
    names = "\n".join(f"link property add dev eth0 altname {'n' * 119}{number:05}" for number in range(1000))
    host.run("ip", "-n", "a", "-force", "-batch", "-", input=names, check=False)
    shown: list[dict[str, Any]] = host.ip("link", "show", "dev", "eth0", netns="a")
    assert sum(4 + (len(name) + 4) // 4 * 4 for name in shown[0]["altnames"]) > 65_000  # attributes: more than the rest
    answer = net.call("CHECK", "a", prevResult=net.results["a"])
    assert answer.status == 0, answer
    net.delete("a")
    assert not host.ip("link", "show", "type", "veth")


@pytest.mark.parametrize(("command", "kind", "count"), [("doctor", "routes", 5000), ("show", "links", 1000)])
def test_tools_that_look_into_pods(host: PretendHost, command: str, kind: str, count: int) -> None:
    node = Node(host)
    node.attach("a")

    def look() -> float:
        done = host.run(*WRAPPER, *CNITOOL, command, check=False)
        assert "Traceback" not in done.stderr, done
        return int(host.run("cat", "/run/peak").stdout) / 1024

    before = look()
    fill(host, kind, count)
    assert look() - before < SLACK_OF_TOOLS_MIB
