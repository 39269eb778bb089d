"""Remove an attachment's admission by the firewall plugin from nf_tables, iptables and firewalld."""

from __future__ import annotations

from shared.admission import claims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from shared.cni.ip import Address
    from shared.net.owner import Owner


def end(owner: Owner, addresses: Iterable[Address] = (), zone: str = "") -> None:
    """Remove an attachment's rules and those of the addresses; without a note use firewalld's `zone`."""
    from shared.admission import iptables as firewall
    from shared.admission import nftables as admission

    claims.end(
        owner,
        addresses,
        lambda: admission.remove(owner),
        firewall.remove,
        lambda addresses, note: from_firewalld(addresses, note, zone),
    )


def from_firewalld(addresses: Callable[[], AbstractSet[Address]], note: claims.Note, zone: str) -> None:
    """Remove addresses from the zone of a note; without a note from `zone`, if firewalld runs.

    An attachment by the reference plugin has no note. Ask the bus only if there is a note with a zone, or there are
    addresses.
    """
    used = note.get(claims.ZONE) if note else zone
    if not isinstance(used, str) or not used:
        return
    from shared.admission import firewalld

    if note or (addresses() and firewalld.is_running()):
        firewalld.remove(addresses, used)
