"""Write the executable tier's netlink tables, a file per protocol, from pyroute2's message classes.

pyroute2 is the schema: no attribute number is typed by hand. After raising pyroute2's version, run `python -m
shared.build.wire_tables` in the development environment. A test regenerates the tables and compares.
"""

from __future__ import annotations

import socket
from pathlib import Path
from types import ModuleType

from pyroute2 import netlink
from pyroute2.netlink import nfnetlink, rtnl
from pyroute2.netlink.generic import wireguard
from pyroute2.netlink.nfnetlink import nfctsocket, nftsocket
from pyroute2.netlink.rtnl import fibmsg, ifaddrmsg, ifinfmsg, ndmsg, ndtmsg, nsidmsg, rtmsg, tcmsg
from pyroute2.netlink.rtnl.tcmsg import act_mirred, cls_u32, sched_htb, sched_tbf
from pyroute2.netlink.rtnl.tcmsg.common import tc_actions

from shared.build.spoken import SPOKEN, SPOKEN_OF_DEVICES, SPOKEN_OF_TUNNELS, SPOKEN_OF_WIREGUARD
from shared.build.structures import EXPRESSION, ByHand, ByKind, Tables

LINE_WIDTH = 118
TREE = Path(__file__).resolve().parents[2]

# The messages of the suite, by their names in the tables; nested structures follow from them. Each call loads the
# tables, so that they contain nothing else.
Messages = dict[str, tuple[type, tuple[str, ...]]]
ROUTE_MESSAGES: Messages = {
    "link": (ifinfmsg.ifinfmsg, ("RTM_NEWLINK", "RTM_DELLINK", "RTM_GETLINK", "RTM_SETLINK")),
    "address": (ifaddrmsg.ifaddrmsg, ("RTM_NEWADDR", "RTM_DELADDR", "RTM_GETADDR")),
    "route": (rtmsg.rtmsg, ("RTM_NEWROUTE", "RTM_DELROUTE", "RTM_GETROUTE")),
    "nsid": (nsidmsg.nsidmsg, ("RTM_NEWNSID", "RTM_GETNSID")),
    # of nf_tables: a call without packet filters asks with it whether there are any
    "nft_table": (nftsocket.nft_table_msg, ("NFT_MSG_NEWTABLE", "NFT_MSG_GETTABLE")),
}
# of links that host-device moves and of taps: a few calls need more of a link than all others
DEVICE_MESSAGES: Messages = {
    "device": (ifinfmsg.ifinfmsg, ("RTM_NEWLINK", "RTM_GETLINK", "RTM_SETLINK", "RTM_NEWLINKPROP", "RTM_DELLINKPROP")),
    "tun": (ifinfmsg.ifinfmsg.ifinfo.data_map["tun"], ()),
}
TC_MESSAGES: Messages = {
    "tc": (
        tcmsg.tcmsg,
        (
            "RTM_NEWQDISC",
            "RTM_DELQDISC",
            "RTM_GETQDISC",
            "RTM_NEWTCLASS",
            "RTM_GETTCLASS",
            "RTM_NEWTFILTER",
            "RTM_DELTFILTER",
            "RTM_GETTFILTER",
        ),
    ),
}
NFT_MESSAGES: Messages = {
    "batch": (nfnetlink.nfgen_msg, ("NFNL_MSG_BATCH_BEGIN", "NFNL_MSG_BATCH_END")),
    "table": (nftsocket.nft_table_msg, ("NFT_MSG_NEWTABLE", "NFT_MSG_GETTABLE")),
    "chain": (nftsocket.nft_chain_msg, ("NFT_MSG_NEWCHAIN", "NFT_MSG_GETCHAIN", "NFT_MSG_DELCHAIN")),
    "rule": (nftsocket.nft_rule_msg, ("NFT_MSG_NEWRULE", "NFT_MSG_GETRULE", "NFT_MSG_DELRULE")),
    "set": (nftsocket.nft_set_msg, ("NFT_MSG_NEWSET", "NFT_MSG_GETSET")),
    "elements": (
        nftsocket.nft_set_elem_list_msg, ("NFT_MSG_NEWSETELEM", "NFT_MSG_GETSETELEM", "NFT_MSG_DELSETELEM"),
    ),
}  # fmt: skip
# Rules that choose a routing table (fib_rules.h)
RULE_MESSAGES: Messages = {"fib_rule": (fibmsg.fibmsg, ("RTM_NEWRULE", "RTM_DELRULE", "RTM_GETRULE"))}
NEIGHBOUR_MESSAGES: Messages = {"neighbour": (ndmsg.ndmsg, ("RTM_NEWNEIGH", "RTM_DELNEIGH", "RTM_GETNEIGH"))}
# The tunnels between the nodes of a cluster: their entries for peers, and the limits of neighbour tables
TUNNEL_MESSAGES: Messages = {
    "entry": (ndmsg.ndmsg, ("RTM_NEWNEIGH", "RTM_DELNEIGH", "RTM_GETNEIGH")),
    "limits": (ndtmsg.ndtmsg, ("RTM_NEWNEIGHTBL", "RTM_GETNEIGHTBL")),
}
# Generic netlink: the kernel gives the family wireguard its number when it is loaded, so that MESSAGES lacks it.
WIREGUARD_MESSAGES: Messages = {
    "family": (netlink.ctrlmsg, ("GENL_ID_CTRL",)),
    "wireguard": (wireguard.wgmsg, ()),
}
# The IFLA_INFO_DATA of links that a plugin makes on top of another link: few calls need it.
KINDS = ("macvlan", "ipvlan", "vlan", "vrf")
CONNTRACK_MESSAGES: Messages = {
    "conntrack": (nfctsocket.nfct_msg, ("IPCTNL_MSG_CT_NEW", "IPCTNL_MSG_CT_GET", "IPCTNL_MSG_CT_DELETE")),
}
# Expressions of rules whose NFTA_EXPR_DATA is spoken.
RULE_EXPRESSIONS = (
    "bitwise", "cmp", "ct", "fib", "immediate", "lookup", "masq", "meta", "nat", "payload", "range",
)  # fmt: skip

