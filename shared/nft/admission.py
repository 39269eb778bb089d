"""Admission: which pods may forward through the node, and from where they may be reached, by nf_tables alone.

    chain forwarding { type filter hook forward priority filter;
        ip daddr vmap @guarded4; ip6 daddr vmap @guarded6;
        ip daddr @admitted4 ct state established,related accept; ip saddr @admitted4 accept; and for IPv6 the same }
    map guarded4 { type ipv4_addr : verdict; elements = { 10.1.0.5 : jump guard-1a2b3c4d5e6f } }
    chain guard-1a2b3c4d5e6f { iifname "cni0" return; iifname @bridges drop; }
    set bridges { type ifname; elements = { "cni0" } }

An accept here ends this chain only: what the chains of other tables drop is dropped all the same. A drop is final, so
that what keeps pods apart works whoever decides about the rest. Within a bridge frames are not routed, hence

    table bridge pycni { chain isolating { type filter hook forward priority filter;
        meta iifkind "veth" oifname @isolated drop } }
"""

from __future__ import annotations

import errno

from shared.net.netlink import NetlinkError
from shared.nft import registry, wire
from shared.nft.expressions import accept, ct_state, drop, family, link, lookup, meta, payload, return_, verdict
from shared.nft.registry import BRIDGE, INET, Ruleset
from shared.nft.ruleset import ADDRESSES, IFNAME, VERDICT, Chain, Rule, Set, addressed
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from shared.cni.ip import Address
    from shared.net.owner import Owner
    from shared.nft.ruleset import Element
    from shared.undo import Undo

ADMITTED = {version: Set(INET, f"admitted{version}", (ADDRESSES[version],)) for version in (4, 6)}
GUARDED = {version: Set(INET, f"guarded{version}", (ADDRESSES[version],), (VERDICT,)) for version in (4, 6)}
BRIDGES = Set(INET, "bridges", (IFNAME,))
HEADERS = {4: "ip", 6: "ip6"}
FORWARDING = Chain(
    INET,
    "forwarding",
    (
        *(
            Rule(f"to IPv{version} pods", family(version), payload(f"{header} daddr"), lookup(GUARDED[version]))
            for version, header in HEADERS.items()
        ),
        *(
            Rule(
                f"replies to IPv{version} pods", family(version), ct_state("established", "related"),
                payload(f"{header} daddr"), lookup(ADMITTED[version]), accept(),
            )
            for version, header in HEADERS.items()
        ),
        *(
            Rule(
                f"from IPv{version} pods", family(version), payload(f"{header} saddr"), lookup(ADMITTED[version]),
                accept(),
            )
            for version, header in HEADERS.items()
        ),
    ),
    ("filter", wire.NF_INET_FORWARD, wire.NF_IP_PRI_FILTER),
)  # fmt: skip
ISOLATED = Set(BRIDGE, "isolated", (IFNAME,))
ISOLATING = Chain(
    BRIDGE,
    "isolating",
    (Rule("between pods", link("iifkind", "veth"), meta("oifname"), lookup(ISOLATED), drop()),),
    ("filter", wire.NF_INET_FORWARD, wire.NF_BR_PRI_FILTER_BRIDGED),
)
ROUTED = Ruleset(INET, "firewall", (*ADMITTED.values(), *GUARDED.values(), BRIDGES), (FORWARDING,))
BRIDGED = Ruleset(BRIDGE, "firewall", (ISOLATED,), (ISOLATING,))
PREFIX = "guard"


class Admission:
    """What an attachment has here.

    With a `bridge`, nothing from others such bridges reaches its addresses; with a `port`, nothing from other veths of
    the bridge reaches that port of it.
    """

    def __init__(
        self, owner: Owner, addresses: Sequence[Address], *, is_admitted: bool, bridge: str = "", port: str = ""
    ) -> None:
        self.owner = owner
        self.elements: list[Element] = []
        self.chains: list[Chain] = []
        self.shared: list[Element] = []
        self.ports = [ISOLATED.element(port)] if port else []
        if is_admitted:
            self.elements += [ADMITTED[one.version].element(str(one)) for one in addresses]
        if bridge and addresses:
            guard = _guard(bridge)
            self.chains, self.shared = [guard], [BRIDGES.element(bridge)]
            to = verdict("jump", guard.name)
            self.elements += [GUARDED[one.version].element(str(one), to=to) for one in addresses]

    def add(self, undo: Undo) -> None:
        """Puts it in place; an address or a port that another attachment had is this one's from now on."""
        kernel = Nfnetlink()
        if self.ports:
            registry.add(kernel, BRIDGED, self.owner, self.ports, replace=True)
            undo.push("end isolation", lambda: registry.remove(kernel, BRIDGED, self.owner))
        if self.elements:
            registry.add(
                kernel, ROUTED, self.owner, self.elements, chains=self.chains, shared=self.shared, replace=True
            )
            undo.push("end admission", lambda: _remove(kernel, self.owner))

    def problems(self) -> list[str]:
        """What is not as `add` left it, each in words."""
        found = []
        if self.ports:
            found += registry.problems(Nfnetlink(), BRIDGED, self.owner, self.ports)
        if self.elements:
            found += registry.problems(Nfnetlink(), ROUTED, self.owner, self.elements, self.chains, self.shared)
        return found


def remove(owner: Owner) -> None:
    """Removes what an attachment has; nothing where it has nothing, as where the kernel has no nf_tables."""
    if kernel := Nfnetlink.if_there():
        registry.remove(kernel, BRIDGED, owner)
        _remove(kernel, owner)


def evict(owner: Owner, addresses: Sequence[Address]) -> None:
    """Remove what other attachments have under an attachment's addresses, which are no longer theirs."""
    from shared.nft import former

    former.evict(Nfnetlink(), INET, ("admitted", "guarded"), addresses, owner)


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Removes that of attachments of a network that are not among the valid (container id, ifname)."""
    if kernel := Nfnetlink.if_there():
        for ruleset in (BRIDGED, ROUTED):
            registry.collect(kernel, ruleset, network, valid)
        _forget_bridges(kernel)


def try_out(*, is_isolated: bool) -> None:
    """Raises CniError where the kernel cannot do it; changes nothing."""
    kernel = Nfnetlink()
    registry.try_out(kernel, ROUTED, [_guard("none")])
    if is_isolated:
        registry.try_out(kernel, BRIDGED)


def _guard(bridge: str) -> Chain:
    rules = [
        Rule("the pod's own bridge", link("iifname", bridge), return_()),
        Rule("others that are kept apart", meta("iifname"), lookup(BRIDGES), drop()),
    ]
    return addressed(INET, PREFIX, rules)


def _remove(kernel: Nfnetlink, owner: Owner) -> None:
    registry.remove(kernel, ROUTED, owner)
    _forget_bridges(kernel)


def _forget_bridges(kernel: Nfnetlink) -> None:
    """Takes out each bridge to whose chain no pod's address leads any more.

    The kernel counts: it refuses to remove a chain that is in use, and with it the whole transaction.
    """
    for message in kernel.dump_elements(BRIDGES):
        name = BRIDGES.show(message["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"])
        try:
            kernel.commit([BRIDGES.element(name).remove(), *_guard(name).remove()])
        except NetlinkError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY):
                raise
