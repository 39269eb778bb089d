"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""

# ruff: noqa
# fmt: off
from __future__ import annotations

RTM_NEWLINK = 16
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWLINKPROP = 108
RTM_DELLINKPROP = 109
RTM_GETLINKPROP = 110

# message type: structure

MESSAGES: dict[int, str] = {
    16: "device", 18: "device", 19: "device", 108: "device", 109: "device",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_device: dict[str, tuple[int, str]] = {
    "IFLA_ADDRESS": (1, "l2addr"), "IFLA_IFNAME": (3, "asciiz"), "IFLA_MTU": (4, "u32"), "IFLA_MASTER": (10, "u32"),
    "IFLA_TXQLEN": (13, "u32"), "IFLA_LINKINFO": (18, "device/ifinfo"), "IFLA_IFALIAS": (20, "asciiz"),
    "IFLA_NET_NS_FD": (28, "u32"), "IFLA_LINK_NETNSID": (37, "s32"), "IFLA_PHYS_PORT_NAME": (38, "asciiz"),
    "IFLA_PROP_LIST": (32820, "device/proplist"), "IFLA_ALT_IFNAME": (53, "asciiz"),
    "IFLA_PERM_ADDRESS": (54, "bytes"),
}

STRUCTURES["device"] = (("family", "ifi_type", "index", "flags", "change"), "=BxHiII", _device)

_device_ifinfo: dict[str, tuple[int, str]] = {
    "IFLA_INFO_KIND": (1, "asciiz"),
}

STRUCTURES["device/ifinfo"] = ((), "", _device_ifinfo)

_device_proplist: dict[str, tuple[int, str]] = {
    "IFLA_ALT_IFNAME": (53, "asciiz"),
}

STRUCTURES["device/proplist"] = ((), "", _device_proplist)

_tun: dict[str, tuple[int, str]] = {
    "IFLA_TUN_OWNER": (1, "u32"), "IFLA_TUN_GROUP": (2, "u32"), "IFLA_TUN_TYPE": (3, "u8"),
    "IFLA_TUN_PERSIST": (6, "u8"), "IFLA_TUN_MULTI_QUEUE": (7, "u8"),
}

STRUCTURES["tun"] = ((), "", _tun)
