"""Whole clusters: hosts on a fabric with real agents and a real etcd, by packets of their pods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from shared.cluster.model import Pool
from shared.cluster.tunnel import PORT, pod_mtu
from tests.cluster_site import BRIDGE, POOL, Site, attach_each, site, wait
from tests.fabric import OUTSIDE, silent_pods
from tests.network_probes import Packet, client_seen, silent
from tests.pretend import until

pytestmark = pytest.mark.kernel_vxlan
MTU = pod_mtu(1500, (4, 6))
ETHERNET_BYTES = 14
PTP = {"type": "ptp", "ipMasq": True, "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}


@pytest.fixture
def three(installed_with_agent: Path, tmp_path: Path) -> Iterator[Site]:
    """Have nodes a and b on a link, and c behind the router, with a pod each; a has ptp, the others bridges."""
    with site(installed_with_agent, tmp_path) as found:
        for node in (*found.add("ab", 0), *found.add("c", 1)):
            node.install(PTP if node.name == "a" else BRIDGE)
        found.start()
        attach_each(found.nodes.values(), "1")
        found.await_routes()
        yield found


def is_of_pods(packet: Packet) -> bool:
    """Return True if a packet has a pod's address."""
    return any(ip_address(one) in range_.cidr for one in packet[:2] for range_ in POOL.ranges)


def test_eight_nodes(installed_with_agent: Path, tmp_path: Path) -> None:
    """Have two pods on each, half of the nodes behind the router, and etcd with three members."""
    with site(installed_with_agent, tmp_path, members=3) as eight:
        eight.add("abcd", 0)
        eight.add("efgh", 1)
        eight.start()
        attach_each(eight.nodes.values(), "1", "2")
        eight.await_routes()
        every_pod_reaches_every_pod(eight)
        only_packets_to_the_outside_are_masqueraded(eight)
        the_leader_is_killed(eight)


def every_pod_reaches_every_pod(eight: Site) -> None:
    """By both families, with the greatest packets: directly on a link, and by tunnels through the router."""
    e = eight.nodes["e"]
    with eight.fabric.capture("net1") as routed, eight.fabric.capture("port1-5") as port:
        assert silent_pods(eight.nodes.values(), packet_bytes=MTU) == []
        through, there = routed.packets(), port.packets()
    assert silent_pods(eight.nodes.values()) == []
    tunnels = [one for one in through if one.port == PORT]
    assert tunnels and not [one for one in through if is_of_pods(one) or one.is_fragment]
    assert max(one.length for one in tunnels) <= 1500 + ETHERNET_BYTES
    assert max(one.length for one in there if is_of_pods(one)) == MTU + ETHERNET_BYTES
    far = {one for node in eight.nodes.values() if node.link == 0 for one in node.ranges()}
    assert {cidr for cidr, is_tunnelled in e.routes().items() if is_tunnelled} == far
    assert len(e.routes()) == 2 * 7


def only_packets_to_the_outside_are_masqueraded(eight: Site) -> None:
    a, b, h = (eight.nodes[name] for name in "abh")
    for at, version in enumerate((4, 6)):
        for other in (b, h):
            pod = f"{other.name}1"
            assert client_seen(other.netns(pod), other.pods[pod][at], a.netns("a1")) == a.pods["a1"][at]
        assert client_seen(eight.fabric.outside, OUTSIDE[version], a.netns("a1")) == str(a.addresses[at])
    with eight.fabric.capture("out0") as capture:
        asked = {node.netns(pod): OUTSIDE.values() for node in eight.nodes.values() for pod in node.pods}
        assert silent(asked, packet_bytes=MTU) == []
        packets = capture.packets()
    assert {str(one) for node in eight.nodes.values() for one in node.addresses} <= {one.source for one in packets}
    assert not [one for one in packets if is_of_pods(one)]


