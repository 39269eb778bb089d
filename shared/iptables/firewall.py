"""Admission by iptables, in the reference's chains, so that either goes on where the other began.

    -A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
    -A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
    -A CNI-FORWARD -d 10.1.0.5/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A CNI-FORWARD -s 10.1.0.5/32 -j ACCEPT

Such a rule cannot say whose it is, so there is a file for each attachment with its addresses. It is there before the
rules and gone after them.
"""

from __future__ import annotations

from shared.cni import record
from shared.cni.ip import Address
from shared.iptables.turns import turn
from shared.net.owner import Owner, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Any

    from shared.undo import Undo

RECORDS = "/run/cni/firewall"
TABLE, FORWARD, CHAIN = "filter", "FORWARD", "CNI-FORWARD"
JUMP = f'-m comment --comment "CNI firewall plugin rules" -j {CHAIN}'
OVERRIDES = '-m comment --comment "CNI firewall plugin admin overrides" -j'


def add(undo: Undo, owner: Owner, addresses: Sequence[Address], admin_chain: str, variant: str) -> None:
    """Admits the addresses: what they send, and replies to them."""
    from shared.iptables.programs import Table

    tables = [Table(version, variant, TABLE) for version in _versions(addresses)]
    attachment = {"network": owner.network, "containerID": owner.container_id, "ifname": owner.ifname}
    with turn(RECORDS):
        record.write(_path(owner), {**attachment, "addresses": [str(address) for address in addresses]})
        undo.push("end admission by iptables", lambda: remove(owner))
        for table in tables:
            own = _of(table.version, addresses)
            table.change(lambda lines: _missing(lines, own, admin_chain))  # noqa: B023  (called at once)


def problems(addresses: Sequence[Address], admin_chain: str, variant: str) -> list[str]:
    """The rules and chains that are not as `add` left them, each in words."""
    from shared.iptables.programs import COMMANDS, Table

    found = []
    for version in _versions(addresses):
        lines = Table(version, variant, TABLE).lines()
        missing = _missing(lines, _of(version, addresses), admin_chain)
        found += [f"{COMMANDS[version]} has no {_described(command)} in table {TABLE}" for command in missing]
    return found


def _described(command: str) -> str:
    verb, chain, *rest = command.split(" ")
    return f"chain {chain}" if verb == "-N" else f"rule {' '.join(['-A', chain, *rest]).replace(' 1 ', ' ', 1)}"


def remove(owner: Owner, others: Iterable[Address] = ()) -> None:
    """Removes the rules of an attachment's addresses: those that its file names, and `others`, which a result names.

    An address that another attachment has by now keeps its rules.
    """
    path = _path(owner)
    noted = _addresses(record.read(path))
    doomed = {*noted, *others}
    if doomed:
        with turn(RECORDS):
            for file, content in record.listed(RECORDS):
                if file != path:
                    doomed -= {*_addresses(content)}
            _remove_rules(doomed, is_ours=bool(noted))
    record.remove(path)


def _remove_rules(addresses: AbstractSet[Address], *, is_ours: bool) -> None:
    from shared.iptables import variants

    ends = {f"-A {CHAIN} {rule}" for address in addresses for rule in _rules(address)}
    for version, variant in variants.having(TABLE, CHAIN):
        if not _of(version, addresses):
            continue
        from shared.iptables.programs import NoIptables, Table

        try:
            table = Table(version, variant, TABLE)
        except NoIptables:
            if is_ours:
                raise
            continue  # nobody knows of a rule, and nobody could have made one
        table.change(lambda lines: [f"-D{line.removeprefix('-A')}" for line in lines if line in ends])


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Removes what belongs to attachments of a network that are not among the valid (container id, ifname)."""
    for path, content in record.listed(RECORDS):
        names = [content.get(name) for name in ("network", "containerID", "ifname")]
        if not all(isinstance(name, str) for name in names) or names[0] != network or tuple(names[1:]) in valid:
            continue
        owner = Owner(*names)  # type: ignore[arg-type]
        if _path(owner) == path:
            remove(owner)


def try_out(variant: str) -> None:
    """Raises CniError where the programs are missing or cannot be used."""
    from shared.iptables.programs import Table

    for version in (4, 6):
        Table(version, variant, TABLE).lines()


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


def _path(owner: Owner) -> str:
    # a digest, since names may be longer than a file's name
    return f"{RECORDS}/{digest(f'{owner.network}/{owner.container_id}/{owner.ifname}'.encode())}.json"


def _addresses(content: dict[str, Any]) -> list[Address]:
    """The addresses that a file lists; one that somebody else has written may have anything."""
    listed = content.get("addresses")
    found = []
    for text in listed if isinstance(listed, list) else ():
        try:
            found.append(Address.parse(text))
        except (ValueError, TypeError):
            continue
    return found
