"""bridge's uplinks: links of the host that become ports, and the segment behind them, which the pods join."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults import batch, fake_ipam
from tests.faults.batch import Call
from tests.node import V4, Network, host_local
from tests.pretend import PretendHost

LAN = """
ip netns add lan
ip link add up0 address 02:00:00:00:00:01 mtu 1400 type veth peer name far netns lan
ip -n lan link set far up
ip -n lan address add 10.1.0.200/24 dev far
"""


@pytest.fixture
def net(host: PretendHost) -> Network:
    """Return a network with uplink up0, which is down and leads to a host in the pods' own network."""
    host.run("sh", "-ec", LAN)
    return Network(host, uplinks=["up0"], ipam=host_local(V4))


def uplink(host: PretendHost, name: str = "up0") -> tuple[str | None, bool]:
    """Return the uplink's master, and True if it is up."""
    (link,) = host.ip("link", "show", name)
    return link.get("master"), "UP" in link["flags"]


@pytest.mark.parametrize(
    "keys", [{}, {"isGateway": True}, {"portIsolation": True}, {"macspoofchk": True}, {"promiscMode": True}]
)
def test_pods_are_in_the_segment(net: Network, host: PretendHost, keys: dict[str, Any]) -> None:
    """The port is up and has no pod's options; the second ADD changes nothing; DEL and GC leave the port."""
    if "macspoofchk" in keys and net.call("STATUS", "a", **keys).code == 50:
        pytest.skip("this kernel's nf_tables have no bridge family")
    net.add("a", **keys)
    assert uplink(host) == ("cni0", True)
    assert net.pings("a", "10.1.0.200")
    port = host.ip("link", "show", "up0")[0]["linkinfo"]["info_slave_data"]
    assert not port["hairpin"] and not port["isolated"]
    assert net.check("a", **keys) == ""
    net.add("b", **keys)
    assert net.pings("b", "10.1.0.200")
    net.delete("a", **keys)
    net.delete("b", **keys)
    assert uplink(host) == ("cni0", True)
    gc = host.cni("bridge", "GC", {**net.config, "cni.dev/valid-attachments": []})
    assert gc.status == 0 and uplink(host) == ("cni0", True)
    net.add("c", **keys)
    assert net.pings("c", "10.1.0.200")


def test_the_new_bridges_mac_is_its_own(net: Network, host: PretendHost) -> None:
    """It is not the uplink's, although that is the lowest."""
    result = net.add("a", isGateway=True)
    assert result["interfaces"][0]["mac"] == host.ip("link", "show", "cni0")[0]["address"] != "02:00:00:00:00:01"
    assert len(result["interfaces"]) == 3


def test_mtu_auto(net: Network) -> None:
    """The uplink's MTU counts for the first pod, while it is down and no port, and for the second alike."""
    for pod in ("a", "b"):
        assert [one["mtu"] for one in net.add(pod, mtu="auto")["interfaces"]] == [1400] * 3


USES = {
    "ip address add 192.0.2.1/24 dev up0": "has the address 192.0.2.1/24",
    "ip address add fd00:9::1/64 dev up0 nodad": "has the address fd00:9::1/64",
    "ip link add br7 type bridge; ip link set up0 master br7": "is a port of br7 already",
    "ip link add m0 link up0 type macvlan": "is the master of m0, of kind macvlan",
    "ip link del up0": "is not a link of this host",
}


@pytest.mark.row(16)
@pytest.mark.parametrize(("use", "words"), USES.items())
def test_a_link_that_is_in_use(net: Network, host: PretendHost, use: str, words: str) -> None:
    """ADD refuses it with key and value before anything is touched; STATUS reports it."""
    host.run("sh", "-ec", use)
    net.refused("a", 7, rf'"uplinks\[0\]": "up0" {words}')
    status = net.call("STATUS", "a")
    assert status.code == 50 and words in str(status.json), status


def test_links_that_cannot_be_uplinks(net: Network, host: PretendHost) -> None:
    host.run("sh", "-ec", "ip link add br7 type bridge; ip link add br7.5 type veth peer name far5")
    net.add("pod", name="other", bridge="br7", ipam=..., uplinks=[])
    pod_link = net.host_link("pod")["ifname"]
    for name, words in {
        "cni0": "bridge's own link", "lo": "loopback", "br7": "is a bridge", "nope": "is not a link of this host",
        pod_link: "belongs to a pod",
    }.items():  # fmt: skip
        net.refused("a", 7, rf'"uplinks\[1\]": "{name}" .*{words}', uplinks=["up0", name])
    host.run("ip", "link", "set", pod_link, "nomaster")
    net.refused("a", 7, rf'"uplinks\[0\]": "{pod_link}" belongs to a pod', uplinks=[pod_link])
    for value in ("up0", [5], ["a/b"], [""]):
        net.refused("a", 7, "uplinks", uplinks=value)


def test_ipv6_link_local_addresses_do_not_count(net: Network, host: PretendHost) -> None:
    host.run("sh", "-ec", "ip link set up0 up; ip address add fe80::77/64 dev up0 nodad")
    net.add("a")
    assert net.pings("a", "10.1.0.200")


