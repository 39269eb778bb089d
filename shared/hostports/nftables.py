"""Host ports by nf_tables: commits, checks and deletes the elements of shared/hostports/nftables_rules.py."""

from __future__ import annotations

import errno

from shared.hostports.mappings import Taken
from shared.hostports.nftables_rules import (
    ANY,
    AT,
    CONDITIONAL_OF,
    HAIRPIN,
    VERSION_OF,
    fixed_chains,
    guard_chain,
    ruleset,
)
from shared.net.netlink import NetlinkError, Request
from shared.nft import labels, registry, wire
from shared.nft.chains import is_whole
from shared.nft.registry import INET, Conflict, Ruleset
from shared.nft.ruleset import Chain, Element, Set, Table, comment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from shared.cni.ip import Address
    from shared.hostports.mappings import HostPort
    from shared.hostports.nftables_rules import Forwarding
    from shared.net.owner import Owner
    from shared.nft.conntrack import Flow
    from shared.nft.transaction import Nfnetlink

    DeleteFlows = Callable[[set[Flow]], object]  # deletes the conntrack entries of UDP ports

# The reference's nftables backend makes rules in these chains of its tables, with the container id as comment.
REFERENCE_TABLES = tuple(Table(number, "cni_hostport") for number in (wire.NFPROTO_IPV4, wire.NFPROTO_IPV6))
REFERENCE_CHAINS = ("hostports", "hostip_hostports", "masquerading")


def add(
    kernel: Nfnetlink, owner: Owner, forwarding: Forwarding, mark: str, delete_flows: DeleteFlows, *,
    renew: bool = False,
) -> set[Flow]:  # fmt: skip
    """Map an attachment's ports and return the UDP ports among them. Raise Taken if another container has a port.

    A runtime requests a container's ports once for each of its networks. A port that another attachment of the
    container has stays with that one. A hairpin element of the pod's address is left from a former pod: replace it. If
    the holder of a port is dead by its mark, delete all its host ports and try again. With `renew`, replace the ports
    that the attachment has already.
    """
    rules = ruleset(fixed_chains())
    elements = _without_held(kernel, owner, forwarding.elements) if renew else forwarding.elements
    for tries_left in reversed(range(registry.TRIES)):
        try:
            registry.add(
                kernel, rules, owner, elements, chains=forwarding.chains, replace_in=tuple(HAIRPIN.values()),
                renew=renew, mark=mark,
            )  # fmt: skip
        except registry.Registered:
            if not tries_left or not _is_of_another_namespace(kernel, owner, mark):
                raise
            remove(kernel, owner, delete_flows)
        except Conflict as conflict:
            is_over = remove_dead(kernel, conflict.holder, delete_flows)
            if not tries_left or not (is_over or labels.is_same_container(conflict.holder, owner)):
                *host, protocol, port = conflict.element.of.show(conflict.element.key).split()
                version = VERSION_OF[conflict.element.of.name]
                raise Taken(version, host[0] if host else "", protocol, port, conflict.holder) from None
            elements = _without_held(kernel, owner, forwarding.elements)
        else:
            break
    return {flow for element in elements if (flow := _flow_of(element.of, element.key))}


def _is_of_another_namespace(kernel: Nfnetlink, owner: Owner, mark: str) -> bool:
    """Return True if the attachment's host ports were made for another network namespace."""
    from shared.nft import former

    return bool(mark) and former.mark_of(kernel, ruleset(), labels.of(owner))[1] not in ("", mark)


def _without_held(kernel: Nfnetlink, owner: Owner, elements: Sequence[Element]) -> list[Element]:
    """Return the elements without those of ports that another attachment of the container has."""
    held = {
        (CONDITIONAL_OF.get(element.of.name, ""), element.key)
        for element, holder in zip(elements, registry.holders(kernel, elements))
        if holder != labels.of(owner) and labels.is_same_container(holder, owner)
    }
    return [e for e in elements if not {(e.of.name, e.key), (CONDITIONAL_OF.get(e.of.name, ""), e.key)} & held]


def require_free(kernel: Nfnetlink, ports: Sequence[HostPort], owner: Owner, delete_flows: DeleteFlows) -> None:
    """Raise Taken if another container has one of the ports. Delete the host ports of a holder that is dead."""
    maps = [AT[port.version] if port.is_at else ANY[port.version] for port in ports]
    queries = [Element(of, of.pack(port.key)).query_request() for of, port in zip(maps, ports)]
    gone = set()
    for port, found in zip(ports, kernel.get_elements(queries)):
        holder = comment_of(found.get("NFTA_SET_ELEM_USERDATA", b"")) if found else ""
        if not found or holder in gone:
            continue
        if remove_dead(kernel, holder, delete_flows):
            gone.add(holder)
        elif not labels.is_same_container(holder, owner):
            raise Taken(port.version, port.host, port.protocol, port.port, holder)


