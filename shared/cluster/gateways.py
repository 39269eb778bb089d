"""Take the gateway addresses of blocks that this node gives back off its bridges.

The address stays when the last pod goes. Its network would hide the route to the block's next owner.
"""

from __future__ import annotations

from collections.abc import Iterable

from shared.cluster.model import Cidr
from shared.cluster.tunnel import kernel_address
from shared.cni.ip import Prefix
from shared.net import addresses, links
from shared.net.netlink import Netlink
from shared.net.wire import RTM_GETADDR


def remove(cidrs: Iterable[Cidr]) -> list[str]:
    """Remove the gateway addresses of these CIDRs from all links. Return the links' names.

    To be called when the CIDRs are in no conflist and have no leases, before they are released.
    """
    wanted = {Prefix(kernel_address(one.network_address + 1), one.prefixlen) for one in cidrs}
    host = Netlink()
    try:
        found = [
            (message["index"], prefix)
            for message in host.dump(RTM_GETADDR)
            if (prefix := addresses.prefix_of(message)) in wanted
        ]
        for index, prefix in found:
            addresses.remove(host, index, prefix)
        named = (links.by_index(host, index) for index, _ in found)
        return sorted(link["IFLA_IFNAME"] for link in named if link is not None)
    finally:
        host.close()
