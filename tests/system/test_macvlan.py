"""macvlan: packets between pods, the LAN and the host, each mode, masters that go, and the state after failures, DEL and GC."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.node import V4, V6, host_local, sysctl
from tests.pretend import read_line, until
from tests.system import pod_network
from tests.system.macvlan_node import Node
from tests.system.router import SEND

ROUTES = [{"dst": "0.0.0.0/0", "gw": "10.1.0.254"}, {"dst": "::/0", "gw": "fd00:1::fe"}]
LAN = ("10.1.0.254", "fd00:1::fe")
HOST = ("10.1.0.1", "fd00:1::1")

REPEAT = "".join(f"    {line}\n" for line in [*SEND.strip().splitlines(), "time.sleep(0.5)"])


def test_the_pod_gets_its_own_link(node: Node) -> None:
    """MAC, MTU, mode, alias, addresses, routes and sysctls; the result lists the pod's interface alone."""
    result = node.add("a", mtu=1400, ipam=host_local(routes=ROUTES))
    link = node.link("a")
    mac = link["address"]
    assert result["interfaces"] == [{"name": "eth0", "mac": mac, "sandbox": "/run/netns/a", "mtu": 1400}]
    assert [ip["address"] for ip in result["ips"]] == ["10.1.0.2/24", "fd00:1::2/64"]
    assert {ip["interface"] for ip in result["ips"]} == {0}
    assert (node.mode("a"), link["mtu"], link["ifalias"]) == ("bridge", 1400, "pycni:net/a/eth0")
    (shown,) = node.host.ip("address", "show", "eth0", netns="a")
    assert not any(one.get("tentative") for one in shown["addr_info"])
    assert {"10.1.0.2", "fd00:1::2"} <= {one["local"] for one in shown["addr_info"]}
    found = node.host.ip("-4", "route", netns="a") + node.host.ip("-6", "route", netns="a")
    assert {one.get("gateway") for one in found if one["dst"] == "default"} == set(LAN)
    for name in ("accept_ra", "autoconf"):
        assert sysctl(node.host, f"ipv6/conf/eth0/{name}", "a") == "0"
    assert sysctl(node.host, "ipv6/conf/eth0/keep_addr_on_down", "a") == "1"
    assert node.names("a") == ["lo", "eth0"] and node.links("macvlan") == []
    assert node.check("a", mtu=1400) == ""


@pytest.mark.parametrize("subnets", [(V4,), (V6,), (V4, V6)], ids=["IPv4", "IPv6", "both"])
def test_packets_pass(node: Node, subnets: tuple[str, ...]) -> None:
    """When ADD answers: the LAN a pod, a pod the LAN, pods each other; each with one packet. The host is not reached."""
    keys = {"ipam": host_local(*subnets)}
    node.add("a", keys)
    node.add("b", keys)
    for address in node.addresses("b"):
        assert node.pings("lan", address)
        assert node.pings("a", address)
        assert not node.answers(address)
    for own in (LAN, HOST):
        for address in own:
            if any((":" in address) == (":" in subnet) for subnet in subnets):
                assert node.pings("a", address) == (own is LAN)
    assert node.check("a", keys) == node.check("b", keys) == ""


@pytest.mark.parametrize(("mode", "reach"), [("bridge", True), ("private", False), ("vepa", False)])
def test_modes(node: Node, mode: str, *, reach: bool) -> None:
    """All reach the LAN; pods reach each other in mode bridge alone, since nothing reflects their frames here."""
    node.add("a", mode=mode)
    node.add("b", mode=mode)
    assert node.mode("a") == mode and node.pings("a", "10.1.0.254")
    assert node.pings("a", "10.1.0.3") == node.pings("a", "fd00:1::3") == reach
    assert node.check("a", mode=mode) == ""
    assert f"has mode {mode}, not passthru" in node.check("a", mode="passthru")


def test_passthru(node: Node) -> None:
    """One pod has the master and its MAC for itself; a second pod is told why. A MAC of its own becomes the master's."""
    node.host.run("ip", "address", "flush", "dev", "up0")
    (master,) = node.host.ip("link", "show", "up0")
    result = node.add("a", mode="passthru")
    assert result["interfaces"][0]["mac"] == master["address"]
    assert node.pings("lan", "10.1.0.2") and node.pings("lan", "fd00:1::2")
    assert node.check("a", mode="passthru") == ""
    for mode in ("passthru", "bridge"):
        node.refused("b", 999, f'"mode": {mode} is impossible on up0, which has eth0 in /run/netns/a', mode=mode)
    node.delete("a", mode="passthru")
    node.add("a", mode="passthru", mac="02:00:00:00:00:01")
    assert node.host.ip("link", "show", "up0")[0]["address"] == node.link("a")["address"] == "02:00:00:00:00:01"
    assert node.pings("lan", "10.1.0.3") and node.check("a", mode="passthru", mac="02:00:00:00:00:01") == ""
    node.delete("a")
    assert node.host.ip("link", "show", "up0")[0]["address"] == master["address"]


