"""Take the gateway addresses of blocks that this node gives back off its bridges.

The address stays when the last pod goes. Its network would hide the route to the block's next owner.

For each IPv6 network on a link of a router, the kernel has an anycast route to the network's first address. If
forwarding is turned on while the address is being added, the kernel counts the network twice, and keeps that route. The
block's next owner sends packets of its own from this address. The answers would end here.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from shared.cluster.model import Cidr
from shared.cluster.tunnel import kernel_address
from shared.cni.ip import Prefix
from shared.net import addresses, links
from shared.net.netlink import Netlink, Request
from shared.net.wire import AF_INET6, RTM_DELROUTE, RTM_GETADDR, RTN_ANYCAST

RT_TABLE_LOCAL = 255  # linux/rtnetlink.h


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
        host.batch([_anycast_gone(index, prefix) for index, prefix in found if prefix.version == 6])
        named = (links.by_index(host, index) for index, _ in found)
        return sorted(link["IFLA_IFNAME"] for link in named if link is not None)
    finally:
        host.close()


def _anycast_gone(index: int, prefix: Prefix) -> Request:
    body = {
        "family": AF_INET6, "dst_len": 128, "type": RTN_ANYCAST, "table": RT_TABLE_LOCAL, "RTA_OIF": index,
        "RTA_DST": str(prefix.first),
    }  # fmt: skip
    return Request(RTM_DELROUTE, body, 0, (errno.ESRCH,))
