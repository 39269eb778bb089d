"""De-duplication on promiscuous bridges: what reached a pod by the bridge does not reach it by the host once more.

A promiscuous bridge passes each frame to the host, too. The host leaves alone what has another pod's MAC, but not a
frame that was to the host and whose destination netfilter has changed to a pod of the same bridge (a service's
address, with bridge-nf-call-iptables): the bridge takes it to that pod, and the host routes the copy to it, so that
the pod gets it from the bridge's MAC a second time. That copy is what goes here; what a pod sends to itself, which the
bridge does not bring back to its port, has only this way and stays.

    chain copies { type filter hook input priority filter;
                   meta pkttype host ether daddr @podmacs iifname . ether daddr != @selves drop; }
"""

from __future__ import annotations

from shared.cni.errors import UnsupportedField
from shared.nft import registry, wire
from shared.nft.expressions import cmp, drop, lookup, meta, payload
from shared.nft.registry import BRIDGE, Ruleset
from shared.nft.ruleset import ETHER_ADDR, IFNAME, Chain, Rule, Set
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from shared.net.owner import Owner
    from shared.nft.ruleset import Element
    from shared.undo import Undo

PODS = Set(BRIDGE, "podmacs", (ETHER_ADDR,))
SELVES = Set(BRIDGE, "selves", (IFNAME, ETHER_ADDR))
CHAIN = Chain(
    BRIDGE,
    "copies",
    (
        Rule(
            "the host's copy",
            meta("pkttype"), cmp("eq", bytes((wire.PACKET_HOST,))), payload("ether daddr"), lookup(PODS),
            meta("iifname"), payload("ether daddr", 4), lookup(SELVES, negate=True), drop(),
        ),
    ),
    ("filter", wire.NF_INET_LOCAL_IN, wire.NF_BR_PRI_FILTER_BRIDGED),
)  # fmt: skip
RULESET = Ruleset(BRIDGE, "dedup", (PODS, SELVES), (CHAIN,))


def add(undo: Undo, owner: Owner, mac: str) -> None:
    """The pod with this MAC gets each frame once; nothing where the kernel cannot: it has no such bridge tables.

    A MAC that pods of two bridges have is the later one's, and the other's after that only by its next ADD.
    """
    try:
        kernel = Nfnetlink()
        registry.add(kernel, RULESET, owner, _elements(owner, mac), replace=True, renew=True)
    except UnsupportedField:
        return
    undo.push("end the de-duplication", lambda: registry.remove(kernel, RULESET, owner))


def remove(owner: Owner) -> None:
    """Ends it; nothing where there is none."""
    if kernel := Nfnetlink.if_there():
        registry.remove(kernel, RULESET, owner)


def problems(owner: Owner, mac: str) -> list[str]:
    """What is not as `add` left it, each in words."""
    kernel = Nfnetlink.if_there()
    return registry.problems(kernel, RULESET, owner, _elements(owner, mac)) if kernel else []


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """End it for the attachments of a network that are not listed as valid, and for the dead of any network."""
    if kernel := Nfnetlink.if_there():
        from shared.nft import former

        registry.collect(kernel, RULESET, network, valid, former.has_lost_link)


def _elements(owner: Owner, mac: str) -> list[Element]:
    return [PODS.element(mac), SELVES.element(owner.host_link, mac)]
