"""The packet filters of an attachment by whichever mechanism, whatever the configuration says of them now.

`tables` are those that the host has, from shared/net/filter_tables.py: a call that finds none needs nothing of this.
"""

from __future__ import annotations

import posix

from shared.cni.names import CHAIN_NAME_BYTES
from shared.cni.plugin import each
from shared.iptables import variants
from shared.net import filter_tables
from shared.net.owner import Owner
from shared.net.reference_names import container_digest
from shared.nft import former, registry
from shared.nft.registry import BRIDGE, INET
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from shared.cni.ip import Address

    Tables = AbstractSet[tuple[int, str]]

MASQUERADE, MASQUERADE_BY_IPTABLES = "masquerade", "masquerade by iptables"
SPOOFCHECK, DEDUP, HOSTPORTS, FIREWALL = "spoofcheck", "dedup", "hostports", "firewall"
MECHANISMS = (
    (INET, MASQUERADE), (INET, HOSTPORTS), (INET, FIREWALL), (BRIDGE, SPOOFCHECK), (BRIDGE, DEDUP), (BRIDGE, FIREWALL),
)  # fmt: skip
# Sets and maps whose keys are addresses, but for the IP version at the end of their names.
HAIRPIN = "hairpin"
HOSTPORT_RECORDS = "/run/cni/portmap"  # is there once a call of portmap has used iptables
BY_ADDRESS = {MASQUERADE: ("masq",), FIREWALL: ("admitted", "guarded"), HOSTPORTS: (HAIRPIN,)}


def remove(owner: Owner, tables: Tables, *, keep: AbstractSet[str] = frozenset()) -> None:
    """Remove all that an attachment has, except by the mechanisms in `keep`."""
    mechanisms = [one for one in MECHANISMS if one[1] not in keep and (one[0].family, one[0].name) in tables]
    found = former.registered(Nfnetlink(), owner, mechanisms) if mechanisms else []
    names = {mechanism for _, mechanism in found}
    if filter_tables.REFERENCES in tables and SPOOFCHECK not in keep:
        names.add(SPOOFCHECK)  # the reference registers nothing
    each(
        *(lambda name=name: _remove(name, owner) for name in sorted(names)),
        lambda: _remove_from_iptables(owner, tables, keep),
    )


def _remove(mechanism: str, owner: Owner) -> None:
    if mechanism == MASQUERADE:
        from shared.nft import masquerade

        masquerade.remove(owner)
    elif mechanism == SPOOFCHECK:
        from shared.nft import spoofcheck

        spoofcheck.remove(owner)
    elif mechanism == DEDUP:
        from shared.nft import dedup

        dedup.remove(owner)
    elif mechanism == FIREWALL:
        from shared.nft import admission

        admission.remove(owner)
    else:
        from shared.nft import conntrack, hostports

        hostports.remove(Nfnetlink(), owner, conntrack.forget)


def _has_iptables(tables: Tables) -> bool:
    return not tables.isdisjoint((*filter_tables.IPTABLES, filter_tables.LEGACY))


def _remove_from_iptables(owner: Owner, tables: Tables, keep: AbstractSet[str]) -> None:
    if not _has_iptables(tables):
        return
    digest = container_digest(owner.network, owner.container_id)
    if MASQUERADE_BY_IPTABLES not in keep and variants.having("nat", f"CNI-{digest}"[:CHAIN_NAME_BYTES]):
        from shared.iptables import masquerade

        masquerade.remove(owner)
    if variants.having("nat", f"CNI-DN-{digest}"[:CHAIN_NAME_BYTES]):
        from shared.iptables import hostports
        from shared.nft import conntrack

        hostports.remove(owner, conntrack.forget)


def evict(owner: Owner, addresses: Sequence[Address], tables: Tables, *, keep: AbstractSet[str] = frozenset()) -> None:
    """Remove what other attachments have under addresses that IPAM has given to this one, so that it does not suffer.

    Mechanisms in `keep` replace it themselves. Host ports that lead to an address go if their attachment is dead.
    """
    if filter_tables.INET in tables:
        kernel = Nfnetlink()
        names = [name for mechanism, names in BY_ADDRESS.items() if mechanism not in keep for name in names]
        for element, holder in former.others(kernel, INET, names, addresses, owner):
            if element.of.name.startswith(HAIRPIN):
                from shared.nft import conntrack, hostports

                hostports.remove_dead(kernel, holder, conntrack.forget)
            registry.attempt(kernel, [element.remove()])
    if not tables.isdisjoint(filter_tables.IPTABLES):
        from shared.iptables import masquerade

        masquerade.evict(owner, addresses)
    if _has_iptables(tables) and posix.access(HOSTPORT_RECORDS, posix.F_OK):
        from shared.iptables import hostports as by_iptables
        from shared.nft import conntrack

        by_iptables.evict(addresses, conntrack.forget)


def collect(network: str, valid: AbstractSet[tuple[str, str]], tables: Tables) -> None:
    """Remove that of attachments of a network that are not among the valid (container id, ifname), and of all dead."""
    from shared.nft import conntrack

    tasks: list[Callable[[], object]] = []
    if not tables.isdisjoint((filter_tables.INET, filter_tables.BRIDGE)):
        from shared.nft import admission, dedup, hostports, masquerade, spoofcheck

        tasks += [
            lambda: masquerade.collect(network, valid),
            lambda: spoofcheck.collect(network, valid),
            lambda: dedup.collect(network, valid),
            lambda: admission.collect(network, valid),
            lambda: hostports.collect(Nfnetlink(), network, valid, conntrack.forget),
        ]
    if _has_iptables(tables):
        from shared.iptables import hostports as hostports_by_iptables
        from shared.iptables import masquerade as masquerade_by_iptables

        tasks.append(lambda: masquerade_by_iptables.collect(network, valid))
        tasks.append(lambda: hostports_by_iptables.collect(network, valid, conntrack.forget))
    each(*tasks)


def of_other_networks(owner: Owner, tables: Tables) -> list[Owner]:
    """Return the dead attachments of the same container and interface in other networks that have something here."""
    kernel = Nfnetlink()
    present = [table for table in (INET, BRIDGE) if (table.family, table.name) in tables]
    names = sorted(set().union(*(former.namesakes(kernel, table, owner) for table in present)))
    return [Owner(*name.split("/")) for name in names if former.has_lost_link(name)]
