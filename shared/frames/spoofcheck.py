"""The MAC spoof check: what a pod's port brings from another MAC than the pod's own goes no further.

Two sets say whose, so that a frame costs the same however many pods there are:

    chain spoofs { type filter hook prerouting priority dstnat; iifname @guarded iifname . ether saddr != @bound drop; }
    set guarded { type ifname; elements = { "veth1a2b3c4d5e6" } }
    set bound { type ifname . ether_addr; elements = { "veth1a2b3c4d5e6" . 0a:58:0a:01:00:05 } }

Frames to the link-local groups, such as LLDP's, do not come here, nor are they forwarded; that the bridge learns from
them behind which port a MAC is, bridges.learn_no_link_local() ends.
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
    """Let only frames from `mac` past the attachment's port, whose name is its own: older rules for it are stale."""
    kernel = Nfnetlink()
    registry.add(kernel, RULESET, owner, _elements(owner, mac), replace=True, renew=True)
    undo.push("end the MAC spoof check", lambda: registry.remove(kernel, RULESET, owner))


def remove(owner: Owner) -> None:
    """End it, also one that the reference made for this container. Do nothing if there is none."""
    if kernel := Nfnetlink.if_there():
        registry.remove(kernel, RULESET, owner)
        _remove_references(kernel, owner)


def problems(owner: Owner, mac: str) -> list[str]:
    """What is not as `add` left it, each in words."""
    return registry.problems(Nfnetlink(), RULESET, owner, _elements(owner, mac))


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """End it for the attachments of a network that are not listed as valid, and for the dead of any network."""
    if kernel := Nfnetlink.if_there():
        from shared.nft import former

        registry.collect(kernel, RULESET, network, valid, former.has_lost_link)


def try_out() -> None:
    """Raises CniError where the kernel cannot do it; changes nothing."""
    registry.try_out(Nfnetlink(), RULESET)


def _elements(owner: Owner, mac: str) -> list[Element]:
    return [GUARDED.element(owner.host_link), BOUND.element(owner.host_link, mac)]


def _remove_references(kernel: Nfnetlink, owner: Owner) -> None:
    """The chains of the reference's check in its table `bridge nat`, and the rules that lead there.

    Without a network in their names, they are the container's that has this id.
    """
    name = f"cni-br-iface-{owner.container_id}-{owner.ifname}"
    if len(f"{name}-mac") > LONGEST_NAME:
        return
    chains = [Chain(REFERENCES_TABLE, one, ()) for one in (name, f"{name}-mac")]
    found = kernel.get_all([chain.query() for chain in chains])
    if not any(found):
        return
    base = Chain(REFERENCES_TABLE, "PREROUTING", ())
    requests = [
        base.remove_rule(handle)
        for handle in kernel.dump_handles(base, f"macspoofchk-{owner.container_id}-{owner.ifname}")
    ]
    for chain, is_there in zip(chains, found):
        if is_there:
            requests += chain.remove()
    registry.attempt(kernel, requests)
