r"""Masquerading by iptables in the reference's chains, one for each container: either suite deletes the other's rules.

    -A POSTROUTING -s 10.1.0.5/32 -m comment --comment "name: \"net\" id: \"c1\"" -j CNI-8f4e9f32ea9c72d32f8f400c
    -A CNI-8f4e9f32ea9c72d32f8f400c -d 10.1.0.0/16 -m comment --comment "…" -j ACCEPT
    -A CNI-8f4e9f32ea9c72d32f8f400c ! -d 224.0.0.0/4 -m comment --comment "…" -j MASQUERADE

The chain's name derives from network and container id. The comments name both, so no file needs to record the owner.
"""

from __future__ import annotations

from shared.cni.names import CHAIN_NAME_BYTES
from shared.iptables import variants
from shared.net.reference_names import COMMENT_BYTES, LONGEST_NAME, container_digest, shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from shared.cni.ip import Address, Prefix
    from shared.net.owner import Owner
    from shared.undo import Undo

TABLE, POSTROUTING, PREFIX = "nat", "POSTROUTING", "CNI-"
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


def chain_of(network: str, container_id: str) -> str:
    """Return the name of a container's chain."""
    return (PREFIX + container_digest(network, container_id))[:CHAIN_NAME_BYTES]


def add(
    undo: Undo, owner: Owner, addresses: Sequence[Prefix], exempt: Sequence[Prefix], *, replace: bool = True
) -> None:
    """Masquerade packets from the addresses, except to their own networks and to multicast groups.

    If there are `exempt` networks, packets to them and to addresses of the node are excepted too. With `replace`,
    take over an address from another container: IPAM has leased it again. Otherwise its rules stay, before these.
    """
    from shared.iptables.programs import Table

    tables = [Table(version, "", TABLE) for version in _versions(addresses)]
    undo.push("stop masquerading by iptables", lambda: remove(owner))
    for table in tables:
        wanted = _rules(owner, table.version, addresses, exempt)
        own = [one.address for one in addresses if one.version == table.version] if replace else []
        table.change(lambda lines: _completion_commands(lines, owner, wanted, own))  # noqa: B023  (called at once)


def problems(owner: Owner, addresses: Sequence[Prefix], exempt: Sequence[Prefix]) -> list[str]:
    """Return a message for each missing rule."""
    from shared.iptables.programs import COMMANDS, Table

    found = []
    for version in _versions(addresses):
        lines = set(Table(version, "", TABLE).lines())
        wanted = _rules(owner, version, addresses, exempt)
        found += [f"{COMMANDS[version]} has no rule {one} in table {TABLE}" for one in wanted if one not in lines]
    return found


def remove(owner: Owner) -> None:
    """Delete the container's chain and the jumps to it, by whichever suite. Do nothing if there is no chain."""
    chain = chain_of(owner.network, owner.container_id)
    for version, variant in variants.having(TABLE, chain):
        from shared.iptables.programs import NoIptables, Table

        try:
            table = Table(version, variant, TABLE)
        except NoIptables:
            if variant == variants.NFT:  # the kernel's rules show that the chain exists
                raise
            continue
        table.change(lambda lines: _deletion_commands(lines, {chain}))


def evict(addresses: Sequence[Address]) -> None:
    """Delete the jumps from these addresses to containers' chains, and chains that nothing else uses.

    Look for them by netlink, which needs no process. Rules of the legacy iptables are not covered.
    """
    for version in sorted({one.version for one in addresses}):
        own = [one for one in addresses if one.version == version]
        if not variants.mention(version, TABLE, POSTROUTING, [one.packed for one in own]):
            continue
        from shared.iptables.programs import Table

        Table(version, variants.NFT, TABLE).change(lambda lines: _eviction_commands(lines, own))  # noqa: B023  (at once)


