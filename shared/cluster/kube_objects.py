"""The cluster's objects as Kubernetes has them, and back. A revision is the object's uid and resourceVersion."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import Any

from shared.cluster import codec
from shared.cluster.codec import Unreadable
from shared.cluster.kube_names import block_of, network_of
from shared.cluster.model import Block, Cidr, Peer, Pool, Revision

GROUP = "pycni.internal"
Object = dict[str, Any]


def make(kind: str, name: str, value: object, revision: Object | None = None) -> Object:
    """Return an object to be sent; with `revision`, for an update of just that one."""
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name, **(revision or {})}, "spec": value}


def revision_of(found: Object) -> Revision:
    """Return the revision of an object that was read."""
    metadata = found["metadata"]
    return f"{metadata.get('uid', '')}/{metadata['resourceVersion']}"


def split(revision: Revision) -> Object:
    """Return uid and resourceVersion of a revision, empty if it is none."""
    uid, _, version = revision.rpartition("/")
    return {"uid": uid, "resourceVersion": version} if uid and version else {}


def read_pool(found: Object) -> Pool:
    """Return the pool that an object is. Raise Unreadable if it is none."""
    return codec.to_pool(_named(network_of, found), found.get("spec"))


def read_block(found: Object) -> Block:
    """Return the block that an object is. Raise Unreadable if it is none."""
    network, cidr = _named(block_of, found)
    return codec.to_block(network, codec.to_cidr(str(cidr)), found.get("spec"), revision_of(found))


def read_peer(found: Object) -> Peer:
    """Return the peer that an object is. Raise Unreadable if it is none."""
    return codec.to_peer(found["metadata"]["name"], found.get("spec"), revision_of(found))


def read_node(found: Object, network: str) -> Peer:
    """Return the peer that a Node is, by its podCIDRs and InternalIPs. Raise Unreadable if it is none."""
    metadata = found["metadata"]
    try:
        since = datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
        addresses = {
            ipaddress.ip_address(one["address"]).version: one["address"]
            for one in reversed((found.get("status") or {}).get("addresses") or [])
            if one["type"] == "InternalIP"
        }
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"creationTimestamp or status.addresses: {type(error).__name__}: {error}") from None
    value = {
        "uid": metadata.get("uid"),
        "addresses": [addresses[version] for version in sorted(addresses)],
        "cidrs": {network: [str(cidr) for cidr in pod_cidrs(found)]},
        "since": since,
    }
    return codec.to_peer(metadata["name"], value, "")  # nobody writes it, and its revision changes with each heartbeat


def pod_cidrs(found: Object) -> tuple[Cidr, ...]:
    """Return the podCIDRs of a Node, none if the controller has assigned none yet. Raise Unreadable for others."""
    spec = found.get("spec") or {}
    listed = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    if not isinstance(listed, list):
        raise Unreadable("spec.podCIDRs is no list")
    return tuple(codec.to_cidr(one, "spec.podCIDRs") for one in listed)


def key(plural: str, found: Object) -> str:
    """Return the key of an object in a snapshot's `unreadable`; etcd's objects have the same."""
    name = found["metadata"]["name"]
    try:
        if plural == "blocks":
            network, cidr = block_of(name)
            return f"blocks/{network}/{cidr}"
        return f"pools/{network_of(name)}" if plural == "pools" else f"nodes/{name}"
    except ValueError:
        return f"{plural}/{name}"


def _named(read: Any, found: Object) -> Any:
    try:
        return read(found["metadata"]["name"])
    except ValueError as error:
        raise Unreadable(str(error)) from None
