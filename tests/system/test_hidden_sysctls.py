"""/proc/sys is hidden or lacks files: calls that need them fail and say why; a kernel without IPv6 is fine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.pretend import Answer, PretendHost
from tests.system.hostport_nodes import TCP, Plain
from tests.system.pod_network import CNITOOL

pytestmark = pytest.mark.row("hidden-sysctl")

# Each hides the sysctls that bridge, portmap and tuning need.
HIDDEN = {
    "/proc/sys": "mount -t tmpfs -o ro tmpfs /proc/sys",
    "/proc/sys/net": "mount -t tmpfs tmpfs /proc/sys/net",
    "/proc/sys/net/ipv4": "mount -t tmpfs tmpfs /proc/sys/net/ipv4",
}
NO_IPV6 = "mount -t tmpfs -o ro tmpfs /proc/sys/net/ipv6"
V4, V6 = {"subnet": "10.1.0.0/24"}, {"subnet": "fd00:1::/64"}


def call(host: PretendHost, verb: str, *subnets: dict[str, str], pod: str = "a", **keys: Any) -> Answer:
    ipam = {"ipam": {"type": "host-local", "ranges": [[subnet] for subnet in subnets]}} if subnets else {}
    config = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", **ipam, **keys}
    return host.cni("bridge", verb, config, netns=f"/run/netns/{pod}", container_id=pod)


def said(answer: Answer) -> str:
    return f"{answer.json['msg']} {answer.json.get('details', '')}"


@pytest.mark.parametrize("how", HIDDEN)
@pytest.mark.parametrize("subnets", [(V4,), (V4, V6), ()], ids=["IPv4", "dual stack", "layer 2"])
def test_bridge(host: PretendHost, how: str, subnets: tuple[dict[str, str], ...]) -> None:
    """ADD can set nothing, so it makes nothing; DEL deletes the link."""
    keys: dict[str, Any] = {"isGateway": True} if subnets else {}
    for pod in "ab":
        host.netns(pod)
    added = call(host, "ADD", *subnets, pod="b", **keys)
    assert added.status == 0, added
    host.run("sh", "-ec", HIDDEN[how])
    before = host.snapshot("ab")
    answer = call(host, "ADD", *subnets, **keys)
    assert answer.code == 999 and "there is no /proc/sys/net/ipv4/ip_forward" in said(answer), answer
    assert host.snapshot("ab") == before
    status = call(host, "STATUS", *subnets, **keys)
    assert status.code == 50 and "/proc/sys/net/ipv4/ip_forward" in said(status), status
    check = call(host, "CHECK", *subnets, pod="b", prevResult=added.json, **keys)
    assert (check.code == 999 and "/proc/sys" in said(check)) if subnets else check.status == 0, check
    deleted = call(host, "DEL", *subnets, pod="b", **keys)
    assert deleted.code == 5 if how == "/proc/sys" and subnets else deleted.status == 0, deleted  # the store's boot id
    assert not host.ip("link", "show", "type", "veth")


@pytest.mark.parametrize("subnets", [(V4,), ()], ids=["IPv4", "layer 2"])
def test_a_kernel_without_ipv6(host: PretendHost, subnets: tuple[dict[str, str], ...]) -> None:
    """The kernel has no net.ipv6, and the plugin needs none."""
    host.run("sh", "-ec", NO_IPV6)
    host.netns("a")
    keys: dict[str, Any] = {"isGateway": True} if subnets else {}
    assert call(host, "STATUS", *subnets, **keys).status == 0
    added = call(host, "ADD", *subnets, **keys)
    assert added.status == 0, added
    assert call(host, "CHECK", *subnets, prevResult=added.json, **keys).status == 0
    assert call(host, "DEL", *subnets, **keys).status == 0


def test_one_sysctl_alone(host: PretendHost) -> None:
    """IPv6's switch is missing, although IPv6 is there."""
    host.netns("a")
    host.run(
        "sh",
        "-ec",
        "mkdir -p /run/conf/all; echo 0 >/run/conf/all/disable_ipv6; mount --bind /run/conf /proc/sys/net/ipv6/conf",
    )
    answer = call(host, "ADD", V6, isGateway=True)
    assert answer.code == 999 and "net/ipv6/conf/all/forwarding cannot be found" in said(answer), answer
    status = call(host, "STATUS", V6, isGateway=True)
    assert status.code == 50 and "net/ipv6/conf/all/forwarding cannot be found" in said(status), status