Constants = tuple[tuple[ModuleType, tuple[str, ...]], ...]
ROUTE_CONSTANTS: Constants = (
    (socket, ("AF_UNSPEC", "AF_INET", "AF_INET6")),
    (netlink, ("NLM_F_", "NLMSG_", "NLA_F_", "NETLINK_ROUTE", "NETLINK_NETFILTER",
               "NETLINK_EXT_ACK", "NETLINK_GET_STRICT_CHK")),
    (rtnl, ("RTM_", "RTNLGRP_LINK", "RTNLGRP_IPV4_IFADDR", "RTNLGRP_IPV6_IFADDR", "RTNLGRP_IPV6_ROUTE")),
    (ifinfmsg, ("IFF_",)),
    (ifaddrmsg, ("IFA_F_",)),
    (rtmsg, ("RTNH_F_", "RT_SCOPE_")),
    (nftsocket, ("NFPROTO_INET", "NFPROTO_IPV4", "NFPROTO_IPV6", "NFPROTO_BRIDGE")),
)  # fmt: skip

NFT_CONSTANTS: Constants = (
    (nfnetlink, ("NFNL_SUBSYS_NFTABLES",)),
    (nftsocket, ("NFPROTO_", "DATA_TYPE_IPADDR", "DATA_TYPE_IP6ADDR", "DATA_TYPE_ETHERADDR", "DATA_TYPE_INET_PROTOCOL",
                 "DATA_TYPE_INET_SERVICE", "DATA_TYPE_MARK", "DATA_TYPE_IFNAME")),
    (nfctsocket, ("IPS_SRC_NAT", "IPS_DST_NAT")),
)  # fmt: skip
CONNTRACK_CONSTANTS: Constants = ((nfctsocket, ("FILTER_FLAG_CTA_PROTO_NUM", "FILTER_FLAG_CTA_PROTO_DST_PORT")),)
RULE_CONSTANTS: Constants = ((rtnl, RULE_MESSAGES["fib_rule"][1]),)
NEIGHBOUR_CONSTANTS: Constants = ((rtnl, NEIGHBOUR_MESSAGES["neighbour"][1]), (ndmsg, ("NUD_PERMANENT",)))
TUNNEL_CONSTANTS: Constants = (*NEIGHBOUR_CONSTANTS, (ndmsg, ("NTF_SELF",)))
WIREGUARD_CONSTANTS: Constants = (
    (netlink, ("NETLINK_GENERIC", "GENL_ID_CTRL", "CTRL_CMD_GETFAMILY")),
    (wireguard, ("WG_CMD_", "WG_GENL_VERSION", "WG_KEY_LEN", "WGPEER_F_")),
)
DEVICE_CONSTANTS: Constants = ((rtnl, DEVICE_MESSAGES["device"][1]),)
TC_CONSTANTS: Constants = ((rtnl, (*TC_MESSAGES["tc"][1], "TC_H_ROOT", "TC_H_INGRESS", "TC_H_CLSACT")),)
_expression = EXPRESSION
# Numbers that pyroute2 keeps inside a class, by name or as a name's value.
NFT_NAMED: tuple[tuple[dict[int, str], tuple[str, ...]], ...] = (
    ({number.value: number.name for number in nftsocket.Cmp}, ("NFT_CMP_",)),
    ({number.value: number.name for number in nftsocket.Regs}, ("NFT_REG_VERDICT", "NFT_REG32_00")),
    ({number.value: number.name for number in nftsocket.Meta},
     ("NFT_META_PROTOCOL", "NFT_META_MARK", "NFT_META_IIFNAME", "NFT_META_OIFNAME", "NFT_META_NFPROTO",
      "NFT_META_L4PROTO", "NFT_META_PKTTYPE", "NFT_META_PRIORITY", "NFT_META_IIFKIND")),
    (nftsocket.nft_data.nfta_data.verdict.verdict_code.ops,
     ("NF_DROP", "NF_ACCEPT", "NFT_JUMP", "NFT_GOTO", "NFT_RETURN")),
    (_expression.nft_payload.base_type.ops, ("NFT_PAYLOAD_",)),
    (_expression.nft_ct.keys.ops, ("NFT_CT_STATE", "NFT_CT_DIRECTION", "NFT_CT_STATUS", "NFT_CT_LABELS")),
    (_expression.nft_nat.types.ops, ("NFT_NAT_",)),
    (_expression.nft_range.range_op.ops, ("NFT_RANGE_",)),
    (dict(enumerate(nftsocket.nft_set_elem_list_msg.set_elem.set_elem_udata.udata_types)),
     ("NFTNL_UDATA_SET_ELEM_COMMENT",)),
    (dict(enumerate(nftsocket.nft_set_msg.set_udata.udata_types)), ("NFTNL_UDATA_SET_KEYBYTEORDER",)),
    # flags: the place is the bit
    ({1 << bit: name for bit, name in enumerate(nftsocket.nft_set_msg.set_flags.ops)}, ("NFT_SET_MAP",)),
    ({1 << bit: name for bit, name in enumerate(_expression.nft_lookup.lookup_flags.ops)}, ("NFT_LOOKUP_F_INV",)),
)  # fmt: skip
# From the kernel's headers: numbers that pyroute2 lacks or has wrong. Nothing else is typed by hand.
TC_BY_HAND = {
    # linux/pkt_sched.h: the place of filters for incoming packets, in both kinds of qdisc that have one
    "TC_H_MIN_INGRESS": 0xFFF2,
    # linux/pkt_cls.h: a match ends the classification
    "TC_U32_TERMINAL": 1,
    # linux/if_ether.h
    "ETH_P_ALL": 3, "ETH_P_IP": 0x0800, "ETH_P_IPV6": 0x86DD,
}  # fmt: skip
_info_data = ifinfmsg.ifinfmsg.ifinfo.data_map
ATTRIBUTES_BY_HAND: ByHand = {
    # linux/pkt_sched.h: rates beyond 32 bits, and the burst in bytes
    sched_tbf.options: ((4, "TCA_TBF_RATE64", "uint64"), (6, "TCA_TBF_BURST", "uint32")),
    # linux/if_link.h: struct br_boolopt_multi, bits and which of them to set; the limit of learned MACs (Linux 6.8)
    _info_data["bridge"]: ((46, "IFLA_BR_MULTI_BOOLOPT", "hex"), (49, "IFLA_BR_FDB_MAX_LEARNED", "uint32")),
    # the same: the packets that wait for broadcast (Linux 5.12); the flags private and vepa
    _info_data["macvlan"]: ((7, "IFLA_MACVLAN_BC_QUEUE_LEN", "uint32"),),
    _info_data["ipvlan"]: ((2, "IFLA_IPVLAN_FLAGS", "uint16"),),
}
ROUTE_BY_HAND = {
    # linux/if_bridge.h: the place of a bit
    "BR_BOOLOPT_NO_LL_LEARN": 0,
}
RULE_BY_HAND = {
    # linux/fib_rules.h: the action that looks up a table
    "FR_ACT_TO_TBL": 1,
}
NFT_BY_HAND = {
    # linux/netfilter/nfnetlink.h: in pyroute2 bare numbers in its code
    "NFNL_MSG_BATCH_BEGIN": 16, "NFNL_MSG_BATCH_END": 17,
    # linux/netfilter.h: the hooks of base chains; those of a bridge table have the same numbers
    "NF_INET_PRE_ROUTING": 0, "NF_INET_LOCAL_IN": 1, "NF_INET_FORWARD": 2, "NF_INET_LOCAL_OUT": 3,
    "NF_INET_POST_ROUTING": 4,
    # linux/netfilter_ipv4.h, linux/netfilter_bridge.h: base chains' places among those of the hook
    "NF_IP_PRI_RAW": -300, "NF_IP_PRI_CONNTRACK": -200, "NF_IP_PRI_NAT_DST": -100, "NF_IP_PRI_FILTER": 0,
    "NF_IP_PRI_NAT_SRC": 100,
    "NF_BR_PRI_FILTER_BRIDGED": -200, "NF_BR_PRI_NAT_DST_BRIDGED": -300,
    # linux/if_packet.h: the type of a frame to this host
    "PACKET_HOST": 0,
    # linux/netfilter/nf_tables.h: the type of a verdict map's values
    "NFT_DATA_VERDICT": 0xFFFFFF00,
    # the same: pyroute2 takes fib's result for a set of flags, and its flags for a number
    "NFT_FIB_RESULT_ADDRTYPE": 3, "NFTA_FIB_F_SADDR": 1, "NFTA_FIB_F_DADDR": 2,
    # linux/netfilter/nf_conntrack_common.h: NF_CT_STATE_INVALID_BIT and NF_CT_STATE_BIT() of the others
    "NF_CT_STATE_INVALID": 1, "NF_CT_STATE_ESTABLISHED": 2, "NF_CT_STATE_RELATED": 4, "NF_CT_STATE_NEW": 8,
}  # fmt: skip

