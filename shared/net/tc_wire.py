"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""

# ruff: noqa
# fmt: off
from __future__ import annotations

RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38
RTM_NEWTCLASS = 40
RTM_GETTCLASS = 42
RTM_NEWTFILTER = 44
RTM_DELTFILTER = 45
RTM_GETTFILTER = 46
TC_H_INGRESS = 4294967281
TC_H_CLSACT = 4294967281
TC_H_ROOT = 4294967295
TCA_EGRESS_REDIR = 1
TC_ACT_STOLEN = 4
TC_H_MIN_INGRESS = 65522
TC_U32_TERMINAL = 1
ETH_P_ALL = 3
ETH_P_IP = 2048
ETH_P_IPV6 = 34525

# message type: structure

MESSAGES: dict[int, str] = {
    36: "tc", 37: "tc", 38: "tc", 40: "tc", 42: "tc", 44: "tc", 45: "tc", 46: "tc",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_tc: dict[str, tuple[int, str]] = {
    "TCA_KIND": (1, "asciiz"), "TCA_OPTIONS": (2, "tc_options"),
}

STRUCTURES["tc"] = (("family", "pad1", "pad2", "index", "handle", "parent", "info"), "=BBHiIII", _tc)

_tc_options_htb: dict[str, tuple[int, str]] = {
    "TCA_HTB_PARMS": (1, "tc_options/htb/htb_parms"), "TCA_HTB_INIT": (2, "tc_options/htb/htb_glob"),
    "TCA_HTB_DIRECT_QLEN": (5, "u32"), "TCA_HTB_RATE64": (6, "u64"), "TCA_HTB_CEIL64": (7, "u64"),
}

STRUCTURES["tc_options/htb"] = ((), "", _tc_options_htb)

_tc_options_htb_htb_parms: dict[str, tuple[int, str]] = {}

STRUCTURES["tc_options/htb/htb_parms"] = (("rate_cell_log", "rate___reserved", "rate_overhead", "rate_cell_align", "rate_mpu", "rate", "ceil_cell_log", "ceil___reserved", "ceil_overhead", "ceil_cell_align", "ceil_mpu", "ceil", "buffer", "cbuffer", "quantum", "level", "prio"), "=BBHhHIBBHhHIIIIII", _tc_options_htb_htb_parms)

_tc_options_htb_htb_glob: dict[str, tuple[int, str]] = {}

STRUCTURES["tc_options/htb/htb_glob"] = (("version", "rate2quantum", "defcls", "debug", "direct_pkts"), "=IIIII", _tc_options_htb_htb_glob)

_tc_options_tbf: dict[str, tuple[int, str]] = {
    "TCA_TBF_PARMS": (1, "tc_options/tbf/tbf_parms"), "TCA_TBF_RATE64": (4, "u64"), "TCA_TBF_BURST": (6, "u32"),
}

STRUCTURES["tc_options/tbf"] = ((), "", _tc_options_tbf)

_tc_options_tbf_tbf_parms: dict[str, tuple[int, str]] = {}

STRUCTURES["tc_options/tbf/tbf_parms"] = (("rate_cell_log", "rate___reserved", "rate_overhead", "rate_cell_align", "rate_mpu", "rate", "peak_cell_log", "peak___reserved", "peak_overhead", "peak_cell_align", "peak_mpu", "peak", "limit", "buffer", "mtu"), "=BBHhHIBBHhHIIII", _tc_options_tbf_tbf_parms)

_tc_options_u32: dict[str, tuple[int, str]] = {
    "TCA_U32_CLASSID": (1, "u32"), "TCA_U32_SEL": (5, "bytes"), "TCA_U32_ACT": (7, "tc_options/u32/tca_act_prio"),
}

STRUCTURES["tc_options/u32"] = ((), "", _tc_options_u32)

_tc_options_u32_tca_act_prio: dict[str, tuple[int, str]] = {
    "TCA_ACT_PRIO_1": (1, "tc_options/u32/tca_act_prio/tca_act"),
}

STRUCTURES["tc_options/u32/tca_act_prio"] = ((), "", _tc_options_u32_tca_act_prio)

_tc_options_u32_tca_act_prio_tca_act: dict[str, tuple[int, str]] = {
    "TCA_ACT_KIND": (1, "asciiz"), "TCA_ACT_OPTIONS": (32770, "act_options"),
}

STRUCTURES["tc_options/u32/tca_act_prio/tca_act"] = ((), "", _tc_options_u32_tca_act_prio_tca_act)

_act_options_mirred: dict[str, tuple[int, str]] = {
    "TCA_MIRRED_PARMS": (2, "act_options/mirred/tca_mirred_parms"),
}

STRUCTURES["act_options/mirred"] = ((), "", _act_options_mirred)

_act_options_mirred_tca_mirred_parms: dict[str, tuple[int, str]] = {}

STRUCTURES["act_options/mirred/tca_mirred_parms"] = (("index", "capab", "action", "refcnt", "bindcnt", "eaction", "ifindex"), "=IIiiiiI", _act_options_mirred_tca_mirred_parms)
