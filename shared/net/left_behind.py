"""Find links that GC may delete: by name and alias, and by age if they have no alias."""

from __future__ import annotations

from time import monotonic

from shared.net.messages import decode_part
from shared.net.owner import is_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message

YOUNG_SECONDS = 60.0


def is_left_behind(link: Message, network: str) -> bool:
    """Return True if a link with a name of the network belongs to the network, and no ADD is working on it.

    Another network may have the same names, because they have only a few digits of the network's digest. A running ADD
    may have created a link without an alias and not named it yet, so such a link must be old.
    """
    known = is_network(link.get("IFLA_IFALIAS", ""), network)
    return _is_old(link) if known is None else known


def _is_old(link: Message) -> bool:
    """Return True if the link is older than YOUNG_SECONDS; False if the kernel does not show its age.

    The age is that of the link's IPv6 state, which the kernel creates with the link.
    """
    inet6 = decode_part("af_spec/inet", link.get("IFLA_AF_SPEC", b"")).get("AF_INET6", {})
    since = inet6.get("IFLA_INET6_CACHEINFO", {}).get("tstamp")  # in hundredths of a second after boot
    return since is not None and monotonic() - since / 100 > YOUNG_SECONDS
