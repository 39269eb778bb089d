"""Isolation: the other pods of a bridge cannot reach a pod, neither from port to port nor through the host.

    table bridge pycni {
        chain from_uplinks { type filter hook prerouting priority dstnat; meta iifkind != "veth" meta priority none
            meta priority set 7079:6369 }
        chain isolating { type filter hook forward priority filter; meta iifkind "veth" oifname @isolated drop }
        chain past_host { type filter hook postrouting priority filter; meta priority 7079:6369
            meta priority set none } }
    table inet pycni {
        chain from_uplinks { type filter hook prerouting priority -199; meta priority 7079:6369
            ct state established,related,new ct label set 125 meta priority set none }
        chain guard-1a2b3c4d5e6f {
            iifname "cni0" ct label 125 return
            iifname "cni0" ct direction reply ct state established,related return
            iifname "cni0" drop; iifname @bridges drop } }

A bridge port that is a veth belongs to a pod. Other ports are uplinks out of the host; packets from there may pass.
Behind the bridge, a packet no longer shows its port. The priority carries that from the bridge's hook to the first hook
of IP that knows the connection, which turns it into a conntrack label. A packet that already has a priority keeps it,
and is treated as a pod's. Packets that rules of the host redirect to the pod pass through the guard as well.
"""

from __future__ import annotations

from shared.nft import wire
from shared.nft.expressions import (
    cmp,
    ct,
    ct_label,
    ct_label_set,
    ct_state,
    drop,
    immediate,
    link,
    lookup,
    mark,
    meta,
    meta_set,
    return_,
)
from shared.nft.registry import BRIDGE, INET, Ruleset
from shared.nft.ruleset import IFNAME, Chain, Rule, Set, addressed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.nft.ruleset import Expression

FROM_UPLINK = 125  # conntrack label; shared/hostports/nftables_rules.py has the next two
CARRIED = mark(0x7079_6369)  # priority, of no qdisc's class
NO_PRIORITY = mark(0)
REPLY = b"\1"  # IP_CT_DIR_REPLY in linux/netfilter/nf_conntrack_tuple_common.h
PREFIX = "guard"

ISOLATED = Set(BRIDGE, "isolated", (IFNAME,))
BRIDGES = Set(INET, "bridges", (IFNAME,))


def _set_priority(value: bytes) -> list[Expression]:
    return [immediate(value), meta_set("priority")]


def _with_priority(value: bytes) -> list[Expression]:
    return [meta("priority"), cmp("eq", value)]


def bridged() -> Ruleset:
    """Return the rule set of the bridge's table."""
    return Ruleset(BRIDGE, "firewall", (ISOLATED,), (
        Chain(BRIDGE, "from_uplinks", [
            Rule("not pods", link("iifkind", "veth", "neq"), _with_priority(NO_PRIORITY), _set_priority(CARRIED)),
        ], ("filter", wire.NF_INET_PRE_ROUTING, wire.NF_BR_PRI_NAT_DST_BRIDGED)),
        Chain(BRIDGE, "isolating", [
            Rule("between pods", link("iifkind", "veth"), meta("oifname"), lookup(ISOLATED), drop()),
        ], ("filter", wire.NF_INET_FORWARD, wire.NF_BR_PRI_FILTER_BRIDGED)),
        Chain(BRIDGE, "past_host", [
            Rule("passed on", _with_priority(CARRIED), _set_priority(NO_PRIORITY)),
        ], ("filter", wire.NF_INET_POST_ROUTING, wire.NF_BR_PRI_FILTER_BRIDGED)),
    ))  # fmt: skip


def from_uplinks() -> Chain:
    """Return the chain that labels connections from hosts behind a bridge's uplinks.

    A packet without a connection keeps the priority. The guard recognizes it by that if it is forwarded.
    """
    rule = Rule(
        "connections", _with_priority(CARRIED), ct_state("established", "related", "new"), ct_label_set(FROM_UPLINK),
        _set_priority(NO_PRIORITY),
    )  # fmt: skip
    return Chain(INET, "from_uplinks", [rule], ("filter", wire.NF_INET_PRE_ROUTING, wire.NF_IP_PRI_CONNTRACK + 1))


def guards(bridge: str) -> tuple[Chain, Chain]:
    """Return the chains for a bridge's pods: that of same-bridge, and that of isolated pods."""
    own = link("iifname", bridge)
    others = Rule("others that are kept apart", meta("iifname"), lookup(BRIDGES), drop())
    isolating = [
        Rule("from uplinks", own, _with_priority(CARRIED), return_()),
        Rule("connections from uplinks", own, ct_label(FROM_UPLINK), return_()),
        Rule("replies", own, ct("direction"), cmp("eq", REPLY), ct_state("established", "related"), return_()),
        Rule("pods of its bridge", own, drop()),
        others,
    ]
    return (
        addressed(INET, PREFIX, [Rule("the pod's own bridge", own, return_()), others]),
        addressed(INET, PREFIX, isolating),
    )
