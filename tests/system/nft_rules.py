"""Rules in the words of shared/nft beside the same in nft's; run in a pretend host, the file creates the former."""

from __future__ import annotations

from typing import Any

from shared.cni.ip import Address, Prefix
from shared.nft import wire
from shared.nft.expressions import (
    accept,
    address,
    bitwise,
    cmp,
    ct,
    ct_label,
    ct_label_set,
    ct_state,
    ct_status,
    dnat,
    drop,
    family,
    fib,
    goto,
    immediate,
    is_local,
    jump,
    link,
    lookup,
    mark,
    masquerade,
    meta,
    meta_set,
    payload,
    protocol,
    return_,
    verdict,
    within,
)
from shared.nft.ruleset import (
    ETHER_ADDR,
    IFNAME,
    INET_PROTO,
    INET_SERVICE,
    IPV4_ADDR,
    IPV6_ADDR,
    VERDICT,
    Chain,
    Rule,
    Set,
    Table,
)
from shared.nft.transaction import Nfnetlink

INET, BRIDGE = Table(wire.NFPROTO_INET, "ours"), Table(wire.NFPROTO_BRIDGE, "ours")
PODS4 = Set(INET, "pods4", (IPV4_ADDR,), (VERDICT,))
PODS6 = Set(INET, "pods6", (IPV6_ADDR,), (VERDICT,))
PORTS4 = Set(INET, "ports4", (INET_PROTO, INET_SERVICE), (IPV4_ADDR, INET_SERVICE))
PORTS6 = Set(INET, "ports6", (IPV6_ADDR, INET_PROTO, INET_SERVICE), (IPV6_ADDR, INET_SERVICE))
PAIRS = Set(INET, "pairs", (IPV4_ADDR, IPV4_ADDR))
LINKS = Set(INET, "links", (IFNAME,))
MACS = Set(BRIDGE, "macs", (IFNAME, ETHER_ADDR))
BY_PORT = Set(BRIDGE, "byport", (IFNAME,), (VERDICT,))
SETS = {INET: (PODS4, PODS6, PORTS4, PORTS6, PAIRS, LINKS), BRIDGE: (MACS, BY_PORT)}

# As they are declared to nft, and elements in both forms.
DECLARED = {
    INET: """
        map pods4 { type ipv4_addr : verdict; elements = { 10.1.0.5 comment "net/c1/eth0" : goto aside } }
        map pods6 { type ipv6_addr : verdict; elements = { fd00::5 comment "net/c1/eth0" : accept } }
        map ports4 { type inet_proto . inet_service : ipv4_addr . inet_service
                     elements = { tcp . 80 comment "net/c1/eth0" : 10.1.0.5 . 8080 } }
        map ports6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
                     elements = { fd00::1 . sctp . 53 comment "net/c1/eth0" : fd00::5 . 5353 } }
        set pairs { type ipv4_addr . ipv4_addr; elements = { 10.0.0.1 . 10.0.0.2 comment "net/c1/eth0" } }
        set links { type ifname; elements = { "eth0" comment "net/c1/eth0" } }
    """,
    BRIDGE: """
        set macs { type ifname . ether_addr; elements = { "veth0" . 02:00:00:00:00:01 comment "net/c1/eth0" } }
        map byport { type ifname : verdict; elements = { "veth0" comment "net/c1/eth0" : drop } }
    """,
}
ELEMENTS = [
    PODS4.element("10.1.0.5", to=verdict("goto", "aside")), PODS6.element("fd00::5", to=verdict("accept")),
    PORTS4.element("tcp", "80", to=("10.1.0.5", "8080")), PORTS6.element("fd00::1", "sctp", "53", to=("fd00::5", "5353")),
    PAIRS.element("10.0.0.1", "10.0.0.2"), LINKS.element("eth0"), MACS.element("veth0", "02:00:00:00:00:01"),
    BY_PORT.element("veth0", to=verdict("drop")),
]  # fmt: skip


def port(number: int) -> bytes:
    return number.to_bytes(2, "big")


def every_length() -> list[tuple[str, list[Any]]]:
    """Return a rule for each length of a prefix that is not zero."""
    found = []
    for whole in (Address.parse("10.213.171.255"), Address.parse("fd5a:ffff:dead:beef:1234:5678:9abc:def1")):
        word = "ip" if whole.version == 4 else "ip6"
        for length in range(1, whole.bits + 1):
            network = Prefix(whole, length).network
            shown = network if length < whole.bits else network.address
            found.append((f"{word} daddr {shown} accept", [address("daddr", network), accept()]))
            found.append((f"{word} saddr != {shown} drop", [address("saddr", network, "neq"), drop()]))
    return found


