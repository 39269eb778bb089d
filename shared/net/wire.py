"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.build.wire_tables`."""

# ruff: noqa
# fmt: off
from __future__ import annotations

AF_UNSPEC = 0
AF_INET = 2
AF_INET6 = 10
NLMSG_MIN_TYPE = 16
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NLA_F_NESTED = 32768
NLA_F_NET_BYTEORDER = 16384
NLM_F_REQUEST = 1
NLM_F_MULTI = 2
NLM_F_ACK = 4
NLM_F_ECHO = 8
NLM_F_DUMP_INTR = 16
NLM_F_DUMP_FILTERED = 32
NLM_F_ROOT = 256
NLM_F_MATCH = 512
NLM_F_ATOMIC = 1024
NLM_F_DUMP = 768
NLM_F_REPLACE = 256
NLM_F_EXCL = 512
NLM_F_CREATE = 1024
NLM_F_APPEND = 2048
NLM_F_CAPPED = 256
NLM_F_ACK_TLVS = 512
NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4
NLMSG_CONTROL = 14
NLMSG_TRANSPORT = 15
NLMSG_MAX_LEN = 65535
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
RTNLGRP_LINK = 1
RTNLGRP_IPV4_IFADDR = 5
RTNLGRP_IPV6_IFADDR = 9
RTNLGRP_IPV6_ROUTE = 11
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30
RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34
RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38
RTM_NEWTCLASS = 40
RTM_DELTCLASS = 41
RTM_GETTCLASS = 42
RTM_NEWTFILTER = 44
RTM_DELTFILTER = 45
RTM_GETTFILTER = 46
RTM_NEWACTION = 48
RTM_DELACTION = 49
RTM_GETACTION = 50
RTM_NEWPREFIX = 52
RTM_GETMULTICAST = 58
RTM_GETANYCAST = 62
RTM_NEWNEIGHTBL = 64
RTM_GETNEIGHTBL = 66
RTM_SETNEIGHTBL = 67
RTM_NEWNDUSEROPT = 68
RTM_NEWADDRLABEL = 72
RTM_DELADDRLABEL = 73
RTM_GETADDRLABEL = 74
RTM_GETDCB = 78
RTM_SETDCB = 79
RTM_NEWNETCONF = 80
RTM_DELNETCONF = 81
RTM_GETNETCONF = 82
RTM_NEWMDB = 84
RTM_DELMDB = 85
RTM_GETMDB = 86
RTM_NEWNSID = 88
RTM_DELNSID = 89
RTM_GETNSID = 90
RTM_NEWSTATS = 92
RTM_GETSTATS = 94
RTM_NEWCACHEREPORT = 96
RTM_NEWLINKPROP = 108
RTM_DELLINKPROP = 109
RTM_GETLINKPROP = 110
RTM_NEWVLAN = 112
RTM_DELVLAN = 113
RTM_GETVLAN = 114
RTM_NEWNEXTHOPBUCKET = 116
RTM_DELNEXTHOPBUCKET = 117
RTM_GETNEXTHOPBUCKET = 118
RTM_NEWTUNNEL = 120
RTM_DELTUNNEL = 121
RTM_GETTUNNEL = 122
RTM_NEWNETNS = 500
RTM_DELNETNS = 501
RTM_GETNETNS = 502
RTM_NEWPROBE = 504
RTM_DELPROBE = 505
RTM_GETPROBE = 506
IFF_UP = 1
IFF_BROADCAST = 2
IFF_DEBUG = 4
IFF_LOOPBACK = 8
IFF_POINTOPOINT = 16
IFF_NOTRAILERS = 32
IFF_RUNNING = 64
IFF_NOARP = 128
IFF_PROMISC = 256
IFF_ALLMULTI = 512
IFF_MASTER = 1024
IFF_SLAVE = 2048
IFF_MULTICAST = 4096
IFF_PORTSEL = 8192
IFF_AUTOMEDIA = 16384
IFF_DYNAMIC = 32768
IFF_LOWER_UP = 65536
IFF_DORMANT = 131072
IFF_ECHO = 262144
IFF_MASK = 933
IFF_VOLATILE = 461914
IFA_F_SECONDARY = 1
IFA_F_NODAD = 2
IFA_F_OPTIMISTIC = 4
IFA_F_DADFAILED = 8
IFA_F_HOMEADDRESS = 16
IFA_F_DEPRECATED = 32
IFA_F_TENTATIVE = 64
IFA_F_PERMANENT = 128
IFA_F_MANAGETEMPADDR = 256
IFA_F_NOPREFIXROUTE = 512
IFA_F_MCAUTOJOIN = 1024
IFA_F_STABLE_PRIVACY = 2048
IFA_F_TEMPORARY = 1
RTNH_F_DEAD = 1
RTNH_F_PERVASIVE = 2
RTNH_F_ONLINK = 4
RTNH_F_OFFLOAD = 8
RTNH_F_LINKDOWN = 16
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_SITE = 200
RT_SCOPE_LINK = 253
RT_SCOPE_HOST = 254
RT_SCOPE_NOWHERE = 255
NFPROTO_INET = 1
NFPROTO_IPV4 = 2
NFPROTO_BRIDGE = 7
NFPROTO_IPV6 = 10
RTN_UNSPEC = 0
RTN_UNICAST = 1
RTN_LOCAL = 2
RTN_BROADCAST = 3
RTN_ANYCAST = 4
RTN_MULTICAST = 5
RTN_BLACKHOLE = 6
RTN_UNREACHABLE = 7
RTN_PROHIBIT = 8
RTN_THROW = 9
RTN_NAT = 10
RTN_XRESOLVE = 11
RTPROT_UNSPEC = 0
RTPROT_REDIRECT = 1
RTPROT_KERNEL = 2
RTPROT_BOOT = 3
RTPROT_STATIC = 4
RTPROT_GATED = 8
RTPROT_RA = 9
RTPROT_MRT = 10
RTPROT_ZEBRA = 11
RTPROT_BIRD = 12
RTPROT_DNROUTED = 13
RTPROT_XORP = 14
RTPROT_NTK = 15
RTPROT_DHCP = 16
AF_BRIDGE = 7
BRIDGE_VLAN_INFO_MASTER = 1
BRIDGE_VLAN_INFO_PVID = 2
BRIDGE_VLAN_INFO_UNTAGGED = 4
BRIDGE_VLAN_INFO_RANGE_BEGIN = 8
BRIDGE_VLAN_INFO_RANGE_END = 16
NFT_MSG_NEWTABLE = 2560
NFT_MSG_GETTABLE = 2561
BR_BOOLOPT_NO_LL_LEARN = 0

