"""Tunnels between the hosts of a cluster that share no link: by packets of pods, and by the kernel's tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster.model import Route
from shared.cluster.tunnel import NAMES, OVERHEAD_BYTES, VNI, mac_of, pod_mtu
from tests.fabric import silent_pods
from tests.system.cluster_hosts import APPLY, Member, cluster

BRIDGE: dict[str, Any] = {
    "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True, "ipam": {"type": "host-local"},
}  # fmt: skip
pytestmark = pytest.mark.kernel_vxlan
LINK_MTU = 1500


@pytest.fixture
def members(installed: Path) -> Iterator[dict[str, Member]]:
    with cluster(installed) as found:
        yield found


def device(member: Member, version: int = 4) -> Any:
    (found,) = member.host.ip("address", "show", "dev", NAMES[version])
    return found


def forwarding(member: Member, version: int = 4) -> set[str]:
    """Return the device's forwarding entries: MACs and addresses."""
    lines = member.host.run("bridge", "fdb", "show", "dev", NAMES[version]).stdout.splitlines()
    return {" ".join(line.split()[:3]) for line in lines}


def neighbours(member: Member, version: int = 4) -> set[str]:
    """Return the device's permanent neighbour entries: addresses and MACs."""
    words = "for one in -4 -6; do ip $one neigh show nud permanent dev " + NAMES[version] + "; done"
    return {" ".join(line.split()[:3:2]) for line in member.host.run("sh", "-c", words).stdout.splitlines()}


def entries_for(member: Member, version: int = 4) -> tuple[set[str], set[str]]:
    """Return the neighbour and forwarding entries that lead to a member."""
    mac, via = mac_of(member.uid), next(one for one in member.addresses if one.version == version)
    return {f"{one.network_address} {mac}" for one in member.cidrs}, {f"{mac} dst {via}"}


def others(members: dict[str, Member], name: str, *, tunnel: int) -> list[Route]:
    return [route for other in members.values() if other.name != name for route in other.routes(tunnel=tunnel)]


@pytest.mark.parametrize("version", [4, 6])
def test_every_pod_reaches_every_pod(members: dict[str, Member], tmp_path: Path, version: int) -> None:
    """By both families, whichever the hosts' own addresses have; with the greatest packets; and so do the hosts."""
    mtu = LINK_MTU - OVERHEAD_BYTES[version]
    assert pod_mtu(LINK_MTU, [version]) == mtu
    for name, member in members.items():
        assert member.publish(BRIDGE, tmp_path, mtu=mtu)
        assert member.apply(others(members, name, tunnel=version)) == ([], [])
        member.add(f"{name}1")
        assert device(member, version)["mtu"] == mtu
    assert silent_pods(members.values()) == []
    a, c = members["a"], members["c"]
    assert a.host.ip("link", "show", "eth0", netns="a1")[0]["mtu"] == mtu
    assert a.silent("a1", c.pods["c1"], packet_bytes=mtu) == []
    # the host's own packets come back through the tunnel: strict rp_filter lets them pass
    assert a.silent("", c.pods["c1"]) == []


def test_near_peers_need_no_tunnel(members: dict[str, Member], tmp_path: Path) -> None:
    """Hosts a and b route to each other directly, and tunnel to c, which each of them has by another family."""
    a, b, c = members.values()
    for member in members.values():
        member.publish(BRIDGE, tmp_path, mtu=pod_mtu(LINK_MTU, [4, 6]))
        member.add(f"{member.name}1")
    assert a.apply(b.routes() + c.routes(tunnel=4)) == ([], [])
    assert b.apply(a.routes() + c.routes(tunnel=6)) == ([], [])
    assert c.apply(a.routes(tunnel=4) + b.routes(tunnel=6)) == ([], [])
    assert silent_pods(members.values()) == []
    assert (neighbours(a), forwarding(a)) == entries_for(c)
    assert (neighbours(b, 6), forwarding(b, 6)) == entries_for(c, 6)


def test_entries_of_a_peer_that_leaves(members: dict[str, Member]) -> None:
    """They go with it. Those of others stay, also those of strangers on the device."""
    a, b, c = members.values()
    a.apply(b.routes(tunnel=4) + c.routes(tunnel=4))
    stranger = "02:00:00:00:00:99"
    a.host.run("bridge", "fdb", "append", stranger, "dev", NAMES[4], "dst", "192.0.1.99", "self", "permanent")
    a.host.run("ip", "neigh", "add", "10.9.9.9", "lladdr", stranger, "nud", "permanent", "dev", NAMES[4])
    a.apply(c.routes(tunnel=4))
    far, behind = entries_for(c)
    assert neighbours(a) == {*far, f"10.9.9.9 {stranger}"}
    assert forwarding(a) == {*behind, f"{stranger} dst 192.0.1.99"}
    a.apply([])
    assert (neighbours(a), forwarding(a)) == ({f"10.9.9.9 {stranger}"}, {f"{stranger} dst 192.0.1.99"})