def test_macs(node: Node) -> None:
    """The key before none, CNI_ARGS before the key, the runtime before both; without one the same each time."""
    key, run = {"mac": "02:00:00:00:00:01"}, {"runtimeConfig": {"mac": "02:00:00:00:00:03"}}
    assert node.add("a", key)["interfaces"][0]["mac"] == "02:00:00:00:00:01"
    assert (
        node.add("b", key, args="IgnoreUnknown=1;MAC=02:00:00:00:00:02")["interfaces"][0]["mac"] == "02:00:00:00:00:02"
    )
    assert (
        node.add("c", {**key, **run}, args="IgnoreUnknown=1;MAC=02:00:00:00:00:02")["interfaces"][0]["mac"]
        == "02:00:00:00:00:03"
    )
    first = node.add("d")["interfaces"]
    node.delete("d")
    assert node.add("d")["interfaces"] == first
    (master,) = node.host.ip("link", "show", "up0")
    for taken in ("02:00:00:00:00:01", master["address"]):
        node.refused("e", 7, f'"mac": "{taken}" is the MAC of up0 or of another link on it', mac=taken)


def test_the_broadcast_queue(node: Node) -> None:
    node.add("a", bcqueuelen=50)
    assert node.link("a")["linkinfo"]["info_data"]["bcqueuelen"] == 50


def test_the_link_of_the_default_route(node: Node) -> None:
    """The master by default: of the lowest metric, of either family, also with several next hops."""
    default = {"master": ...}
    node.refused("a", 7, '"master" is required: this host has no default route', default)
    assert node.call("STATUS", "", default).status == 0  # a plugin before it may make the master
    node.host.run("sh", "-ec", "ip link add up1 type veth peer name x1; ip link set up1 up; ip link set x1 up;"
                               "ip address add 10.9.0.1/24 dev up1")  # fmt: skip
    index = {name: node.host.ip("link", "show", name)[0]["ifindex"] for name in ("up0", "up1")}
    for pod, route, master in (
        ("a", "-6 route add default via fd00:1::fe dev up0 metric 512", "up0"),
        ("d", "route add default via 10.9.0.2 dev up1 metric 600", "up0"),
        ("b", "route add default metric 100 nexthop via 10.9.0.2 dev up1 nexthop via 10.1.0.254 dev up0", "up1"),
        ("c", "route add default via 10.1.0.254 dev up0 metric 50", "up0"),
    ):
        node.host.run("ip", *route.split())
        node.add(pod, default)
        assert node.link(pod)["link_index"] == index[master]
        assert node.check(pod, default) == ""
    assert node.call("STATUS", "", default).status == 0
    assert node.check("b", default) == ""  # its master is no longer the default


def test_a_master_in_the_pod(node: Node) -> None:
    """linkInContainer: the master's name and MTU count in the pod."""
    node.netns("a")
    node.host.run("sh", "-ec", "ip -n a link add in0 type veth peer name in1; ip -n a link set in0 mtu 1300 up;"
                               "ip -n a link set in1 up")  # fmt: skip
    keys = {"master": "in0", "linkInContainer": True}
    node.refused("a", 7, '"mtu": 1400 exceeds the MTU 1300 of its master in0', keys, mtu=1400)
    node.refused("a", 7, '"master": "up0" is not a link of the pod', keys, master="up0")
    node.add("a", keys)
    assert node.link("a")["link"] == "in0" and node.check("a", keys) == ""
    assert node.call("STATUS", "", keys).status == 0
    node.delete("a", keys)
    assert node.names("a") == ["lo", "in1", "in0"] and node.is_clean()


def test_a_master_that_is_a_macvlan_itself(node: Node) -> None:
    """The kernel takes the link below it: CHECK is content, a repair makes no second link, and DEL leaves nothing."""
    node.host.run("sh", "-ec", "ip link add link up0 name m1 type macvlan mode bridge; ip link set m1 up;"
                               "ip link add up1 type veth peer name x1; ip link set up1 up; ip link set x1 up")  # fmt: skip
    keys = {"master": "m1", "hostAccess": True}
    node.add("a", keys)
    assert node.check("a", keys) == "" and node.answers("10.1.0.2") and node.pings("lan", "10.1.0.2")
    assert "not on up1" in node.check("a", keys, master="up1")
    assert node.call("STATUS", "", keys).status == 0
    (index,) = (link["ifindex"] for link in node.host.ip("link", "show", "up0"))
    assert sorted(node.links("macvlan")) == [f"hostmv-{index:x}", "m1"]
    node.delete("a", keys)
    assert node.links("macvlan") == ["m1"] and node.notes() == []


