"""Claim files of the firewall plugin: one note per attachment, listing its admitted addresses.

iptables rules and firewalld sources match addresses and cannot record their owner, and a flush removes all of them: the
next call restores the rules of each note. A note is written before the rules and removed after them. A call holds the
lock while it changes either.

    {"network": "net", "containerID": "c1", "ifname": "eth0", "addresses": ["10.1.0.5"], "order": 81623574392,
     "netns": "4:4026532567 /run/netns/a", "backend": "iptables", "variant": "nft", "bridge": "", "port": ""}
"""

from __future__ import annotations

from time import CLOCK_BOOTTIME, clock_gettime_ns

from shared.cni import record
from shared.cni.digests import digest
from shared.cni.ip import Address
from shared.cni.plugin import run_all
from shared.net import liveness, rules_lock
from shared.net.owner import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Any

    Note = dict[str, Any]
    # Removes the rules of addresses; the note may be empty. A function returns the addresses: to find them takes time.
    Taker = Callable[[Callable[[], AbstractSet[Address]], Note], None]

RECORDS = "/run/cni/firewall"
NFTABLES, IPTABLES, FIREWALLD = "nftables", "iptables", "firewalld"
IN_NFTABLES = {"backend": NFTABLES}  # the keys of a note for admission by nf_tables
ZONE = "firewalldZone"
NETWORK_DIGITS = 12  # of a digest in a note's name, by which a network's notes are found without reading files
NAMES = ("network", "containerID", "ifname")


class Claim:
    """A note with its owner. Notes of older releases lack the keys `order`, `netns`, `backend`, `bridge` and `port`."""

    def __init__(self, owner: Owner, note: Note) -> None:
        self.owner = owner
        self.note = note
        self.addresses = _addresses(note)

    @classmethod
    def new(cls, owner: Owner, addresses: Sequence[Address], netns: str, **keys: object) -> Claim:
        """Return the claim of an ADD, with an order later than that of all earlier claims."""
        names = zip(NAMES, (owner.network, owner.container_id, owner.ifname))
        order = clock_gettime_ns(CLOCK_BOOTTIME)  # the wall clock may be set back
        mark = liveness.mark(netns)
        listed = [str(address) for address in addresses]
        return cls(owner, {**dict(names), "addresses": listed, "order": order, "netns": mark, **keys})

    def text(self, key: str) -> str:
        """Return a key's value; empty if it is absent or no text, as in a file of another program."""
        found = self.note.get(key)
        return found if isinstance(found, str) else ""

    @property
    def backend(self) -> str:
        """Where the addresses are admitted: NFTABLES, IPTABLES or FIREWALLD."""
        return self.text("backend") or (FIREWALLD if self.text(ZONE) else IPTABLES)

    @property
    def is_published(self) -> bool:
        """Return True if connections from outside to host ports are admitted, too."""
        return self.note.get("admitHostPorts") is True

    @property
    def is_complete(self) -> bool:
        """Return True if the note lists everything that nf_tables has for the attachment."""
        return "bridge" in self.note

    @property
    def is_past(self) -> bool:
        """Return True if the note's namespace is gone, or another one is at its path."""
        mark = self.text("netns")
        return bool(mark) and liveness.mark(mark.partition(" ")[2]) != mark

    def moved(self, **keys: object) -> Claim:
        """Return a copy of the claim with other values for these keys."""
        return Claim(self.owner, {**self.note, **keys})

    def write(self) -> None:
        """Write the note under this release's name, and remove it under older ones."""
        path, *older = _paths(self.owner)
        record.write(path, self.note)
        for one in older:
            record.remove(one)


def find(owner: Owner) -> Claim | None:
    """Return an attachment's claim, None if it has no note."""
    for path in _paths(owner):
        if note := record.read(path):
            return Claim(owner, note)
    return None


def witnesses(owner: Owner) -> list[Claim] | None:
    """Return up to two living claims of the owner's network, other than its own, to look for lost rules.

    They are the first and the last by name. A call that restores rules works in that order: if it is killed, the last
    claim's rules are still missing, and the next call sees it. Return None if there are only notes of older releases.
    """
    own, *_ = _paths(owner)
    mine, older = _names(owner.network)
    names = [name for name in mine if f"{RECORDS}/{name}" != own]
    if not names:
        return None if older else []
    found = [next(_living(some, owner.network, None), None) for some in (names, names[::-1])]
    return [one for one in found if one]