def _eviction_commands(lines: list[str], addresses: Sequence[Address]) -> list[str]:
    """Return the commands that delete the jumps from addresses to chains, and chains without other jumps."""
    starts = tuple(f"-A {POSTROUTING} -s {one}/{one.bits} " for one in addresses)
    leading = {line: line.rpartition(" -j ")[2] for line in lines if line.startswith("-A ")}
    gone = {line: to for line, to in leading.items() if line.startswith(starts) and to.startswith(PREFIX)}
    doomed = {*gone.values()} - {chain for line, chain in leading.items() if line not in gone}
    kept = [line for line in lines if line not in gone]
    return [*(f"-D{line.removeprefix('-A')}" for line in gone), *_deletion_commands(kept, doomed)]


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Delete the chains of a network's containers that are not in the valid pairs of container id and ifname."""
    keep = {chain_of(network, container_id) for container_id, _ in valid}

    def stale(lines: list[str]) -> set[str]:
        comments = [_comment_option(name, "").removesuffix('\\""') for name in {network, shortened(network)}]
        found = set()
        for line in lines:
            verb, chain, *_ = line.split(" ") if line.startswith("-A ") else ("", "")
            rest = next((line.partition(comment)[2] for comment in comments if comment in line), "")
            container_id = rest.partition("\\")[0]
            # a shortened id does not suffice to derive the chain's name
            is_ours = chain == chain_of(network, container_id) or len(container_id) == LONGEST_NAME
            if verb and chain.startswith(PREFIX) and container_id and is_ours:
                found.add(chain)
        return found - keep

    for version, variant in variants.having(TABLE, POSTROUTING):
        from shared.iptables.programs import NoIptables, Table

        try:
            table = Table(version, variant, TABLE)
        except NoIptables:  # without the program nobody made a chain
            continue
        table.change(lambda lines: _deletion_commands(lines, stale(lines)))


def try_out(_exempt: Sequence[Prefix] = ()) -> None:
    """Raise CniError if the programs are missing or cannot be used."""
    from shared.iptables.programs import Table

    for version in (4, 6):
        Table(version, "", TABLE).lines()


def _versions(addresses: Sequence[Prefix]) -> list[int]:
    return sorted({own.version for own in addresses})


def _comment_option(network: str, container_id: str) -> str:
    """Return the option with the names, which are shortened if the comment would be too long."""
    if len(f'name: "{network}" id: "{container_id}"') > COMMENT_BYTES:
        network, container_id = shortened(network), shortened(container_id)
    return f'--comment "name: \\"{network}\\" id: \\"{container_id}\\""'


def _rules(owner: Owner, version: int, addresses: Sequence[Prefix], exempt: Sequence[Prefix]) -> list[str]:
    """Return the rules as iptables-save prints them."""
    chain = chain_of(owner.network, owner.container_id)
    comment = f"-m comment {_comment_option(owner.network, owner.container_id)}"
    own = [one for one in addresses if one.version == version]
    others = [f"-d {one.network}" for one in exempt if one.version == version]
    left = [*(["-m addrtype --dst-type LOCAL"] if exempt else []), *(f"-d {one.network}" for one in own), *others]
    return [
        *(f"-A {chain} {match} {comment} -j ACCEPT" for match in dict.fromkeys(left)),
        f"-A {chain} ! -d {MULTICAST[version]} {comment} -j MASQUERADE",
        *(f"-A {POSTROUTING} -s {one.address}/{one.address.bits} {comment} -j {chain}" for one in own),
    ]


def _completion_commands(lines: list[str], owner: Owner, wanted: list[str], addresses: Sequence[Address]) -> list[str]:
    """Return the commands that make the chain and the jumps to it, unless all wanted rules exist.

    They also delete jumps from `addresses` to the chains of former containers.
    """
    chain = chain_of(owner.network, owner.container_id)
    foreign = [line for line in lines if not line.endswith(f" -j {chain}")]
    others = _eviction_commands(foreign, addresses) if addresses else []
    if set(lines).issuperset(wanted):
        return others
    return [*others, *_deletion_commands(lines, {chain}), f"-N {chain}", *wanted]


def _deletion_commands(lines: list[str], chains: AbstractSet[str]) -> list[str]:
    """Return the commands that delete chains and the jumps to them."""
    leading = [line for line in lines if line.startswith("-A ") and line.rpartition(" -j ")[2] in chains]
    there = [line[1:].partition(" ")[0] for line in lines if line.startswith(":")]
    removals = [command for chain in there if chain in chains for command in (f"-F {chain}", f"-X {chain}")]
    return [*(f"-D{line.removeprefix('-A')}" for line in leading), *removals]
