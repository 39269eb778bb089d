"""bridge: the effect of each key in the kernel, and the answers."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

from shared.net.owner import Owner
from tests.node import V4, V6, Network, host_local, sysctl
from tests.pretend import Answer, PretendHost, until
from tests.system.traces import WAITS, messages_outside_waits

MACS = ["0a:58:0a:01:00:11", "0a:58:0a:01:00:22", "0a:58:0a:01:00:33"]
K8S = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"


# -- the result


def test_the_result(net: Network, host: PretendHost) -> None:
    """Bridge, host's end and container's end equal the kernel's."""
    result = net.add("a", isDefaultGateway=True, mtu=1400)
    bridge, port, inside = result["interfaces"]
    (kernel_bridge,) = host.ip("link", "show", "cni0")
    (kernel_inside,) = host.ip("link", "show", "eth0", netns="a")
    kernel_port = net.host_link("a")
    assert bridge == {"name": "cni0", "mac": kernel_bridge["address"], "mtu": 1400}
    assert port == {"name": kernel_port["ifname"], "mac": kernel_port["address"], "mtu": 1400}
    assert inside == {"name": "eth0", "mac": kernel_inside["address"], "mtu": 1400, "sandbox": net.netns("a")}
    assert result["ips"] == [
        {"interface": 2, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"interface": 2, "address": "fd00:1::2/64", "gateway": "fd00:1::1"},
    ]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0", "gw": "fd00:1::1"}]
    assert set(net.kernel_addresses("a")) == {"10.1.0.2/24", "fd00:1::2/64"}
    assert kernel_port["master"] == "cni0" and kernel_inside["linkinfo"]["info_kind"] == "veth"
    assert kernel_port["operstate"] == "UP" and kernel_port["linkinfo"]["info_slave_data"]["state"] == "forwarding"


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_results_of_earlier_versions(net: Network, version: str) -> None:
    result = net.add("a", cniVersion=version, isGateway=True)
    assert result["cniVersion"] == version
    if version < "0.3.0":
        assert result["ip4"] == {"ip": "10.1.0.2/24", "gateway": "10.1.0.1"} and "interfaces" not in result
    else:
        assert [interface["name"] for interface in result["interfaces"]][::2] == ["cni0", "eth0"]
        assert all("mtu" not in interface for interface in result["interfaces"])
        assert [ip.get("version") for ip in result["ips"]] == ([None, None] if version == "1.0.0" else ["4", "6"])
    net.delete("a", cniVersion=version)


def test_the_host_links_name_and_alias(net: Network) -> None:
    """They derive from network, container ID and interface; `ip link` shows these."""
    net.add("a")
    net.add("a", ifname="net1")
    link = net.host_link("a")
    assert re.fullmatch(r"veth[0-9a-f]{11}", link["ifname"]) and link["ifalias"] == "pycni:net/a/net1"
    net.delete("a", ifname="net1")
    assert net.host.ip("link", "show", "eth0", netns="a")


def test_dns(net: Network) -> None:
    """The configuration's dns replaces the IPAM plugin's as a whole, unless it is empty."""
    net.host.run("sh", "-c", "printf 'nameserver 9.9.9.9\nsearch b.example\n' >/run/resolv.conf")
    ipam = host_local(resolvConf="/run/resolv.conf")
    given = {"nameservers": ["9.9.9.9"], "search": ["b.example"]}
    own = {"nameservers": ["1.1.1.1"], "domain": "a.example", "options": ["ndots:2"]}
    assert net.add("a", ipam=ipam)["dns"] == given
    assert net.add("b", ipam=ipam, dns={})["dns"] == given
    assert net.add("c", ipam=ipam, dns=own)["dns"] == own
    assert net.add("d", ipam=ipam, dns={"Nameservers": ["1.1.1.1"], "Search": None})["dns"] == {
        "nameservers": ["1.1.1.1"]
    }


# -- the gateway


def test_no_gateway(net: Network, host: PretendHost) -> None:
    result = net.add("a")
    assert "routes" not in result and [ip["gateway"] for ip in result["ips"]] == ["10.1.0.1", "fd00:1::1"]
    assert net.kernel_addresses(None, "cni0") == {}
    assert sysctl(host, "ipv4/ip_forward") == "0" and sysctl(host, "ipv6/conf/all/forwarding") == "0"


def test_is_gateway(net: Network, host: PretendHost) -> None:
    net.add("a", isGateway=True)
    assert set(net.kernel_addresses(None, "cni0")) == {"10.1.0.1/24", "fd00:1::1/64"}
    assert net.routes("a") == {("10.1.0.0/24", None), ("fd00:1::/64", None)}
    assert sysctl(host, "ipv4/ip_forward") == "1" and sysctl(host, "ipv6/conf/all/forwarding") == "1"
    assert net.pings("a", "10.1.0.1")


def test_forwarding_only_for_the_families_in_use(net: Network, host: PretendHost) -> None:
    net.add("a", isGateway=True, ipam=host_local(V4))
    assert (sysctl(host, "ipv4/ip_forward"), sysctl(host, "ipv6/conf/all/forwarding")) == ("1", "0")


def test_the_ipv6_gateway_is_usable_at_once(net: Network) -> None:
    """No duplicate address detection on the bridge, which would take a second: the first packet is answered."""
    net.add("a", isDefaultGateway=True, ipam=host_local(V6))
    assert net.pings("a", "fd00:1::1")
    (gateway,) = net.kernel_addresses(None, "cni0").values()
    (address,) = net.kernel_addresses("a").values()
    assert not gateway.get("tentative") and not address.get("tentative")


