"""Netlink numbers and layouts, generated from pyroute2: `python -m shared.cli.wire_tables`."""

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

# message type: structure

MESSAGES: dict[int, str] = {
    16: "link", 17: "link", 18: "link", 19: "link", 20: "address", 21: "address", 22: "address", 24: "route",
    25: "route", 26: "route",
}

# structure: names of the header's fields, its layout for struct, attributes (number, kind)

STRUCTURES: dict[str, tuple[tuple[str, ...], str, dict[str, tuple[int, str]]]] = {}

_link: dict[str, tuple[int, str]] = {
    "IFLA_ADDRESS": (1, "l2addr"), "IFLA_BROADCAST": (2, "l2addr"), "IFLA_IFNAME": (3, "asciiz"),
    "IFLA_MTU": (4, "u32"), "IFLA_LINK": (5, "u32"), "IFLA_QDISC": (6, "asciiz"), "IFLA_STATS": (7, "bytes"),
    "IFLA_COST": (8, "bytes"), "IFLA_PRIORITY": (9, "bytes"), "IFLA_MASTER": (10, "u32"),
    "IFLA_WIRELESS": (11, "bytes"), "IFLA_PROTINFO": (32780, "bytes"), "IFLA_TXQLEN": (13, "u32"),
    "IFLA_MAP": (14, "bytes"), "IFLA_WEIGHT": (15, "bytes"), "IFLA_OPERSTATE": (16, "u8"),
    "IFLA_LINKMODE": (17, "u8"), "IFLA_LINKINFO": (18, "link/ifinfo"), "IFLA_NET_NS_PID": (19, "u32"),
    "IFLA_IFALIAS": (20, "asciiz"), "IFLA_NUM_VF": (21, "u32"), "IFLA_VFINFO_LIST": (22, "bytes"),
    "IFLA_STATS64": (23, "bytes"), "IFLA_VF_PORTS": (24, "bytes"), "IFLA_PORT_SELF": (25, "bytes"),
    "IFLA_AF_SPEC": (26, "af_spec"), "IFLA_GROUP": (27, "u32"), "IFLA_NET_NS_FD": (28, "u32"),
    "IFLA_EXT_MASK": (29, "u32"), "IFLA_PROMISCUITY": (30, "u32"), "IFLA_NUM_TX_QUEUES": (31, "u32"),
    "IFLA_NUM_RX_QUEUES": (32, "u32"), "IFLA_CARRIER": (33, "u8"), "IFLA_PHYS_PORT_ID": (34, "bytes"),
    "IFLA_CARRIER_CHANGES": (35, "u32"), "IFLA_PHYS_SWITCH_ID": (36, "bytes"), "IFLA_LINK_NETNSID": (37, "s32"),
    "IFLA_PHYS_PORT_NAME": (38, "asciiz"), "IFLA_PROTO_DOWN": (39, "u8"), "IFLA_GSO_MAX_SEGS": (40, "u32"),
    "IFLA_GSO_MAX_SIZE": (41, "u32"), "IFLA_PAD": (42, "bytes"), "IFLA_XDP": (43, "bytes"), "IFLA_EVENT": (44, "u32"),
    "IFLA_NEW_NETNSID": (45, "be32"), "IFLA_IF_NETNSID": (46, "u32"), "IFLA_CARRIER_UP_COUNT": (47, "u32"),
    "IFLA_CARRIER_DOWN_COUNT": (48, "u32"), "IFLA_NEW_IFINDEX": (49, "u32"), "IFLA_MIN_MTU": (50, "u32"),
    "IFLA_MAX_MTU": (51, "u32"), "IFLA_PROP_LIST": (32820, "link/proplist"), "IFLA_ALT_IFNAME": (53, "asciiz"),
    "IFLA_PERM_ADDRESS": (54, "bytes"), "IFLA_PROTO_DOWN_REASON": (55, "bytes"),
    "IFLA_PARENT_DEV_NAME": (56, "asciiz"), "IFLA_PARENT_DEV_BUS_NAME": (57, "asciiz"),
    "IFLA_GRO_MAX_SIZE": (58, "u32"), "IFLA_TSO_MAX_SIZE": (59, "u32"), "IFLA_TSO_MAX_SEGS": (60, "u32"),
    "IFLA_ALLMULTI": (61, "u32"),
}

