"""Write the state of the cluster duty to a file, which the command line, doctor and the metrics read."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cluster import claims, files
from shared.cluster.model import Alarm, Held, Kind, Pool, Snapshot
from shared.cni.errors import CniError

if TYPE_CHECKING:
    from shared.cluster.executor import Executor, Step

PATH = Path("/run/pycni/cluster.json")


class Report:
    """The file of one process."""

    def __init__(self, node: str, uid: str, engine: str, path: Path = PATH) -> None:
        self.node = node
        self._head = {"node": node, "uid": uid, "engine": engine}
        self._path = path
        self._state: tuple[bool, str] | None = None
        self._since = 0.0
        self._steps = self._failures = 0
        self._rest: dict[str, Any] = {"networks": {}, "routes": 0, "missingRoutes": 0}

    def write(
        self,
        snapshot: Snapshot,
        step: Step | None,
        failure: str,
        alarms: tuple[Alarm, ...],
        executor: Executor,
        pools: Mapping[str, Pool],
    ) -> None:
        """Replace the file after a step; None if the node could not be looked at. A full disk is no reason to stop."""
        self._steps += 1
        self._failures += bool(failure)
        failure = failure or snapshot.failure
        if self._state != (snapshot.is_current, failure):
            self._state, self._since = (snapshot.is_current, failure), time.time()
        if step is not None:
            self._rest = {
                "networks": _describe_networks(step, pools),
                "routes": len(executor.checkpoint.kept_routes),
                "missingRoutes": len(step.missing),
            }
        counts = executor.engine.counts()
        content = {
            **self._head,
            "isCurrent": snapshot.is_current,
            "failure": failure,
            "since": self._since,
            "updated": time.time(),
            "alarms": [{"name": one.name, "about": one.about, "text": one.text} for one in alarms],
            "peers": len(snapshot.peers.keys() - {self.node}),
            **self._rest,
            "counts": {
                "requests": counts.requests, "sentBytes": counts.sent_bytes, "receivedBytes": counts.received_bytes,
                "events": counts.events, "steps": self._steps, "failures": self._failures,
            },
        }  # fmt: skip
        with suppress(CniError, OSError):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            files.write(self._path, json.dumps(content))


def _describe_networks(step: Step, pools: Mapping[str, Pool]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    lost = {alarm.about for alarm in step.alarms if alarm.name == "block-lost"}
    for one in sorted(step.local.held.values(), key=lambda one: claims.order(one.cidr)):
        pool = pools.get(one.network)
        kind = pool.kind if pool else Kind.ROUTED
        network = found.setdefault(one.network, {"kind": kind.value, "ranges": []})
        free = max(0, _count_addresses(one, pool) - one.used)
        state = "lost" if str(one.cidr) in lost else _name_state(one)
        network["ranges"].append(
            {"cidr": str(one.cidr), "state": state, "used": one.used, "free": free, "isPublished": one.is_published}
        )
    return found


def _name_state(one: Held) -> str:
    return "assigned" if one.is_assigned else "draining" if one.is_draining else "owned"


def _count_addresses(one: Held, pool: Pool | None) -> int:
    if pool is None or pool.kind is Kind.ROUTED:
        return max(0, one.cidr.num_addresses - (3 if one.cidr.version == 4 else 2))
    entry = claims.find_range(pool, one.cidr)
    return claims.capacity(pool.kind, entry, one.cidr) if entry else one.cidr.num_addresses


def read(path: Path = PATH) -> dict[str, Any] | None:
    """Return the report of the running duty, or of the last one; None without one. Raise IOFailure or ValueError."""
    text = files.read_own(path)
    if text is None:
        return None
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no report of the cluster duty")
    return found
