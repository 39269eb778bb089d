"""The maps, chains and rules of host ports in the table `inet pycni`; shared/hostports/nftables.py commits them.

    hostports4      protocol . port            : pod address . pod port, for any address of the host
    hostports4_at   address . protocol . port  : the same for one address of the host, looked up first
    conditional4    protocol . port            : a chain that maps packets that meet conditions (conditional4_at, too)
    hairpin4        pod address                : a chain that masquerades packets that the pod would answer directly

and the same for IPv6. The rules look up only packets to an address of this host (CVE-2025-67499). They masquerade only
connections that these maps redirected. Conntrack labels distinguish these from connections that others redirect to a
pod.

Packets from 127.0.0.1 reach a pod only if route_localnet is on for the link that leads there
(shared/net/localnet.py). The switch also lets the link's neighbours reach services that listen on 127.0.0.1 only
(CVE-2020-8558), or pretend to be 127.0.0.1. A chain of priority raw therefore drops packets to and from 127.0.0.0/8
that arrive by another link than lo.
"""

from __future__ import annotations

from shared.hostports.mappings import LOCALHOST, LOCALHOST_6, VERSIONS
from shared.nft import wire
from shared.nft.expressions import (
    address,
    ct_label,
    ct_label_set,
    ct_status,
    dnat,
    drop,
    family,
    goto,
    is_local,
    jump,
    link,
    lookup,
    masquerade,
    meta,
    payload,
    return_,
    verdict,
)
from shared.nft.registry import INET, Ruleset
from shared.nft.ruleset import ADDRESSES, INET_PROTO, INET_SERVICE, VERDICT, Chain, Rule, Set, addressed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.cni.ip import Prefix
    from shared.hostports.conditions import Match
    from shared.hostports.mappings import HostPort
    from shared.nft.ruleset import Element, Expression

# Conntrack labels are bits 0 to 127. No routing rule reads them, unlike a packet's mark.
# A connection that these maps redirected has ASKED alone. One that another table redirected has neither, or both.
ASKED, NOT_REDIRECTED = 126, 127

_PORT = (INET_PROTO, INET_SERVICE)
ANY = {n: Set(INET, f"hostports{n}", _PORT, (ADDRESSES[n], INET_SERVICE)) for n in VERSIONS}
AT = {n: Set(INET, f"hostports{n}_at", (ADDRESSES[n], *_PORT), (ADDRESSES[n], INET_SERVICE)) for n in VERSIONS}
CONDITIONAL = {n: Set(INET, f"conditional{n}", _PORT, (VERDICT,)) for n in VERSIONS}
CONDITIONAL_AT = {n: Set(INET, f"conditional{n}_at", (ADDRESSES[n], *_PORT), (VERDICT,)) for n in VERSIONS}
HAIRPIN = {n: Set(INET, f"hairpin{n}", (ADDRESSES[n],), (VERDICT,)) for n in VERSIONS}
SETS = tuple(one for kind in (ANY, AT, CONDITIONAL, CONDITIONAL_AT, HAIRPIN) for one in kind.values())
CONDITIONAL_OF = {
    maps[n].name: also[n].name for maps, also in ((ANY, CONDITIONAL), (AT, CONDITIONAL_AT)) for n in VERSIONS
}
VERSION_OF = {one.name: version for kind in (ANY, AT) for version, one in kind.items()}
# Prefixes of chains that are named after their rules: chains of conditions, and chains that masquerade.
PREFIXES = ("hostport", "hairpin")


class Forwarding:
    """The map elements of an attachment's ports, and the chains to which they lead."""

    def __init__(
        self, ports: Sequence[HostPort], subnets: Mapping[int, Prefix], conditions: Mapping[int, Sequence[Match]],
        *, snat: bool, masq_all: bool,
    ) -> None:  # fmt: skip
        """Take the pod's addresses with prefix lengths, and the conditions on packets, both by IP version."""
        self.elements: list[Element] = []
        chains: dict[str, Chain] = {}
        translating: dict[str, Chain] = {}  # by the map's name: one chain serves thousands of ports

        def lead_to(chain: Chain, element_of: Set, key: Sequence[str]) -> Element:
            chains[chain.name] = chain
            return element_of.element(*key, to=verdict("goto", chain.name))

        for port in ports:
            maps, conditional = (AT, CONDITIONAL_AT) if port.is_at else (ANY, CONDITIONAL)
            version = port.version
            self.elements.append(maps[version].element(*port.key, to=port.to))
            wanted = conditions.get(version)
            if wanted:
                of = maps[version].name
                if of not in translating:
                    *others, translating[of] = _conditional_chains(version, maps[version], wanted)
                    chains.update({one.name: one for one in others})
                self.elements.append(lead_to(translating[of], conditional[version], port.key))
        for version in sorted({port.version for port in ports}) if snat else ():
            chain = _hairpin_chain(subnets[version], masq_all=masq_all)
            self.elements.append(lead_to(chain, HAIRPIN[version], (str(subnets[version].address),)))
        self.chains = list(chains.values())


