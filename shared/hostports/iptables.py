r"""Host ports by iptables, in the reference's chains, so that either ends what the other began.

    -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT                (and the same in OUTPUT)
    -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net\" id: \"c1\" if: \"eth0\"" -m multiport
        --dports 8080 -j CNI-DN-623e1c388032b20529218
    -A CNI-DN-623e1c388032b20529218 -s 10.1.0.0/16 -p tcp … --dport 8080 … -j CNI-HOSTPORT-SETMARK
    -A CNI-DN-623e1c388032b20529218 -p tcp … --dport 8080 … -j DNAT --to-destination 10.1.0.5:80

What gets the mark is masqueraded by CNI-HOSTPORT-MASQ, to which POSTROUTING leads. The name of a container's chain
derives from network and container id; rules of this suite also say in a comment for which interface they are. Those of
the reference do not: as there, DEL of any of the container's interfaces removes them. A rule for one address stands
before those for any.

As with nf_tables, packets to and from 127.0.0.0/8 from outside are dropped where localhost's are to find
a pod (CVE-2020-8558), in table raw, since nat cannot drop.
"""

from __future__ import annotations

from shared.cni.config import invalid
from shared.cni.errors import InternalError
from shared.hostports import iptables_records as hostport_records
from shared.hostports.iptables_rules import (
    CONDITIONS,
    DNAT,
    ENTRY,
    INTERFACE,
    LOCALNET,
    NAT,
    RAW,
    chain_of,
    interface_words,
    is_there,
    trial_of,
)
from shared.hostports.nftables import Taken
from shared.iptables import variants
from shared.net import liveness
from shared.net.reference_names import shortened
from shared.nft import registry
from shared.nft.ruleset import Chain
from shared.nft.ruleset import Table as NfTable
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import TypeVar

    from shared.cni.ip import Address
    from shared.hostports.conditions import Match
    from shared.hostports.iptables_rules import Forwarding
    from shared.hostports.nftables import Forgetting, HostPort
    from shared.iptables.programs import Lines
    from shared.net.owner import Owner
    from shared.nft.conntrack import Flow
    from shared.undo import Undo

    Result = TypeVar("Result")


class TakenHere(Taken):
    """A host port is an attachment's by these rules; `words` are the names that they have for it."""

    def __init__(self, port: HostPort, network: str, container_id: str, interface: str) -> None:
        holder = "/".join([network, container_id, *interface.split('\\"')[1:2]])
        super().__init__(port.version, port.host, port.protocol, port.port, holder)
        self.words = (network, container_id, interface)


def add(undo: Undo, forwarding: Forwarding, mark: str, forget: Forgetting) -> None:
    """Maps an attachment's ports; raises InternalError that names the port and its holder where one is taken.

    A holder that is dead, by its mark, loses all that it has.
    """
    from shared.iptables.programs import Refused, Tables
    from shared.net.turns import turn

    owner = forwarding.owner
    tables = [Tables(version, "", *forwarding.tables(version)) for version in forwarding.versions]

    def possible() -> list[Lines]:
        known = [table.lines() for table in tables]
        for table, lines in zip(tables, known):
            _require_possible(table.version, lines[NAT], forwarding)
        return known

    with turn(hostport_records.DIRECTORY):
        if mark and hostport_records.mark_of(owner) not in ("", mark):  # of a namespace that the container has no more
            remove(owner, forget)
        for other in hostport_records.dead_at({port.pod for port in forwarding.ports}):
            remove(other, forget)
        known = _without_dead(possible, forget)
        undo.push(f"remove host ports of {owner.container_id}", lambda: remove(owner, forget))
        hostport_records.write(owner, mark, {port.pod for port in forwarding.ports})
        for table, lines in zip(tables, known):
            try:
                table.change(lambda lines, version=table.version: _missing(version, lines, forwarding), lines)  # type: ignore[misc]
            except Refused as error:
                matches = forwarding.conditions.get(table.version, ())
                try_out({table.version: matches})
                if trial_of(matches):
                    error.details += f" (the kernel may lack a match of conditionsV{table.version})"
                raise
    if forwarding.flows:
        forget(forwarding.flows)


def _without_dead(step: Callable[[], Result], forget: Forgetting) -> Result:
    """Return the result of a step, which is done again as long as what is in its way is removed: the dead's."""
    while True:
        try:
            return step()
        except TakenHere as taken:
            holder = hostport_records.dead(*taken.words)
            if holder is None:
                raise
            remove(holder, forget)


