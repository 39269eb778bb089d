"""Decide on encrypted routes: through WireGuard to each peer, and nothing in clear. Nothing here has side effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.cluster.model import Alarm, Cidr, Node, Peer, Route

SHOWN_NODES = 3  # in an alarm


def find_route(cidr: Cidr, peer: Peer, node: Node) -> Route | None:
    """Return the encrypted route to a peer's CIDR, None if there is none yet.

    It leads over the same address for all CIDRs of the peer: WireGuard has one for each key.
    """
    if not node.public_key or peer.public_key in ("", node.public_key):
        return None
    versions = [address.version for address in node.addresses]
    for via in peer.addresses:
        if via.version in versions and via not in node.addresses:
            return Route(cidr, peer.node, via, is_tunnelled=True, key=peer.public_key)
    return None


def refuse_clear(routes: Iterable[Route], more: Mapping[Cidr, str]) -> frozenset[Route]:
    """Return the encrypted ones of these routes, and refuse the CIDRs of the others, and further CIDRs of nodes.

    Without a refusal, packets would leave in clear by another route, such as the default one.
    """
    encrypted = frozenset(route for route in routes if route.key)
    done = {route.cidr for route in encrypted}
    refused = {route.cidr: route.node for route in routes} | dict(more)
    return encrypted | {_refusal(cidr, name) for cidr, name in refused.items() if cidr not in done}


def _refusal(cidr: Cidr, name: str) -> Route:
    return Route(cidr, name, cidr.network_address, is_tunnelled=False, is_refused=True)


def tell(peers: Iterable[Peer], node: Node) -> list[Alarm]:
    """Return an alarm if this node cannot encrypt, and one if it differs from peers in that it does, or does not."""
    alarms = []
    if node.encrypts and node.encryption_failure:
        effect = "the last key is in use" if node.public_key else "packets to other nodes' pods are refused"
        text = f"node {node.name} cannot encrypt: {node.encryption_failure}. Until then {effect}."
        alarms.append(Alarm("encryption-unavailable", node.name, text))
    if node.encrypts:
        found = {one.node for one in peers if one.public_key in ("", node.public_key)}
    else:
        found = {one.node for one in peers if one.public_key}
    if found:
        names = ", ".join(sorted(found)[:SHOWN_NODES]) + (", ..." if len(found) > SHOWN_NODES else "")
        differ = (
            f"{len(found)} nodes ({names}) have no WireGuard key of their own, but node {node.name} encrypts"
            if node.encrypts else f"{len(found)} nodes ({names}) encrypt, but node {node.name} does not"
        )  # fmt: skip
        text = (
            f'{differ}: their pods and this node\'s do not reach each other. Set the same "encryption" in the cluster '
            f"settings of all nodes."
        )
        alarms.append(Alarm("encryption-differs", node.name, text))
    return alarms