# table, hook: (rule in nft's words, its parts)
RULES: dict[tuple[Table, tuple[str, int, int]], list[tuple[str, list[Any]]]] = {
    (INET, ("nat", wire.NF_INET_POST_ROUTING, wire.NF_IP_PRI_NAT_SRC)): [
        ("ip saddr vmap @pods4", [family(4), payload("ip saddr"), lookup(PODS4)]),
        ("ip6 saddr vmap @pods6", [family(6), payload("ip6 saddr"), lookup(PODS6)]),
        ("meta mark & 0x2000 == 0x2000 masquerade", [meta("mark"), bitwise(mark(0x2000), mark(0)), cmp("eq", mark(0x2000)), masquerade()]),
        ("ip saddr . ip daddr @pairs masquerade", [family(4), payload("ip saddr"), payload("ip daddr", 1), lookup(PAIRS), masquerade()]),
        ('oifname != "lo" fib saddr type local return', [link("oifname", "lo", "neq"), is_local("saddr"), return_()]),
    ],
    (INET, ("nat", wire.NF_INET_PRE_ROUTING, wire.NF_IP_PRI_NAT_DST)): [
        ("meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @ports4",
         [family(4), is_local(), meta("l4proto"), payload("th dport", 1), lookup(PORTS4), dnat(4, 0, 1)]),
        ("dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6",
         [family(6), payload("ip6 daddr"), meta("l4proto", 4), payload("th dport", 5), lookup(PORTS6), dnat(6, 0, 4)]),
    ],
    (INET, ("filter", wire.NF_INET_FORWARD, wire.NF_IP_PRI_FILTER)): [
        ("ct state established,related accept", [ct_state("established", "related"), accept()]),
        ("ct status dnat accept", [ct_status("dnat"), accept()]),
        ("ct direction original drop", [ct("direction"), cmp("eq", bytes(1)), drop()]),
        ("ct label set 126", [ct_label_set(126)]),
        ("ct label 127 drop", [ct_label(127), drop()]),
        ("meta priority 1:2 drop", [meta("priority"), cmp("eq", mark(0x10002)), drop()]),
        ("meta priority set 1:2", [immediate(mark(0x10002)), meta_set("priority")]),
        ("ct state invalid drop", [ct_state("invalid"), drop()]),
        ("fib daddr type != local jump aside", [fib("daddr"), cmp("neq", mark(2)), jump("aside")]),
        ('iifname "cni0" goto aside', [link("iifname", "cni0"), goto("aside")]),
        ("iifname != @links drop", [meta("iifname"), lookup(LINKS, negate=True), drop()]),
        ("oifname @links accept", [meta("oifname"), lookup(LINKS), accept()]),
        ("meta mark set meta mark | 0x00002000", [meta("mark"), bitwise(mark(0xFFFFDFFF), mark(0x2000)), meta_set("mark")]),
        ("meta mark set 0x00002000", [immediate(mark(0x2000)), meta_set("mark")]),
        ("tcp dport 80 accept", [protocol("tcp"), payload("th dport"), cmp("eq", port(80)), accept()]),
        ("udp sport != 53 drop", [protocol("udp"), payload("th sport"), cmp("neq", port(53)), drop()]),
        ("sctp dport 100-200 accept", [protocol("sctp"), payload("th dport"), within(port(100), port(200)), accept()]),
        ("tcp dport != 100-200 accept", [protocol("tcp"), payload("th dport"), within(port(100), port(200), negate=True), accept()]),
        ("tcp dport >= 1024 accept", [protocol("tcp"), payload("th dport"), cmp("gte", port(1024)), accept()]),
        *every_length(),
    ],
    (BRIDGE, ("filter", wire.NF_INET_PRE_ROUTING, wire.NF_BR_PRI_FILTER_BRIDGED)): [
        ("iifname . ether saddr != @macs drop", [meta("iifname"), payload("ether saddr", 4), lookup(MACS, negate=True), drop()]),
        ("iifname vmap @byport", [meta("iifname"), lookup(BY_PORT)]),
        ("ether daddr 02:00:00:00:00:01 drop", [payload("ether daddr"), cmp("eq", ETHER_ADDR.pack("02:00:00:00:00:01")), drop()]),
        ("ether type ip ip saddr 10.1.0.0/17 drop",
         [payload("ether type"), cmp("eq", b"\x08\x00"), payload("ip saddr"), bitwise(b"\xff\xff\x80\x00", bytes(4)),
          cmp("eq", IPV4_ADDR.pack("10.1.0.0")), drop()]),
    ],
}  # fmt: skip
ASIDE = {table: Chain(table, "aside", ()) for table in SETS}


def chains() -> list[Chain]:
    """Return the chains with the rules, each named after its place."""
    return [
        Chain(table, f"chain{place}", [Rule(f"r{number}", *parts) for number, (_, parts) in enumerate(rules)], hook)
        for place, ((table, hook), rules) in enumerate(RULES.items())
    ]


def in_nfts_words() -> str:
    """Return the same as a script for nft, in tables called theirs."""
    hooks = {wire.NF_INET_PRE_ROUTING: "prerouting", wire.NF_INET_FORWARD: "forward", wire.NF_INET_POST_ROUTING: "postrouting"}  # fmt: skip
    text = {table: f"chain aside {{ }}\n{DECLARED[table]}" for table in SETS}
    for place, ((table, (kind, hook, priority)), rules) in enumerate(RULES.items()):
        lines = "\n".join(rule for rule, _ in rules)
        text[table] += f"\nchain chain{place} {{ type {kind} hook {hooks[hook]} priority {priority}\n{lines}\n}}"
    return "\n".join(f"table {str(table).split()[0]} theirs {{\n{body}\n}}" for table, body in text.items())


def main() -> None:
    requests = [table.create_request() for table in SETS]
    for sets in SETS.values():
        requests += [one.create_request(number) for number, one in enumerate(sets)]
    for chain in (*ASIDE.values(), *chains()):
        requests += chain.create_requests()
    Nfnetlink().commit([*requests, *(element.add_request("net/c1/eth0") for element in ELEMENTS)])


if __name__ == "__main__":
    main()
