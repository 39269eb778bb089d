"""De-duplication on promiscuous bridges: drops the host's copy of a packet that the bridge delivers to a pod.

A promiscuous bridge passes each frame to the host, too. The host ignores frames to another pod's MAC. There is one
exception: with bridge-nf-call-iptables, netfilter may redirect a frame to the host (to a Service address, for example)
to a pod of the same bridge. The bridge delivers this frame to the pod. The host would also route its copy to the pod,
from the bridge's MAC. The rule drops that copy. It keeps packets from a pod to itself. A bridge does not send a frame
back out of its port, so the host's copy is the only one.

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
    """Drop the host's copies of frames to the pod with this MAC. Do nothing if the kernel lacks bridge tables.

    If pods of two bridges have the same MAC, the later pod owns the rule. The earlier pod has none until its next ADD.
    """
    try:
        kernel = Nfnetlink()
        registry.add(kernel, RULESET, owner, _elements(owner, mac), replace=True, renew=True)
    except UnsupportedField:
        return
    undo.push("end the de-duplication", lambda: registry.remove(kernel, RULESET, owner))


def remove(owner: Owner) -> None:
    """Delete the attachment's de-duplication. Do nothing if there is none."""
    if kernel := Nfnetlink.if_there():
        registry.remove(kernel, RULESET, owner)


def problems(owner: Owner, mac: str) -> list[str]:
    """Return the differences from the state that `add` leaves."""
    kernel = Nfnetlink.if_there()
    return registry.problems(kernel, RULESET, owner, _elements(owner, mac)) if kernel else []


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Delete the de-duplication of a network's attachments that are not valid, and of dead ones of any network."""
    if kernel := Nfnetlink.if_there():
        from shared.nft import former

        registry.collect(kernel, RULESET, network, valid, former.has_lost_link)


def _elements(owner: Owner, mac: str) -> list[Element]:
    return [PODS.element(mac), SELVES.element(owner.host_link, mac)]
