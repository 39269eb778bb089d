"""Masquerading by nf_tables: packets that leave a pod's networks get the address of the node's outgoing link.

A map leads from the pod's address to a chain, which lists the exceptions. Pods of one network share that chain:

    chain masquerading { type nat hook postrouting priority srcnat; ip saddr vmap @masq4; ip6 saddr vmap @masq6; }
    map masq4 { type ipv4_addr : verdict; elements = { 10.1.0.5 : goto masq-1a2b3c4d5e6f } }
    chain masq-1a2b3c4d5e6f { ip daddr 10.1.0.0/16 return; ip daddr 224.0.0.0/4 return; masquerade; }
"""

from __future__ import annotations

from shared.cni.ip import Address, Prefix
from shared.net.netlink import TooLarge
from shared.nft import registry, wire
from shared.nft.expressions import address, family, is_local, lookup, masquerade, payload, return_, verdict
from shared.nft.registry import INET, Ruleset
from shared.nft.ruleset import ADDRESSES, VERDICT, Chain, Rule, Set, addressed
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from shared.net.owner import Owner
    from shared.nft.ruleset import Element
    from shared.undo import Undo

MAPS = {version: Set(INET, f"masq{version}", (ADDRESSES[version],), (VERDICT,)) for version in (4, 6)}
CHAIN = Chain(
    INET,
    "masquerading",
    (
        Rule("IPv4 pods", family(4), payload("ip saddr"), lookup(MAPS[4])),
        Rule("IPv6 pods", family(6), payload("ip6 saddr"), lookup(MAPS[6])),
    ),
    ("nat", wire.NF_INET_POST_ROUTING, wire.NF_IP_PRI_NAT_SRC),
)
PREFIX = "masq"
RULESET = Ruleset(INET, "masquerade", tuple(MAPS.values()), (CHAIN,), (PREFIX,))
MULTICAST = {4: Prefix(Address(4, 0xE0 << 24), 4), 6: Prefix(Address(6, 0xFF << 120), 8)}
LAST_RULES = {
    version: [Rule("multicast", address("daddr", groups), return_()), Rule("the rest", masquerade())]
    for version, groups in MULTICAST.items()
}


def add(
    undo: Undo, owner: Owner, addresses: Sequence[Prefix], exempt: Sequence[Prefix], *, replace: bool = True
) -> None:
    """Masquerade packets from the addresses, except to their own networks and to multicast groups.

    If there are `exempt` networks, packets to them and to addresses of the node are excepted too. With `replace`,
    take over an address from another attachment: IPAM has leased it again. Otherwise raise Conflict for it.
    """
    kernel = Nfnetlink()
    elements, chains = _parts(addresses, exempt)
    try:
        registry.add(kernel, RULESET, owner, elements, chains=chains, replace=replace, renew=True)
    except TooLarge as error:
        raise error.naming("nonMasqueradeCIDRs", len(exempt)) from None
    undo.push("stop masquerading", lambda: registry.remove(kernel, RULESET, owner))


def remove(owner: Owner) -> None:
    """Delete the attachment's masquerading. Do nothing if there is none, or the kernel has no nf_tables."""
    if kernel := Nfnetlink.if_there():
        registry.remove(kernel, RULESET, owner)


def problems(owner: Owner, addresses: Sequence[Prefix], exempt: Sequence[Prefix]) -> list[str]:
    """Return the differences from the state that `add` leaves."""
    elements, chains = _parts(addresses, exempt)
    return registry.problems(Nfnetlink(), RULESET, owner, elements, chains)


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Delete the masquerading of a network's attachments that are not valid, and of dead ones of any network."""
    if kernel := Nfnetlink.if_there():
        from shared.nft import former

        registry.collect(kernel, RULESET, network, valid, former.has_lost_link)


def try_out(exempt: Sequence[Prefix]) -> None:
    """Raise CniError if the kernel cannot masquerade. Change nothing."""
    _, chains = _parts(list(MULTICAST.values()), exempt)
    registry.try_out(Nfnetlink(), RULESET, chains)


def _parts(addresses: Sequence[Prefix], exempt: Sequence[Prefix]) -> tuple[list[Element], list[Chain]]:
    """Return the map elements of the addresses, and the chains to which they lead."""
    chains: dict[str, Chain] = {}
    elements: dict[str, Element] = {}
    for own in addresses:
        chain = _chain(own.network, exempt)
        chains[chain.name] = chain
        element = MAPS[own.version].element(str(own.address), to=verdict("goto", chain.name))
        elements[str(element)] = element
    return list(elements.values()), list(chains.values())


def _chain(own: Prefix, exempt: Sequence[Prefix]) -> Chain:
    others = {network.network for network in exempt if network.version == own.version}
    rules = [
        *([Rule("the node itself", is_local(), return_())] if exempt else []),
        Rule("the pod's network", address("daddr", own), return_()),
        *(Rule("exempt", address("daddr", one), return_()) for one in sorted(others, key=str)),
        *LAST_RULES[own.version],
    ]
    return addressed(INET, PREFIX, rules)