def _require_possible(version: int, lines: list[str], forwarding: Forwarding) -> None:
    from shared.iptables.programs import COMMANDS

    external = forwarding.external
    if external and not any(line.startswith(f":{external} ") for line in lines):
        raise invalid("externalSetMarkChain", external, f"is no chain of table {NAT} of {COMMANDS[version]}")
    owner = forwarding.owner
    if any(_is_own(line, forwarding.chain, owner.ifname) for line in lines):
        where = f"chain {forwarding.chain} of {COMMANDS[version]}"
        raise InternalError(f"{registry.label(owner)} is in {where} already: it was added before")
    _require_free(version, lines, forwarding.ports, owner.container_id)


def _missing(version: int, found: Lines, forwarding: Forwarding) -> Lines:
    """The commands that complete the tables."""
    lines = found[NAT]
    _require_possible(version, lines, forwarding)
    chain = forwarding.chain
    wanted = [rule for rule in forwarding.shared() if rule not in lines]
    entries, inside = forwarding.entries(version, is_at=False), forwarding.inside(version, is_at=False)
    first, first_inside = forwarding.entries(version, is_at=True), forwarding.inside(version, is_at=True)
    chains = {line[1:].partition(" ")[0] for line in lines if line.startswith(":")}
    every = [*forwarding.shared(), *entries, *first, *inside, *first_inside]
    needed = dict.fromkeys(rule.split(" ")[1] for rule in every)
    commands = [f"-N {name}" for name in needed if name.startswith("CNI-") and name not in chains]
    if chain in chains and not any(_leads_to(line, chain) for line in lines):
        commands.append(f"-F {chain}")  # somebody's unfinished work
    commands += [_behind_others(rule, lines) for rule in wanted]
    commands += [*_in_front(first_inside), *inside, *_in_front(first), *entries]
    return {NAT: commands, RAW: _unguarded(found[RAW]) if RAW in found else []}


def _unguarded(raw: list[str]) -> list[str]:
    """Return the missing rules without which route_localnet is a danger."""
    return [rule for rule in LOCALNET if rule not in raw]


def is_guarded(variant: str = "") -> bool:
    """Return True if packets to and from 127.0.0.0/8 are dropped that come in by another link than lo."""
    from shared.iptables.programs import Table

    return not _unguarded(Table(4, variant, RAW).lines())


def guard() -> None:
    """Make what is missing of that."""
    from shared.iptables.programs import Table

    Table(4, "", RAW).change(_unguarded)


def is_used() -> bool:
    """Return True if a port of IPv4 is mapped here, by this suite or the reference's iptables backend."""
    for version, variant in variants.with_rules(NAT, DNAT):
        if version == 4 and (variant == variants.NFT or _has_legacy_ports()):
            return True
    return False


def set_localnet_back() -> None:
    """Turn route_localnet off with the last host port of IPv4, whichever suite and backend mapped it."""
    from shared.hostports import nftables as hostports
    from shared.net import localnet
    from shared.nft.transaction import Nfnetlink

    def is_needed() -> bool:
        kernel = Nfnetlink.if_there()
        return (kernel is not None and hostports.is_used(kernel)) or is_used()

    localnet.set_back(is_needed)


def _has_legacy_ports() -> bool:
    from shared.iptables.programs import NoIptables, Table

    try:
        lines = Table(4, variants.LEGACY, NAT).lines()
    except NoIptables:  # so nobody made a rule by it
        return False
    return any(line.startswith(f"-A {DNAT} ") for line in lines)


def _behind_others(rule: str, lines: list[str]) -> str:
    """Last in its chain, but what masquerades by the mark before a pod's own masquerading, which says what is not."""
    _, chain, text = rule.split(" ", 2)
    there = [line for line in lines if line.startswith(f"-A {chain} ")] if chain == "POSTROUTING" else []
    place = next((number for number, line in enumerate(there, 1) if " -j CNI-" in line), 0)
    return f"-I {chain} {place} {text}" if place else rule


def _in_front(rules: list[str]) -> list[str]:
    """The last one first, each to the front: iptables would count its way to any other place."""
    found = []
    for rule in reversed(rules):
        _, chain, text = rule.split(" ", 2)
        found.append(f"-I {chain} {text}")
    return found


def problems(forwarding: Forwarding) -> list[str]:
    """The rules that are missing, each in words."""
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
        missing += [(RAW, rule) for rule in _unguarded(lines.get(RAW, LOCALNET))]
        found += [f"{COMMANDS[version]} has no rule {rule} in table {table}" for table, rule in missing]
    return found