# Attributes with a layout that depends on an attribute before them: the codec's name for their kind, and the layouts
# that the suite uses; others stay bytes.
BY_KIND: ByKind = {
    "IFLA_INFO_DATA": ("info_data", {kind: ifinfmsg.ifinfmsg.ifinfo.data_map[kind] for kind in ("bridge", "veth")}),
    "IFLA_INFO_SLAVE_DATA": ("info_slave_data", {"bridge": ifinfmsg.ifinfmsg.ifinfo.bridge_slave_data}),
    "IFLA_AF_SPEC": ("af_spec", {"bridge": ifinfmsg.ifinfmsg.af_spec_bridge, "inet": ifinfmsg.ifinfmsg.af_spec_inet}),
    "TCA_OPTIONS": ("tc_options", {"htb": sched_htb.options, "tbf": sched_tbf.options, "u32": cls_u32.options}),
    "TCA_ACT_OPTIONS": ("act_options", {"mirred": act_mirred.options}),
    "NFTA_EXPR_DATA": ("expr", {name: getattr(_expression, f"nft_{name}") for name in RULE_EXPRESSIONS}),
}


def _found(sources: Constants) -> dict[str, int]:
    found: dict[str, int] = {}
    for module, prefixes in sources:
        for name, value in vars(module).items():
            if name.startswith(prefixes) and isinstance(value, int):
                found.setdefault(name, int(value))
    return found


