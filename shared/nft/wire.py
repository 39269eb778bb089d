"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""

# ruff: noqa
# fmt: off
from __future__ import annotations

NFNL_SUBSYS_NFTABLES = 10
DATA_TYPE_IPADDR = 7
DATA_TYPE_IP6ADDR = 8
DATA_TYPE_ETHERADDR = 9
DATA_TYPE_INET_PROTOCOL = 12
DATA_TYPE_INET_SERVICE = 13
DATA_TYPE_MARK = 19
DATA_TYPE_IFNAME = 41
NFPROTO_INET = 1
NFPROTO_IPV4 = 2
NFPROTO_ARP = 3
NFPROTO_NETDEV = 5
NFPROTO_BRIDGE = 7
NFPROTO_IPV6 = 10
IPS_SRC_NAT = 16
IPS_DST_NAT = 32
IPS_SRC_NAT_DONE = 128
IPS_DST_NAT_DONE = 256
NFT_MSG_NEWTABLE = 2560
NFT_MSG_GETTABLE = 2561
NFT_MSG_NEWCHAIN = 2563
NFT_MSG_GETCHAIN = 2564
NFT_MSG_DELCHAIN = 2565
NFT_MSG_NEWRULE = 2566
NFT_MSG_GETRULE = 2567
NFT_MSG_DELRULE = 2568
NFT_MSG_NEWSET = 2569
NFT_MSG_GETSET = 2570
NFT_MSG_NEWSETELEM = 2572
NFT_MSG_GETSETELEM = 2573
NFT_MSG_DELSETELEM = 2574
NFT_CMP_EQ = 0
NFT_CMP_NEQ = 1
NFT_CMP_LT = 2
NFT_CMP_LTE = 3
NFT_CMP_GT = 4
NFT_CMP_GTE = 5
NFT_REG_VERDICT = 0
NFT_REG32_00 = 8
NFT_META_PROTOCOL = 1
NFT_META_PRIORITY = 2
NFT_META_MARK = 3
NFT_META_IIFNAME = 6
NFT_META_OIFNAME = 7
NFT_META_NFPROTO = 15
NFT_META_L4PROTO = 16
NFT_META_PKTTYPE = 19
NFT_META_IIFKIND = 26
NF_DROP = 0
NF_ACCEPT = 1
NFT_JUMP = -3
NFT_GOTO = -4
NFT_RETURN = -5
NFT_PAYLOAD_LL_HEADER = 0
NFT_PAYLOAD_NETWORK_HEADER = 1
NFT_PAYLOAD_TRANSPORT_HEADER = 2
NFT_CT_STATE = 0
NFT_CT_DIRECTION = 1
NFT_CT_STATUS = 2
NFT_CT_LABELS = 13
NFT_NAT_SNAT = 0
NFT_NAT_DNAT = 1
NFT_RANGE_EQ = 0
NFT_RANGE_NEQ = 1
NFTNL_UDATA_SET_ELEM_COMMENT = 0
NFTNL_UDATA_SET_KEYBYTEORDER = 0
NFT_SET_MAP = 8
NFT_LOOKUP_F_INV = 1
NFNL_MSG_BATCH_BEGIN = 16
NFNL_MSG_BATCH_END = 17
NF_INET_PRE_ROUTING = 0
NF_INET_LOCAL_IN = 1
NF_INET_FORWARD = 2
NF_INET_LOCAL_OUT = 3
NF_INET_POST_ROUTING = 4
NF_IP_PRI_RAW = -300
NF_IP_PRI_CONNTRACK = -200
NF_IP_PRI_NAT_DST = -100
NF_IP_PRI_FILTER = 0
NF_IP_PRI_NAT_SRC = 100
NF_BR_PRI_FILTER_BRIDGED = -200
NF_BR_PRI_NAT_DST_BRIDGED = -300
PACKET_HOST = 0
NFT_DATA_VERDICT = 4294967040
NFT_FIB_RESULT_ADDRTYPE = 3
NFTA_FIB_F_SADDR = 1
NFTA_FIB_F_DADDR = 2
NF_CT_STATE_INVALID = 1
NF_CT_STATE_ESTABLISHED = 2
NF_CT_STATE_RELATED = 4
NF_CT_STATE_NEW = 8

# message type: structure

