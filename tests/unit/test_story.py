"""explain's sentences: they keep no part of a message back."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nftsocket
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from shared.cli.explain import story, wiretap
from shared.cli.explain.recorder import Recorder
from shared.net import neighbour_wire, rule_wire
from shared.net.messages import encode
from shared.net.netlink import Request
from shared.net.wire import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    IFF_PROMISC,
    IFF_UP,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWQDISC,
    RTM_NEWROUTE,
    RTM_SETLINK,
)
from shared.nft import conntrack_wire, wire
from shared.nft.expressions import family
from shared.nft.ruleset import IPV4_ADDR, Chain, Rule, Set, Table
from tests.unit.kernel_end import by_pyroute2, error

MAKE = NLM_F_CREATE | NLM_F_EXCL
PORT = {"IFLA_INFO_SLAVE_KIND": "bridge", "IFLA_INFO_SLAVE_DATA": {"IFLA_BRPORT_MODE": 1, "IFLA_BRPORT_ISOLATED": 0}}
PEER = {"IFLA_IFNAME": "eth0", "IFLA_ADDRESS": "02:00:00:00:00:02", "IFLA_MTU": 1450}
VETH = {"IFLA_INFO_KIND": "veth", "IFLA_INFO_DATA": {"VETH_INFO_PEER": PEER}}
MACVLAN = {"IFLA_INFO_KIND": "macvlan", "IFLA_INFO_DATA": {"IFLA_MACVLAN_MODE": "bridge"}}
VLAN = {"IFLA_INFO_KIND": "vlan", "IFLA_INFO_DATA": {"IFLA_VLAN_ID": 7, "IFLA_VLAN_FLAGS": {"flags": 4, "mask": 4}}}
RULE = {"family": AF_INET, "action": 1, "FRA_SRC": "10.1.0.5", "FRA_TABLE": 100, "FRA_PRIORITY": 77}
NEIGHBOUR = {"family": AF_INET, "ifindex": 1, "NDA_DST": "10.1.0.5", "NDA_LLADDR": "02:00:00:00:00:01"}

# kind, flags, message, sentence; number 1 is lo in every namespace
SENTENCES: list[tuple[int, int, dict[str, Any], str]] = [
    (
        RTM_NEWLINK, MAKE,
        {"IFLA_IFNAME": "veth0", "IFLA_ADDRESS": "02:00:00:00:00:01", "IFLA_MTU": 1450, "IFLA_LINKINFO": VETH},
        "create veth veth0 on the host, eth0 on the host (MAC 02:00:00:00:00:02), MAC 02:00:00:00:00:01, MTU 1450",
    ),
    (
        RTM_NEWLINK, MAKE,
        {"IFLA_IFNAME": "cni0", "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge", "IFLA_INFO_DATA": {"IFLA_BR_VLAN_FILTERING": 1}}},
        "create bridge cni0, filter VLANs",
    ),
    (RTM_NEWLINK, 0, {"index": 1, "IFLA_MASTER": 1, "IFLA_IFALIAS": "x"}, 'lo: join bridge lo, alias "x"'),
    (RTM_NEWLINK, 0, {"index": 1, "IFLA_LINKINFO": PORT}, "lo: hairpin on, isolation off"),
    (RTM_NEWLINK, 0, {"index": 1, "flags": IFF_UP, "change": IFF_UP | IFF_PROMISC}, "lo: up, not promiscuous"),
    (RTM_NEWLINK, 0, {"index": 1, "IFLA_IFNAME": "new"}, "lo: rename to new"),
    (RTM_NEWLINK, 0, {"index": 1, "IFLA_LINK": 1, "IFLA_GROUP": 7}, "lo: group 7, IFLA_LINK lo"),
    (RTM_NEWLINK, MAKE, {"IFLA_IFNAME": "x", "IFLA_LINK": 1, "IFLA_LINKINFO": MACVLAN}, "create macvlan x on lo, mode bridge"),
    (RTM_NEWLINK, MAKE, {"IFLA_IFNAME": "x", "IFLA_LINKINFO": VLAN}, "create vlan x, VLAN 7, up independently of its master"),
    (RTM_SETLINK, 0, {"index": 1, "IFLA_IFNAME": "new", "IFLA_IFALIAS": "a"}, 'lo: rename to new, alias "a"'),
    (RTM_DELLINK, 0, {"IFLA_IFNAME": "veth0"}, "delete link veth0"),
    (RTM_DELLINK, 0, {"index": 1}, "delete link lo"),
    (
        RTM_SETLINK, 0,
        {"family": AF_BRIDGE, "index": 1, "IFLA_AF_SPEC": {"IFLA_BRIDGE_VLAN_INFO": [
            {"flags": 7, "vid": 100}, {"flags": 9, "vid": 5}, {"flags": 17, "vid": 9}]}},
        "lo into VLAN 100 (native, untagged) into VLANs 5 to 9",
    ),
    (
        RTM_DELLINK, 0,
        {"family": AF_BRIDGE, "index": 1, "IFLA_AF_SPEC": {"IFLA_BRIDGE_VLAN_INFO": [{"flags": 1, "vid": 1}]}},
        "lo out of VLAN 1",
    ),
    (
        RTM_NEWADDR, MAKE,
        {"family": AF_INET, "prefixlen": 24, "index": 1, "IFA_LOCAL": "10.1.0.5", "IFA_ADDRESS": "10.1.0.5", "IFA_BROADCAST": "10.1.0.255"},
        "address 10.1.0.5/24 on lo, broadcast 10.1.0.255",
    ),
    (
        RTM_NEWADDR, MAKE,
        {"family": AF_INET6, "prefixlen": 64, "index": 1, "flags": 2, "IFA_LOCAL": "fd00::5", "IFA_ADDRESS": "fd00::5"},
        "address fd00::5/64 on lo, without duplicate address detection",
    ),
    (
        RTM_DELADDR, 0,
        {"family": AF_INET, "prefixlen": 32, "index": 1, "IFA_LOCAL": "10.1.0.5", "IFA_ADDRESS": "10.1.0.6"},
        "delete address 10.1.0.5/32 from lo, peer 10.1.0.6",
    ),
    (
        RTM_NEWROUTE, NLM_F_CREATE,
        {"family": AF_INET, "table": 254, "proto": 3, "type": 1, "RTA_OIF": 1, "RTA_GATEWAY": "10.1.0.1"},
        "route default via 10.1.0.1 dev lo",
    ),
    (
        RTM_NEWROUTE, NLM_F_CREATE,
        {"family": AF_INET, "dst_len": 8, "RTA_DST": "10.0.0.0", "RTA_TABLE": 1000, "proto": 3, "type": 1, "scope": 253,
         "RTA_OIF": 1, "RTA_PRIORITY": 5, "RTA_METRICS": {"RTAX_MTU": 1400, "RTAX_HOPLIMIT": 9}},
        "route 10.0.0.0/8 dev lo table 1000 metric 5 mtu 1400 scope link RTAX_HOPLIMIT 9",
    ),
    (
        RTM_DELROUTE, 0,
        {"family": AF_INET6, "dst_len": 64, "RTA_DST": "fd00::", "table": 254, "proto": 2, "type": 1},
        "delete route fd00::/64 proto kernel",
    ),
]  # fmt: skip


def told(protocol: int, data: bytes, answer: bytes = b"") -> list[str]:
    """Return the sentences about the messages to a socket, without sending them. The test's namespace is the host."""
    recorder = Recorder(os.stat("/proc/self/ns/net").st_ino, 0, dict)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as own:
        talk = wiretap.Talk(recorder, own.fileno(), protocol)
        talk.record_requests(data)
        talk.record_refusals(answer)
    story.describe(recorder.steps)
    return [step["text"] for step in recorder.steps]