def _route_constants() -> dict[str, int]:
    found = _found(ROUTE_CONSTANTS)
    for prefix, names in (("RTN_", rtnl.rt_type), ("RTPROT_", rtnl.rt_proto)):
        found.update({f"{prefix}{name.upper()}": int(value) for name, value in names.items() if isinstance(name, str)})
    found["AF_BRIDGE"] = 7  # absent from Python's socket module on some platforms
    for flag in ("MASTER", "PVID", "UNTAGGED", "RANGE_BEGIN", "RANGE_END"):
        found[f"BRIDGE_VLAN_INFO_{flag}"] = ifinfmsg.BRIDGE_VLAN_NAMES[f"BRIDGE_VLAN_INFO_{flag}"]
    return {**found, **_nft_kinds(ROUTE_MESSAGES), **ROUTE_BY_HAND}


def _tc_constants() -> dict[str, int]:
    redirect = {"TCA_EGRESS_REDIR": act_mirred.MIRRED_EACTIONS["egress", "redirect"]}
    return {**_found(TC_CONSTANTS), **redirect, "TC_ACT_STOLEN": tc_actions["stolen"], **TC_BY_HAND}


def _nft_constants() -> dict[str, int]:
    found = {**_found(NFT_CONSTANTS), **_nft_kinds(NFT_MESSAGES)}
    for names, prefixes in NFT_NAMED:
        found.update({name: int(value) for value, name in names.items() if name.startswith(prefixes)})
    return {**found, **NFT_BY_HAND}


