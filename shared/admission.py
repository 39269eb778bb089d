"""End an attachment's admission by the firewall plugin, in nf_tables, iptables and firewalld."""

from __future__ import annotations

from shared.net import claims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shared.cni.ip import Address
    from shared.net.owner import Owner


def end(owner: Owner, addresses: Iterable[Address] = (), zone: str = "") -> None:
    """Remove what an attachment has, and what the addresses have; in firewalld's `zone` if no note says where."""
    from shared.iptables import firewall
    from shared.nft import admission

    claims.end(
        owner,
        addresses,
        lambda: admission.remove(owner),
        firewall.remove,
        lambda addresses, note: from_firewalld(addresses, note, zone),
    )


def from_firewalld(addresses: Callable[[], Iterable[Address]], note: claims.Note, zone: str) -> None:
    """Take addresses out of the zone that a note names, or of `zone` if there is no note."""
    used = note.get(claims.ZONE) if note else zone
    if isinstance(used, str) and used:
        from shared.dbus import firewalld

        firewalld.remove(addresses, used)
