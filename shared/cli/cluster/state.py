"""Read the cluster duty's own account of this node, which needs no engine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.agent import settings as agent_settings

PATH = Path("/run/pycni/cluster.json")
STALE_SECONDS = 240.0  # the duty looks once a minute if nothing happens, and an engine may take its time


class NoState(ValueError):
    """The duty has written no account, or a garbled one; the message says why."""


def is_wanted() -> bool:
    """Return True if this node's agent shall be in a cluster. Raise ValueError for its settings."""
    return bool(getattr(agent_settings.read(), "cluster", False))


def read(path: Path = PATH) -> dict[str, Any]:
    """Return the duty's account. Raise NoState."""
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        raise NoState(_explain_absence()) from None
    except OSError as error:
        raise NoState(f"{path}: {error.strerror}; run the command as root") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NoState(f"{path} is garbled: {error}; restart the agent, which writes it anew") from None


def _parse(data: bytes) -> dict[str, Any]:
    """Return the account in a file's content. Raise ValueError, TypeError or KeyError."""
    found: dict[str, Any] = json.loads(data)
    for key in ("since", "updated"):
        float(found[key])
    for network in found["networks"].values():
        [one["cidr"] for one in network["ranges"]]
    return found


def _explain_absence() -> str:
    try:
        if not is_wanted():
            return f'this node is in no cluster: {agent_settings.PATH} has no "cluster": true'
    except ValueError as error:
        return f"this node is in no cluster, as the agent cannot read its settings: {error}"
    return (
        f"the agent has not looked at the cluster yet ({PATH} is missing): start it with `systemctl start pycni-agent`,"
        " or see its log with `journalctl -u pycni-agent`"
    )


def age(state: Mapping[str, Any]) -> float:
    """Return the seconds since the duty looked last."""
    return max(0.0, time.time() - float(state["updated"]))


def is_stale(state: Mapping[str, Any]) -> bool:
    """Return True if the duty has ended, or hangs."""
    return age(state) > STALE_SECONDS