STRUCTURES["link"] = (("family", "ifi_type", "index", "flags", "change"), "BxHiII", _link)

_link_ifinfo: dict[str, tuple[int, str]] = {
    "IFLA_INFO_KIND": (1, "asciiz"), "IFLA_INFO_DATA": (2, "info_data"), "IFLA_INFO_XSTATS": (3, "bytes"),
    "IFLA_INFO_SLAVE_KIND": (4, "asciiz"), "IFLA_INFO_SLAVE_DATA": (5, "info_slave_data"),
}

STRUCTURES["link/ifinfo"] = ((), "", _link_ifinfo)

_info_data_bridge: dict[str, tuple[int, str]] = {
    "IFLA_BR_FORWARD_DELAY": (1, "u32"), "IFLA_BR_HELLO_TIME": (2, "u32"), "IFLA_BR_MAX_AGE": (3, "u32"),
    "IFLA_BR_AGEING_TIME": (4, "u32"), "IFLA_BR_STP_STATE": (5, "u32"), "IFLA_BR_PRIORITY": (6, "u16"),
    "IFLA_BR_VLAN_FILTERING": (7, "u8"), "IFLA_BR_VLAN_PROTOCOL": (8, "be16"), "IFLA_BR_GROUP_FWD_MASK": (9, "u16"),
    "IFLA_BR_ROOT_ID": (10, "bytes"), "IFLA_BR_BRIDGE_ID": (11, "bytes"), "IFLA_BR_ROOT_PORT": (12, "u16"),
    "IFLA_BR_ROOT_PATH_COST": (13, "u32"), "IFLA_BR_TOPOLOGY_CHANGE": (14, "u8"),
    "IFLA_BR_TOPOLOGY_CHANGE_DETECTED": (15, "u8"), "IFLA_BR_HELLO_TIMER": (16, "u64"),
    "IFLA_BR_TCN_TIMER": (17, "u64"), "IFLA_BR_TOPOLOGY_CHANGE_TIMER": (18, "u64"), "IFLA_BR_GC_TIMER": (19, "u64"),
    "IFLA_BR_GROUP_ADDR": (20, "l2addr"), "IFLA_BR_FDB_FLUSH": (21, "flag"), "IFLA_BR_MCAST_ROUTER": (22, "u8"),
    "IFLA_BR_MCAST_SNOOPING": (23, "u8"), "IFLA_BR_MCAST_QUERY_USE_IFADDR": (24, "u8"),
    "IFLA_BR_MCAST_QUERIER": (25, "u8"), "IFLA_BR_MCAST_HASH_ELASTICITY": (26, "u32"),
    "IFLA_BR_MCAST_HASH_MAX": (27, "u32"), "IFLA_BR_MCAST_LAST_MEMBER_CNT": (28, "u32"),
    "IFLA_BR_MCAST_STARTUP_QUERY_CNT": (29, "u32"), "IFLA_BR_MCAST_LAST_MEMBER_INTVL": (30, "u64"),
    "IFLA_BR_MCAST_MEMBERSHIP_INTVL": (31, "u64"), "IFLA_BR_MCAST_QUERIER_INTVL": (32, "u64"),
    "IFLA_BR_MCAST_QUERY_INTVL": (33, "u64"), "IFLA_BR_MCAST_QUERY_RESPONSE_INTVL": (34, "u64"),
    "IFLA_BR_MCAST_STARTUP_QUERY_INTVL": (35, "u64"), "IFLA_BR_NF_CALL_IPTABLES": (36, "u8"),
    "IFLA_BR_NF_CALL_IP6TABLES": (37, "u8"), "IFLA_BR_NF_CALL_ARPTABLES": (38, "u8"),
    "IFLA_BR_VLAN_DEFAULT_PVID": (39, "u16"), "IFLA_BR_PAD": (40, "u64"), "IFLA_BR_VLAN_STATS_ENABLED": (41, "u8"),
    "IFLA_BR_MCAST_STATS_ENABLED": (42, "u8"), "IFLA_BR_MCAST_IGMP_VERSION": (43, "u8"),
    "IFLA_BR_MCAST_MLD_VERSION": (44, "u8"),
}

