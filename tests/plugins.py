"""One working configuration of each plugin. It serves the tests that go through all plugins: strikes, hostile input, imports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Keys = dict[str, Any]
RANGES = [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]
IPAM: Keys = {"type": "host-local", "ranges": RANGES}
BRIDGE: Keys = {"type": "bridge", "bridge": "br0", "isDefaultGateway": True, "ipam": IPAM}
PORTS: list[Keys] = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 8081, "containerPort": 81, "protocol": "udp"},
]


@dataclass(frozen=True)
class Sample:
    """A plugin's keys, its type among them, and the plugins before it in a chain, which make its prevResult."""

    keys: Keys
    before: tuple[Keys, ...] = ()
    is_served: bool = False  # a daemon and a server on the network must run: tests/dhcp_lan.py


SAMPLES: dict[str, Sample] = {
    "bandwidth": Sample(
        {
            "type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000,
            "egressBurst": 800_000,
        },
        (BRIDGE,),
    ),
    "bridge": Sample(BRIDGE),
    "dhcp": Sample({"type": "dhcp", "ipam": {"type": "dhcp"}}, is_served=True),
    "firewall": Sample({"type": "firewall", "backend": "nftables", "ingressPolicy": "isolated"}, (BRIDGE,)),
    "host-local": Sample({"type": "host-local", "ipam": IPAM}),
    "loopback": Sample({"type": "loopback"}),
    "portmap": Sample(
        {"type": "portmap", "conditionsV4": ["!", "-i", "x"], "runtimeConfig": {"portMappings": PORTS}}, (BRIDGE,)
    ),
    "ptp": Sample({"type": "ptp", "mtu": 1400, "ipam": IPAM | {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}),
    "tuning": Sample(
        {
            "type": "tuning", "mac": "02:00:00:00:00:09", "mtu": 1400, "promisc": True,
            "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.conf.IFNAME.proxy_arp": "1"},
        },
        (BRIDGE,),
    ),
}  # fmt: skip
