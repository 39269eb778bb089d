r"""Host ports by iptables, in the chains of the reference's portmap, so that either suite deletes the other's rules.

    -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT                (and the same in OUTPUT)
    -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net\" id: \"c1\" if: \"eth0\"" -m multiport
        --dports 8080 -j CNI-DN-623e1c388032b20529218
    -A CNI-DN-623e1c388032b20529218 -s 10.1.0.0/16 -p tcp … --dport 8080 … -j CNI-HOSTPORT-SETMARK
    -A CNI-DN-623e1c388032b20529218 -p tcp … --dport 8080 … -j DNAT --to-destination 10.1.0.5:80

POSTROUTING leads to CNI-HOSTPORT-MASQ, which masquerades marked packets. The name of a container's chain derives from
network and container id. The comments of this suite's rules also name the interface. The reference's rules do not: DEL
of any of the container's interfaces deletes them, as with the reference. Rules for one address stand before rules for
any address.

If packets from localhost are to reach a pod, table raw drops packets to and from 127.0.0.0/8 that arrive from outside
(CVE-2020-8558). The chains of table nat cannot drop.
"""

from __future__ import annotations

from shared.cni.config import invalid
from shared.cni.errors import InternalError
from shared.hostports import iptables_lines as rule_lines
from shared.hostports import iptables_records as hostport_records
from shared.hostports.iptables_lines import Deletion, TakenHere, chain_deletion, find_udp_flows
from shared.hostports.iptables_rules import (
    DNAT,
    ENTRY,
    LOCALNET,
    NAT,
    RAW,
    chain_of,
    interface_words,
    is_there,
    trial_of,
)
from shared.iptables import variants
from shared.net import liveness
from shared.net.reference_names import shortened
from shared.nft import labels, registry
from shared.nft.ruleset import Chain
from shared.nft.ruleset import Table as NfTable
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import TypeVar

    from shared.cni.ip import Address
    from shared.hostports.conditions import Match
    from shared.hostports.iptables_rules import Forwarding
    from shared.hostports.mappings import HostPort
    from shared.hostports.nftables import DeleteFlows
    from shared.iptables.programs import Lines, Tables
    from shared.net.owner import Owner
    from shared.nft.conntrack import Flow
    from shared.undo import Undo

    Result = TypeVar("Result")


def add(undo: Undo, forwarding: Forwarding, mark: str, delete_flows: DeleteFlows, *, renew: bool = False) -> None:
    """Map an attachment's ports; with `renew` replace its rules. Raise Taken if another container has a port.

    If the holder of a port is dead by its mark, delete all its host ports.
    """
    from shared.iptables.programs import Tables
    from shared.net import rules_lock

    owner = forwarding.owner
    tables = [Tables(version, "", *forwarding.tables(version)) for version in forwarding.versions]

    def possible() -> list[Lines]:
        known = [table.lines() for table in tables]
        for table, lines in zip(tables, known):
            _require_possible(table.version, lines[NAT], forwarding, renew=renew)
        return known

    with rules_lock.hold(hostport_records.DIRECTORY):
        if mark and hostport_records.mark_of(owner) not in ("", mark):  # left from another network namespace
            remove(owner, delete_flows)
        for other in hostport_records.find_dead_at({port.pod for port in forwarding.ports}):
            remove(other, delete_flows)
        known = _without_dead(possible, delete_flows)
        undo.push(f"remove host ports of {owner.container_id}", lambda: remove(owner, delete_flows))
        hostport_records.write(owner, mark, {port.pod for port in forwarding.ports})
        for table, lines in zip(tables, known):
            _change(table, lines, forwarding, Deletion() if renew else None)
    if forwarding.flows:
        delete_flows(forwarding.flows)


