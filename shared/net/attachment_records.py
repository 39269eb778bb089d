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
    """Return the path of the attachment's record, with a digest if the name would be too long."""
    name = file_name(f"{call.container_id}_{call.ifname}", ".json", spare=len(record.UNFINISHED))
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
