"""One working configuration of each plugin. It serves the tests that go through all plugins: strikes, hostile input, imports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

Keys = dict[str, Any]
RANGES = [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]
IPAM: Keys = {"type": "host-local", "ranges": RANGES}
BRIDGE: Keys = {"type": "bridge", "bridge": "br0", "isDefaultGateway": True, "ipam": IPAM}
PORTS: list[Keys] = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 8081, "containerPort": 81, "protocol": "udp"},
]
# a link of the host with an address, and its other end in place of a LAN; commands that may run again
UP0 = (
    "ip link show up0 >/dev/null 2>&1 || { ip link add up0 type veth peer name up0p;"
    " ip address add 10.7.0.250/24 dev up0; ip address add fd00:7::fa/64 dev up0 nodad;"
    " ip link set up0 up; ip link set up0p up; }"
)


@dataclass(frozen=True)
class Sample:
    """A plugin's keys, its type among them, and the plugins before it in a chain, which make its prevResult.

    `links` are shell commands that create the host's links which the keys name. `needs` is the marker of the feature
    that a kernel may lack (tests/kernel/features.py).
    """

    keys: Keys
    before: tuple[Keys, ...] = ()
    links: str = ":"
    needs: str = ""
    is_served: bool = False  # a daemon and a server on the network must run: tests/dhcp_lan.py


# Two devices: in the tests of faults another pod has the second. Devices that exist, or are lent, stay.
DEVICES = """
for n in 0 1; do
    ip link show far$n >/dev/null 2>&1 || ip link add far$n address 02:00:00:00:f0:0$n type veth \\
        peer name dev$n address 02:00:00:00:d0:0$n
    ip link set far$n up
done
"""
SAMPLES: dict[str, Sample] = {
    "bandwidth": Sample(
        {
            "type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000,
            "egressBurst": 800_000,
        },
        (BRIDGE,),
    ),
    "bridge": Sample(BRIDGE),
    "dummy": Sample({"type": "dummy", "ipam": IPAM}, needs="kernel_dummy"),
    "dhcp": Sample({"type": "dhcp", "ipam": {"type": "dhcp"}}, is_served=True),
    "firewall": Sample({"type": "firewall", "backend": "nftables", "ingressPolicy": "isolated"}, (BRIDGE,)),
    "host-device": Sample({"type": "host-device", "device": "dev0", "mtu": 1400, "ipam": IPAM}, links=DEVICES),
    "host-local": Sample({"type": "host-local", "ipam": IPAM}),
    # of a link of its own, which can serve no macvlan beside
    "ipvlan": Sample(
        {"type": "ipvlan", "master": "up1", "ipam": IPAM}, links=UP0.replace("up0", "up1"), needs="kernel_ipvlan"
    ),
    "loopback": Sample({"type": "loopback"}),
    "macvlan": Sample({"type": "macvlan", "master": "up0", "hostAccess": True, "ipam": IPAM}, links=UP0),
    "portmap": Sample(
        {"type": "portmap", "conditionsV4": ["!", "-i", "x"], "runtimeConfig": {"portMappings": PORTS}}, (BRIDGE,)
    ),
    "ptp": Sample({"type": "ptp", "mtu": 1400, "ipam": IPAM | {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}),
    "vlan": Sample({"type": "vlan", "master": "up0", "vlanId": 100, "ipam": IPAM}, links=UP0, needs="kernel_8021q"),
    "sbr": Sample({"type": "sbr", "gateways": ["10.7.0.1", "fd00:7::1"], "addSourceHints": True}, (BRIDGE,)),
    "static": Sample({
        "type": "static",
        "ipam": {
            "type": "static", "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.7.0.1"]},
            "addresses": [{"address": "10.7.0.5/24", "gateway": "10.7.0.1"}, {"address": "fd00:7::5/64"}],
        },
    }),
    "tap": Sample({"type": "tap", "multiQueue": True, "owner": 1000, "group": 0, "mac": "02:00:00:00:00:09", "ipam": IPAM}),
    "tuning": Sample(
        {
            "type": "tuning", "mac": "02:00:00:00:00:09", "mtu": 1400, "promisc": True,
            "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.conf.IFNAME.proxy_arp": "1"},
        },
        (BRIDGE,),
    ),
    "vrf": Sample({"type": "vrf", "vrfname": "blue", "table": 10}, (BRIDGE,), needs="kernel_vrf"),
}  # fmt: skip


def links(samples: Iterable[Sample]) -> str:
    """Return shell commands that create the links of the host for several samples, some of which share them."""
    return "\n".join(dict.fromkeys(sample.links for sample in samples))


def params(names: Iterable[str] = SAMPLES) -> list[Any]:
    """Return pytest's parameters for plugins, with the markers of the features that they need."""
    return [marked(name, SAMPLES[name].needs) for name in names]


def marked(parameter: str, needs: str) -> Any:
    """Return pytest's parameter with the marker of the feature that it needs, if any."""
    return pytest.param(parameter, marks=[getattr(pytest.mark, needs)] if needs else [])