@pytest.mark.parametrize("version", [4, 6])
def test_check_says_that_the_host_forwards_no_more(host: PretendHost, version: int) -> None:
    host.netns("a")
    added = call(host, "ADD", V4, V6, isGateway=True)
    assert call(host, "CHECK", V4, V6, isGateway=True, prevResult=added.json).status == 0
    path = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}[version]
    host.run("sysctl", "-qw", f"{path}=0")
    check = call(host, "CHECK", V4, V6, isGateway=True, prevResult=added.json)
    assert check.code == 999 and f"{path} is 0" in said(check), check
    assert call(host, "CHECK", V4, V6, prevResult=added.json).status == 0  # no gateway, no need


@pytest.mark.parametrize("how", [*HIDDEN.values(), "mount -t tmpfs tmpfs /proc/sys/net/ipv4/conf"])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_portmap(host: PretendHost, backend: str, how: str) -> None:
    """Localhost's packets need route_localnet; a failed ADD leaves no port."""
    plain = Plain(host, backend)
    plain.add(TCP, "b", number=6)
    host.run("sh", "-ec", how)
    keys = {**TCP, "runtimeConfig": {"portMappings": [{"hostPort": 81, "containerPort": 80}]}}
    answer = plain.call("ADD", keys)
    assert answer.code == 999 and "cannot be found" in said(answer), answer
    assert "dport 81" not in host.run("sh", "-c", "iptables-save -t nat").stdout
    assert "net/c1" not in host.run("nft", "list", "ruleset").stdout
    check = plain.call("CHECK", TCP, "b", number=6)
    assert check.code == 999 and "/proc/sys" in said(check) + "/proc/sys" * ("route_localnet" in said(check)), check
    if not how.endswith("conf"):
        status = plain.call("STATUS", TCP)
        assert status.code == 50 and "/proc/sys" in said(status), status
    deleted = plain.call("DEL", TCP, "b", number=6)
    assert deleted.status == 0 and "cannot set route_localnet back" in deleted.stderr, deleted


@pytest.mark.parametrize("how", ["/proc/sys", "/proc/sys/net"])  # below it, each network namespace has its own
def test_tuning(host: PretendHost, how: str) -> None:
    host.run("ip", "link", "add", "x0", "type", "veth", "peer", "eth0", "netns", host.netns("a").rpartition("/")[2])
    config = {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "tuning",
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
        "prevResult": {"cniVersion": "1.1.0"},
    }
    assert host.cni("tuning", "ADD", config, netns="/run/netns/a").status == 0
    host.run("sh", "-ec", HIDDEN[how])
    for verb, code in (("ADD", 999), ("CHECK", 999), ("STATUS", 50)):
        answer = host.cni("tuning", verb, config, netns="/run/netns/a")
        assert answer.code == code and "/proc/sys" in said(answer), (verb, answer)


def test_a_sysctl_that_cannot_be_read(host: PretendHost) -> None:
    """The error names it."""
    host.netns("a")
    config = {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "tuning",
        "sysctl": {"net.ipv4.route.flush": "1"},
        "prevResult": {"cniVersion": "1.1.0"},
    }
    answer = host.cni("tuning", "ADD", config, netns="/run/netns/a", container_id="a")
    assert answer.code == 999 and "cannot read the sysctl net/ipv4/route/flush" in said(answer), answer


def test_doctor(host: PretendHost) -> None:
    host.run("sh", "-ec", HIDDEN["/proc/sys/net"])
    found = json.loads(host.run(*CNITOOL, "doctor", "--json", check=False, timeout=120).stdout)["findings"]
    assert [one["severity"] for one in found if one["where"] == "/proc/sys"] == ["error"]
