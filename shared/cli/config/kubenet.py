"""cnitool kubenet: print a node's pod CIDRs as the network that kubelet's kubenet created from them."""

from __future__ import annotations

from typing import Any

from shared.cli.networks import Options, print_json

NON_MASQUERADE_CIDRS = ("10.0.0.0/8",)  # --non-masquerade-cidr of kubelet
HAIRPIN_KEYS = {"promiscuous-bridge": {"promiscMode": True}, "hairpin-veth": {"hairpinMode": True}, "none": {}}
DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}


def run(options: Options) -> int:
    """Print the configuration."""
    print_json(configuration(options))
    return 0


def configuration(options: Options) -> dict[str, Any]:
    """Return a configuration list in a version that containerd 1.6 accepts, too."""
    versions = sorted({6 if ":" in cidr else 4 for cidr in options.pod_cidr})
    bridge = {
        "type": "bridge",
        "bridge": "cbr0",
        "isGateway": True,
        "ipMasq": True,
        "nonMasqueradeCIDRs": options.non_masquerade_cidr or [*NON_MASQUERADE_CIDRS],
        "mtu": options.mtu or "auto",
        **HAIRPIN_KEYS[options.hairpin_mode],
        **({"bridgeNfCallIptables": True} if options.bridge_nf_call_iptables else {}),
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": cidr}] for cidr in options.pod_cidr],
            "routes": [{"dst": DEFAULT_ROUTES[version]} for version in versions],
        },
    }
    return {
        "cniVersion": "1.0.0",
        "name": "kubenet",
        "plugins": [
            bridge,
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        ],
    }
