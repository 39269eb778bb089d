"""Filters of the frames that a bridge's port receives, one file for each."""

from __future__ import annotations

from shared.cni.plugin import supported
from shared.net import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.net.netlink import Netlink
    from shared.net.owner import Owner
    from shared.undo import Undo

SPOOFCHECK, DEDUP = "spoofcheck", "dedup"


def install(host: Netlink, undo: Undo, owner: Owner, mac: str, wanted: set[str]) -> None:
    """Install the wanted filters for the attachment's port, before it joins the bridge.

    With SPOOFCHECK, undo takes the port down before it removes the filter.
    """
    if SPOOFCHECK in wanted:
        from shared.frames import spoofcheck

        supported("macspoofchk", lambda: spoofcheck.add(undo, owner, mac))
        undo.push(f"take link {owner.host_link} down", lambda: links.set_down_if_exists(host, owner.host_link))
    if DEDUP in wanted:
        from shared.frames import dedup

        dedup.add(undo, owner, mac)


def trials(wanted: set[str]) -> list[tuple[str, Callable[[], object]]]:
    """Return keys, each with the function that raises CniError if the kernel lacks something that it needs."""
    if SPOOFCHECK not in wanted:
        return []
    from shared.frames import spoofcheck

    return [("macspoofchk", spoofcheck.try_out)]


def problems(owner: Owner, mac: str, wanted: set[str]) -> list[str]:
    """Return all differences from the filters that `install` left."""
    found: list[str] = []
    if SPOOFCHECK in wanted:
        from shared.frames import spoofcheck

        found += spoofcheck.problems(owner, mac)
    if DEDUP in wanted:
        from shared.frames import dedup

        found += dedup.problems(owner, mac)
    return found
