"""Find links that GC may delete, by their names and aliases, and by their age if they have no alias."""

from __future__ import annotations

from time import monotonic

from shared.net.netlink import decode_part
from shared.net.owner import is_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message

YOUNG_SECONDS = 60.0


def is_left_behind(link: Message, network: str) -> bool:
    """Return True if a link whose name derives from the network belongs to it, and no ADD is at work on it.

    The name has few digits of the network's digest: another network may have the same. A link without alias must be
    old: an ADD may have created it, and not given it the alias yet.
    """
    known = is_network(link.get("IFLA_IFALIAS", ""), network)
    return _is_old(link) if known is None else known


def _is_old(link: Message) -> bool:
    """Return True if the link has had its IPv6 state, which it gets when it is created, for a minute.

    False if the kernel does not tell.
    """
    inet6 = decode_part("af_spec/inet", link.get("IFLA_AF_SPEC", b"")).get("AF_INET6", {})
    since = inet6.get("IFLA_INET6_CACHEINFO", {}).get("tstamp")  # in hundredths of a second after boot
    return since is not None and monotonic() - since / 100 > YOUNG_SECONDS