def test_a_master_in_the_pod_that_is_a_macvlan(node: Node) -> None:
    """Its link below is on the host, where the index of the master in the pod belongs to another link."""
    under, keys = {"name": "under", "ipam": ...}, {"linkInContainer": True, "master": "net0"}
    node.add("a", under, ifname="net0")
    node.add("a", keys)
    assert node.check("a", keys) == ""
    node.host.run("sh", "-ec", "ip -n a link add in0 type veth peer name in1")
    assert "not on in0" in node.check("a", keys, master="in0")
    node.delete("a", keys)
    node.delete("a", under, ifname="net0")
    assert node.names("a") == ["lo", "in1", "in0"] and node.is_clean()


def test_in_a_list(node: Node) -> None:
    """Without `master`, the first interface of the result that is on the host; the pod's own is added to the result."""
    before = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "x", "sandbox": "/run/netns/a"}, {"name": "up0"}],
        "ips": [{"address": "10.9.0.1/24", "interface": 0}],
        "dns": {"nameservers": ["10.9.0.9"]},
    }
    result = node.add("a", master=..., prevResult=before)
    assert [one["name"] for one in result["interfaces"]] == ["x", "up0", "eth0"]
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [
        ("10.9.0.1/24", 0), ("10.1.0.2/24", 2), ("fd00:1::2/64", 2),
    ]  # fmt: skip
    assert result["dns"] == before["dns"] and node.pings("a", "10.1.0.254")
    assert node.check("a", master=...) == ""
    node.refused("b", 7, '"master": "gone" is in prevResult, but not a link of this host', master=...,
                 prevResult={"cniVersion": "1.1.0", "interfaces": [{"name": "gone"}]})  # fmt: skip


@pytest.mark.parametrize(("keys", "words"), [
    ({"mtu": 1501}, '"mtu": 1501 exceeds the MTU 1500 of its master up0'), ({"mtu": 67}, '"mtu": 67'),
    ({"mtu": -1}, '"mtu"'), ({"master": "none"}, '"master": "none" is not a link of this host'),
    ({"master": "a/b"}, '"master"'), ({"mode": "source"}, '"mode": "source" must be one of private, vepa'),
    ({"mac": "zz"}, '"mac"'), ({"mac": "01:00:00:00:00:01"}, '"mac".*unicast'), ({"bcqueuelen": -1}, '"bcqueuelen"'),
    ({"linkInContainer": "yes"}, '"linkInContainer"'), ({"hostAccess": True, "mode": "private"}, '"hostAccess"'),
    ({"hostAccess": True, "linkInContainer": True}, '"hostAccess"'), ({"dns": {"search": 1}}, '"dns"'),
    ({"ipam": {"type": "macvlan"}}, '"ipam.type"'),
])  # fmt: skip
def test_a_configuration_that_cannot_be_used(node: Node, keys: dict[str, Any], words: str) -> None:
    node.refused("a", 7, words, keys)


def test_a_master_that_is_in_use(node: Node) -> None:
    """The error names the bridge, or says why the link is no master."""
    node.host.run(
        "sh",
        "-ec",
        "ip link add br0 type bridge; ip link add up1 master br0 type veth peer name x1; ip link set up1 up",
    )
    node.refused("a", 999, '"master": link up1 is a port of br0, of kind bridge', master="up1")
    node.refused("a", 999, '"master": link lo is not an Ethernet link', master="lo")


def test_dns(node: Node) -> None:
    """The IPAM plugin's settings stay, unless the configuration has its own; the reference always replaces them."""
    (node.host.root / "run/resolv.conf").write_text("nameserver 10.1.0.53\n")
    ipam = host_local(resolvConf="/run/resolv.conf")
    assert node.add("a", ipam=ipam)["dns"] == {"nameservers": ["10.1.0.53"]}
    assert node.add("b", ipam=ipam, dns={"search": ["example.org"]})["dns"] == {"search": ["example.org"]}