def the_leader_is_killed(eight: Site) -> None:
    """Pods start meanwhile. Then a node gets another block, and a ninth one joins, by the two members that are left."""
    a = eight.nodes["a"]
    with eight.fabric.home:
        leader = eight.engine.leader()
    leader.kill()
    attach_each([a, eight.nodes["h"]], "3", "4")  # one address of a's first block is left, too few
    wait(a, lambda: len([one for one in a.ranges() if "." in one]) == 2)
    attach_each([a], "5", "6")
    assert ip_address(a.pods["a6"][0]) in ip_network(a.ranges()[0])
    (ninth,) = eight.add("i", 1)
    eight.start([ninth])
    attach_each([ninth], "1")
    eight.await_routes()
    assert silent_pods(eight.nodes.values()) == []
    with eight.fabric.home:
        leader.start(eight.engine.names)
        until(eight.engine.is_ready)
        assert eight.engine.leader() is not leader


@pytest.mark.row(30)
def test_a_boot_without_etcd(three: Site) -> None:
    """The node has the same blocks and routes, and its pods reach the others; etcd comes back later."""
    c = three.nodes["c"]
    before, routes = c.ranges(), c.routes()
    three.engine.members[0].kill()
    c.boot()
    assert c.routes() == {}
    c.start()
    attach_each([c], "2")
    wait(c, lambda: (c.routes(), c.alarms()) == (routes, {"not-synchronised"}))
    assert c.ranges() == before
    assert silent_pods(three.nodes.values()) == []
    with three.fabric.home:
        three.engine.start()
    for node in three.nodes.values():
        wait(node, lambda node=node: node.is_synchronised() and not node.alarms())  # type: ignore[misc]
    assert (c.ranges(), c.routes()) == (before, routes)
    attach_each(three.nodes.values(), "3")
    assert silent_pods(three.nodes.values()) == []


def test_a_node_is_replaced(three: Site) -> None:
    """The new machine of its name has blocks of its own. The former one's are freed by an administrator alone."""
    a, _, c = three.nodes.values()
    former, blocks = c.uid, set(c.ranges())
    c.replace()
    three.start([c])
    attach_each([c], "2")
    three.await_routes()
    assert silent_pods(three.nodes.values()) == []
    assert three.blocks(c.uid) == set(c.ranges()) and not blocks & set(c.ranges())
    assert three.blocks(former) == blocks
    for node in three.nodes.values():
        wait(node, lambda node=node: not blocks & node.routes().keys())  # type: ignore[misc]
    wait(c, lambda: c.alarms() == {"former-blocks"})
    three.end_life(c)
    status, said = a.cnitool("release", "c", "--uid", former)
    assert (status, three.blocks(former)) == (0, set()), said
    wait(c, lambda: not c.alarms())
    assert three.blocks(c.uid) == set(c.ranges())
    assert silent_pods(three.nodes.values()) == []


def test_a_node_leaves(three: Site) -> None:
    """Its blocks and routes stay until an administrator says that it is gone for good; its name may be used again."""
    a, b, c = three.nodes.values()
    blocks, uid = set(b.ranges()), b.uid
    b.power_off()
    status, said = a.cnitool("release", "b", "--uid", uid)
    assert status == 1 and "is not gone" in said
    assert three.blocks(uid) == blocks and blocks <= c.routes().keys()
    three.end_life(b)
    status, said = a.cnitool("release", "b", "--uid", uid)
    assert (status, three.blocks(uid)) == (0, set()), said
    for node in (a, c):
        wait(node, lambda node=node: not blocks & node.routes().keys() and not node.alarms())  # type: ignore[misc]
    assert silent_pods([a, c]) == []
    b.boot()  # with the disk of before
    three.start([b])
    attach_each([b], "2")
    three.await_routes()
    assert silent_pods(three.nodes.values()) == []
    wait(b, lambda: three.blocks(uid) == set(b.ranges()))
    for node in three.nodes.values():
        wait(node, lambda node=node: not node.alarms())  # type: ignore[misc]
    assert b.uid == uid


