"""Which iptables a host has, asked without running it: that of nf_tables by netlink, the older one by /proc.

"nft"     tables `ip filter` and `ip6 filter` of nf_tables
"legacy"  the kernel's own tables of before, for each family those that /proc names
"""

from __future__ import annotations

from shared.net.filter_tables import LEGACY_NAMES, legacy_tables
from shared.nft import wire
from shared.nft.ruleset import Chain, Table
from shared.nft.transaction import Nfnetlink, NoNfTables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NFT, LEGACY = "nft", "legacy"
FAMILIES = {4: wire.NFPROTO_IPV4, 6: wire.NFPROTO_IPV6}
HOSTPORTS = ("nat", "CNI-HOSTPORT-DNAT")  # table and chain whose rules lead to host ports


def in_use() -> str:
    """The variant whose FORWARD chain decides here: it drops by default or has rules; empty where there is none."""
    return next(iter(deciding()), "")


def deciding() -> list[str]:
    """Return the variants whose FORWARD chain drops by default or has rules, or, of the older one, may do so."""
    queries = [Chain(Table(family, "filter"), "FORWARD", ()).query() for family in FAMILIES.values()]
    try:
        chains = Nfnetlink().get_all(queries)
    except NoNfTables:
        chains = []
    found = [LEGACY] if any(_has_legacy("filter", version) for version in LEGACY_NAMES) else []
    if any(
        chain and (chain.get("NFTA_CHAIN_POLICY") == wire.NF_DROP or chain.get("NFTA_CHAIN_USE")) for chain in chains
    ):
        found.insert(0, NFT)
    return found


def having(table: str, chain: str) -> list[tuple[int, str]]:
    """The families, 4 and 6, and variants whose table has the chain, or, of the older one, may have it."""
    queries = [Chain(Table(family, table), chain, ()).query() for family in FAMILIES.values()]
    try:
        found = Nfnetlink().get_all(queries)
    except NoNfTables:
        found = []
    by_nft = [(version, NFT) for version, one in zip(FAMILIES, found) if one]
    return by_nft + [(version, LEGACY) for version in LEGACY_NAMES if _has_legacy(table, version)]


def with_rules(table: str, chain: str) -> list[tuple[int, str]]:
    """Those of them whose chain has rules, or, of the older one, may have some."""
    found = []
    for version, variant in having(table, chain):
        one = Chain(Table(FAMILIES[version], table), chain, ())
        if variant != NFT or Nfnetlink().dump_rules(one):
            found.append((version, variant))
    return found


def mention(version: int, table: str, chain: str, values: Iterable[bytes]) -> bool:
    """Return True if a rule of nf_tables' variant has one of these values, such as an address, in a comparison."""
    found = Nfnetlink().dump_expressions(Chain(Table(FAMILIES[version], table), chain, ()))
    return any(value in expressions for value in values for expressions in found)


def _has_legacy(table: str, version: int) -> bool:
    return table.encode() in legacy_tables(LEGACY_NAMES[version])