@pytest.mark.parametrize(("kind", "flags", "message", "sentence"), SENTENCES)
def test_sentence(kind: int, flags: int, message: dict[str, Any], sentence: str) -> None:
    assert told(NETLINK_ROUTE, by_pyroute2(kind, NLM_F_REQUEST | flags, 1, message)) == [sentence]


@pytest.mark.parametrize(("kind", "message", "sentence"), [
    (rule_wire.RTM_NEWRULE, RULE | {"src_len": 32}, "rule from 10.1.0.5 lookup 100 priority 77"),
    (rule_wire.RTM_DELRULE, RULE | {"src_len": 24}, "delete rule from 10.1.0.5/24 lookup 100 priority 77"),
    (neighbour_wire.RTM_NEWNEIGH, NEIGHBOUR, "neighbour 10.1.0.5 with MAC 02:00:00:00:00:01 on lo"),
    (neighbour_wire.RTM_DELNEIGH, NEIGHBOUR, "delete neighbour 10.1.0.5 with MAC 02:00:00:00:00:01 on lo"),
])  # fmt: skip
def test_sentence_about_a_rule_or_neighbour(kind: int, message: dict[str, Any], sentence: str) -> None:
    table = rule_wire if "FRA_SRC" in message else neighbour_wire
    assert told(NETLINK_ROUTE, encode(kind, NLM_F_REQUEST, 1, message, table)) == [sentence]


