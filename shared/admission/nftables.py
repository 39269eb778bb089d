"""Admission by nf_tables: accept pods' packets when forwarding, and restrict access to pods.

    chain forwarding { type filter hook forward priority filter;
        ip daddr vmap @guarded4; ip6 daddr vmap @guarded6;
        ip daddr @admitted4 ct state established,related accept; ip saddr @admitted4 accept;
        ip daddr @published4 ct status dnat accept; and for IPv6 the same }
    map guarded4 { type ipv4_addr : verdict; elements = { 10.1.0.5 : jump guard-1a2b3c4d5e6f } }
    chain guard-1a2b3c4d5e6f { iifname "cni0" return; iifname @bridges drop; }
    set bridges { type ifname; elements = { "cni0" } }

An accept ends only this chain: other tables can still drop the packet. A drop is final, so that the guards work
whichever backend admits the pods. shared/admission/isolation.py separates the pods of one bridge.
"""

from __future__ import annotations

import errno

from shared.admission import claims
from shared.admission.isolation import BRIDGES, ISOLATED, bridged, from_uplinks, guards
from shared.net.netlink import NetlinkError
from shared.net.owner import Owner
from shared.nft import labels, registry, wire
from shared.nft.expressions import accept, ct_state, ct_status, family, lookup, payload, verdict
from shared.nft.registry import BRIDGE, INET, Ruleset
from shared.nft.ruleset import ADDRESSES, VERDICT, Chain, Rule, Set, comment_of
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from shared.admission.claims import Claim
    from shared.cni.ip import Address
    from shared.nft.ruleset import Element

ADMITTED = {version: Set(INET, f"admitted{version}", (ADDRESSES[version],)) for version in (4, 6)}
PUBLISHED = {version: Set(INET, f"published{version}", (ADDRESSES[version],)) for version in (4, 6)}
GUARDED = {version: Set(INET, f"guarded{version}", (ADDRESSES[version],), (VERDICT,)) for version in (4, 6)}
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
        *(
            Rule(
                f"by host ports to IPv{version} pods", family(version), ct_status("dnat"), payload(f"{header} daddr"),
                lookup(PUBLISHED[version]), accept(),
            )
            for version, header in HEADERS.items()
        ),
    ),
    ("filter", wire.NF_INET_FORWARD, wire.NF_IP_PRI_FILTER),
)  # fmt: skip
SETS = (*ADMITTED.values(), *PUBLISHED.values(), *GUARDED.values(), BRIDGES)
ROUTED = Ruleset(INET, "firewall", SETS, (FORWARDING,))
BRIDGED = Ruleset(BRIDGE, "firewall", (ISOLATED,), ())  # to remove elements, which needs no chains


class Admission:
    """An attachment's elements in the tables, derived from its claim.

    If the claim's backend is nf_tables, its addresses are admitted, and if it is published, so are connections to its
    host ports. With a bridge, packets from other such bridges to its addresses are dropped. With a port, packets from
    other veths of the bridge to that port, or through the host to its addresses, are dropped.
    """

    def __init__(self, claim: Claim) -> None:
        self.owner = claim.owner
        self.chains: list[Chain] = []
        self.shared: list[Element] = []
        bridge, port = claim.text("bridge"), claim.text("port")
        self.routed = _routed(is_isolated=bool(port))
        self.ports = [ISOLATED.element(port)] if port else []
        sets = [ADMITTED] if claim.backend == claims.NFTABLES else []
        if sets and claim.is_published:
            sets.append(PUBLISHED)
        self.elements = [of[one.version].element(str(one)) for of in sets for one in claim.addresses]
        if bridge and claim.addresses:
            guard = guards(bridge)[bool(port)]
            self.chains, self.shared = [guard], [BRIDGES.element(bridge)]
            to = verdict("jump", guard.name)
            self.elements += [GUARDED[one.version].element(str(one), to=to) for one in claim.addresses]

    @property
    def _parts(self) -> list[tuple[Ruleset, list[Element], list[Chain], list[Element]]]:
        """The rule sets, each with its elements, chains and shared elements."""
        return [
            (bridged() if self.ports else BRIDGED, self.ports, [], []),
            (self.routed, self.elements, self.chains, self.shared),
        ]

    def _kernel(self) -> Nfnetlink | None:
        """Return a socket; None if there is no nf_tables and nothing to add."""
        return Nfnetlink() if self.ports or self.elements else Nfnetlink.if_there()

    def add(self, *, renew: bool) -> None:
        """Add the elements; take over addresses and ports that another attachment had.

        With `renew`, replace the elements of an earlier ADD.
        """
        kernel = self._kernel()
        if kernel is None:
            return
        for ruleset, elements, chains, shared in self._parts:
            if elements:
                registry.add(
                    kernel, ruleset, self.owner, elements, chains=chains, shared=shared, replace=True, renew=renew
                )
            elif renew:
                registry.remove(kernel, ruleset, self.owner)

    def is_lost(self) -> bool:
        """Return True if an element is missing, in excess, or leads to another chain, as that of another release.

        There are some in excess if a call that moved the attachment to another backend was killed.
        """
        kernel = self._kernel()
        if kernel is None:
            return False
        elements = [*self.ports, *self.elements, *self.shared]
        found = kernel.get_elements([element.query_request() for element in elements])
        if any(
            now is None or element.data not in (None, now.get("NFTA_SET_ELEM_DATA"))
            for element, now in zip(elements, found)
        ):
            return True
        return not registry.lists(kernel, self.routed, self.owner, self.elements)

    def restore(self) -> None:
        """Add missing elements and remove excess ones. Leave elements that another attachment now owns."""
        kernel = self._kernel()
        if kernel is None:
            return
        for ruleset, elements, chains, shared in self._parts:
            if not elements:
                registry.remove(kernel, ruleset, self.owner)
            elif registry.problems(kernel, ruleset, self.owner, elements, chains, shared):
                try:
                    registry.add(kernel, ruleset, self.owner, elements, chains=chains, shared=shared, renew=True)
                except registry.Conflict:
                    continue

    def problems(self) -> list[str]:
        """Return a description of each difference from the state that `add` left."""
        return [
            problem
            for ruleset, elements, chains, shared in self._parts
            if elements
            for problem in registry.problems(Nfnetlink(), ruleset, self.owner, elements, chains, shared)
        ]


