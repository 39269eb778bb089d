"""Delete host ports from nf_tables and iptables, whichever backend made them."""

from __future__ import annotations

from shared.cni.plugin import run_all
from shared.hostports import iptables
from shared.hostports import nftables as hostports
from shared.nft.transaction import Nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from shared.net.owner import Owner


def remove(owner: Owner) -> None:
    """Delete an attachment's host ports, the reference's too. Do nothing if there are none."""
    run_all(lambda: _remove_from_nftables(owner), lambda: iptables.remove(owner, hostports.delete_flows))


def _remove_from_nftables(owner: Owner) -> None:
    if kernel := Nfnetlink.if_there():
        hostports.remove(kernel, owner, hostports.delete_flows)
        hostports.remove_references(kernel, owner.container_id)


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Delete the host ports of a network's attachments that are not in `valid`, (container id, ifname)."""
    run_all(
        lambda: _collect_in_nftables(network, valid),
        lambda: iptables.collect(network, valid, hostports.delete_flows),
        iptables.set_localnet_back,
    )


def _collect_in_nftables(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    if kernel := Nfnetlink.if_there():
        hostports.collect(kernel, network, valid, hostports.delete_flows)
