"""loopback: `lo` up and down."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretend import PretendHost

CONFIG = {"cniVersion": "1.1.0", "name": "lo-net", "type": "loopback"}
PREVIOUS = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/a", "mtu": 1400, "pciID": "0000:00:1f.6"}],
    "ips": [{"interface": 0, "address": "10.9.9.9/24", "gateway": "10.9.9.1"}],
    "routes": [{"dst": "0.0.0.0/0", "mtu": 1300}],
    "dns": {"nameservers": ["9.9.9.9"]},
}  # fmt: skip


def is_up(host: PretendHost, pod: str = "a") -> bool:
    return "UP" in host.ip("link", "show", "lo", netns=pod)[0]["flags"]


def test_a_pods_life(host: PretendHost) -> None:
    netns = host.netns("a")
    assert not is_up(host)
    added = host.cni("loopback", "ADD", CONFIG, netns=netns, ifname="lo")
    assert added.json == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns}],
        "ips": [{"interface": 0, "address": "127.0.0.1/8"}, {"interface": 0, "address": "::1/128"}],
        "dns": {},
    }
    assert is_up(host)
    host.run("ip", "netns", "exec", "a", "ping", "-c1", "-W1", "::1")
    previous = {**CONFIG, "prevResult": added.json}
    assert host.cni("loopback", "CHECK", previous, netns=netns, ifname="lo").status == 0
    host.run("ip", "-n", "a", "link", "set", "lo", "down")
    assert host.cni("loopback", "CHECK", previous, netns=netns, ifname="lo").code == 999
    host.run("ip", "-n", "a", "link", "set", "lo", "up")
    for _ in range(2):
        answer = host.cni("loopback", "DEL", CONFIG, netns=netns, ifname="lo")
        assert (answer.status, answer.stdout) == (0, "")
        assert not is_up(host)


def test_whatever_the_interface_is_called(host: PretendHost) -> None:
    """containerd asks for `lo`, podman's chains for `eth0`."""
    answer = host.cni("loopback", "ADD", CONFIG, netns=host.netns("a"), ifname="eth7")
    assert answer.json["interfaces"][0]["name"] == "lo" and is_up(host)


def test_in_a_chain_it_returns_what_came_before(host: PretendHost) -> None:
    answer = host.cni("loopback", "ADD", {**CONFIG, "prevResult": PREVIOUS}, netns=host.netns("a"))
    assert answer.json == PREVIOUS and is_up(host)


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_results_before_1_1(host: PretendHost, version: str) -> None:
    answer = host.cni("loopback", "ADD", {**CONFIG, "cniVersion": version}, netns=host.netns("a"), ifname="lo")
    assert answer.json["cniVersion"] == version
    assert [ip.get("version") for ip in answer.json["ips"]] == ([None] * 2 if version == "1.0.0" else ["4", "6"])


def test_without_ipv6(host: PretendHost) -> None:
    netns = host.netns("a")
    host.run("ip", "netns", "exec", "a", "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6")
    answer = host.cni("loopback", "ADD", CONFIG, netns=netns, ifname="lo")
    assert [ip["address"] for ip in answer.json["ips"]] == ["127.0.0.1/8"]


@pytest.mark.parametrize("was_up", [True, False])
def test_a_strange_address_is_an_error(host: PretendHost, was_up: bool) -> None:
    """`lo` stays as it was."""
    netns = host.netns("a")
    host.run("ip", "-n", "a", "address", "add", "10.2.2.2/32", "dev", "lo")
    host.run("ip", "-n", "a", "link", "set", "lo", "up" if was_up else "down")
    answer = host.cni("loopback", "ADD", CONFIG, netns=netns, ifname="lo")
    assert answer.code == 999 and "10.2.2.2/32" in answer.json["msg"]
    assert is_up(host) == was_up


@pytest.mark.parametrize("where", ["", "/run/netns/gone", "file", "fifo", "host"])
def test_where_there_is_no_pod(host: PretendHost, where: str) -> None:
    """ADD and CHECK fail with the fitting code. DEL does nothing, least of all in the host's own namespace."""
    host.run("sh", "-c", "mkdir -p /run/netns; touch /run/netns/file; mkfifo /run/netns/fifo")
    path = {"file": "/run/netns/file", "fifo": "/run/netns/fifo", "host": "/proc/1/ns/net"}.get(where, where)
    code = {"": 4, "/run/netns/gone": 3}.get(where, 8)
    before = host.snapshot()
    for command, config in (("ADD", CONFIG), ("CHECK", {**CONFIG, "prevResult": PREVIOUS})):
        answer = host.cni("loopback", command, config, netns=path, ifname="lo", timeout=20)
        assert (answer.status, answer.code) == (1, code), answer
    deleted = host.cni("loopback", "DEL", CONFIG, netns=path, ifname="lo")
    assert deleted.status == 0, deleted
    assert host.snapshot() == before


@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_nothing_to_collect_and_always_ready(host: PretendHost, command: str) -> None:
    answer = host.cni("loopback", command, {**CONFIG, "cni.dev/valid-attachments": []})
    assert (answer.status, answer.stdout) == (0, "")


@pytest.mark.parametrize("asked", ["0.3.1", "1.1.0", "9.9.9", None])
def test_version(host: PretendHost, asked: str | None) -> None:
    config: dict[str, Any] = {} if asked is None else {"cniVersion": asked}
    variables = {"CNI_CONTAINERID": None, "CNI_IFNAME": None, "CNI_PATH": None, "CNI_NETNS": None, "CNI_ARGS": None}
    answer = host.cni("loopback", "VERSION", config, env=variables)
    assert answer.json == {
        "cniVersion": asked if asked in ("0.3.1", "1.1.0") else "1.1.0",
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }
