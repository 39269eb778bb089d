"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""

# ruff: noqa
# fmt: off
from __future__ import annotations

RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34
FR_ACT_TO_TBL = 1

# message type: structure

MESSAGES: dict[int, str] = {
    32: "fib_rule", 33: "fib_rule", 34: "fib_rule",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_fib_rule: dict[str, tuple[int, str]] = {
    "FRA_SRC": (2, "ip"), "FRA_PRIORITY": (6, "u32"), "FRA_TABLE": (15, "u32"),
}

STRUCTURES["fib_rule"] = (("family", "dst_len", "src_len", "tos", "table", "res1", "res2", "action", "flags"), "=BBBBBBBBI", _fib_rule)