def remove(owner: Owner, forget: Forgetting) -> None:
    """Removes what an attachment has, whichever suite made it, and has `forget` forget its UDP connections."""
    chain = chain_of(owner.network, owner.container_id)
    for version, variant in variants.having(NAT, chain):
        _remove(version, variant, chain, owner.ifname, forget)
    hostport_records.remove(owner)


def _remove(version: int, variant: str, chain: str, ifname: str, forget: Forgetting) -> None:
    """First nothing leads there; what is there tells a call that comes after this one's end what it left to do."""
    from shared.iptables.programs import NoIptables, Table

    try:
        table = Table(version, variant, NAT)
    except NoIptables:
        if variant == variants.NFT:  # which has the chain for certain
            raise
        return
    flows: set[Flow] = set()
    whole = False
    deletion = _Deletion()

    def closed(lines: list[str]) -> list[str]:
        nonlocal whole
        ends = [line for line in lines if _is_ended(line, chain, ifname)]
        flows.clear()
        flows.update(_udp(version, ends))
        whole = not any(_is_in(line, chain) or _leads_to(line, chain) for line in {*lines} - {*ends})
        if flows or whole:
            ends = [line for line in ends if _leads_to(line, chain)]
        return [*deletion.of(ends, lines), *(_without(lines, {chain}) if whole and not flows else [])]

    def emptied(lines: list[str]) -> list[str]:
        ends = [line for line in lines if _is_ended(line, chain, ifname)]
        return _without(lines, {chain}) if whole else deletion.of(ends, lines)

    table.change(closed)
    if not flows:
        return
    forget(flows)
    if whole and variant == variants.NFT:
        # without another process
        registry.attempt(Nfnetlink(), Chain(NfTable(variants.FAMILIES[version], NAT), chain, ()).remove())
    else:
        table.change(emptied)


def evict(owner: Owner, addresses: Sequence[Address], forget: Forgetting) -> bool:
    """Remove a new attachment's former ports, and those of dead ones that lead to its addresses.

    Return True if there were any.
    """
    own = [owner] if hostport_records.mark_of(owner) else []
    former = [*own, *hostport_records.dead_at(addresses)]
    for one in former:
        remove(one, forget)
    return bool(former)


def collect(network: str, valid: AbstractSet[tuple[str, str]], forget: Forgetting) -> None:
    """Remove the ports of attachments of a network that are not listed as valid, and of the dead of any network."""
    _collect(network, valid, forget)
    for owner, mark, _ in hostport_records.every():
        if (owner.container_id, owner.ifname) in valid and owner.network == network:
            continue
        if owner.network == network or liveness.is_dead(owner, mark):
            remove(owner, forget)


def _collect(network: str, valid: AbstractSet[tuple[str, str]], forget: Forgetting) -> None:
    keep = {(chain_of(network, container_id), interface_words(ifname)) for container_id, ifname in valid}
    chains = {chain for chain, _ in keep}
    comment = f'{ENTRY}{shortened(network)}\\" id: '
    for version, variant in variants.with_rules(NAT, DNAT):
        from shared.iptables.programs import NoIptables, Table

        flows: set[Flow] = set()
        deletion = _Deletion()

        def stale(lines: list[str]) -> list[str]:
            """A chain is this network's if what leads there says so."""
            ours = {line.rpartition(" -j ")[2] for line in lines if line.startswith(f"-A {DNAT} ") and comment in line}
            ends = []
            for line in lines:
                chain = next((one for one in _chains_of(line) if one in ours), "")
                interface = _interface_of(line)
                if chain and ((chain, interface) not in keep if interface else chain not in chains):
                    ends.append(line)
            gone = ours - {chain for line in {*lines} - {*ends} for chain in _chains_of(line)}
            flows.clear()  # noqa: B023  (called at once)
            flows.update(_udp(version, ends))  # noqa: B023
            one_by_one = [line for line in ends if _chains_of(line)[0] not in gone]
            return [*deletion.of(one_by_one, lines), *_without(lines, gone)]  # noqa: B023

        try:
            table = Table(version, variant, NAT)
        except NoIptables:  # so nobody made a chain by it
            continue
        table.change(stale)
        if flows:
            forget(flows)


def try_out(conditions: Mapping[int, Sequence[Match]]) -> None:
    """Raise CniError if the programs are missing or cannot be used, or iptables refuses conditions of an IP version."""
    from shared.iptables.programs import Refused, Table

    for version, matches in conditions.items():
        table = Table(version, "", NAT)
        table.lines()
        trial = trial_of(matches)
        try:
            table.try_out(trial)
        except Refused as error:
            raise invalid(f"conditionsV{version}", None, f"are refused by iptables: {error.details}") from None


