"""Which iptables a host has, asked without running it: that of nf_tables by netlink, the older one by /proc.

"nft"     tables `ip filter` and `ip6 filter` of nf_tables
"legacy"  the kernel's own tables of before, for each family those that /proc names
"""

from __future__ import annotations

import posix

from shared.nft import wire
from shared.nft.ruleset import Chain, Table
from shared.nft.transaction import Nfnetlink, NoNfTables

NFT, LEGACY = "nft", "legacy"
FAMILIES = {4: wire.NFPROTO_IPV4, 6: wire.NFPROTO_IPV6}
NAMES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}


def in_use() -> str:
    """The variant whose FORWARD chain decides here: it drops by default or has rules; empty where there is none."""
    queries = [Chain(Table(family, "filter"), "FORWARD", ()).query() for family in FAMILIES.values()]
    try:
        found = Nfnetlink().get_all(queries)
    except NoNfTables:
        found = []
    if any(
        chain and (chain.get("NFTA_CHAIN_POLICY") == wire.NF_DROP or chain.get("NFTA_CHAIN_USE")) for chain in found
    ):
        return NFT
    return LEGACY if any(map(_has_legacy_filter, NAMES)) else ""


def having(chain: str, version: int) -> list[str]:
    """The variants in which a family's table `filter` has the chain, or, of the older one, may have it."""
    try:
        found = Nfnetlink().get_all([Chain(Table(FAMILIES[version], "filter"), chain, ()).query()])
    except NoNfTables:
        found = []
    return [*([NFT] if any(found) else []), *([LEGACY] if _has_legacy_filter(version) else [])]


def _has_legacy_filter(version: int) -> bool:
    try:
        descriptor = posix.open(NAMES[version], posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:  # the kernel has not loaded it
        return False
    names = posix.read(descriptor, 4096)
    posix.close(descriptor)
    return b"filter" in names.split()
