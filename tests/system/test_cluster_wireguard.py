"""Encryption between the hosts of a cluster: by captured packets, and by the kernel's tables."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster.model import Route
from shared.cluster.wireguard import NAME, OVERHEAD_BYTES, PORT, pod_mtu
from tests.fabric import silent_pods
from tests.kernel.features import has
from tests.pretend import PretendHost, read_line
from tests.system.cluster_hosts import APPLY, READ_ROUTES, Member, cluster

PTP: dict[str, Any] = {
    "type": "ptp", "ipMasq": True, "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]},
}  # fmt: skip
LINK_MTU = 1500
PREPARE = """
from pathlib import Path
from shared.cluster import wireguard
directory = Path("/run/agent")
directory.mkdir(exist_ok=True)
print(wireguard.prepare(directory))
"""
REFUSED = """
from pathlib import Path
from shared.cluster import wireguard
try:
    wireguard.prepare(Path("/run"))
except wireguard.WireguardError as error:
    print(error)
"""
PUBLIC_KEY = "from shared.cluster import wireguard; print(wireguard.read_public_key())"
# pyroute2 reads the kernel by its own code
DEVICE = """
import json, sys
from pyroute2 import WireGuard
found = {}
with WireGuard() as socket:
    for message in socket.info(sys.argv[1]):
        for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
            end = peer.get_attr("WGPEER_A_ENDPOINT")
            allowed = sorted(one["addr"] for one in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ())
            found[peer.get_attr("WGPEER_A_PUBLIC_KEY").decode()] = [end and [end["addr"], end["port"]], allowed]
        print(json.dumps([message.get_attr("WGDEVICE_A_PUBLIC_KEY").decode(), message.get_attr("WGDEVICE_A_LISTEN_PORT"), found]))
"""
SET = """
import json, sys
from pyroute2 import WireGuard
name, keys = sys.argv[1], json.loads(sys.argv[2])
with WireGuard() as socket:
    socket.set(name, **keys)
"""
# Counts frames on a link, by their UDP port if it is WireGuard's, and those that have the text of the pings.
CAPTURE = """
import json, select, socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind(("up0", 0))
print("ready", flush=True)
port, seen = int(sys.argv[1]).to_bytes(2, "big"), {"coded": 0, "clear": 0}
while link in select.select([link, sys.stdin], [], [])[0]:
    frame = link.recv(65536)
    seen["coded"] += port * 2 in frame[:60]
    seen["clear"] += b"secret" in frame
print(json.dumps(seen))
"""
# An agent that is killed between the routes' change and the end of the peers' change
KILLED = APPLY.replace("outcome =", "from shared.cluster import wireguard\nwireguard.Change.finish = lambda _: sys.exit(0)\noutcome =")  # fmt: skip
TEXT = b"secret"  # all over the echo requests


@pytest.fixture
def members(installed: Path) -> Iterator[dict[str, Member]]:
    with cluster(installed) as found:
        yield found


def prepare(member: Member) -> str:
    return member.host.python(PREPARE).strip()


def encrypted(member: Member, key: str, version: int = 4) -> list[Route]:
    via = next(one for one in member.addresses if one.version == version)
    return [Route(cidr, member.name, via, is_tunnelled=True, key=key) for cidr in member.cidrs]


def refused(*cidrs: str) -> list[Route]:
    nets = map(ip_network, cidrs)
    return [Route(one, "", one.network_address, is_tunnelled=False, is_refused=True) for one in nets]


def device(host: PretendHost, name: str = NAME) -> tuple[str, int, Any]:
    """Return a device's public key and port, and its peers: address, port and CIDRs by public key."""
    key, port, peers = json.loads(host.python(DEVICE, name))
    return key, port, peers


def expected(*routes: Route) -> dict[str, Any]:
    """Return the peers of these routes as `device` has them."""
    found: dict[str, Any] = {}
    for one in routes:
        found.setdefault(one.key, [[str(one.via), PORT], []])[1].append(str(one.cidr))
    return {key: [end, sorted(cidrs)] for key, (end, cidrs) in found.items()}


def any_key(number: int) -> str:
    return b64encode(bytes([number]) * 32).decode()