def living(network: str, valid: AbstractSet[tuple[str, str]] | None) -> list[Claim]:
    """Return the claims of a network's living attachments; only those in `valid`, if it is given.

    `valid` has (container id, ifname). If a note does not name a namespace, the attachment is alive if it is in
    `valid`, or without `valid`, if its host link exists.
    """
    mine, older = _names(network)
    return list(_living([*mine, *older], network, valid))


def _living(names: Iterable[str], network: str, valid: AbstractSet[tuple[str, str]] | None) -> Iterator[Claim]:
    for name in names:
        claim = _claim(f"{RECORDS}/{name}", record.read(f"{RECORDS}/{name}"))
        if claim and claim.owner.network == network and is_alive(claim, valid):
            yield claim


def is_alive(claim: Claim, valid: AbstractSet[tuple[str, str]] | None) -> bool:
    """Return True if the attachment is not known to be dead, and is in `valid` if that is given."""
    owner, mark = claim.owner, claim.text("netns")
    if valid is not None and (owner.container_id, owner.ifname) not in valid:
        return False
    if mark or valid is not None:
        return not liveness.is_dead(owner, mark)
    from shared.net import links
    from shared.net.netlink import Netlink

    return links.get(Netlink(), owner.host_link) is not None


def end(owner: Owner, others: Iterable[Address], first: Callable[[], object], *takers: Taker) -> None:
    """Run `first`, remove the rules of the addresses in an attachment's note and of `others`, then the note.

    Every taker runs even if another fails; the note stays if one failed. An address stays admitted if another
    attachment has it now. In the same network only a newer attachment counts: the note of an older one was left behind
    by another suite's DEL. The lock is held until the note is gone, so that no other call restores the rules meanwhile.
    """
    doomed = {*others}
    if not doomed and find(owner) is None:
        first()
        _remove(owner)
        return
    with rules_lock.hold(RECORDS, only_removes=True):
        claim = find(owner) or Claim(owner, {})
        doomed |= {*claim.addresses}
        run_all(first, *(lambda take=take: take(lambda: _without_others(doomed, claim), claim.note) for take in takers))
        _remove(owner)


def _remove(owner: Owner) -> None:
    for path in _paths(owner):
        record.remove(path)


def _without_others(doomed: AbstractSet[Address], claim: Claim) -> AbstractSet[Address]:
    """Return the addresses that no other attachment has."""
    if not doomed:
        return doomed
    own, left = _paths(claim.owner), {*doomed}
    for path, content in record.listed(RECORDS):
        if path not in own and (content.get("network") != claim.owner.network or _order(content) >= _order(claim.note)):
            left -= {*_addresses(content)}
    return left


def collect(network: str, valid: AbstractSet[tuple[str, str]], remove: Callable[[Owner], object]) -> None:
    """Call `remove` for each attachment of a network that is not in `valid`, (container id, ifname)."""
    record.remove_unfinished(RECORDS)
    for path, content in record.listed(RECORDS):
        claim = _claim(path, content)
        if claim and claim.owner.network == network and (claim.owner.container_id, claim.owner.ifname) not in valid:
            remove(claim.owner)


def _claim(path: str, content: Note) -> Claim | None:
    """Return the claim in a file that has the name of its owner; None for any other file."""
    names = [content.get(name) for name in NAMES]
    if not all(isinstance(name, str) for name in names):
        return None
    owner = Owner(*names)  # type: ignore[arg-type]
    return Claim(owner, content) if path in _paths(owner) else None


def _names(network: str) -> tuple[list[str], list[str]]:
    """Return the names of a network's notes, and of all notes that older releases wrote."""
    names = record.names(RECORDS)
    prefix = f"{digest(network.encode())[:NETWORK_DIGITS]}-"
    return [name for name in names if name.startswith(prefix)], [name for name in names if "-" not in name]


def _paths(owner: Owner) -> tuple[str, str]:
    """Return the paths of a note: this release's and the older ones'. Digests keep them short."""
    own = digest(f"{owner.network}/{owner.container_id}/{owner.ifname}".encode())
    return f"{RECORDS}/{digest(owner.network.encode())[:NETWORK_DIGITS]}-{own}.json", f"{RECORDS}/{own}.json"


def _order(note: Note) -> int:
    """Return a note's place in the order of ADDs; 0 for notes of older releases, which have none."""
    found = note.get("order")
    return found if isinstance(found, int) else 0


def _addresses(note: Note) -> list[Address]:
    """Return the addresses that a file lists; skip everything that is not an address."""
    listed = note.get("addresses")
    found = []
    for text in listed if isinstance(listed, list) else ():
        try:
            found.append(Address.parse(text))
        except (ValueError, TypeError):
            continue
    return found
