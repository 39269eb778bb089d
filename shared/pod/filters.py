"""Remove all packet filters of an attachment, also those that its configuration no longer demands.

`tables` are the host's tables (shared/net/filter_tables.py). A call that finds none does not load this module.
"""

from __future__ import annotations

import posix

from shared.cni.names import CHAIN_NAME_BYTES
from shared.cni.plugin import run_all
from shared.net import filter_tables
from shared.net.owner import Owner
from shared.nft import former, registry
from shared.nft.registry import BRIDGE, INET
from shared.nft.ruleset import Set
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet
    from types import ModuleType

    from shared.cni.ip import Address
    from shared.nft.conntrack import Flow

    Tables = AbstractSet[tuple[int, str]]

MASQUERADE, MASQUERADE_BY_IPTABLES = "masquerade", "masquerade by iptables"
SPOOFCHECK, DEDUP, HOSTPORTS, FIREWALL = "spoofcheck", "dedup", "hostports", "firewall"
MECHANISMS = (
    (INET, MASQUERADE), (INET, HOSTPORTS), (INET, FIREWALL), (BRIDGE, SPOOFCHECK), (BRIDGE, DEDUP), (BRIDGE, FIREWALL),
)  # fmt: skip
MODULES = {
    MASQUERADE: "masquerade.nftables", SPOOFCHECK: "frames.spoofcheck", DEDUP: "frames.dedup",
    FIREWALL: "admission.nftables",
}  # fmt: skip
HAIRPIN = "hairpin"
# The sets and maps that have addresses as keys, without the IP version at the end of their names.
BY_ADDRESS = {MASQUERADE: ("masq",), FIREWALL: ("admitted", "published", "guarded"), HOSTPORTS: (HAIRPIN,)}
# One set of each mechanism: it exists once the mechanism was used.
A_SET = {
    MASQUERADE: Set(INET, "masq4", ()), HOSTPORTS: Set(INET, "hostports4", ()), FIREWALL: Set(INET, "admitted4", ()),
    SPOOFCHECK: Set(BRIDGE, "guarded", ()), DEDUP: Set(BRIDGE, "podmacs", ()),
}  # fmt: skip
FIREWALL_RECORDS = "/run/cni/firewall"  # exists once a call of firewall has admitted a pod
HOSTPORT_RECORDS = "/run/cni/portmap"  # exists once a call of portmap has used iptables
SWITCHES = "/run/cni/localnet"  # exists once a call of portmap has turned route_localnet on


def remove(owner: Owner, tables: Tables) -> None:
    """Remove all filters of an attachment, and the rules of the reference plugins for its container."""
    tasks: list[Callable[[], object]] = [lambda: _remove_registered(owner, tables, frozenset())]
    if _has_iptables(tables):
        tasks.append(lambda: _remove_from_iptables(owner))
    if posix.access(FIREWALL_RECORDS, posix.F_OK):
        tasks.append(lambda: _end_admission(owner))
    run_all(*tasks, _set_localnet_back)


def renew(owner: Owner, addresses: Sequence[Address], tables: Tables, *, keep: AbstractSet[str]) -> None:
    """Remove older filters of a new attachment and of its addresses.

    Keep those of the mechanisms in `keep`: they replace theirs. Remove all filters that another attachment has for one
    of the addresses: IPAM has given it to this one. Remove host ports of another one that lead there if it is dead.
    """
    had_ports = HOSTPORTS in _remove_registered(owner, tables, keep)
    if posix.access(FIREWALL_RECORDS, posix.F_OK):
        _end_admission(owner)
    if filter_tables.INET in tables:
        had_ports |= _evict(owner, addresses, keep)
    if _has_iptables(tables):
        had_ports |= _renew_iptables(owner, addresses, keep)
    if had_ports:
        _set_localnet_back()


def _renew_iptables(owner: Owner, addresses: Sequence[Address], keep: AbstractSet[str]) -> bool:
    """Remove older rules of iptables. Return True if host ports were among them."""
    if MASQUERADE_BY_IPTABLES not in keep:
        from shared.masquerade import iptables as masquerade

        masquerade.evict(addresses)
    if posix.access(HOSTPORT_RECORDS, posix.F_OK):
        from shared.hostports import iptables as hostports

        return hostports.evict(owner, addresses, _forget)
    return False


def _end_admission(owner: Owner) -> None:
    from shared.admission import claims

    if claims.find(owner):
        from shared.admission import backends as admission

        admission.end(owner)


def _set_localnet_back() -> None:
    if posix.access(SWITCHES, posix.F_OK):
        from shared.hostports import iptables as hostports

        hostports.set_localnet_back()