MESSAGES: dict[int, str] = {
    16: "batch", 17: "batch", 2560: "table", 2561: "table", 2563: "chain", 2564: "chain", 2565: "chain", 2566: "rule",
    2567: "rule", 2568: "rule", 2569: "set", 2570: "set", 2572: "elements", 2573: "elements", 2574: "elements",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_batch: dict[str, tuple[int, str]] = {}

STRUCTURES["batch"] = (("nfgen_family", "version", "res_id"), ">BBH", _batch)

_table: dict[str, tuple[int, str]] = {
    "NFTA_TABLE_NAME": (1, "asciiz"),
}

STRUCTURES["table"] = (("nfgen_family", "version", "res_id"), ">BBH", _table)

_chain: dict[str, tuple[int, str]] = {
    "NFTA_CHAIN_TABLE": (1, "asciiz"), "NFTA_CHAIN_NAME": (3, "asciiz"), "NFTA_CHAIN_HOOK": (4, "chain/hook"),
    "NFTA_CHAIN_POLICY": (5, "be32"), "NFTA_CHAIN_USE": (6, "be32"), "NFTA_CHAIN_TYPE": (7, "asciiz"),
}

STRUCTURES["chain"] = (("nfgen_family", "version", "res_id"), ">BBH", _chain)

_chain_hook: dict[str, tuple[int, str]] = {
    "NFTA_HOOK_HOOKNUM": (1, "be32"), "NFTA_HOOK_PRIORITY": (2, "sbe32"),
}

STRUCTURES["chain/hook"] = ((), "", _chain_hook)

_rule: dict[str, tuple[int, str]] = {
    "NFTA_RULE_TABLE": (1, "asciiz"), "NFTA_RULE_CHAIN": (2, "asciiz"), "NFTA_RULE_HANDLE": (3, "be64"),
    "NFTA_RULE_EXPRESSIONS": (4, "bytes"), "NFTA_RULE_USERDATA": (7, "bytes"),
}

STRUCTURES["rule"] = (("nfgen_family", "version", "res_id"), ">BBH", _rule)

_expressions_nft_expr: dict[str, tuple[int, str]] = {
    "NFTA_EXPR_NAME": (1, "asciiz"), "NFTA_EXPR_DATA": (2, "expr"),
}

STRUCTURES["expressions/nft_expr"] = ((), "", _expressions_nft_expr)

_expr_bitwise: dict[str, tuple[int, str]] = {
    "NFTA_BITWISE_SREG": (1, "be32"), "NFTA_BITWISE_DREG": (2, "be32"), "NFTA_BITWISE_LEN": (3, "be32"),
    "NFTA_BITWISE_MASK": (4, "data"), "NFTA_BITWISE_XOR": (5, "data"),
}

STRUCTURES["expr/bitwise"] = ((), "", _expr_bitwise)

_data: dict[str, tuple[int, str]] = {
    "NFTA_DATA_VALUE": (1, "bytes"), "NFTA_DATA_VERDICT": (2, "data/verdict"),
}

STRUCTURES["data"] = ((), "", _data)

_data_verdict: dict[str, tuple[int, str]] = {
    "NFTA_VERDICT_CODE": (1, "sbe32"), "NFTA_VERDICT_CHAIN": (2, "asciiz"),
}

STRUCTURES["data/verdict"] = ((), "", _data_verdict)

_expr_cmp: dict[str, tuple[int, str]] = {
    "NFTA_CMP_SREG": (1, "be32"), "NFTA_CMP_OP": (2, "be32"), "NFTA_CMP_DATA": (3, "data"),
}

STRUCTURES["expr/cmp"] = ((), "", _expr_cmp)

_expr_ct: dict[str, tuple[int, str]] = {
    "NFTA_CT_DREG": (1, "be32"), "NFTA_CT_KEY": (2, "be32"), "NFTA_CT_SREG": (4, "be32"),
}

STRUCTURES["expr/ct"] = ((), "", _expr_ct)

_expr_fib: dict[str, tuple[int, str]] = {
    "NFTA_FIB_DREG": (1, "be32"), "NFTA_FIB_RESULT": (2, "be32"), "NFTA_FIB_FLAGS": (3, "be32"),
}

STRUCTURES["expr/fib"] = ((), "", _expr_fib)

_expr_immediate: dict[str, tuple[int, str]] = {
    "NFTA_IMMEDIATE_DREG": (1, "be32"), "NFTA_IMMEDIATE_DATA": (2, "data"),
}

STRUCTURES["expr/immediate"] = ((), "", _expr_immediate)

_expr_lookup: dict[str, tuple[int, str]] = {
    "NFTA_LOOKUP_SET": (1, "asciiz"), "NFTA_LOOKUP_SREG": (2, "be32"), "NFTA_LOOKUP_DREG": (3, "be32"),
    "NFTA_LOOKUP_FLAGS": (5, "be32"),
}

STRUCTURES["expr/lookup"] = ((), "", _expr_lookup)

_expr_masq: dict[str, tuple[int, str]] = {}

STRUCTURES["expr/masq"] = ((), "", _expr_masq)

_expr_meta: dict[str, tuple[int, str]] = {
    "NFTA_META_DREG": (1, "be32"), "NFTA_META_KEY": (2, "be32"), "NFTA_META_SREG": (3, "be32"),
}

STRUCTURES["expr/meta"] = ((), "", _expr_meta)

_expr_nat: dict[str, tuple[int, str]] = {
    "NFTA_NAT_TYPE": (1, "be32"), "NFTA_NAT_FAMILY": (2, "be32"), "NFTA_NAT_REG_ADDR_MIN": (3, "be32"),
    "NFTA_NAT_REG_PROTO_MIN": (5, "be32"),
}

STRUCTURES["expr/nat"] = ((), "", _expr_nat)

_expr_payload: dict[str, tuple[int, str]] = {
    "NFTA_PAYLOAD_DREG": (1, "be32"), "NFTA_PAYLOAD_BASE": (2, "be32"), "NFTA_PAYLOAD_OFFSET": (3, "be32"),
    "NFTA_PAYLOAD_LEN": (4, "be32"),
}

STRUCTURES["expr/payload"] = ((), "", _expr_payload)

_expr_range: dict[str, tuple[int, str]] = {
    "NFTA_RANGE_SREG": (1, "be32"), "NFTA_RANGE_OP": (2, "be32"), "NFTA_RANGE_FROM_DATA": (3, "data"),
    "NFTA_RANGE_TO_DATA": (4, "data"),
}

STRUCTURES["expr/range"] = ((), "", _expr_range)

_expressions: dict[str, tuple[int, str]] = {
    "NFTA_LIST_ELEM": (1, "expressions/nft_expr"),
}

STRUCTURES["expressions"] = ((), "", _expressions)

_set: dict[str, tuple[int, str]] = {
    "NFTA_SET_TABLE": (1, "asciiz"), "NFTA_SET_NAME": (2, "asciiz"), "NFTA_SET_FLAGS": (3, "be32"),
    "NFTA_SET_KEY_TYPE": (4, "be32"), "NFTA_SET_KEY_LEN": (5, "be32"), "NFTA_SET_DATA_TYPE": (6, "be32"),
    "NFTA_SET_DATA_LEN": (7, "be32"), "NFTA_SET_ID": (10, "be32"), "NFTA_SET_USERDATA": (13, "bytes"),
}

STRUCTURES["set"] = (("nfgen_family", "version", "res_id"), ">BBH", _set)

_elements: dict[str, tuple[int, str]] = {
    "NFTA_SET_ELEM_LIST_TABLE": (1, "asciiz"), "NFTA_SET_ELEM_LIST_SET": (2, "asciiz"),
    "NFTA_SET_ELEM_LIST_ELEMENTS": (3, "elements/list"),
}

STRUCTURES["elements"] = (("nfgen_family", "version", "res_id"), ">BBH", _elements)

_elements_list_set_elem: dict[str, tuple[int, str]] = {
    "NFTA_SET_ELEM_KEY": (1, "data"), "NFTA_SET_ELEM_DATA": (2, "data"), "NFTA_SET_ELEM_USERDATA": (6, "bytes"),
}

STRUCTURES["elements/list/set_elem"] = ((), "", _elements_list_set_elem)

_elements_list: dict[str, tuple[int, str]] = {
    "NFTA_LIST_ELEM": (1, "elements/list/set_elem"),
}

STRUCTURES["elements/list"] = ((), "", _elements_list)
