"""Find the packet filters of the host with one message.

A call on a host without packet filters need not load the modules that change them.
"""

from __future__ import annotations

import errno
import posix

from shared import handover
from shared.net.netlink import Netlink, NetlinkError
from shared.net.wire import (
    NETLINK_NETFILTER,
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFT_MSG_GETTABLE,
)

INET, BRIDGE = (NFPROTO_INET, "pycni"), (NFPROTO_BRIDGE, "pycni")  # this suite's tables
REFERENCES = (NFPROTO_BRIDGE, "nat")  # the table of the reference plugins' MAC spoof check
IPTABLES = ((NFPROTO_IPV4, "nat"), (NFPROTO_IPV6, "nat"))
LEGACY = (0, "nat")  # stands for iptables-legacy: its tables are not in nf_tables
LEGACY_NAMES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}
OF_BRIDGES = frozenset({BRIDGE, REFERENCES})
ALL = frozenset({INET, *OF_BRIDGES, *IPTABLES})


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.net.netlink import Message


class Nfnetlink(Netlink):
    """A netfilter socket in the thread's network namespace at the time of creation."""

    protocol = NETLINK_NETFILTER


def present() -> set[tuple[int, str]]:
    """Return the tables of ALL that the host has, and LEGACY if iptables-legacy may have rules."""
    try:
        kernel = Nfnetlink()
        handover.retain(kernel.socket)  # other calls may have deleted objects
        found = kernel.scan(NFT_MSG_GETTABLE, None, _known)
    except NetlinkError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):  # the kernel has no nf_tables
            raise
        found = set()
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):  # the kernel has no netfilter netlink
            raise
        found = set()
    return {*found, *([LEGACY] if any(b"nat" in legacy_tables(path) for path in LEGACY_NAMES.values()) else [])}


def _known(tables: Iterator[Message]) -> set[tuple[int, str]]:
    return {key for one in tables if (key := (one["nfgen_family"], one["NFTA_TABLE_NAME"])) in ALL}


def legacy_tables(path: str) -> list[bytes]:
    """Return the tables of iptables-legacy in one of LEGACY_NAMES; none if the kernel has not loaded it."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return []
    names = posix.read(descriptor, 4096)
    posix.close(descriptor)
    return names.split()
