"""Note the namespace of each link that a plugin made in a pod, and that nothing on the host leads to.

With the note, DEL finds the link if the runtime does not tell the namespace, and GC finds the links of attachments that
are not valid any more. The note is written before the link is created, and removed after it.

    {"network": "net", "containerID": "c1", "ifname": "eth0", "kind": "macvlan", "netns": "4:4026532567 /run/netns/a"}
"""

from __future__ import annotations

import posix

from shared.cni import record
from shared.cni.digests import digest
from shared.net import liveness, netns
from shared.net.owner import LINK_NOTES, Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from typing import Any

    from shared.net.netns import Netns

DIRECTORY = LINK_NOTES
NETWORK_DIGITS = 12  # of a digest in a note's name
NAMES = ("network", "containerID", "ifname")
HOST_ACCESS = "hostAccess"  # key with the link of the host, and the pod's addresses and MAC (shared/net/host_access.py)


def write(owner: Owner, kind: str, pod_netns: Netns, **keys: Any) -> None:
    """Note where the attachment's link is, and keys of its plugin. Raise IOFailure."""
    names = zip(NAMES, (owner.network, owner.container_id, owner.ifname))
    record.write(_path(owner), {**dict(names), "kind": kind, "netns": liveness.mark(pod_netns.path), **keys})


def extend(owner: Owner, **keys: Any) -> None:
    """Add keys of the plugin to the attachment's note. Raise IOFailure."""
    record.write(_path(owner), {**read(owner), **keys})


def read(owner: Owner) -> dict[str, Any]:
    """Return the attachment's note, empty if there is none. Raise IOFailure."""
    return record.read(_path(owner))


def remove(owner: Owner) -> None:
    """Remove the attachment's note if there is one. Raise IOFailure."""
    record.remove(_path(owner))


def namespaces(note: dict[str, Any], known: Netns | None) -> Iterator[Netns]:
    """Yield the namespaces that may have the link of a note: the `known` one, if any, then the noted one.

    Processes can keep a namespace alive when its path leads nowhere, or to another one. Raises netns.Unopened if a
    namespace may be there and cannot be opened.
    """
    if known is not None:
        yield known
    noted = open_noted(note)
    if noted is not None:
        yield noted
    elif known is None or str(posix.fstat(known.descriptor).st_ino) != _inode(note):
        yield from _of_processes(note)


def _mark(note: dict[str, Any]) -> str:
    mark = note.get("netns")
    return mark if isinstance(mark, str) else ""


def _inode(note: dict[str, Any]) -> str:
    """Return the inode number of the noted namespace; empty without one."""
    return _mark(note).partition(" ")[0].partition(":")[2].partition(":")[0]


def open_noted(note: dict[str, Any]) -> Netns | None:
    """Open the namespace at the noted path; return None if it is gone, or the path leads to another one."""
    mark = _mark(note)
    path = mark.partition(" ")[2]
    return netns.open_if_there(path) if path and liveness.mark(path) == mark else None


def _of_processes(note: dict[str, Any]) -> Iterator[Netns]:
    """Yield the noted namespace if a process is in it."""
    inode = _inode(note)
    opened = (netns.open_if_there(path) for path in netns.of_processes(inode)) if inode else iter(())
    found = next(filter(None, opened), None)
    if found is not None:
        yield found


def left_behind(network: str, kind: str, valid: AbstractSet[tuple[str, str]]) -> Iterator[Owner]:
    """Yield the network's attachments with links of a kind (empty: any) that are not in `valid`.

    `valid` has pairs of container id and ifname.
    Also yield those of other networks with a deleted namespace: a network that was renamed or removed has no GC.
    Only for GC: it also removes the notes that killed calls did not write to their end.
    """
    record.remove_unfinished(DIRECTORY)
    for owner, note in _all():
        if kind not in ("", note.get("kind")):
            continue
        is_valid = (owner.container_id, owner.ifname) in valid
        if not is_valid if owner.network == network else _is_deleted(note):
            yield owner


def paths(kind: str) -> Iterator[str]:
    """Yield the paths of the namespaces that links of a kind were noted in. A path may lead elsewhere by now."""
    for name in record.names(DIRECTORY):
        note = record.read(f"{DIRECTORY}/{name}")
        if note.get("kind") == kind:
            yield _mark(note).partition(" ")[2]


def former_owners(owner: Owner) -> list[Owner]:
    """Return the attachment under the name of each other network with a note of it: the network was renamed."""
    same = (one for one, _ in _all() if (one.container_id, one.ifname) == (owner.container_id, owner.ifname))
    return [one for one in same if one.network != owner.network]


def _is_deleted(note: dict[str, Any]) -> bool:
    """Return True if the noted path leads to no namespace or to another one, and no process is in the noted one."""
    return liveness.is_lost(_mark(note)) and next(_of_processes(note), None) is None


def _all() -> Iterator[tuple[Owner, dict[str, Any]]]:
    """Yield all attachments with noted links, and the notes."""
    for path, note in record.listed(DIRECTORY):
        names = [note.get(key) for key in NAMES]
        if all(isinstance(one, str) for one in names):
            owner = Owner(*names)  # type: ignore[arg-type]
            if _path(owner) == path:
                yield owner, note


def _path(owner: Owner) -> str:
    own = digest(f"{owner.network}/{owner.container_id}/{owner.ifname}".encode())
    return f"{DIRECTORY}/{digest(owner.network.encode())[:NETWORK_DIGITS]}-{own}.json"