# message type: structure

MESSAGES: dict[int, str] = {
    16: "link", 17: "link", 18: "link", 19: "link", 20: "address", 21: "address", 22: "address", 24: "route",
    25: "route", 26: "route", 88: "nsid", 90: "nsid", 2560: "nft_table", 2561: "nft_table",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_link: dict[str, tuple[int, str]] = {
    "IFLA_ADDRESS": (1, "l2addr"), "IFLA_IFNAME": (3, "asciiz"), "IFLA_MTU": (4, "u32"), "IFLA_LINK": (5, "u32"),
    "IFLA_MASTER": (10, "u32"), "IFLA_TXQLEN": (13, "u32"), "IFLA_OPERSTATE": (16, "u8"),
    "IFLA_LINKINFO": (18, "link/ifinfo"), "IFLA_IFALIAS": (20, "asciiz"), "IFLA_AF_SPEC": (26, "af_spec"),
    "IFLA_GROUP": (27, "u32"), "IFLA_NET_NS_FD": (28, "u32"), "IFLA_EXT_MASK": (29, "u32"),
    "IFLA_NUM_TX_QUEUES": (31, "u32"), "IFLA_LINK_NETNSID": (37, "s32"), "IFLA_IF_NETNSID": (46, "u32"),
}

STRUCTURES["link"] = (("family", "ifi_type", "index", "flags", "change"), "=BxHiII", _link)

_link_ifinfo: dict[str, tuple[int, str]] = {
    "IFLA_INFO_KIND": (1, "asciiz"), "IFLA_INFO_DATA": (2, "info_data"), "IFLA_INFO_SLAVE_KIND": (4, "asciiz"),
    "IFLA_INFO_SLAVE_DATA": (5, "info_slave_data"),
}

STRUCTURES["link/ifinfo"] = ((), "", _link_ifinfo)

_info_data_bridge: dict[str, tuple[int, str]] = {
    "IFLA_BR_VLAN_FILTERING": (7, "u8"), "IFLA_BR_NF_CALL_IPTABLES": (36, "u8"),
    "IFLA_BR_NF_CALL_IP6TABLES": (37, "u8"), "IFLA_BR_VLAN_DEFAULT_PVID": (39, "u16"),
    "IFLA_BR_MULTI_BOOLOPT": (46, "bytes"), "IFLA_BR_FDB_MAX_LEARNED": (49, "u32"),
}

STRUCTURES["info_data/bridge"] = ((), "", _info_data_bridge)

_info_data_veth: dict[str, tuple[int, str]] = {
    "VETH_INFO_PEER": (1, "link"),
}

STRUCTURES["info_data/veth"] = ((), "", _info_data_veth)

_info_slave_data_bridge: dict[str, tuple[int, str]] = {
    "IFLA_BRPORT_STATE": (1, "u8"), "IFLA_BRPORT_MODE": (4, "u8"), "IFLA_BRPORT_ISOLATED": (33, "u8"),
}

STRUCTURES["info_slave_data/bridge"] = ((), "", _info_slave_data_bridge)

_af_spec_bridge: dict[str, tuple[int, str]] = {
    "IFLA_BRIDGE_VLAN_INFO": (2, "af_spec/bridge/vlan_info"),
}

STRUCTURES["af_spec/bridge"] = ((), "", _af_spec_bridge)

_af_spec_bridge_vlan_info: dict[str, tuple[int, str]] = {}

STRUCTURES["af_spec/bridge/vlan_info"] = (("flags", "vid"), "=HH", _af_spec_bridge_vlan_info)

_af_spec_inet: dict[str, tuple[int, str]] = {
    "AF_INET6": (10, "af_spec/inet/inet6"),
}

STRUCTURES["af_spec/inet"] = ((), "", _af_spec_inet)

_af_spec_inet_inet6: dict[str, tuple[int, str]] = {
    "IFLA_INET6_CACHEINFO": (5, "af_spec/inet/inet6/ipv6_cache_info"),
}

STRUCTURES["af_spec/inet/inet6"] = ((), "", _af_spec_inet_inet6)

_af_spec_inet_inet6_ipv6_cache_info: dict[str, tuple[int, str]] = {}

STRUCTURES["af_spec/inet/inet6/ipv6_cache_info"] = (("max_reasm_len", "tstamp", "reachable_time", "retrans_time"), "=IIII", _af_spec_inet_inet6_ipv6_cache_info)

_address: dict[str, tuple[int, str]] = {
    "IFA_ADDRESS": (1, "ip"), "IFA_LOCAL": (2, "ip"), "IFA_BROADCAST": (4, "ip"), "IFA_FLAGS": (8, "u32"),
}

STRUCTURES["address"] = (("family", "prefixlen", "flags", "scope", "index"), "=BBBBI", _address)

_route: dict[str, tuple[int, str]] = {
    "RTA_DST": (1, "ip"), "RTA_OIF": (4, "u32"), "RTA_GATEWAY": (5, "ip"), "RTA_PRIORITY": (6, "u32"),
    "RTA_PREFSRC": (7, "ip"), "RTA_METRICS": (8, "route/metrics"), "RTA_MULTIPATH": (9, "bytes"),
    "RTA_TABLE": (15, "u32"), "RTA_VIA": (18, "bytes"), "RTA_ENCAP_TYPE": (21, "u16"),
}

STRUCTURES["route"] = (("family", "dst_len", "src_len", "tos", "table", "proto", "scope", "type", "flags"), "=BBBBBBBBI", _route)

_route_metrics: dict[str, tuple[int, str]] = {
    "RTAX_LOCK": (1, "u32"), "RTAX_MTU": (2, "u32"), "RTAX_WINDOW": (3, "u32"), "RTAX_RTT": (4, "u32"),
    "RTAX_RTTVAR": (5, "u32"), "RTAX_SSTHRESH": (6, "u32"), "RTAX_CWND": (7, "u32"), "RTAX_ADVMSS": (8, "u32"),
    "RTAX_REORDERING": (9, "u32"), "RTAX_HOPLIMIT": (10, "u32"), "RTAX_INITCWND": (11, "u32"),
    "RTAX_FEATURES": (12, "u32"), "RTAX_RTO_MIN": (13, "u32"), "RTAX_INITRWND": (14, "u32"),
    "RTAX_QUICKACK": (15, "u32"), "RTAX_CC_ALGO": (16, "asciiz"),
}

STRUCTURES["route/metrics"] = ((), "", _route_metrics)

_nsid: dict[str, tuple[int, str]] = {
    "NETNSA_NSID": (1, "u32"), "NETNSA_FD": (3, "u32"),
}

STRUCTURES["nsid"] = (("rtgen_family",), "=B3x", _nsid)

_nft_table: dict[str, tuple[int, str]] = {
    "NFTA_TABLE_NAME": (1, "asciiz"),
}

STRUCTURES["nft_table"] = (("nfgen_family", "version", "res_id"), ">BBH", _nft_table)