def is_admitted(owner: Owner) -> bool:
    """Return True if an attachment's entry lists addresses that are admitted here."""
    kernel = Nfnetlink.if_there()
    return kernel is not None and any(
        one.of in ADMITTED.values() for one in registry.listed(kernel, ROUTED, labels.of(owner))
    )


def unnoted(network: str) -> list[Claim]:
    """Return claims for a network's attachments that older releases registered without a note.

    An attachment whose names were cut in its label is skipped.
    """
    kernel = Nfnetlink.if_there()
    found = []
    for entry in kernel.dump_elements(ROUTED.attachments) if kernel else ():
        name, _, rest = comment_of(entry.get("NFTA_SET_ELEM_USERDATA", b"")).partition(" ")
        head, _, items = rest.partition(": ")
        names = name.split("/")
        if head.split(" ")[0] != ROUTED.mechanism or names[0] != network or "~" in name:
            continue
        addresses = [item.split(" ")[1] for item in items.split(", ") if item.startswith("admitted")]
        if addresses and not claims.find(owner := Owner(*names)):
            note = {**dict(zip(claims.NAMES, names)), "addresses": addresses}
            found.append(claims.Claim(owner, note))
    return found


def remove(owner: Owner) -> None:
    """Remove an attachment's elements. Do nothing if it has none, or if the kernel has no nf_tables."""
    if kernel := Nfnetlink.if_there():
        registry.remove(kernel, BRIDGED, owner)
        _remove(kernel, owner)


def evict(owner: Owner, addresses: Sequence[Address]) -> None:
    """Remove other attachments' elements at addresses that IPAM has given to this attachment."""
    from shared.nft import former

    former.evict(Nfnetlink(), INET, ("admitted", "published", "guarded"), addresses, owner)


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Remove elements of a network's attachments that are not in `valid`, (container id, ifname)."""
    if kernel := Nfnetlink.if_there():
        for ruleset in (BRIDGED, ROUTED):
            registry.collect(kernel, ruleset, network, valid)
        _delete_unused_bridges(kernel)


def try_out(*, is_isolated: bool) -> None:
    """Raise CniError if the kernel cannot create the rule sets. Change nothing."""
    kernel = Nfnetlink()
    registry.try_out(kernel, _routed(is_isolated=is_isolated), [guards("none")[is_isolated]])
    if is_isolated:
        registry.try_out(kernel, bridged())


def _routed(*, is_isolated: bool) -> Ruleset:
    """Return the rule set of table inet; isolated pods need one more chain."""
    return Ruleset(INET, "firewall", SETS, (FORWARDING, from_uplinks())) if is_isolated else ROUTED


def _remove(kernel: Nfnetlink, owner: Owner) -> None:
    registry.remove(kernel, ROUTED, owner)
    _delete_unused_bridges(kernel)


def _delete_unused_bridges(kernel: Nfnetlink) -> None:
    """Delete each bridge from the set, with its guard chains, if no pod's address leads to them.

    The kernel counts references: it refuses the whole transaction if a chain is in use. The transaction first creates
    the chains, so that it does not fail if one is missing.
    """
    for message in kernel.dump_elements(BRIDGES):
        name = BRIDGES.show(message["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"])
        doomed = [request for guard in guards(name) for request in guard.make_and_remove_requests()]
        try:
            kernel.commit([BRIDGES.element(name).remove_request(), *doomed])
        except NetlinkError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY):
                raise
