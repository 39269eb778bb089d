"""Whose host ports iptables has: a file for each attachment, since a rule has no room for its mark.

A file is there before the rules and gone after them.
"""

from __future__ import annotations

import posix

from shared.cni import record
from shared.cni.errors import IOFailure
from shared.cni.ip import Address
from shared.hostports.iptables_rules import interface_words
from shared.net import liveness
from shared.net.owner import Owner, digest
from shared.net.reference_names import shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Known = tuple[Owner, str, list[str]]  # an attachment, its mark, and the addresses to which its ports lead

DIRECTORY = "/run/cni/portmap"
NAMES = ("network", "containerID", "ifname")


def write(owner: Owner, mark: str, addresses: Iterable[Address]) -> None:
    """Note an attachment, its mark (shared/net/liveness.py), and the addresses to which its ports lead."""
    names = dict(zip(NAMES, (owner.network, owner.container_id, owner.ifname)))
    record.write(_path(owner), {**names, "mark": mark, "addresses": [str(one) for one in addresses]})


def mark_of(owner: Owner) -> str:
    """Return the mark that an attachment's file has, empty if there is none."""
    return _mark(record.read(_path(owner)))


def remove(owner: Owner) -> None:
    """Remove an attachment's file if it exists, finished or not."""
    path = _path(owner)
    # a file system that is read-only refuses to remove even what is not there
    if any(posix.access(one, posix.F_OK) for one in (path, f"{path}.new")):
        record.remove(path)


def every() -> Iterator[Known]:
    """Yield each attachment that has a file. Raises IOFailure."""
    for path, content in record.listed(DIRECTORY):
        names = [content.get(name) for name in NAMES]
        if all(isinstance(name, str) for name in names):
            owner = Owner(*names)  # type: ignore[arg-type]
            addresses = content.get("addresses")
            if _path(owner) == path:
                texts = [one for one in addresses if isinstance(one, str)] if isinstance(addresses, list) else []
                yield owner, _mark(content), texts


def dead(network: str, container_id: str, interface: str) -> Owner | None:
    """Return the attachment that rules name in these words, if it is known and dead; None for one of the living."""
    for owner, mark, _ in _readable():
        words = (shortened(owner.network), shortened(owner.container_id), interface_words(owner.ifname))
        if words == (network, container_id, interface) and liveness.is_dead(owner, mark, patient=True):
            return owner
    return None


def dead_at(addresses: Iterable[Address]) -> list[Owner]:
    """Return the dead attachments whose ports lead to one of these addresses."""
    texts = {str(one) for one in addresses}
    return [owner for owner, mark, others in _readable() if texts & {*others} and liveness.is_dead(owner, mark)]


def _readable() -> list[Known]:
    """Return those that have a file, none if one of them cannot be read: then everybody counts as alive."""
    try:
        return list(every())
    except IOFailure:
        return []


def _mark(content: dict[str, Any]) -> str:
    mark = content.get("mark")
    return mark if isinstance(mark, str) else ""


def _path(owner: Owner) -> str:
    # a digest, since names may be longer than a file's name
    return f"{DIRECTORY}/{digest(f'{owner.network}/{owner.container_id}/{owner.ifname}'.encode())}.json"