def _change(table: Tables, lines: Lines, forwarding: Forwarding, deletion: Deletion | None) -> None:
    """Change the tables of one family. Raise Refused that names the key if the kernel may lack one of its matches."""
    from shared.iptables.programs import Refused

    try:
        table.change(lambda lines: _plan_rules(table.version, lines, forwarding, deletion), lines)
    except Refused as error:
        matches = forwarding.conditions.get(table.version, ())
        try_out({table.version: matches})
        if trial_of(matches):
            error.details += f" (the kernel may lack a match of conditionsV{table.version})"
        raise


def _without_dead(step: Callable[[], Result], delete_flows: DeleteFlows) -> Result:
    """Return the result of a step. While dead attachments hold a port, delete their host ports and try again."""
    while True:
        try:
            return step()
        except TakenHere as taken:
            holder = hostport_records.find_dead(*taken.words)
            if holder is None:
                raise
            remove(holder, delete_flows)


def _require_possible(version: int, lines: list[str], forwarding: Forwarding, *, renew: bool) -> None:
    from shared.iptables.programs import COMMANDS

    external = forwarding.external
    if external and not any(line.startswith(f":{external} ") for line in lines):
        raise invalid("externalSetMarkChain", external, f"is no chain of table {NAT} of {COMMANDS[version]}")
    owner = forwarding.owner
    if not renew and any(rule_lines.is_own(line, forwarding.chain, owner.ifname) for line in lines):
        where = f"chain {forwarding.chain} of {COMMANDS[version]}"
        raise InternalError(f"{labels.of(owner)} is in {where} already: it was added before")
    rule_lines.require_free(version, lines, forwarding.ports, owner.container_id)


def _plan_rules(version: int, found: Lines, forwarding: Forwarding, deletion: Deletion | None = None) -> Lines:
    """Return the commands that add the missing chains and rules. `deletion` deletes the attachment's older rules."""
    lines = found[NAT]
    _require_possible(version, lines, forwarding, renew=deletion is not None)
    chain = forwarding.chain
    own = [line for line in lines if rule_lines.is_own(line, chain, forwarding.owner.ifname)] if deletion else []
    removal = deletion.commands(own, lines) if deletion else []
    lines = [line for line in lines if line not in own]
    wanted = [rule for rule in forwarding.shared() if rule not in lines]
    entries, inside = forwarding.entries(version, is_at=False), forwarding.inside(version, is_at=False)
    first, first_inside = forwarding.entries(version, is_at=True), forwarding.inside(version, is_at=True)
    chains = {line[1:].partition(" ")[0] for line in lines if line.startswith(":")}
    every = [*forwarding.shared(), *entries, *first, *inside, *first_inside]
    needed = dict.fromkeys(rule.split(" ")[1] for rule in every)
    commands = [*removal, *(f"-N {name}" for name in needed if name.startswith("CNI-") and name not in chains)]
    if chain in chains and not any(rule_lines.leads_to(line, chain) for line in lines):
        commands.append(f"-F {chain}")  # another call was killed before it led to the chain
    commands += [rule_lines.appending_command(rule, lines) for rule in wanted]
    commands += [*rule_lines.inserting_commands(first_inside), *inside, *rule_lines.inserting_commands(first), *entries]
    return {NAT: commands, RAW: _missing_guard(found[RAW]) if RAW in found else []}


def _missing_guard(raw: list[str]) -> list[str]:
    """Return the rules that make route_localnet safe and are missing in the table."""
    return [rule for rule in LOCALNET if rule not in raw]


def is_guarded(variant: str = "") -> bool:
    """Return True if the rules drop packets to and from 127.0.0.0/8 that arrive by another link than lo."""
    from shared.iptables.programs import Table

    return not _missing_guard(Table(4, variant, RAW).lines())


def guard() -> None:
    """Add the rules that drop packets to and from 127.0.0.0/8 from outside, if they are missing."""
    from shared.iptables.programs import Table

    Table(4, "", RAW).change(_missing_guard)


