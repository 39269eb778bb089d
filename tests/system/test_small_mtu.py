"""An MTU that a link, or IPv6 on it, cannot have is refused with the key and the least value; nothing changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretend import PretendHost

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
BASE = {"cniVersion": "1.1.0", "name": "net"}


@pytest.fixture
def pod(host: PretendHost) -> Any:
    answer = host.cni("bridge", "ADD", {**BASE, "type": "bridge", "ipam": IPAM}, netns=host.netns("pod"))
    assert answer.status == 0
    return answer.json


@pytest.mark.parametrize("by_arguments", [False, True])
@pytest.mark.parametrize(("mtu", "least"), [(1, 68), (60, 68), (67, 68), (68, 1280), (1279, 1280)])
def test_tuning(host: PretendHost, pod: Any, mtu: int, least: int, by_arguments: bool) -> None:
    keys: dict[str, Any] = {"args": {"cni": {"mtu": mtu}}} if by_arguments else {"mtu": mtu}
    before = host.snapshot(["pod"])
    config = {**BASE, "type": "tuning", **keys, "prevResult": pod}
    answer = host.cni("tuning", "ADD", config, netns="/run/netns/pod")
    assert answer.code == 7 and f'"mtu": {mtu} must be' in answer.json["msg"], answer
    assert f"at least {least}" in answer.json["msg"]
    assert host.snapshot(["pod"]) == before


def test_tuning_without_ipv6(host: PretendHost, pod: Any) -> None:
    config = {**BASE, "type": "tuning", "mtu": 1000, "prevResult": {**pod, "ips": pod["ips"][:1]}}
    assert host.cni("tuning", "ADD", config, netns="/run/netns/pod").status == 0


@pytest.mark.parametrize("is_gateway", [False, True])
def test_bridge(host: PretendHost, is_gateway: bool) -> None:
    path = host.netns("pod")
    before = host.snapshot(["pod"])
    config = {**BASE, "type": "bridge", "mtu": 1279, "ipam": IPAM, "isGateway": is_gateway}
    answer = host.cni("bridge", "ADD", config, netns=path)
    assert answer.status == 1 and "its MTU is 1279 bytes and IPv6 needs 1280" in answer.json["msg"], answer
    assert '"mtu"' in answer.json["msg"]
    assert host.snapshot(["pod"]) == before
