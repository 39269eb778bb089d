"""The MAC spoof check: drops frames that arrive at a pod's port from another MAC than the pod's own.

One rule looks up two sets, so a frame costs the same however many pods there are:

    chain spoofs { type filter hook prerouting priority dstnat; iifname @guarded iifname . ether saddr != @bound drop; }
    set guarded { type ifname; elements = { "veth1a2b3c4d5e6" } }
    set bound { type ifname . ether_addr; elements = { "veth1a2b3c4d5e6" . 0a:58:0a:01:00:05 } }

Frames to link-local groups, such as LLDP's, do not reach this chain. The bridge does not forward them either, but it
would learn MACs from them. bridges.learn_no_link_local_requests() prevents that.
"""

from __future__ import annotations

from shared.nft import registry, wire
from shared.nft.expressions import drop, lookup, meta, payload
from shared.nft.registry import BRIDGE, Ruleset
from shared.nft.ruleset import ETHER_ADDR, IFNAME, Chain, Rule, Set, Table
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from shared.net.owner import Owner
    from shared.nft.ruleset import Element
    from shared.undo import Undo

GUARDED = Set(BRIDGE, "guarded", (IFNAME,))
BOUND = Set(BRIDGE, "bound", (IFNAME, ETHER_ADDR))
CHAIN = Chain(
    BRIDGE,
    "spoofs",
    (
        Rule(
            "another MAC than the pod's",
            meta("iifname"), lookup(GUARDED), payload("ether saddr", 4), lookup(BOUND, negate=True), drop(),
        ),
    ),
    ("filter", wire.NF_INET_PRE_ROUTING, wire.NF_BR_PRI_NAT_DST_BRIDGED),
)  # fmt: skip
RULESET = Ruleset(BRIDGE, "spoofcheck", (GUARDED, BOUND), (CHAIN,))
REFERENCES_TABLE = Table(wire.NFPROTO_BRIDGE, "nat")
LONGEST_NAME = 255  # bytes: NFT_NAME_MAXLEN in linux/netfilter/nf_tables.h, less the closing NUL


def add(undo: Undo, owner: Owner, mac: str) -> None:
    """Accept only frames from `mac` at the attachment's port. Replace stale rules for a port of this name."""
    kernel = Nfnetlink()
    registry.add(kernel, RULESET, owner, _elements(owner, mac), replace=True, renew=True)
    undo.push("end the MAC spoof check", lambda: registry.remove(kernel, RULESET, owner))


def remove(owner: Owner) -> None:
    """Delete the attachment's check, and the reference's for this container. Do nothing if there is none."""
    if kernel := Nfnetlink.if_there():
        registry.remove(kernel, RULESET, owner)
        _remove_references(kernel, owner)


def problems(owner: Owner, mac: str) -> list[str]:
    """Return the differences from the state that `add` leaves."""
    return registry.problems(Nfnetlink(), RULESET, owner, _elements(owner, mac))


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Delete the checks of a network's attachments that are not valid, and of dead ones of any network."""
    if kernel := Nfnetlink.if_there():
        from shared.nft import former

        registry.collect(kernel, RULESET, network, valid, former.has_lost_link)


def try_out() -> None:
    """Raise CniError if the kernel cannot check MACs. Change nothing."""
    registry.try_out(Nfnetlink(), RULESET)


def _elements(owner: Owner, mac: str) -> list[Element]:
    return [GUARDED.element(owner.host_link), BOUND.element(owner.host_link, mac)]


def _remove_references(kernel: Nfnetlink, owner: Owner) -> None:
    """Delete the chains of the reference's check in its table `bridge nat`, and the rules that lead there.

    Their names contain the container id and the interface, but no network.
    """
    name = f"cni-br-iface-{owner.container_id}-{owner.ifname}"
    if len(f"{name}-mac") > LONGEST_NAME:
        return
    chains = [Chain(REFERENCES_TABLE, one, ()) for one in (name, f"{name}-mac")]
    found = kernel.get_all([chain.query_request() for chain in chains])
    if not any(found):
        return
    base = Chain(REFERENCES_TABLE, "PREROUTING", ())
    requests = [
        base.remove_rule_request(handle)
        for handle in kernel.dump_handles(base, f"macspoofchk-{owner.container_id}-{owner.ifname}")
    ]
    for chain, is_there in zip(chains, found):
        if is_there:
            requests += chain.remove_requests()
    registry.attempt(kernel, requests)
