"""Features that a kernel may lack: a test's marker names the feature, and a command asks a kernel for it."""

from __future__ import annotations

from functools import cache

from tests.pretend import PretendHost

PAIR = "ip link add probe type veth peer name probe1"
# The command runs on a pretend host of its own, and succeeds if the kernel has the feature.
FEATURES = {
    "kernel_8021q": f"{PAIR} && ip link add link probe name probe.1 type vlan id 1",
    # network cards that tests may move: those of the machine that tests/kernel boots
    "kernel_cards": "grep -q ' tree=.* modules=' /proc/cmdline",
    "kernel_dummy": "ip link add probe type dummy",
    "kernel_ipvlan": f"{PAIR} && ip link add link probe name probe2 type ipvlan mode l2",
    "kernel_vlan": "ip link add probe type bridge vlan_filtering 1",
    "kernel_vrf": "ip link add probe type vrf table 10",
    "kernel_vxlan": "ip link add probe type vxlan id 1 dstport 4789",
    "kernel_wireguard": "ip link add probe type wireguard",
}


@cache
def has(feature: str) -> bool:
    """Return True if the running kernel has the feature, which a marker names. It has the feature of the empty name."""
    if not feature:
        return True
    with PretendHost() as host:
        return host.run("sh", "-c", FEATURES[feature], check=False).returncode == 0
