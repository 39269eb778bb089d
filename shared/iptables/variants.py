"""Find the iptables variants of a host without running them: through netlink and /proc.

    "nft"     tables `ip filter` and `ip6 filter` of nf_tables, read through netlink
"legacy"  the kernel's older tables, as /proc names them for each family
"""

from __future__ import annotations

from shared.net.filter_tables import LEGACY_NAMES, legacy_tables
from shared.nft import wire
from shared.nft.ruleset import Chain, Table
from shared.nft.transaction import Nfnetlink, NoNfTables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NFT, LEGACY = "nft", "legacy"
FAMILIES = {4: wire.NFPROTO_IPV4, 6: wire.NFPROTO_IPV6}
HOSTPORTS = ("nat", "CNI-HOSTPORT-DNAT")  # table and chain whose rules redirect host ports


def in_use() -> str:
    """Return the variant that decides about forwarded packets: the first of `deciding`, or empty."""
    return next(iter(deciding()), "")


def deciding() -> list[str]:
    """Return the variants with a FORWARD chain that drops by default or has rules.

    Legacy counts if it has the table: its rules cannot be read without the program.
    """
    queries = [Chain(Table(family, "filter"), "FORWARD", ()).query_request() for family in FAMILIES.values()]
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
    """Return (family, variant) of each table with the chain; legacy counts if it has the table."""
    queries = [Chain(Table(family, table), chain, ()).query_request() for family in FAMILIES.values()]
    try:
        found = Nfnetlink().get_all(queries)
    except NoNfTables:
        found = []
    by_nft = [(version, NFT) for version, one in zip(FAMILIES, found) if one]
    return by_nft + [(version, LEGACY) for version in LEGACY_NAMES if _has_legacy(table, version)]


def with_rules(table: str, chain: str) -> list[tuple[int, str]]:
    """Return the pairs of `having` with rules in the chain; legacy counts if it has the table."""
    found = []
    for version, variant in having(table, chain):
        one = Chain(Table(FAMILIES[version], table), chain, ())
        if variant != NFT or Nfnetlink().dump_rules(one):
            found.append((version, variant))
    return found


def mention(version: int, table: str, chain: str, values: Sequence[bytes]) -> int:
    """Return the number of rules in nf_tables that compare with one of these values, such as an address."""
    found = Nfnetlink().dump_expressions(Chain(Table(FAMILIES[version], table), chain, ()))
    return sum(any(value in expressions for value in values) for expressions in found)


def _has_legacy(table: str, version: int) -> bool:
    return table.encode() in legacy_tables(LEGACY_NAMES[version])