def test_the_same_link_twice_and_null(net: Network, host: PretendHost) -> None:
    net.add("a", uplinks=["up0", "up0"])
    net.add("b", uplinks=None)
    assert uplink(host) == ("cni0", True)


@pytest.mark.parametrize("was_up", [False, True])
@pytest.mark.parametrize("there_before", ["no bridge", "a bridge", "a bridge with the uplink"])
def test_a_failing_add_takes_out_what_it_put_in(
    net: Network, host: PretendHost, was_up: bool, there_before: str
) -> None:
    """An earlier uplink stays; the undo does not count it as another user of the gateway address."""
    if there_before != "no bridge":
        host.run("sh", "-ec", "ip link add cni0 type bridge; ip link set cni0 up")
    if there_before.endswith("uplink"):
        host.run("ip", "link", "set", "up0", "master", "cni0")
    if was_up:
        host.run("ip", "link", "set", "up0", "up")
    host.netns("a")
    before = host.snapshot(["a"])["host"]
    for _ in range(2):
        assert net.unheard("a", isGateway=True, promiscMode=True).status == 1
        host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
        assert host.snapshot(["a"])["host"] == before


def test_a_failing_add_leaves_the_uplink_that_another_pod_uses(net: Network, host: PretendHost) -> None:
    net.add("a")
    host.run("ip", "link", "set", "up0", "nomaster")
    assert net.unheard("b").status == 1
    assert uplink(host) == ("cni0", True) and net.pings("a", "10.1.0.200")


def test_a_failing_add_leaves_an_uplink_that_was_put_elsewhere(net: Network, host: PretendHost, tmp_path: Path) -> None:
    """The administrator moved it while the ADD waited for its IPAM plugin."""
    body = "ip link add br7 up type bridge; ip link set up0 up master br7; exit 1\n"
    path = fake_ipam.write(host, tmp_path, "busy", body)
    config = {**net.config, "ipam": {"type": "busy"}}
    answer = host.cni("bridge", "ADD", config, netns=host.netns("a"), container_id="a", path=path)
    assert answer.status == 1 and uplink(host) == ("br7", True), answer


def test_a_link_whose_master_has_the_uplinks_number_elsewhere(net: Network, host: PretendHost) -> None:
    """A macvlan came out of a namespace: the link below it is in that namespace."""
    host.run("sh", "-ec", """
ip link del up0
ip link add up0 index 777 type veth peer name far
ip netns add other
ip -n other link add below index 777 type veth peer name below1
ip -n other link add m0 link below type macvlan
ip -n other link set m0 netns 1
""")  # fmt: skip
    assert host.ip("link", "show", "m0")[0]["link_index"] == 777
    net.add("a")
    assert uplink(host) == ("cni0", True)


@pytest.mark.row(14)
@pytest.mark.parametrize("fails", [False, True])
def test_first_adds_at_once(net: Network, host: PretendHost, fails: bool) -> None:
    """All succeed; and if all fail, neither bridge nor port is left."""
    batch.make_pods(host, 8)
    for _ in range(2):
        config = {**net.config, "isGateway": True, **({"ipam": {"type": "missing"}} if fails else {})}
        if fails:
            config["ipam"] = {"type": "host-local", "ranges": [[{"subnet": V4}]], "resolvConf": "/missing"}
        calls = [Call("bridge", "ADD", config, {"CNI_CONTAINERID": f"c{n}", "CNI_IFNAME": f"eth{n}"}) for n in range(8)]
        answers = batch.run(host, calls, at_once=8)
        assert {answer.status for answer in answers} == {int(fails)}, [one.stdout for one in answers if one.status]
        if fails:
            assert not host.ip("link", "show", "type", "bridge") and uplink(host)[0] is None
            continue
        assert uplink(host) == ("cni0", True)
        for call in calls:
            done = host.cni(
                "bridge",
                "DEL",
                config,
                container_id=str(call.env["CNI_CONTAINERID"]),
                ifname=str(call.env["CNI_IFNAME"]),
            )
            assert done.status == 0, done
        host.run("ip", "link", "del", "cni0")


@pytest.mark.row(16)
def test_check(net: Network, host: PretendHost) -> None:
    net.add("a")
    for damage, words in {
        "ip link set up0 down": "uplink up0 is down", "ip link set up0 nomaster": "uplink up0 is not a port of cni0",
        "ip link del up0": "uplink up0 is missing",
    }.items():  # fmt: skip
        host.run("sh", "-ec", damage)
        answer = net.call("CHECK", "a", prevResult=net.results["a"])
        assert answer.code == 999 and words in answer.json["details"], answer


@pytest.mark.kernel_vlan
def test_an_uplink_keeps_its_vlans(net: Network, host: PretendHost) -> None:
    """The pod is in VLAN 100, the uplink in the VLAN that the operator chose."""
    net.add("a", vlan=100)
    assert not net.pings("a", "10.1.0.200")
    (shown,) = json.loads(host.run("bridge", "-j", "vlan", "show", "dev", "up0").stdout)
    assert [entry["vlan"] for entry in shown["vlans"]] == [1]
    host.run("bridge", "vlan", "add", "dev", "up0", "vid", "100", "pvid", "untagged")
    net.add("b", vlan=100)
    assert net.pings("a", "10.1.0.200") and net.pings("b", "10.1.0.200")
    assert net.check("b", vlan=100) == ""