def test_without_ipam(node: Node) -> None:
    """Layer 2: the pod gets the link, up and without addresses; router advertisements are the pod's to heed."""
    result = node.add("a", ipam=...)
    assert "ips" not in result and "UP" in node.link("a")["flags"]
    assert sysctl(node.host, "ipv6/conf/eth0/accept_ra", "a") == "1"
    assert node.check("a", ipam=...) == ""
    assert node.call("STATUS", "", ipam=...).status == 0
    node.delete("a", ipam=...)
    assert node.names("a") == ["lo"] and node.is_clean()


@pytest.mark.row(11, 12)
def test_an_ipam_that_fails(node: Node) -> None:
    """Nothing is left in the pod, and the address is released; the reference leaves eth0, and the lease of an empty answer."""
    script = "#!/bin/sh\ncase $CNI_COMMAND in ADD) ANSWER ;; DEL) : >/run/released ;; esac\n"
    fake = node.host.root / "run/fake"
    for answer, words in (
        ('echo \'{"cniVersion": "1.0.0", "ips": []}\'', "fake returned missing IP config"),
        ('echo \'{"cniVersion": "1.0.0", "code": 100, "msg": "no more"}\'; exit 1', "no more"),
    ):
        fake.write_text(script.replace("ANSWER", answer))
        fake.chmod(0o755)
        (node.host.root / "run/released").unlink(missing_ok=True)
        answered = node.call("ADD", "a", ipam={"type": "fake"}, path=f"{node.host.bin_dir}:/run")
        assert answered.status == 1 and words in answered.json["msg"], answered
        assert node.names("a") == ["lo"] and node.notes() == [] and (node.host.root / "run/released").exists()


@pytest.mark.row(15)
def test_adding_twice(node: Node) -> None:
    """The second ADD fails, and the first one's link, note and lease stay."""
    node.add("a")
    node.refused("a", 999, "link eth0 already exists in /run/netns/a")
    assert node.check("a") == "" and node.pings("lan", "10.1.0.2")
    node.add("a", ifname="net1")
    node.delete("a", ifname="net1")
    assert node.names("a") == ["lo", "eth0"] and node.check("a") == ""


def test_names_that_the_host_has_too(node: Node) -> None:
    """The pod's link never appears on the host, so that names there do not matter."""
    node.host.run("ip", "link", "add", "eth0", "type", "bridge")
    node.add("a")
    assert node.pings("lan", "10.1.0.2")


@pytest.mark.row(10)
def test_a_result_that_nobody_reads(node: Node) -> None:
    assert node.call("ADD", "a", hostAccess=True, prefix=("sh", "-c", 'exec "$0" >&-')).status == 1
    assert node.names("a") == ["lo"] and node.is_clean()


@pytest.mark.row(3)
@pytest.mark.parametrize("how", [{}, {"netns": ""}, {"netns": "/run/netns/none"}], ids=["netns", "empty", "elsewhere"])
def test_delete(node: Node, how: dict[str, Any]) -> None:
    """DEL removes the link from a living pod, whatever the runtime tells; twice, and without anything. The reference leaves it."""
    node.delete("none", netns="")
    node.add("a")
    for _ in range(2):
        node.delete("a", **how)
    assert node.names("a") == ["lo"] and node.is_clean()


@pytest.mark.row(3)
@pytest.mark.parametrize("how", [{}, {"netns": ""}], ids=["netns", "empty"])
def test_delete_in_a_namespace_that_only_processes_have(node: Node, how: dict[str, Any]) -> None:
    """Its path is unmounted, and a process of the pod lives on: the address must not stay on its link."""
    node.add("a")
    with node.host.popen("ip", "netns", "exec", "a", "sh", "-c", "echo ready; exec cat") as holder:
        assert read_line(holder) == b"ready\n"
        pid = node.host.run("pgrep", "-n", "cat").stdout.strip()
        node.host.run("ip", "netns", "del", "a")
        node.delete("a", **how)
        links = json.loads(node.host.run("nsenter", "-t", pid, "-n", "ip", "-j", "link").stdout)
        holder.kill()
    assert [link["ifname"] for link in links] == ["lo"] and node.is_clean()


def test_delete_after_the_pod(node: Node) -> None:
    node.add("a", hostAccess=True)
    node.host.drop_netns("a")
    node.delete("a", netns="")
    assert node.is_clean()


def test_delete_without_the_master(node: Node) -> None:
    """The master was deleted, and with it the pod's link: DEL and GC do not look for it; the configuration may be wrong."""
    node.add("a", hostAccess=True)
    node.host.run("ip", "link", "del", "up0")
    assert "link eth0 is missing in /run/netns/a; master up0 is missing" in node.check("a")
    node.delete("a")
    assert node.is_clean()
    node.refused("b", 7, '"master": "up0" is not a link of this host')
    assert node.call("STATUS", "").code == 50