STRUCTURES["info_data/bridge"] = ((), "", _info_data_bridge)

_info_data_veth: dict[str, tuple[int, str]] = {
    "VETH_INFO_PEER": (1, "link"),
}

STRUCTURES["info_data/veth"] = ((), "", _info_data_veth)

_info_slave_data_bridge: dict[str, tuple[int, str]] = {
    "IFLA_BRPORT_STATE": (1, "u8"), "IFLA_BRPORT_PRIORITY": (2, "u16"), "IFLA_BRPORT_COST": (3, "u32"),
    "IFLA_BRPORT_MODE": (4, "u8"), "IFLA_BRPORT_GUARD": (5, "u8"), "IFLA_BRPORT_PROTECT": (6, "u8"),
    "IFLA_BRPORT_FAST_LEAVE": (7, "u8"), "IFLA_BRPORT_LEARNING": (8, "u8"), "IFLA_BRPORT_UNICAST_FLOOD": (9, "u8"),
    "IFLA_BRPORT_PROXYARP": (10, "u8"), "IFLA_BRPORT_LEARNING_SYNC": (11, "u8"),
    "IFLA_BRPORT_PROXYARP_WIFI": (12, "u8"), "IFLA_BRPORT_ROOT_ID": (13, "bytes"),
    "IFLA_BRPORT_BRIDGE_ID": (14, "bytes"), "IFLA_BRPORT_DESIGNATED_PORT": (15, "u16"),
    "IFLA_BRPORT_DESIGNATED_COST": (16, "u16"), "IFLA_BRPORT_ID": (17, "u16"), "IFLA_BRPORT_NO": (18, "u16"),
    "IFLA_BRPORT_TOPOLOGY_CHANGE_ACK": (19, "u8"), "IFLA_BRPORT_CONFIG_PENDING": (20, "u8"),
    "IFLA_BRPORT_MESSAGE_AGE_TIMER": (21, "u64"), "IFLA_BRPORT_FORWARD_DELAY_TIMER": (22, "u64"),
    "IFLA_BRPORT_HOLD_TIMER": (23, "u64"), "IFLA_BRPORT_FLUSH": (24, "flag"),
    "IFLA_BRPORT_MULTICAST_ROUTER": (25, "u8"), "IFLA_BRPORT_PAD": (26, "u64"), "IFLA_BRPORT_MCAST_FLOOD": (27, "u8"),
    "IFLA_BRPORT_MCAST_TO_UCAST": (28, "u8"), "IFLA_BRPORT_VLAN_TUNNEL": (29, "u8"),
    "IFLA_BRPORT_BCAST_FLOOD": (30, "u8"), "IFLA_BRPORT_GROUP_FWD_MASK": (31, "u16"),
    "IFLA_BRPORT_NEIGH_SUPPRESS": (32, "u8"), "IFLA_BRPORT_ISOLATED": (33, "u8"),
    "IFLA_BRPORT_BACKUP_PORT": (34, "u32"), "IFLA_BRPORT_MRP_RING_OPEN": (35, "u8"),
    "IFLA_BRPORT_MRP_IN_OPEN": (36, "u8"), "IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT": (37, "u32"),
    "IFLA_BRPORT_MCAST_EHT_HOSTS_CNT": (38, "u32"), "IFLA_BRPORT_LOCKED": (39, "u8"), "IFLA_BRPORT_MAB": (40, "u8"),
    "IFLA_BRPORT_MCAST_N_GROUPS": (41, "u32"), "IFLA_BRPORT_MCAST_MAX_GROUPS": (42, "u32"),
    "IFLA_BRPORT_NEIGH_VLAN_SUPPRESS": (43, "u8"), "IFLA_BRPORT_BACKUP_NHID": (44, "u32"),
}

STRUCTURES["info_slave_data/bridge"] = ((), "", _info_slave_data_bridge)

