"""bridge's fdbMaxLearned: a pod that sends from many MACs cannot fill more of the bridge's table."""

from __future__ import annotations

import pytest

from tests.node import Network, host_local
from tests.pretend import PretendHost

pytestmark = pytest.mark.row("size")

MOST, SENT = 8, 200

# Prints the limit of a bridge, which older iproute2 does not know.
DATA = """
import sys
from shared.net import links, netlink
print(links.require(netlink.Netlink(), sys.argv[1])["IFLA_LINKINFO"]["IFLA_INFO_DATA"].get("IFLA_BR_FDB_MAX_LEARNED", "-"))
"""

# Sends frames from as many MACs to an unused address.
SEND = """
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("eth0", 0))
for number in range(int(sys.argv[1])):
    source = b"\\x02\\x00\\x00\\x00" + number.to_bytes(2, "big")
    link.send(b"\\x02\\xff\\xff\\xff\\xff\\xff" + source + b"\\x88\\xb5" + bytes(46))
"""


@pytest.fixture
def net(host: PretendHost) -> Network:
    host.run("sh", "-ec", "ip link add trial type bridge")
    said = host.python(DATA, "trial").strip()
    host.run("ip", "link", "del", "trial")
    made = Network(host, isGateway=True, ipam=host_local("10.1.0.0/24"), fdbMaxLearned=MOST)
    if said != "-":
        return made
    for command in ("ADD", "STATUS"):
        answer = made.call(command, "a")
        assert answer.code in (2, 50) and "needs Linux 6.8" in answer.json["msg"], answer
    assert not host.ip("link", "show", "type", "bridge")
    pytest.skip("this kernel's bridges have no limit of learned MACs (Linux 6.8)")


def limit(host: PretendHost) -> int:
    return int(host.python(DATA, "cni0"))


def learned(host: PretendHost) -> int:
    entries = host.run("bridge", "fdb", "show", "br", "cni0").stdout.splitlines()
    return sum("permanent" not in entry and entry.startswith("02:00:00:00:") for entry in entries)


def test_a_pod_that_sends_from_many_macs(net: Network, host: PretendHost) -> None:
    net.add("a")
    assert limit(host) == MOST
    host.run("ip", "netns", "exec", "a", "python3", "-c", SEND, str(SENT))
    assert 0 < learned(host) <= MOST
    assert net.check("a") == ""
    net.add("b")
    assert net.pings("b", "10.1.0.1")


def test_a_new_bridge_gets_the_limit_without_another_message(net: Network, host: PretendHost) -> None:
    """The message that creates the bridge contains it."""
    config = {key: value for key, value in net.config.items() if value is not ...}
    prefix = ("strace", "-qq", "-o", "/run/trace", "-e", "trace=sendto")
    sent = []
    for bridge, limits in (("cni0", {}), ("cni1", {"fdbMaxLearned": 0})):
        keys = {**config, **limits, "bridge": bridge, "name": bridge, "isGateway": False, "ipam": {}}
        netns = host.netns(bridge)
        answer = host.cni("bridge", "ADD", keys, netns=netns, container_id=bridge, prefix=prefix)
        assert answer.status == 0, answer
        sent.append(host.run("grep", "-c", "RTM_NEWLINK", "/run/trace").stdout)
    assert limit(host) == MOST and sent[0] == sent[1]


def test_without_the_key_nothing_is_set(net: Network, host: PretendHost) -> None:
    """A new bridge gets no limit, and a bridge with another limit keeps it."""
    net.add("a", fdbMaxLearned=...)
    assert limit(host) == 0
    host.run("ip", "netns", "exec", "a", "python3", "-c", SEND, str(SENT))
    assert learned(host) == SENT
    net.add("b")
    net.add("c", fdbMaxLearned=...)
    assert limit(host) == MOST
    net.add("d", fdbMaxLearned=0)
    assert limit(host) == 0


def test_a_bridge_that_was_there(net: Network, host: PretendHost) -> None:
    """The bridge gets the limit with the other settings, and loses it again if the ADD fails."""
    host.run("sh", "-ec", "ip link add cni0 up type bridge")
    answer = net.unheard("a")
    assert answer.status == 1 and limit(host) == 0
    net.add("b")
    assert limit(host) == MOST
    answer = net.call("CHECK", "b", prevResult=net.results["b"], fdbMaxLearned=99)
    assert "bridge cni0 may learn 8 MACs, but fdbMaxLearned is 99" in answer.json["details"], answer
    net.unheard("c", fdbMaxLearned=99)
    assert limit(host) == 99  # another pod's port is there: the bridge is left as it is, as with the other settings
    assert net.call("STATUS", "a").status == 0


@pytest.mark.parametrize("value", [-1, 1 << 32, "8", True, 1.5])
def test_values(host: PretendHost, value: object) -> None:
    Network(host, ipam=...).refused("a", 7, "fdbMaxLearned", fdbMaxLearned=value)