def is_used() -> bool:
    """Return True if a port of IPv4 is mapped here, by this suite or the reference's iptables backend."""
    for version, variant in variants.with_rules(NAT, DNAT):
        if version == 4 and (variant == variants.NFT or _has_legacy_ports()):
            return True
    return False


def set_localnet_back() -> None:
    """Turn route_localnet off if no host port of IPv4 is left, by any suite or backend."""
    from shared.hostports import nftables as hostports
    from shared.net import localnet
    from shared.nft.transaction import Nfnetlink

    def is_needed() -> bool:
        kernel = Nfnetlink.if_there()
        return (kernel is not None and hostports.is_used(kernel)) or is_used()

    localnet.turn_off_unneeded(is_needed)


def _has_legacy_ports() -> bool:
    from shared.iptables.programs import NoIptables, Table

    try:
        lines = Table(4, variants.LEGACY, NAT).lines()
    except NoIptables:  # without the program nobody made a rule
        return False
    return any(line.startswith(f"-A {DNAT} ") for line in lines)


def problems(forwarding: Forwarding) -> list[str]:
    """Return a message for each missing rule."""
    from shared.iptables.programs import COMMANDS, Tables

    found = []
    for version in forwarding.versions:
        lines = Tables(version, "", *forwarding.tables(version)).lines()
        wanted = [*forwarding.shared()]
        for is_at in (True, False):
            wanted += [*forwarding.entries(version, is_at=is_at), *forwarding.inside(version, is_at=is_at)]
        present = set(lines[NAT])
        absent = [rule for rule in wanted if rule not in present]
        missing = [(NAT, rule) for rule in absent if not is_there(rule, lines[NAT])]
        missing += [(RAW, rule) for rule in _missing_guard(lines.get(RAW, LOCALNET))]
        found += [f"{COMMANDS[version]} has no rule {rule} in table {table}" for table, rule in missing]
    return found


def remove(owner: Owner, delete_flows: DeleteFlows) -> None:
    """Delete an attachment's rules, by whichever suite, and the conntrack entries of its UDP ports."""
    chain = chain_of(owner.network, owner.container_id)
    for version, variant in variants.having(NAT, chain):
        _remove_from_table(version, variant, chain, owner.ifname, delete_flows)
    hostport_records.remove(owner)


def _remove_from_table(version: int, variant: str, chain: str, ifname: str, delete_flows: DeleteFlows) -> None:
    """Delete the jumps to the chain first, and its rules after the conntrack entries.

    If the call is killed in between, the remaining rules tell the next call which UDP ports those were.
    """
    from shared.iptables.programs import NoIptables, Table

    try:
        table = Table(version, variant, NAT)
    except NoIptables:
        if variant == variants.NFT:  # the kernel's rules show that the chain exists
            raise
        return
    flows: set[Flow] = set()
    whole = False
    deletion = Deletion()

    def detach(lines: list[str]) -> list[str]:
        nonlocal whole
        doomed = [line for line in lines if rule_lines.is_deleted_with(line, chain, ifname)]
        flows.clear()
        flows.update(find_udp_flows(version, doomed))
        whole = not any(rule_lines.is_about(line, chain) for line in {*lines} - {*doomed})
        if flows or whole:
            doomed = [line for line in doomed if rule_lines.leads_to(line, chain)]
        commands = deletion.commands(doomed, lines)
        return [*commands, *chain_deletion(lines, {chain})] if whole and not flows else commands

    def clear(lines: list[str]) -> list[str]:
        doomed = [line for line in lines if rule_lines.is_deleted_with(line, chain, ifname)]
        return chain_deletion(lines, {chain}) if whole else deletion.commands(doomed, lines)

    table.change(detach)
    if not flows:
        return
    delete_flows(flows)
    if whole and variant == variants.NFT:  # netlink saves another process
        registry.attempt(Nfnetlink(), Chain(NfTable(variants.FAMILIES[version], NAT), chain, ()).remove_requests())
    else:
        table.change(clear)


