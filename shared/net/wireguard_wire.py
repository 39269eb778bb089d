"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""

# ruff: noqa
# fmt: off
from __future__ import annotations

GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
NETLINK_GENERIC = 16
WG_GENL_VERSION = 1
WG_KEY_LEN = 32
WG_CMD_GET_DEVICE = 0
WG_CMD_SET_DEVICE = 1
WGPEER_F_REMOVE_ME = 1
WGPEER_F_REPLACE_ALLOWEDIPS = 2
WGPEER_F_UPDATE_ONLY = 4

# message type: structure

MESSAGES: dict[int, str] = {
    16: "family",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_family: dict[str, tuple[int, str]] = {
    "CTRL_ATTR_FAMILY_ID": (1, "u16"), "CTRL_ATTR_FAMILY_NAME": (2, "asciiz"),
}

STRUCTURES["family"] = (("cmd", "version", "reserved"), "=BBH", _family)

_wireguard: dict[str, tuple[int, str]] = {
    "WGDEVICE_A_IFNAME": (2, "asciiz"), "WGDEVICE_A_PRIVATE_KEY": (3, "bytes"), "WGDEVICE_A_PUBLIC_KEY": (4, "bytes"),
    "WGDEVICE_A_LISTEN_PORT": (6, "u16"), "WGDEVICE_A_PEERS": (32776, "wireguard/wgdevice_peers"),
}

STRUCTURES["wireguard"] = (("cmd", "version", "reserved"), "=BBH", _wireguard)

_wireguard_wgdevice_peer: dict[str, tuple[int, str]] = {
    "WGPEER_A_PUBLIC_KEY": (1, "bytes"), "WGPEER_A_FLAGS": (3, "u32"), "WGPEER_A_ENDPOINT": (4, "bytes"),
    "WGPEER_A_ALLOWEDIPS": (32777, "wireguard/wgdevice_peer/wgpeer_allowedips"),
}

STRUCTURES["wireguard/wgdevice_peer"] = ((), "", _wireguard_wgdevice_peer)

_wireguard_wgdevice_peer_wgpeer_allowedip: dict[str, tuple[int, str]] = {
    "WGALLOWEDIP_A_FAMILY": (1, "u16"), "WGALLOWEDIP_A_IPADDR": (2, "bytes"), "WGALLOWEDIP_A_CIDR_MASK": (3, "u8"),
}

STRUCTURES["wireguard/wgdevice_peer/wgpeer_allowedip"] = ((), "", _wireguard_wgdevice_peer_wgpeer_allowedip)

_wireguard_wgdevice_peer_wgpeer_allowedips: dict[str, tuple[int, str]] = {
    "WG_ALLOWED_IP": (32768, "wireguard/wgdevice_peer/wgpeer_allowedip"),
}

STRUCTURES["wireguard/wgdevice_peer/wgpeer_allowedips"] = ((), "", _wireguard_wgdevice_peer_wgpeer_allowedips)

_wireguard_wgdevice_peers: dict[str, tuple[int, str]] = {
    "WG_PEER": (32768, "wireguard/wgdevice_peer"),
}

STRUCTURES["wireguard/wgdevice_peers"] = ((), "", _wireguard_wgdevice_peers)
