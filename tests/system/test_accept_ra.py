"""The host's IPv6 routes by router advertisements stay when the first pod makes the host forward."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.pretend import Answer, PretendHost, until
from tests.system.pod_network import CNITOOL, NETWORK
from tests.system.router import FOREVER, Router

V4, V6 = {"subnet": "10.1.0.0/24"}, {"subnet": "fd00:1::/64"}
HOUR = 3600

pytestmark = pytest.mark.row("accept-ra")


def accept_ra(host: PretendHost, link: str) -> str:
    return host.run("cat", f"/proc/sys/net/ipv6/conf/{link}/accept_ra").stdout.strip()


def forwards(host: PretendHost) -> str:
    return host.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").stdout.strip()


def call(host: PretendHost, verb: str = "ADD", pod: str = "a", *subnets: dict[str, str], **keys: Any) -> Answer:
    config = {
        "cniVersion": "1.1.0", "name": "net", "type": "bridge", "isGateway": True, **keys,
        "ipam": {"type": "host-local", "ranges": [[subnet] for subnet in subnets or (V4, V6)]},
    }  # fmt: skip
    return host.cni("bridge", verb, config, netns=f"/run/netns/{pod}", container_id=pod)


def attach(host: PretendHost, pod: str = "a", *subnets: dict[str, str], **keys: Any) -> Any:
    host.netns(pod)
    answer = call(host, "ADD", pod, *subnets, **keys)
    assert answer.status == 0, answer
    return answer.json


@pytest.mark.parametrize("valid", [0, HOUR, FOREVER], ids=["no prefix", "a prefix", "a prefix for ever"])
def test_the_default_route_stays_and_is_renewed(host: PretendHost, valid: int) -> None:
    router = Router(host)
    router.teach(HOUR, valid)
    attach(host)
    assert forwards(host) == "1"
    assert router.expires() > HOUR // 2, "the default route is gone"
    assert accept_ra(host, "up0") == "2"
    router.teach(2 * HOUR, valid)
    assert router.expires() > HOUR


def test_an_address_alone_counts(host: PretendHost) -> None:
    """A router that is no default router now may be one with its next advertisement."""
    router = Router(host)
    until(lambda: "2001:db8:1:" in host.run("ip", "-6", "addr").stdout, lambda: router.advertise(0, HOUR), seconds=5)
    assert router.expires() == 0
    attach(host)
    assert accept_ra(host, "up0") == "2"
    router.teach(HOUR)


def test_each_link_is_judged_by_itself(host: PretendHost) -> None:
    """accept_ra 0 is the administrator's choice, and a link without advertisements is left alone."""
    routers = [Router(host, link, link) for link in ("up0", "up1")]
    for router in routers:
        router.teach(HOUR)
    host.run(
        "sh",
        "-ec",
        "ip link add other up type veth peer other9; ip link set other9 up; echo 0 >/proc/sys/net/ipv6/conf/up1/accept_ra",
    )
    host.run("ip", "link", "add", "static", "up", "type", "bridge")
    host.run("ip", "address", "add", "fd00:9::1/64", "dev", "static", "nodad")
    attach(host)
    assert [accept_ra(host, link) for link in ("up0", "up1", "other", "static")] == ["2", "0", "1", "1"]


def test_a_route_in_another_table_counts(host: PretendHost) -> None:
    """A link of a VRF has such a route, and systemd-networkd can add one."""
    router = Router(host)
    host.run("ip", "-6", "route", "add", "2001:db8:5::/64", "dev", router.link, "proto", "ra", "table", "99")
    attach(host)
    assert accept_ra(host, "up0") == "2"


def test_nothing_changes_without_a_change_of_forwarding(host: PretendHost) -> None:
    """IPv4 alone, and a host that forwards already: accept_ra is then the administrator's."""
    router = Router(host)
    router.teach(HOUR)
    attach(host, "a", V4)
    assert (forwards(host), accept_ra(host, "up0")) == ("0", "1")
    assert router.expires()
    host.run("sysctl", "-qw", "net.ipv6.conf.up0.accept_ra=2", "net.ipv6.conf.all.forwarding=1")
    router.teach(HOUR)
    host.run("sysctl", "-qw", "net.ipv6.conf.up0.accept_ra=1")
    attach(host, "b")
    assert accept_ra(host, "up0") == "1"


def test_the_hosts_own_bridge_keeps_its_way_out(host: PretendHost) -> None:
    """A bridge with a default route by advertisements goes on accepting them; other bridges accept none."""
    router = Router(host)
    host.run("sh", "-ec", "ip link add cni0 up type bridge; ip link set up0 master cni0")
    router.teach(HOUR, HOUR, "cni0")
    attach(host)
    assert router.expires("cni0") > HOUR // 2
    router.teach(2 * HOUR, HOUR, "cni0")
    assert router.expires("cni0") > HOUR
    attach(host, "b", {"subnet": "10.2.0.0/24"}, bridge="cni1")
    assert accept_ra(host, "cni1") == "0"


def test_explain_tells_it(host: PretendHost) -> None:
    Router(host).teach(HOUR)
    host.run("sh", "-ec", "mkdir -p /etc/cni/net.d; cat >/etc/cni/net.d/10-pods.conflist", input=json.dumps(NETWORK))
    told = host.run(
        *CNITOOL, "explain", "/etc/cni/net.d/10-pods.conflist", "--bin-dir", host.bin_dir, timeout=120
    ).stdout
    assert "net.ipv6.conf.up0.accept_ra = 2 (was 1)" in told, told


def test_forwarding_stays_off_if_the_route_cannot_be_kept(host: PretendHost) -> None:
    """accept_ra cannot be written: the error says so before the route is lost."""
    router = Router(host)
    router.teach(HOUR)
    own = "/proc/sys/net/ipv6/conf/up0"
    host.run("sh", "-ec", f"mount --bind {own} {own}; mount -o remount,bind,ro {own}")
    host.netns("a")
    answer = call(host)
    assert answer.code == 999 and "net/ipv6/conf/up0/accept_ra: it is 1, and must be 2" in answer.json["msg"], answer
    assert forwards(host) == "0" and router.expires()