def require_free(ports: Sequence[HostPort], container_id: str, forget: Forgetting) -> None:
    """Raises Taken for a port that another container has in these chains already, unless that one is dead."""
    _without_dead(lambda: _look(ports, container_id), forget)


def _look(ports: Sequence[HostPort], container_id: str) -> None:
    for version, variant in variants.with_rules(NAT, DNAT):
        if all(port.version != version for port in ports):
            continue
        from shared.iptables.programs import NoIptables, Table

        try:
            lines = Table(version, variant, NAT).lines()
        except NoIptables:  # so nobody made a rule by it
            continue
        _require_free(version, lines, ports, container_id)


def _require_free(version: int, lines: list[str], ports: Iterable[HostPort], container_id: str) -> None:
    """A runtime asks for a container's ports with each of its networks: the first has them, then who is left."""
    holders: dict[str, tuple[str, str]] = {}
    for line in lines:
        if line.startswith(f"-A {DNAT} ") and ENTRY in line:
            network, _, rest = line.partition(ENTRY)[2].partition('\\" id: \\"')
            name = rest.partition(chr(92))[0]
            if name != shortened(container_id):
                holders[line.rpartition(" -j ")[2]] = (network, name)
    held = {
        _translated(line): (*holders[chain], _interface_of(line))
        for line in lines
        if " -j DNAT " in line and (chain := line.split(" ", 2)[1]) in holders
    }
    for port in ports:
        holder = held.get((port.host, port.protocol, str(port.port)))
        if port.version == version and holder is not None:
            raise TakenHere(port, *holder)


# -- what a line is


def _translated(line: str) -> tuple[str, str, str]:
    """The address, protocol and port of a rule of a container's chain."""
    words = line.split(" ")
    address, protocol, port = (
        words[words.index(option) + 1] if option in words else "" for option in ("-d", "-p", "--dport")
    )
    return address.partition("/")[0], protocol, port


def _udp(version: int, lines: Iterable[str]) -> set[Flow]:
    found = {_translated(line) for line in lines if " -j DNAT " in line}
    return {(version, address, int(port)) for address, protocol, port in found if protocol == "udp" and port.isdigit()}


def _is_in(line: str, chain: str) -> bool:
    return line.startswith(f"-A {chain} ")


def _leads_to(line: str, chain: str) -> bool:
    return line.startswith("-A ") and line.endswith(f" -j {chain}")


def _chains_of(line: str) -> tuple[str, str]:
    """That in which a rule stands, and its target."""
    return (line.split(" ", 2)[1], line.rpartition(" -j ")[2]) if line.startswith("-A ") else ("", "")


def _is_own(line: str, chain: str, ifname: str) -> bool:
    """Whether a rule is an attachment's, and says so."""
    return (_is_in(line, chain) or _leads_to(line, chain)) and _interface_of(line) == interface_words(ifname)


def _is_ended(line: str, chain: str, ifname: str) -> bool:
    """Whether a rule ends with an attachment: its own, or one that is the container's."""
    return (_is_in(line, chain) or _leads_to(line, chain)) and _interface_of(line) in ("", interface_words(ifname))


def _interface_of(line: str) -> str:
    """Those words of a rule, if it has any."""
    _, found, rest = line.partition(INTERFACE)
    return f'{found}{rest.partition(chr(92))[0]}\\"' if found else ""


class _Deletion:
    """Commands that delete rules by their words, and when iptables has refused those, by their numbers.

    Of a match such as recent iptables does not know again the rule that it has printed.
    """

    def __init__(self) -> None:
        self._is_refused = False

    def of(self, rules: Iterable[str], lines: list[str]) -> list[str]:
        """Return the commands, each of which holds if those before it have been done; for `change`, which repeats."""
        numbered = [rule for rule in rules if self._is_refused and CONDITIONS in rule]
        by_words = [f"-D{rule.removeprefix('-A')}" for rule in rules if rule not in numbered]
        self._is_refused = True
        commands = []
        for chain in dict.fromkeys(rule.split(" ")[1] for rule in numbered):
            there = [line for line in lines if _is_in(line, chain)]
            places = [place for place, line in enumerate(there, 1) if line in numbered]
            commands += [f"-D {chain} {place}" for place in reversed(places)]
        return commands + by_words


def _without(lines: list[str], chains: AbstractSet[str]) -> list[str]:
    there = [line[1:].partition(" ")[0] for line in lines if line.startswith(":")]
    return [command for chain in there if chain in chains for command in (f"-F {chain}", f"-X {chain}")]
