"""Records on disk, one per attachment, of changes inside a pod that DEL undoes."""

from __future__ import annotations

from shared.cni import record
from shared.cni.plugin import valid_attachments
from shared.net.owner import file_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.cni.call import Call


def path(directory: str, call: Call) -> str:
    """Return the path of the attachment's record, with a digest if the name would be too long. Raise IOFailure.

    The name is the reference's, which two attachments may share: `a_b` with `c`, and `a` with `b_c`. The second one has
    a record under a name that no others share: neither part can contain a colon.
    """
    shared, own = (_path(directory, call, separator) for separator in "_:")
    if record.is_there(own):
        return own
    owner = record.read(shared).get("pycni")
    mine = {"containerID": call.container_id, "ifname": call.ifname}
    return own if isinstance(owner, dict) and {name: owner.get(name) for name in mine} != mine else shared


def _path(directory: str, call: Call, separator: str) -> str:
    name = file_name(f"{call.container_id}{separator}{call.ifname}", ".json", spare=len(record.UNFINISHED))
    return f"{directory}/{name}"


def marks(call: Call, namespace: str) -> dict[str, Any]:
    """Return the member of a record that names the attachment and the identity of its namespace."""
    mine = {"network": call.network, "containerID": call.container_id, "ifname": call.ifname, "namespace": namespace}
    return {"pycni": mine}


def namespace(recorded: dict[str, Any]) -> str:
    """Return the identity of the recorded namespace, empty if the record names none."""
    own = recorded.get("pycni")
    found = own.get("namespace") if isinstance(own, dict) else None
    return found if isinstance(found, str) else ""


def collect(directory: str, call: Call) -> None:
    """Serve GC: delete the records of this network's attachments that are not valid any more. Their pods are gone."""
    valid = valid_attachments(call)
    record.remove_unfinished(directory)
    for place, recorded in record.listed(directory):
        owner = recorded.get("pycni")
        if not isinstance(owner, dict) or owner.get("network") != call.network:
            continue
        if (owner.get("containerID"), owner.get("ifname")) not in valid:
            record.remove(place)
