"""Compare a bridge and a pod's port with the state that ADD left: for CHECK."""

from __future__ import annotations

from shared.net import bridge_netfilter, bridges, learning
from shared.net.wire import IFF_UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message, Netlink


def problems(
    host: Netlink,
    bridge: Message,
    port: Message | None,
    *,
    port_name: str,
    hairpin: bool,
    isolated: bool,
    vlans: tuple[int, list[int], bool],
    uplinks: list[str],
    most_learned: int | None,
    skip_link_local: bool,
    calls_iptables: bool | None,
) -> list[str]:
    """Return all differences of the bridge, the pod's port (None: missing), and the uplinks.

    `vlans` are the port's native VLAN (0: none), its trunk, and True if it stays in the default VLAN. The last three
    are as in learning.problems and bridge_netfilter.problems.
    """
    found = [] if bridge["flags"] & IFF_UP else [f"bridge {bridge['IFLA_IFNAME']} is down"]
    found += learning.problems(bridge, most_learned, skip_link_local=skip_link_local)
    found += bridge_netfilter.problems(bridge, calls_iptables)
    if port is None:
        found.append(f"the host's end of the veth pair, {port_name}, is missing")
    else:
        found += bridges.port_problems(bridge, port, hairpin=hairpin, isolated=isolated)
        native, trunk, keep = vlans
        if native or trunk:
            from shared.net import vlans as of_ports

            found += of_ports.problems(host, bridge, port, native=native, trunk=trunk, keep=keep)
    if uplinks:
        from shared.net import uplinks as of_bridge

        found += of_bridge.problems(host, bridge, uplinks)
    return found