def test_a_batch_in_order_without_what_only_reads() -> None:
    batch = [(RTM_NEWLINK, 1, IFF_UP), (RTM_GETLINK, 2, 0), (RTM_NEWLINK, 3, 0)]
    data = b"".join(
        encode(kind, NLM_F_REQUEST, number, {"index": 1, "flags": up, "change": IFF_UP}) for kind, number, up in batch
    )
    assert told(NETLINK_ROUTE, data) == ["lo: up", "lo: down"]
    refusal = error(0, 1) + error(errno.EPERM, 3)
    assert told(NETLINK_ROUTE, data, refusal) == ["lo: up", "lo: down (refused: EPERM)"]


def test_message_without_a_sentence() -> None:
    message = tcmsg()
    message.update(index=1, handle=0x10000, parent=0xFFFFFFFF)
    message["attrs"] = [
        ("TCA_KIND", "tbf"),
        (
            "TCA_OPTIONS",
            {"attrs": [("TCA_TBF_PARMS", {"rate": 125000, "mtu": 1500, "limit": 7777}), ("TCA_TBF_BURST", 55)]},
        ),
    ]
    message["header"].update(type=RTM_NEWQDISC, flags=NLM_F_REQUEST | MAKE, sequence_number=1, pid=0)
    message.encode()
    (sentence,) = told(NETLINK_ROUTE, bytes(message.data))
    assert sentence.startswith("RTM_NEWQDISC, lo, ")
    for word in ("handle 65536", "TCA_KIND tbf", "rate 125000", "limit 7777"):
        assert word in sentence


def test_nf_tables_transaction() -> None:
    data = b""
    for number, (kind, attributes) in enumerate(
        [(16, []), (NFNL_SUBSYS_NFTABLES << 8 | nftsocket.NFT_MSG_NEWTABLE, [("NFTA_TABLE_NAME", "pods")]), (17, [])]
    ):
        message = nftsocket.nft_table_msg()
        message.update(nfgen_family=AF_INET, version=0, res_id=0)
        message["attrs"] = attributes
        message["header"].update(type=kind, flags=NLM_F_REQUEST, sequence_number=number, pid=0)
        message.encode()
        data += bytes(message.data)
    assert told(NETLINK_NETFILTER, data) == ["add table ip pods"]


def transaction(*requests: Request) -> bytes:
    batch = [Request(wire.NFNL_MSG_BATCH_BEGIN, {}), *requests, Request(wire.NFNL_MSG_BATCH_END, {})]
    return b"".join(encode(one.kind, one.flags, number, one.message, wire) for number, one in enumerate(batch))


ADDRESSES = Set(Table(wire.NFPROTO_INET, "pycni"), "addresses", (IPV4_ADDR,))
FIRST, SECOND = (ADDRESSES.element(f"10.1.0.{number}") for number in (1, 2))


def test_what_a_set_holds_is_known_from_its_making() -> None:
    elements = [FIRST.remove_request(), FIRST.add_request("a"), SECOND.add_request("b")]
    line = 'add element inet pycni addresses { 10.1.0.1 comment "a", 10.1.0.2 comment "b" }'
    assert told(NETLINK_NETFILTER, transaction(ADDRESSES.create_request(1), *elements)) == [
        "add set inet pycni addresses { type ipv4_addr; }", "delete element inet pycni addresses { 10.1.0.1 }", line,
    ]  # fmt: skip
    unknown = told(NETLINK_NETFILTER, transaction(FIRST.remove_request()))
    assert unknown == ["delete element inet pycni addresses { 0x0a010001 }"]


def test_a_transaction_is_refused_as_a_whole() -> None:
    data = transaction(ADDRESSES.create_request(1), FIRST.add_request("a"), SECOND.add_request("b"))
    made, held = told(NETLINK_NETFILTER, data, error(errno.EEXIST, 3))
    assert made.endswith("} (refused: with its transaction)") and held.endswith("} (refused: EEXIST)")
    by_its_beginning = told(NETLINK_NETFILTER, data, error(errno.EOPNOTSUPP, 0))
    assert all(line.endswith("(refused: with its transaction)") for line in by_its_beginning)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ({"NFTA_EXPR_NAME": "log"}, "[log {}]"),
        (
            {"NFTA_EXPR_NAME": "payload", "NFTA_EXPR_DATA": {
                "NFTA_PAYLOAD_DREG": 8, "NFTA_PAYLOAD_BASE": 1, "NFTA_PAYLOAD_OFFSET": 12, "NFTA_PAYLOAD_LEN": 4}},
            "[ip saddr is loaded]",
        ),
        (
            {"NFTA_EXPR_NAME": "lookup", "NFTA_EXPR_DATA": {"NFTA_LOOKUP_SET": "x", "NFTA_LOOKUP_SREG": 9}},
            '[lookup {"NFTA_LOOKUP_SET": "x", "NFTA_LOOKUP_SREG": "NFT_REG32_01"}]',
        ),
    ],
)  # fmt: skip
def test_expressions_without_words(expression: dict[str, Any], words: str) -> None:
    """Nothing is lost: unknown attributes stand under the kernel's names, and unused ones are printed."""
    pods = Chain(Table(wire.NFPROTO_IPV4, "t"), "c", [Rule("some", family(4), expression)])
    (rule,) = told(NETLINK_NETFILTER, transaction(pods.create_requests()[1]))
    assert rule.startswith(f'add rule ip t c meta nfproto ipv4 {words} comment "some ')