def problems(kernel: Nfnetlink, owner: Owner, forwarding: Forwarding) -> list[str]:
    """Return the differences from the state that `add` leaves."""
    elements = _without_held(kernel, owner, forwarding.elements)
    return registry.problems(kernel, ruleset(fixed_chains()), owner, elements, forwarding.chains)


def try_out(kernel: Nfnetlink) -> None:
    """Raise NoNfTables or NetlinkError if the kernel cannot make the rules. Change nothing."""
    registry.try_out(kernel, ruleset(fixed_chains()))


def delete_flows(flows: AbstractSet[Flow]) -> None:
    """Delete the conntrack entries of UDP ports."""
    from shared.nft import conntrack

    conntrack.forget(flows)


def is_guarded(kernel: Nfnetlink) -> bool:
    """Return True if the rules drop packets to and from 127.0.0.0/8 that arrive by another link than lo."""
    return is_whole(kernel, guard_chain())


def guard(kernel: Nfnetlink) -> None:
    """Add the rules that drop packets to and from 127.0.0.0/8 from outside, if they are missing."""
    registry.ensure(kernel, Ruleset(INET, "hostports", (), (guard_chain(),)))


def is_used(kernel: Nfnetlink) -> bool:
    """Return True if a port of IPv4 is mapped here, by this suite or the reference's nftables backend."""
    chains = [Chain(REFERENCE_TABLES[0], name, ()) for name in REFERENCE_CHAINS[:2]]
    return any(map(kernel.dump_elements, (ANY[4], AT[4]))) or any(map(kernel.dump_rules, chains))


def remove(kernel: Nfnetlink, owner: Owner, delete_flows: DeleteFlows) -> None:
    """Delete an attachment's host ports, the conntrack entries of its UDP ports, and last its registration.

    If the call is killed in between, the registration tells the next one which ports those were.
    """
    _remove_label(kernel, labels.of(owner), delete_flows)


def remove_dead(kernel: Nfnetlink, name: str, delete_flows: DeleteFlows) -> bool:
    """Delete the host ports of the attachment with this label if it is dead. Return True if it is."""
    from shared.nft import former

    if not former.is_dead(kernel, ruleset(), name, patient=True):
        return False
    _remove_label(kernel, name, delete_flows)
    return True


def evict(kernel: Nfnetlink, owner: Owner, addresses: Sequence[Address], delete_flows: DeleteFlows) -> None:
    """Delete the host ports of dead attachments that lead to one of the addresses."""
    from shared.nft import former

    for _, holder in former.others(kernel, INET, ("hairpin",), addresses, owner):
        remove_dead(kernel, holder, delete_flows)


def _remove_label(kernel: Nfnetlink, name: str, delete_flows: DeleteFlows) -> None:
    listed = registry.listed(kernel, ruleset(), name)
    flows = {flow for element in listed if (flow := _flow_of(element.of, element.key))}
    if flows:
        registry.withdraw(kernel, ruleset(), name)
        delete_flows(flows)
    registry.remove_label(kernel, ruleset(), name)


def collect(kernel: Nfnetlink, network: str, valid: AbstractSet[tuple[str, str]], delete_flows: DeleteFlows) -> None:
    """Delete the host ports of a network's attachments that are not valid, and of dead ones of any network."""
    from shared.nft import former

    before = _read_flows(kernel)
    registry.collect(kernel, ruleset(), network, valid, lambda name: former.is_dead(kernel, ruleset(), name))
    gone = before - _read_flows(kernel) if before else before
    if gone:
        delete_flows(gone)


def _read_flows(kernel: Nfnetlink) -> set[Flow]:
    found = set()
    for kind in (ANY, AT):
        for one in kind.values():
            keys = [message["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"] for message in kernel.dump_elements(one)]
            found |= {flow for key in keys if (flow := _flow_of(one, key))}
    return found


def _flow_of(of: Set, key: bytes) -> Flow | None:
    """Return the UDP port that an element maps, None if it maps another protocol or is none of a mapping."""
    if of.name not in VERSION_OF:
        return None
    *host, protocol, port = of.show(key).split()
    return (VERSION_OF[of.name], host[0] if host else "", int(port)) if protocol == "udp" else None


def remove_references(kernel: Nfnetlink, container_id: str) -> None:
    """Delete the rules that the reference's nftables backend made for a container."""
    there = kernel.get_all([table.query_request() for table in REFERENCE_TABLES])
    for table, present in zip(REFERENCE_TABLES, there):
        if present:
            _remove_rules_with_comment(kernel, table, container_id)


def _remove_rules_with_comment(kernel: Nfnetlink, table: Table, text: str) -> None:
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
            if error.errno != errno.ENOENT or not tries_left:  # ENOENT: another call deleted a rule in the meantime
                raise
        else:
            return