def test_delete_leaves_others_alone(node: Node) -> None:
    """A link of that name that belongs to another attachment, or is of another kind, stays."""
    node.add("a")
    node.delete("b", netns="/run/netns/a")
    assert node.names("a") == ["lo", "eth0"]
    node.netns("c")
    node.host.run("ip", "-n", "c", "link", "add", "eth0", "type", "veth", "peer", "name", "x")
    node.delete("c")
    assert "eth0" in node.names("c")


@pytest.mark.row(15)
@pytest.mark.parametrize(
    "ipam", [..., {"type": "static", "addresses": [{"address": "10.1.0.7/24"}]}], ids=["none", "static"]
)
def test_delete_after_a_refused_add(node: Node, ipam: Any) -> None:
    """The link that made ADD refuse stays: another program made it."""
    node.netns("a")
    node.host.run("ip", "link", "add", "link", "up0", "netns", "a", "name", "eth0", "type", "macvlan", "mode", "bridge")
    node.host.run("ip", "-n", "a", "address", "add", "10.1.0.7/24", "dev", "eth0")
    node.refused("a", 999, "link eth0 already exists", ipam=ipam)
    node.delete("a", ipam=ipam)
    assert node.names("a") == ["lo", "eth0"]


@pytest.mark.row(3, 16)
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_a_link_that_the_pod_has_renamed(node: Node, verb: str) -> None:
    """It keeps its alias: with its address, it would otherwise stay beside the address's next pod."""
    node.add("a")
    node.host.run("sh", "-ec", "ip -n a link set eth0 down; ip -n a link set eth0 name wan0; ip -n a link set wan0 up")
    node.delete("a") if verb == "DEL" else node.collect()
    assert node.names("a") == ["lo"] and node.is_clean()


@pytest.mark.row(24)
@pytest.mark.parametrize("verb", ["DEL", "GC"])
@pytest.mark.parametrize("kind", ["ipvlan", "bridge"])
def test_a_network_of_which_the_type_has_changed(node: Node, kind: str, verb: str) -> None:
    """The plugin that serves the network by now deletes the link, the host's access and the lease."""
    node.add("a", hostAccess=True)
    node.delete("a", type=kind) if verb == "DEL" else node.collect(type=kind)
    assert node.names("a") == ["lo"] and node.is_clean()


@pytest.mark.row(24)
def test_a_renamed_network(node: Node) -> None:
    """DEL under the new name finds the link and the lease of the old one."""
    node.add("a")
    node.delete("a", name="other")
    assert node.names("a") == ["lo"] and node.leases() == set()


@pytest.mark.row(24)
def test_a_renamed_network_of_a_deleted_pod(node: Node) -> None:
    """DEL under the new name finds the host's access, the note and the lease of the old one; GC all but the lease."""
    for name in ("DEL", "GC"):
        node.add("a", hostAccess=True)
        node.host.drop_netns("a")
        if name == "DEL":
            node.delete("a", name="other", netns="")
            assert node.leases() == set()
        else:
            node.collect(name="other")
        assert node.notes() == node.links("macvlan") == []


@pytest.mark.row(16)
def test_a_collection_leaves_other_networks(node: Node) -> None:
    """Their pods that live, also in a namespace without a path."""
    node.add("a", hostAccess=True)
    with node.host.popen("ip", "netns", "exec", "a", "sh", "-c", "echo ready; exec cat") as holder:
        assert read_line(holder) == b"ready\n"
        node.host.run("ip", "netns", "del", "a")
        node.collect(name="other")
        assert len(node.notes()) == len(node.links("macvlan")) == 1 and node.answers("10.1.0.2")
        holder.kill()


@pytest.mark.row(1)
def test_a_half_made_link(node: Node) -> None:
    """A killed ADD leaves a link under its first name: DEL removes it, and so does the next ADD."""
    name = next(iter(node.host.python(
        "import sys; sys.path.insert(0, sys.argv[1]); from shared.net.owner import Owner;"
        "print(Owner('net', 'a', 'eth0').host_link)", str(__import__("pathlib").Path(__file__).parents[2]),
    ).split()))  # fmt: skip
    node.netns("a")
    for end in (lambda: node.delete("a"), lambda: node.add("a")):
        node.host.run("ip", "link", "add", "link", "up0", "netns", "a", "name", name, "type", "macvlan")
        end()
        assert name not in node.names("a")