def evict(owner: Owner, addresses: Sequence[Address], delete_flows: DeleteFlows) -> bool:
    """Delete a new attachment's former host ports, and those of dead attachments that lead to its addresses.

    Return True if there were any.
    """
    own = [owner] if hostport_records.mark_of(owner) else []
    former = [*own, *hostport_records.find_dead_at(addresses)]
    for one in former:
        remove(one, delete_flows)
    return bool(former)


def collect(network: str, valid: AbstractSet[tuple[str, str]], delete_flows: DeleteFlows) -> None:
    """Delete the host ports of a network's attachments that are not valid, and of dead ones of any network."""
    _collect_in_tables(network, valid, delete_flows)
    hostport_records.remove_unfinished()
    for owner, mark, _ in hostport_records.read_all():
        if (owner.container_id, owner.ifname) in valid and owner.network == network:
            continue
        if owner.network == network or liveness.is_dead(owner, mark):
            remove(owner, delete_flows)


def _collect_in_tables(network: str, valid: AbstractSet[tuple[str, str]], delete_flows: DeleteFlows) -> None:
    keep = {(chain_of(network, container_id), interface_words(ifname)) for container_id, ifname in valid}
    chains = {chain for chain, _ in keep}
    comment = f'{ENTRY}{shortened(network)}\\" id: '
    for version, variant in variants.with_rules(NAT, DNAT):
        from shared.iptables.programs import NoIptables, Table

        flows: set[Flow] = set()
        deletion = Deletion()

        def stale(lines: list[str]) -> list[str]:
            """Return the commands. A chain is this network's if the comment of a jump to it says so."""
            ours = {line.rpartition(" -j ")[2] for line in lines if line.startswith(f"-A {DNAT} ") and comment in line}
            doomed = []
            for line in lines:
                chain = next((one for one in rule_lines.chain_and_target(line) if one in ours), "")
                interface = rule_lines.interface_of(line)
                if chain and ((chain, interface) not in keep if interface else chain not in chains):
                    doomed.append(line)
            gone = ours - {chain for line in {*lines} - {*doomed} for chain in rule_lines.chain_and_target(line)}
            flows.clear()  # noqa: B023  (called at once)
            flows.update(find_udp_flows(version, doomed))  # noqa: B023
            one_by_one = [line for line in doomed if rule_lines.chain_and_target(line)[0] not in gone]
            return [*deletion.commands(one_by_one, lines), *chain_deletion(lines, gone)]  # noqa: B023

        try:
            table = Table(version, variant, NAT)
        except NoIptables:  # without the program nobody made a chain
            continue
        table.change(stale)
        if flows:
            delete_flows(flows)


def try_out(conditions: Mapping[int, Sequence[Match]]) -> None:
    """Raise CniError if the programs cannot be used, or iptables refuses conditions of an IP version."""
    from shared.iptables.programs import Refused, Table

    for version, matches in conditions.items():
        table = Table(version, "", NAT)
        table.lines()
        trial = trial_of(matches)
        try:
            table.try_out(trial)
        except Refused as error:
            raise invalid(f"conditionsV{version}", None, f"are refused by iptables: {error.details}") from None


def require_free(ports: Sequence[HostPort], container_id: str, delete_flows: DeleteFlows) -> None:
    """Raise Taken if another container has one of the ports. Delete the host ports of a holder that is dead."""
    _without_dead(lambda: _require_free_in_tables(ports, container_id), delete_flows)


def _require_free_in_tables(ports: Sequence[HostPort], container_id: str) -> None:
    for version, variant in variants.with_rules(NAT, DNAT):
        if all(port.version != version for port in ports):
            continue
        from shared.iptables.programs import NoIptables, Table

        try:
            lines = Table(version, variant, NAT).lines()
        except NoIptables:  # without the program nobody made a rule
            continue
        rule_lines.require_free(version, lines, ports, container_id)
