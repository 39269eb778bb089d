"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""

# ruff: noqa
# fmt: off
from __future__ import annotations

FILTER_FLAG_CTA_PROTO_NUM = 8
FILTER_FLAG_CTA_PROTO_DST_PORT = 32
IPCTNL_MSG_CT_NEW = 256
IPCTNL_MSG_CT_GET = 257
IPCTNL_MSG_CT_DELETE = 258

# message type: structure

MESSAGES: dict[int, str] = {
    256: "conntrack", 257: "conntrack", 258: "conntrack",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_conntrack: dict[str, tuple[int, str]] = {
    "CTA_TUPLE_ORIG": (1, "conntrack/cta_tuple"), "CTA_ID": (12, "be32"), "CTA_ZONE": (18, "be16"),
    "CTA_FILTER": (32793, "conntrack/cta_filter"),
}

STRUCTURES["conntrack"] = (("nfgen_family", "version", "res_id"), ">BBH", _conntrack)

_conntrack_cta_tuple: dict[str, tuple[int, str]] = {
    "CTA_TUPLE_IP": (1, "conntrack/cta_tuple/cta_ip"), "CTA_TUPLE_PROTO": (2, "conntrack/cta_tuple/cta_proto"),
}

STRUCTURES["conntrack/cta_tuple"] = ((), "", _conntrack_cta_tuple)

_conntrack_cta_tuple_cta_ip: dict[str, tuple[int, str]] = {
    "CTA_IP_V4_SRC": (1, "ip"), "CTA_IP_V4_DST": (2, "ip"), "CTA_IP_V6_SRC": (3, "ip"), "CTA_IP_V6_DST": (4, "ip"),
}

STRUCTURES["conntrack/cta_tuple/cta_ip"] = ((), "", _conntrack_cta_tuple_cta_ip)

_conntrack_cta_tuple_cta_proto: dict[str, tuple[int, str]] = {
    "CTA_PROTO_NUM": (1, "u8"), "CTA_PROTO_SRC_PORT": (2, "be16"), "CTA_PROTO_DST_PORT": (3, "be16"),
}

STRUCTURES["conntrack/cta_tuple/cta_proto"] = ((), "", _conntrack_cta_tuple_cta_proto)

_conntrack_cta_filter: dict[str, tuple[int, str]] = {
    "CTA_FILTER_ORIG_FLAGS": (1, "u32"),
}

STRUCTURES["conntrack/cta_filter"] = ((), "", _conntrack_cta_filter)
