"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""

# ruff: noqa
# fmt: off
from __future__ import annotations

RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30
RTM_NEWNEIGHTBL = 64
RTM_GETNEIGHTBL = 66
NUD_PERMANENT = 128

# message type: structure

MESSAGES: dict[int, str] = {
    28: "neighbour", 29: "neighbour", 30: "neighbour",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_neighbour: dict[str, tuple[int, str]] = {
    "NDA_DST": (1, "ip"), "NDA_LLADDR": (2, "l2addr"),
}

STRUCTURES["neighbour"] = (("family", "ifindex", "state", "flags", "ndm_type"), "=B3xiHBB", _neighbour)