def _nft_kinds(messages: Messages) -> dict[str, int]:
    """Return message types combined with their subsystem, as in nlmsg_type."""
    return {
        kind: nfnetlink.NFNL_SUBSYS_NFTABLES << 8 | getattr(nftsocket, kind)
        for _, kinds in messages.values()
        for kind in kinds
        if kind.startswith("NFT_MSG_")
    }


def _conntrack_constants() -> dict[str, int]:
    found = _found(CONNTRACK_CONSTANTS)
    for _, kinds in CONNTRACK_MESSAGES.values():
        found.update({kind: nfnetlink.NFNL_SUBSYS_CTNETLINK << 8 | getattr(nfctsocket, kind) for kind in kinds})
    return found


def _dict(name: str, annotation: str, rows: list[str]) -> str:
    if not rows:
        return f"{name}: {annotation} = {{}}"
    lines, line = [], "   "
    for row in rows:
        if len(line) + len(row) + 2 > LINE_WIDTH:
            lines.append(line)
            line = "   "
        line += f" {row},"
    return "\n".join([f"{name}: {annotation} = {{", *lines, line, "}"])


def _text(
    messages: Messages, constants: dict[str, int], kinds: tuple[str, ...] = (), *, spoken: frozenset[str] = SPOKEN
) -> str:
    tables = Tables(spoken, ATTRIBUTES_BY_HAND, BY_KIND)
    for name, (message, _) in messages.items():
        tables.add(name, message)
    for kind in kinds:
        tables.add(f"info_data/{kind}", _info_data[kind])
    parts = [
        '"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""',
        "# ruff: noqa\n# fmt: off\nfrom __future__ import annotations",
        "\n".join(f"{name} = {value}" for name, value in constants.items()),
        "# message type: structure",
        _dict("MESSAGES", "dict[int, str]",
              [f'{constants[kind]}: "{name}"' for name, (_, kinds) in messages.items() for kind in kinds]),
        "# structure: names of the header's fields, its layout for struct, attributes (number, kind)",
        "STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}",
    ]  # fmt: skip
    for name, (names, layout, attributes) in tables.structures.items():
        rows = [f'"{attribute}": ({number}, "{kind}")' for attribute, (number, kind) in attributes.items()]
        variable = f"_{name.replace('/', '_')}"
        kind = "dict[str, tuple[int, str]]"
        parts.append(_dict(variable, kind, rows))
        parts.append(f'STRUCTURES["{name}"] = ({names!r}, "{layout}", {variable})'.replace("'", '"'))
    return "\n\n".join(parts) + "\n"


def generate() -> dict[str, str]:
    """Return the generated files: path in the tree, and text."""
    return {
        "shared/net/wire.py": _text(ROUTE_MESSAGES, _route_constants()),
        "shared/net/device_wire.py": _text(DEVICE_MESSAGES, _found(DEVICE_CONSTANTS), spoken=SPOKEN_OF_DEVICES),
        "shared/net/kinds_wire.py": _text({}, {}, KINDS),
        "shared/net/rule_wire.py": _text(RULE_MESSAGES, {**_found(RULE_CONSTANTS), **RULE_BY_HAND}),
        "shared/net/neighbour_wire.py": _text(NEIGHBOUR_MESSAGES, _found(NEIGHBOUR_CONSTANTS)),
        "shared/net/tunnel_wire.py": _text(
            TUNNEL_MESSAGES, _found(TUNNEL_CONSTANTS), ("vxlan",), spoken=SPOKEN_OF_TUNNELS
        ),
        "shared/net/wireguard_wire.py": _text(
            WIREGUARD_MESSAGES, _found(WIREGUARD_CONSTANTS), spoken=SPOKEN_OF_WIREGUARD
        ),
        "shared/net/tc_wire.py": _text(TC_MESSAGES, _tc_constants()),
        "shared/nft/wire.py": _text(NFT_MESSAGES, _nft_constants()),
        "shared/nft/conntrack_wire.py": _text(CONNTRACK_MESSAGES, _conntrack_constants()),
    }


if __name__ == "__main__":
    for path, text in generate().items():
        (TREE / path).write_text(text, encoding="utf-8")
