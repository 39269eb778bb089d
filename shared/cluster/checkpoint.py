"""The node's own memory, with which it works after a boot while the engine does not answer.

    /var/lib/pycni/agent/uid           the node's id, made once
    /var/lib/pycni/agent/node.json     the id again, held blocks, attempts, ranges, the peer object as announced last
    /var/lib/pycni/agent/routes.json   the routes to peers: large, and written only if they change

The ranges are those that the conflist shall have. The leases are in host-local's store alone.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from operator import itemgetter
from pathlib import Path
from typing import Any

from shared.cluster import files
from shared.cluster.model import Attempt, Cidr, Held, Peer, Route
from shared.cni.errors import IOFailure

DIRECTORY = Path("/var/lib/pycni/agent")
UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Checkpoint:
    """The content of the files. `held` has neither leases nor `is_published`: they are looked at anew.

    `problems` names each file that is garbled, and so was taken for empty.
    """

    held: Mapping[tuple[str, Cidr], Held] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    kept_ranges: Mapping[str, tuple[Cidr, ...]] = field(default_factory=dict)
    kept_routes: frozenset[Route] = frozenset()
    announced: Peer | None = None
    problems: tuple[str, ...] = field(default=(), compare=False)


class Store:
    """The files in a directory, which is made for this process's user alone. Methods raise IOFailure."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory
        # the content of the files, as this process knows it
        self._node = ""
        self._routes: frozenset[Route] | None = None
        files.make_own_directory(directory)
        self.uid = self._find_uid()

    def _find_uid(self) -> str:
        """Return the node's id. Make one if neither file has it: the node is new."""
        path = self.directory / "uid"
        text = files.read_own(path)
        if text is not None and UID.fullmatch(text.strip()):
            return text.strip()
        noted = _object(files.read_own(self.directory / "node.json")).get("uid")
        if text is not None and not noted:
            raise IOFailure(
                f"{path} has no node's id, but {text[:40]!r}",
                "write back its 32 hexadecimal digits, as the node's blocks name them; or remove the file: the node is"
                " a new one then, and `cnitool cluster release` frees its old blocks",
            )
        uid = noted if isinstance(noted, str) and UID.fullmatch(noted) else uuid.uuid4().hex
        files.write(path, f"{uid}\n")
        return uid

    def read(self) -> Checkpoint:
        """Return the checkpoint. A file that is garbled counts as empty: the engine and the conflist know the rest."""
        found: dict[str, Any] = {}
        problems, texts = [], {}
        for path, parse in ((self.directory / "node.json", _node), (self.directory / "routes.json", _routes)):
            text = files.read_own(path)
            if text is None:
                continue
            texts[path.name] = text
            try:
                found |= parse(json.loads(text))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                problems.append(f"{path} is garbled, and counts as empty: {error}")
        self._node, self._routes = texts.get("node.json", ""), found.get("kept_routes")
        return Checkpoint(**found, problems=tuple(problems))

    def write(self, checkpoint: Checkpoint) -> bool:
        """Write the files that differ from the checkpoint. Return False if there are none."""
        node = {
            "uid": self.uid,
            "held": [_raw_held(one) for _, one in sorted(checkpoint.held.items(), key=str)],
            "attempts": [
                {"network": one.network, "cidr": str(one.cidr), "isOpen": one.is_open} for one in checkpoint.attempts
            ],
            "ranges": {network: list(map(str, cidrs)) for network, cidrs in sorted(checkpoint.kept_ranges.items())},
            "announced": checkpoint.announced and _raw_peer(checkpoint.announced),
        }
        text, routes = json.dumps(node), checkpoint.kept_routes
        changes = [text != self._node, routes != self._routes]
        if changes[0]:
            self._node = ""  # unknown, if this fails: the new text may be there all the same
            files.write(self.directory / "node.json", text)
            self._node = text
        if changes[1]:
            raw = sorted((_raw_route(one) for one in routes), key=itemgetter("cidr"))
            self._routes = None
            files.write(self.directory / "routes.json", json.dumps({"routes": raw}))
            self._routes = routes
        return any(changes)


def _object(text: str | None) -> dict[str, Any]:
    """Return the object in a text; empty if it is garbled."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _node(raw: dict[str, Any]) -> dict[str, Any]:
    held = [
        Held(one["network"], ip_network(one["cidr"]), 0, is_published=False, since=float(one["since"]),
             is_assigned=bool(one["isAssigned"]), is_draining=bool(one["isDraining"]))
        for one in raw["held"]
    ]  # fmt: skip
    attempts = [Attempt(one["network"], ip_network(one["cidr"]), bool(one["isOpen"])) for one in raw["attempts"]]
    return {
        "held": {(one.network, one.cidr): one for one in held},
        "attempts": tuple(attempts),
        "kept_ranges": {network: tuple(map(ip_network, cidrs)) for network, cidrs in raw["ranges"].items()},
        "announced": raw["announced"] and _peer(raw["announced"]),
    }


def _raw_held(one: Held) -> dict[str, Any]:
    return {
        "network": one.network, "cidr": str(one.cidr), "since": one.since, "isAssigned": one.is_assigned,
        "isDraining": one.is_draining,
    }  # fmt: skip


def _routes(raw: dict[str, Any]) -> dict[str, Any]:
    found = [
        Route(ip_network(one["cidr"]), one["node"], ip_address(one["via"]), bool(one["isTunnelled"]), one["mac"],
              one["key"], bool(one["isRefused"]))
        for one in raw["routes"]
    ]  # fmt: skip
    return {"kept_routes": frozenset(found)}


def _raw_route(one: Route) -> dict[str, Any]:
    return {
        "cidr": str(one.cidr), "node": one.node, "via": str(one.via), "isTunnelled": one.is_tunnelled, "mac": one.mac,
        "key": one.key, "isRefused": one.is_refused,
    }  # fmt: skip


def _peer(raw: dict[str, Any]) -> Peer:
    return Peer(
        raw["node"], raw["uid"], tuple(map(ip_address, raw["addresses"])),
        {network: tuple(map(ip_network, cidrs)) for network, cidrs in raw["cidrs"].items()},
        float(raw["since"]), raw["vtepMac"], raw["publicKey"], raw["revision"],
    )  # fmt: skip


def _raw_peer(one: Peer) -> dict[str, Any]:
    return {
        "node": one.node, "uid": one.uid, "addresses": list(map(str, one.addresses)),
        "cidrs": {network: list(map(str, cidrs)) for network, cidrs in one.cidrs.items()},
        "since": one.since, "vtepMac": one.vtep_mac, "publicKey": one.public_key, "revision": one.revision,
    }  # fmt: skip
