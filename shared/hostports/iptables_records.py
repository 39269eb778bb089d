"""Records of host ports by iptables: a file for each attachment, because a rule has no room for its mark.

ADD writes the file before the rules. DEL deletes it after them.
"""

from __future__ import annotations

import posix

from shared.cni import record
from shared.cni.digests import digest
from shared.cni.errors import IOFailure
from shared.cni.ip import Address
from shared.hostports.iptables_rules import interface_words
from shared.net import liveness
from shared.net.owner import Owner
from shared.net.reference_names import shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Known = tuple[Owner, str, list[str]]  # an attachment, its mark, and the addresses to which its ports lead

DIRECTORY = "/run/cni/portmap"
NAMES = ("network", "containerID", "ifname")


def write(owner: Owner, mark: str, addresses: Iterable[Address]) -> None:
    """Record an attachment, its mark (shared/net/liveness.py), and the addresses to which its ports lead."""
    names = dict(zip(NAMES, (owner.network, owner.container_id, owner.ifname)))
    record.write(_path(owner), {**names, "mark": mark, "addresses": [str(one) for one in addresses]})


def mark_of(owner: Owner) -> str:
    """Return the recorded mark of an attachment, empty if there is no file."""
    return _parse_mark(record.read(_path(owner)))


def remove(owner: Owner) -> None:
    """Delete an attachment's file if it exists, also one that was not written to its end."""
    path = _path(owner)
    # a read-only file system refuses to unlink even a file that does not exist
    if any(posix.access(one, posix.F_OK) for one in (path, f"{path}.new")):
        record.remove(path)


def remove_unfinished() -> None:
    """Remove the files that killed calls did not write to their end. Raise IOFailure."""
    record.remove_unfinished(DIRECTORY)


def read_all() -> Iterator[Known]:
    """Yield each attachment that has a file. Raise IOFailure if one cannot be read."""
    for path, content in record.listed(DIRECTORY):
        names = [content.get(name) for name in NAMES]
        if all(isinstance(name, str) for name in names):
            owner = Owner(*names)  # type: ignore[arg-type]
            addresses = content.get("addresses")
            if _path(owner) == path:
                texts = [one for one in addresses if isinstance(one, str)] if isinstance(addresses, list) else []
                yield owner, _parse_mark(content), texts


def find_dead(network: str, container_id: str, interface: str) -> Owner | None:
    """Return the attachment that rules name in these words if it is recorded and dead, else None."""
    for owner, mark, _ in _read_all_or_none():
        words = (shortened(owner.network), shortened(owner.container_id), interface_words(owner.ifname))
        if words == (network, container_id, interface) and liveness.is_dead(owner, mark, patient=True):
            return owner
    return None


def find_dead_at(addresses: Iterable[Address]) -> list[Owner]:
    """Return the dead attachments whose ports lead to one of these addresses."""
    texts = {str(one) for one in addresses}
    return [owner for owner, mark, others in _read_all_or_none() if texts & {*others} and liveness.is_dead(owner, mark)]


def _read_all_or_none() -> list[Known]:
    """Return the recorded attachments, none if a file cannot be read: then all count as alive."""
    try:
        return list(read_all())
    except IOFailure:
        return []


def _parse_mark(content: dict[str, Any]) -> str:
    mark = content.get("mark")
    return mark if isinstance(mark, str) else ""


def _path(owner: Owner) -> str:
    # a digest, because the names may be longer than a file name can be
    return f"{DIRECTORY}/{digest(f'{owner.network}/{owner.container_id}/{owner.ifname}'.encode())}.json"
