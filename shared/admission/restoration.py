"""Admit a network's living pods again after their rules were deleted, or another backend decides."""

from __future__ import annotations

from shared import steps
from shared.admission import claims
from shared.admission import nftables as admission
from shared.admission.backends import from_firewalld
from shared.admission.claims import IN_NFTABLES, NFTABLES
from shared.cni.errors import CniError
from shared.cni.plugin import run_all
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from shared.admission.claims import Claim
    from shared.admission.firewalld import Firewalld
    from shared.admission.iptables import Iptables
    from shared.net.owner import Owner

    Place = Firewalld | Iptables


def has_lost(owner: Owner, place: Place | None) -> bool:
    """Return True if rules of the network's other attachments may be missing, judging by one or two of them.

    An ADD thus costs the same however many pods there are, unless rules were deleted or another backend decides.
    """
    found = claims.witnesses(owner)
    if not found:  # older releases wrote no note for admission by nf_tables
        return found is None or place is not None
    if any(not _is_at(place, claim) for claim in found) or (place and place.is_lost(found)):
        return True
    return any(admission.Admission(claim).is_lost() for claim in found if claim.is_complete)


def _is_at(place: Place | None, claim: Claim) -> bool:
    return place.has(claim) if place else claim.backend == NFTABLES


def restore(owner: Owner, place: Place | None, valid: AbstractSet[tuple[str, str]] | None = None) -> None:
    """Admit the living attachments of the owner's network again, except the owner. Report failures on stderr."""
    steps.begin("restore")
    found = claims.living(owner.network, valid)
    if place:
        found += [claim for claim in admission.unnoted(owner.network) if claims.is_alive(claim, valid)]
    own = (owner.container_id, owner.ifname)
    found = [claim for claim in found if (claim.owner.container_id, claim.owner.ifname) != own]
    try:
        readmit(found, place)
    except CniError as error:
        complain(f"firewall: not all pods of {owner.network} could be admitted again: {error}")


def readmit(found: list[Claim], place: Place | None) -> None:
    """Admit the pods of claims again, and note the place. Raise the first error; try each even if another fails."""
    moved = [claim.moved(**(place.note if place else IN_NFTABLES)) for claim in found]
    for old, new in zip(found, moved):
        if old.text(claims.ZONE) not in ("", new.text(claims.ZONE)):
            from_firewalld(lambda claim=old: claim.addresses, old.note, "")  # type: ignore[misc]
        if new.note != old.note:
            new.write()
    restored = [admission.Admission(claim).restore for claim in moved if claim.is_complete]
    run_all(*([lambda: place.admit(moved)] if place and moved else []), *restored)