@contextmanager
def captured(host: PretendHost) -> Iterator[dict[str, int]]:
    """Yield the counts of frames on the host's link, filled in afterwards."""
    seen: dict[str, int] = {}
    process = host.popen("python3", "-c", CAPTURE, str(PORT))
    assert process.stdin is not None and read_line(process) == b"ready\n"
    yield seen
    process.stdin.close()
    seen.update(json.loads(read_line(process)))


@pytest.mark.kernel_wireguard
def test_pods_reach_each_other_and_no_packet_is_clear(members: dict[str, Member], tmp_path: Path) -> None:
    """By both families, with the greatest packets; so do the hosts. Without the peer's key nothing leaves at all."""
    a, c = members["a"], members["c"]
    mtu = pod_mtu(LINK_MTU)
    for member in (a, c):
        assert member.publish(PTP, tmp_path, mtu=mtu)
        member.add(f"{member.name}1")
    pool = refused("10.244.0.0/16", "fd00:244::/48")
    # the underlay's router has no routes to pods: that packets are seen shows the capture alone
    with captured(a.host) as clear:
        assert a.silent("a1", c.pods["c1"], text=TEXT, seconds=1) == c.pods["c1"]
    assert clear["clear"] and not clear["coded"]
    keys = {member.name: prepare(member) for member in (a, c)}
    assert a.apply(encrypted(c, keys["c"]) + pool) == c.apply(encrypted(a, keys["a"]) + pool) == ([], [])
    with captured(a.host) as coded:
        assert silent_pods([a, c], text=TEXT) == []
        assert silent_pods([a, c], text=TEXT, packet_bytes=mtu) == []
        assert a.silent("", c.pods["c1"], text=TEXT) == []
    assert coded["coded"] and not coded["clear"]
    assert a.host.ip("link", "show", NAME)[0]["mtu"] == mtu == LINK_MTU - OVERHEAD_BYTES
    # the other family of the nodes' addresses, in one direction: the other side learns it
    assert a.apply(encrypted(c, keys["c"], 6) + pool) == ([], [])
    assert silent_pods([a, c]) == []
    # c's new key is not known here yet, then c leaves
    c.host.run("rm", "/run/agent/wireguard.key")
    assert prepare(c) not in keys.values()
    with captured(a.host) as nothing:
        assert a.silent("a1", c.pods["c1"], text=TEXT, seconds=1) == c.pods["c1"]
        assert a.apply(pool) == ([], [])
        assert a.silent("a1", c.pods["c1"], text=TEXT, seconds=1) == c.pods["c1"]
    assert not nothing["clear"]
    key = prepare(c)
    assert a.apply(encrypted(c, key) + pool) == ([], [])
    assert silent_pods([a, c]) == []


@pytest.mark.faults  # a minute each on the stock kernel
@pytest.mark.kernel_wireguard
def test_the_device_has_the_peers_of_the_routes_alone(members: dict[str, Member]) -> None:
    """A peer comes, moves, gets another key and leaves; a stranger on the device goes, another device stays."""
    a, b, c = members.values()
    own = prepare(a)
    assert own == prepare(a) == a.host.python(PUBLIC_KEY).strip()
    a.host.run("ip", "link", "add", "wg0", "type", "wireguard")
    other = {"public_key": any_key(9), "allowed_ips": ["10.244.1.0/24"]}
    a.host.python(SET, "wg0", json.dumps({"private_key": any_key(7), "peer": other}))
    for wanted in (
        encrypted(b, any_key(2)) + encrypted(c, any_key(3), 6),
        encrypted(b, any_key(2), 6) + encrypted(c, any_key(4)),
        b.routes() + encrypted(c, any_key(2)),
    ):
        assert a.apply(wanted) == ([], [])
        assert device(a.host) == (own, PORT, expected(*(one for one in wanted if one.key)))
    stranger = {"public_key": any_key(8), "allowed_ips": ["10.99.0.0/24"]}
    a.host.python(SET, NAME, json.dumps({"peer": stranger}))
    # killed before the leaving peers go, and again
    a.host.python(KILLED, a.words(encrypted(b, any_key(2))))
    assert any_key(8) in device(a.host)[2]
    assert a.apply(encrypted(b, any_key(2))) == ([], [])
    assert device(a.host)[2] == expected(*encrypted(b, any_key(2)))
    assert a.apply([]) == ([], [])
    assert device(a.host) == (own, PORT, {})
    assert device(a.host, "wg0")[2] == {any_key(9): [None, ["10.244.1.0/24"]]}


