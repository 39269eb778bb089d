"""Admission by iptables, in the reference plugin's chains, so that either suite can continue the other's.

    -A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
    -A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
    -A CNI-FORWARD -d 10.1.0.5/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A CNI-FORWARD -s 10.1.0.5/32 -j ACCEPT
    -A CNI-FORWARD -d 10.1.0.5/32 -m conntrack --ctstate DNAT -j ACCEPT               (with admitHostPorts)

These rules do not name their owner; the claims do (shared/admission/claims.py).
"""

from __future__ import annotations

from shared.admission import claims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from shared.admission.claims import Claim
    from shared.cni.ip import Address
    from shared.iptables.programs import Table

TABLE, FORWARD, CHAIN = "filter", "FORWARD", "CNI-FORWARD"
JUMP = f'-m comment --comment "CNI firewall plugin rules" -j {CHAIN}'
OVERRIDES = '-m comment --comment "CNI firewall plugin admin overrides" -j'


class Iptables:
    """The backend for one variant of iptables; if `variant` is empty, for the installed one."""

    name = claims.IPTABLES

    def __init__(self, variant: str, admin_chain: str) -> None:
        self.variant = variant
        self.admin_chain = admin_chain
        self.note = {"backend": self.name, "variant": variant}
        self._tables: dict[int, Table] = {}
        self._seen: dict[int, list[str]] = {}

    def has(self, claim: Claim) -> bool:
        """Return True if a claim's addresses were admitted by this backend and variant."""
        variants = {claim.text("variant"), self.variant}
        return claim.backend == self.name and (len(variants) == 1 or "" in variants)

    def open(self, claim: Claim) -> None:
        """Raise CniError, before anything changes, if a program that a claim needs is missing."""
        for version in _versions([claim]):
            self._table(version)

    def is_lost(self, admitted: Sequence[Claim]) -> bool:
        """Return True if a rule or chain of the claims is missing."""
        return any(self._missing(version, self._look(version), admitted) for version in _versions(admitted))

    def admit(self, wanted: Sequence[Claim]) -> None:
        """Accept packets from the addresses of claims, and replies to them. Change each table at once."""
        for version in _versions(wanted):
            table = self._table(version)
            table.change(
                lambda lines: self._missing(version, lines, wanted),  # noqa: B023  (called at once)
                self._seen.pop(version, None),
            )

    def problems(self, claim: Claim) -> list[str]:
        """Return a description of each missing rule and chain."""
        from shared.iptables.programs import COMMANDS

        return [
            f"{COMMANDS[version]} has no {_described(command)} in table {TABLE}"
            for version in _versions([claim])
            for command in self._missing(version, self._look(version), [claim])
        ]

    def try_out(self) -> None:
        """Raise CniError if the programs are missing or fail."""
        for version in (4, 6):
            self._look(version)

    def _table(self, version: int) -> Table:
        from shared.iptables.programs import Table

        if version not in self._tables:
            self._tables[version] = Table(version, self.variant, TABLE)
        return self._tables[version]

    def _look(self, version: int) -> list[str]:
        """Return a table's lines, and keep them for the change that follows."""
        lines = self._seen[version] = self._table(version).lines()
        return lines

    def _missing(self, version: int, lines: list[str], wanted: Sequence[Claim]) -> list[str]:
        """Return the commands that complete a table; jumps go first in their chains, as the reference has them."""
        there = {*lines}
        chains = {line[1:].partition(" ")[0] for line in lines if line.startswith(":")}
        commands = [f"-N {chain}" for chain in (CHAIN, self.admin_chain) if chain not in chains]
        for chain, rule in ((FORWARD, JUMP), (CHAIN, f"{OVERRIDES} {self.admin_chain}")):
            if f"-A {chain} {rule}" not in there:
                commands.append(f"-I {chain} 1 {rule}")
        rules = [
            f"-A {CHAIN} {rule}"
            for claim in wanted
            for address in claim.addresses
            if address.version == version
            for rule in _rules(address)[: None if claim.is_published else -1]
        ]
        return commands + [rule for rule in dict.fromkeys(rules) if rule not in there]


def _described(command: str) -> str:
    verb, chain, *rest = command.split(" ")
    return f"chain {chain}" if verb == "-N" else f"rule {' '.join(['-A', chain, *rest]).replace(' 1 ', ' ', 1)}"


def remove(addresses: Callable[[], AbstractSet[Address]], note: claims.Note) -> None:
    """Remove the rules of addresses in each variant."""
    from shared.iptables import variants

    having = variants.having(TABLE, CHAIN)
    doomed: AbstractSet[Address] = addresses() if having else frozenset()
    ends = {f"-A {CHAIN} {rule}" for address in doomed for rule in _rules(address)}
    for version, variant in having:
        if not any(address.version == version for address in doomed):
            continue
        from shared.iptables.programs import NoIptables, Table

        try:
            table = Table(version, variant, TABLE)
        except NoIptables:
            if note and note.get("backend", claims.IPTABLES) == claims.IPTABLES and not note.get(claims.ZONE):
                raise
            continue  # no note speaks of rules here, and without the program no suite could have added one
        table.change(
            lambda lines: [f"-D{line.removeprefix('-A')}" for line in lines if line in ends],
            _guess(version, variant, doomed),
        )


def _guess(version: int, variant: str, addresses: AbstractSet[Address]) -> list[str] | None:
    """Return the lines of one address's rules if nf_tables have as many. None: ask iptables-save.

    This spares a process. If the guess is wrong, iptables-restore refuses to delete the rules.
    """
    from shared.iptables import variants

    own = [address for address in addresses if address.version == version]
    if variant != variants.NFT or len(own) != 1:
        return None
    rules = _rules(own[0])
    count = variants.mention(version, TABLE, CHAIN, [own[0].packed])
    return [f"-A {CHAIN} {rule}" for rule in rules[:count]] if count in (2, 3) else None


def _rules(address: Address) -> tuple[str, str, str]:
    """Return an address's rules in the form of iptables-save; the last one is for host ports."""
    host = f"{address}/{address.bits}"
    return (
        f"-d {host} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-s {host} -j ACCEPT",
        f"-d {host} -m conntrack --ctstate DNAT -j ACCEPT",
    )


def _versions(wanted: Iterable[Claim]) -> list[int]:
    return sorted({address.version for claim in wanted for address in claim.addresses})