def test_a_conntrack_entry() -> None:
    proto = {"CTA_PROTO_NUM": 17, "CTA_PROTO_SRC_PORT": 5000, "CTA_PROTO_DST_PORT": 53}
    ip = {"CTA_IP_V4_SRC": "192.0.2.9", "CTA_IP_V4_DST": "192.0.2.1"}
    message = {"nfgen_family": AF_INET, "CTA_TUPLE_ORIG": {"CTA_TUPLE_IP": ip, "CTA_TUPLE_PROTO": proto}, "CTA_ID": 7}
    data = encode(conntrack_wire.IPCTNL_MSG_CT_GET, NLM_F_REQUEST, 1, message, conntrack_wire)
    data += encode(conntrack_wire.IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST, 2, message, conntrack_wire)
    assert told(NETLINK_NETFILTER, data) == [
        "delete conntrack entry udp src=192.0.2.9 dst=192.0.2.1 sport=5000 dport=53, CTA_ID 7"
    ]


def test_an_attribute_that_pyroute2_does_not_know() -> None:
    data = {"IFLA_INFO_KIND": "bridge", "IFLA_INFO_DATA": {"IFLA_BR_MULTI_BOOLOPT": b"\1\0\0\0\1\0\0\0"}}
    message = encode(RTM_NEWLINK, NLM_F_REQUEST, 1, {"index": 1, "IFLA_LINKINFO": data})
    assert told(NETLINK_ROUTE, message) == ["lo: attribute 46 01 00 00 00 01 00 00 00, IFLA_INFO_KIND bridge"]


@pytest.mark.parametrize(("protocol", "kind"), [(NETLINK_ROUTE, 0x7FF0), (NETLINK_NETFILTER, 0x0C77), (16, 77)])
def test_kind_that_nobody_knows(protocol: int, kind: int) -> None:
    data = struct.pack("=IHHII", 20, kind, NLM_F_REQUEST, 1, 0) + b"\x01\x02\x03\x04"
    assert told(protocol, data) == [f"message type {kind} of netlink protocol {protocol}, data 01 02 03 04"]


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (
            {"where": "pod", "what": "sysctl", "name": "net/ipv4/conf/eth0.5/arp_notify", "value": "1", "before": "0"},
            "net.ipv4.conf.eth0/5.arp_notify = 1 (was 0)",
        ),
        (
            {"where": "pod", "what": "sysctl", "name": "net/ipv4/ip_forward", "value": "1", "before": "1"},
            "net.ipv4.ip_forward = 1",
        ),
        (
            {"where": "files", "what": "file", "path": "/n/10.1.0.5", "mode": "0600", "content": "c1\r\neth0"},
            'lease 10.1.0.5 → /n/10.1.0.5: "c1\\r\\neth0"',
        ),
        ({"where": "files", "what": "file", "path": "/n/lock", "mode": "0600", "content": ""}, "create /n/lock (0600)"),
        ({"where": "files", "what": "unlink", "path": "/n/10.1.0.5"}, "release 10.1.0.5: delete /n/10.1.0.5"),
        ({"where": "files", "what": "unlink", "path": "/n/x"}, "delete /n/x"),
        ({"where": "files", "what": "rename", "path": "/a", "target": "/b"}, "rename /a to /b"),
        ({"where": "files", "what": "chmod", "path": "/a", "arguments": [384]}, "chmod, path /a, arguments [384]"),
        (
            {"where": "host", "what": "link", "change": "changed", "name": "x", "facts": {"mtu": 9, "up": True}, "before": {"mtu": 8, "up": True}},
            "link x, mtu 9 (was 8)",
        ),
        (
            {"where": "host", "what": "link", "change": "new", "name": "x", "facts": {"kind": "veth", "up": False}, "before": {}},
            "create link x, kind veth, up no",
        ),
        (
            {"where": "pod", "what": "address", "change": "gone", "name": "10.1.0.5/24 on eth0", "facts": {}, "before": {}},
            "delete address 10.1.0.5/24 on eth0",
        ),
        (
            {"where": "files", "what": "file", "change": "gone", "name": "/n/10.1.0.5", "facts": {}, "before": "c1"},
            "release 10.1.0.5: delete /n/10.1.0.5",
        ),
    ],
)  # fmt: skip
def test_step_of_files_and_of_differences(step: dict[str, Any], sentence: str) -> None:
    assert story.describe_step(step) == sentence