@pytest.mark.faults  # a minute each on the stock kernel
@pytest.mark.kernel_wireguard
def test_the_device_is_corrected(members: dict[str, Member]) -> None:
    """Somebody takes it down, sets another key, deletes it; the peer's address is learned; the port is taken."""
    a, b, _ = members.values()
    own = prepare(a)
    wanted = encrypted(b, any_key(2))
    assert a.apply(wanted) == ([], [])
    a.host.run("sh", "-euc", f"ip link set up0 mtu 1400; ip link set {NAME} down")
    a.cidrs = [ip_network("10.244.77.0/24")]
    assert a.apply(wanted) == ([], [])
    (link,) = a.host.ip("address", "show", "dev", NAME)
    assert (link["mtu"], "UP" in link["flags"]) == (1320, True)
    assert [one["local"] for one in link["addr_info"]] == ["10.244.77.0"]
    # a learned address is as good as the noted one; a missing peer is not
    a.host.python(SET, NAME, json.dumps({"peer": {"public_key": any_key(2), "endpoint_addr": "192.0.0.99", "endpoint_port": 5}}))  # fmt: skip
    assert read_back(a, wanted) == set(wanted)
    a.host.python(SET, NAME, json.dumps({"peer": {"public_key": any_key(2), "remove": True}}))
    assert {one.key for one in read_back(a, wanted)} == {""}
    a.host.python(SET, NAME, json.dumps({"private_key": any_key(7), "listen_port": 7}))
    assert prepare(a) == own
    assert a.apply(wanted) == ([], [])
    assert device(a.host) == (own, PORT, expected(*wanted))
    a.host.run("ip", "link", "del", NAME)
    missing, problems = a.apply([*wanted, *refused("10.244.0.0/16")])
    assert missing == [str(one) for one in b.cidrs]
    assert problems == [f"there is no link {NAME}: it was deleted, and the agent is about to make it anew"]
    taken = a.host.popen("python3", "-c", f"import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', {PORT})); print('ready', flush=True); input()")  # fmt: skip
    assert read_line(taken) == b"ready\n"
    assert prepare(a) == own
    missing, problems = a.apply(wanted)
    assert len(missing) == 2 and f"UDP port {PORT} is in use" in problems[0]
    assert taken.stdin is not None
    taken.stdin.close()
    taken.wait(30)
    assert a.apply(wanted) == ([], [])


def read_back(member: Member, wanted: list[Route]) -> set[Route]:
    script = f"{READ_ROUTES}\nprint(json.dumps([[str(o.cidr), o.node, str(o.via), o.is_tunnelled, o.mac, o.key] for o in routes.read(wanted)]))"
    rows = json.loads(member.host.python(script, member.words(wanted)))
    return {Route(ip_network(cidr), node, ip_address(via), *more) for cidr, node, via, *more in rows}


@pytest.mark.kernel_wireguard
def test_another_link_of_the_name_is_left_alone(members: dict[str, Member]) -> None:
    a, b, _ = members.values()
    a.host.run("ip", "link", "add", NAME, "type", "bridge")
    words = f"link {NAME} is not a WireGuard device, but bridge: rename or delete it"
    assert a.host.python(REFUSED).strip() == words
    assert a.apply([*b.routes(), *encrypted(members["c"], any_key(3))])[1] == [words]


def test_a_kernel_without_wireguard(members: dict[str, Member]) -> None:
    """Said in words; unencrypted routes to other CIDRs, and refusals, are made nevertheless."""
    if has("kernel_wireguard"):
        pytest.skip("this kernel has links of kind wireguard")
    a, b, c = members.values()
    script = f"from shared.cluster.wireguard import *\ntry:{PREPARE}".replace("\n", "\n    ").replace(
        "\n    try", "\ntry"
    )
    out = a.host.python(f"{script}\nexcept WireguardError as error:\n    print(error)")
    assert "this kernel has no links of kind wireguard" in out
    assert a.host.python(PUBLIC_KEY).strip() == ""
    missing, problems = a.apply([*b.routes(), *encrypted(c, any_key(3)), *refused("10.244.0.0/16")])
    assert missing == [str(one) for one in c.cidrs]
    assert problems == [f"there is no link {NAME}: it was deleted, and the agent is about to make it anew"]