@pytest.mark.parametrize("version", [4, 6])
def test_the_gateway_comes_from_the_subnet_where_ipam_names_none(net: Network, host: PretendHost, version: int) -> None:
    """A foreign IPAM plugin answers with an address alone."""
    address, gateway = ("10.7.0.9/16", "10.7.0.1/16") if version == 4 else ("fd07::9/64", "fd07::1/64")
    answer = json.dumps({"cniVersion": "1.0.0", "ips": [{"address": address}]})
    host.run("sh", "-c", f"mkdir /run/own; printf '#!/bin/sh\ncat >/dev/null\necho '\"'\"'{answer}'\"'\"'' >/run/own/plain; "
                         "chmod 755 /run/own/plain")  # fmt: skip
    config = {**net.config, "cniVersion": "1.0.0", "isDefaultGateway": True, "ipam": {"type": "plain"}}
    answered = host.cni("bridge", "ADD", config, netns=host.netns("a"), path="/run/own")
    assert answered.status == 0, answered
    assert set(net.kernel_addresses(None, "cni0")) == {gateway}
    assert answered.json["routes"] == [
        {"dst": "0.0.0.0/0" if version == 4 else "::/0", "gw": gateway.partition("/")[0]}
    ]


@pytest.mark.parametrize(("routes", "expected"), [
    ([{"dst": "0.0.0.0/0"}], [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00:1::1"}]),
    ([{"dst": "0.0.0.0/0", "gw": "10.1.0.99"}], [{"dst": "0.0.0.0/0", "gw": "10.1.0.99"}, {"dst": "::/0", "gw": "fd00:1::1"}]),
    ([{"dst": "::/0"}, {"dst": "10.9.0.0/16"}],
     [{"dst": "::/0"}, {"dst": "10.9.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]),
])  # fmt: skip
def test_a_default_gateway_beside_explicit_routes(net: Network, routes: Any, expected: Any) -> None:
    """The given route stays, the other family's is added, and none appears twice."""
    result = net.add("a", isDefaultGateway=True, ipam=host_local(routes=routes))
    assert result["routes"] == expected
    gateways = {"0.0.0.0/0": "10.1.0.1", "::/0": "fd00:1::1", "10.9.0.0/16": "10.1.0.1"}
    wanted = {("default" if r["dst"].endswith("/0") else r["dst"], r.get("gw") or gateways[r["dst"]]) for r in expected}
    assert {route for route in net.routes("a") if route[1]} == wanted
    assert net.check("a", isDefaultGateway=True, ipam=host_local(routes=routes)) == ""


def test_the_extras_of_routes(net: Network, host: PretendHost) -> None:
    """The keys of CNI 1.1.0: mtu, advmss, priority, table, scope."""
    routes = [
        {"dst": "10.9.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 77},
        {"dst": "fd09::/64", "priority": 78, "gw": "fd00:1::5"},
        {"dst": "10.10.0.0/16", "table": 5000},
        {"dst": "10.11.0.7/32", "table": 100, "scope": 0},
    ]
    result = net.add("a", ipam=host_local(routes=routes), isGateway=True)
    assert result["routes"] == routes
    found = {
        r["dst"]: r for r in host.ip("route", "show", "table", "all", netns="a") + host.ip("-6", "route", netns="a")
    }
    assert found["10.9.0.0/16"]["metric"] == 77 and found["10.9.0.0/16"]["metrics"] == [{"mtu": 1300, "advmss": 1200}]
    assert (found["fd09::/64"]["metric"], found["fd09::/64"]["gateway"]) == (78, "fd00:1::5")
    assert found["10.10.0.0/16"]["table"] == "5000" and found["10.11.0.7"]["table"] == "100"
    assert net.check("a", ipam=host_local(routes=routes), isGateway=True) == ""


def test_another_address_on_the_bridge(net: Network, host: PretendHost) -> None:
    """An IPv4 address or an overlapping IPv6 network is a conflict, unless forceAddress."""
    host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.5.0.1/16 dev cni0")
    net.refused("a", 999, "different from 10.1.0.1/24: 10.5.0.1/16", isGateway=True)
    assert host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"
    net.add("a", isGateway=True, forceAddress=True)
    assert set(net.kernel_addresses(None, "cni0")) == {"10.1.0.1/24", "fd00:1::1/64"}


def test_other_ipv6_networks_on_the_bridge_stay(net: Network, host: PretendHost) -> None:
    host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 up; ip address add fd00:9::1/64 dev cni0 nodad; "
                         "ip address add fd00:1::ff/48 dev cni0 nodad")  # fmt: skip
    net.refused("a", 999, "different from fd00:1::1/64", isGateway=True, ipam=host_local(V6))
    net.add("a", isGateway=True, forceAddress=True, ipam=host_local(V6))
    assert set(net.kernel_addresses(None, "cni0")) == {"fd00:9::1/64", "fd00:1::1/64"}


def test_gateways_of_several_ipv4_networks(net: Network, host: PretendHost) -> None:
    """They stay beside each other if the configuration says so, but an overlapping network is a conflict."""
    host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.5.0.1/16 dev cni0")
    keys = {"isGateway": True, "severalGateways": True}
    net.add("a", keys)
    assert set(net.kernel_addresses(None, "cni0")) == {"10.5.0.1/16", "10.1.0.1/24", "fd00:1::1/64"}
    assert net.check("a", keys) == ""
    inside = host_local("10.5.3.0/24")
    net.refused("b", 999, "different from 10.5.3.1/24: 10.5.0.1/16", keys, ipam=inside)
    assert net.call("STATUS", "", keys, ipam=inside).code == 50
    assert net.call("STATUS", "", keys, ipam=host_local("10.6.0.0/24")).status == 0
    assert net.call("STATUS", "", isGateway=True, ipam=host_local("10.6.0.0/24")).code == 50


def test_a_failing_add_leaves_the_gateway_that_another_pod_uses(net: Network, host: PretendHost) -> None:
    """It stays even if the bridge's index on the host equals the index of the other pod's link in its namespace."""
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    net.add("a", isGateway=True)
    index = host.ip("link", "show", "cni0")[0]["ifindex"]
    assert index == host.ip("link", "show", "eth0", netns="a")[0]["ifindex"]
    host.run("ip", "address", "flush", "dev", "cni0")
    assert net.unheard("b", isGateway=True).status == 1
    assert "10.1.0.1/24" in net.kernel_addresses(None, "cni0")
    assert net.pings("a", "10.1.0.1")


def test_an_address_that_was_forced_away_comes_back_when_the_add_fails(net: Network, host: PretendHost) -> None:
    host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.5.0.1/16 dev cni0")
    before = set(net.kernel_addresses(None, "cni0"))
    assert net.unheard("a", isGateway=True, forceAddress=True).status == 1
    assert set(net.kernel_addresses(None, "cni0")) == before


def test_the_bridges_mac_stays(net: Network, host: PretendHost) -> None:
    """By default a bridge takes the lowest MAC of its ports, and pods would lose their gateway for a while."""

    def mac() -> str:
        return str(host.ip("link", "show", "cni0")[0]["address"])

    host.run("ip", "link", "add", "cni0", "type", "bridge")
    net.add("a", isGateway=True)
    pinned = mac()
    host.run(
        "sh", "-c", "ip link add low address 02:00:00:00:00:01 type veth peer name low1; ip link set low master cni0 up"
    )
    for pod in ("b", "c", "d"):
        net.add(pod, isGateway=True)
        assert mac() == pinned
    for pod in ("a", "b", "c"):
        net.delete(pod)
        assert mac() == pinned
    host.run("ip", "link", "del", "low")
    assert mac() == pinned == net.add("e", isGateway=True)["interfaces"][0]["mac"]


def test_a_bridge_that_lost_its_ports(net: Network, host: PretendHost) -> None:
    """A bridge made by others then has no MAC (all zeros) until the next port joins."""
    host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 up; ip link add p type veth peer name p1; "
                         "ip link set p master cni0; ip link del p")  # fmt: skip
    assert host.ip("link", "show", "cni0")[0]["address"] == "00:00:00:00:00:00"
    result = net.add("a", isGateway=True)
    assert result["interfaces"][0]["mac"] == host.ip("link", "show", "cni0")[0]["address"] != "00:00:00:00:00:00"
    assert net.pings("a", "10.1.0.1")


def test_several_networks_on_one_bridge_with_ipv6(net: Network) -> None:
    """Each has its own gateway address."""
    net.add("a", isGateway=True, ipam=host_local(V6))
    net.add("b", isGateway=True, ipam=host_local("fd00:2::/64"), name="other")
    assert set(net.kernel_addresses(None, "cni0")) == {"fd00:1::1/64", "fd00:2::1/64"}


# -- MTU


def test_mtu(net: Network, host: PretendHost) -> None:
    result = net.add("a", mtu=1280)
    assert [interface["mtu"] for interface in result["interfaces"]] == [1280, 1280, 1280]
    assert [host.ip("link", "show", "cni0")[0]["mtu"], net.host_link("a")["mtu"], host.ip("link", "show", "eth0", netns="a")[0]["mtu"]] == [1280] * 3  # fmt: skip


UPLINKS = {
    "veth": "ip link add up0 mtu 1350 type veth peer name up1; ip link set up0 up; ip link set up1 up",
    "macvlan": "ip link add up0 mtu 1350 type veth peer name up1; ip link set up0 up; ip link set up1 up; "
    "ip link add m0 link up0 mtu 1320 type macvlan; ip link set m0 up",
    "ifb": "ip link add ifb7 mtu 1350 type ifb; ip link set ifb7 up",
    "loopback": "ip link set lo mtu 1000",
    "point to point": "ip tuntap add tun0 mode tun; ip link set tun0 mtu 1000 up",
    "down": "ip link add up0 mtu 1000 type veth peer name up1",
}


@pytest.mark.parametrize(("uplink", "mtu"), [("veth", 1350), ("macvlan", 1320), ("ifb", 1350), ("loopback", 1500),
                                             ("point to point", 1500), ("down", 1500)])  # fmt: skip
def test_mtu_auto(net: Network, host: PretendHost, uplink: str, mtu: int) -> None:
    """It is the smallest MTU of the up links that are neither loopback nor point-to-point, else the default."""
    if uplink == "point to point":
        done = host.run("sh", "-c", UPLINKS[uplink], check=False)
        if done.returncode:
            pytest.skip(f"no tun devices here: {done.stderr}")
    else:
        host.run("sh", "-c", UPLINKS[uplink])
    result = net.add("a", mtu="auto")
    assert [interface["mtu"] for interface in result["interfaces"]] == [mtu] * 3


def test_mtu_auto_again(net: Network, host: PretendHost) -> None:
    """The bridge and its ports do not count: the small MTU goes with the link that caused it."""
    host.run("sh", "-c", UPLINKS["ifb"])
    net.add("a", mtu="auto")
    host.run("ip", "link", "set", "ifb7", "mtu", "1450")
    assert net.add("b", mtu="auto")["interfaces"][2]["mtu"] == 1450


# -- port options


@pytest.mark.parametrize(
    ("keys", "option"), [({"hairpinMode": True}, "hairpin"), ({"portIsolation": True}, "isolated")]
)
def test_port_options(net: Network, host: PretendHost, keys: dict[str, bool], option: str) -> None:
    net.add("a", **keys)
    net.add("b")
    assert net.host_link("a")["linkinfo"]["info_slave_data"][option] is True
    assert net.host_link("b")["linkinfo"]["info_slave_data"][option] is False
    assert "PROMISC" not in host.ip("link", "show", "cni0")[0]["flags"]


def test_promiscuous_bridge(net: Network, host: PretendHost) -> None:
    net.add("a")
    net.add("b", promiscMode=True)
    assert "PROMISC" in host.ip("link", "show", "cni0")[0]["flags"]
    net.refused("c", 7, "hairpinMode.*promiscMode", promiscMode=True, hairpinMode=True)


def test_isolated_pods_reach_the_gateway_but_not_each_other(net: Network) -> None:
    net.add("a", isGateway=True, portIsolation=True)
    net.add("b", isGateway=True, portIsolation=True)
    net.add("c", isGateway=True)
    assert net.pings("a", "10.1.0.1") and net.pings("b", "fd00:1::1")
    assert not net.pings("a", "10.1.0.3")
    assert net.pings("a", "10.1.0.4") and net.pings("c", "fd00:1::3")


def test_pods_reach_each_other(net: Network) -> None:
    net.add("a")
    net.add("b")
    assert net.pings("a", "10.1.0.3") and net.pings("b", "fd00:1::2")


@pytest.mark.parametrize("links", [0, 1, 2])
def test_the_first_ipv6_packet_arrives(net: Network, host: PretendHost, links: int) -> None:
    """It arrives even if the pod's link has the index of its other end; earlier links in the pod decide the index.

    The kernel then reports carrier to the link up to a second late (linkwatch_urgent_event). Until then, IPv6 has no
    multicast route there, and no neighbour solicitation is answered.
    """
    host.netns("a")
    for _ in range(links):
        host.run("ip", "-n", "a", "link", "add", "past", "type", "ifb")
        host.run("ip", "-n", "a", "link", "del", "past")
    net.add("a")
    net.add("b")
    before = solicitations(host, "b")
    host.run("ip", "netns", "exec", "b", "ping", "-6", "-c1", "-W5", "fd00:1::2")
    # Answered at once: how long the echo takes says nothing on a busy machine, and a second question comes after 1 s.
    assert solicitations(host, "b") - before == 1


def solicitations(host: PretendHost, pod: str) -> int:
    counters = host.run("ip", "netns", "exec", pod, "cat", "/proc/net/snmp6").stdout.split()
    return int(counters[counters.index("Icmp6OutNeighborSolicits") + 1])


# -- layer 2


@pytest.mark.parametrize("ipam", [..., {}, None])
def test_layer_2(net: Network, host: PretendHost, ipam: Any) -> None:
    result = net.add("a", ipam=ipam, isGateway=True)
    assert "ips" not in result and len(result["interfaces"]) == 3
    assert net.kernel_addresses("a") == {} and net.kernel_addresses(None, "cni0") == {}
    assert "UP" in host.ip("link", "show", "eth0", netns="a")[0]["flags"]
    assert net.check("a", ipam=ipam, isGateway=True) == ""
    net.delete("a", ipam=ipam)
    assert not host.ip("link", "show", "type", "veth")


def test_a_disabled_container_interface(net: Network, host: PretendHost) -> None:
    keys = {"ipam": ..., "disableContainerInterface": True}
    result = net.add("a", **keys)
    assert result["interfaces"][2]["name"] == "eth0"
    assert "UP" not in host.ip("link", "show", "eth0", netns="a")[0]["flags"]
    assert net.check("a", **keys) == ""
    net.refused("b", 7, "disableContainerInterface.*ipam", disableContainerInterface=True)
    net.delete("a", **keys)


# -- duplicate address detection


def test_duplicate_address_detection_is_over_at_return(net: Network, host: PretendHost) -> None:
    net.add("a", enabledad=True, isGateway=True)
    for addresses in (net.kernel_addresses("a"), net.kernel_addresses(None, "cni0")):
        assert addresses and not any(address.get("tentative") for address in addresses.values())
    assert sysctl(host, "ipv6/conf/eth0/enhanced_dad", "a") == "1"
    assert sysctl(host, "ipv6/conf/eth0/accept_dad", "a") == "1"
    assert net.pings("a", "fd00:1::1")


def test_a_duplicate_in_the_segment_is_an_error(net: Network, host: PretendHost) -> None:
    """ADD frees the address."""
    net.add("stranger", ipam=...)
    host.run("ip", "-n", "stranger", "address", "add", "fd00:1::2/64", "dev", "eth0", "nodad")
    net.refused("a", 999, "fd00:1::2/64 is in use by another host", enabledad=True, ipam=host_local(V6))
    assert not host.ip("link", "show", netns="a")[1:]


def test_no_detection_without_the_key(net: Network, host: PretendHost) -> None:
    net.add("a")
    assert sysctl(host, "ipv6/conf/eth0/accept_dad", "a") == "0"
    assert not any(address.get("tentative") for address in net.kernel_addresses("a").values())


# -- MAC


@pytest.mark.parametrize("places", range(1, 8))
def test_mac_from_three_places(net: Network, host: PretendHost, places: int) -> None:
    """CNI_ARGS < args.cni < runtimeConfig."""
    keys: dict[str, Any] = {}
    if places & 1:
        keys["args"] = f"{K8S};MAC={MACS[0]}"
    given: dict[str, Any] = {}
    if places & 2:
        given["args"] = {"cni": {"mac": MACS[1].upper()}}
    if places & 4:
        given["runtimeConfig"] = {"mac": MACS[2]}
    expected = MACS[places.bit_length() - 1]
    config = {**net.config, **given}
    answer = host.cni("bridge", "ADD", config, netns=host.netns("a"), container_id="a", args=keys.get("args", ""))
    assert answer.status == 0, answer
    assert answer.json["interfaces"][2]["mac"] == host.ip("link", "show", "eth0", netns="a")[0]["address"] == expected
    checked = {**config, "prevResult": answer.json}
    assert (
        host.cni("bridge", "CHECK", checked, netns="/run/netns/a", container_id="a", args=keys.get("args", "")).status
        == 0
    )
    host.run("ip", "-n", "a", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    lost = host.cni("bridge", "CHECK", checked, netns="/run/netns/a", container_id="a", args=keys.get("args", ""))
    assert lost.code == 999 and expected in lost.json["details"]


@pytest.mark.parametrize("mac", ["", "x", "02:00:00:00:00", "01:00:00:00:00:01", "02:00:00:00:00:0g"])
def test_unusable_macs(net: Network, mac: str) -> None:
    if mac:
        net.refused("a", 7, "runtimeConfig.mac", runtimeConfig={"mac": mac})
        net.refused("a", 4, "MAC", args=f"MAC={mac}")
    else:
        net.add("a", runtimeConfig={"mac": mac})


# -- sysctls


@pytest.mark.row("advertisements")
def test_router_advertisements_are_not_accepted(net: Network, host: PretendHost) -> None:
    """Neither pod, host's end nor bridge accepts them, an existing bridge included (CVE-2020-10749)."""
    host.run("sh", "-c", "ip link add cni0 type bridge; ip link set cni0 up")
    assert sysctl(host, "ipv6/conf/cni0/accept_ra") == "1"
    net.add("a", isGateway=True)
    assert sysctl(host, "ipv6/conf/eth0/accept_ra", "a") == "0"
    assert sysctl(host, f"ipv6/conf/{net.host_link('a')['ifname']}/accept_ra") == "0"
    assert sysctl(host, "ipv6/conf/cni0/accept_ra") == "0"
    assert sysctl(host, "ipv4/conf/eth0/arp_notify", "a") == "1"


def test_ipv6_is_switched_on_where_the_runtime_switched_it_off(net: Network, host: PretendHost) -> None:
    host.netns("a")
    host.run("ip", "netns", "exec", "a", "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
    net.add("a", isGateway=True)
    assert "fd00:1::2/64" in net.kernel_addresses("a") and net.pings("a", "fd00:1::1")


# -- refusals


@pytest.mark.parametrize(("keys", "words"), [
    ({"vlan": 4095}, '"vlan": 4095'), ({"vlan": -1}, '"vlan"'), ({"vlan": "5"}, '"vlan"'),
    ({"vlanTrunk": [{"id": 0}]}, r'"vlanTrunk\[0\].id": 0'), ({"vlanTrunk": [{"id": 5}, {"minID": 7}]}, r"vlanTrunk\[1\].*minID.*maxID"),
    ({"vlanTrunk": [{"minID": 9, "maxID": 8}]}, r'vlanTrunk\[0\].minID": 9 is greater than "maxID" 8'),
    ({"vlanTrunk": {}}, '"vlanTrunk"'), ({"mtu": "big"}, '"mtu": "big"'), ({"mtu": True}, '"mtu": true'), ({"mtu": 65536}, '"mtu"'),
    ({"bridge": "a/b"}, '"bridge": "a/b"'), ({"bridge": ""}, '"bridge": ""'), ({"bridge": "x" * 16}, '"bridge"'), ({"bridge": ".."}, '"bridge"'),
    ({"bridge": "abcdefghijkl", "vlan": 100, "isGateway": True}, "too long for the VLAN gateway port abcdefghijkl.100"),
    ({"ipMasqBackend": "ebtables"}, '"ipMasqBackend": "ebtables"'), ({"isGateway": "yes"}, '"isGateway": "yes"'),
    ({"dns": {"nameservers": "1.1.1.1"}}, '"dns"'), ({"ipam": []}, '"ipam"'), ({"ipam": {"type": 5}}, "ipam.type"),
    ({"ipam": {"type": "../sh"}}, "ipam.type"), ({"ipam": {"type": "missing"}}, 'ipam.type": "missing" is not a plugin'),
])  # fmt: skip
def test_unusable_keys(net: Network, keys: dict[str, Any], words: str) -> None:
    net.refused("a", 7, words, **keys)


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
@pytest.mark.parametrize("kind", ["bridge", "loopback"])
def test_a_plugin_of_the_suite_that_is_no_ipam_plugin(net: Network, host: PretendHost, kind: str, verb: str) -> None:
    more: dict[str, Any] = {"prevResult": {}, "cni.dev/valid-attachments": []}
    netns = host.netns("a")
    before = host.snapshot(["a"])
    answer = host.cni("bridge", verb, {**net.config, **more, "ipam": {"type": kind}}, netns=netns)
    assert answer.code == 7, answer
    assert f'"ipam.type": "{kind}" is not an IPAM plugin' in answer.json["msg"]
    assert host.snapshot(["a"]) == before


def test_a_name_that_is_no_bridge(net: Network, host: PretendHost) -> None:
    host.run("ip", "link", "add", "cni0", "type", "ifb")
    net.refused("a", 999, "cni0 already exists but is not a bridge")
    assert net.call("STATUS", "a").code == 50


def test_a_second_add_is_an_error_and_changes_nothing(net: Network) -> None:
    net.add("a", isDefaultGateway=True)
    net.refused("a", 999, "eth0.*attached already", isDefaultGateway=True)
    assert net.check("a", isDefaultGateway=True) == ""


def test_a_strangers_interface_stays(net: Network, host: PretendHost) -> None:
    """Another program made the pod's eth0."""
    host.netns("a")
    host.run("ip", "-n", "a", "link", "add", "eth0", "type", "ifb")
    net.refused("a", 999, "eth0 already exists")
    net.delete("a")
    assert host.ip("link", "show", "eth0", netns="a")


def test_a_full_pool_leaves_nothing(net: Network) -> None:
    small = host_local("10.1.0.0/30")
    net.add("a", ipam=small)
    assert net.call("STATUS", "a", ipam=small).code == 50
    net.refused("b", 11, "10.1.0.1-10.1.0.2", ipam=small)
    net.delete("a", ipam=small)
    assert net.call("STATUS", "a", ipam=small).status == 0


def test_the_first_add_that_fails_takes_the_bridge_along(net: Network, host: PretendHost) -> None:
    net.refused("a", 7, "subnet", ipam=host_local("10.1.0.1/24"))
    assert not host.ip("link", "show", "type", "bridge")


# -- CHECK


def test_check_names_every_difference(net: Network, host: PretendHost) -> None:
    """CHECK reports each of the broken things."""
    net.add("a", isDefaultGateway=True)
    assert net.check("a", isDefaultGateway=True) == ""
    port = net.host_link("a")["ifname"]
    host.run("ip", "-n", "a", "address", "del", "10.1.0.2/24", "dev", "eth0")
    host.run("ip", "-n", "a", "-6", "route", "del", "default")
    host.run("ip", "link", "set", port, "nomaster")
    host.run("ip", "address", "del", "fd00:1::1/64", "dev", "cni0")
    host.run("rm", "/var/lib/cni/networks/net/10.1.0.2")
    answer = net.call("CHECK", "a", prevResult=net.results["a"], isDefaultGateway=True)
    assert answer.code == 999
    details = answer.json["details"]
    for words in ("address 10.1.0.2/24 is missing", "route to ::/0 via fd00:1::1", f"{port} is not a port of cni0",
                  "gateway address fd00:1::1 is missing", "host-local: 10.1.0.2"):  # fmt: skip
        assert words in details, details


@pytest.mark.parametrize(("damage", "words"), [
    ("ip link set cni0 down", "cni0 is down"), ("ip link del cni0", "cni0 is missing"),
    ("ip link set {port} down", "{port} is down"), ("ip link del {port}", "eth0 is missing"),
    ("ip -n a link set eth0 down", "eth0 is down"), ("ip address flush dev cni0 scope global", "gateway address 10.1.0.1 is missing"),
])  # fmt: skip
def test_check(net: Network, host: PretendHost, damage: str, words: str) -> None:
    net.add("a", isGateway=True)
    port = net.host_link("a")["ifname"]
    host.run("sh", "-c", damage.format(port=port))
    answer = net.call("CHECK", "a", prevResult=net.results["a"], isGateway=True)
    assert answer.code == 999 and words.format(port=port) in answer.json["details"]


def test_check_looks_at_its_own_addresses_only(net: Network) -> None:
    """prevResult of a chain contains other attachments' addresses."""
    net.add("a", isGateway=True)
    result = net.results["a"]
    result["interfaces"].append({"name": "eth9", "sandbox": net.netns("a")})
    result["ips"].append({"interface": 3, "address": "192.168.9.9/24", "gateway": "192.168.9.1"})
    assert net.check("a", isGateway=True) == ""


def test_check_of_two_interfaces_with_the_same_routes(net: Network, host: PretendHost) -> None:
    """The kernel merges IPv6 default routes into one with several next hops; CHECK looks for each interface's own."""
    netns = host.netns("a")
    config = {**net.config, "isDefaultGateway": True}

    def call(verb: str, number: int, **more: Any) -> Answer:
        return host.cni("bridge", verb, {**config, **more}, netns=netns, container_id="a", ifname=f"eth{number}")

    results = [call("ADD", number).json for number in range(3)]
    assert len(host.ip("-6", "route", "show", "default", netns="a")[0]["nexthops"]) == 3
    assert [call("CHECK", number, prevResult=results[number]).status for number in range(3)] == [0, 0, 0]
    host.run("ip", "-n", "a", "-6", "route", "del", "default", "via", "fd00:1::1", "dev", "eth1")
    assert [call("CHECK", number, prevResult=results[number]).status for number in range(3)] == [0, 1, 0]
    assert "route to ::/0 via fd00:1::1 is missing" in call("CHECK", 1, prevResult=results[1]).json["details"]


def test_check_of_a_result_in_capitals(net: Network) -> None:
    """Names and MACs match in either case of letters; CHECK finds a wrong address in such a result."""
    net.add("a", isGateway=True)
    result = net.results["a"]
    result["interfaces"] = [{**entry, "mac": entry["mac"].upper()} for entry in result["interfaces"]]
    capitals = {key.upper(): value for key, value in result.items()}
    assert net.call("CHECK", "a", isGateway=True, prevResult=capitals).status == 0
    capitals["IPS"][0]["address"] = "10.1.0.99/24"
    answer = net.call("CHECK", "a", isGateway=True, prevResult=capitals)
    assert answer.code == 999 and "address 10.1.0.99/24 is missing" in answer.json["details"], answer


def test_check_needs_a_previous_result(net: Network) -> None:
    net.add("a")
    assert net.call("CHECK", "a").code == 7


# -- DEL, GC, STATUS


def gone(host: PretendHost) -> bool:
    """Return True if nothing is left but the bridge and empty stores."""
    leases = host.run("sh", "-c", "ls /var/lib/cni/networks/*/ | grep '[.:].*[.:]' || true").stdout
    return not host.ip("link", "show", "type", "veth") and not leases.strip()


@pytest.mark.parametrize(
    "state", ["whole", "netns empty", "netns gone", "netns file left", "with prevResult", "no path"]
)
def test_delete(net: Network, host: PretendHost, state: str) -> None:
    """DEL succeeds repeatedly, with the namespace and without."""
    net.add("a", isDefaultGateway=True)
    netns = net.netns("a")
    if state in ("netns gone", "netns file left"):
        host.drop_netns("a")
    if state == "netns file left":
        host.run("touch", netns)
    config = {**net.config, **({"prevResult": net.results["a"]} if state == "with prevResult" else {})}
    for _ in range(3):
        answer = host.cni("bridge", "DEL", config, netns="" if state == "netns empty" else netns, container_id="a")
        assert (answer.status, answer.stdout) == (0, ""), answer
    if state == "netns gone":
        until(lambda: gone(host), seconds=5)  # the kernel deletes a namespace in its own time
    assert gone(host)


def test_delete_of_what_never_was(net: Network, host: PretendHost) -> None:
    host.netns("a")
    net.delete("a")
    assert host.snapshot()["files"] == {} and len(host.snapshot()["host"]["links"]) == 1


def test_delete_takes_only_its_own(net: Network) -> None:
    net.add("a", isGateway=True)
    net.add("b", isGateway=True)
    net.delete("a")
    assert net.check("b", isGateway=True) == "" and net.pings("b", "10.1.0.1")


def test_the_hosts_own_netns(net: Network, host: PretendHost) -> None:
    """ADD refuses it and touches nothing. For DEL the pod is gone."""
    empty = host.snapshot()
    net.add("a")
    before = host.snapshot(["a"])
    answer = host.cni("bridge", "ADD", net.config, netns="/proc/1/ns/net", container_id="a")
    assert answer.code == 8, answer
    assert host.snapshot(["a"]) == before
    answer = host.cni("bridge", "DEL", net.config, netns="/proc/1/ns/net", container_id="a")
    assert answer.status == 0, answer
    after = host.snapshot()
    assert not [name for name in after["files"] if name.endswith(("/10.1.0.2", "/fd00:1::2"))]
    assert {*after["host"]["links"]} == {*empty["host"]["links"], "cni0"}


def test_delete_that_cannot_free_the_address_says_so(net: Network, host: PretendHost) -> None:
    """DEL has removed the link all the same."""
    net.add("a")
    answer = net.call("DEL", "a", ipam={"type": "missing"})
    assert answer.code == 7 and "missing" in answer.json["msg"]
    assert not host.ip("link", "show", "type", "veth")


def test_garbage_collection_on_a_shared_bridge(net: Network, host: PretendHost) -> None:
    """GC deletes only this network's links and leases of attachments that are not valid."""
    other: dict[str, Any] = {"name": "other", "ipam": host_local("10.2.0.0/24")}
    for pod in ("a", "b", "c"):
        net.add(pod)
    net.add("d", **other)
    net.add("a", ifname="net1")
    host.run("ip", "link", "add", "vethstranger", "type", "veth", "peer", "name", "vethstranger1")
    valid = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "c", "ifname": "eth0"}]
    answer = host.cni("bridge", "GC", {**net.config, "cni.dev/valid-attachments": valid})
    assert (answer.status, answer.stdout) == (0, ""), answer
    aliases = {link.get("ifalias") for link in host.ip("link", "show", "type", "veth")} - {None}
    assert aliases == {"pycni:net/a/eth0", "pycni:net/c/eth0", "pycni:other/d/eth0"}
    assert host.ip("link", "show", "vethstranger")
    leases = {name for name in host.snapshot()["files"] if re.search(r"/10\.\d+\.0\.\d+$", name)}
    assert leases == {"/var/lib/cni/networks/net/10.1.0.2", "/var/lib/cni/networks/net/10.1.0.4", "/var/lib/cni/networks/other/10.2.0.2"}  # fmt: skip
    assert net.check("c") == ""


def test_garbage_collection_leaves_what_only_looks_like_its_own(net: Network, host: PretendHost) -> None:
    """Names are digests: another network's link may have the same prefix. Aliases name owners; strangers have none."""
    net.add("a")
    prefix = Owner("net", "gone", "eth0").host_link[:-8]
    for number, (kind, alias) in enumerate([
        ("veth peer name far0", "pycni:namesake/gone/eth0"), ("veth peer name far1", "pycni:net2/gone/eth0"),
        ("bridge", ""), ("ifb", "pycni:net/gone/eth0"),
    ]):  # fmt: skip
        host.run("ip", "link", "add", f"{prefix}{number:08x}", "type", *kind.split())
        host.run("ip", "link", "set", f"{prefix}{number:08x}", "alias", alias)
    host.run("ip", "link", "add", f"{prefix}000000z0", "type", "veth", "peer", "name", "far2")
    host.run("ip", "link", "add", f"{prefix}0000007", "type", "veth", "peer", "name", "far3")
    host.run("ip", "link", "add", f"{prefix}00000009", "type", "veth", "peer", "name", "far9")
    host.run("ip", "link", "set", f"{prefix}00000009", "alias", "pycni:net/gone/eth9")
    before = {link["ifname"] for link in host.ip("link")}
    answer = host.cni("bridge", "GC", {**net.config, "cni.dev/valid-attachments": []})
    assert (answer.status, answer.stdout) == (0, ""), answer
    gone = before - {link["ifname"] for link in host.ip("link")}
    assert gone == {net.results["a"]["interfaces"][1]["name"], f"{prefix}00000009", "far9"}


def test_garbage_collection_without_a_list(net: Network, host: PretendHost) -> None:
    net.add("a")
    before = host.snapshot(["a"])
    assert host.cni("bridge", "GC", net.config).code == 7
    assert host.snapshot(["a"]) == before


def test_status(net: Network, host: PretendHost) -> None:
    assert host.cni("bridge", "STATUS", net.config).status == 0
    assert host.snapshot()["files"] == {} and len(host.ip("link", "show")) == 1  # asking makes nothing
    for ipam, words in (({"type": "missing"}, "missing"), (host_local("10.1.0.0/31"), "too small")):
        answer = host.cni("bridge", "STATUS", {**net.config, "ipam": ipam})
        assert answer.code == 50 and words in answer.json["msg"], answer
    host.run("sh", "-ec", "mkdir -p /run/store; : >/run/store/net")  # only the IPAM plugin sees this fault
    answer = host.cni("bridge", "STATUS", {**net.config, "ipam": host_local(dataDir="/run/store")})
    assert answer.code == 50 and "/run/store/net" in answer.json["msg"] + answer.json.get("details", ""), answer


# -- VLANs: see also test_vlans.py


def test_vlans_on_a_kernel_that_cannot_filter_them(net: Network, host: PretendHost) -> None:
    """Code 2 names the missing feature, whether the bridge exists or not, and nothing is left."""
    if host.run("ip", "link", "add", "probe", "type", "bridge", "vlan_filtering", "1", check=False).returncode == 0:
        pytest.skip("this kernel's bridges filter VLANs")
    net.refused("a", 2, "filter VLANs", vlan=100)
    net.refused("a", 2, "filter VLANs", vlanTrunk=[{"minID": 5, "maxID": 9}])
    net.add("b")
    net.refused("a", 2, "filter VLANs", vlan=100, isGateway=True)


# -- as clients call


def test_as_containerd_calls(net: Network, host: PretendHost) -> None:
    """Capitalised keys, null members, loopback in parallel, repeated DELs with an empty CNI_NETNS."""
    config = {
        "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": None,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": V4}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": None},
        "runtimeConfig": {
            "portMappings": [{"HostPort": 80, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": ""}],
            "bandwidth": {"IngressRate": 1000}, "dns": {"Servers": ["1.1.1.1"], "Searches": None, "Options": None},
            "Mac": MACS[0], "ips": None,
        },
        "DNS": {"Nameservers": ["1.1.1.1"], "Search": None}, "prevResult": None,
    }  # fmt: skip
    lo = {"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"}
    netns = host.netns("a")
    answers: dict[str, Answer] = {}

    def loopback() -> None:
        answers["lo"] = host.cni("loopback", "ADD", lo, netns=netns, container_id="a", ifname="lo", args=K8S)

    side = threading.Thread(target=loopback)
    side.start()
    answers["eth0"] = host.cni("bridge", "ADD", config, netns=netns, container_id="a", args=K8S)
    side.join()
    assert [answer.status for answer in answers.values()] == [0, 0], answers
    assert answers["eth0"].json["interfaces"][2]["mac"] == MACS[0]
    assert answers["eth0"].json["dns"] == {"nameservers": ["1.1.1.1"]}
    assert net.pings("a", "10.1.0.1") and net.pings("a", "127.0.0.1")
    for place in (netns, "", ""):
        answer = host.cni("bridge", "DEL", config, netns=place, container_id="a", args=K8S)
        assert (answer.status, answer.stdout) == (0, ""), answer
    assert gone(host)


@pytest.mark.parametrize("ours_adds", [True, False])
def test_the_reference_takes_over_in_the_middle_of_a_pods_life(
    net: Network, host: PretendHost, reference_bin: str, ours_adds: bool
) -> None:
    bins = [host.bin_dir, reference_bin] if ours_adds else [reference_bin, host.bin_dir]
    config = {**net.config, "cniVersion": "1.0.0", "isDefaultGateway": True}
    netns = host.netns("a")
    added = host.cni("bridge", "ADD", config, netns=netns, container_id="a", bin_dir=bins[0])
    assert added.status == 0, added
    checked = host.cni(
        "bridge", "CHECK", {**config, "prevResult": added.json}, netns=netns, container_id="a", bin_dir=bins[1]
    )
    assert checked.status == 0, checked
    deleted = host.cni("bridge", "DEL", config, netns=netns, container_id="a", bin_dir=bins[1])
    assert deleted.status == 0, deleted
    assert gone(host)


# -- the cost of a call, in counts


@pytest.fixture
def traced(net: Network, host: PretendHost) -> list[str]:
    """Return the system calls of a steady ADD, in which bridge and store exist."""
    net.add("a", isDefaultGateway=True)
    config = {**net.config, "isDefaultGateway": True}
    names = f"trace=sendto,sendmsg,{WAITS},clone,clone3,fork,vfork,execve,openat,setns,socket"
    prefix = ("strace", "-f", "-qq", "-o", "/run/trace", "-e", names)
    answer = host.cni("bridge", "ADD", config, netns=host.netns("b"), container_id="b", prefix=prefix)
    assert answer.status == 0, answer
    return host.run("cat", "/run/trace").stdout.splitlines()


def test_counts_of_a_steady_add(traced: list[str]) -> None:
    """No child process; no more messages to the kernel than today, each of which is a context switch and a lock.

    Today's messages on the host: veth pair, host's end, bridge, batch (port, up), and the tables of nf_tables, in which
    rules of an earlier configuration may be left. In the pod: link, batch (addresses, up, routes), carrier, and whether
    its IPv6 address is a local one. Then: the bridge's addresses, carrier on the host, the bridge with its link-local
    address, the announcement.
    """
    calls = [line.split(maxsplit=1)[1] for line in traced]
    assert not [call for call in calls if call.startswith(("clone", "fork", "vfork"))]
    assert sum(call.startswith("execve") for call in calls) == 1
    assert messages_outside_waits(calls) <= 14
    assert not [call for call in calls if "AF_PACKET" in call]  # closing such a socket takes 10 ms
    assert sum(call.startswith("setns") for call in calls) == 2
