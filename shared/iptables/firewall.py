"""Admission by iptables, in the reference's chains, so that either goes on where the other began.

    -A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
    -A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
    -A CNI-FORWARD -d 10.1.0.5/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A CNI-FORWARD -s 10.1.0.5/32 -j ACCEPT

Such a rule cannot say whose it is, so shared/net/claims.py does.
"""

from __future__ import annotations

from shared.net import claims
from shared.net.turns import turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from shared.cni.ip import Address
    from shared.net.owner import Owner
    from shared.undo import Undo

TABLE, FORWARD, CHAIN = "filter", "FORWARD", "CNI-FORWARD"
JUMP = f'-m comment --comment "CNI firewall plugin rules" -j {CHAIN}'
OVERRIDES = '-m comment --comment "CNI firewall plugin admin overrides" -j'


class Iptables:
    """The backend, by one of its variants, whichever there is if that is empty."""

    name = "iptables"

    def __init__(self, variant: str, admin_chain: str) -> None:
        self.variant = variant
        self.admin_chain = admin_chain

    def add(self, undo: Undo, owner: Owner, addresses: Sequence[Address]) -> None:
        """Admits the addresses: what they send, and replies to them."""
        from shared.iptables.programs import Table

        tables = [Table(version, self.variant, TABLE) for version in _versions(addresses)]
        with turn(claims.RECORDS):
            claims.write(owner, addresses)
            undo.push("end admission by iptables", lambda: claims.end(owner, (), remove))
            for table in tables:
                own = _of(table.version, addresses)
                table.change(lambda lines: _missing(lines, own, self.admin_chain))  # noqa: B023  (called at once)

    def problems(self, addresses: Sequence[Address]) -> list[str]:
        """The rules and chains that are not as `add` left them, each in words."""
        from shared.iptables.programs import COMMANDS, Table

        found = []
        for version in _versions(addresses):
            lines = Table(version, self.variant, TABLE).lines()
            missing = _missing(lines, _of(version, addresses), self.admin_chain)
            found += [f"{COMMANDS[version]} has no {_described(command)} in table {TABLE}" for command in missing]
        return found

    def try_out(self) -> None:
        """Raises CniError where the programs are missing or cannot be used."""
        from shared.iptables.programs import Table

        for version in (4, 6):
            Table(version, self.variant, TABLE).lines()


def _described(command: str) -> str:
    verb, chain, *rest = command.split(" ")
    return f"chain {chain}" if verb == "-N" else f"rule {' '.join(['-A', chain, *rest]).replace(' 1 ', ' ', 1)}"


def remove(addresses: AbstractSet[Address], note: claims.Note) -> None:
    """Removes the rules of addresses."""
    from shared.iptables import variants

    ends = {f"-A {CHAIN} {rule}" for address in addresses for rule in _rules(address)}
    for version, variant in variants.having(TABLE, CHAIN):
        if not _of(version, addresses):
            continue
        from shared.iptables.programs import NoIptables, Table

        try:
            table = Table(version, variant, TABLE)
        except NoIptables:
            if note and not claims.zone(note):
                raise
            continue  # nobody knows of a rule, and nobody could have made one
        table.change(lambda lines: [f"-D{line.removeprefix('-A')}" for line in lines if line in ends])


def _missing(lines: list[str], addresses: list[Address], admin_chain: str) -> list[str]:
    """The commands that complete a table: the jumps stand first in their chains, as the reference puts them."""
    chains = {line[1:].partition(" ")[0] for line in lines if line.startswith(":")}
    commands = [f"-N {chain}" for chain in (CHAIN, admin_chain) if chain not in chains]
    for chain, rule in ((FORWARD, JUMP), (CHAIN, f"{OVERRIDES} {admin_chain}")):
        if f"-A {chain} {rule}" not in lines:
            commands.append(f"-I {chain} 1 {rule}")
    wanted = [f"-A {CHAIN} {rule}" for address in addresses for rule in _rules(address)]
    return commands + [rule for rule in wanted if rule not in lines]


def _rules(address: Address) -> tuple[str, str]:
    host = f"{address}/{address.bits}"
    return f"-d {host} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", f"-s {host} -j ACCEPT"


def _versions(addresses: Iterable[Address]) -> list[int]:
    return sorted({address.version for address in addresses})


def _of(version: int, addresses: Iterable[Address]) -> list[Address]:
    return [address for address in addresses if address.version == version]
