"""Which addresses an attachment has had let through, in a file for each: rules by address cannot say whose they are.

A file is there before the rules and gone after them, and the lock is held while either changes.
"""

from __future__ import annotations

import posix

from shared.cni import record
from shared.cni.ip import Address
from shared.cni.plugin import each
from shared.net.owner import Owner, digest
from shared.net.turns import turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Any

    Note = dict[str, Any]
    # Takes away what addresses have, given the file's content, which is empty where there is none.
    Taker = Callable[[AbstractSet[Address], Note], None]

RECORDS = "/run/cni/firewall"
ZONE = "firewalldZone"


def write(owner: Owner, addresses: Sequence[Address], zone: str = "") -> None:
    """Notes an attachment's addresses, and firewalld's zone where that is what has them."""
    attachment = {"network": owner.network, "containerID": owner.container_id, "ifname": owner.ifname}
    backend = {ZONE: zone} if zone else {}
    record.write(_path(owner), {**attachment, "addresses": [str(address) for address in addresses], **backend})


def zone(note: Note) -> str:
    """Firewalld's zone; empty where iptables has the addresses."""
    found = note.get(ZONE)
    return found if isinstance(found, str) else ""


def end(owner: Owner, others: Iterable[Address], *takers: Taker) -> None:
    """Has taken away what an attachment's addresses have: those that its file names, and `others`.

    An address that another attachment has by now keeps it. In the same network that is a newer one: an older one's file
    was left behind by another suite's DEL. The file stays if a taker fails; each has its turn.
    """
    path = _path(owner)
    note = record.read(path)
    doomed = {*_addresses(note), *others}
    if doomed:
        with turn(RECORDS, only_removes=True):
            own = _time(path)
            for file, content in record.listed(RECORDS):
                if file != path and (content.get("network") != owner.network or _time(file) >= own):
                    doomed -= {*_addresses(content)}
            each(*(lambda take=take: take(doomed, note) for take in takers))
    record.remove(path)


def collect(network: str, valid: AbstractSet[tuple[str, str]], *takers: Taker) -> None:
    """Ends the attachments of a network that are not among the valid (container id, ifname)."""
    for path, content in record.listed(RECORDS):
        names = [content.get(name) for name in ("network", "containerID", "ifname")]
        if not all(isinstance(name, str) for name in names) or names[0] != network or tuple(names[1:]) in valid:
            continue
        owner = Owner(*names)  # type: ignore[arg-type]
        if _path(owner) == path:
            end(owner, (), *takers)


def _path(owner: Owner) -> str:
    # a digest, since names may be longer than a file's name
    return f"{RECORDS}/{digest(f'{owner.network}/{owner.container_id}/{owner.ifname}'.encode())}.json"


def _time(path: str) -> int:
    """When the file was written, in nanoseconds; 0 where there is none."""
    try:
        return posix.stat(path, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


def _addresses(note: Note) -> list[Address]:
    """The addresses that a file lists; one that somebody else has written may have anything."""
    listed = note.get("addresses")
    found = []
    for text in listed if isinstance(listed, list) else ():
        try:
            found.append(Address.parse(text))
        except (ValueError, TypeError):
            continue
    return found