def test_a_peer_moves(members: dict[str, Member]) -> None:
    """A node that is installed anew has another MAC; one CIDR goes to another peer; an address changes its family."""
    a, b, c = members.values()
    a.apply(b.routes(tunnel=4) + c.routes(tunnel=4))
    c.uid = "uid-of-another-c"
    c.cidrs.append(b.cidrs.pop())
    a.apply(b.routes(tunnel=4) + c.routes(tunnel=4))
    near, far = entries_for(b), entries_for(c)
    assert (neighbours(a), forwarding(a)) == (near[0] | far[0], near[1] | far[1])
    a.apply(b.routes(tunnel=4) + c.routes(tunnel=6))
    assert (neighbours(a), forwarding(a)) == near
    assert (neighbours(a, 6), forwarding(a, 6)) == entries_for(c, 6)


def test_nothing_is_flooded_or_learned(members: dict[str, Member]) -> None:
    a, b, _ = members.values()
    a.apply(b.routes(tunnel=4))
    (link,) = a.host.ip("link", "show", NAMES[4])
    data = link["linkinfo"]["info_data"]
    assert (data["id"], data["learning"], data["port"], data["local"]) == (VNI, False, 4789, "192.0.0.1")
    assert "00:00:00:00:00:00" not in str(forwarding(a))
    assert link["address"] == mac_of(a.uid) != mac_of(b.uid)
    assert int(mac_of(a.uid)[:2], 16) & 3 == 2  # locally administered, of one host
    assert {(one["local"], one["prefixlen"]) for one in device(a)["addr_info"]} == {
        ("10.244.0.0", 32), ("fd00:244::", 128),
    }  # fmt: skip


def test_the_device_is_corrected(members: dict[str, Member]) -> None:
    """The link's MTU changes, the node's CIDRs change, somebody takes the device down, the number changes."""
    a, b, _ = members.values()
    wanted = b.routes(tunnel=4)
    a.apply(wanted)
    a.host.run("sh", "-euc", f"ip link set up0 mtu 1400; ip link set {NAMES[4]} down; ip link set {NAMES[4]} address 02:00:00:00:00:01")  # fmt: skip
    a.cidrs = [ip_network("10.244.77.0/24")]
    assert a.apply(wanted) == ([], [])
    found = device(a)
    assert (found["mtu"], found["address"], "UP" in found["flags"]) == (1350, mac_of(a.uid), True)
    assert [one["local"] for one in found["addr_info"] if one["scope"] == "global"] == ["10.244.77.0"]
    assert a.apply(wanted, vni=5) == ([], [])
    assert a.host.ip("link", "show", NAMES[4])[0]["linkinfo"]["info_data"]["id"] == 5
    assert (neighbours(a), forwarding(a)) == entries_for(b)


def test_a_tunnel_that_cannot_be_keeps_no_route_waiting(members: dict[str, Member]) -> None:
    a, b, c = members.values()
    a.host.run("ip", "link", "add", NAMES[4], "type", "bridge")
    direct, far = b.routes(), c.routes(tunnel=4)
    missing, problems = a.apply(direct + far)
    assert missing == [str(one) for one in c.cidrs]
    assert problems == [f"link {NAMES[4]} is not a VXLAN device, but bridge: rename or delete it"]
    a.host.run("ip", "link", "del", NAMES[4])
    a.host.run("ip", "address", "del", "192.0.0.1/24", "dev", "up0")
    missing, problems = a.apply([*direct[1:], *far])
    assert problems == ["no link has 192.0.0.1, the node's own address: correct the agent's settings"]
    assert a.host.ip("-6", "route", "show", str(b.cidrs[1]))[0]["gateway"] == "fd80::2"
    missing, problems = a.apply(c.routes(tunnel=6), addresses=["192.0.0.1"])
    assert problems == ["there is no tunnel to peers with IPv6 addresses: this node has none of its own"]


def test_routes_stay_while_their_tunnel_cannot_be_made(members: dict[str, Member]) -> None:
    a, c = members["a"], members["c"]
    assert a.apply(c.routes(tunnel=4)) == ([], [])
    before = a.host.ip("route", "show", "proto", "112")
    words = a.words(c.routes(tunnel=4), addresses=["fd80::1"])
    missing, problems, _ = json.loads(a.host.python(APPLY, words))
    assert missing == [str(one) for one in c.cidrs] and len(problems) == 1
    assert a.host.ip("route", "show", "proto", "112") == before != []