def _hairpin_chain(subnet: Prefix, *, masq_all: bool) -> Chain:
    """Return the chain that masquerades packets to a pod.

    The pod would answer senders in its own subnet, itself included, directly. They expect the host's address.
    """
    if masq_all:
        rules = [Rule("masqAll", masquerade())]
    else:
        rules = [Rule("subnet", address("saddr", subnet.network), masquerade())]
        if subnet.version == 4:
            rules.append(Rule("localhost", address("saddr", LOCALHOST), masquerade()))
    return addressed(INET, PREFIXES[1], rules)


def _translation_rule(purpose: str, version: int, to: Set, conditions: Sequence[Expression] = ()) -> Rule:
    """Return the rule that redirects packets to the pod that the map names."""
    port = ADDRESSES[version].length // 4  # the register after the address
    return Rule(purpose, conditions, _load_key(version, to), lookup(to), dnat(version, 0, port))


def _conditional_chains(version: int, to: Set, matches: Sequence[Match]) -> list[Chain]:
    """Return the chains that translate packets that meet the conditions, each after the chains to which it leads.

    A packet that does not meet them reaches the end of a chain or a return, and continues at its origin.
    """
    from shared.hostports.conditions import Parts

    conditions = Parts(matches)
    excluded = [Rule("none of", one, return_()) for one in conditions.none]
    found = [addressed(INET, PREFIXES[0], [*excluded, _translation_rule("conditions", version, to, conditions.every)])]
    for choice in conditions.some:
        rules = [Rule("one of", one, goto(found[-1].name)) for one in choice]
        found.append(addressed(INET, PREFIXES[0], rules))
    return found


def _load_key(version: int, of: Set) -> list[Expression]:
    """Return the expressions that load an element's key: [address .] protocol . port."""
    loaded, word = family(version), 0
    if len(of.key) > len(_PORT):
        loaded.append(payload("ip daddr" if version == 4 else "ip6 daddr"))
        word = ADDRESSES[version].length // 4
    return [*loaded, meta("l4proto", word), payload("th dport", word + 1)]


def _lookup_rules(maps: dict[int, Set], conditional: dict[int, Set]) -> list[Rule]:
    """Return the rules that look up a packet: the chain of its port's conditions first.

    That chain sends back a packet that fails the conditions. The rule of the map follows, for ports without any.
    """
    rules = []
    for version in VERSIONS:
        of = conditional[version]
        rules.append(Rule(of.name, _load_key(version, of), lookup(of)))
        rules.append(_translation_rule(maps[version].name, version, maps[version]))
    return rules


_fixed_chains: list[Chain] = []


def fixed_chains() -> Sequence[Chain]:
    """Return the chains that do not depend on the mappings, each after the chains to which it leads.

    Making them takes 1 ms. They are kept, for a process that repairs many pods, and for one that forks workers.
    """
    if not _fixed_chains:
        _fixed_chains.extend(_make_fixed_chains())
    return _fixed_chains


def _make_fixed_chains() -> tuple[Chain, ...]:
    to_host = (
        Rule("to this host", is_local(), ct_label_set(ASKED), jump("hostports")),
        # redirected packets do not reach this rule
        Rule("not redirected", is_local(), ct_label_set(NOT_REDIRECTED)),
    )
    return (
        Chain(INET, "hostports_at", _lookup_rules(AT, CONDITIONAL_AT)),
        Chain(INET, "hostports", [
            # The kernel routes nothing from IPv6 localhost to a pod. Without a mapping the client is refused at once.
            Rule("localhost", address("daddr", LOCALHOST_6), return_()),
            Rule("one address", jump("hostports_at")),
            *_lookup_rules(ANY, CONDITIONAL),
        ]),
        Chain(INET, "hostports_prerouting", to_host, ("nat", wire.NF_INET_PRE_ROUTING, wire.NF_IP_PRI_NAT_DST)),
        Chain(INET, "hostports_output", to_host, ("nat", wire.NF_INET_LOCAL_OUT, wire.NF_IP_PRI_NAT_DST)),
        Chain(INET, "hostports_postrouting", [
            Rule("not redirected", ct_label(NOT_REDIRECTED), return_()),
            Rule("hairpin4", ct_label(ASKED), ct_status("dnat"), family(4), payload("ip daddr"), lookup(HAIRPIN[4])),
            Rule("hairpin6", ct_label(ASKED), ct_status("dnat"), family(6), payload("ip6 daddr"), lookup(HAIRPIN[6])),
        ], ("nat", wire.NF_INET_POST_ROUTING, wire.NF_IP_PRI_NAT_SRC)),
        guard_chain(),
    )  # fmt: skip


def guard_chain() -> Chain:
    """Return the chain that makes route_localnet safe."""
    from_outside = link("iifname", "lo", "neq")
    rules = [
        Rule("to localhost", from_outside, address("daddr", LOCALHOST), drop()),
        Rule("from localhost", from_outside, address("saddr", LOCALHOST), drop()),
    ]
    return Chain(INET, "hostports_localnet", rules, ("filter", wire.NF_INET_PRE_ROUTING, wire.NF_IP_PRI_RAW))


def ruleset(chains: Sequence[Chain] = ()) -> Ruleset:
    """Return the rule set. Removal needs no chains, and their rules take time to make."""
    return Ruleset(INET, "hostports", SETS, chains, PREFIXES)