def _remove_registered(owner: Owner, tables: Tables, keep: AbstractSet[str]) -> set[str]:
    """Remove the elements that are registered for an attachment. Return their mechanisms."""
    mechanisms = [one for one in MECHANISMS if one[1] not in keep and (one[0].family, one[0].name) in tables]
    # a socket of nf_tables stays open, so that the kernel frees what was deleted while the call does something else
    found = former.registered(Nfnetlink(), owner, mechanisms) if mechanisms else []
    names = {mechanism for _, mechanism in found}
    if filter_tables.REFERENCES in tables and SPOOFCHECK not in keep:
        names.add(SPOOFCHECK)  # the reference plugins register nothing
    run_all(*(lambda name=name: _remove(name, owner) for name in sorted(names)))
    return names


def _remove(mechanism: str, owner: Owner) -> None:
    if mechanism == HOSTPORTS:
        from shared.hostports import nftables as hostports

        hostports.remove(Nfnetlink(), owner, _forget)
    else:
        _module(mechanism).remove(owner)


def _has_iptables(tables: Tables) -> bool:
    return not tables.isdisjoint((*filter_tables.IPTABLES, filter_tables.LEGACY))


def _remove_from_iptables(owner: Owner) -> None:
    from shared.iptables import variants
    from shared.net.reference_names import container_digest

    digest = container_digest(owner.network, owner.container_id)
    if variants.having("nat", f"CNI-{digest}"[:CHAIN_NAME_BYTES]):
        from shared.masquerade import iptables as masquerade

        masquerade.remove(owner)
    if variants.having("nat", f"CNI-DN-{digest}"[:CHAIN_NAME_BYTES]):
        from shared.hostports import iptables as hostports

        hostports.remove(owner, _forget)


def _evict(owner: Owner, addresses: Sequence[Address], keep: AbstractSet[str]) -> bool:
    """Remove others' elements with these addresses. Return True if host ports were among them."""
    kernel = Nfnetlink()
    had_ports = False
    names = [name for mechanism, names in BY_ADDRESS.items() if mechanism not in keep for name in names]
    for element, holder in former.others(kernel, INET, names, addresses, owner):
        if element.of.name.startswith(HAIRPIN):
            from shared.hostports import nftables as hostports

            had_ports |= hostports.remove_dead(kernel, holder, _forget)
        registry.attempt(kernel, [element.remove_request()])
    return had_ports


def collect(network: str, valid: AbstractSet[tuple[str, str]], tables: Tables) -> None:
    """Remove the filters of a network's attachments that are not among the valid (container id, ifname).

    Also remove those of dead attachments of any network.
    """
    tasks: list[Callable[[], object]] = [
        *(lambda name=name: _collect(name, network, valid) for name in _ever_used(tables))
    ]
    if _has_iptables(tables):
        from shared.hostports import iptables as hostports
        from shared.masquerade import iptables as masquerade

        tasks.append(lambda: masquerade.collect(network, valid))
        tasks.append(lambda: hostports.collect(network, valid, _forget))
    if posix.access(FIREWALL_RECORDS, posix.F_OK):
        from shared.admission import backends as admission
        from shared.admission import claims

        tasks.append(lambda: claims.collect(network, valid, admission.end))
    run_all(*tasks, _set_localnet_back)


def _ever_used(tables: Tables) -> list[str]:
    """Return the mechanisms with a set in the kernel. The others were never used, and have left nothing."""
    sets = {name: one for name, one in A_SET.items() if (one.table.family, one.table.name) in tables}
    found = Nfnetlink().get_all([one.query_request() for one in sets.values()]) if sets else []
    return [name for name, now in zip(sets, found) if now]


def _collect(mechanism: str, network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    if mechanism == HOSTPORTS:
        from shared.hostports import nftables as hostports

        hostports.collect(Nfnetlink(), network, valid, _forget)
    else:
        _module(mechanism).collect(network, valid)


def _module(mechanism: str) -> ModuleType:
    module: ModuleType = __import__(f"shared.{MODULES[mechanism]}", fromlist=("remove",))
    return module


def _forget(flows: AbstractSet[Flow]) -> None:
    from shared.nft import conntrack

    conntrack.forget(flows)


def of_other_networks(owner: Owner, tables: Tables) -> list[Owner]:
    """Return the dead attachments of the same container and interface in other networks that have elements here."""
    kernel = Nfnetlink()
    present = [table for table in (INET, BRIDGE) if (table.family, table.name) in tables]
    names = sorted(set().union(*(former.namesakes(kernel, table, owner) for table in present)))
    return [Owner(*name.split("/")) for name in names if former.has_lost_link(name)]