@pytest.mark.row(16)
def test_a_collection(node: Node) -> None:
    """GC removes the links and leases of this network's pods that are not valid, which may live, and nothing of others."""
    for pod in ("kept", "lost"):
        node.add(pod, hostAccess=True)
    node.add("other", name="another", ipam=host_local("10.1.0.128/25"))
    node.collect("kept")
    assert node.names("lost") == ["lo"] and node.leases() == {"10.1.0.2", "fd00:1::2"}
    assert node.names("other") == node.names("kept") == ["lo", "eth0"] and len(node.notes()) == 2
    assert node.check("kept", hostAccess=True) == "" and node.answers("10.1.0.2") and not node.answers("10.1.0.3")
    node.collect()
    assert node.names("kept") == ["lo"] and node.leases() == set() and node.links("macvlan") == []
    assert node.names("other") == ["lo", "eth0"]


def test_the_host_reaches_pods(node: Node) -> None:
    """hostAccess: both ways, both families, with the first packet; one link on the host, which goes with the last pod."""
    access = {"hostAccess": True}
    for pod, number in (("a", 2), ("b", 3)):
        node.add(pod, access)
        for address in node.addresses(pod):
            assert node.answers(address)
        for address in HOST:
            assert node.pings(pod, address)
        assert node.check(pod, access) == ""
        assert node.addresses(pod)[0] == f"10.1.0.{number}"
    assert node.pings("a", "10.1.0.3") and node.answers("10.1.0.254")
    (link,) = node.links("macvlan")
    assert sysctl(node.host, f"ipv6/conf/{link}/accept_ra") == "0"
    node.delete("a", netns="")
    assert node.links("macvlan") == [link] and node.answers("10.1.0.3") and node.answers("fd00:1::3")
    assert not node.host.ip("route", "show", "10.1.0.2")
    node.delete("b")
    assert node.is_clean()


@pytest.mark.row(21)
def test_the_lan_knows_the_host_by_the_masters_mac(node: Node) -> None:
    """With hostAccess too: after packets between host and pod, when the LAN asks anew, and after the last pod's DEL."""
    strict = ("ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter", "ipv4/conf/up0/rp_filter")
    node.host.run("sh", "-ec", "; ".join(f"echo 0 >/proc/sys/net/{path}" for path in strict))
    # the LAN takes the last one of several answers
    node.host.run("ip", "netns", "exec", "lan", "sh", "-c", "echo 0 >/proc/sys/net/ipv4/neigh/eth0/locktime")
    (master,) = node.host.ip("link", "show", "up0")

    def known() -> set[str]:
        return {node.host.ip("neigh", "show", address, netns="lan")[0]["lladdr"] for address in HOST}

    def ask() -> set[str]:
        node.host.run("ip", "-n", "lan", "neigh", "flush", "dev", "eth0")
        for address in HOST:
            node.host.run("ip", "netns", "exec", "lan", "ping", "-n", "-c3", "-i0.2", "-W1", address)
        return known()

    assert ask() == {master["address"]}
    node.add("a", hostAccess=True)
    for address in HOST:
        assert node.pings("a", address)
    for address in node.addresses("a"):
        assert node.answers(address)
    assert known() == {master["address"]}
    assert ask() == {master["address"]}
    node.delete("a")
    assert known() == {master["address"]}
    assert all(node.pings("lan", address) for address in HOST)


@pytest.mark.row(21)
def test_host_access_to_the_address_of_a_dead_pod(node: Node) -> None:
    """The route of a pod that nobody deleted gives way, and its late DEL leaves that of the new pod."""
    access = {"hostAccess": True, "ipam": host_local(V4)}
    node.add("a", access)
    node.host.run("sh", "-c", "rm -r /var/lib/cni/networks/net /var/lib/cni/networks/.pycni; ip -n a link del eth0")
    node.add("b", access)
    assert node.addresses("a") == node.addresses("b") and node.answers("10.1.0.2")
    node.delete("a", access)
    assert node.answers("10.1.0.2") and node.check("b", access, ipam=...) == ""