@pytest.mark.row(30)
def test_a_backup_of_etcd_is_restored(three: Site) -> None:
    """A node that joined after the backup claims its blocks again by name. No pod notices."""
    (member,) = three.engine.members
    member.kill()
    member.back_up()
    with three.fabric.home:
        three.engine.start()
    (d,) = three.add("d", 1)
    three.start([d])
    attach_each([d], "1")
    three.await_routes()
    blocks = {node.name: set(node.ranges()) for node in three.nodes.values()}
    member.kill()
    member.restore()
    with three.fabric.home:
        three.engine.start()
    wait(d, lambda: three.blocks(d.uid) == blocks["d"])
    for node in three.nodes.values():
        wait(node, lambda node=node: node.is_synchronised() and not node.alarms())  # type: ignore[misc]
        assert set(node.ranges()) == blocks[node.name] == three.blocks(node.uid)
    three.await_routes()
    attach_each(three.nodes.values(), "2")
    assert silent_pods(three.nodes.values()) == []


def few_blocks(number: int) -> Pool:
    """Return the pool with so many blocks of each family."""
    bits = number.bit_length() - 1
    ranges = (replace(one, cidr=ip_network((one.cidr[0], one.block_length - bits))) for one in POOL.ranges)
    return replace(POOL, ranges=tuple(ranges))


def test_a_block_goes_to_another_node_by_a_restored_backup(installed_with_agent: Path, tmp_path: Path) -> None:
    """The first owner's agent was off. It gives the block up, says so, reaches its new pods, and claims another one."""
    with site(installed_with_agent, tmp_path, pool=few_blocks(2)) as found:
        (a,), (member,) = found.add("a", 0), found.engine.members
        found.start()
        member.kill()
        member.back_up()
        with found.fabric.home:
            found.engine.start()
        (b,) = found.add("b", 0)
        found.start([b])
        blocks = b.ranges()
        attach_each([b], "1")
        b.delete("b1")
        b.agent.kill()
        member.kill()
        member.restore()
        with found.fabric.home:
            found.engine.start()
        (c,) = found.add("c", 1)
        found.start([c])
        assert set(c.ranges()) == set(blocks)
        b.start()
        wait(b, lambda: not b.ranges() and "block-lost" in b.alarms())
        attach_each([a, c], "1")
        found.write_pool(few_blocks(4))
        wait(b, b.is_ready)
        attach_each([b], "2")
        found.await_routes()
        assert silent_pods(found.nodes.values()) == []
        wait(b, lambda: b.alarms() == {"block-lost"})  # until no ADD of before can have an address of it


@pytest.mark.faults
@pytest.mark.row(30)
def test_a_node_is_cut_off_from_etcd(three: Site) -> None:
    """It says so, its pods start until its blocks are full, and a node that joins meanwhile is reached later."""
    a, _, c = three.nodes.values()
    cut = ("route", "add", "blackhole", "192.0.2.0/24")
    c.host.run("ip", *cut)
    (d,) = three.add("d", 0)
    three.start([d])
    attach_each([a, c, d], "2")
    wait(c, lambda: c.alarms() == {"not-synchronised"})
    attach_each([c], "3", "4", "5")
    with pytest.raises(RuntimeError, match="all 5 addresses are leased"):
        c.add("c6")
    assert not set(d.ranges()) & c.routes().keys()
    assert silent_pods([node for node in three.nodes.values() if node is not d]) == []
    c.host.run("ip", *(word.replace("add", "del") for word in cut))
    wait(c, lambda: c.is_synchronised() and not c.alarms())
    wait(c, lambda: len(c.ranges()) > 2)
    attach_each([c], "7")
    three.await_routes()
    assert silent_pods(three.nodes.values()) == []


@pytest.mark.parametrize("version", [4, 6])
def test_tunnels_to_all(installed_with_agent: Path, tmp_path: Path, version: int) -> None:
    """Nodes with addresses of one family, on one link, carry both families by tunnels if the settings say so."""
    with site(installed_with_agent, tmp_path) as found:
        for node in found.add("ab", 0):
            (own,) = (str(one) for one in node.addresses if one.version == version)
            node.install(tunnels="always", addresses=[own])
        found.start()
        attach_each(found.nodes.values(), "1")
        found.await_routes()
        mtu = pod_mtu(1500, [version])
        assert silent_pods(found.nodes.values(), packet_bytes=mtu) == []
        for node in found.nodes.values():
            assert node.host.ip("link", "show", "eth0", netns=f"{node.name}1")[0]["mtu"] == mtu
            assert all(node.routes().values())
