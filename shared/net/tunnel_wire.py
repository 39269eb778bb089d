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
NTF_SELF = 2

# message type: structure

MESSAGES: dict[int, str] = {
    28: "entry", 29: "entry", 30: "entry", 64: "limits", 66: "limits",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_entry: dict[str, tuple[int, str]] = {
    "NDA_DST": (1, "ip"), "NDA_LLADDR": (2, "l2addr"), "NDA_IFINDEX": (8, "u32"), "NDA_PROTOCOL": (12, "u8"),
}

STRUCTURES["entry"] = (("family", "ifindex", "state", "flags", "ndm_type"), "=B3xiHBB", _entry)

_limits: dict[str, tuple[int, str]] = {
    "NDTA_NAME": (1, "asciiz"), "NDTA_THRESH3": (4, "u32"),
}

STRUCTURES["limits"] = (("family",), "=B3x", _limits)

_info_data_vxlan: dict[str, tuple[int, str]] = {
    "IFLA_VXLAN_ID": (1, "u32"), "IFLA_VXLAN_LOCAL": (4, "ip"), "IFLA_VXLAN_LEARNING": (7, "u8"),
    "IFLA_VXLAN_PORT": (15, "be16"), "IFLA_VXLAN_LOCAL6": (17, "ip"),
}

STRUCTURES["info_data/vxlan"] = ((), "", _info_data_vxlan)
