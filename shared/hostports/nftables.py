"""Host ports: what is sent to a port of this host goes on to a pod, by maps in which each mapping is an element.

    hostports4      protocol . port            : pod address . pod port, for any address of the host
    hostports4_at   address . protocol . port  : the same for one address, looked up before
    conditional4    protocol . port            : a chain that looks up what fulfils conditions (conditional4_at, too)
    hairpin4        pod address                : a chain that masquerades what could not find its way back otherwise

and the same for IPv6. Only packets to an address of this host are ever looked up (CVE-2025-67499). Only connections
that these maps redirected are masqueraded: conntrack labels tell them from those that others redirect to a pod. Packets
of 127.0.0.1 to a pod need route_localnet on the link that leads there (shared/net/localnet.py). That also lets the
link's neighbours reach services that listen on 127.0.0.1 only (CVE-2020-8558), or pretend to be 127.0.0.1. So packets
to and from 127.0.0.0/8 that come in by another link than lo are dropped first of all.
"""

from __future__ import annotations

import errno

from shared.cni.errors import InternalError
from shared.cni.ip import Address, Prefix
from shared.net.netlink import NetlinkError, Request
from shared.nft import registry, wire
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
from shared.nft.registry import INET, Conflict, Ruleset
from shared.nft.ruleset import (
    ADDRESSES,
    INET_PROTO,
    INET_SERVICE,
    VERDICT,
    Chain,
    Element,
    Rule,
    Set,
    Table,
    addressed,
    comment_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from shared.hostports.conditions import Parts
    from shared.net.owner import Owner
    from shared.nft.conntrack import Flow
    from shared.nft.ruleset import Expression
    from shared.nft.transaction import Nfnetlink

    Forgetting = Callable[[set[Flow]], object]  # has the kernel forget UDP connections

VERSIONS = (4, 6)
LOCALHOST = Prefix(Address(4, 127 << 24), 8)
LOCALHOST_6 = Prefix(Address(6, 1), 128)
PROTOCOLS = ("tcp", "udp", "sctp")

# Conntrack labels: bits 0 to 127, which no routing rule asks, unlike a packet's mark. A connection has the first alone
# if these maps redirected it. Whatever another table redirects has neither, or both.
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
LOOKED_UP = {one.name: version for kind in (ANY, AT) for version, one in kind.items()}
# of chains named by their rules: those of conditions, and of what is masqueraded
PREFIXES = ("hostport", "hairpin")

# What the reference's nftables backend makes: in these chains of its tables the rules have the container id as comment.
REFERENCE_TABLES = tuple(Table(number, "cni_hostport") for number in (wire.NFPROTO_IPV4, wire.NFPROTO_IPV6))
REFERENCE_CHAINS = ("hostports", "hostip_hostports", "masquerading")


class Taken(InternalError):
    """A host port is another attachment's, whose label is `holder`."""

    def __init__(self, version: int, host: str, protocol: str, port: int | str, holder: str) -> None:
        where = host or f"every IPv{version} address"
        super().__init__(f"host port {port}/{protocol} of {where} is taken by {holder or 'somebody else'}")


class HostPort:
    """A mapping of one family: what is sent to `port` of the host's address (empty: of any) goes to the pod's."""

    def __init__(self, host: str, protocol: str, port: int, pod: Address, pod_port: int) -> None:
        self.version = pod.version
        self.host, self.protocol, self.port = host, protocol, port
        self.pod, self.pod_port = pod, pod_port
        self.key = (*([host] if host else []), protocol, str(port))
        self.to = (str(pod), str(pod_port))
        self.flow = (self.version, host, port) if protocol == "udp" else None
        self.is_at = bool(host)


class Forwarding:
    """All that an attachment has: elements, and the chains to which they lead."""

    def __init__(
        self, ports: Sequence[HostPort], subnets: Mapping[int, Prefix], conditions: Mapping[int, Parts],
        *, snat: bool, masq_all: bool,
    ) -> None:  # fmt: skip
        """Takes the pod's addresses with their prefix lengths, and what packets must match, both by IP version."""
        self.elements: list[Element] = []
        chains: dict[str, Chain] = {}
        translating: dict[str, Chain] = {}  # by the map's name: one chain serves thousands of ports

        def leading(element_of: Set, key: Sequence[str], chain: Chain) -> Element:
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
                    *others, translating[of] = _conditional(version, maps[version], wanted)
                    chains.update({one.name: one for one in others})
                self.elements.append(leading(conditional[version], port.key, translating[of]))
        for version in sorted({port.version for port in ports}) if snat else ():
            subnet = subnets[version]
            self.elements.append(leading(HAIRPIN[version], (str(subnet.address),), _hairpin(subnet, masq_all=masq_all)))
        self.chains = list(chains.values())


def _hairpin(subnet: Prefix, *, masq_all: bool) -> Chain:
    """Whoever is in the pod's own subnet, or the pod, would be answered directly, and not from the host's address."""
    if masq_all:
        rules = [Rule("masqAll", masquerade())]
    else:
        rules = [Rule("subnet", address("saddr", subnet.network), masquerade())]
        if subnet.version == 4:
            rules.append(Rule("localhost", address("saddr", LOCALHOST), masquerade()))
    return addressed(INET, PREFIXES[1], rules)


def _translating(purpose: str, version: int, to: Set, conditions: Sequence[Expression] = ()) -> Rule:
    """The rule that sends to a pod what the map has."""
    port = ADDRESSES[version].length // 4  # the word behind the address
    return Rule(purpose, conditions, _key(version, to), lookup(to), dnat(version, 0, port))


def _conditional(version: int, to: Set, conditions: Parts) -> list[Chain]:
    """Return the chains that translate what meets conditions, each behind those to which it leads.

    A packet that does not meet them comes to the end of one of them, or is sent back, to where it came from.
    """
    excluded = [Rule("none of", one, return_()) for one in conditions.none]
    found = [addressed(INET, PREFIXES[0], [*excluded, _translating("conditions", version, to, conditions.every)])]
    for choice in conditions.some:
        rules = [Rule("one of", one, goto(found[-1].name)) for one in choice]
        found.append(addressed(INET, PREFIXES[0], rules))
    return found


def _key(version: int, of: Set) -> list[Expression]:
    """Loads what elements are looked up by: [address .] protocol . port."""
    loaded, word = family(version), 0
    if len(of.key) > len(_PORT):
        loaded.append(payload("ip daddr" if version == 4 else "ip6 daddr"))
        word = ADDRESSES[version].length // 4
    return [*loaded, meta("l4proto", word), payload("th dport", word + 1)]


def _both_families(maps: dict[int, Set], conditional: dict[int, Set]) -> list[Rule]:
    """A port with conditions leads away to the chain that knows them; what does not fulfil them comes back behind."""
    rules = []
    for version in VERSIONS:
        of = conditional[version]
        rules.append(Rule(of.name, _key(version, of), lookup(of)))
        rules.append(_translating(maps[version].name, version, maps[version]))
    return rules


def _chains() -> tuple[Chain, ...]:
    """Those that are the same whatever is mapped, each behind those to which it leads."""
    to_host = (
        Rule("to this host", is_local(), ct_label_set(ASKED), jump("hostports")),
        # a redirected packet does not come here
        Rule("not redirected", is_local(), ct_label_set(NOT_REDIRECTED)),
    )
    return (
        Chain(INET, "hostports_at", _both_families(AT, CONDITIONAL_AT)),
        Chain(INET, "hostports", [
            # the kernel routes IPv6 localhost nowhere: better refused at once than lost
            Rule("localhost", address("daddr", LOCALHOST_6), return_()),
            Rule("one address", jump("hostports_at")),
            *_both_families(ANY, CONDITIONAL),
        ]),
        Chain(INET, "hostports_prerouting", to_host, ("nat", wire.NF_INET_PRE_ROUTING, wire.NF_IP_PRI_NAT_DST)),
        Chain(INET, "hostports_output", to_host, ("nat", wire.NF_INET_LOCAL_OUT, wire.NF_IP_PRI_NAT_DST)),
        Chain(INET, "hostports_postrouting", [
            Rule("not redirected", ct_label(NOT_REDIRECTED), return_()),
            Rule("hairpin4", ct_label(ASKED), ct_status("dnat"), family(4), payload("ip daddr"), lookup(HAIRPIN[4])),
            Rule("hairpin6", ct_label(ASKED), ct_status("dnat"), family(6), payload("ip6 daddr"), lookup(HAIRPIN[6])),
        ], ("nat", wire.NF_INET_POST_ROUTING, wire.NF_IP_PRI_NAT_SRC)),
        _guard(),
    )  # fmt: skip


def _guard() -> Chain:
    """Return the chain without which route_localnet is a danger."""
    from_outside = link("iifname", "lo", "neq")
    rules = [
        Rule("to localhost", from_outside, address("daddr", LOCALHOST), drop()),
        Rule("from localhost", from_outside, address("saddr", LOCALHOST), drop()),
    ]
    return Chain(INET, "hostports_localnet", rules, ("filter", wire.NF_INET_PRE_ROUTING, wire.NF_IP_PRI_RAW))


def _ruleset(chains: Sequence[Chain] = ()) -> Ruleset:
    """Removing takes no chains, and making their rules takes time."""
    return Ruleset(INET, "hostports", SETS, chains, PREFIXES)


def add(kernel: Nfnetlink, owner: Owner, forwarding: Forwarding, mark: str, forget: Forgetting) -> set[Flow]:
    """Maps an attachment's ports; raises InternalError that names the port and its holder where one is taken.

    What another attachment of the same container has already stays as it is, since a runtime asks for a container's
    ports with each of its networks. What else leads to the pod's address is of a pod that had it before and is taken
    over. A holder that is dead, by its mark, loses all that it has. Returns what has been mapped of UDP.
    """
    ruleset, elements = _ruleset(_chains()), forwarding.elements
    for tries_left in reversed(range(registry.TRIES)):
        try:
            registry.add(
                kernel, ruleset, owner, elements, chains=forwarding.chains, replace_in=tuple(HAIRPIN.values()),
                mark=mark,
            )  # fmt: skip
        except registry.Registered:
            if not tries_left or not _is_of_another_namespace(kernel, owner, mark):
                raise
            remove(kernel, owner, forget)
        except Conflict as conflict:
            is_over = remove_dead(kernel, conflict.holder, forget)
            if not tries_left or not (is_over or registry.is_same_container(conflict.holder, owner)):
                *host, protocol, port = conflict.element.of.show(conflict.element.key).split()
                version = LOOKED_UP[conflict.element.of.name]
                raise Taken(version, host[0] if host else "", protocol, port, conflict.holder) from None
            elements = _left_over(kernel, owner, forwarding.elements)
        else:
            break
    return {flow for element in elements if (flow := _flow(element.of, element.key))}


def _is_of_another_namespace(kernel: Nfnetlink, owner: Owner, mark: str) -> bool:
    """Return True if what the attachment has was made for a namespace that it has no more."""
    from shared.nft import former

    return bool(mark) and former.mark_of(kernel, _ruleset(), registry.label(owner))[1] not in ("", mark)


def _left_over(kernel: Nfnetlink, owner: Owner, elements: Sequence[Element]) -> list[Element]:
    """Those elements whose port no other attachment of the container has."""
    held = {
        (CONDITIONAL_OF.get(element.of.name, ""), element.key)
        for element, holder in zip(elements, registry.holders(kernel, elements))
        if holder != registry.label(owner) and registry.is_same_container(holder, owner)
    }
    return [e for e in elements if not {(e.of.name, e.key), (CONDITIONAL_OF.get(e.of.name, ""), e.key)} & held]


def require_free(kernel: Nfnetlink, ports: Sequence[HostPort], owner: Owner, forget: Forgetting) -> None:
    """Raises Taken for a port that another container than the owner's has here already, unless that one is dead."""
    maps = [AT[port.version] if port.is_at else ANY[port.version] for port in ports]
    queries = [Element(of, of.pack(port.key)).query() for of, port in zip(maps, ports)]
    gone = set()
    for port, found in zip(ports, kernel.get_elements(queries)):
        holder = comment_of(found.get("NFTA_SET_ELEM_USERDATA", b"")) if found else ""
        if not found or holder in gone:
            continue
        if remove_dead(kernel, holder, forget):
            gone.add(holder)
        elif not registry.is_same_container(holder, owner):
            raise Taken(port.version, port.host, port.protocol, port.port, holder)


def problems(kernel: Nfnetlink, owner: Owner, forwarding: Forwarding) -> list[str]:
    """What is not as `add` left it, each in words."""
    elements = _left_over(kernel, owner, forwarding.elements)
    return registry.problems(kernel, _ruleset(_chains()), owner, elements, forwarding.chains)


def try_out(kernel: Nfnetlink) -> None:
    """Raises NoNfTables or NetlinkError where the kernel could not make the rules; changes nothing."""
    registry.try_out(kernel, _ruleset(_chains()))


def is_guarded(kernel: Nfnetlink) -> bool:
    """Return True if packets to and from 127.0.0.0/8 are dropped that come in by another link than lo."""
    return registry.is_whole(kernel, _guard())


def guard(kernel: Nfnetlink) -> None:
    """Make what is missing of that."""
    registry.ensure(kernel, Ruleset(INET, "hostports", (), (_guard(),)))


def is_used(kernel: Nfnetlink) -> bool:
    """Return True if a port of IPv4 is mapped here, by this suite or the reference's nftables backend."""
    chains = [Chain(REFERENCE_TABLES[0], name, ()) for name in REFERENCE_CHAINS[:2]]
    return any(map(kernel.dump_elements, (ANY[4], AT[4]))) or any(map(kernel.dump_rules, chains))


def remove(kernel: Nfnetlink, owner: Owner, forget: Forgetting) -> None:
    """Removes what an attachment has, and has `forget` forget its UDP connections, before it is forgotten itself."""
    _remove(kernel, registry.label(owner), forget)


def remove_dead(kernel: Nfnetlink, name: str, forget: Forgetting) -> bool:
    """Remove what the attachment with this label has, if it is dead. Return True if it is."""
    from shared.nft import former

    if not former.is_dead(kernel, _ruleset(), name, patient=True):
        return False
    _remove(kernel, name, forget)
    return True


def evict(kernel: Nfnetlink, owner: Owner, addresses: Sequence[Address], forget: Forgetting) -> None:
    """Remove the host ports of dead attachments that lead to an attachment's addresses."""
    from shared.nft import former

    for _, holder in former.others(kernel, INET, ("hairpin",), addresses, owner):
        remove_dead(kernel, holder, forget)


def _remove(kernel: Nfnetlink, name: str, forget: Forgetting) -> None:
    listed = registry.listed(kernel, _ruleset(), name)
    flows = {flow for element in listed if (flow := _flow(element.of, element.key))}
    if flows:
        registry.withdraw(kernel, _ruleset(), name)
        forget(flows)
    registry.remove_label(kernel, _ruleset(), name)


def collect(kernel: Nfnetlink, network: str, valid: AbstractSet[tuple[str, str]], forget: Forgetting) -> None:
    """Remove the ports of attachments of a network that are not listed as valid, and of the dead of any network."""
    from shared.nft import former

    before = _flows(kernel)
    registry.collect(kernel, _ruleset(), network, valid, lambda name: former.is_dead(kernel, _ruleset(), name))
    gone = before - _flows(kernel) if before else before
    if gone:
        forget(gone)


def _flows(kernel: Nfnetlink) -> set[Flow]:
    found = set()
    for kind in (ANY, AT):
        for one in kind.values():
            keys = [message["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"] for message in kernel.dump_elements(one)]
            found |= {flow for key in keys if (flow := _flow(one, key))}
    return found


def _flow(of: Set, key: bytes) -> Flow | None:
    """What an element maps, if it is UDP."""
    if of.name not in LOOKED_UP:
        return None
    *host, protocol, port = of.show(key).split()
    return (LOOKED_UP[of.name], host[0] if host else "", int(port)) if protocol == "udp" else None


def remove_references(kernel: Nfnetlink, container_id: str) -> None:
    """Removes the rules that the reference's nftables backend has made for a container; asks once where it has not."""
    there = kernel.get_all([table.query() for table in REFERENCE_TABLES])
    for table, present in zip(REFERENCE_TABLES, there):
        if present:
            _remove_commented(kernel, table, container_id)


def _remove_commented(kernel: Nfnetlink, table: Table, text: str) -> None:
    like = {"nfgen_family": table.family, "NFTA_RULE_TABLE": table.name}
    names = ("nfgen_family", "NFTA_RULE_TABLE", "NFTA_RULE_CHAIN", "NFTA_RULE_HANDLE")
    for tries_left in reversed(range(registry.TRIES)):
        removals = kernel.scan(wire.NFT_MSG_GETRULE, like, lambda rules: [
            Request(wire.NFT_MSG_DELRULE, {name: rule[name] for name in names})
            for rule in rules
            if rule["NFTA_RULE_TABLE"] == table.name and rule["NFTA_RULE_CHAIN"] in REFERENCE_CHAINS
            if comment_of(rule.get("NFTA_RULE_USERDATA", b"")) == text
        ])  # fmt: skip
        try:
            kernel.commit(removals)
        except NetlinkError as error:
            if error.errno != errno.ENOENT or not tries_left:  # ENOENT: one of them is gone meanwhile
                raise
        else:
            return
