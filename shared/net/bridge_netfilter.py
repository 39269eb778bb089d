"""Have bridged packets traverse iptables, or not. A call imports this module only if its configuration has the key."""

from __future__ import annotations

from shared.cni.errors import UnsupportedField
from shared.net import bridges, links, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.bridges import Ports
    from shared.net.netlink import Message, Netlink
    from shared.undo import Undo

SWITCHES = (
    ("bridge-nf-call-iptables", "IFLA_BR_NF_CALL_IPTABLES"), ("bridge-nf-call-ip6tables", "IFLA_BR_NF_CALL_IP6TABLES"),
)  # fmt: skip


def require() -> None:
    """Raise UnsupportedField if bridged packets cannot traverse iptables on this host."""
    if sysctl.read(f"bridge/{SWITCHES[0][0]}") is None:
        raise UnsupportedField("this kernel has no br_netfilter, or it is not loaded (modprobe br_netfilter)")


def switch(netlink: Netlink, undo: Undo, bridge: Message, *, on: bool, own: Ports) -> None:
    """Switch iptables and ip6tables on or off for packets that the bridge forwards.

    Off clears the sysctls of the network namespace too: the kernel calls netfilter if either setting is on
    (br_nf_pre_routing). Undo sets the bridge, not the sysctls, back, unless it has a port by then that is not in `own`.
    """
    data, index = bridges.data_of(bridge), bridge["index"]
    before = {attribute: data.get(attribute, 0) for _, attribute in SWITCHES}

    def set_back() -> None:
        if links.by_index(netlink, index) and not bridges.has_other_ports(netlink, index, *own):
            netlink.batch([bridges.change_request(index, before)])

    wanted = dict.fromkeys(before, int(on))
    if before != wanted:
        netlink.batch([bridges.change_request(index, wanted)])
        undo.push(f"set {bridge['IFLA_IFNAME']}'s calls of iptables as they were", set_back)
    for name, _ in () if on else SWITCHES:
        sysctl.ensure(f"bridge/{name}", "0")


def problems(bridge: Message, on: bool | None) -> list[str]:  # noqa: FBT001  (None: either will do)
    """Return a text if bridged packets traverse iptables or ip6tables and should not, or the reverse."""
    if on is None:
        return []
    data, name = bridges.data_of(bridge), bridge["IFLA_IFNAME"]
    now = {bool(data.get(attribute)) or sysctl.read(f"bridge/{one}") == "1" for one, attribute in SWITCHES}
    if now == {on}:
        return []
    if on:
        return [f"bridge {name}: bridged packets bypass iptables or ip6tables, but bridgeNfCallIptables is true"]
    return [f"bridge {name}: bridged packets traverse iptables or ip6tables, but bridgeNfCallIptables is false"]
