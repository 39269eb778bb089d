"""Limit the MACs that a bridge learns from frames. Imported by the calls whose configuration does."""

from __future__ import annotations

import sys

from shared.cni.errors import UnsupportedField
from shared.net import bridges, links
from shared.net.netlink import Request
from shared.net.wire import BR_BOOLOPT_NO_LL_LEARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.bridges import Ports
    from shared.net.netlink import Message, Netlink
    from shared.undo import Undo


def limit(netlink: Netlink, undo: Undo, bridge: Message, most: int, own: Ports) -> None:
    """Let the bridge learn at most that many MACs, 0: any number.

    Undo sets the former limit, unless the bridge has a port by then that is not in `own`. Raises UnsupportedField if
    the kernel has no such limit.
    """
    index, before = bridge["index"], limit_of(bridge)
    if before == most:
        return

    def set_back() -> None:
        if links.by_index(netlink, index) and not bridges.has_other_ports(netlink, index, *own):
            netlink.batch([bridges.change_request(index, {"IFLA_BR_FDB_MAX_LEARNED": before})])

    netlink.batch([bridges.change_request(index, {"IFLA_BR_FDB_MAX_LEARNED": most})])
    undo.push(f"set the number of MACs that {bridge['IFLA_IFNAME']} may learn as it was", set_back)


def limit_of(bridge: Message) -> int:
    """Return the number of MACs that the bridge may learn, 0 for any.

    Raises UnsupportedField if the kernel has no such limit: it ignores the attribute, and does not show it.
    """
    most = bridges.data_of(bridge).get("IFLA_BR_FDB_MAX_LEARNED")
    if most is None:
        raise UnsupportedField(
            f'"fdbMaxLearned" needs Linux 6.8 or later: bridge {bridge["IFLA_IFNAME"]} has no limit of learned MACs;'
            " leave the key out, or boot a newer kernel"
        )
    return int(most)


def skip_link_local_requests(bridge: Message) -> list[Request]:
    """Return requests that stop the bridge from learning MACs from frames to link-local groups.

    The bridge learns from these frames before any rule can drop them. Return none if it does not, or if the kernel
    cannot be told (before Linux 5.0).
    """
    if learns_link_local(bridge) is not True:
        return []
    bit = 1 << BR_BOOLOPT_NO_LL_LEARN
    options = bit.to_bytes(4, sys.byteorder) * 2  # value and mask
    return [bridges.change_request(bridge["index"], {"IFLA_BR_MULTI_BOOLOPT": options})]


def learns_link_local(bridge: Message) -> bool | None:
    """Return True if the bridge learns from frames to link-local groups, None if the kernel does not say."""
    options = bridges.data_of(bridge).get("IFLA_BR_MULTI_BOOLOPT", b"")
    return None if not options else not int.from_bytes(options[:4], sys.byteorder) >> BR_BOOLOPT_NO_LL_LEARN & 1


def problems(bridge: Message, most: int | None, *, skip_link_local: bool) -> list[str]:
    """Return differences from a limit of learned MACs (None: any), and from `skip_link_local_requests` if wanted."""
    name, found = bridge["IFLA_IFNAME"], []
    if most is not None and (now := limit_of(bridge)) != most:
        found.append(f"bridge {name} may learn {now or 'all'} MACs, but fdbMaxLearned is {most}")
    if skip_link_local and learns_link_local(bridge):
        found.append(f"bridge {name} learns MACs from frames to link-local groups")
    return found
