"""STATUS of bridge: code 50 exactly if the node's state makes an ADD fail."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.faults import batch
from tests.faults.batch import Call
from tests.node import V4, Network, host_local, sysctl
from tests.pretend import Answer, PretendHost

pytestmark = pytest.mark.row(16)
BRIDGE = "ip link add cni0 type bridge; ip link set cni0 up; "
NO_IPV6 = "mount -t tmpfs -o ro tmpfs /proc/sys/net/ipv6"
NO_FORWARDING = "mount --bind -o ro /proc/sys/net/ipv4 /proc/sys/net/ipv4"
GATEWAY: dict[str, Any] = {"isGateway": True}


def said(answer: Answer) -> str:
    return f"{answer.json['msg']} {answer.json.get('details', '')}"


def ranges(*sets: list[str]) -> dict[str, Any]:
    return {"type": "host-local", "ranges": [[{"subnet": subnet} for subnet in one] for one in sets]}


@pytest.mark.parametrize(("state", "keys", "words"), [
    (BRIDGE + "ip address add 10.5.0.1/16 dev cni0", GATEWAY, "cni0 already has an IP address different from 10.1.0.1/24: 10.5.0.1/16"),
    (BRIDGE + "ip address add 10.1.0.1/16 dev cni0", {"isDefaultGateway": True}, "different from 10.1.0.1/24: 10.1.0.1/16"),
    (BRIDGE + "ip address add fd00:1::ff/48 dev cni0 nodad", GATEWAY, "different from fd00:1::1/64: fd00:1::ff/48"),
    (":", {**GATEWAY, "ipam": ranges([V4], ["10.2.0.0/24"])}, "different from 10.2.0.1/24: 10.1.0.1/24"),
    (BRIDGE + "ip address add 10.5.0.1/16 dev cni0", {**GATEWAY, "ipam": ranges([V4, "10.2.0.0/24"])}, "different from 10.1.0.1/24"),
    (BRIDGE + "echo 1 >/proc/sys/net/ipv6/conf/cni0/disable_ipv6", GATEWAY, "sysctl -w net.ipv6.conf.cni0.disable_ipv6=0"),
    (BRIDGE + "ip link set cni0 mtu 1000", GATEWAY, "cni0 .*its MTU is 1000 and IPv6 needs 1280"),
    ("ip link add cni0 type ifb", {}, "cni0 .*not a bridge"),
    (":", {"mtu": 1000}, "its MTU is 1000 bytes and IPv6 needs 1280"),
    ("ip link add slow mtu 1000 type ifb; ip link set slow up", {"mtu": "auto"}, "its MTU is 1000 bytes"),
    (":", {"ipam": {"type": "missing"}}, "missing"),
    (NO_FORWARDING, {**GATEWAY, "ipam": host_local(V4)}, "ip_forward"),
])  # fmt: skip
def test_an_add_must_fail(net: Network, host: PretendHost, state: str, keys: dict[str, Any], words: str) -> None:
    """STATUS and ADD fail for the same reason."""
    host.netns("a")
    host.run("sh", "-ec", state)
    status = net.call("STATUS", "a", **keys)
    assert status.code == 50, status
    before = host.snapshot(["a"])["host"]
    added = net.call("ADD", "a", **keys)
    assert added.status == 1, added
    assert re.search(words, said(status)) and re.search(words, said(added)), (status, added)
    assert host.snapshot(["a"])["host"] == before


@pytest.mark.parametrize(("state", "keys"), [
    (BRIDGE + "ip address add 10.5.0.1/16 dev cni0", {**GATEWAY, "forceAddress": True}),
    (BRIDGE + "ip address add 10.5.0.1/16 dev cni0", {}),
    (BRIDGE + "ip address add 10.1.0.1/24 dev cni0; ip address add fd00:5::1/64 dev cni0 nodad", GATEWAY),
    # the ADD that gets an address of the second range succeeds
    (BRIDGE + "ip address add 10.2.0.1/24 dev cni0", {**GATEWAY, "ipam": ranges(["10.2.0.0/24", V4])}),
    (BRIDGE + "echo 1 >/proc/sys/net/ipv6/conf/cni0/disable_ipv6", {}),
    (BRIDGE + "echo 1 >/proc/sys/net/ipv6/conf/cni0/disable_ipv6", {**GATEWAY, "ipam": host_local(V4)}),
    (BRIDGE + "ip link set cni0 mtu 1000", {}),
    (NO_FORWARDING, {"ipam": host_local(V4)}),
    ("echo 1 >/proc/sys/net/ipv4/ip_forward; " + NO_FORWARDING, {**GATEWAY, "ipam": host_local(V4)}),
    (":", {"mtu": 68, "ipam": host_local(V4)}),
])  # fmt: skip
def test_an_add_can_succeed(net: Network, host: PretendHost, state: str, keys: dict[str, Any]) -> None:
    host.run("sh", "-ec", state)
    status = net.call("STATUS", "a", **keys)
    assert status.status == 0, status
    net.add("a", **keys)


def test_an_mtu_that_no_link_has(net: Network) -> None:
    for mtu in (1, 67):
        net.refused("a", 7, f'"mtu": {mtu} must be 0 or at least 68', mtu=mtu)


def test_a_kernel_without_ipv6(net: Network, host: PretendHost) -> None:
    """With ipv6.disable=1 there is no net.ipv6: ADD refuses before it does anything."""
    host.run("sh", "-ec", NO_IPV6)
    for keys in ({}, GATEWAY):
        assert net.call("STATUS", "a", **keys).code == 50
        net.refused("a", 999, "IPv6 is disabled in this host's kernel", **keys)
    only_4 = {**GATEWAY, "ipam": host_local(V4)}
    assert net.call("STATUS", "a", **only_4).status == 0
    net.add("a", **only_4)


@pytest.mark.parametrize("place", ["default", "all"])
def test_ipv6_switched_off_by_sysctl(net: Network, host: PretendHost, place: str) -> None:
    """The bridge that ADD makes has IPv6 nevertheless, and no other link; one with IPv4 only has none."""
    host.run("sh", "-ec", f"echo 1 >/proc/sys/net/ipv6/conf/{place}/disable_ipv6")
    net.add("b", isGateway=True, ipam=host_local("10.2.0.0/24"), name="other", bridge="cni1")
    assert sysctl(host, "ipv6/conf/cni1/disable_ipv6") == "1"
    assert net.call("STATUS", "a", **GATEWAY).status == 0
    net.add("a", **GATEWAY)
    assert net.pings("a", "fd00:1::1") and net.check("a", **GATEWAY) == ""
    assert sysctl(host, "ipv6/conf/cni0/disable_ipv6") == "0" and sysctl(host, "ipv6/conf/default/disable_ipv6") == "1"
    assert net.call("STATUS", "a", **GATEWAY).status == 0
    net.add("c", **GATEWAY)
    assert net.pings("c", "fd00:1::2")


def test_first_adds_at_once_where_ipv6_is_switched_off(net: Network, host: PretendHost) -> None:
    host.run("sh", "-ec", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")
    batch.make_pods(host, 8)
    for _ in range(2):
        calls = [
            Call("bridge", "ADD", {**net.config, **GATEWAY}, {"CNI_CONTAINERID": f"c{n}", "CNI_IFNAME": f"eth{n}"})
            for n in range(8)
        ]
        answers = batch.run(host, calls, at_once=8)
        assert {answer.status for answer in answers} == {0}, answers
        for call in calls:
            env = call.env
            host.cni(
                "bridge", "DEL", net.config, container_id=str(env["CNI_CONTAINERID"]), ifname=str(env["CNI_IFNAME"])
            )
        host.run("ip", "link", "del", "cni0")


def test_a_bridge_that_a_killed_add_left(net: Network, host: PretendHost) -> None:
    """A killed ADD left it without its sysctls: it counts as new, and an ADD that fails resets it."""
    host.run("sh", "-ec", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6; ip link add cni0 type bridge")
    assert net.call("STATUS", "a", **GATEWAY).status == 0
    assert net.unheard("a", **GATEWAY).status == 1
    assert sysctl(host, "ipv6/conf/cni0/disable_ipv6") == "1"
    net.add("a", **GATEWAY)
    assert net.pings("a", "fd00:1::1")


@pytest.mark.parametrize("there_before", ["nothing", "a stranger's bridge"])
def test_another_ipam_plugin(net: Network, host: PretendHost, there_before: str) -> None:
    """Its networks are unknown before it answers: only ADD detects the conflict, and frees the address."""
    answer = json.dumps({"cniVersion": "1.0.0", "ips": [{"address": "fd07::9/64"}]})
    script = f"#!/bin/sh\ncat >/dev/null\necho $CNI_COMMAND >>/run/own/calls\necho '{answer}'\n"
    host.run("sh", "-ec", "mkdir /run/own; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
    (host.root / "run/own/plain").write_text(script)
    host.run("chmod", "755", "/run/own/plain")
    config = {**net.config, "cniVersion": "1.0.0", "isGateway": True, "ipam": {"type": "plain"}}
    if there_before != "nothing":
        host.run("sh", "-ec", BRIDGE)
    added = host.cni("bridge", "ADD", config, netns=host.netns("a"), container_id="a", path="/run/own")
    if there_before == "nothing":
        assert added.status == 0 and net.pings("a", "fd07::1"), added
    else:
        assert added.code == 999 and "sysctl -w net.ipv6.conf.cni0.disable_ipv6=0" in said(added)
        assert host.run("cat", "/run/own/calls").stdout.split() == ["ADD", "DEL"]
        assert not host.ip("link", "show", "type", "veth")


def test_vlans_on_a_kernel_that_cannot_filter_them(net: Network, host: PretendHost) -> None:
    if host.run("ip", "link", "add", "probe", "type", "bridge", "vlan_filtering", "1", check=False).returncode == 0:
        pytest.skip("this kernel's bridges filter VLANs")
    for keys in ({"vlan": 100}, {"vlanTrunk": [{"id": 5}]}):
        for state in (":", BRIDGE):
            host.run("sh", "-c", state)
            status = net.call("STATUS", "a", **keys)
            assert status.code == 50 and "filter VLANs" in said(status), status
    assert {link["ifname"] for link in host.ip("link", "show")} == {"lo", "cni0"}
