"""Masquerading, one file for each packet filter."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet
    from typing import Protocol

    from shared.cni.ip import Prefix
    from shared.net.owner import Owner
    from shared.undo import Undo

    class Masquerading(Protocol):
        """The functions of each module here."""

        def add(
            self, undo: Undo, owner: Owner, addresses: Sequence[Prefix], exempt: Sequence[Prefix], /, *,
            replace: bool = True,
        ) -> None:  # fmt: skip
            """Masquerade packets from the addresses, but for those to their own networks, groups and `exempt`.

            Take over an address from another attachment, unless `replace` is False.
            """

        def remove(self, owner: Owner, /) -> None:
            """Remove the attachment's rules. Do nothing if there are none."""

        def problems(self, owner: Owner, addresses: Sequence[Prefix], exempt: Sequence[Prefix], /) -> list[str]:
            """Return a text for each rule that is missing."""

        def collect(self, network: str, valid: AbstractSet[tuple[str, str]], /) -> None:
            """Remove the rules of a network's attachments that are not among the valid (container id, ifname)."""

        def try_out(self, exempt: Sequence[Prefix], /) -> None:
            """Raise CniError if the node cannot masquerade with these exemptions. Change nothing."""


def backend(name: str) -> Masquerading:
    """Return the module that an ipMasqBackend names; nftables if empty. A call loads this one alone."""
    if name == "iptables":
        from shared.masquerade import iptables

        return iptables
    from shared.masquerade import nftables

    return nftables