_af_spec_bridge: dict[str, tuple[int, str]] = {
    "IFLA_BRIDGE_FLAGS": (0, "u16"), "IFLA_BRIDGE_VLAN_FLAGS": (0, "u16"), "IFLA_BRIDGE_MODE": (1, "u16"),
    "IFLA_BRIDGE_VLAN_INFO": (2, "af_spec/bridge/vlan_info"), "IFLA_BRIDGE_VLAN_TUNNEL_INFO": (3, "bytes"),
}

STRUCTURES["af_spec/bridge"] = ((), "", _af_spec_bridge)

_af_spec_bridge_vlan_info: dict[str, tuple[int, str]] = {}

STRUCTURES["af_spec/bridge/vlan_info"] = (("flags", "vid"), "HH", _af_spec_bridge_vlan_info)

_link_proplist: dict[str, tuple[int, str]] = {
    "IFLA_ALT_IFNAME": (53, "asciiz"),
}

STRUCTURES["link/proplist"] = ((), "", _link_proplist)

_address: dict[str, tuple[int, str]] = {
    "IFA_UNSPEC": (0, "bytes"), "IFA_ADDRESS": (1, "ip"), "IFA_LOCAL": (2, "ip"), "IFA_LABEL": (3, "asciiz"),
    "IFA_BROADCAST": (4, "ip"), "IFA_ANYCAST": (5, "ip"), "IFA_CACHEINFO": (6, "bytes"), "IFA_MULTICAST": (7, "ip"),
    "IFA_FLAGS": (8, "u32"), "IFA_RT_PRIORITY": (9, "u32"), "IFA_TARGET_NETNSID": (10, "asciiz"),
    "IFA_PROTO": (11, "u8"),
}

STRUCTURES["address"] = (("family", "prefixlen", "flags", "scope", "index"), "BBBBI", _address)

_route: dict[str, tuple[int, str]] = {
    "RTA_DST": (1, "ip"), "RTA_SRC": (2, "ip"), "RTA_IIF": (3, "u32"), "RTA_OIF": (4, "u32"),
    "RTA_GATEWAY": (5, "ip"), "RTA_PRIORITY": (6, "u32"), "RTA_PREFSRC": (7, "ip"),
    "RTA_METRICS": (8, "route/metrics"), "RTA_MULTIPATH": (9, "bytes"), "RTA_PROTOINFO": (10, "u32"),
    "RTA_FLOW": (11, "u32"), "RTA_CACHEINFO": (12, "bytes"), "RTA_SESSION": (13, "bytes"),
    "RTA_MP_ALGO": (14, "bytes"), "RTA_TABLE": (15, "u32"), "RTA_MARK": (16, "u32"), "RTA_MFC_STATS": (17, "bytes"),
    "RTA_VIA": (18, "bytes"), "RTA_NEWDST": (19, "ip"), "RTA_PREF": (20, "u8"), "RTA_ENCAP_TYPE": (21, "u16"),
    "RTA_ENCAP": (22, "bytes"), "RTA_EXPIRES": (23, "bytes"),
}

STRUCTURES["route"] = (("family", "dst_len", "src_len", "tos", "table", "proto", "scope", "type", "flags"), "BBBBBBBBI", _route)

_route_metrics: dict[str, tuple[int, str]] = {
    "RTAX_LOCK": (1, "u32"), "RTAX_MTU": (2, "u32"), "RTAX_WINDOW": (3, "u32"), "RTAX_RTT": (4, "u32"),
    "RTAX_RTTVAR": (5, "u32"), "RTAX_SSTHRESH": (6, "u32"), "RTAX_CWND": (7, "u32"), "RTAX_ADVMSS": (8, "u32"),
    "RTAX_REORDERING": (9, "u32"), "RTAX_HOPLIMIT": (10, "u32"), "RTAX_INITCWND": (11, "u32"),
    "RTAX_FEATURES": (12, "u32"), "RTAX_RTO_MIN": (13, "u32"), "RTAX_INITRWND": (14, "u32"),
    "RTAX_QUICKACK": (15, "u32"), "RTAX_CC_ALGO": (16, "asciiz"),
}

STRUCTURES["route/metrics"] = ((), "", _route_metrics)
