"""Read the cluster duty's own report on this node, which needs no engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from shared.agent import settings as agent_settings
from shared.cluster import report
from shared.cni.errors import IOFailure

STALE_SECONDS = 240.0  # the duty looks once a minute if nothing happens, and an engine may take its time


class NoState(ValueError):
    """The duty has written no report, or a garbled one; the message says why."""


def is_wanted() -> bool:
    """Return True if this node's agent shall be in a cluster. Raise ValueError for its settings."""
    return bool(agent_settings.read().cluster)


def read() -> dict[str, Any]:
    """Return the duty's report. Raise NoState."""
    try:
        found = report.read()
        if found is not None:
            _check(found)
    except IOFailure as error:
        raise NoState(f"{error}; run the command as root") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NoState(f"{report.PATH} is garbled: {error}; restart the agent, which writes it anew") from None
    if found is None:
        raise NoState(_explain_absence())
    return found


def _check(found: Mapping[str, Any]) -> None:
    """Raise ValueError, TypeError, KeyError or AttributeError if a report lacks a value that commands need."""
    for key in ("since", "updated"):
        float(found[key])
    for network in found["networks"].values():
        _ = [(one["cidr"], one["state"], one["used"], one["free"], one["isPublished"]) for one in network["ranges"]]


def _explain_absence() -> str:
    try:
        if not is_wanted():
            return f'this node is in no cluster: {agent_settings.PATH} has no "cluster": true'
    except ValueError as error:
        return f"this node is in no cluster, as the agent cannot read its settings: {error}"
    return (
        f"the agent has not looked at the cluster yet ({report.PATH} is missing): start it with"
        " `systemctl start pycni-agent`, or see its log with `journalctl -u pycni-agent`"
    )


def age(state: Mapping[str, Any]) -> float:
    """Return the seconds since the duty looked last."""
    return max(0.0, time.time() - float(state["updated"]))


def is_stale(state: Mapping[str, Any]) -> bool:
    """Return True if the duty has ended, or hangs."""
    return age(state) > STALE_SECONDS
