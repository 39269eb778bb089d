"""Find the packet filters that drop packets of a pod although another one admits them."""

from __future__ import annotations

from shared.admission import firewalld
from shared.admission.claims import FIREWALLD, IPTABLES
from shared.iptables import variants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.admission.claims import Claim
    from shared.admission.restoration import Place
    from shared.cni.ip import Address


def find(claim: Claim, place: Place | None, zone: str) -> list[str]:
    """Return a message for each packet filter, other than the claim's, that drops packets of its addresses.

    `zone` is the zone of firewalld that the configuration names.
    """
    found = []
    if claim.backend != FIREWALLD and firewalld.is_running():
        found = firewalld.Firewalld(zone).dropped(claim.addresses, _find_link)
    if variants.deciding():
        from shared.admission import forwarding

        known = place.note["variant"] if place and claim.backend == IPTABLES else ""
        found += forwarding.dropped(claim.addresses, _find_link, known)
    return found


def _find_link(address: Address) -> str:
    """Return the name of the link by which the host reaches an address, empty if no link leads there."""
    from shared.net import links, routes
    from shared.net.netlink import Netlink

    host = Netlink()
    route = routes.towards(host, address)
    link = links.by_index(host, route["RTA_OIF"]) if route else None
    return link["IFLA_IFNAME"] if link else ""
