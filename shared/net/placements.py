"""Note the namespace of each link that a plugin made in a pod, and that nothing on the host leads to.

With the note, DEL finds the link if the runtime does not tell the namespace, and GC finds the links of attachments that
are not valid any more. The note is written before the link is created, and removed after it.

    {"network": "net", "containerID": "c1", "ifname": "eth0", "kind": "macvlan", "netns": "4:4026532567 /run/netns/a"}
"""

from __future__ import annotations

from shared.cni import record
from shared.cni.digests import digest
from shared.net import liveness, netns
from shared.net.owner import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from typing import Any

    from shared.net.netns import Netns

DIRECTORY = "/run/cni/links"
NETWORK_DIGITS = 12  # of a digest in a note's name, by which a network's notes are found without reading files
NAMES = ("network", "containerID", "ifname")


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


def open_noted(note: dict[str, Any]) -> Netns | None:
    """Open the namespace in a note; return None if it is gone, or its path leads to another one."""
    mark = note.get("netns")
    path = mark.partition(" ")[2] if isinstance(mark, str) else ""
    return netns.open_if_there(path) if path and liveness.mark(path) == mark else None


def left_behind(network: str, kind: str, valid: AbstractSet[tuple[str, str]]) -> Iterator[Owner]:
    """Yield the network's attachments with links of a kind that are not in `valid`, (container id, ifname).

    Only for GC: it also removes the notes that killed calls did not write to their end.
    """
    record.remove_unfinished(DIRECTORY)
    prefix = f"{digest(network.encode())[:NETWORK_DIGITS]}-"
    for name in record.names(DIRECTORY):
        note = record.read(f"{DIRECTORY}/{name}") if name.startswith(prefix) else {}
        names = [note.get(key) for key in NAMES]
        if note.get("kind") != kind or names[0] != network or not all(isinstance(one, str) for one in names):
            continue
        owner = Owner(*names)  # type: ignore[arg-type]
        if _path(owner) == f"{DIRECTORY}/{name}" and (owner.container_id, owner.ifname) not in valid:
            yield owner


def _path(owner: Owner) -> str:
    own = digest(f"{owner.network}/{owner.container_id}/{owner.ifname}".encode())
    return f"{DIRECTORY}/{digest(owner.network.encode())[:NETWORK_DIGITS]}-{own}.json"
