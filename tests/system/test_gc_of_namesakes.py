"""GC tells links of networks apart if their names have equal digits, and leaves links that an ADD has not named yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shared.net.owner import Owner, ifb_prefix, network_prefix
from tests.pretend import PretendHost

pytestmark = pytest.mark.row("alias")
LIMITS = dict.fromkeys(("ingressRate", "ingressBurst", "egressRate", "egressBurst"), 10**6)


def _alike() -> Iterator[str]:
    """Return names of 200 bytes that give links with the same prefix."""
    wanted = network_prefix("n" * 200)
    yield "n" * 200
    yield from (name for number in range(100_000)
                if network_prefix(name := "n" * 194 + f"{number:06}") == wanted)  # fmt: skip


ONE, OTHER = (name for name, _ in zip(_alike(), range(2), strict=False))


def call(host: PretendHost, plugin: str, verb: str, network: str, pod: str, **keys: Any) -> Any:
    config = {"cniVersion": "1.1.0", "name": network, "type": plugin, **keys}
    answer = host.cni(plugin, verb, config, netns=f"/run/netns/{pod}", container_id=pod)
    assert answer.status == 0, answer
    return answer.json if answer.stdout else None


def links(host: PretendHost) -> set[str]:
    return {link["ifname"] for link in host.ip("link")}


def test_names_that_no_alias_has_room_for(host: PretendHost) -> None:
    assert (network_prefix(ONE), ifb_prefix(ONE)) == (network_prefix(OTHER), ifb_prefix(OTHER))
    pods = {ONE: "a" * 64, OTHER: "b" * 64}
    for network, pod in pods.items():
        host.netns(pod)
        result = call(host, "bridge", "ADD", network, pod)
        call(host, "bandwidth", "ADD", network, pod, **LIMITS, prevResult=result)
    both = {network: {Owner(network, pod, "eth0").host_link, Owner(network, pod, "eth0").ifb}
            for network, pod in pods.items()}  # fmt: skip
    assert both[ONE] | both[OTHER] <= links(host)
    for plugin, keys in (("bandwidth", LIMITS), ("bridge", {})):
        call(host, plugin, "GC", ONE, "x", **keys, **{"cni.dev/valid-attachments": []})
    assert not both[ONE] & links(host) and both[OTHER] <= links(host)
    for link in host.ip("link"):
        assert link["ifname"] not in both[OTHER] or link["ifalias"].startswith("pycni:~")


@pytest.mark.parametrize(("plugin", "kind", "keys"), [("bridge", "veth", {}), ("bandwidth", "ifb", LIMITS)])
def test_a_link_without_alias(host: PretendHost, plugin: str, kind: str, keys: dict[str, Any]) -> None:
    """A young one may belong to a running ADD; an old one was left by a killed call."""
    owner = Owner("net", "early", "eth0")
    name = owner.host_link if kind == "veth" else owner.ifb
    host.run("ip", "link", "add", name, "type", kind)
    config = {"cniVersion": "1.1.0", "name": "net", "type": plugin, **keys, "cni.dev/valid-attachments": []}
    assert host.cni(plugin, "GC", config).status == 0
    assert name in links(host)
    later = ("unshare", "--time", "--monotonic", "120", "--fork")
    assert host.cni(plugin, "GC", config, prefix=later).status == 0
    assert name not in links(host)