LOSSES = {
    "ip link set LINK down": "link LINK is down",
    "ip link del LINK": "link LINK, which lets the host reach pods on up0, is missing",
    "ip route del 10.1.0.2 dev LINK": "route to 10.1.0.2/32 is missing on LINK",
    "ip -6 route del fd00:1::2 dev LINK": "route to fd00:1::2/128 is missing on LINK",
    "ip neigh del 10.1.0.2 dev LINK": "neighbour 10.1.0.2 with MAC",
    "ip -n a neigh del fd00:1::1 dev eth0": "neighbour fd00:1::1 with MAC",
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
def test_host_access_is_repaired(node: Node, loss: str) -> None:
    """CHECK names each loss, and a repair makes it again."""
    node.add("a", hostAccess=True)
    (link,) = node.links("macvlan")
    node.host.run("sh", "-ec", loss.replace("LINK", link))
    assert LOSSES[loss].replace("LINK", link) in node.check("a", hostAccess=True)


INSIDE = {
    "ip -n a link set eth0 down": "link eth0 is down in /run/netns/a",
    "ip -n a link del eth0": "link eth0 is missing in /run/netns/a",
    "ip -n a link set eth0 address 02:00:00:00:00:77": "link eth0 has MAC 02:00:00:00:00:77",
    "ip -n a link set eth0 type macvlan mode private": "link eth0 has mode private, not bridge",
    "ip -n a addr del 10.1.0.2/24 dev eth0": "address 10.1.0.2/24 is missing on eth0",
    "ip link set up0 down": "master up0 is down",
    "ip -n lan link set eth0 down": "master up0 has no carrier",
    "rm /var/lib/cni/networks/net/10.1.0.2": "10.1.0.2 of prevResult not leased to container a eth0",
}  # fmt: skip


@pytest.mark.parametrize("loss", INSIDE)
def test_check_names_each_loss(node: Node, loss: str) -> None:
    node.add("a")
    assert node.check("a") == ""
    node.host.run("sh", "-ec", loss)
    until(lambda: INSIDE[loss] in node.check("a"))


def test_a_master_that_comes_and_goes(node: Node) -> None:
    """Down at the time of ADD, later without its name, or down for a while: the pod is reached when the master is up."""
    node.host.run("ip", "link", "set", "up0", "down")
    node.add("a")
    assert node.call("STATUS", "").code == 50
    node.host.run("ip", "link", "set", "up0", "up")
    until(lambda: node.pings("lan", "10.1.0.2") and node.pings("lan", "fd00:1::2"))
    node.host.run("sh", "-ec", "ip link set up0 down; ip link set up0 name up9; ip link set up9 up")
    until(lambda: node.pings("lan", "10.1.0.2") and node.pings("a", "10.1.0.254"))
    assert node.check("a") == ""
    node.host.run("sh", "-ec", "ip link set up9 name up0; ip link add up7 type veth peer name x7")
    assert "the pod's link is on up0, not on up7" in node.check("a", master="up7")


def test_a_master_without_carrier(node: Node) -> None:
    node.host.run("ip", "-n", "lan", "link", "set", "eth0", "down")
    until(lambda: "NO-CARRIER" in node.host.ip("link", "show", "up0")[0]["flags"])
    node.add("a", hostAccess=True)
    node.host.run("sh", "-ec", "ip -n lan link set eth0 up; ip -n lan address replace fd00:1::fe/64 dev eth0 nodad")
    until(lambda: node.pings("lan", "10.1.0.2") and node.pings("lan", "fd00:1::2") and node.answers("10.1.0.2"))


@pytest.mark.row(21)
@pytest.mark.parametrize("address", ["10.1.0.2", "fd00:1::2"])
def test_an_address_that_goes_to_another_pod(node: Node, address: str) -> None:
    """The machine in the LAN, which has just talked to the first pod, reaches the second one with its first packet."""
    ipam = host_local("10.1.0.0/24", "fd00:1::/64")
    for one in ipam["ranges"]:
        one[0] |= {"rangeStart": node_address(one[0]["subnet"]), "rangeEnd": node_address(one[0]["subnet"])}
    node.add("a", ipam=ipam)
    assert node.pings("lan", address)
    node.delete("a")
    node.add("b", ipam=ipam)
    assert node.pings("lan", address)


def node_address(subnet: str) -> str:
    return "10.1.0.2" if subnet == "10.1.0.0/24" else "fd00:1::2"


def test_ipv6_that_is_impossible(node: Node) -> None:
    """The error names the cause, and nothing is left."""
    node.refused("a", 999, "its MTU is 1000 bytes and IPv6 needs 1280", mtu=1000)
    assert node.call("STATUS", "", mtu=1000).code == 50
    node.add("b", mtu=1000, ipam=host_local(V4))


def test_addresses_by_router_advertisements(node: Node) -> None:
    """slaac: ADD waits for them and returns them, beside those of IPAM; without a router it says so, and leaves nothing."""
    router = ("ip", "netns", "exec", "lan", sys.executable, "-c", f"import time\nwhile True:\n{REPEAT}", "1800", "1800")
    node.host.popen(*router)
    for pod, keys in (("a", {"slaac": True}), ("b", {"slaac": True, "ipam": ...})):
        result = node.add(pod, keys)
        (by_router,) = [ip["address"] for ip in result["ips"] if ip["address"].startswith("2001:db8:1:")]
        assert len(result["ips"]) == (3 if pod == "a" else 1)
        assert by_router.endswith("/64")
        assert "2001:db8:1::/64" in {route["dst"] for route in node.host.ip("-6", "route", netns=pod)}
        assert node.check(pod, keys) == ""
    keys = {"slaac": True, "ipam": {"type": "static", "addresses": [{"address": "fd00:1::50/64"}]}}
    node.add("s", keys)
    for lost, words in (("2001:db8:1::/64", ""), ("fd00:1::50/64", "address fd00:1::50/64 is missing on eth0")):
        node.host.run("ip", "-n", "s", "address", "flush", "dev", "eth0", "to", lost)
        assert node.check("s", keys) == words
    assert "2001:db8:1::/64" not in {route["dst"] for route in node.host.ip("-6", "route", netns=node_of(node, "c"))}


def node_of(node: Node, pod: str) -> str:
    """Attach a pod that refuses router advertisements; return its name."""
    node.add(pod)
    return pod


@pytest.mark.row(21)
def test_duplicate_addresses(node: Node) -> None:
    """With enabledad, an IPv6 address that a machine in the LAN has is refused."""
    node.host.run("ip", "-n", "lan", "address", "add", "fd00:1::2/64", "dev", "eth0", "nodad")
    node.refused("a", 999, "fd00:1::2/64 is in use by another host", enabledad=True)
    assert node.add("b", enabledad=True)["ips"][1]["address"] == "fd00:1::3/64"


@pytest.mark.parametrize("first", ["ours", "reference"])
def test_hand_over(node: Node, reference_bin: str, first: str) -> None:
    """The other suite checks and deletes a pod; nothing is left."""
    keys = {"cniVersion": "1.0.0"}
    adds, ends = (None, reference_bin) if first == "ours" else (reference_bin, None)
    for _ in range(2):
        result = node.add("a", keys, bin_dir=adds)
        assert node.check("a", keys, bin_dir=ends) == ""
        node.delete("a", keys, prevResult=result, bin_dir=ends)
        assert node.names("a") == ["lo"] and node.leases() == set()


@pytest.mark.parametrize("is_known", [True, False])
def test_the_references_pod_of_another_container(node: Node, reference_bin: str, *, is_known: bool) -> None:
    """A path that leads to a pod of the reference's is no reason to delete its link: its MAC or its lease is another's."""
    keys = {"cniVersion": "1.0.0"}
    node.add("a", keys, bin_dir=reference_bin)
    result = json.loads(json.dumps(node.results["a"]))
    result["interfaces"][0]["mac"] = "02:00:00:00:00:55"
    node.delete("b", keys, netns="/run/netns/a", **({"prevResult": result} if is_known else {}))
    assert node.names("a") == ["lo", "eth0"]


def test_cnitool_knows_it(node: Node) -> None:
    """validate has no complaint, show draws pods at their master in each form, doctor finds nothing."""
    plugin = {key: value for key, value in node.config.items() if key not in ("cniVersion", "name")}
    tool = pod_network.Node(node.host)
    tool.configure({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]})
    tool.attach("web1", "web")
    node.add("other", name="elsewhere", ipam=host_local("10.1.0.128/25"))
    assert tool.cnitool("validate", "--bin-dir", node.host.bin_dir).stdout == ""
    shown = tool.show()
    (master,) = shown["masters"]
    assert master["name"] == "up0" and shown["unlinked"] == shown["unbridged"] == []
    pods = {port["pod"]["network"]: port for port in master["ports"]}
    assert (pods["pods"]["kind"], pods["pods"]["pod"]["name"]) == ("macvlan", "web")
    assert pods["pods"]["pod"]["addresses"] == ["10.1.0.2/24", "fd00:1::2/64"]
    assert pods["elsewhere"]["pod"]["containerID"] == "other"
    tree = tool.cnitool("show").stdout
    assert "master" in tree and "pods/web1/eth0" in tree and "up0" in tree
    assert "master up0" in (drawn := picture(tool)) and "macvlan → eth0" in drawn
    assert "master0 ---" in tool.cnitool("show", "--mermaid").stdout
    node.host.run("ip", "-n", "web1", "link", "set", "lo", "up")
    healthy = tool.cnitool("doctor", "--bin-dir", node.host.bin_dir, check=False)
    assert healthy.returncode == 0 and "0 errors, 0 warnings" in healthy.stdout, healthy.stdout


def picture(tool: pod_network.Node) -> str:
    tool.cnitool("show", "--svg", "/run/network.svg")
    return (tool.host.root / "run/network.svg").read_text()
