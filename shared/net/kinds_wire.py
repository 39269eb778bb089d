"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""

# ruff: noqa
# fmt: off
from __future__ import annotations



# message type: structure

MESSAGES: dict[int, str] = {}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_info_data_macvlan: dict[str, tuple[int, str]] = {
    "IFLA_MACVLAN_MODE": (1, "u32"), "IFLA_MACVLAN_BC_QUEUE_LEN": (7, "u32"),
}

STRUCTURES["info_data/macvlan"] = ((), "", _info_data_macvlan)

_info_data_ipvlan: dict[str, tuple[int, str]] = {
    "IFLA_IPVLAN_MODE": (1, "u16"), "IFLA_IPVLAN_FLAGS": (2, "u16"),
}

STRUCTURES["info_data/ipvlan"] = ((), "", _info_data_ipvlan)

_info_data_vlan: dict[str, tuple[int, str]] = {
    "IFLA_VLAN_ID": (1, "u16"), "IFLA_VLAN_FLAGS": (2, "info_data/vlan/vlan_flags"),
}

STRUCTURES["info_data/vlan"] = ((), "", _info_data_vlan)

_info_data_vlan_vlan_flags: dict[str, tuple[int, str]] = {}

STRUCTURES["info_data/vlan/vlan_flags"] = (("flags", "mask"), "=II", _info_data_vlan_vlan_flags)

_info_data_vrf: dict[str, tuple[int, str]] = {
    "IFLA_VRF_TABLE": (1, "u32"),
}

STRUCTURES["info_data/vrf"] = ((), "", _info_data_vrf)
